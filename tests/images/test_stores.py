"""Images in stores at real servers, several at once; and what is answered when one fails."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev.seaweedfs import Seaweedfs
from dev.swift import Swift

from tests import databases
from tests.images.service import ADMIN, ALICE, OCTETS, client, configuration, opened
from tests.images.stores import Bucket, Container
from tests.images.workers import working
from tests.store.faults import Wire
from tests.waiting import until

UPLOAD = {**ALICE, **OCTETS}
MIB = 1 << 20
RAW = {"disk_format": "raw", "container_format": "bare"}
ALL = "fast:file, one:s3, two:s3, objects:swift"
REMOTE = ("one", "two", "objects")

Make = Callable[..., Awaitable[httpx.AsyncClient]]


@dataclass
class Service:
    """The service with the stores of ALL, `fast` the default, and what lies in the remote ones."""

    environ: dict[str, str]
    database: str
    backends: dict[str, Bucket | Container]
    http: httpx.AsyncClient

    async def image(self, data: bytes | None = None, *, store: str = "fast") -> dict[str, Any]:
        """An image of Alice's, with data in that store."""
        made = (await self.http.post("/v2/images", json=RAW, headers=ALICE)).json()
        if data is not None:
            stored = await self.upload(made, data, store=store)
            assert stored.status_code == 204, stored.text
        return await self.show(made)

    async def upload(
        self, image: dict[str, Any], data: Any, *, store: str, **headers: str
    ) -> httpx.Response:
        headers |= {**UPLOAD, "X-Image-Meta-Store": store}
        return await self.http.put(image["file"], content=data, headers=headers)

    async def download(self, image: dict[str, Any], **headers: str) -> httpx.Response:
        return await self.http.get(image["file"], headers={**ALICE, **headers})

    async def show(self, image: dict[str, Any]) -> dict[str, Any]:
        return (await self.http.get(image["self"], headers=ALICE)).json()

    async def left(self) -> dict[str, list[str]]:
        """What lies in the remote stores that have something."""
        found = {name: await backend.everything() for name, backend in self.backends.items()}
        return {name: keys for name, keys in found.items() if keys}


@pytest.fixture
async def backends(s3: Seaweedfs, swift: Swift) -> AsyncGenerator[dict[str, Bucket | Container]]:
    made = {"one": Bucket(s3), "two": Bucket(s3)}
    container = Container(swift)
    for bucket in made.values():
        await bucket.make()
    yield {**made, "objects": container}
    for backend in (*made.values(), container):
        await backend.remove()


@pytest.fixture
async def serving(
    images_database: str, tmp_path: Path, backends: dict[str, Bucket | Container]
) -> AsyncGenerator[Callable[..., Awaitable[Service]]]:
    """`await serving(ONE__WEIGHT="5")`: the service with these settings beside its stores'."""
    async with AsyncExitStack() as stack:

        async def serve(**options: str) -> Service:
            stores = {
                name: value
                for store, backend in backends.items()
                for name, value in backend.options(store).items()
            }
            settings = {"DEFAULT__ENABLED_BACKENDS": ALL, "JOBS__REAPER_INTERVAL": "1"}
            environ = configuration(images_database, tmp_path, **(settings | stores | options))
            app = await stack.enter_async_context(opened(environ))
            http = await stack.enter_async_context(client(app))
            return Service(environ, images_database, backends, http)

        yield serve


@pytest.fixture
async def service(serving: Callable[..., Awaitable[Service]]) -> Service:
    return await serving()


@pytest.mark.parametrize("store", REMOTE)
async def test_bytes_come_back_whole_and_in_parts(service: Service, store: str) -> None:
    data = os.urandom(20 * MIB + 1)
    image = await service.image(data, store=store)
    assert (image["status"], image["stores"], image["size"]) == ("active", store, len(data))
    whole = await service.download(image)
    assert (whole.status_code, whole.content) == (200, data)
    head = await service.http.head(image["file"], headers=ALICE)
    assert head.headers["content-length"] == str(len(data))
    end = len(data) - 1
    for asked, part in {
        "bytes=0-0": data[:1],
        f"bytes={8 * MIB - 1}-{8 * MIB}": data[8 * MIB - 1 : 8 * MIB + 1],
        f"bytes={end}-": data[end:],
        "bytes=-7": data[-7:],
        f"bytes={end - 1}-{end + 99}": data[end - 1 :],
    }.items():
        got = await service.download(image, Range=asked)
        assert (got.status_code, got.content) == (206, part), asked
    beyond = await service.download(image, Range=f"bytes={len(data)}-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")


@pytest.mark.parametrize("store", REMOTE)
async def test_the_bytes_go_when_the_image_does(service: Service, store: str) -> None:
    image = await service.image(b"data", store=store)
    assert list(await service.left()) == [store]
    assert (await service.http.delete(image["self"], headers=ALICE)).status_code == 204

    async def is_empty() -> bool:
        return await service.left() == {}

    async with working(service.environ):
        await until(is_empty)


@pytest.mark.parametrize("store", REMOTE)
async def test_an_empty_image_comes_back(service: Service, store: str) -> None:
    image = await service.image(b"", store=store)
    assert (image["status"], image["size"]) == ("active", 0)
    assert (await service.download(image)).content == b""


@pytest.mark.parametrize("store", REMOTE)
async def test_of_two_uploads_at_once_one_is_kept(service: Service, store: str) -> None:
    image = await service.image()
    bodies = [letter * (9 * MIB) for letter in (b"a", b"b")]
    answers = await asyncio.gather(*(service.upload(image, body, store=store) for body in bodies))
    winner = [answer.status_code for answer in answers].index(204)
    assert sorted(answer.status_code for answer in answers) in ([204, 409], [204, 410])
    assert (await service.download(image)).content == bodies[winner]


@pytest.mark.parametrize("store", REMOTE)
async def test_an_upload_that_is_too_short_leaves_nothing(service: Service, store: str) -> None:
    image = await service.image()

    async def short() -> AsyncGenerator[bytes]:
        yield bytes(9 * MIB)

    announced = {"x-openstack-image-size": str(10 * MIB)}
    refused = await service.upload(image, short(), store=store, **announced)
    assert refused.status_code == 400
    assert (await service.show(image))["status"] == "queued"
    assert await service.left() == {}


@pytest.mark.parametrize("store", REMOTE)
async def test_a_deleted_image_takes_its_upload_with_it(service: Service, store: str) -> None:
    image = await service.image()
    deleted = False

    async def deleting() -> AsyncGenerator[bytes]:
        nonlocal deleted
        yield bytes(9 * MIB)
        await service.http.delete(image["self"], headers=ALICE)
        deleted = True
        yield bytes(MIB)

    refused = await service.upload(image, deleting(), store=store)
    assert deleted
    assert refused.status_code == 410
    assert await service.left() == {}


async def test_stores_are_told(service: Service) -> None:
    plain = (await service.http.get("/v2/info/stores", headers=ALICE)).json()["stores"]
    assert [store["id"] for store in plain] == ["fast", "one", "two", "objects"]
    detail = (await service.http.get("/v2/info/stores/detail", headers=ADMIN)).json()["stores"]
    assert [store["type"] for store in detail] == ["file", "s3", "s3", "swift"]


async def also_in(service: Service, image: dict[str, Any], store: str) -> None:
    """Give the image a second location: the bytes of another one, in that store."""
    twin = await service.image((await service.download(image)).content, store=store)
    async with databases.connection(service.database) as server:
        await server.execute(
            "UPDATE image_locations SET image_id = $1 WHERE image_id = $2", image["id"], twin["id"]
        )


async def test_locations_are_read_and_told_by_weight(
    serving: Callable[..., Awaitable[Service]],
) -> None:
    service = await serving(
        ONE__WEIGHT="5", OBJECTS__WEIGHT="9", DEFAULT__SHOW_IMAGE_DIRECT_URL="true"
    )
    image = await service.image(b"data", store="one")
    await also_in(service, image, "two")
    await also_in(service, image, "objects")
    shown = await service.show(image)
    assert shown["stores"] == "objects,one,two"
    assert shown["direct_url"].startswith("swift")
    assert "testing" not in shown["direct_url"].replace("://test", "")
    assert (await service.download(image)).content == b"data"


async def until_gone(service: Service, image: dict[str, Any]) -> None:
    async def is_forgotten() -> bool:
        async with databases.connection(service.database) as server:
            rows = "SELECT count(*) = 0 FROM image_locations WHERE image_id = $1"
            return bool(await server.fetchval(rows, image["id"]))

    # An attempt that was taken while its store was away keeps its lease, usually of 30 s.
    await until(is_forgotten, within_s=75)


@pytest.fixture
def wire(s3: Seaweedfs) -> Generator[Wire]:
    """The way to the server of the store `one`, if its URL says so; nobody answers at first."""
    with Wire.to("127.0.0.1", s3.port) as wire:
        wire.refuse()
        yield wire


def over(wire: Wire, backends: dict[str, Bucket | Container]) -> dict[str, str]:
    """The options of the store `one` at the end of a wire."""
    bucket = backends["one"]
    assert isinstance(bucket, Bucket)
    return replace(bucket, url=f"http://127.0.0.1:{wire.port}").options("one", s3_store_retries="0")


async def test_a_server_that_is_down_keeps_no_other_from_serving(
    serving: Callable[..., Awaitable[Service]], backends: dict[str, Bucket | Container], wire: Wire
) -> None:
    """From the start on; what was deleted meanwhile goes when the server is back."""
    service = await serving(**over(wire, backends), ONE__WEIGHT="5", JOBS__LEASE="5")
    image = await service.image()
    refused = await service.upload(image, b"data", store="one")
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    assert (await service.show(image))["status"] == "queued"
    assert (await service.upload(image, b"data", store="two")).status_code == 204

    wire.listen()
    only = await service.image(b"only", store="one")
    await also_in(service, image, "one")
    wire.refuse()
    # The heavier location does not open.
    assert (await service.show(image))["stores"] == "one,two"
    assert (await service.download(image)).content == b"data"
    assert (await service.download(image, Range="bytes=1-")).content == b"ata"
    for headers in ({}, {"Range": "bytes=0-1"}):
        refused = await service.download(only, **headers)
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
    assert (await service.http.head(only["file"], headers=ALICE)).status_code == 503
    for each in (only, image):
        assert (await service.http.delete(each["self"], headers=ALICE)).status_code == 204
        assert (await service.http.get(each["self"], headers=ALICE)).status_code == 404

    async def is_away_from(store: str) -> bool:
        return await backends[store].everything() == []

    async with working(service.environ):
        await until(lambda: is_away_from("two"))
        assert not await is_away_from("one")
        wire.listen()
        await until(lambda: is_away_from("one"), within_s=60)
        await until_gone(service, only)
        await until_gone(service, image)


async def test_a_default_store_that_is_away_is_not_ready(
    serving: Callable[..., Awaitable[Service]], backends: dict[str, Bucket | Container], wire: Wire
) -> None:
    service = await serving(**over(wire, backends), GLANCE_STORE__DEFAULT_BACKEND="one")
    told = await service.http.get("/readyz")
    assert (told.status_code, told.json()["checks"]["default_store"]) == (503, "failing")
    wire.listen()

    async def is_ready() -> bool:
        return (await service.http.get("/readyz")).status_code == 200

    await until(is_ready)


@pytest.mark.parametrize(
    ("options", "store", "upload", "download"),
    [
        ({"ONE__S3_STORE_SECRET_KEY": "wrong"}, "one", 503, 403),
        ({"ONE__S3_STORE_ACCESS_KEY": "wrong"}, "one", 503, 403),
        # What the row tells is in another bucket then.
        ({"ONE__S3_STORE_BUCKET": "no-such-bucket"}, "one", 503, 503),
        ({"OBJECTS__SWIFT_STORE_KEY": "wrong"}, "objects", 503, 403),
        (
            {
                "OBJECTS__SWIFT_STORE_CONTAINER": "none",
                "OBJECTS__SWIFT_STORE_CREATE_CONTAINER_ON_PUT": "false",
            },
            "objects",
            503,
            503,
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
async def test_a_store_that_is_set_up_wrongly(
    serving: Callable[..., Awaitable[Service]],
    options: dict[str, str],
    store: str,
    upload: int,
    download: int,
) -> None:
    right = await serving()
    image = await right.image(b"data", store=store)
    wrong = await serving(**options)
    assert (await wrong.download(image)).status_code == download
    other = await wrong.image()
    refused = await wrong.upload(other, bytes(9 * MIB), store=store)
    assert refused.status_code == upload
    assert (await wrong.show(other))["status"] == "queued"
    assert (await wrong.http.delete(image["self"], headers=ALICE)).status_code == 204
    async with working(wrong.environ):
        await asyncio.sleep(0)
    async with working(right.environ):
        await until_gone(right, image)
    assert await right.left() == {}


async def test_a_key_that_may_only_read(
    serving: Callable[..., Awaitable[Service]], s3: Seaweedfs
) -> None:
    right = await serving()
    image = await right.image(b"data", store="one")
    bucket = right.backends["one"]
    assert isinstance(bucket, Bucket)
    reading = await serving(**replace(bucket, key=s3.read_only).options("one"))
    assert (await reading.download(image)).content == b"data"
    refused = await reading.upload(await reading.image(), b"data", store="one")
    assert refused.status_code == 503
