"""A store whose objects lie in the accounts of the users' projects: Swift with a real Keystone."""

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from dev.keystone import PASSWORD, Keystone
from dev.swift import RESELLER_ROLE, Swift
from diptych_images.attempts import in_account
from diptych_images.db import images
from diptych_images.settings import load
from diptych_store.protocol import Attempt
from diptych_store.registry import Stores
from diptych_store.settings import StoresConfig

from tests.images.rows import open_database
from tests.images.service import OCTETS, client, configuration, opened
from tests.images.workers import working
from tests.waiting import until

MIB = 1 << 20
DATA = secrets.token_bytes(9 * MIB)
RAW = {"disk_format": "raw", "container_format": "bare"}


@pytest.fixture(scope="session")
def reseller(keystone: Keystone, swift: Swift) -> str:
    """The name of a user, in project service, who has rights in all accounts."""
    name = f"images-{secrets.token_hex(4)}"
    user = {"name": name, "password": PASSWORD, "domain_id": "default"}
    user_id = keystone.call("POST", "/users", {"user": user})["user"]["id"]
    roles = {one["name"]: one["id"] for one in keystone.call("GET", "/roles")["roles"]}
    project = keystone.project_id("service")
    for role in (RESELLER_ROLE, "service"):
        keystone.call("PUT", f"/projects/{project}/users/{user_id}/roles/{roles[role]}")
    return name


@dataclass
class User:
    """A member of a project, at the service and at Swift itself."""

    project: str
    token: str
    http: httpx.AsyncClient
    swift: httpx.AsyncClient

    @property
    def headers(self) -> dict[str, str]:
        return {
            "X-User-Id": f"member-of-{self.project}",
            "X-Project-Id": self.project,
            "X-Roles": "member,reader",
            "X-Auth-Token": self.token,
        }

    async def create(self, **fields: str) -> dict[str, Any]:
        made = await self.http.post("/v2/images", json={**RAW, **fields}, headers=self.headers)
        return made.json()

    async def upload(self, image: dict[str, Any], data: Any = DATA) -> httpx.Response:
        headers = {**self.headers, **OCTETS}
        return await self.http.put(image["file"], content=data, headers=headers)

    async def download(self, image: dict[str, Any]) -> httpx.Response:
        return await self.http.get(image["file"], headers=self.headers)

    async def at_swift(self, path: str) -> httpx.Response:
        """Ask Swift itself, as this user, for something in the account of any project."""
        return await self.swift.get(f"/v1/{path}", headers={"X-Auth-Token": self.token})

    async def account(self) -> dict[str, list[str]]:
        """The containers of this user's account and what is in them."""
        path = f"AUTH_{self.project}"
        containers = (await self.at_swift(f"{path}?format=json")).raise_for_status().json()
        listings = {
            one["name"]: await self.at_swift(f"{path}/{one['name']}?format=json")
            for one in containers
        }
        return {
            name: [each["name"] for each in listing.json()]
            for name, listing in listings.items()
            if listing.status_code != 404  # it went meanwhile
        }


@pytest.fixture
def environ(
    images_database: str, tmp_path: Path, keystone: Keystone, swift: Swift, reseller: str
) -> dict[str, str]:
    return configuration(
        images_database,
        tmp_path,
        DEFAULT__ENABLED_BACKENDS="accounts:swift",
        DEFAULT__SHOW_IMAGE_DIRECT_URL="true",
        GLANCE_STORE__DEFAULT_BACKEND="accounts",
        ACCOUNTS__SWIFT_STORE_MULTI_TENANT="true",
        ACCOUNTS__SWIFT_STORE_AUTH_ADDRESS=keystone.url,
        ACCOUNTS__SWIFT_STORE_AUTH_VERSION="3",
        ACCOUNTS__SWIFT_STORE_USER=f"service:{reseller}",
        ACCOUNTS__SWIFT_STORE_KEY=PASSWORD,
        ACCOUNTS__SWIFT_STORE_CREATE_CONTAINER_ON_PUT="true",
        ACCOUNTS__SWIFT_STORE_LARGE_OBJECT_CHUNK_SIZE="4",
        JOBS__REAPER_INTERVAL="1",
    )


@pytest.fixture
async def http(environ: dict[str, str]) -> AsyncGenerator[httpx.AsyncClient]:
    async with opened(environ) as app, client(app) as opened_client:
        yield opened_client


@pytest.fixture
async def make_user(
    http: httpx.AsyncClient, keystone: Keystone, swift: Swift
) -> AsyncGenerator[Callable[[], Awaitable[User]]]:
    """`await make_user()`: one in a project of its own."""
    roles = {one["name"]: one["id"] for one in keystone.call("GET", "/roles")["roles"]}

    async with httpx.AsyncClient(base_url=swift.keystone_proxy_url, timeout=60) as at_swift:

        async def make() -> User:
            name = f"user-{secrets.token_hex(6)}"
            project = {"name": name, "domain_id": "default"}
            project_id = keystone.call("POST", "/projects", {"project": project})["project"]["id"]
            user = {"name": name, "password": PASSWORD, "domain_id": "default"}
            user_id = keystone.call("POST", "/users", {"user": user})["user"]["id"]
            keystone.call("PUT", f"/projects/{project_id}/users/{user_id}/roles/{roles['member']}")
            return User(project_id, keystone.token(name, name), http, at_swift)

        yield make


async def test_bytes_are_in_the_account_of_the_project_that_uploads(
    environ: dict[str, str], make_user: Callable[[], Awaitable[User]]
) -> None:
    alice = await make_user()
    image = await alice.create()
    stored = await alice.upload(image)
    assert stored.status_code == 204, stored.text
    account = await alice.account()
    assert [name for name in account if image["id"] in name]
    assert (await alice.download(image)).content == DATA
    shown = (await alice.http.get(image["self"], headers=alice.headers)).json()
    assert alice.project in shown["direct_url"]
    assert (await alice.http.delete(image["self"], headers=alice.headers)).status_code == 204

    async def is_empty() -> bool:
        return not any((await alice.account()).values())

    # By the service's own rights: the user's token is gone by then.
    async with working(environ):
        await until(is_empty)


async def test_members_read_at_swift_itself(
    environ: dict[str, str], make_user: Callable[[], Awaitable[User]]
) -> None:
    alice, bob = await make_user(), await make_user()
    image = await alice.create(visibility="shared")
    assert (await alice.upload(image)).status_code == 204
    shown = (await alice.http.get(image["self"], headers=alice.headers)).json()
    path = shown["direct_url"].partition("/v1/")[2]
    assert (await alice.at_swift(path)).content == DATA
    assert (await bob.at_swift(path)).status_code == 403

    async def answers(status: int) -> None:
        async def is_answered() -> bool:
            return (await bob.at_swift(path)).status_code == status

        await until(is_answered)

    members = f"{image['self']}/members"
    async with working(environ):
        offered = await alice.http.post(
            members, json={"member": bob.project}, headers=alice.headers
        )
        assert offered.status_code == 200
        await answers(200)
        assert (await bob.download(image)).content == DATA
        assert (await bob.at_swift(path)).content == DATA

        withdrawn = await alice.http.delete(f"{members}/{bob.project}", headers=alice.headers)
        assert withdrawn.status_code == 204
        await answers(403)

        patch = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
        community = [{"op": "replace", "path": "/visibility", "value": "community"}]
        changed = await alice.http.patch(
            image["self"], json=community, headers={**alice.headers, **patch}
        )
        assert changed.status_code == 200
        await answers(200)
        assert (await bob.download(image)).content == DATA

        deactivated = await alice.http.post(
            f"{image['self']}/actions/deactivate", headers=alice.headers
        )
        assert deactivated.status_code == 204
        await answers(403)


async def test_an_upload_that_died_is_removed_from_the_account(
    environ: dict[str, str],
    images_database: str,
    make_user: Callable[[], Awaitable[User]],
) -> None:
    """By somebody else, later, without the user's token."""
    alice = await make_user()
    image = await alice.create()
    attempt = Attempt(key=image["id"], token=str(uuid4()))
    async with open_database(images_database) as db, db.write() as connection:
        await images.start_upload(
            connection,
            attempt.key,
            store="accounts",
            attempt=attempt.token,
            lease_s=-1,
            project_id=alice.project,
        )

    async def blocks() -> AsyncGenerator[bytes]:
        yield DATA

    config = StoresConfig.from_sections(load(environ=environ).sections)
    async with Stores.open(config) as stores:
        store = in_account(stores["accounts"], alice.project, token=alice.token)
        await store.write(attempt, blocks(), size=None)
    assert any((await alice.account()).values())

    async def is_undone() -> bool:
        shown = (await alice.http.get(image["self"], headers=alice.headers)).json()
        return shown["status"] == "queued" and not any((await alice.account()).values())

    async with working(environ):
        await until(is_undone)


async def test_a_token_that_ends_does_not_end_the_upload(
    make_user: Callable[[], Awaitable[User]],
) -> None:
    """Which took longer than the token lives: the service's own rights do."""
    alice = await make_user()
    image = await alice.create()
    token, alice.token = alice.token, "gAAAAABis-not-valid-any-more"
    assert (await alice.upload(image)).status_code == 204
    # It reads no more with it.
    assert (await alice.download(image)).status_code == 403
    alice.token = token
    assert [name for name in await alice.account() if image["id"] in name]
    assert (await alice.download(image)).content == DATA
