"""Who is taken for whom, by each flavor that needs no server."""

import pytest
from diptych_artifacts.settings import load
from diptych_common.settings import SettingsError

from tests.artifacts.service import OCTETS, PATCH, CustomApi
from tests.artifacts.tokens import asked

ALICE = {"user": "alice", "project": "alpha", "roles": ["member", "reader"], "anonymous": False}
NOBODY = {"roles": [], "anonymous": True}

HEADERS = {
    "X-Identity-Status": "Confirmed",
    "X-User-Id": "alice",
    "X-Tenant-Id": "alpha",
    "X-Roles": "Member, reader",
}
TOKEN = {"X-Auth-Token": "alice:alpha:Member,reader"}
BELIEVED = [("noauth", HEADERS), ("trustedauth", TOKEN)]
ANONYMOUS = {"DEFAULT__ALLOW_ANONYMOUS_ACCESS": "true"}


@pytest.mark.parametrize(("flavor", "headers"), BELIEVED)
async def test_a_caller_is_who_it_is_said_to_be(flavor: str, headers: dict[str, str]) -> None:
    async with asked(PASTE_DEPLOY__FLAVOR=flavor) as api:
        answer = await api.get("/schemas", headers=headers)
    assert answer.json() == ALICE


@pytest.mark.parametrize(("flavor", "headers"), BELIEVED)
async def test_versions_need_neither_headers_nor_token(
    flavor: str, headers: dict[str, str]
) -> None:
    async with asked(PASTE_DEPLOY__FLAVOR=flavor) as api:
        assert (await api.get("/versions")).status_code == 300


@pytest.mark.parametrize(("flavor", "headers"), BELIEVED)
@pytest.mark.parametrize("anonymous", [{}, ANONYMOUS], ids=["closed", "anonymous"])
async def test_only_this_host_is_believed(
    flavor: str, headers: dict[str, str], anonymous: dict[str, str]
) -> None:
    async with asked(peer="192.0.2.7", PASTE_DEPLOY__FLAVOR=flavor, **anonymous) as api:
        assert (await api.get("/schemas", headers=headers)).status_code == 401


@pytest.mark.parametrize(("flavor", "headers"), BELIEVED)
async def test_a_proxy_that_is_named_is_believed_and_no_other(
    flavor: str, headers: dict[str, str]
) -> None:
    options = {
        "PASTE_DEPLOY__FLAVOR": flavor,
        "DEFAULT__BIND_HOST": "0.0.0.0",
        "OSLO_MIDDLEWARE__TRUSTED_PROXIES": "192.0.2.0/29",
    }
    async with asked(peer="192.0.2.7", **options) as api:
        assert (await api.get("/schemas", headers=headers)).json() == ALICE
    async with asked(peer="127.0.0.1", **options) as api:
        assert (await api.get("/schemas", headers=headers)).status_code == 401


@pytest.mark.parametrize("flavor", ["noauth", "trustedauth"])
async def test_nobody_is_believed_on_an_open_address(flavor: str) -> None:
    with pytest.raises(ValueError, match=r"can't be trusted on 0\.0\.0\.0"):
        async with asked(PASTE_DEPLOY__FLAVOR=flavor, DEFAULT__BIND_HOST="0.0.0.0"):
            pass


@pytest.mark.parametrize("flavor", ["noauth", "trustedauth"])
async def test_a_401_names_no_way_to_a_token(flavor: str) -> None:
    async with asked(PASTE_DEPLOY__FLAVOR=flavor) as api:
        answer = await api.get("/schemas")
    assert answer.status_code == 401
    assert answer.json()["code"] == 401
    assert answer.json()["error"]["type"] == "Unauthorized"
    assert "www-authenticate" not in answer.headers


@pytest.mark.parametrize("status", [None, "Invalid", "confirmed", ""])
async def test_without_confirmation_headers_vouch_for_nobody(status: str | None) -> None:
    headers = {name: value for name, value in HEADERS.items() if name != "X-Identity-Status"}
    if status is not None:
        headers["X-Identity-Status"] = status
    async with asked(PASTE_DEPLOY__FLAVOR="noauth") as api:
        assert (await api.get("/schemas", headers=headers)).status_code == 401
    async with asked(PASTE_DEPLOY__FLAVOR="noauth", **ANONYMOUS) as api:
        assert (await api.get("/schemas", headers=headers)).json() == NOBODY


async def test_the_project_has_two_names() -> None:
    both = HEADERS | {"X-Project-Id": "alpha"}
    newer = {name: value for name, value in both.items() if name != "X-Tenant-Id"}
    async with asked(PASTE_DEPLOY__FLAVOR="noauth") as api:
        assert (await api.get("/schemas", headers=both)).json() == ALICE
        assert (await api.get("/schemas", headers=newer)).json() == ALICE
        differing = HEADERS | {"X-Project-Id": "beta"}
        assert (await api.get("/schemas", headers=differing)).status_code == 401


async def test_a_confirmed_nobody_is_let_in() -> None:
    """As Glare's own functional tests have their anonymous user."""
    async with asked(PASTE_DEPLOY__FLAVOR="noauth") as api:
        answer = await api.get("/schemas", headers={"X-Identity-Status": "Confirmed"})
    assert answer.json() == NOBODY


@pytest.mark.parametrize(
    "headers",
    [
        [*HEADERS.items(), ("x-roles", "admin")],
        [*HEADERS.items(), ("x-tenant-id", "beta")],
        [*HEADERS.items(), ("x-identity-status", "Confirmed")],
    ],
    ids=["roles", "project", "status"],
)
async def test_a_header_that_comes_twice_is_refused(headers: list[tuple[str, str]]) -> None:
    async with asked(PASTE_DEPLOY__FLAVOR="noauth", **ANONYMOUS) as api:
        assert (await api.get("/schemas", headers=headers)).status_code == 401


@pytest.mark.parametrize("name", ["X-User-Id", "X-Tenant-Id"])
async def test_an_id_is_as_long_as_columns_hold(name: str) -> None:
    async with asked(PASTE_DEPLOY__FLAVOR="noauth") as api:
        for length, status in ((255, 200), (256, 401)):
            answer = await api.get("/schemas", headers=HEADERS | {name: "i" * length})
            assert answer.status_code == status


@pytest.mark.parametrize(
    "token",
    [
        "",
        " ",
        "alice",
        "alice:alpha",
        "alice:alpha:member:more",
        ":::",
        "alice::member",
        "alice: :member",
        "::",
        "none",
        f"{'u' * 256}:alpha:member",
        f"alice:{'p' * 256}:member",
    ],
    ids=lambda token: token[:30] or "empty",
)
@pytest.mark.parametrize("anonymous", [{}, ANONYMOUS], ids=["closed", "anonymous"])
async def test_a_trusted_token_has_three_parts(token: str, anonymous: dict[str, str]) -> None:
    async with asked(PASTE_DEPLOY__FLAVOR="trustedauth", **anonymous) as api:
        answer = await api.get("/schemas", headers={"X-Auth-Token": token})
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("alice:alpha:", {"user": "alice", "project": "alpha", "roles": []}),
        (":alpha:member", {"project": "alpha", "roles": ["member"]}),
        (" alice : alpha : a ,, B ", {"user": "alice", "project": "alpha", "roles": ["a", "b"]}),
        ("root:service:Admin", {"user": "root", "project": "service", "roles": ["admin"]}),
    ],
)
async def test_a_trusted_token_may_lack_user_and_roles(
    token: str, expected: dict[str, object]
) -> None:
    async with asked(PASTE_DEPLOY__FLAVOR="trustedauth") as api:
        answer = await api.get("/schemas", headers={"X-Auth-Token": token})
    assert answer.json() == expected | {"anonymous": False}


@pytest.mark.parametrize("token", ["alice:none:admin", "alice:NONE:admin", ":None:"])
async def test_the_project_none_is_nobody(token: str) -> None:
    """Where the operator admits such; whatever user and roles are named."""
    async with asked(PASTE_DEPLOY__FLAVOR="trustedauth") as api:
        assert (await api.get("/schemas", headers={"X-Auth-Token": token})).status_code == 401
    async with asked(PASTE_DEPLOY__FLAVOR="trustedauth", **ANONYMOUS) as api:
        assert (await api.get("/schemas", headers={"X-Auth-Token": token})).json() == NOBODY


async def test_a_trusted_token_takes_nothing_from_headers() -> None:
    async with asked(PASTE_DEPLOY__FLAVOR="trustedauth") as api:
        answer = await api.get("/schemas", headers={**HEADERS, "X-Auth-Token": "bob:beta:reader"})
    assert answer.json() == {
        "user": "bob",
        "project": "beta",
        "roles": ["reader"],
        "anonymous": False,
    }


async def test_images_flavors_are_here_too() -> None:
    async with asked(PASTE_DEPLOY__FLAVOR="trusted") as api:
        headers = {"X-User-Id": "alice", "X-Project-Id": "alpha", "X-Roles": "member,reader"}
        assert (await api.get("/schemas", headers=headers)).json() == ALICE
    async with asked(PASTE_DEPLOY__FLAVOR="none") as api:
        assert "admin" in (await api.get("/schemas")).json()["roles"]


async def test_without_a_flavor_it_is_keystone() -> None:
    """Where Glare believes every token."""
    options = {
        "KEYSTONE_AUTHTOKEN__AUTH_URL": "http://keystone.example:5000",
        "KEYSTONE_AUTHTOKEN__USERNAME": "glare",
        "KEYSTONE_AUTHTOKEN__PASSWORD": "s3cret",
    }
    async with asked(**options) as api:
        answer = await api.get("/schemas", headers=HEADERS)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Keystone uri="http://keystone.example:5000"'


@pytest.mark.parametrize("flavor", ["", "keystone+caching", "noauth+none", "magic"])
def test_a_flavor_that_is_none_stops_the_service(flavor: str) -> None:
    with pytest.raises(SettingsError, match="paste_deploy"):
        load(environ={"DIPTYCH_ARTIFACTS__PASTE_DEPLOY__FLAVOR": flavor})


async def test_who_has_no_project_only_reads(
    custom_api: CustomApi,
) -> None:
    """By each way to be nobody: what is private is not there, what is public stays as it is."""
    options = ANONYMOUS | {"DEFAULT__ENABLED_ARTIFACT_TYPES": "heat_templates"}
    noauth = await custom_api(PASTE_DEPLOY__FLAVOR="noauth", **options)
    trusted = await custom_api(PASTE_DEPLOY__FLAVOR="trustedauth", **options)
    admin = {"X-Auth-Token": "root:service:admin"}
    paths: dict[str, str] = {}
    for visibility in ("private", "public"):
        body = {"name": f"{visibility}-one"}
        made = await noauth.post("/artifacts/heat_templates", json=body, headers=HEADERS)
        assert made.json()["owner"] == "alpha", made.text
        paths[visibility] = path = f"/artifacts/heat_templates/{made.json()['id']}"
        put = await trusted.put(f"{path}/template", content=b"x", headers=OCTETS | TOKEN)
        assert put.status_code == 200, put.text
    for change in (
        {"path": "/status", "value": "active"},
        {"path": "/visibility", "value": "public"},
    ):
        patched = await trusted.patch(
            paths["public"], json=[{"op": "replace", **change}], headers=PATCH | admin
        )
        assert patched.status_code == 200, patched.text
    mine = [{"op": "replace", "path": "/description", "value": "mine"}]
    for api, nobody in (
        (noauth, {}),
        (noauth, {"X-Identity-Status": "Confirmed"}),
        (trusted, {"X-Auth-Token": "alice:none:admin"}),
    ):
        for visibility, seen, refused in (("private", 404, 404), ("public", 200, 403)):
            path = paths[visibility]
            assert (await api.get(path, headers=nobody)).status_code == seen
            assert (await api.get(f"{path}/template", headers=nobody)).status_code == seen
            statuses = [
                (await api.patch(path, json=mine, headers=PATCH | nobody)).status_code,
                (
                    await api.put(f"{path}/template", content=b"y", headers=OCTETS | nobody)
                ).status_code,
                (await api.delete(path, headers=nobody)).status_code,
            ]
            assert statuses == [refused] * 3
        body = {"name": "of-nobody"}
        created = await api.post("/artifacts/heat_templates", json=body, headers=nobody)
        assert created.status_code == 403
