"""The tables of `tests/images/rbac` hold for callers whom Keystone knows, of the real daemon.

What they are is told by their tokens here, not by headers: roles that Keystone implies, delegation
by trusts and application credentials, service tokens. Nobody is let through to a change.
"""

import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from itertools import product
from typing import Any

import httpx
import pytest
from dev.keystone import PASSWORD, Keystone

from tests.daemon import Daemon
from tests.images.rbac import tables
from tests.images.rbac.asking import ABSENT, ON_IMAGES, ON_THE_SERVICE, send
from tests.images.service import OCTETS

# Each caller here, and the column of the tables that is to hold for it. The members of a shared
# image are the project `other`, which has accepted it.
COLUMNS = {
    "admin": "admin",
    "system": "system",
    "manager": "mngr",
    "demo": "member",
    "reader": "reader",
    "demo by a service": "deleg",
    "demo's application credential for reading": "reader",
    "demo's trustee for reading": "reader",
    "other": "accept",
    "stranger": "other",
    "nova": "nova",
    "service": "srvc",
}
VISIBILITIES = ("private", "shared", "public")

ASKED = (
    *("show", "tasks", "download", "modify", "add tag", "delete", "make public", "copy"),
    *("deactivate", "show accept", "accept for accept", "see locations", "leave store"),
)


def _user(keystone: Keystone, *roles: str) -> str:
    """Make a user who has these roles in the project service; a token for it."""
    name = f"rbac-{secrets.token_hex(4)}"
    user = {"name": name, "password": PASSWORD, "domain_id": "default"}
    user_id = keystone.call("POST", "/users", {"user": user})["user"]["id"]
    ids = _roles(keystone)
    for role in roles:
        granted = f"/projects/{keystone.project_id('service')}/users/{user_id}/roles/{ids[role]}"
        keystone.call("PUT", granted)
    return keystone.token(name, "service")


def _roles(keystone: Keystone) -> dict[str, str]:
    return {role["name"]: role["id"] for role in keystone.call("GET", "/roles")["roles"]}


def _trusted(keystone: Keystone) -> str:
    """A token for the user other, who does in demo's stead what a reader may."""
    demo = keystone.token("demo", "demo")
    trust = {
        "trustor_user_id": keystone.user_id("demo"),
        "trustee_user_id": keystone.user_id("other"),
        "project_id": keystone.project_id("demo"),
        "impersonation": True,
        "roles": [{"name": "reader"}],
    }
    made = keystone.call("POST", "/OS-TRUST/trusts", {"trust": trust}, token=demo)["trust"]
    user = {"id": keystone.user_id("other"), "password": PASSWORD}
    return keystone.authenticate(
        {"methods": ["password"], "password": {"user": user}},
        scope={"OS-TRUST:trust": {"id": made["id"]}},
    )


def _by_credential(keystone: Keystone, credential: Mapping[str, str]) -> str:
    secret = {
        "id": credential["application_credential_id"],
        "secret": credential["application_credential_secret"],
    }
    method = "application_credential"
    return keystone.authenticate({"methods": [method], method: secret})


@pytest.fixture(scope="module")
def headers(
    keystone: Keystone, application_credential: Callable[..., dict[str, str]]
) -> dict[str, dict[str, str]]:
    """What each caller sends."""
    demo = keystone.token("demo", "demo")
    tokens = {
        "admin": keystone.token("admin", "admin"),
        "system": keystone.token("admin", system=True),
        "manager": keystone.token("manager", "demo"),
        "demo": demo,
        "reader": keystone.token("reader", "demo"),
        "demo by a service": demo,
        "demo's application credential for reading": _by_credential(
            keystone, application_credential(roles=[{"name": "reader"}])
        ),
        "demo's trustee for reading": _trusted(keystone),
        "other": keystone.token("other", "other"),
        "stranger": _user(keystone, "member"),
        "nova": _user(keystone, "member", "service"),
        "service": _user(keystone, "service"),
    }
    sent = {caller: {"X-Auth-Token": token} for caller, token in tokens.items()}
    sent["demo by a service"]["X-Service-Token"] = keystone.token("glance", "service")
    return sent


@pytest.fixture
async def client(image_daemon: Daemon) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=image_daemon.url, timeout=60) as opened:
        yield opened


@pytest.fixture
async def images(
    client: httpx.AsyncClient, headers: dict[str, dict[str, str]], keystone: Keystone
) -> dict[str, str]:
    """An active image of the project demo in each visibility, by that."""
    admin, made = headers["admin"], dict[str, str]()
    for visibility in VISIBILITIES:
        body = {
            "owner": keystone.project_id("demo"),
            "visibility": visibility,
            "disk_format": "raw",
            "container_format": "bare",
            "tags": ["old"],
        }
        created = (await client.post("/v2/images", json=body, headers=admin)).raise_for_status()
        image: dict[str, Any] = created.json()
        uploaded = await client.put(image["file"], content=b"bytes", headers={**admin, **OCTETS})
        uploaded.raise_for_status()
        made[visibility] = image["id"]
    members, other = f"/v2/images/{made['shared']}/members", keystone.project_id("other")
    offered = await client.post(members, json={"member": other}, headers=headers["demo"])
    offered.raise_for_status()
    accepted = {"status": "accepted"}
    answered = await client.put(f"{members}/{other}", json=accepted, headers=headers["other"])
    answered.raise_for_status()
    return made


async def test_images(
    client: httpx.AsyncClient,
    headers: dict[str, dict[str, str]],
    images: dict[str, str],
    keystone: Keystone,
) -> None:
    found: dict[tuple[str, str, str], str] = {}
    expected: dict[tuple[str, str, str], str] = {}
    table = tables.by_visibility(tables.IMAGES)
    for name, visibility, caller in product(ASKED, VISIBILITIES, COLUMNS):
        request, cell = ON_IMAGES[name], table[name, visibility, COLUMNS[caller]]
        if request.changes and cell == "ok":
            continue
        known = {"image_id": images[visibility]}
        if "member" in request.names:
            known["member"] = keystone.project_id("other")
        code = (await send(client, request, headers[caller], **known)).status_code
        found[name, visibility, caller] = "ok" if code == request.answers else str(code)
        expected[name, visibility, caller] = cell
    assert found == expected


async def test_the_service(client: httpx.AsyncClient, headers: dict[str, dict[str, str]]) -> None:
    found: dict[tuple[str, str], str] = {}
    expected: dict[tuple[str, str], str] = {}
    for name, request in ON_THE_SERVICE.items():
        if "task" in name:
            continue  # the daemon's own rules let managers use them
        (row,) = tables.rows(tables.SERVICE)[name]
        for caller, column in COLUMNS.items():
            if request.changes and row.cells[column] == "ok":
                continue
            code = (await send(client, request, headers[caller], new=ABSENT)).status_code
            found[name, caller] = "ok" if code == request.answers else str(code)
            expected[name, caller] = row.cells[column]
    assert found == expected


async def test_without_a_token_or_with_a_false_one_nothing_is_answered(
    client: httpx.AsyncClient, images: dict[str, str]
) -> None:
    for name, sent in product(ASKED, ({}, {"X-Auth-Token": "nonsense"})):
        request = ON_IMAGES[name]
        answer = await send(client, request, sent, image_id=images["public"])
        assert (name, answer.status_code) == (name, 401)
