"""A node with another directory than the others' refuses to start."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from dev import postgres
from diptych_common import migrations
from diptych_images import marks
from diptych_images.db import stores
from diptych_images.marks import NotShared
from diptych_images.settings import load
from diptych_images.settings import stores as settings_of_stores
from diptych_store.registry import Stores

from tests.daemon import COMMAND, Daemon
from tests.images.rows import open_database
from tests.images.service import ALICE, OCTETS, configuration

Start = Callable[..., Daemon]


@pytest.fixture
def start(images_database: str, tmp_path: Path) -> Iterator[Start]:
    """`start("one", **options)`: a node with the directories of that name."""
    started: list[Daemon] = []

    def start_daemon(folder: str, **options: str) -> Daemon:
        options = {"DEFAULT__WORKERS": "1", **options}
        environ = configuration(images_database, tmp_path / folder, **options)
        daemon = Daemon(environ, log=tmp_path / f"{len(started)}.log")
        started.append(daemon)
        daemon.start()
        return daemon

    yield start_daemon
    for daemon in started:
        daemon.stop()


def refused(start: Start, folder: str, tmp_path: Path, number: int) -> str:
    """The log of a node that does not start."""
    with pytest.raises(AssertionError, match="did not start"):
        start(folder)
    return (tmp_path / f"{number}.log").read_text()


def test_nodes_with_the_same_directories_start(start: Start):
    one, other = start("shared"), start("shared")
    created = httpx.post(
        f"{one.url}/v2/images",
        json={"disk_format": "raw", "container_format": "bare"},
        headers=ALICE,
    )
    path = created.json()["self"]
    stored = httpx.put(f"{one.url}{path}/file", content=b"bytes", headers={**ALICE, **OCTETS})
    assert stored.status_code == 204
    assert httpx.get(f"{other.url}{path}/file", headers=ALICE).content == b"bytes"


def test_a_node_with_other_directories_refuses_to_start(start: Start, tmp_path: Path):
    first = start("one")
    told = refused(start, "another", tmp_path, 1)
    node = socket.gethostname()
    for store in ("fast", "cheap"):
        assert f" ERROR diptych.operator [-] Store {store}: node {node} has another" in told
    assert "filesystem_store_shared = false" in told
    assert "diptych-images stores adopt fast" in told
    assert "A worker could not start" in told
    assert httpx.get(f"{first.url}/livez").status_code == 200


async def test_staged_data_have_one_place_for_all_nodes(images_database: str, tmp_path: Path):
    def config(folder: str):
        place = {"OS_GLANCE_STAGING_STORE__FILESYSTEM_STORE_DATADIR": str(tmp_path / folder)}
        environ = configuration(images_database, tmp_path / "shared", **place)
        return settings_of_stores(load(environ=environ))

    async with open_database(images_database) as db:
        async with Stores.open(config("one")) as stores, marks.compared(db, stores):
            pass
        async with Stores.open(config("another")) as stores:
            with pytest.raises(NotShared, match="configure none") as refused:
                await marks.compared(db, stores).__aenter__()
    assert "Store os_glance_staging_store: node" in str(refused.value)
    assert "filesystem_store_shared" not in str(refused.value)


@pytest.mark.parametrize("command", ["api", "worker"])
async def test_the_exit_code_of_a_refusal_is_that_of_wrong_settings(
    images_database: str, tmp_path: Path, command: str
):
    def environ(folder: str) -> dict[str, str]:
        options = {"DEFAULT__BIND_PORT": "0", "DEFAULT__WORKERS": "1", "METRICS__ENABLED": "false"}
        return configuration(images_database, tmp_path / folder, **options)

    config = settings_of_stores(load(environ=environ("one")))
    async with (
        open_database(images_database) as db,
        Stores.open(config) as first,
        marks.compared(db, first),
    ):
        ended = await asyncio.to_thread(
            subprocess.run,
            [COMMAND, command],
            env={**os.environ, **environ("another")},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    assert ended.returncode == 2
    assert "Store fast: node" in ended.stderr


def test_a_node_may_have_directories_of_its_own_where_it_is_told_so(start: Start):
    start("one")
    start("another", BACKEND_DEFAULTS__FILESYSTEM_STORE_SHARED="false")


async def test_a_store_that_moved_on_purpose_is_adopted(images_database: str, tmp_path: Path):
    def config(folder: str):
        return settings_of_stores(load(environ=configuration(images_database, tmp_path / folder)))

    async with open_database(images_database) as db:
        async with Stores.open(config("one")) as here, marks.compared(db, here):
            pass
        async with Stores.open(config("another")) as moved:
            with pytest.raises(NotShared):
                async with marks.compared(db, moved):
                    pytest.fail("it is another directory")
            for name in moved.names:
                assert await marks.adopt(db, moved[name])
            async with marks.compared(db, moved):
                pass
        async with Stores.open(config("one")) as here:
            with pytest.raises(NotShared):
                async with marks.compared(db, here):
                    pytest.fail("it is another directory now")


async def test_a_store_without_marks_is_not_adopted(images_database: str, tmp_path: Path):
    environ = configuration(images_database, tmp_path, DEFAULT__ENABLED_BACKENDS="fast:memory")
    async with (
        open_database(images_database) as db,
        Stores.open(settings_of_stores(load(environ=environ))) as opened,
        marks.compared(db, opened),
    ):
        assert not await marks.adopt(db, opened["fast"])


async def test_marks_may_grow_and_shrink_and_not_change(images_database: str):
    async with open_database(images_database) as db, db.write() as connection:

        async def noted(*found: str) -> list[str]:
            row = await stores.note_marks(connection, "fast", found, node=found[-1])
            return row["marks"]

        assert await noted("b") == ["b"]
        assert await noted("c", "a") == ["b"]
        assert await noted("c", "b", "a") == ["a", "b", "c"]
        assert await noted("b", "c") == ["a", "b", "c"]
        assert await noted("a", "b", "d") == ["a", "b", "c"]
        row = await stores.note_marks(connection, "fast", ["a"], node="z")
        assert row["node"] == "a"
        await stores.replace_marks(connection, "fast", ["d"], node="z")
        row = await stores.note_marks(connection, "fast", ["d"], node="y")
        assert (row["marks"], row["node"]) == (["d"], "z")


async def test_of_nodes_that_come_at_once_one_is_the_first(images_database: str):
    async with open_database(images_database) as db:

        async def note(number: int) -> list[str]:
            async with db.write() as connection:
                row = await stores.note_marks(connection, "fast", [f"{number}"], node="n")
                return row["marks"]

        answers = await asyncio.gather(*(note(number) for number in range(8)))
    assert len({tuple(answer) for answer in answers}) == 1


async def test_while_the_database_is_down_nodes_start_and_are_compared_later(
    private_postgres: postgres.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(marks, "_PAUSE_S", 0.1)
    url = private_postgres.url()
    await migrations.upgrade(url, package="diptych_images.migrations")

    def config(folder: str):
        return settings_of_stores(load(environ=configuration(url, tmp_path / folder)))

    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with AsyncExitStack() as stack:
        stack.callback(asyncio.get_running_loop().remove_signal_handler, signal.SIGTERM)
        db = await stack.enter_async_context(open_database(url))
        first = await stack.enter_async_context(Stores.open(config("one")))
        async with marks.compared(db, first):
            pass
        private_postgres.stop()
        second = await stack.enter_async_context(Stores.open(config("another")))
        await stack.enter_async_context(marks.compared(db, second))
        assert not told.is_set()
        private_postgres.start()
        async with asyncio.timeout(60):
            await told.wait()
