from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from diptych_common.authentication import (
    Authentication,
    Identify,
    administrator,
    trusted,
    trusted_headers,
)
from diptych_common.errors import ApiError, ServiceUnavailable, Unauthorized
from diptych_common.identity import Identity
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

ALICE = Identity(user_id="alice", project_id="alpha", roles=frozenset({"member"}))
CHALLENGE = 'Keystone uri="https://keystone.example/v3"'


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with who is asking; `/401` and `/403` with that status."""
    request = Request(scope, receive)
    who: Identity = request.state.who
    status = {"/401": 401, "/403": 403}.get(request.url.path, 200)
    response = JSONResponse({"user": who.user_id, "anonymous": who.is_anonymous}, status)
    await response(scope, receive, send)


def render_error(_scope: Scope, error: ApiError) -> Response:
    return PlainTextResponse(error.message, error.status, error.headers)


def guarded(
    identify: Identify,
    *,
    allow_anonymous: bool = False,
    forgiving: bool = True,
    challenge: str | None = CHALLENGE,
) -> Authentication:
    return Authentication(
        echo,
        identify=identify,
        allow_anonymous=allow_anonymous,
        forgiving=forgiving,
        render_error=render_error,
        www_authenticate=challenge,
    )


async def get(app: Authentication, path: str = "/", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://images") as client:
        return await client.get(path, headers=headers)


async def identify(scope: Scope) -> Identity | None:
    """`alice` is a token, none is nobody, `down` finds Keystone down, all others are refused."""
    match dict(scope["headers"]).get(b"x-auth-token"):
        case None:
            return None
        case b"alice":
            return ALICE
        case b"down":
            raise ServiceUnavailable("Keystone is down.", headers={"Retry-After": "5"})
        case _:
            raise Unauthorized("The token is not valid.")


async def test_the_application_sees_who_is_asking() -> None:
    answer = await get(guarded(identify), **{"x-auth-token": "alice"})
    assert (answer.status_code, answer.json()["user"]) == (200, "alice")
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize("headers", [{}, {"x-auth-token": "mallory"}])
async def test_a_request_without_a_valid_token_ends_with_401(headers: dict[str, str]) -> None:
    answer = await get(guarded(identify), **headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == CHALLENGE


@pytest.mark.parametrize("headers", [{}, {"x-auth-token": "mallory"}])
async def test_where_anonymous_access_is_allowed_it_goes_on(headers: dict[str, str]) -> None:
    answer = await get(guarded(identify, allow_anonymous=True), **headers)
    assert answer.json() == {"user": None, "anonymous": True}


async def test_a_bad_token_may_be_no_way_to_be_anonymous() -> None:
    app = guarded(identify, allow_anonymous=True, forgiving=False)
    assert (await get(app)).json() == {"user": None, "anonymous": True}
    assert (await get(app, **{"x-auth-token": "mallory"})).status_code == 401


@pytest.mark.parametrize("allow_anonymous", [False, True])
async def test_keystone_out_of_reach_is_503_and_not_401(allow_anonymous: bool) -> None:
    answer = await get(
        guarded(identify, allow_anonymous=allow_anonymous), **{"x-auth-token": "down"}
    )
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert "www-authenticate" not in answer.headers


async def test_a_401_of_the_application_gets_the_challenge_too() -> None:
    app = guarded(identify)
    answer = await get(app, "/401", **{"x-auth-token": "alice"})
    assert answer.headers["www-authenticate"] == CHALLENGE
    answer = await get(app, "/403", **{"x-auth-token": "alice"})
    assert "www-authenticate" not in answer.headers


async def test_without_a_challenge_a_401_has_none() -> None:
    answer = await get(guarded(identify, challenge=None))
    assert answer.status_code == 401
    assert "www-authenticate" not in answer.headers


async def test_a_stranger_is_turned_away_before_the_body_is_read() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("the body was asked for")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = scope_with([], method="PUT")
    await guarded(identify)(scope, receive, send)
    assert sent[0]["status"] == 401


async def test_the_lifespan_is_left_alone() -> None:
    seen: list[Scope] = []

    async def application(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope)

    async def never() -> Any:
        raise AssertionError

    app = Authentication(
        application,
        identify=identify,
        allow_anonymous=False,
        render_error=render_error,
        www_authenticate=None,
    )
    await app({"type": "lifespan"}, never, lambda _: never())
    assert seen == [{"type": "lifespan"}]


async def test_without_authentication_everyone_is_an_administrator() -> None:
    who = await administrator(scope_with([]))
    assert who is not None
    assert "admin" in who.roles
    assert who.project_id is None
    assert not who.is_anonymous


def scope_with(
    headers: Sequence[tuple[str, str]],
    *,
    client: tuple[str, int] | None = ("127.0.0.1", 50000),
    method: str = "GET",
) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": "/",
        "client": client,
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }


def test_trusted_headers_say_who_is_asking() -> None:
    who = trusted_headers(
        scope_with(
            [
                ("X-Identity-Status", "Confirmed"),
                ("X-User-Id", "alice"),
                ("X-User-Name", "Alice"),
                ("X-User-Domain-Id", "default"),
                ("X-Project-Id", "alpha"),
                ("X-Project-Name", "Alpha"),
                ("X-Project-Domain-Id", "default"),
                ("X-Roles", "Member, reader,"),
                ("X-Service-Roles", "service,Admin"),
                ("X-Service-User-Id", "nova"),
                ("X-Service-Project-Id", "services"),
            ]
        )
    )
    assert who == Identity(
        user_id="alice",
        user_name="Alice",
        user_domain_id="default",
        project_id="alpha",
        project_name="Alpha",
        project_domain_id="default",
        roles=frozenset({"member", "reader"}),
        service_roles=frozenset({"service", "Admin"}),
        service_user_id="nova",
        service_project_id="services",
    )


def test_trusted_headers_carry_domain_and_system_scope() -> None:
    who = trusted_headers(
        scope_with([("x-user-id", "a"), ("x-domain-id", "d"), ("openstack-system-scope", "all")])
    )
    assert who == Identity(user_id="a", domain_id="d", system_scope="all")


@pytest.mark.parametrize(
    "headers", [[], [("x-user-id", "")], [("x-identity-status", "Invalid"), ("x-user-id", "a")]]
)
def test_headers_that_vouch_for_nobody_are_nobody(headers: list[tuple[str, str]]) -> None:
    assert trusted_headers(scope_with(headers)) is None


@pytest.mark.parametrize("name", ["x-user-id", "x-project-id"])
def test_an_id_is_as_long_as_columns_hold(name: str) -> None:
    assert trusted_headers(scope_with([(name, "i" * 255)])) is not None
    with pytest.raises(Unauthorized):
        trusted_headers(scope_with([(name, "i" * 256)]))


def test_a_trusted_header_that_comes_twice_is_refused() -> None:
    with pytest.raises(Unauthorized):
        trusted_headers(scope_with([("x-roles", "member"), ("X-Roles", "admin")]))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "images.example", "1.127.0.0"])
def test_headers_are_not_trusted_on_an_open_address(host: str) -> None:
    with pytest.raises(ValueError, match="can't be trusted"):
        trusted(bind_host=host)


def test_a_proxy_must_be_an_address_or_a_network() -> None:
    with pytest.raises(ValueError, match="nginx"):
        trusted(bind_host="0.0.0.0", proxies=["nginx"])


@pytest.mark.parametrize(
    ("bind_host", "proxies", "peer", "accepted"),
    [
        ("127.0.0.1", [], "127.0.0.1", True),
        ("localhost", [], "::1", True),
        ("::1", [], "::1", True),
        ("127.0.0.1", [], "192.0.2.1", False),
        ("0.0.0.0", ["192.0.2.1"], "192.0.2.1", True),
        ("0.0.0.0", ["192.0.2.1"], "192.0.2.2", False),
        ("0.0.0.0", ["192.0.2.1"], "127.0.0.1", False),
        ("0.0.0.0", ["192.0.2.7/24"], "192.0.2.200", True),
        ("::", ["192.0.2.1"], "::ffff:192.0.2.1", True),
        ("::", ["2001:db8::/32"], "2001:db8::1", True),
        ("0.0.0.0", ["192.0.2.1"], "unix", False),
        ("0.0.0.0", ["192.0.2.1"], None, False),
    ],
)
async def test_only_the_named_proxies_are_trusted(
    bind_host: str, proxies: list[str], peer: str | None, accepted: bool
) -> None:
    identify = trusted(bind_host=bind_host, proxies=proxies)
    client = None if peer is None else (peer, 50000)
    scope = scope_with([("x-user-id", "alice"), ("x-roles", "member")], client=client)
    if accepted:
        assert await identify(scope) == Identity(user_id="alice", roles=frozenset({"member"}))
    else:
        with pytest.raises(Unauthorized):
            await identify(scope)
