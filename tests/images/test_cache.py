"""Downloads through a node's cache: each image is fetched once, whatever happens."""

import asyncio
import hashlib
import shutil
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from diptych_common.metrics import Metrics
from diptych_images.cache.directory import Directory, Image, Part, Refusal
from diptych_images.cache.reading import Cache, Damaged
from diptych_store.drivers.memory import MemoryStore
from diptych_store.protocol import Attempt, ByteRange, Reading, Store
from starlette.types import ASGIApp

from tests import databases
from tests.images.caching import BLOCK, Node, a_node, data
from tests.images.service import ADMIN, ALICE, BOB, READER, client, opened, persona
from tests.waiting import until

NOBODY = {**persona("alpha"), "X-Roles": "none"}


@pytest.fixture
async def node(images_database: str, tmp_path: Path) -> AsyncGenerator[Node]:
    async with a_node(images_database, tmp_path) as found:
        yield found


@pytest.fixture
async def app(node: Node) -> AsyncGenerator[ASGIApp]:
    async with opened(node.environ) as application:
        yield application


@pytest.fixture
async def api(app: ASGIApp) -> AsyncGenerator[httpx.AsyncClient]:
    async with client(app) as opened_client:
        yield opened_client


async def cached(api: httpx.AsyncClient) -> list[str]:
    found = (await api.get("/v2/cache", headers=ADMIN)).json()
    return [one["image_id"] for one in found["cached_images"]]


async def download(api: httpx.AsyncClient, path: str, part: str = "") -> bytes:
    headers = {**ALICE, "Range": part} if part else ALICE
    answer = await api.get(f"{path}/file", headers=headers)
    assert answer.status_code == (206 if part else 200), answer.text
    return answer.content


async def test_a_second_download_is_a_hit(node: Node, api: httpx.AsyncClient) -> None:
    content = data(5.3)
    path = await node.image(content)
    assert await download(api, path) == content
    await until(lambda: _is_cached(api, path))
    node.origin.objects.clear()
    assert await download(api, path) == content
    assert node.origin.sent == len(content)
    [found] = (await api.get("/v2/cache", headers=ADMIN)).json()["cached_images"]
    assert (found["size"], found["hits"]) == (len(content), 1)
    assert found["last_accessed"] >= found["last_modified"] > 1_500_000_000


async def _is_cached(api: httpx.AsyncClient, path: str) -> bool:
    return path.rpartition("/")[2] in await cached(api)


async def test_twenty_downloads_at_once_are_one_fetch(node: Node, api: httpx.AsyncClient) -> None:
    content = data(8.5)
    path = await node.image(content)
    node.origin.allowed = 3 * BLOCK
    downloads = [asyncio.create_task(download(api, path)) for _ in range(20)]
    await until(lambda: node.origin.sent == 3 * BLOCK)
    downloads += [asyncio.create_task(download(api, path)) for _ in range(20)]
    node.origin.let_go()
    assert set(await asyncio.gather(*downloads)) == {content}
    assert node.origin.parts == [(path.rpartition("/")[2], 0, len(content))]
    assert node.origin.sent == len(content)


async def test_parts_are_cached_and_make_a_whole(node: Node, api: httpx.AsyncClient) -> None:
    content = data(6.5)
    path = await node.image(content)
    name = path.rpartition("/")[2]
    assert await download(api, path, "bytes=140000-140009") == content[140000:140010]
    assert await download(api, path, "bytes=140010-150000") == content[140010:150001]
    assert node.origin.parts == [(name, 2 * BLOCK, 3 * BLOCK)]
    assert await download(api, path, "bytes=-10") == content[-10:]
    assert node.origin.parts[1:] == [(name, 6 * BLOCK, len(content))]
    assert await cached(api) == []

    assert await download(api, path) == content
    assert node.origin.sent == len(content)
    assert [part[1:] for part in node.origin.parts[2:]] == [
        (0, 2 * BLOCK),
        (3 * BLOCK, 6 * BLOCK),
    ]
    await until(lambda: _is_cached(api, path))
    node.origin.objects.clear()
    assert await download(api, path) == content
    assert await download(api, path, "bytes=1-") == content[1:]


async def test_the_size_holds_at_all_times(node: Node, api: httpx.AsyncClient) -> None:
    """Twelve images of 8 blocks through a cache of 32, six at a time."""
    contents = [data(7.9, seed=number) for number in range(12)]
    paths = [await node.image(content) for content in contents]
    sizes: list[int] = []
    running = True

    async def watch() -> None:
        while running:
            sizes.append(node.stored())
            await asyncio.sleep(0.001)

    async def fetch(number: int) -> None:
        assert await download(api, paths[number]) == contents[number]

    watching = asyncio.create_task(watch())
    for _ in range(2):
        await asyncio.gather(*map(fetch, range(6)))
        await asyncio.gather(*map(fetch, range(6, 12)))
    running = False
    await watching
    assert max(sizes) <= 32 * BLOCK
    assert max(sizes) > 16 * BLOCK
    assert node.stored() <= 32 * BLOCK


async def test_what_was_used_least_recently_goes_first(node: Node, api: httpx.AsyncClient) -> None:
    contents = [data(10, seed=number) for number in range(4)]
    paths = [await node.image(content) for content in contents]
    for number in (0, 1, 2, 0):
        assert await download(api, paths[number]) == contents[number]
    # 30 of 32 blocks are taken, and of the first three images the second was not used since.
    assert await download(api, paths[3]) == contents[3]
    await until(lambda: _is_cached(api, paths[3]))
    assert set(await cached(api)) == {paths[number].rpartition("/")[2] for number in (0, 2, 3)}


async def test_an_image_larger_than_the_cache_passes_it_by(
    node: Node, api: httpx.AsyncClient
) -> None:
    content = data(33)
    path = await node.image(content)
    assert await download(api, path) == content
    assert await download(api, path, "bytes=5-9") == content[5:10]
    assert node.stored() == 0


async def test_policy_and_membership_count_on_every_hit(node: Node, api: httpx.AsyncClient) -> None:
    content = data(2.5)
    path = await node.image(content)
    await api.post(f"{path}/members", json={"member": "beta"}, headers=ALICE)
    assert (await api.get(f"{path}/file", headers=BOB)).content == content
    await until(lambda: _is_cached(api, path))
    sent = node.origin.sent

    await api.delete(f"{path}/members/beta", headers=ALICE)
    assert (await api.get(f"{path}/file", headers=BOB)).status_code == 404
    assert (await api.get(f"{path}/file")).status_code == 401
    assert (await api.get(f"{path}/file", headers=NOBODY)).status_code == 404
    (node.folder.parent / "policy.yaml").write_text('"download_image": "role:member"\n')
    strict = str(node.folder.parent / "policy.yaml")
    denying = {**node.environ, "DIPTYCH_IMAGES__OSLO_POLICY__POLICY_FILE": strict}
    async with opened(denying) as app, client(app) as api_there:
        assert (await api_there.get(f"{path}/file", headers=READER)).status_code == 403
        assert (await api_there.get(f"{path}/file", headers=ALICE)).content == content
    assert node.origin.sent == sent

    await api.post(f"{path}/actions/deactivate", headers=ADMIN)
    assert (await api.get(f"{path}/file", headers=ALICE)).status_code == 403
    # For an administrator it comes from its store, as in Glance.
    assert (await api.get(f"{path}/file", headers=ADMIN)).content == content
    assert node.origin.sent == sent + len(content)

    await api.post(f"{path}/actions/reactivate", headers=ADMIN)
    assert await download(api, path) == content
    assert node.origin.sent == sent + len(content)


async def test_a_hit_has_the_headers_of_a_miss(node: Node, api: httpx.AsyncClient) -> None:
    path = await node.image(data(1.5))
    missed = await api.get(f"{path}/file", headers=ALICE)
    await until(lambda: _is_cached(api, path))
    hit = await api.get(f"{path}/file", headers=ALICE)
    for name in ("etag", "content-md5", "content-length", "accept-ranges", "content-type"):
        assert hit.headers[name] == missed.headers[name]
    same = {**ALICE, "If-None-Match": hit.headers["etag"]}
    assert (await api.get(f"{path}/file", headers=same)).status_code == 304
    beyond = await api.get(f"{path}/file", headers={**ALICE, "Range": "bytes=999999-"})
    assert beyond.status_code == 416


async def test_a_deleted_image_leaves_every_node(
    node: Node, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    path = await node.image(data(2.5))
    await download(api, path)
    other = {
        **node.environ,
        "DIPTYCH_IMAGES__DEFAULT__IMAGE_CACHE_DIR": str(tmp_path / "other"),
        "DIPTYCH_IMAGES__DEFAULT__IMAGE_CACHE_TIDY_INTERVAL": "0.05",
        "DIPTYCH_IMAGES__DEFAULT__WORKER_SELF_REFERENCE_URL": "http://node-2.example:9292",
    }
    folder = tmp_path / "other" / "images" / path.rpartition("/")[2]
    async with opened(other) as app, client(app) as api_there:
        await download(api_there, path)
        assert folder.exists()
        assert (await api.delete(path, headers=ALICE)).status_code == 204
        assert node.stored() == 0
        assert (await api_there.get(f"{path}/file", headers=ALICE)).status_code == 404
        await until(lambda: not folder.exists())


async def test_bytes_without_the_digest_are_not_kept_nor_given_out_whole(
    node: Node, api: httpx.AsyncClient
) -> None:
    content = data(2.5)
    path = await node.image(content, told=data(2.5, seed=1))
    # In this process there is no server to break the connection.
    with pytest.raises(Damaged):
        await api.get(f"{path}/file", headers=ALICE)
    await until(lambda: node.stored() == 0)

    async def is_fetched_anew() -> bool:
        # Whoever comes before the fetch that found it out has ended is told, too.
        last = {**ALICE, "Range": f"bytes={2 * BLOCK}-{2 * BLOCK}"}
        return (await api.get(f"{path}/file", headers=last)).status_code == 206

    # Of parts nobody can tell: it is found out when they make a whole.
    await until(is_fetched_anew)
    for number in (1, 0):
        assert len(await download(api, path, f"bytes={number * BLOCK}-{number * BLOCK}")) == 1
    await until(lambda: node.stored() == 0)


async def test_an_image_of_a_single_piece_without_its_digest_is_503(
    node: Node, api: httpx.AsyncClient
) -> None:
    path = await node.image(b"wrong", told=b"right")
    answer = await api.get(f"{path}/file", headers=ALICE)
    assert answer.status_code == 503
    assert "damaged" in answer.text


async def test_a_store_that_fails_is_told_to_all_who_wait(
    node: Node, api: httpx.AsyncClient
) -> None:
    path = await node.image(data(2.5))
    content = node.origin.objects.pop(path.rpartition("/")[2])
    answers = await asyncio.gather(*(api.get(f"{path}/file", headers=ALICE) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {204}
    node.origin.objects[path.rpartition("/")[2]] = content
    assert await download(api, path) == content


async def test_blocks_of_another_size_are_not_taken_for_ours(
    node: Node, api: httpx.AsyncClient
) -> None:
    content = data(3.5)
    path = await node.image(content)
    assert await download(api, path) == content
    await until(lambda: _is_cached(api, path))
    larger = {**node.environ, "DIPTYCH_IMAGES__DEFAULT__IMAGE_CACHE_BLOCK_SIZE": str(2 * BLOCK)}
    async with opened(larger) as app, client(app) as other:
        part = f"bytes={2 * BLOCK}-{2 * BLOCK + 9}"
        assert await download(other, path, part) == content[2 * BLOCK : 2 * BLOCK + 10]
        assert await download(other, path) == content


async def test_what_a_power_failure_leaves_of_the_hits_is_none(
    node: Node, api: httpx.AsyncClient
) -> None:
    path = await node.image(data(1))
    await download(api, path)
    await until(lambda: _is_cached(api, path))
    (folder,) = (node.folder / "images").iterdir()
    (folder / "hits").write_bytes(bytes(4))
    await download(api, path)
    await until(lambda: (folder / "hits").read_bytes().rstrip(b"\0") == b"1")


async def test_a_cut_block_is_fetched_again(node: Node, api: httpx.AsyncClient) -> None:
    content = data(3)
    path = await node.image(content)
    await download(api, path)
    await until(lambda: _is_cached(api, path))
    (folder,) = (node.folder / "images").iterdir()
    (folder / "1").write_bytes(content[BLOCK : BLOCK + 10])
    assert await download(api, path) == content


async def test_a_cache_that_cannot_be_used_fails_no_download(
    node: Node, api: httpx.AsyncClient
) -> None:
    content = data(2.5)
    path = await node.image(content)
    (node.folder / "usage").unlink()
    (node.folder / "usage").mkdir()
    assert await download(api, path) == content
    assert await download(api, path, "bytes=5-9") == content[5:10]
    assert (await api.get("/v2/cache", headers=ADMIN)).json()["cached_images"] == []

    (node.folder / "usage").rmdir()
    assert await download(api, path) == content
    await until(lambda: _is_cached(api, path))


async def test_a_cache_that_fails_in_the_middle_fails_no_download(
    node: Node, api: httpx.AsyncClient
) -> None:
    content = data(6.5)
    path = await node.image(content)
    node.origin.allowed = 3 * BLOCK
    downloads = [asyncio.create_task(download(api, path)) for _ in range(3)]
    folder = node.folder / "images" / path.rpartition("/")[2]
    await until((folder / "2").exists)
    shutil.rmtree(folder)
    (node.folder / "usage").unlink()
    (node.folder / "usage").mkdir()
    node.origin.let_go()
    assert set(await asyncio.gather(*downloads)) == {content}


async def test_a_dropped_image_is_fetched_on(node: Node, api: httpx.AsyncClient) -> None:
    content = data(6.5)
    path = await node.image(content)
    node.origin.allowed = 3 * BLOCK
    downloads = [asyncio.create_task(download(api, path)) for _ in range(3)]
    await until((node.folder / "images" / path.rpartition("/")[2] / "2").exists)
    answer = await api.delete("/v2/cache", headers=ADMIN)
    assert answer.status_code == 204
    node.origin.let_go()
    assert set(await asyncio.gather(*downloads)) == {content}


async def test_a_fetch_ends_with_its_last_reader(node: Node, api: httpx.AsyncClient) -> None:
    content = data(8)
    path = await node.image(content)
    node.origin.allowed = 2 * BLOCK
    leaving = asyncio.create_task(download(api, path))
    folder = node.folder / "images" / path.rpartition("/")[2]
    await until((folder / "2.part").exists)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    node.origin.let_go()
    await until(lambda: (folder / "2").exists() and not list(folder.glob("*.part")))
    assert node.stored() == 3 * BLOCK
    assert await download(api, path) == content
    assert node.origin.parts[-1][1:] == (3 * BLOCK, 8 * BLOCK)


async def test_an_image_without_a_digest_passes_the_cache_by(
    node: Node, api: httpx.AsyncClient
) -> None:
    content = data(1.5)
    path = await node.image(content)
    async with databases.connection(node.database) as server:
        await server.execute("UPDATE images SET checksum = NULL, os_hash_value = NULL")
    assert await download(api, path) == content
    assert node.stored() == 0


def test_verifying_ends_when_the_service_stops(tmp_path: Path) -> None:
    directory = Directory(tmp_path, max_size=8 * BLOCK, block_size=BLOCK)
    directory.prepare()
    image = Image("a", 5, "sha256", hashlib.sha256(b"bytes").hexdigest())
    part = directory.claim(image, 0)
    assert isinstance(part, Part)
    assert directory.claim(image, 0) is Refusal.BUSY
    part.write(memoryview(b"bytes"))
    part.publish()
    assert directory.claim(image, 0) is Refusal.THERE
    stopping = threading.Event()
    stopping.set()
    assert directory.verify(image, stopping) is None
    assert not directory.is_verified(image)
    assert directory.verify(image, threading.Event()) is True
    assert directory.is_verified(image)


async def test_prometheus_is_told(node: Node) -> None:
    content = data(2.5)
    image = Image("a", len(content), "sha512", hashlib.sha512(content).hexdigest())
    directory = Directory(node.folder, max_size=8 * BLOCK, block_size=BLOCK)
    directory.prepare()
    metrics, fetched = Metrics(), list[tuple[str, int]]()
    cache = Cache(directory, metrics, on_fetched=lambda *told: fetched.append(told))
    store = MemoryStore("m")
    attempt = Attempt("a", "token")

    async def blocks() -> AsyncGenerator[bytes]:
        yield content

    await store.write(attempt, blocks(), size=None)
    location = await store.publish(attempt)

    @asynccontextmanager
    async def source(asked: ByteRange) -> AsyncGenerator[tuple[Store, Reading]]:
        async with store.open(location, asked) as reading:
            yield store, reading

    async def read() -> bytes:
        async with cache.open(image, ByteRange(), source) as reading:
            assert reading is not None
            return b"".join([bytes(block) async for block in reading.blocks])

    assert await read() == content
    await cache.fill(image, source)  # until all is verified
    assert await read() == content
    directory.max_size = BLOCK
    directory.drop_all()
    assert await read() == content
    told = metrics.render().decode()
    for line in (
        'diptych_image_cache_requests_total{outcome="miss"} 2.0',
        'diptych_image_cache_requests_total{outcome="hit"} 1.0',
        f'diptych_image_cache_bytes_total{{way="served"}} {2 * len(content) + BLOCK:.1f}',
        f'diptych_image_cache_bytes_total{{way="bypass"}} {len(content) - BLOCK:.1f}',
    ):
        assert line in told, told
    assert {name for name, _ in fetched} == {"m"}
    await cache.aclose()
