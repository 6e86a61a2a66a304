"""POST and GET /v2/images/{id}/locations, and the digests that are taken of what is there."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import databases, web
from tests.images.service import (
    ADMIN,
    ALICE,
    BOB,
    OCTETS,
    PATCH,
    READER,
    client,
    configuration,
    opened,
    persona,
)
from tests.waiting import until

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()
SHA512 = hashlib.sha512(DATA).hexdigest()
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
SECRET = "canary-in-a-url"

# A user's request that another service sends on, with a token of its own.
SERVICE = {**ALICE, "X-Service-Roles": "service", "X-Service-User-Id": "nova"}
NOBODY = persona("service", "service")

Create = Callable[..., Awaitable[str]]
Document = dict[str, Any]


class Site:
    """A web server that has DATA at every path but some; `gate` holds back what is slow."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.web = web.Web()
        self.status: dict[str, int] = {}
        self.body: dict[str, bytes] = {"/empty": b""}

    async def handle(self, asked: web.Asked, writer: asyncio.StreamWriter) -> None:
        path = asked.target.partition("?")[0]
        body, status = self.body.get(path, DATA), self.status.get(path, 200)
        if path == "/slow" and asked.method == "GET":
            writer.write(web.head(200, content_length=len(body)) + body[:1])
            await writer.drain()
            await self.gate.wait()
            writer.write(body[1:])
            await writer.drain()
            return
        await web.answer(body, status)(asked, writer)

    def url(self, path: str = "/disk.img") -> str:
        return f"{self.web.url}{path}"


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    site = Site()
    async with web.serving(site.handle) as site.web:
        yield site


@pytest.fixture
def environ(images_database: str, tmp_path: Path, site: Site) -> dict[str, str]:
    return configuration(
        images_database,
        tmp_path,
        DEFAULT__ENABLED_BACKENDS="fast:memory, cheap:file, web:http",
        DEFAULT__SHOW_IMAGE_DIRECT_URL="true",
        DEFAULT__HTTP_RETRIES="0",
        OUTBOUND__ALLOWED_HOSTS=f"127.0.0.1:{site.web.port}",
        IMPORT_FILTERING_OPTS__ALLOWED_PORTS="",
        JOBS__WITH_WORKER="true",
    )


@pytest.fixture
async def api(environ: dict[str, str]) -> AsyncGenerator[httpx.AsyncClient]:
    async with opened(environ) as app, client(app) as opened_client:
        yield opened_client


@pytest.fixture
def create(api: httpx.AsyncClient) -> Create:
    """`await create()`: the path of a queued image of Alice's."""

    async def create_image(**fields: object) -> str:
        body = {"disk_format": "raw", "container_format": "bare", **fields}
        answer = await api.post("/v2/images", json=body, headers=ALICE)
        assert answer.status_code == 201, answer.text
        return answer.json()["self"]

    return create_image


async def add(
    api: httpx.AsyncClient, path: str, url: object, headers: dict[str, str] = ALICE, **more: object
) -> httpx.Response:
    body = {"url": url, **more}
    return await api.post(f"{path}/locations", json=body, headers=headers)


async def seen(api: httpx.AsyncClient, path: str) -> Document:
    return (await api.get(path, headers=ALICE)).json()


async def task(api: httpx.AsyncClient, path: str) -> Document:
    [only] = (await api.get(f"{path}/tasks", headers=ALICE)).json()["tasks"]
    return only


async def ended(api: httpx.AsyncClient, path: str) -> Document:
    """The image when its task has ended."""

    async def is_over() -> bool:
        return (await task(api, path))["status"] in ("success", "failure")

    await until(is_over)
    return await seen(api, path)


def told(algorithm: str = "sha256", value: str = SHA256) -> Document:
    return {"os_hash_algo": algorithm, "os_hash_value": value}


# --- what becomes of the image --------------------------------------------------------------------


async def test_an_image_is_active_at_once_and_gets_its_digests_later(
    api: httpx.AsyncClient, create: Create, site: Site
) -> None:
    path = await create()
    answer = await add(api, path, site.url("/slow"), validation_data={})
    assert (answer.status_code, answer.content) == (202, b"")
    image = await seen(api, path)
    assert (image["status"], image["size"], image["stores"]) == ("active", len(DATA), "web")
    assert (image["os_hash_algo"], image["os_hash_value"], image["checksum"]) == (
        "sha512",
        None,
        None,
    )
    site.gate.set()
    image = await ended(api, path)
    assert (image["os_hash_value"], image["checksum"]) == (SHA512, MD5)
    about = await task(api, path)
    assert (about["type"], about["status"]) == ("location_import", "success")
    assert about["input"]["loc_url"] == site.url("/slow")
    assert (await api.get(f"{path}/file", headers=ALICE)).content == DATA


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        ("sha512", SHA512),
        ("sha256", SHA256.upper()),
        ("md5", MD5),
        ("sha1", hashlib.sha1(DATA, usedforsecurity=False).hexdigest()),
    ],
)
async def test_an_image_whose_digest_is_told_is_active_when_it_is_right(
    api: httpx.AsyncClient, create: Create, site: Site, algorithm: str, value: str
) -> None:
    path = await create()
    data = told(algorithm, value)
    assert (await add(api, path, site.url("/slow"), validation_data=data)).status_code == 202
    waiting = await seen(api, path)
    assert (waiting["status"], waiting["size"]) == ("importing", None)
    assert waiting["os_glance_import_task"] == (await task(api, path))["id"]
    # Nobody gets at bytes that may not be those.
    assert (await api.get(f"{path}/file", headers=ALICE)).status_code == 204
    site.gate.set()
    image = await ended(api, path)
    assert (image["status"], image["size"], image["checksum"]) == ("active", len(DATA), MD5)
    assert (image["os_hash_algo"], image["os_hash_value"]) == (algorithm, value.lower())
    assert "os_glance_import_task" not in image


async def test_formats_are_what_they_were_when_the_location_was_registered(
    api: httpx.AsyncClient, create: Create, site: Site
) -> None:
    path = await create()
    await add(api, path, site.url("/slow"), validation_data=told())
    change = [{"op": "replace", "path": "/disk_format", "value": None}]
    changed = await api.patch(path, json=change, headers={**ALICE, **PATCH})
    assert changed.status_code == 200, changed.text
    site.gate.set()
    image = await ended(api, path)
    assert (image["status"], image["disk_format"]) == ("active", "raw")


async def test_a_location_of_more_than_an_image_can_have_is_refused(
    environ: dict[str, str], site: Site
) -> None:
    environ["DIPTYCH_IMAGES__DEFAULT__IMAGE_SIZE_CAP"] = str(len(DATA) - 1)
    async with opened(environ) as app, client(app) as api:
        body = {"disk_format": "raw", "container_format": "bare"}
        path = (await api.post("/v2/images", json=body, headers=ALICE)).json()["self"]
        assert (await add(api, path, site.url())).status_code == 413
        assert (await seen(api, path))["status"] == "queued"


async def test_an_image_whose_bytes_have_another_digest_is_queued_again(
    api: httpx.AsyncClient, create: Create, site: Site, images_database: str
) -> None:
    path = await create(os_hash_algo="sha384")
    await add(api, path, site.url(), validation_data=told("sha256", "0" * 64))
    image = await ended(api, path)
    assert (image["status"], image["size"]) == ("queued", None)
    # What was chosen at its creation, for the next try.
    assert image["os_hash_algo"] == "sha384"
    assert [image[name] for name in ("checksum", "os_hash_value")] == [None] * 2
    assert (await task(api, path))["status"] == "failure"
    assert "digest" in image["os_glance_import_message"]
    async with databases.connection(images_database) as database:
        assert await database.fetchval("SELECT count(*) FROM image_locations") == 0
    assert (await add(api, path, site.url(), validation_data=told())).status_code == 202


async def test_without_secure_hash_what_is_told_is_taken_for_true(
    environ: dict[str, str], site: Site
) -> None:
    environ["DIPTYCH_IMAGES__DEFAULT__DO_SECURE_HASH"] = "false"
    async with opened(environ) as app, client(app) as api:
        for data, digest in ((told("sha256", "0" * 64), ("sha256", "0" * 64)), ({}, (None, None))):
            body = {"disk_format": "raw", "container_format": "bare"}
            path = (await api.post("/v2/images", json=body, headers=ALICE)).json()["self"]
            assert (await add(api, path, site.url(), validation_data=data)).status_code == 202
            image = await seen(api, path)
            assert (image["status"], image["checksum"]) == ("active", None)
            assert (image["os_hash_algo"], image["os_hash_value"]) == digest
            assert (await task(api, path))["status"] == "success"
    assert all(asked.headers.get("range") is None for asked in site.web.asked)


@pytest.mark.parametrize(("data", "status"), [({}, "active"), (told(), "queued")])
async def test_a_location_that_is_gone_when_it_is_read(
    environ: dict[str, str], site: Site, data: Document, status: str
) -> None:
    environ["DIPTYCH_IMAGES__JOBS__WITH_WORKER"] = "false"
    body = {"disk_format": "raw", "container_format": "bare"}
    async with opened(environ) as app, client(app) as api:
        path = (await api.post("/v2/images", json=body, headers=ALICE)).json()["self"]
        assert (await add(api, path, site.url(), validation_data=data)).status_code == 202
    site.status["/disk.img"] = 404
    environ["DIPTYCH_IMAGES__JOBS__WITH_WORKER"] = "true"
    async with opened(environ) as app, client(app) as api:
        image = await ended(api, path)
        assert (image["status"], image["os_hash_value"]) == (status, None)
        assert (await task(api, path))["status"] == "failure"


async def test_deleting_the_image_stops_the_hashing(
    api: httpx.AsyncClient, create: Create, site: Site, images_database: str
) -> None:
    for data in ({}, told()):
        path = await create()
        await add(api, path, site.url("/slow"), validation_data=data)
        assert (await api.delete(path, headers=ALICE)).status_code == 204
    async with databases.connection(images_database) as database:

        async def is_clean() -> bool:
            return (
                await database.fetchval(
                    "SELECT count(*) FROM jobs WHERE kind = 'location_import'"
                    " AND state IN ('cancelled', 'failed')"
                )
                == 2
                and await database.fetchval("SELECT count(*) FROM image_locations") == 0
            )

        await until(is_clean)
        statuses = await database.fetch("SELECT DISTINCT status FROM tasks")
        assert [row["status"] for row in statuses] == ["failure"]


# --- who may --------------------------------------------------------------------------------------


async def test_who_may_register_a_location_on_the_web(
    api: httpx.AsyncClient, create: Create, site: Site
) -> None:
    answers = {
        "owner": (ALICE, 202),
        "reader": (READER, 403),
        "stranger": (BOB, 404),
        "admin": (ADMIN, 202),
        "service": (SERVICE, 202),
        "nobody": ({}, 401),
    }
    for who, (headers, status) in answers.items():
        answer = await add(api, await create(), site.url(), headers)
        assert answer.status_code == status, who


async def test_only_services_register_locations_of_other_stores(
    api: httpx.AsyncClient, create: Create
) -> None:
    upload = await create()
    await api.put(f"{upload}/file", content=DATA, headers={**ALICE, **OCTETS})
    [location] = (await api.get(f"{upload}/locations", headers=ADMIN)).json()
    path = await create()
    for headers in (ALICE, ADMIN):
        assert (await add(api, path, location["url"], headers)).status_code == 403
    data = {"store": "fast", **told()}
    assert (await add(api, path, location["url"], SERVICE, validation_data=data)).status_code == 202
    image = await ended(api, path)
    assert (image["status"], image["stores"], image["os_hash_value"]) == ("active", "fast", SHA256)


async def test_who_sees_locations(api: httpx.AsyncClient, create: Create, site: Site) -> None:
    path = await create()
    await add(api, path, site.url(f"/disk.img?key={SECRET}"))
    for headers, status in ((ALICE, 403), (BOB, 404), ({}, 401)):
        assert (await api.get(f"{path}/locations", headers=headers)).status_code == status
    shown = await api.get(f"{path}/locations", headers=ADMIN)
    assert shown.json() == [{"url": site.url(), "metadata": {"store": "web"}}]
    for document in (await seen(api, path), await task(api, path)):
        assert SECRET not in str(document)


async def test_a_service_sees_where_a_public_image_is(
    api: httpx.AsyncClient, create: Create, site: Site
) -> None:
    path = await create()
    assert (await api.get(f"{path}/locations", headers=NOBODY)).status_code == 404
    await add(api, path, site.url())
    operation = [{"op": "replace", "path": "/visibility", "value": "public"}]
    await api.patch(path, json=operation, headers={**ADMIN, **PATCH})
    assert (await api.get(f"{path}/locations", headers=NOBODY)).status_code == 200


# --- what is refused ------------------------------------------------------------------------------


async def test_only_a_queued_image_gets_one(
    api: httpx.AsyncClient, create: Create, site: Site, images_database: str
) -> None:
    path = await create()
    async with databases.connection(images_database) as database:
        for status in ("active", "saving", "uploading", "importing", "deactivated"):
            await database.execute("UPDATE images SET status = $1", status)
            assert (await add(api, path, site.url())).status_code == 409, status
    assert site.web.asked == []


async def test_an_image_that_an_import_holds_gets_none(
    api: httpx.AsyncClient, create: Create, site: Site, images_database: str
) -> None:
    path = await create()
    async with databases.connection(images_database) as database:
        await database.execute("UPDATE images SET import_task = gen_random_uuid()")
    assert (await add(api, path, site.url())).status_code == 409


async def test_of_two_at_a_time_one_is_refused(
    api: httpx.AsyncClient, create: Create, site: Site
) -> None:
    path = await create()
    answers = await asyncio.gather(*(add(api, path, site.url()) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]


BAD_BODIES: list[object] = [
    [],
    {},
    {"url": None},
    {"url": ""},
    {"url": "https://example.com/" + "x" * 255},
    {"url": "https://example.com/", "validation_data": []},
    {"url": "https://example.com/", "validation_data": {"checksum": MD5}},
    {"url": "https://example.com/", "validation_data": {**told(), "more": "x"}},
    {"url": "https://example.com/", "validation_data": {"store": "fast"}},
    {"url": "https://example.com/", "validation_data": {"store": 1}},
    {"url": "https://example.com/", "validation_data": {"os_hash_algo": "sha256"}},
    {"url": "https://example.com/", "validation_data": {"os_hash_value": SHA256}},
    {"url": "https://example.com/", "validation_data": told("sha384", "0" * 96)},
    {"url": "https://example.com/", "validation_data": told("sha256", "0" * 63)},
    {"url": "https://example.com/", "validation_data": told("sha256", "g" * 64)},
]


async def test_what_is_no_request_is_refused(api: httpx.AsyncClient, create: Create) -> None:
    path = await create()
    for body in BAD_BODIES:
        answer = await api.post(f"{path}/locations", json=body, headers=ALICE)
        assert answer.status_code == 400, body
    assert (await seen(api, path))["status"] == "queued"


SCHEMES = [
    "file:///etc/passwd", "FILE:///etc/passwd", " file:///etc/passwd", "file:/etc/passwd",
    "filesystem:///etc/passwd", "FileSystem:///etc/passwd", "fi%6ce:///etc/passwd",
    "\tfile:///etc/passwd", "fi\nle:///etc/passwd", "file\u200b:///etc/passwd", "/etc/passwd",
    "ﬁle:///etc/passwd", "swift+config://ref1/box/key", "Swift+Config://ref1/box/key",
    "swift+config+https://ref1/box/key", "cinder://volume", "vsphere://host/folder/x",
    "gopher://example.com/", "javascript:alert(1)", "nowhere", "://", "\x00",
    "sheepdog://127.0.0.1:7000:x;touch$IFS/tmp/x", "rbd://a/b/$(id)/snap", "fast://`id`", "|id",
]  # fmt: skip


async def test_a_scheme_that_no_store_has_or_that_is_never_taken_is_refused(
    api: httpx.AsyncClient, create: Create, tmp_path: Path
) -> None:
    # CVE-2014-9493, CVE-2015-1195, CVE-2014-0162
    path = await create()
    own = f"file://{tmp_path}/cheap/{path.rpartition('/')[2]}"
    owns = [own, own.replace("file", "FILE"), own.replace("file:", "filesystem:")]
    for url in (*SCHEMES, *owns):
        for data in ({}, {"store": "cheap"}):
            answer = await add(api, path, url, SERVICE, validation_data=data)
            assert answer.status_code == 400, (url, answer.text)
        assert (await add(api, path, url)).status_code in (400, 403)
    assert (await seen(api, path))["status"] == "queued"


NOT_TO_BE_HAD = [
    "http://127.0.0.2:{port}/x", "http://169.254.169.254/latest/meta-data", "http://[::1]/",
    "http://localhost:{port}/", "http://10.0.0.1/", "http://2130706433/", "http://127.1/",
    "http://user:canary-in-a-url@127.0.0.1:{port}/", "http://127.0.0.1:1/x",
    "http://127.0.0.1:{port}/gone", "http://127.0.0.1:{port}/broken",
    "http://127.0.0.1:{port}/empty", "http://127.0.0.1:{port}\\@evil.example/",
]  # fmt: skip


async def test_what_cannot_be_had_from_the_web_is_refused(
    api: httpx.AsyncClient, create: Create, site: Site
) -> None:
    site.status |= {"/gone": 404, "/broken": 403}
    path = await create()
    for url in NOT_TO_BE_HAD:
        answer = await add(api, path, url.format(port=site.web.port))
        assert answer.status_code == 400, (url, answer.text)
        assert SECRET not in answer.text
    assert (await seen(api, path))["status"] == "queued"


async def test_formats_are_needed(api: httpx.AsyncClient, create: Create, site: Site) -> None:
    for name in ("disk_format", "container_format"):
        path = await create(**{name: None})
        assert (await add(api, path, site.url())).status_code == 400


async def test_there_may_be_no_store_for_the_web(
    images_database: str, tmp_path: Path, site: Site
) -> None:
    async with opened(configuration(images_database, tmp_path)) as app, client(app) as api:
        body = {"disk_format": "raw", "container_format": "bare"}
        path = (await api.post("/v2/images", json=body, headers=ALICE)).json()["self"]
        assert (await add(api, path, site.url())).status_code == 403
