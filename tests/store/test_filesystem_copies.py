"""Copies between directories: by a second name, by shared blocks, by the kernel's copying."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.drivers.memory import MemoryStore
from diptych_store.errors import (
    AlreadyThere,
    BadLocation,
    Full,
    NotFound,
    Unreachable,
    WriteDenied,
)
from diptych_store.options.filesystem import FilesystemOptions

from tests.store.conformance import MIB, attempt_at, begun_attempts, get, put, some_bytes
from tests.store.mounts import Debian, disk, mounted

Open = AsyncIterator[FilesystemStore]


async def opened(directory: Path, *, read_only: bool = False, **others: object) -> FilesystemStore:
    settings = {"filesystem_store_datadir": str(directory), **others}
    return await FilesystemStore.open_directory(
        directory.name, FilesystemOptions.model_validate(settings), read_only=read_only
    )


@pytest.fixture
async def staging(tmp_path: Path) -> Open:
    async with aclosing(await opened(tmp_path / "staging")) as store:
        yield store


@pytest.fixture
async def target(tmp_path: Path) -> Open:
    async with aclosing(await opened(tmp_path / "target")) as store:
        yield store


def inode(store: FilesystemStore, location: str) -> int:
    return store.local_path(location).stat().st_ino


# A second name.


async def test_a_temporary_object_is_not_copied_but_taken_over(
    staging: FilesystemStore, target: FilesystemStore
):
    data = some_bytes(MIB)
    location, attempt = await put(staging, data, key="a"), attempt_at("b")
    assert await target.copy(attempt, staging, location, temporary=True) == MIB
    copy = await target.publish(attempt)
    assert inode(target, copy) == inode(staging, location)
    assert await get(staging, location) == data
    await staging.delete(location)
    assert await get(target, copy) == data
    assert target.local_path(copy).stat().st_nlink == 1


async def test_an_object_that_stays_shares_no_file(
    staging: FilesystemStore, target: FilesystemStore
):
    location, attempt = await put(staging, b"bytes", key="a"), attempt_at("a")
    await target.copy(attempt, staging, location)
    assert inode(target, await target.publish(attempt)) != inode(staging, location)


async def test_what_was_taken_over_is_discarded_by_its_own_attempt_alone(
    staging: FilesystemStore, target: FilesystemStore, tmp_path: Path
):
    taken, other = attempt_at("a"), attempt_at("a")
    location = await put(staging, b"bytes", key="a")
    await target.copy(taken, staging, location, temporary=True)
    copy = await target.publish(taken)
    await target.discard(other, published=True)
    assert await get(target, copy) == b"bytes"
    await target.discard(taken, published=True)
    with pytest.raises(NotFound):
        await get(target, copy)
    assert await get(staging, location) == b"bytes"


async def test_the_first_attempt_at_a_temporary_object_can_still_be_discarded(
    staging: FilesystemStore, target: FilesystemStore
):
    async def blocks() -> AsyncIterator[bytes]:
        yield b"bytes"

    staged, taken = attempt_at("a"), attempt_at("a")
    await staging.write(staged, blocks(), size=None)
    location = await staging.publish(staged)
    await target.copy(taken, staging, location, temporary=True)
    await staging.discard(staged, published=True)
    with pytest.raises(NotFound):
        await get(staging, location)
    assert await get(target, await target.publish(taken)) == b"bytes"


async def test_a_file_is_shared_once_so_that_a_late_discard_hits_no_other_attempt(
    staging: FilesystemStore, target: FilesystemStore
):
    dead, alive = attempt_at("a"), attempt_at("a")
    location = await put(staging, b"bytes", key="a")
    await target.copy(dead, staging, location, temporary=True)
    await target.copy(alive, staging, location, temporary=True)
    copy = await target.publish(alive)
    assert inode(target, copy) != inode(staging, location)
    with pytest.raises(AlreadyThere):
        await target.publish(dead)
    await target.discard(dead, published=True)
    assert await get(target, copy) == b"bytes"


async def test_a_copy_of_an_object_to_its_own_key_is_never_taken_for_it(
    staging: FilesystemStore,
):
    location, attempt = await put(staging, b"bytes", key="a"), attempt_at("a")
    await staging.copy(attempt, staging, location, temporary=True)
    with pytest.raises(AlreadyThere):
        await staging.publish(attempt)
    await staging.discard(attempt, published=True)
    assert await get(staging, location) == b"bytes"


async def test_what_was_taken_over_has_the_permissions_of_its_new_store(
    staging: FilesystemStore, tmp_path: Path
):
    target = await opened(tmp_path / "target", filesystem_store_file_perm="604")
    location, attempt = await put(staging, b"bytes", key="a"), attempt_at("a")
    await target.copy(attempt, staging, location, temporary=True)
    copy = await target.publish(attempt)
    assert target.local_path(copy).stat().st_mode & 0o777 == 0o604
    assert inode(target, copy) == inode(staging, location)
    await target.aclose()


async def test_an_old_object_that_is_taken_over_is_no_old_attempt(
    staging: FilesystemStore, target: FilesystemStore
):
    location, attempt = await put(staging, b"bytes", key="a"), attempt_at("a")
    os.utime(staging.local_path(location), (1_000_000, 1_000_000))
    await target.copy(attempt, staging, location, temporary=True)
    (place,) = (target.local_path(location.replace("staging", "target")).parent).glob(".attempts/*")
    assert place.stat().st_mtime > 1_000_000_000
    await target.discard(attempt)


# Other file systems.


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory in another file system than `staging`."""
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        yield tmp_path / "small"


@pytest.mark.parametrize("temporary", [True, False])
async def test_another_file_system_gets_the_bytes(
    staging: FilesystemStore, elsewhere: Path, temporary: bool
):
    data = some_bytes(3 * MIB + 7)
    location, attempt = await put(staging, data, key="a"), attempt_at("a")
    async with aclosing(await opened(elsewhere / "images")) as target:
        assert await target.copy(attempt, staging, location, temporary=temporary) == len(data)
        assert await get(target, await target.publish(attempt)) == data


async def test_a_file_system_without_room_is_full_and_has_its_room_back(
    staging: FilesystemStore, elsewhere: Path
):
    location = await put(staging, some_bytes(9 * MIB), key="a")
    async with aclosing(await opened(elsewhere / "images")) as target:
        before = await target.free()
        with pytest.raises(Full):
            await target.copy(attempt_at(), staging, location)
        assert await begun_attempts(target) == []
        assert await target.free() == before


@pytest.mark.parametrize(
    "data",
    [
        bytes(20 * MIB),
        some_bytes(MIB) + bytes(20 * MIB) + some_bytes(MIB),
        bytes(MIB) + some_bytes(MIB) + bytes(20 * MIB),
    ],
    ids=["a hole", "a hole between", "a hole at each end"],
)
async def test_holes_stay_holes(tmp_path: Path, elsewhere: Path, data: bytes):
    staging = await opened(tmp_path / "staging", filesystem_thin_provisioning=True)
    location, attempt = await put(staging, data, key="a"), attempt_at("a")
    # A file system of 8 MiB.
    async with aclosing(await opened(elsewhere / "images")) as target:
        await target.copy(attempt, staging, location)
        assert await get(target, await target.publish(attempt)) == data
    await staging.aclose()


async def test_blocks_are_shared_where_the_file_system_can(tmp_path: Path, debian: Debian):
    data = some_bytes(64 * MIB)
    with disk(debian("xfsprogs", "mkfs.xfs"), tmp_path, 512 * MIB) as xfs:
        async with (
            aclosing(await opened(xfs / "a")) as source,
            aclosing(await opened(xfs / "b")) as target,
        ):
            location, attempt = await put(source, data, key="a"), attempt_at("a")
            before = await source.free()
            await target.copy(attempt, source, location)
            copy = await target.publish(attempt)
            after = await source.free()
            assert before is not None
            assert after is not None
            assert before - after < MIB
            await source.delete(location)
            assert await get(target, copy) == data


# Faults.


async def test_bytes_that_this_host_has_not_as_files_are_not_copied(target: FilesystemStore):
    memory, attempt = MemoryStore("memory"), attempt_at()
    location = await put(memory, b"bytes", key="a")
    assert await target.copy(attempt, memory, location) is None
    assert await begun_attempts(target) == []


async def test_what_is_no_file_is_not_copied(staging: FilesystemStore, target: FilesystemStore):
    location = await put(staging, b"x", key="a")
    path = staging.local_path(location)
    path.unlink()
    with pytest.raises(NotFound):
        await target.copy(attempt_at(), staging, location)
    for make in (os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/passwd")):
        make(path)
        for temporary in (False, True):
            with pytest.raises(BadLocation):
                await target.copy(attempt_at(), staging, location, temporary=temporary)
        with suppress(IsADirectoryError):
            path.unlink()
            continue
        path.rmdir()
    assert await begun_attempts(target) == []


async def test_an_object_whose_disk_is_away_is_not_missing(
    staging: FilesystemStore, target: FilesystemStore, tmp_path: Path
):
    location = await put(staging, b"x", key="a")
    (tmp_path / "staging").rename(tmp_path / "away")
    (tmp_path / "staging").mkdir()
    with pytest.raises(Unreachable):
        await target.copy(attempt_at(), staging, location)


async def test_a_read_only_store_takes_no_copy(staging: FilesystemStore, tmp_path: Path):
    location = await put(staging, b"x", key="a")
    (tmp_path / "there").mkdir()
    async with aclosing(await opened(tmp_path / "there", read_only=True)) as target:
        with pytest.raises(WriteDenied):
            await target.copy(attempt_at(), staging, location)


async def test_a_copy_is_begun_once(staging: FilesystemStore, target: FilesystemStore):
    location, attempt = await put(staging, b"first", key="a"), attempt_at()
    await target.copy(attempt, staging, location)
    for temporary in (False, True):
        with pytest.raises(AlreadyThere):
            await target.copy(attempt, staging, location, temporary=temporary)
    assert await get(target, await target.publish(attempt)) == b"first"
