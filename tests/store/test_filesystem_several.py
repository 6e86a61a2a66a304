"""Several directories in one store, their marks, and what is told beside locations."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.errors import AlreadyThere, AttemptLost, BadLocation, Full, NotFound, Unreachable
from diptych_store.options.filesystem import FilesystemOptions
from pydantic import ValidationError

from tests.store.conformance import MIB, attempt_at, begun_attempts, get, in_blocks, put, some_bytes
from tests.store.mounts import mounted

Disk = Callable[[str, int], Path]


def options(*lines: str, **others: object) -> FilesystemOptions:
    return FilesystemOptions.model_validate(
        {"filesystem_store_datadirs": "\n".join(lines), **others}
    )


@asynccontextmanager
async def opened(*lines: str, **others: object) -> AsyncGenerator[FilesystemStore]:
    store = await FilesystemStore.open_directory("here", options(*lines, **others))
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """`disk("a", 4)`: a file system of 4 MiB."""
    with ExitStack() as stack:

        def mount(name: str, size: int) -> Path:
            options = ["-t", "tmpfs", "-o", f"size={size}m", "tmpfs"]
            stack.enter_context(mounted(tmp_path / name, *options))
            return tmp_path / name

        yield mount


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if not path.is_dir()]


def in_directory(location: str) -> str:
    return Path(location.removeprefix("file://")).parent.name


# Settings.


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["/a"], {"/a": 0}),
        (["/a:"], {"/a": 0}),
        (["/a:1", "/b:-3", "/c : 200", "/d"], {"/c": 200, "/a": 1, "/d": 0, "/b": -3}),
        (["/a/:1", "/b//c"], {"/a": 1, "/b/c": 0}),
        (["/a:b:7"], {"/a:b": 7}),
        (["/a:1", "/a/:1"], {"/a": 1}),
        (["", "  /a", ""], {"/a": 0}),
    ],
)
def test_directories_are_in_the_order_of_their_priorities(
    lines: list[str], expected: dict[str, int]
):
    assert list(options(*lines).directories().items()) == list(expected.items())


@pytest.mark.parametrize(
    "lines", [["a"], ["/a:high"], [":1"], ["/a:1", "/a:2"], ["/a:1.5"], ["file:///a"]]
)
def test_what_is_no_list_of_directories_is_refused(lines: list[str]):
    with pytest.raises(ValidationError) as raised:
        options(*lines)
    assert [error["loc"] for error in raised.value.errors()] == [("filesystem_store_datadirs",)]


def test_one_directory_and_several_are_refused_together():
    with pytest.raises(ValidationError, match="not both"):
        options("/a", filesystem_store_datadir="/b")


# Which one is written to.


async def test_the_highest_priority_is_written_to(tmp_path: Path):
    async with opened(f"{tmp_path}/low:1", f"{tmp_path}/high:20", f"{tmp_path}/none") as store:
        location = await put(store, b"x", key="a")
        assert location == f"file://{tmp_path}/high/a"
        assert await get(store, location) == b"x"


async def test_the_next_one_is_written_to_when_there_is_no_room(disk: Disk):
    async with opened(f"{disk('small', 2)}:2", f"{disk('large', 8)}:1") as store:
        assert in_directory(await put(store, some_bytes(MIB), key="a")) == "small"
        assert in_directory(await put(store, some_bytes(3 * MIB), key="b")) == "large"
        with pytest.raises(Full):
            await put(store, some_bytes(9 * MIB), key="c")
        assert in_directory(await put(store, b"x", key="d")) == "small"
        assert await begun_attempts(store) == []


async def test_of_equals_the_one_with_most_room_is_written_to(disk: Disk):
    async with opened(f"{disk('a', 4)}", f"{disk('b', 6)}", f"{disk('c', 5)}") as store:
        written = [in_directory(await put(store, some_bytes(3 * MIB // 2), key=k)) for k in "123"]
        assert written == ["b", "c", "b"]


async def test_a_full_directory_is_passed_over_whatever_the_length(disk: Disk):
    full = disk("full", 1)
    async with opened(f"{full}:2", f"{disk('free', 4)}:1") as store:
        with (full / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        attempt = attempt_at("a")
        await store.write(attempt, in_blocks(b"x"), size=None)
        assert in_directory(await store.publish(attempt)) == "free"


async def test_the_room_is_that_of_all_file_systems_each_once(disk: Disk):
    a, b = disk("a", 4), disk("b", 6)
    async with opened(f"{a}/1", f"{a}/2", f"{b}/3") as store:
        free = await store.free()
        assert free is not None
        assert 10 * MIB - 256 * 1024 < free <= 10 * MIB


# A key is in one of them.


async def test_objects_are_read_and_deleted_wherever_they_are(tmp_path: Path):
    async with opened(f"{tmp_path}/a:2", f"{tmp_path}/b:1") as store:
        for directory in ("a", "b"):
            (tmp_path / directory / "old").write_bytes(directory.encode())
        assert await get(store, f"file://{tmp_path}/b/old") == b"b"
        await store.delete(f"file://{tmp_path}/b/old")
        with pytest.raises(NotFound):
            await get(store, f"file://{tmp_path}/b/old")
        assert await get(store, f"filesystem://{tmp_path}/a/old") == b"a"
        with pytest.raises(BadLocation):
            await get(store, f"file://{tmp_path}/c/old")


async def test_a_key_of_another_directory_is_taken(tmp_path: Path):
    async with opened(f"{tmp_path}/a:2", f"{tmp_path}/b:1") as store:
        (tmp_path / "b" / "key").write_bytes(b"old")
        attempt = attempt_at("key")
        await store.write(attempt, in_blocks(b"new"), size=3)
        with pytest.raises(AlreadyThere):
            await store.publish(attempt)
        await store.discard(attempt)
        assert not (tmp_path / "a" / "key").exists()
        assert (tmp_path / "b" / "key").read_bytes() == b"old"


async def test_of_attempts_in_different_directories_one_wins(tmp_path: Path):
    names = ("a", "b", "c", "d")
    everywhere = [f"{tmp_path}/{name}" for name in names]
    async with opened(*everywhere) as store:
        for number in range(20):
            attempts = [attempt_at(f"{number}") for _ in names]
            for attempt, name in zip(attempts, names, strict=True):
                # In a directory that was the best one for a moment.
                async with opened(f"{tmp_path}/{name}") as alone:
                    await alone.write(attempt, in_blocks(name.encode()), size=1)
            outcomes = await asyncio.gather(
                *(store.publish(attempt) for attempt in attempts), return_exceptions=True
            )
            (won,) = [outcome for outcome in outcomes if isinstance(outcome, str)]
            assert [type(one) for one in outcomes].count(AlreadyThere) == len(names) - 1
            assert await get(store, won) == in_directory(won).encode()
            for attempt in attempts:
                await store.discard(attempt)
            await store.delete(won)
            assert names_in(tmp_path) == []


async def test_an_attempt_is_begun_once_in_all_directories(disk: Disk):
    a, b = disk("a", 4), disk("b", 5)
    async with opened(f"{a}", f"{b}") as store:
        attempt = attempt_at()
        await store.write(attempt, in_blocks(some_bytes(2 * MIB)), size=None)
        # Now the other one has most room.
        with pytest.raises(AlreadyThere):
            await store.write(attempt, in_blocks(b"x"), size=1)
        assert await begun_attempts(store) == [attempt]
        await store.discard(attempt)


async def test_a_directory_that_is_away_may_hold_the_key(tmp_path: Path):
    async with opened(f"{tmp_path}/a:2", f"{tmp_path}/b:1") as store:
        attempt = attempt_at()
        await store.write(attempt, in_blocks(b"x"), size=1)
        (tmp_path / "b").rename(tmp_path / "away")
        (tmp_path / "b").mkdir()
        with pytest.raises(Unreachable):
            await store.publish(attempt)
        with pytest.raises(Unreachable):
            await store.discard(attempt)
        (tmp_path / "b").rmdir()
        (tmp_path / "away").rename(tmp_path / "b")
        # What was done of it before is done.
        await store.discard(attempt)
        with pytest.raises(AttemptLost):
            await store.publish(attempt)


# Marks.


async def test_a_mark_is_made_once_by_however_many(tmp_path: Path):
    stores = [
        await FilesystemStore.open_directory("here", options(f"{tmp_path}/a")) for _ in range(8)
    ]
    assert len(set(await asyncio.gather(*(store.marks() for store in stores)))) == 1
    for store in stores:
        await store.aclose()
    assert names_in(tmp_path) == [".mark"]


async def test_each_directory_has_a_mark_of_its_own(tmp_path: Path):
    async with opened(f"{tmp_path}/a", f"{tmp_path}/b") as both, opened(f"{tmp_path}/a") as one:
        marks = await both.marks()
        assert len(marks) == 2
        assert await one.marks() < marks


async def test_a_read_only_store_makes_no_mark(tmp_path: Path):
    settings = options(f"{tmp_path}/a")
    (tmp_path / "a").mkdir()
    reader = await FilesystemStore.open_directory("here", settings, read_only=True)
    assert await reader.marks() == frozenset()
    assert names_in(tmp_path / "a") == []
    async with opened(f"{tmp_path}/a") as store:
        assert await store.marks() == await reader.marks() != frozenset()
    await reader.aclose()


async def test_a_store_that_is_not_shared_has_no_marks(tmp_path: Path):
    async with opened(f"{tmp_path}/a", filesystem_store_shared=False) as store:
        assert await store.marks() == frozenset()
    assert not (tmp_path / "a" / ".mark").exists()


async def test_a_directory_that_is_not_mounted_has_no_mark_of_its_own(tmp_path: Path):
    async with opened(f"{tmp_path}/a") as store:
        (tmp_path / "a").rename(tmp_path / "away")
        (tmp_path / "a").mkdir()
        with pytest.raises(Unreachable):
            await store.marks()
        assert names_in(tmp_path / "a") == []


async def test_a_mark_is_no_object(tmp_path: Path):
    async with opened(f"{tmp_path}/a") as store:
        await store.marks()
        for call in (store.delete, lambda location: get(store, location)):
            with pytest.raises(BadLocation):
                await call(f"file://{tmp_path}/a/.mark")


# What is told beside locations.


@pytest.mark.parametrize("several", [True, False])
async def test_the_entry_of_the_mountpoint_is_told(tmp_path: Path, several: bool):
    entries = [
        {"id": "first", "mountpoint": f"{tmp_path}/b"},
        {"id": "second", "mountpoint": f"{tmp_path}/bc", "more": ["x", {"y": "z"}]},
    ]
    file = tmp_path / "metadata.json"
    file.write_text(json.dumps(entries if several else entries[1]))
    async with opened(
        f"{tmp_path}/a", f"{tmp_path}/bc", filesystem_store_metadata_file=str(file)
    ) as store:
        assert store.annotations(f"file://{tmp_path}/bc/key") == entries[1]
        assert store.annotations(f"file://{tmp_path}/a/key") == {}
        with pytest.raises(BadLocation):
            store.annotations("file:///etc/passwd")


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "nonsense",
        "[[]]",
        "3",
        '{"id": "x"}',
        '{"id": 3, "mountpoint": "/a"}',
        '[{"id": "x", "mountpoint": "/a"}, {}]',
        '{"id": "x", "mountpoint": "/a", "more": 3}',
    ],
)
async def test_a_metadata_file_that_is_none_stops_the_start(tmp_path: Path, content: str | None):
    file = tmp_path / "metadata.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=r"\[here\] filesystem_store_metadata_file: "):
        async with opened(f"{tmp_path}/a", filesystem_store_metadata_file=str(file)):
            pytest.fail("the file says nothing")


async def test_without_a_metadata_file_nothing_is_told(tmp_path: Path):
    async with opened(f"{tmp_path}/a") as store:
        assert store.annotations(f"file://{tmp_path}/a/key") == {}
