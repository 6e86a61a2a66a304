"""Keys and tokens of realms, and a small application that tells whom it takes a caller for."""

import base64
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from diptych_artifacts.api.errors import render
from diptych_artifacts.api.versions import Versions
from diptych_artifacts.authentication import identification
from diptych_artifacts.settings import load
from diptych_common import service
from diptych_common.application import assemble
from diptych_common.identity import Identity
from diptych_common.metrics import Metrics
from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

router = APIRouter()


@router.get("/schemas")
async def who(request: Request) -> Response:
    """Who asks, without what is not known of them."""
    asking: Identity = request.state.who
    told = {"user": asking.user_id, "name": asking.user_name, "project": asking.project_id}
    return json_response(
        {
            **{name: value for name, value in told.items() if value is not None},
            "roles": sorted(asking.roles),
            "anonymous": asking.is_anonymous,
        }
    )


@asynccontextmanager
async def asked(*, peer: str = "127.0.0.1", **options: str) -> AsyncGenerator[httpx.AsyncClient]:
    """A client, at the address `peer`, of an application with the service's authentication.

    `options` are settings: PASTE_DEPLOY__FLAVOR="noauth". /schemas answers with who asks.
    """
    given = {"DEFAULT__BIND_HOST": "127.0.0.1", **options}
    environ = {f"DIPTYCH_ARTIFACTS__{name}": value for name, value in given.items()}
    settings = load(environ=environ).settings
    metrics = Metrics()
    front = service.middleware_stack(
        settings,
        identification=identification(settings, metrics=metrics),
        metrics=metrics,
        render_error=render,
        checks={},
        versions=Middleware(Versions, render_error=render),
        title="Who",
        routers=[router],
    )
    app = assemble(
        title="Who",
        version="1",
        routers=[router],
        lifespan=lambda _: nullcontext({}),
        middleware=front.middleware,
        render_error=render,
    )

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {}}, receive, send)

    transport = httpx.ASGITransport(call, client=(peer, 50000))
    async with (
        front.opened,
        httpx.AsyncClient(transport=transport, base_url="http://artifacts.example") as client,
    ):
        yield client


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """A new RSA key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def jwk(key: Key, *, kid: str, algorithm: str) -> dict[str, Any]:
    """The key as a JWK, private part included."""
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True)
    return {
        **{name: value for name, value in made.items() if name != "key_ops"},
        "kid": kid,
        "alg": algorithm,
        "use": "sig",
    }


def public(private: Mapping[str, Any]) -> dict[str, Any]:
    """A JWK without its private part."""
    secret = {"d", "p", "q", "dp", "dq", "qi"}
    return {name: value for name, value in private.items() if name not in secret}


def claims(issuer: str, **changes: Any) -> dict[str, Any]:
    """What an access token of Keycloak's says; a change to None leaves a claim out."""
    now = int(time.time())
    usual = {
        "exp": now + 300,
        "iat": now,
        "jti": "0c1c2b6e-7d1f-4a8c-9d5e-0d6f0f7c7b11",
        "iss": issuer,
        "aud": ["artifacts", "account"],
        "sub": "u-alice",
        "typ": "Bearer",
        "azp": "glare",
        "realm_access": {"roles": ["member", "offline_access"]},
        "scope": "profile email",
        "preferred_username": "alice",
    }
    return {name: value for name, value in (usual | changes).items() if value is not None}


def token(
    said: object, key: Key, *, kid: object = "k1", algorithm: str = "RS256", **header: object
) -> str:
    """A token that is signed as it says, whatever it says."""
    head = {"alg": algorithm, "typ": "JWT", "kid": kid, **header}
    start = encoded({name: value for name, value in head.items() if value is not None})
    text = f"{start}.{encoded(said)}"
    signature = jwt.get_algorithm_by_name(algorithm).sign(text.encode(), key)
    return f"{text}.{base64url(signature)}"


def encoded(value: object) -> str:
    """A part of a token: bytes as they are, all else as JSON."""
    return base64url(value if isinstance(value, bytes) else json.dumps(value).encode())


def base64url(data: bytes) -> str:
    """As RFC 7515 writes bytes."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
