"""Images whose stores are not what they were: renamed, not configured any more, or never ours."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tests import databases, web
from tests.images.service import ALICE
from tests.images.stores import Bucket, Container
from tests.images.test_stores import (
    ALL,
    Service,
    also_in,
    backends,
    serving,
    until_gone,
)
from tests.images.workers import working

__all__ = ["backends", "serving"]

Serve = Callable[..., Awaitable[Service]]


async def test_stores_that_have_each_others_name_now(
    serving: Serve, backends: dict[str, Bucket | Container]
) -> None:
    before = await serving()
    image = await before.image(b"data", store="one")
    swapped = backends["two"].options("one") | backends["one"].options("two")
    service = await serving(**swapped)
    assert (await service.download(image)).content == b"data"
    assert (await service.http.delete(image["self"], headers=ALICE)).status_code == 204
    async with working(service.environ):
        await until_gone(service, image)
    assert await service.left() == {}


async def test_a_store_of_another_type_has_the_name_now(
    serving: Serve, backends: dict[str, Bucket | Container]
) -> None:
    """What is somewhere on the web is never deleted, which must not go for what was here."""
    before = await serving()
    image = await before.image(b"data", store="one")
    kinds = ALL.replace("one:s3", "one:http, first:s3")
    first = backends["one"].options("first")
    service = await serving(DEFAULT__ENABLED_BACKENDS=kinds, **first)
    assert (await service.download(image)).content == b"data"
    assert (await service.http.delete(image["self"], headers=ALICE)).status_code == 204
    async with working(service.environ):
        await until_gone(service, image)
    assert await service.left() == {}


@pytest.mark.parametrize("store", ["one", "objects"])
async def test_a_store_that_is_not_configured_any_more(serving: Serve, store: str) -> None:
    right = await serving()
    image = await right.image(b"data", store=store)
    both = await right.image(b"more", store="fast")
    await also_in(right, both, store)
    others = ", ".join(one for one in ALL.split(", ") if not one.startswith(store))
    service = await serving(DEFAULT__ENABLED_BACKENDS=others)
    assert (await service.show(image))["stores"] == store
    assert (await service.download(image)).status_code == 503
    assert (await service.http.head(image["file"], headers=ALICE)).status_code == 503
    assert (await service.download(both, Range="bytes=1-2")).content == b"or"
    for each in (image, both):
        assert (await service.http.delete(each["self"], headers=ALICE)).status_code == 204
    # The bytes that nobody reaches now are not forgotten.
    async with working(right.environ):
        await until_gone(right, image)
        await until_gone(right, both)
    assert await right.left() == {}


async def test_bytes_that_somebody_removed(
    serving: Serve, backends: dict[str, Bucket | Container]
) -> None:
    service = await serving(ONE__WEIGHT="5")
    image = await service.image(b"data", store="objects")
    await also_in(service, image, "one")
    only = await service.image(b"data", store="one")
    one = backends["one"]
    assert isinstance(one, Bucket)
    async with one.client() as client:
        for key in await one.everything():
            await client.delete_object(Bucket=one.name, Key=key)
    assert (await service.download(image)).content == b"data"
    assert (await service.download(image, Range="bytes=3-")).content == b"a"
    assert (await service.download(only)).status_code == 204
    for each in (image, only):
        assert (await service.http.delete(each["self"], headers=ALICE)).status_code == 204
    async with working(service.environ):
        await until_gone(service, image)
        await until_gone(service, only)
    assert await service.left() == {}


# {here}: a server that no store is at; {s3}, {auth}, {storage}: those of the stores.
ELSEWHERE = [
    "file:///etc/passwd",
    "file://{files}/../../../../etc/passwd",
    "file://{files}/%2e%2e/{id}",
    "file:///proc/self/environ",
    "s3://{s3}/somebody-elses/{id}",
    "s3://key:secret@{here}/{bucket}/{id}",
    "s3+https://{here}/{bucket}/{id}",
    "s3://{s3}@{here}/{bucket}/{id}",
    "s3://{s3}/{bucket}/../{id}",
    "s3://{s3}/{bucket}/.attempts/{id}",
    "s3://{s3}/{bucket}/{id}\r\nX-More: x",
    "swift+http://test:tester:testing@{here}/v1/{container}/{id}",
    "swift+http://{here}/v1/AUTH_test/{container}/{id}",
    "swift+http://{auth}@{here}/v1/{container}/{id}",
    "swift+http://{storage}/AUTH_other/{container}/{id}",
    "swift+http://test:tester:testing@{auth}/somebody-elses/{id}",
    "swift+http://test:tester:testing@{auth}/{container}//{id}",
    "swift+http://test:tester:testing@{auth}/{container}/..",
    "swift+http://test:tester:testing@{auth}/{container}/%2e%2e%2f{id}",
    "swift+http://test:tester:testing@{auth}/{container}/{id}?multipart-manifest=get",
    "swift+config://other/{container}/{id}",
    "swift+config://objects/{container}%2f{id}/{id}",
    "http://user:password@{here}/{id}",
    "rbd://fsid/pool/{id}/snap",
    "\u00e9",
]


async def old_image(service: Service, store: str, url: str) -> str:
    """The path of an active image with that row of a location."""
    image = str(uuid4())
    async with databases.connection(service.database) as server:
        await server.execute(
            "INSERT INTO images (id, status, owner, size) VALUES ($1, 'active', 'alpha', 3)", image
        )
        await server.execute(
            "INSERT INTO image_locations (image_id, store, url, status)"
            " VALUES ($1, $2, $3, 'active')",
            image,
            store,
            url.replace("{id}", image),
        )
    return f"/v2/images/{image}"


@pytest.mark.parametrize("store", ["fast", "one", "objects", "web", "not-here"])
async def test_a_location_leads_nowhere_else(
    serving: Serve, backends: dict[str, Bucket | Container], store: str, tmp_path: Path
) -> None:
    """Neither to other files, buckets or containers of a store's, nor to other servers."""
    bucket, container = backends["one"], backends["objects"]
    async with web.serving(web.answer(b"abc")) as elsewhere:
        service = await serving(DEFAULT__ENABLED_BACKENDS=f"{ALL}, web:http")
        swift = container.server.url.removeprefix("http://")
        names = {
            "{files}": str(tmp_path / "fast"),
            "{here}": f"127.0.0.1:{elsewhere.port}",
            "{s3}": bucket.server.url.removeprefix("http://"),
            "{bucket}": bucket.name,
            "{auth}": f"{swift}/auth/v1.0",
            "{storage}": f"{swift}/v1",
            "{container}": container.name,
        }
        for form in ELSEWHERE:
            url = form
            for name, value in names.items():
                url = url.replace(name, value)
            image = await old_image(service, store, url)
            for method, headers in (("GET", {}), ("GET", {"Range": "bytes=0-0"}), ("HEAD", {})):
                answer = await service.http.request(
                    method, f"{image}/file", headers={**ALICE, **headers}
                )
                assert answer.status_code in (403, 503), form
        assert elsewhere.connections == 0
