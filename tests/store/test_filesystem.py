import asyncio
import contextlib
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
from diptych_store.drivers import filesystem
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.errors import (
    AttemptLost,
    BadLocation,
    Full,
    NotFound,
    ReadDenied,
    Unreachable,
    WriteDenied,
)
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.protocol import Attempt, ByteRange

from tests.store.conformance import (
    MIB,
    attempt_at,
    begun_attempts,
    get,
    in_blocks,
    put,
    some_bytes,
)
from tests.store.mounts import Debian, Served, disk, frozen, make_read_only, mounted, served
from tests.waiting import open_files

NOBODY = 65_534


def settings_for(directory: Path, **others: object) -> FilesystemOptions:
    return FilesystemOptions.model_validate({"filesystem_store_datadir": str(directory), **others})


@contextlib.asynccontextmanager
async def opened(directory: Path, **others: object) -> AsyncGenerator[FilesystemStore, None]:
    store = await FilesystemStore.open_directory("here", settings_for(directory, **others))
    yield store
    await store.aclose()


@pytest.fixture
async def directory(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
async def store(directory: Path) -> AsyncIterator[FilesystemStore]:
    async with opened(directory) as store:
        yield store


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Rights are checked: as root they are not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can reach, unlike pytest's."""
    place = Path("/dev/shm") / f"diptych-{uuid.uuid4()}"
    place.mkdir()
    place.chmod(0o777)
    yield place
    subprocess.run(["rm", "-rf", str(place)], check=True)


def files_under(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if not path.is_dir()]


# Layout.


async def test_an_object_is_a_file_named_by_its_key(store: FilesystemStore, directory: Path):
    location = await put(store, b"bytes", key="3f1c")
    assert location == f"file://{directory}/3f1c"
    assert (directory / "3f1c").read_bytes() == b"bytes"
    assert files_under(directory) == [directory / "3f1c"]
    assert (directory / "3f1c").stat().st_nlink == 1


async def test_an_image_that_glance_stored_is_read(store: FilesystemStore, directory: Path):
    (directory / "3f1c").write_bytes(b"old")
    assert await get(store, f"file://{directory}/3f1c") == b"old"
    assert await get(store, f"filesystem://{directory}/3f1c") == b"old"
    await store.delete(f"filesystem://{directory}/3f1c")
    assert files_under(directory) == []


async def test_both_spellings_of_a_linked_directory_are_its_own(tmp_path: Path):
    (tmp_path / "mnt").mkdir()
    (tmp_path / "images").symlink_to(tmp_path / "mnt")
    async with opened(tmp_path / "images") as store:
        location = await put(store, b"bytes", key="a")
        assert location == f"file://{tmp_path}/images/a"
        assert await get(store, f"file://{tmp_path}/mnt/a") == b"bytes"


async def test_a_datadir_with_a_slash_at_its_end_is_the_same(tmp_path: Path):
    settings = FilesystemOptions(filesystem_store_datadir=f"{tmp_path}/images//")
    store = await FilesystemStore.open_directory("here", settings)
    assert await put(store, b"x", key="a") == f"file://{tmp_path}/images/a"
    await store.aclose()


async def test_attempts_are_hidden_from_other_users(store: FilesystemStore, directory: Path):
    assert (directory / ".attempts").stat().st_mode & 0o777 == 0o700


async def test_a_file_has_the_permissions_of_the_umask(store: FilesystemStore, directory: Path):
    before = os.umask(0o027)
    try:
        await put(store, b"x", key="a")
    finally:
        os.umask(before)
    assert (directory / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(("option", "mode"), [("604", 0o604), ("0440", 0o440)])
async def test_a_file_has_the_permissions_of_the_setting(directory: Path, option: str, mode: int):
    async with opened(directory, filesystem_store_file_perm=option) as store:
        await put(store, b"x", key="a")
    assert (directory / "a").stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("thin", [True, False])
async def test_zeros_take_no_room_in_a_thin_store(directory: Path, thin: bool):
    data = some_bytes(MIB) + bytes(6 * MIB) + some_bytes(10) + bytes(3 * MIB)
    async with opened(directory, filesystem_thin_provisioning=thin) as store:
        location = await put(store, data, key="a")
        assert await get(store, location) == data
    taken = (directory / "a").stat().st_blocks * 512
    assert (taken < 2 * MIB) is thin


@pytest.mark.parametrize(
    "data",
    [bytes(3 * MIB), bytes(100_000) + b"x", some_bytes(100_000) + bytes(200_000), bytes(60_000)],
    ids=["nothing but zeros", "zeros first", "zeros last", "few zeros"],
)
async def test_holes_are_read_as_zeros(directory: Path, data: bytes):
    async with opened(directory, filesystem_thin_provisioning=True) as store:
        location = await put(store, data, key="a")
        assert (directory / "a").stat().st_size == len(data)
        assert await get(store, location) == data
        assert await get(store, location, ByteRange(50_000, 100_000)) == data[50_000:150_000]


async def test_a_sparse_file_that_glance_wrote_is_read(store: FilesystemStore, directory: Path):
    with (directory / "a").open("wb") as file:
        file.truncate(MIB)
        file.seek(0, os.SEEK_END)
        file.write(b"bytes")
        file.truncate(2 * MIB)
    expected = bytes(MIB) + b"bytes" + bytes(MIB - 5)
    assert await get(store, f"file://{directory}/a") == expected


@pytest.mark.parametrize(
    ("option", "mode"),
    [("600", 0o700), ("640", 0o710), ("604", 0o701), ("664", 0o711), ("0", 0o700)],
)
async def test_those_who_may_read_files_may_pass_the_directory(
    directory: Path, option: str, mode: int
):
    directory.mkdir(mode=0o700)  # noqa: ASYNC240
    async with opened(directory, filesystem_store_file_perm=option) as store:
        await put(store, b"x", key="a")
    assert directory.stat().st_mode & 0o777 == mode  # noqa: ASYNC240
    assert (directory / ".attempts").stat().st_mode & 0o777 == 0o700


async def test_a_new_directory_has_the_permissions_of_the_umask(tmp_path: Path):
    before = os.umask(0o027)
    try:
        async with opened(tmp_path / "new" / "images"):
            pass
    finally:
        os.umask(before)
    for made in (tmp_path / "new", tmp_path / "new" / "images"):
        assert made.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("option", ["0", "-1"])
async def test_no_permissions_are_set_where_the_setting_says_none(directory: Path, option: str):
    before = os.umask(0o077)
    try:
        async with opened(directory, filesystem_store_file_perm=option) as store:
            await put(store, b"x", key="a")
    finally:
        os.umask(before)
    assert (directory / "a").stat().st_mode & 0o777 == 0o600


# Nothing outside of the directory, nothing but files.


async def test_a_symbolic_link_is_not_followed(store: FilesystemStore, directory: Path):
    (directory / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadLocation):
        await get(store, f"file://{directory}/link")


async def test_a_symbolic_link_in_the_way_is_not_written_through(
    store: FilesystemStore, directory: Path, tmp_path: Path
):
    attempt, victim = attempt_at(), tmp_path / "victim"
    victim.write_bytes(b"precious")
    place = directory / ".attempts" / f"{attempt.token}.{attempt.key}"
    place.symlink_to(victim)
    with pytest.raises(Exception, match="begun before"):
        await store.write(attempt, in_blocks(b"x"), size=1)
    assert victim.read_bytes() == b"precious"
    await store.discard(attempt)
    assert victim.exists()


async def test_what_is_no_file_is_no_object(store: FilesystemStore, directory: Path):
    os.mkfifo(directory / "fifo")
    (directory / "folder").mkdir()
    for key in ("fifo", "folder"):
        async with asyncio.timeout(5):
            with pytest.raises(BadLocation):
                await get(store, f"file://{directory}/{key}")
    with pytest.raises(BadLocation):
        await store.delete(f"file://{directory}/folder")
    assert (directory / "folder").is_dir()


async def test_an_attempt_is_no_object(store: FilesystemStore, directory: Path):
    attempt = attempt_at()
    await store.write(attempt, in_blocks(b"x"), size=1)
    with pytest.raises(BadLocation):
        await get(store, f"file://{directory}/.attempts/{attempt.token}.{attempt.key}")
    await store.discard(attempt)


async def test_strange_files_among_the_attempts_are_left_alone(
    store: FilesystemStore, directory: Path
):
    for name in ("README", ".nfs000001", "no key.", "-.-", ".", ".."):
        with contextlib.suppress(IsADirectoryError):
            (directory / ".attempts" / name).write_bytes(b"")
    assert await begun_attempts(store) == [Attempt(key="-", token="-")]


async def test_only_attempts_of_some_age_are_listed(store: FilesystemStore, directory: Path):
    attempt = attempt_at()
    await store.write(attempt, in_blocks(b"x"), size=1)
    place = directory / ".attempts" / f"{attempt.token}.{attempt.key}"
    for age, listed in ((3500, []), (3700, [attempt])):
        os.utime(place, (time.time() - age, time.time() - age))
        assert [one async for one in store.attempts(older_than=timedelta(hours=1))] == listed
    await store.discard(attempt)


# Publishing.


async def test_publishing_again_after_a_doubtful_answer_is_safe(
    store: FilesystemStore, directory: Path
):
    """Over NFS a link that was made can be answered with EEXIST."""
    attempt = attempt_at()
    await store.write(attempt, in_blocks(b"x"), size=1)
    os.link(directory / ".attempts" / f"{attempt.token}.{attempt.key}", directory / attempt.key)
    assert await get(store, await store.publish(attempt)) == b"x"
    assert files_under(directory) == [directory / attempt.key]


async def test_bytes_are_durable_before_they_have_a_name_and_the_name_before_it_is_told(
    directory: Path,
):
    """The order of the system calls that the driver makes."""
    program = (
        "import asyncio, sys\n"
        "from diptych_store.drivers.filesystem import FilesystemStore\n"
        "from diptych_store.options.filesystem import FilesystemOptions\n"
        "from diptych_store.protocol import Attempt\n"
        "from tests.store.conformance import put\n"
        "watched = []\n"
        "def hook(frame, event, argument):\n"
        "    if event == 'c_call' and 'drivers/filesystem/' in frame.f_code.co_filename:\n"
        "        if getattr(argument, '__module__', '') == 'posix':\n"
        "            watched.append(argument.__name__)\n"
        "async def main():\n"
        "    settings = FilesystemOptions(filesystem_store_datadir=sys.argv[1])\n"
        "    store = await FilesystemStore.open_directory('here', settings)\n"
        "    watched.clear()\n"
        "    await put(store, bytes(250_000))\n"
        "    print(*watched)\n"
        "import threading\n"
        "threading.setprofile(hook)\n"
        "asyncio.run(main())\n"
    )
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(directory)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == (
        "open setxattr write write write fsync close link open fsync close unlink\n"
    )


# Faults.


async def test_a_file_beyond_the_limit_of_the_process_is_too_much(
    store: FilesystemStore, directory: Path
):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, before[1]))
    try:
        with pytest.raises(Full):
            await store.write(attempt_at(), in_blocks(some_bytes(3 * MIB)), size=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files_under(directory) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        yield tmp_path / "small"


async def test_a_full_disk_is_full_and_the_attempt_gives_its_room_back(small_disk: Path):
    async with opened(small_disk) as store:
        before = await store.free()
        for _ in range(3):
            with pytest.raises(Full, match="No space left on device"):
                await store.write(attempt_at(), in_blocks(some_bytes(5 * MIB)), size=None)
        assert await store.free() == before
        await put(store, some_bytes(3 * MIB), key="a")


async def test_the_free_room_shrinks_by_what_is_stored(small_disk: Path):
    async with opened(small_disk) as store:
        before = await store.free()
        await put(store, some_bytes(MIB), key="a")
        after = await store.free()
        assert before is not None
        assert after is not None
        assert MIB <= before - after <= MIB + 64 * 1024


async def test_a_read_only_disk_denies_writing(tmp_path: Path):
    (tmp_path / "there" / ".attempts").mkdir(parents=True)
    (tmp_path / "there" / "a").write_bytes(b"bytes")
    with mounted(tmp_path / "images", "--bind", str(tmp_path / "there")):
        async with opened(tmp_path / "images") as store:
            make_read_only(tmp_path / "images")
            with pytest.raises(WriteDenied):
                await store.write(attempt_at(), in_blocks(b"x"), size=1)
            with pytest.raises(WriteDenied):
                await store.delete(f"file://{tmp_path}/images/a")
            assert await get(store, f"file://{tmp_path}/images/a") == b"bytes"


async def test_missing_rights_deny_writing_and_reading(open_directory: Path, as_nobody: None):
    async with opened(open_directory / "images") as store:
        location = await put(store, b"x", key="a")
        (open_directory / "images" / "a").chmod(0)
        with pytest.raises(ReadDenied):
            await get(store, location)
        attempt = attempt_at()
        await store.write(attempt, in_blocks(b"x"), size=1)
        (open_directory / "images").chmod(0o500)
        with pytest.raises(WriteDenied):
            await store.delete(location)
        with pytest.raises(WriteDenied):
            await store.publish(attempt)
        (open_directory / "images" / ".attempts").chmod(0o500)
        with pytest.raises(WriteDenied):
            await store.write(attempt_at(), in_blocks(b"x"), size=1)
        (open_directory / "images" / ".attempts").chmod(0o700)
        await store.discard(attempt)
        assert await begun_attempts(store) == []


async def test_a_directory_that_cannot_be_made_stops_the_start(
    open_directory: Path, as_nobody: None
):
    open_directory.joinpath("mine").mkdir(mode=0o500)
    with pytest.raises(WriteDenied):
        await FilesystemStore.open_directory(
            "here", settings_for(open_directory / "mine" / "images")
        )


async def test_a_read_only_store_needs_its_directory(directory: Path):
    with pytest.raises(Unreachable, match="there is no directory"):
        await FilesystemStore.open_directory("here", settings_for(directory), read_only=True)
    assert files_under(directory.parent) == []


def unmount(directory: Path) -> None:
    """Leave what an unmounted file system leaves: an empty directory."""
    directory.rename(directory.with_name("elsewhere"))
    directory.mkdir()


async def test_an_object_is_not_missing_when_its_disk_is(store: FilesystemStore, directory: Path):
    """That must not be taken for deleted images."""
    location, attempt = await put(store, b"x", key="a"), attempt_at()
    await store.write(attempt, in_blocks(b"x"), size=1)
    unmount(directory)
    with pytest.raises(Unreachable):
        await get(store, location)
    with pytest.raises(Unreachable):
        await store.delete(location)
    with pytest.raises(Unreachable):
        await store.publish(attempt)
    with pytest.raises(Unreachable):
        await store.discard(attempt)
    with pytest.raises(Unreachable):
        await store.write(attempt_at(), in_blocks(b"x"), size=1)
    with pytest.raises(Unreachable):
        await begun_attempts(store)
    assert files_under(directory) == []


async def test_an_object_that_shrinks_while_it_is_read_is_an_error(
    store: FilesystemStore, directory: Path
):
    location = await put(store, some_bytes(4 * MIB), key="a")
    async with store.open(location) as reading:
        await anext(reading.blocks)
        os.truncate(directory / "a", 10)
        with pytest.raises(Unreachable):
            async for _ in reading.blocks:
                pass


async def test_a_message_names_the_store_and_no_path(store: FilesystemStore, directory: Path):
    errors: list[Exception] = []
    calls = [
        lambda: get(store, f"file://{directory}/nothing"),
        lambda: store.delete(f"file://{directory}/nothing"),
        lambda: store.publish(attempt_at()),
        lambda: get(store, "file:///etc/passwd"),
    ]
    for call in calls:
        with pytest.raises((NotFound, AttemptLost, BadLocation)) as raised:
            await call()
        errors.append(raised.value)
    for error in errors:
        assert "here" in str(error)
        assert str(directory) not in str(error)


@pytest.fixture
def disk_of_its_own(tmp_path: Path, debian: Debian) -> Iterator[Path]:
    """A small ext4 that can be frozen, which looks like a mount whose server has gone."""
    with disk(debian("e2fsprogs", "mkfs.ext4"), tmp_path, 32 * MIB) as mounted_at:
        yield mounted_at


async def until_nothing_is_left(store: FilesystemStore, directory: Path) -> None:
    """Until the calls that were given up have ended and were cleaned up after."""

    async def is_nothing_left() -> bool:
        with contextlib.suppress(Unreachable):  # the time limit is short
            return not await begun_attempts(store) and not any(
                file.startswith(str(directory)) for file in open_files()
            )
        return False

    async with asyncio.timeout(60):
        while not await is_nothing_left():
            pass


async def test_a_disk_that_hangs_holds_up_neither_the_loop_nor_another_store(
    disk_of_its_own: Path, tmp_path: Path
):
    async with (
        opened(disk_of_its_own / "images", filesystem_store_timeout=0.5) as stuck,
        opened(tmp_path / "other") as other,
    ):
        location = await put(stuck, b"bytes", key="a")
        with frozen(disk_of_its_own):
            calls = [
                asyncio.create_task(call)
                for call in (
                    *(stuck.write(attempt_at(), in_blocks(b"x"), size=1) for _ in range(20)),
                    stuck.delete(location),
                )
            ]
            lags = []
            for number in range(20):
                begun = time.perf_counter()
                await put(other, some_bytes(1000), key=f"{number}")
                await asyncio.sleep(0.01)
                lags.append(time.perf_counter() - begun)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(one) for one in outcomes} == {Unreachable}
        assert "did not answer within 0.5 seconds" in str(outcomes[0])
        assert max(lags) < 0.5
        # The disk answers again: what hung in it ends, and leaves nothing.
        await until_nothing_is_left(stuck, disk_of_its_own)


async def test_an_upload_into_a_disk_that_hangs_for_a_moment_is_whole(disk_of_its_own: Path):
    async with opened(disk_of_its_own / "images") as store:
        data = some_bytes(8 * MIB)
        with frozen(disk_of_its_own):
            upload = asyncio.create_task(put(store, data, key="a"))
            await asyncio.sleep(0.3)
            assert not upload.done()
        assert await get(store, await upload) == data


@pytest.fixture
def network(tmp_path: Path, debian: Debian) -> Iterator[Served]:
    with served(debian, tmp_path / "server", tmp_path / "network") as mount:
        yield mount


async def test_a_mount_without_an_answer_holds_up_its_own_store_alone(
    network: Served, tmp_path: Path
):
    """Not even with all its threads hanging, and without a time limit."""
    data = some_bytes(3 * MIB)
    async with (
        opened(network.target / "images", filesystem_store_thread_pool_size=3) as stuck,
        opened(tmp_path / "other") as other,
    ):
        location, goner = await put(stuck, data, key="a"), await put(stuck, b"x", key="b")
        network.hang()
        try:
            reads = [asyncio.create_task(get(stuck, location)) for _ in range(5)]
            writes = [asyncio.create_task(put(stuck, data, key=f"{n}")) for n in range(5)]
            others = [asyncio.create_task(stuck.free()), asyncio.create_task(stuck.delete(goner))]
            for number in range(8):
                assert await get(other, await put(other, data, key=f"{number}")) == data
            waiting = [*reads, *writes, *others]
            assert not any(task.done() for task in waiting)
            # Who has not begun may leave at once.
            others[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await others[0]
        finally:
            network.answer()
        assert await asyncio.gather(*reads) == [data] * 5
        for written in await asyncio.gather(*writes):
            assert await get(stuck, written) == data
        await others[1]
        with pytest.raises(NotFound):
            await get(stuck, goner)


async def test_a_copy_from_a_mount_without_an_answer_holds_up_no_upload(
    network: Served, tmp_path: Path
):
    async with (
        opened(network.target / "images") as stuck,
        opened(tmp_path / "other", filesystem_store_thread_pool_size=1) as other,
    ):
        location = await put(stuck, b"bytes", key="a")
        attempts = [attempt_at() for _ in range(8)]
        network.hang()
        try:
            copies = [
                asyncio.create_task(other.copy(attempt, stuck, location)) for attempt in attempts
            ]
            for number in range(8):
                assert await get(other, await put(other, b"x", key=f"{number}")) == b"x"
            assert not any(copy.done() for copy in copies)
        finally:
            network.answer()
        assert await asyncio.gather(*copies) == [5] * 8
        for attempt in attempts:
            assert await get(other, await other.publish(attempt)) == b"bytes"


async def test_a_call_without_an_answer_is_given_up_after_the_time_limit(network: Served):
    async with opened(network.target / "images", filesystem_store_timeout=0.5) as store:
        location = await put(store, b"bytes", key="a")
        network.hang()
        try:
            with pytest.raises(Unreachable, match=r"did not answer within 0\.5 seconds"):
                await get(store, location)
            with pytest.raises(Unreachable):
                await store.write(attempt_at(), in_blocks(b"x"), size=1)
            with pytest.raises(Unreachable):
                await store.free()
        finally:
            network.answer()
        await until_nothing_is_left(store, network.target)
        assert await get(store, location) == b"bytes"


async def test_a_mount_without_an_answer_does_not_hold_up_the_start(
    network: Served, monkeypatch: pytest.MonkeyPatch
):
    directory = network.target / "images"
    async with opened(directory) as store:
        location = await put(store, b"bytes", key="a")
    monkeypatch.setattr(filesystem, "_PATIENCE_S", 0.2)
    network.hang()
    try:
        store = await FilesystemStore.open_directory("here", settings_for(directory))
        reading = asyncio.create_task(get(store, location))
        await asyncio.sleep(0)
        assert not reading.done()
    finally:
        network.answer()
    assert await reading == b"bytes"
    await store.aclose()


async def test_a_range_is_passed_to_a_socket_as_it_takes_more(store: FilesystemStore) -> None:
    data = some_bytes(8 * MIB)
    location = await put(store, data, key="passed")
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        async with store.open(location, ByteRange(1, 6 * MIB)) as reading:
            assert reading.pass_to is not None
            received = b""
            while len(received) < 6 * MIB:
                passed = await reading.pass_to(near.fileno(), 4 * MIB)
                assert passed is not None
                received += _received(far, passed)
            assert await reading.pass_to(near.fileno(), MIB) == 0
        assert received == data[1 : 1 + 6 * MIB]


async def test_nothing_is_passed_to_a_socket_that_has_gone(store: FilesystemStore) -> None:
    location = await put(store, some_bytes(MIB), key="passed")
    near, far = socket.socketpair()
    with near:
        far.close()
        near.setblocking(False)
        async with store.open(location) as reading:
            assert reading.pass_to is not None
            assert await reading.pass_to(near.fileno(), MIB) is None


async def test_what_is_passed_when_the_caller_has_gone_goes_to_nobody_else(
    store: FilesystemStore, directory: Path
) -> None:
    """The number of the caller's descriptor is the next connection's as soon as it is closed."""
    size = 256 * MIB
    location = await put(store, b"bytes", key="passed")
    os.truncate(directory / "passed", size)
    near, far = socket.socketpair()
    near.setblocking(False)
    begun, taken = threading.Event(), bytearray(MIB)

    def take_all() -> None:
        while far.recv_into(taken):
            begun.set()

    taking = threading.Thread(target=take_all)
    taking.start()
    async with store.open(location) as reading:

        async def passing() -> None:
            assert reading.pass_to is not None
            await reading.pass_to(near.fileno(), size)

        # A scope that is cancelled cancels again and again, so that nobody waits for the thread.
        async with anyio.create_task_group() as group:
            group.start_soon(passing)
            await asyncio.to_thread(begun.wait)
            group.cancel_scope.cancel()
        stranger, peer = socket.socketpair()
        os.dup2(stranger.fileno(), near.fileno())
    await asyncio.to_thread(taking.join)
    with near, far, stranger, peer:
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)


async def test_a_file_that_became_shorter_is_not_passed_for_ever(
    store: FilesystemStore, directory: Path
) -> None:
    location = await put(store, some_bytes(MIB), key="passed")
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        async with store.open(location) as reading:
            os.truncate(directory / "passed", 0)
            assert reading.pass_to is not None
            with pytest.raises(Unreachable):
                await reading.pass_to(near.fileno(), MIB)


def _received(connection: socket.socket, size: int) -> bytes:
    pieces: list[bytes] = []
    while size:
        pieces.append(connection.recv(size))
        size -= len(pieces[-1])
    return b"".join(pieces)
