"""A node's cache as its processes share it: they read what one of them fetches, until it dies."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.daemon import Daemon
from tests.images.caching import BLOCK, Node, a_node, data
from tests.images.service import ADMIN, ALICE, client, opened
from tests.waiting import until

BLOCKS = 24


@pytest.fixture
async def node(images_database: str, tmp_path: Path) -> AsyncGenerator[Node]:
    options = {"DEFAULT__IMAGE_CACHE_MAX_SIZE": str(2 * BLOCKS * BLOCK), "DEFAULT__WORKERS": "1"}
    async with a_node(images_database, tmp_path, **options) as found:
        yield found


@pytest.fixture
async def api(node: Node) -> AsyncGenerator[httpx.AsyncClient]:
    """One of them: it shares nothing but the directory with others in this process."""
    async with opened(node.environ) as app, client(app) as opened_client:
        yield opened_client


@pytest.fixture
async def other(node: Node) -> AsyncGenerator[httpx.AsyncClient]:
    async with opened(node.environ) as app, client(app) as opened_client:
        yield opened_client


async def test_both_read_what_one_of_them_fetches(
    node: Node, api: httpx.AsyncClient, other: httpx.AsyncClient
) -> None:
    content = data(BLOCKS)
    path = await node.image(content)
    node.origin.allowed = 10 * BLOCK

    async def download(each: httpx.AsyncClient) -> bytes:
        return (await each.get(f"{path}/file", headers=ALICE)).content

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(download(each)) for each in (api, other) for _ in range(5)]
        await until((node.folder / "images" / path.rpartition("/")[2] / "9").exists)
        tasks += [group.create_task(download(other)) for _ in range(5)]
        node.origin.let_go()
    assert {task.result() for task in tasks} == {content}
    assert node.origin.parts == [(path.rpartition("/")[2], 0, len(content))]
    assert node.origin.sent == len(content)


@pytest.mark.timeout(300)  # a daemon starts, and one of its workers a second time
async def test_a_fetch_is_taken_over_from_a_process_that_was_killed(
    node: Node, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    content = data(BLOCKS)
    path = await node.image(content)
    folder = node.folder / "images" / path.rpartition("/")[2]
    node.origin.allowed = 10 * BLOCK + BLOCK // 2
    daemon = Daemon(node.environ, tmp_path / "log")
    await asyncio.to_thread(daemon.start)
    try:
        async with (
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as http,
            http.stream("GET", f"{path}/file", headers=ALICE) as fetching,
        ):
            await until(lambda: (folder / "9").exists() and (folder / "10.part").exists())
            following = asyncio.create_task(api.get(f"{path}/file", headers=ALICE))
            await until(lambda: (folder / "10.part").stat().st_size == BLOCK // 2)
            assert not following.done()
            (worker,) = daemon.workers()
            worker.send_signal(signal.SIGKILL)
            psutil.wait_procs([worker], timeout=10)
            node.origin.let_go()
            assert (await following).content == content
            with pytest.raises(httpx.HTTPError):
                await fetching.aread()
    finally:
        assert await asyncio.to_thread(daemon.stop) == 0
    # Only the block that was under way was begun again.
    assert [part[1] for part in node.origin.parts] == [0, 10 * BLOCK]

    async def is_cached() -> bool:
        found = (await api.get("/v2/cache", headers=ADMIN)).json()["cached_images"]
        return [one["image_id"] for one in found] == [folder.name]

    # Two fetched its parts: it is read as a whole, and held against its digest.
    await until(is_cached)
    assert int((node.folder / "usage").read_text()) == node.stored() == len(content)


async def test_what_a_killed_process_has_left_is_good(
    node: Node, images_database: str, tmp_path: Path
) -> None:
    content = data(BLOCKS)
    path = await node.image(content)
    folder = node.folder / "images" / path.rpartition("/")[2]
    async with opened(node.environ) as app, client(app) as api:
        assert len((await api.get(f"{path}/file", headers=PART)).content) == 5 * BLOCK
        await until((folder / "4").exists)
    # As one leaves it who is killed between its claim and its first byte, and while it counts.
    (folder / "5.part").write_bytes(b"")
    (node.folder / "usage").write_text(str(7 * BLOCK))
    (node.folder / "images" / "ffffffff-0000-4000-8000-000000000000").mkdir()
    async with opened(node.environ) as app, client(app) as api:
        assert int((node.folder / "usage").read_text()) == node.stored() == 5 * BLOCK
        assert (await api.get(f"{path}/file", headers=ALICE)).content == content
        assert node.origin.parts[-1][1:] == (5 * BLOCK, len(content))
        assert (await api.post("/v2/cache/clean", headers=ADMIN)).status_code == 200
    assert [one.name for one in (node.folder / "images").iterdir()] == [folder.name]


PART = {**ALICE, "Range": f"bytes=0-{5 * BLOCK - 1}"}
