"""Quotas: what counts, that nothing gets past them, and that nothing is left of what failed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev.keystone import PASSWORD, Keystone
from diptych_common import migrations
from diptych_common.database import Database
from diptych_common.settings import Database as DatabaseSettings
from diptych_images.db import usage
from diptych_images.db.usage import Usage

from tests import databases
from tests.daemon import Daemon
from tests.images.service import ADMIN, ALICE, BOB, OCTETS, configuration, persona
from tests.images.sites import DATA, Make
from tests.images.workers import working
from tests.waiting import until

Custom = Callable[..., Awaitable[httpx.AsyncClient]]
UPLOAD = {**ALICE, **OCTETS}
MIB = 1 << 20
FORMATS = {"disk_format": "raw", "container_format": "bare"}


async def used(database: str, project: str = "alpha") -> Usage:
    async with Database(DatabaseSettings(connection=database)) as db, db.read() as connection:
        return await usage.of(connection, [project])


async def make(api: httpx.AsyncClient, **fields: Any) -> str:
    created = await api.post("/v2/images", json={**FORMATS, **fields}, headers=ALICE)
    assert created.status_code == 201, created.text
    return created.json()["self"]


async def put(
    api: httpx.AsyncClient, path: str, data: bytes | AsyncIterator[bytes], to: str = "file"
) -> httpx.Response:
    return await api.put(f"{path}/{to}", content=data, headers=UPLOAD)


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def objects(folder: Path) -> list[Path]:
    """All files of all stores, attempts included."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".mark"]


# --- user_storage_quota -----------------------------------------------------------------------


async def test_last_byte_fits_and_none_more(custom_api: Custom, images_database: str) -> None:
    api = await custom_api(DEFAULT__USER_STORAGE_QUOTA="1000")
    first, second = await make(api), await make(api)
    assert (await put(api, first, b"x" * 900)).status_code == 204
    refused = await put(api, second, b"x" * 101)
    assert refused.status_code == 413
    assert "user_storage_quota is over limit of 1000 due to current usage 900 and delta 101" in (
        refused.text
    )
    assert (await api.get(second, headers=ALICE)).json()["status"] == "queued"
    assert (await put(api, second, b"x" * 100)).status_code == 204
    assert await used(images_database) == Usage(size=1000, staged=0, images=2, uploading=0)


@pytest.mark.parametrize("size", [100, 101])
async def test_data_of_unknown_size_ends_at_the_limit(
    custom_api: Custom, images_database: str, tmp_path: Path, size: int
) -> None:
    api = await custom_api(DEFAULT__USER_STORAGE_QUOTA="1000")
    first, second = await make(api), await make(api)
    assert (await put(api, first, b"x" * 900)).status_code == 204
    answer = await put(api, second, pieces(b"x" * size, 7))
    assert answer.status_code == (204 if size == 100 else 413)
    kept = sum(path.stat().st_size for path in objects(tmp_path))
    assert (await used(images_database)).size == kept == (1000 if size == 100 else 900)


async def test_projects_do_not_share(custom_api: Custom) -> None:
    api = await custom_api(DEFAULT__USER_STORAGE_QUOTA="100")
    first = await make(api)
    assert (await put(api, first, b"x" * 100)).status_code == 204
    created = await api.post("/v2/images", json=FORMATS, headers=BOB)
    stored = await api.put(
        f"{created.json()['self']}/file", content=b"x" * 100, headers={**BOB, **OCTETS}
    )
    assert stored.status_code == 204


async def test_an_administrator_fills_the_owners_quota(custom_api: Custom) -> None:
    api = await custom_api(DEFAULT__USER_STORAGE_QUOTA="100")
    path = await make(api)
    stored = await api.put(f"{path}/file", content=b"x" * 101, headers={**ADMIN, **OCTETS})
    assert stored.status_code == 413
    assert "Project alpha" in stored.text


@pytest.mark.parametrize("is_announced", [True, False], ids=["announced", "unannounced"])
async def test_many_at_once_overshoot_by_nothing(
    custom_api: Custom, images_database: str, tmp_path: Path, is_announced: bool
) -> None:
    api = await custom_api(DEFAULT__USER_STORAGE_QUOTA="10000", DATABASE__POOL_TIMEOUT="60")
    paths = [await make(api) for _ in range(64)]
    data = b"x" * 999
    answers = await asyncio.gather(
        *(put(api, path, data if is_announced else pieces(data)) for path in paths)
    )
    stored = [answer.status_code for answer in answers].count(204)
    assert {answer.status_code for answer in answers} == {204, 413}
    found = await used(images_database)
    assert found == Usage(size=999 * stored, staged=0, images=64, uploading=0)
    assert found.size <= 10000
    if is_announced:
        assert stored == 10
    assert len(objects(tmp_path)) == stored


async def test_what_fails_or_goes_gives_its_room_back(
    custom_api: Custom, images_database: str
) -> None:
    api = await custom_api(DEFAULT__USER_STORAGE_QUOTA="1000")
    path = await make(api)
    short = await api.put(
        f"{path}/file",
        content=pieces(b"x" * 10),
        headers={**UPLOAD, "x-openstack-image-size": "999"},
    )
    assert short.status_code == 400
    assert (await used(images_database)).size == 0
    assert (await put(api, path, b"x" * 1000)).status_code == 204
    assert (await api.delete(path, headers=ALICE)).status_code == 204
    assert await used(images_database) == Usage(0, 0, 0, 0)
    assert (await put(api, await make(api), b"x" * 1000)).status_code == 204


async def test_deleting_an_image_while_its_data_come_gives_nothing_back_until_they_end(
    custom_api: Custom, images_database: str
) -> None:
    """CVE-2014-9623, CVE-2015-5286: images deleted while they are saved got past the quota."""
    api = await custom_api(DEFAULT__USER_STORAGE_QUOTA="1000", JOBS__LEASE="3")
    path, other = await make(api), await make(api)
    goes_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 800
        await goes_on.wait()
        yield b"x" * 200

    upload = asyncio.create_task(put(api, path, slow()))

    async def has_begun() -> bool:
        return (await used(images_database)).size == 1000

    await until(has_begun)
    assert (await api.delete(path, headers=ALICE)).status_code == 204
    assert (await used(images_database)).size == 1000
    assert (await put(api, other, b"x")).status_code == 413
    goes_on.set()
    assert (await upload).status_code == 410
    assert await used(images_database) == Usage(0, 0, 1, 0)
    assert (await put(api, other, b"x" * 1000)).status_code == 204


async def test_killed_in_an_upload_nothing_stays_reserved(
    empty_database: str, tmp_path: Path
) -> None:
    await migrations.upgrade(empty_database, "diptych_images.migrations")
    environ = configuration(
        empty_database,
        tmp_path,
        DEFAULT__USER_STORAGE_QUOTA="100MB",
        DEFAULT__WORKERS="1",
        JOBS__WITH_WORKER="true",
        JOBS__LEASE="3",
        JOBS__REAPER_INTERVAL="1",
        JOBS__POLL_INTERVAL="0.2",
    )
    daemon = Daemon(environ, tmp_path / "log")
    daemon.start()
    try:
        async with httpx.AsyncClient(base_url=daemon.url, timeout=30) as http:
            path = await make(http)

            async def endless() -> AsyncIterator[bytes]:
                yield b"x" * MIB
                await asyncio.sleep(3600)

            upload = asyncio.create_task(put(http, path, endless()))

            async def has_begun() -> bool:
                return (await used(empty_database)).size == 64 * MIB

            await until(has_begun)
            await asyncio.to_thread(daemon.kill)
            upload.cancel()
            with suppress(httpx.TransportError, asyncio.CancelledError):
                await upload
            assert (await used(empty_database)).size == 64 * MIB

            async def is_exact() -> bool:
                return await used(empty_database) == Usage(0, 0, 1, 0)

            async with working(environ):
                await until(is_exact, within_s=60)
    finally:
        daemon.stop()


async def test_without_quotas_nothing_is_asked(custom_api: Custom) -> None:
    api = await custom_api()
    assert (await put(api, await make(api), pieces(b"x" * 5000))).status_code == 204
    assert (await api.get("/v2/info/usage", headers=ALICE)).json() == {"usage": {}}


# --- Imports ----------------------------------------------------------------------------------


async def test_a_copy_beyond_the_quota_is_refused_at_once(site: Make) -> None:
    here = await site(DEFAULT__USER_STORAGE_QUOTA=str(2 * len(DATA)))
    image = await here.active()
    asked = {"method": {"name": "copy-image"}, "stores": ["cheap", "third"]}
    refused = await here.api.post(f"/v2/images/{image}/import", json=asked, headers=ADMIN)
    assert refused.status_code == 413
    await here.ask(image, "copy-image", headers=ADMIN, stores=["cheap"])
    await here.work(DEFAULT__USER_STORAGE_QUOTA=str(2 * len(DATA)))
    assert (await used(here.database)).size == 2 * len(DATA)
    assert (await here.show(image))["stores"] == "cheap,fast"


async def test_a_copy_to_more_places_than_images_may_have_is_refused(site: Make) -> None:
    here = await site(DEFAULT__IMAGE_LOCATION_QUOTA="2")
    image = await here.active()
    asked = {"method": {"name": "copy-image"}, "stores": ["cheap", "third"]}
    refused = await here.api.post(f"/v2/images/{image}/import", json=asked, headers=ADMIN)
    assert (refused.status_code, "Attempted: 3, Maximum: 2" in refused.text) == (413, True)


@pytest.mark.parametrize("copies", [2, 3])
async def test_an_import_whose_data_do_not_fit_leaves_nothing(site: Make, copies: int) -> None:
    quota = str(2 * len(DATA))
    here = await site(DEFAULT__USER_STORAGE_QUOTA=quota)
    image = await here.staged()
    assert await used(here.database) == Usage(0, len(DATA), 1, 1)
    # So that the request passes, and the worker meets with the limit.
    async with databases.connection(here.database) as server:
        await server.execute("UPDATE images SET size = 0")
    await here.ask(image, "glance-direct", stores=["fast", "cheap", "third"][:copies])
    await here.work(DEFAULT__USER_STORAGE_QUOTA=quota)
    shown = await here.show(image)
    if copies == 2:
        assert shown["status"] == "active"
        assert await used(here.database) == Usage(2 * len(DATA), 0, 1, 0)
    else:
        assert shown["status"] == "queued"
        assert "user_storage_quota is over limit" in shown["os_glance_import_message"]
        assert await used(here.database) == Usage(0, 0, 1, 0)
        assert here.files() == []


# --- Keystone's limits ------------------------------------------------------------------------


@pytest.fixture
def limited(keystone: Keystone) -> Generator[tuple[dict[str, str], dict[str, str]]]:
    """The settings of a service whose limits Keystone has, and a caller of a project with some.

    Registered: nothing may be staged; of the project: 2 MiB, 3 images, one upload at a time.
    """
    token = keystone.token("admin", system=True)
    service = keystone.call("POST", "/services", {"service": {"type": "limited"}}, token=token)
    service_id = service["service"]["id"]
    endpoint = {"service_id": service_id, "interface": "public", "url": "http://limited"}
    place = keystone.call("POST", "/endpoints", {"endpoint": endpoint}, token=token)
    project = {"name": f"limited-{service_id[:8]}", "domain_id": "default"}
    made = keystone.call("POST", "/projects", {"project": project}, token=token)["project"]
    registered = [
        {"service_id": service_id, "resource_name": name, "default_limit": limit}
        for name, limit in {
            "image_size_total": 2,
            "image_stage_total": 0,
            "image_count_total": -1,
            "image_count_uploading": 1,
        }.items()
    ]
    keystone.call("POST", "/registered_limits", {"registered_limits": registered}, token=token)
    own = {"service_id": service_id, "project_id": made["id"]}
    own |= {"resource_name": "image_count_total", "resource_limit": 3}
    keystone.call("POST", "/limits", {"limits": [own]}, token=token)
    options = {
        "DEFAULT__USE_KEYSTONE_LIMITS": "true",
        "KEYSTONE_AUTHTOKEN__AUTH_URL": keystone.url,
        "OSLO_LIMIT__ENDPOINT_ID": place["endpoint"]["id"],
        "OSLO_LIMIT__USERNAME": "admin",
        "OSLO_LIMIT__PASSWORD": PASSWORD,
    }
    yield options, persona(made["id"])
    for kind in ("limits", "registered_limits"):
        found = keystone.call("GET", f"/{kind}?service_id={service_id}", token=token)[kind]
        for one in found:
            keystone.call("DELETE", f"/{kind}/{one['id']}", token=token)


async def test_limits_of_keystone(
    custom_api: Custom, limited: tuple[dict[str, str], dict[str, str]]
) -> None:
    options, who = limited
    api = await custom_api(**options)

    async def create() -> httpx.Response:
        return await api.post("/v2/images", json=FORMATS, headers=who)

    async def store(path: str, data: bytes | AsyncIterator[bytes], to: str = "file") -> int:
        answer = await api.put(f"{path}/{to}", content=data, headers={**who, **OCTETS})
        return answer.status_code

    path, other, _ = [(await create()).json()["self"] for _ in range(3)]
    refused = await create()
    assert refused.status_code == 413
    assert "Resource image_count_total is over limit of 3 due to current usage 3 and delta 1" in (
        refused.text
    )
    assert await store(path, b"x", to="stage") == 413
    assert await store(path, b"x" * (MIB + 1)) == 204
    assert await store(other, b"x" * MIB) == 413
    assert await store(other, pieces(b"x" * MIB, MIB // 4)) == 413
    began, ends = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        began.set()
        await ends.wait()

    upload = asyncio.create_task(store(other, slow()))
    await began.wait()
    shown = (await api.get("/v2/info/usage", headers=who)).json()
    assert shown["usage"]["image_count_uploading"] == {"usage": 1, "limit": 1}
    ends.set()
    assert await upload == 204
    shown = (await api.get("/v2/info/usage", headers=who)).json()
    assert shown == {
        "usage": {
            "image_size_total": {"usage": 1, "limit": 2},
            "image_stage_total": {"usage": 0, "limit": 0},
            "image_count_total": {"usage": 3, "limit": 3},
            "image_count_uploading": {"usage": 0, "limit": 1},
        }
    }


async def test_without_keystone_nothing_that_is_limited_begins(custom_api: Custom) -> None:
    api = await custom_api(
        DEFAULT__USE_KEYSTONE_LIMITS="true",
        KEYSTONE_AUTHTOKEN__AUTH_URL="http://127.0.0.1:9/v3",
        KEYSTONE_AUTHTOKEN__USERNAME="glance",
        KEYSTONE_AUTHTOKEN__PASSWORD="none",
        KEYSTONE_AUTHTOKEN__HTTP_REQUEST_MAX_RETRIES="0",
    )
    created = await api.post("/v2/images", json=FORMATS, headers=ALICE)
    assert (created.status_code, created.headers["retry-after"]) == (503, "5")
    assert (await api.get("/v2/images", headers=ALICE)).status_code == 200
