"""Decisions on real tokens of a real Keystone, compared with the real keystonemiddleware's."""

import asyncio
import json
import logging
import subprocess
import uuid
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev import ports
from dev.keystone import PASSWORD
from dev.keystone import Keystone as RealKeystone
from diptych_common.errors import ServiceUnavailable, Unauthorized
from diptych_common.identity import Identity
from diptych_common.keystone import Keystone, challenge
from diptych_common.settings import KeystoneAuthtoken

RULES = [
    {"service": "image", "method": "GET", "path": "/v2/images"},
    {"service": "image", "method": "GET", "path": "/v2/images/{image_id}"},
    {"service": "image", "method": "PUT", "path": "/v2/**"},
    {"service": "compute", "method": "DELETE", "path": "/v2/images/*"},
]
VARIANTS = {
    "plain": "",
    "delayed": "delay_auth_decision = true\n",
    "lenient": "service_token_roles_required = false\n",
    "other_roles": "service_token_roles = manager,auditor\n",
    "unknown_service": "service_type = telescope\n",
}
REFUSED = "refused"


@dataclass(frozen=True)
class Request:
    user: str | None = None
    service: str | None = None
    method: str = "GET"
    path: str = "/v2/images"

    def scope(self, tokens: Mapping[str, str], **headers: str) -> dict[str, Any]:
        return {
            "type": "http",
            "method": self.method,
            "path": self.path,
            "root_path": "",
            "headers": [
                (name.encode(), value.encode())
                for name, value in (self.headers(tokens) | headers).items()
            ],
        }

    def headers(self, tokens: Mapping[str, str]) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self.user is not None:
            headers["x-auth-token"] = tokens[self.user]
        if self.service is not None:
            headers["x-service-token"] = tokens[self.service]
        return headers


REQUESTS = {
    "member": Request("demo"),
    "reader": Request("reader"),
    "manager": Request("manager"),
    "admin": Request("admin"),
    "capital role": Request("capital"),
    "system": Request("system"),
    "domain": Request("domain"),
    "unscoped": Request("unscoped"),
    "none": Request(),
    "only a service token": Request(service="glance"),
    "garbage": Request("garbage"),
    "revoked": Request("revoked"),
    "expired": Request("expired"),
    "expired with service": Request("expired", "glance"),
    "expired with ordinary token as service": Request("expired", "other"),
    "expired service token": Request("demo", "expired"),
    "service": Request("demo", "glance"),
    "ordinary token as service": Request("demo", "other"),
    "manager as service": Request("demo", "manager"),
    "garbage as service": Request("demo", "garbage"),
    "revoked with service": Request("revoked", "glance"),
    "unrestricted credential": Request("credential", method="DELETE", path="/v2/images/a"),
    "rule covers": Request("restricted"),
    "rule covers a name": Request("restricted", path="/v2/images/a"),
    "rule covers any depth": Request("restricted", method="PUT", path="/v2/images/a/file"),
    "no rule for the method": Request("restricted", method="POST"),
    "no rule for HEAD": Request("restricted", method="HEAD"),
    "no rule for the depth": Request("restricted", path="/v2/images/a/members"),
    "rule of another service": Request("restricted", method="DELETE", path="/v2/images/a"),
    "no rules at all": Request("forbidden"),
    "rule, with service": Request("restricted", "glance"),
    "no rule, but service": Request("restricted", "glance", method="POST"),
}


@pytest.fixture(scope="module")
def tokens(keystone: RealKeystone) -> dict[str, str]:
    # Names of our own, for other workers run this too and share this Keystone.
    mine = uuid.uuid4().hex
    role = keystone.call("POST", "/roles", {"role": {"name": f"Role-{mine}"}})["role"]["id"]
    user = {"name": f"user-{mine}", "password": PASSWORD, "domain_id": "default"}
    user_id = keystone.call("POST", "/users", {"user": user})["user"]["id"]
    project_id = keystone.project_id("demo")
    keystone.call("PUT", f"/projects/{project_id}/users/{user_id}/roles/{role}")
    revoked = keystone.token("demo", "demo")
    revoke(keystone, revoked)
    demo, demo_token = keystone.user_id("demo"), keystone.token("demo", "demo")

    def credential(name: str, **fields: object) -> str:
        document = {
            "application_credential": {"name": f"{name}-{mine}", "secret": PASSWORD, **fields}
        }
        made = keystone.call(
            "POST", f"/users/{demo}/application_credentials", document, token=demo_token
        )["application_credential"]
        return keystone.authenticate(
            {
                "methods": ["application_credential"],
                "application_credential": {"id": made["id"], "secret": PASSWORD},
            }
        )

    return {
        "demo": demo_token,
        "capital": keystone.token(f"user-{mine}", "demo"),
        "reader": keystone.token("reader", "demo"),
        "manager": keystone.token("manager", "demo"),
        "other": keystone.token("other", "other"),
        "admin": keystone.token("admin", "admin"),
        "glance": keystone.token("glance", "service"),
        "system": keystone.token("admin", system=True),
        "domain": keystone.token("admin", domain="Default"),
        "unscoped": keystone.token("loner"),
        "garbage": "gAAAAABnotatokenatall",
        "revoked": revoked,
        "expired": keystone.expired(demo_token),
        "credential": credential("unrestricted"),
        "restricted": credential("restricted", access_rules=RULES),
        "forbidden": credential("forbidden", access_rules=RULES[3:]),
    }


@pytest.fixture(scope="module")
def configurations(
    keystone: RealKeystone, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("configurations")
    files = {name: folder / f"{name}.conf" for name in VARIANTS}
    for name, file in files.items():
        service_type = "" if "service_type" in VARIANTS[name] else "service_type = image\n"
        file.write_text(
            "[keystone_authtoken]\n"
            f"auth_url = {keystone.url}\n"
            "www_authenticate_uri = https://keystone.example/v3\n"
            "auth_type = password\n"
            "username = glance\n"
            f"password = {PASSWORD}\n"
            "user_domain_id = default\n"
            "project_name = service\n"
            "project_domain_id = default\n"
            "token_cache_time = -1\n"
            f"{service_type}{VARIANTS[name]}"
        )
    return files


@pytest.fixture(scope="module")
def oracle(configurations: Mapping[str, Path], keystonemiddleware_env: Path) -> Generator[str]:
    process = subprocess.Popen(
        [
            str(keystonemiddleware_env / "python"),
            str(Path(__file__).with_name("keystonemiddleware_oracle.py")),
            "serve",
            *(f"{name}={file}" for name, file in configurations.items()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        if process.stdout is None:
            raise RuntimeError("the oracle has no output")
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.terminate()


@pytest.fixture
async def open_keystone(
    configurations: Mapping[str, Path],
) -> AsyncGenerator[Callable[..., Keystone]]:
    opened: list[Keystone] = []

    def open_one(variant: str = "plain", **changes: object) -> Keystone:
        keystone = Keystone(settings(configurations[variant], **changes), service_type="artifact")
        opened.append(keystone)
        return keystone

    yield open_one
    for keystone in opened:
        await keystone.__aexit__()


def revoke(keystone: RealKeystone, token: str) -> None:
    httpx.delete(
        f"{keystone.url}/auth/tokens",
        headers={"x-auth-token": token, "x-subject-token": token},
        trust_env=False,
    ).raise_for_status()


def settings(file: Path, **changes: object) -> KeystoneAuthtoken:
    lines = file.read_text().splitlines()[1:]
    options: dict[str, object] = {
        name: value for name, _, value in (line.partition(" = ") for line in lines)
    }
    return KeystoneAuthtoken.model_validate(options | changes)


async def decision(keystone: Keystone, scope: dict[str, Any]) -> Identity | str:
    try:
        return await keystone.identify(scope) or REFUSED
    except Unauthorized:
        return REFUSED


async def oracle_answer(
    oracle: str, variant: str, request: Request, tokens: Mapping[str, str]
) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.request(
            request.method,
            f"{oracle}{request.path}",
            headers=request.headers(tokens) | {"x-oracle": variant},
        )


async def oracle_decision(
    oracle: str, variant: str, request: Request, tokens: Mapping[str, str]
) -> Identity | str:
    """What Glance makes of the headers that keystonemiddleware sets."""
    answer = await oracle_answer(oracle, variant, request, tokens)
    if answer.status_code == 401:
        return REFUSED
    assert answer.status_code == 200, answer.text
    seen: dict[str, str] = json.loads(answer.headers["x-seen"])
    if seen["x-identity-status"] != "Confirmed":
        return REFUSED

    def roles(header: str) -> frozenset[str]:
        return frozenset(role for role in seen.get(header, "").split(",") if role)

    return Identity(
        user_id=seen.get("x-user-id"),
        user_name=seen.get("x-user-name"),
        user_domain_id=seen.get("x-user-domain-id"),
        project_id=seen.get("x-project-id"),
        project_name=seen.get("x-project-name"),
        project_domain_id=seen.get("x-project-domain-id"),
        domain_id=seen.get("x-domain-id"),
        roles=frozenset(role.lower() for role in roles("x-roles")),
        service_roles=roles("x-service-roles"),
        service_user_id=seen.get("x-service-user-id"),
        service_project_id=seen.get("x-service-project-id"),
        system_scope=seen.get("openstack-system-scope"),
    )


async def test_a_member_is_who_keystone_says(
    tokens: Mapping[str, str], keystone: RealKeystone, open_keystone: Callable[..., Keystone]
) -> None:
    who = await open_keystone().identify(Request("demo", "glance").scope(tokens))
    assert who is not None
    assert {"service", "admin"} <= who.service_roles
    assert who == Identity(
        user_id=keystone.user_id("demo"),
        user_name="demo",
        user_domain_id="default",
        project_id=keystone.project_id("demo"),
        project_name="demo",
        project_domain_id="default",
        roles=frozenset({"member", "reader"}),
        service_roles=who.service_roles,
        service_user_id=keystone.user_id("glance"),
        service_project_id=keystone.project_id("service"),
    )


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("variant", VARIANTS)
async def test_decides_as_keystonemiddleware(
    variant: str,
    name: str,
    tokens: Mapping[str, str],
    oracle: str,
    open_keystone: Callable[..., Keystone],
) -> None:
    request = REQUESTS[name]
    ours = await decision(open_keystone(variant), request.scope(tokens))
    assert ours == await oracle_decision(oracle, variant, request, tokens)


async def test_what_is_remembered_changes_no_decision(
    tokens: Mapping[str, str], open_keystone: Callable[..., Keystone]
) -> None:
    forgetful, mindful = open_keystone(), open_keystone(token_cache_time=60)
    for name, request in [*REQUESTS.items(), *reversed(REQUESTS.items())]:
        scope = request.scope(tokens)
        assert (name, await decision(mindful, scope)) == (name, await decision(forgetful, scope))


async def test_a_service_vouches_for_an_expired_token_that_was_refused_before(
    tokens: Mapping[str, str], keystone: RealKeystone, open_keystone: Callable[..., Keystone]
) -> None:
    ours = open_keystone(token_cache_time=60)
    assert await decision(ours, Request("expired").scope(tokens)) == REFUSED
    vouched = await decision(ours, Request("expired", "glance").scope(tokens))
    assert isinstance(vouched, Identity)
    assert vouched.user_id == keystone.user_id("demo")
    assert await decision(ours, Request("expired").scope(tokens)) == REFUSED


SPOOFED = {
    "x-identity-status": "Confirmed",
    "x-service-identity-status": "Confirmed",
    "x-user-id": "eve",
    "x-user-name": "eve",
    "x-user-domain-id": "evil",
    "x-user-domain-name": "evil",
    "x-user": "eve",
    "x-project-id": "victim",
    "x-project-name": "victim",
    "x-project-domain-id": "evil",
    "x-project-domain-name": "evil",
    "x-domain-id": "evil",
    "x-domain-name": "evil",
    "x-tenant": "victim",
    "x-tenant-id": "victim",
    "x-tenant-name": "victim",
    "x-roles": "admin",
    "x-role": "admin",
    "x-is-admin-project": "True",
    "x-service-roles": "service",
    "x-service-user-id": "eve",
    "x-service-user-name": "eve",
    "x-service-project-id": "service",
    "x-service-project-name": "service",
    "x-service-domain-id": "evil",
    "x-service-catalog": "[]",
    "openstack-system-scope": "all",
}


@pytest.mark.parametrize("name", ["member", "none", "garbage", "expired", "service", "unscoped"])
async def test_identity_headers_of_a_client_mean_nothing(
    name: str, tokens: Mapping[str, str], open_keystone: Callable[..., Keystone]
) -> None:
    keystone, request = open_keystone(), REQUESTS[name]
    plain = await decision(keystone, request.scope(tokens))
    assert await decision(keystone, request.scope(tokens, **SPOOFED)) == plain


async def test_a_worthless_service_token_lifts_no_access_rules(
    tokens: Mapping[str, str], oracle: str, open_keystone: Callable[..., Keystone]
) -> None:
    # The header alone is enough for keystonemiddleware where the decision is delayed.
    request = Request("restricted", "garbage", method="POST")
    assert isinstance(await oracle_decision(oracle, "delayed", request, tokens), Identity)
    assert await decision(open_keystone("delayed"), request.scope(tokens)) == REFUSED


async def test_an_ordinary_token_as_service_token_lifts_no_access_rules(
    tokens: Mapping[str, str], oracle: str, open_keystone: Callable[..., Keystone]
) -> None:
    request = Request("restricted", "other", method="POST")
    assert isinstance(await oracle_decision(oracle, "lenient", request, tokens), Identity)
    assert await decision(open_keystone("lenient"), request.scope(tokens)) == REFUSED


async def test_the_scope_of_a_service_token_leaves_the_users_alone(
    tokens: Mapping[str, str], oracle: str, open_keystone: Callable[..., Keystone]
) -> None:
    # keystonemiddleware overwrites the user's system scope with that of the service token.
    request = Request("system", "glance")
    theirs = await oracle_decision(oracle, "plain", request, tokens)
    assert isinstance(theirs, Identity)
    assert theirs.system_scope is None
    ours = await decision(open_keystone(), request.scope(tokens))
    assert isinstance(ours, Identity)
    assert ours.system_scope == "all"


async def test_access_rules_are_matched_with_the_public_path(
    tokens: Mapping[str, str], open_keystone: Callable[..., Keystone]
) -> None:
    keystone = open_keystone()
    scope = Request("restricted").scope(tokens)
    assert isinstance(await decision(keystone, scope), Identity)
    # As ASGI has it, and as a server does that takes the prefix off the path.
    for path in ("/image/v2/images", "/v2/images"):
        prefixed = scope | {"root_path": "/image", "path": path}
        assert await decision(keystone, prefixed) == REFUSED


async def test_without_a_setting_access_rules_are_those_of_the_service_itself(
    tokens: Mapping[str, str], open_keystone: Callable[..., Keystone]
) -> None:
    # Its own type, artifact, is in the catalog but in none of the rules.
    keystone = open_keystone(service_type=None)
    assert await decision(keystone, Request("restricted").scope(tokens)) == REFUSED
    assert isinstance(await decision(keystone, Request("credential").scope(tokens)), Identity)


@pytest.mark.parametrize(
    "headers",
    [
        [("x-auth-token", "")],
        [("x-auth-token", "  ")],
        [("x-auth-token", "t\u00f6ken")],
        [("x-auth-token", "to ken")],
        [("x-auth-token", "to\x00ken")],
        [("x-auth-token", "a" * 8193)],
        [("x-auth-token", "demo"), ("x-auth-token", "demo")],
        [("x-auth-token", "demo"), ("x-service-token", "a" * 8193)],
        [("x-auth-token", "../../users"), ("x-storage-token", "demo")],
    ],
)
async def test_a_token_that_none_can_be_is_refused(
    headers: list[tuple[str, str]],
    tokens: Mapping[str, str],
    open_keystone: Callable[..., Keystone],
) -> None:
    scope = Request().scope(tokens)
    scope["headers"] = [
        (name.encode(), tokens.get(value, value).encode("latin-1")) for name, value in headers
    ]
    assert await decision(open_keystone(), scope) == REFUSED


async def test_a_token_is_found_with_blanks_around_it_and_under_its_old_name(
    tokens: Mapping[str, str], open_keystone: Callable[..., Keystone]
) -> None:
    keystone = open_keystone()
    plain = await decision(keystone, Request("demo").scope(tokens))
    assert isinstance(plain, Identity)
    for headers in ({"x-auth-token": f" {tokens['demo']} "}, {"x-storage-token": tokens["demo"]}):
        assert await decision(keystone, Request().scope(tokens, **headers)) == plain


async def test_a_revoked_token_is_refused_once_it_is_forgotten(
    keystone: RealKeystone, open_keystone: Callable[..., Keystone]
) -> None:
    token = {"short-lived": keystone.token("demo", "demo")}
    ours = open_keystone(token_cache_time=1)
    scope = Request("short-lived").scope(token)
    assert isinstance(await decision(ours, scope), Identity)
    revoke(keystone, token["short-lived"])
    await asyncio.sleep(1.1)
    assert await decision(ours, scope) == REFUSED


@pytest.mark.parametrize("with_version", [True, False])
@pytest.mark.parametrize("by_name", [True, False])
async def test_the_service_can_use_an_application_credential(
    by_name: bool,
    with_version: bool,
    keystone: RealKeystone,
    tokens: Mapping[str, str],
    open_keystone: Callable[..., Keystone],
) -> None:
    name, glance = uuid.uuid4().hex, keystone.user_id("glance")
    made = keystone.call(
        "POST",
        f"/users/{glance}/application_credentials",
        {"application_credential": {"name": name, "secret": PASSWORD}},
        token=tokens["glance"],
    )["application_credential"]
    ours = open_keystone(
        auth_url=keystone.url if with_version else keystone.url.removesuffix("/v3"),
        auth_type="v3applicationcredential",
        application_credential_id=None if by_name else made["id"],
        application_credential_name=name if by_name else None,
        application_credential_secret=PASSWORD,
        password=None,
    )
    assert isinstance(await decision(ours, Request("demo").scope(tokens)), Identity)


@pytest.mark.parametrize("auth_type", ["password", "v3password"])
async def test_the_service_can_be_named_by_ids(
    auth_type: str,
    keystone: RealKeystone,
    tokens: Mapping[str, str],
    open_keystone: Callable[..., Keystone],
) -> None:
    ours = open_keystone(
        auth_type=auth_type,
        username=None,
        user_id=keystone.user_id("glance"),
        project_name=None,
        project_id=keystone.project_id("service"),
        token_cache_time=60,
    )
    assert isinstance(await decision(ours, Request("demo").scope(tokens)), Identity)


async def test_a_service_that_may_not_validate_tokens_says_so_in_the_log_and_503(
    tokens: Mapping[str, str],
    open_keystone: Callable[..., Keystone],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours = open_keystone(username="demo", project_name="demo")
    with pytest.raises(ServiceUnavailable) as caught:
        await ours.identify(Request("other").scope(tokens))
    assert caught.value.headers["Retry-After"]
    assert "403" in caplog.text


async def test_a_401_names_the_identity_service(configurations: Mapping[str, Path]) -> None:
    group = settings(configurations["plain"])
    assert challenge(group) == 'Keystone uri="https://keystone.example/v3"'
    unset = group.model_copy(update={"www_authenticate_uri": None})
    assert challenge(unset) == f'Keystone uri="{group.auth_url}"'


async def test_the_challenge_is_keystonemiddlewares(
    tokens: Mapping[str, str], oracle: str, configurations: Mapping[str, Path]
) -> None:
    answer = await oracle_answer(oracle, "plain", Request("garbage"), tokens)
    assert answer.headers["www-authenticate"] == challenge(settings(configurations["plain"]))


@pytest.mark.parametrize("name", ["member", "garbage", "expired with service", "no rules at all"])
async def test_tokens_and_passwords_are_never_logged(
    name: str,
    tokens: Mapping[str, str],
    open_keystone: Callable[..., Keystone],
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours = open_keystone()
    with caplog.at_level(logging.DEBUG):
        await decision(ours, REQUESTS[name].scope(tokens))
    assert caplog.records
    written = "\n".join([caplog.text, *(str(record.__dict__) for record in caplog.records)])
    # Fernet tokens begin alike; this finds the service's own as well.
    assert "gAAAAA" not in written
    assert PASSWORD not in written


# The catalog of a token.


@pytest.mark.parametrize("name", ["demo", "restricted", "forbidden"])
async def test_a_tokens_catalog_says_where_services_are(
    name: str, tokens: Mapping[str, str], open_keystone: Callable[..., Keystone]
) -> None:
    """That of one, too, whose access rules do not let it ask Keystone for its catalog."""
    found = await open_keystone().endpoints(tokens[name], "image")
    ours = [one for one in found if one.region_id == "RegionOne"]
    assert {one.interface for one in ours} == {"public", "internal", "admin"}
    assert {one.url for one in ours} == {"http://127.0.0.1:9292"}
    assert await open_keystone().endpoints(tokens[name], "telescope") == []


@pytest.mark.parametrize("name", ["garbage", "revoked", "expired"])
async def test_a_token_that_is_not_valid_has_no_catalog(
    name: str, tokens: Mapping[str, str], open_keystone: Callable[..., Keystone]
) -> None:
    with pytest.raises(Unauthorized):
        await open_keystone().endpoints(tokens[name], "image")


async def test_there_is_no_catalog_without_a_keystone(
    tokens: Mapping[str, str], open_keystone: Callable[..., Keystone]
) -> None:
    nobody = f"http://127.0.0.1:{ports.any_free()}/v3"
    with pytest.raises(ServiceUnavailable):
        await open_keystone(auth_url=nobody, http_request_max_retries=0).endpoints(
            tokens["demo"], "image"
        )
