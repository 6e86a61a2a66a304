"""Archives that users upload, unpacked: what is taken out of them, and what is refused."""

import asyncio
import io
import random
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from typing import BinaryIO, Literal, cast

import pytest
from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.unpacking import Unpack, unpacked
from diptych_artifacts.types.validators import MaxDictKeyLen, MaxDictSize
from diptych_common.errors import BadRequest, TooLarge

from tests.artifacts.uploads import zipped

FOLDER = Field("Blob", "dict")
ACTION = Unpack("content")


def turns() -> asyncio.Semaphore:
    return asyncio.Semaphore(1)


async def files_of(
    archive: bytes | BinaryIO, *, folder: Field = FOLDER, action: Unpack = ACTION
) -> dict[str, bytes]:
    file = io.BytesIO(archive) if isinstance(archive, bytes) else archive
    found: dict[str, bytes] = {}
    async for key, pieces in unpacked(file, action, folder, turns()):
        found[key] = b"".join([piece async for piece in pieces])
    return found


def tarred(files: Mapping[str, bytes], *, mode: Literal["w", "w:gz"] = "w") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def tarred_entry(**attributes: object) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        entry = tarfile.TarInfo("entry")
        for name, value in attributes.items():
            setattr(entry, name, value)
        archive.addfile(entry)
    return made.getvalue()


MAKERS: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "zip": zipped,
    "stored": lambda files: zipped(files, method=zipfile.ZIP_STORED),
    "tar": tarred,
    "gzip": lambda files: tarred(files, mode="w:gz"),
}
every_format = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
Maker = Callable[[Mapping[str, bytes]], bytes]


@every_format
async def test_files_are_unpacked_by_their_paths(make: Maker) -> None:
    files = {
        "aaa.txt": b"a",
        "folder1/bbb.txt": b"b" * 300_000,
        "folder1/ключ": random.Random(1).randbytes(600_000),
        "empty": b"",
    }
    assert await files_of(make(files)) == files


@every_format
async def test_an_archive_may_be_in_a_spooled_file(make: Maker) -> None:
    with tempfile.SpooledTemporaryFile(max_size=100) as file:
        file.write(make({"a": b"1" * 1000}))
        assert await files_of(cast(BinaryIO, file)) == {"a": b"1" * 1000}
        assert not file.closed


@every_format
async def test_an_archive_may_be_empty(make: Maker) -> None:
    assert await files_of(make({})) == {}


@every_format
async def test_names_are_made_simple(make: Maker) -> None:
    assert await files_of(make({"./a": b"1", "b//c": b"2"})) == {"a": b"1", "b/c": b"2"}


async def test_a_name_without_characters_is_refused() -> None:
    packed = bytearray(zipped({"a": b"1"}))
    # The lengths of the name and of what follows it.
    at = packed.rindex(b"PK\x01\x02") + 28
    packed[at : at + 4] = b"\x00\x00\x01\x00"
    with pytest.raises(BadRequest):
        await files_of(bytes(packed))


async def test_folders_leave_nothing_behind() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.mkdir("folder")
        archive.writestr("folder/a", b"1")
    assert await files_of(made.getvalue()) == {"folder/a": b"1"}
    assert await files_of(tarred_entry(type=tarfile.DIRTYPE)) == {}


@every_format
@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/etc/passwd", "..", "a\\..\\b", "C:/a", "c:a", ".", "a" * 256]
)
async def test_names_that_lead_elsewhere_are_refused(make: Maker, name: str) -> None:
    with pytest.raises(BadRequest):
        await files_of(make({name: b"1"}))


@every_format
async def test_keys_are_as_long_as_the_folder_takes(make: Maker) -> None:
    folder = Field("Blob", "dict", validators=[MaxDictKeyLen(1000)])
    name = "a" * 90 + ("/" + "b" * 90) * 9
    assert await files_of(make({name: b"1"}), folder=folder) == {name: b"1"}


@every_format
async def test_more_files_than_the_folder_takes_are_refused(make: Maker) -> None:
    folder = Field("Blob", "dict", validators=[MaxDictSize(3)])
    files = {str(number): b"" for number in range(4)}
    with pytest.raises(BadRequest, match="at most 3 files"):
        await files_of(make(files), folder=folder)
    files.pop("3")
    assert await files_of(make(files), folder=folder) == files


@every_format
async def test_a_folder_takes_255_files(make: Maker) -> None:
    with pytest.raises(BadRequest, match="at most 255 files"):
        await files_of(make({str(number): b"" for number in range(256)}))


@every_format
async def test_files_that_are_too_large_are_refused(make: Maker) -> None:
    folder = Field("Blob", "dict", max_blob_size=1000)
    assert await files_of(make({"a": b"1" * 1000}), folder=folder)
    with pytest.raises(TooLarge):
        await files_of(make({"a": b"1" * 1001}), folder=folder)


@every_format
async def test_files_that_are_too_large_together_are_refused(make: Maker) -> None:
    folder = Field("Blob", "dict", max_folder_size=1000)
    assert await files_of(make({"a": b"1" * 600, "b": b"2" * 400}), folder=folder)
    with pytest.raises(TooLarge):
        await files_of(make({"a": b"1" * 600, "b": b"2" * 401}), folder=folder)


@pytest.mark.parametrize("form", ["zip", "gzip"])
async def test_bombs_are_refused(form: str) -> None:
    bomb = MAKERS[form]({str(number): b"\0" * 1_000_000 for number in range(4)})
    assert len(bomb) < 40_000
    with pytest.raises(TooLarge, match="larger by more"):
        await files_of(bomb)
    # The limit is the operator's.
    assert len(await files_of(bomb, action=Unpack("content", max_ratio=2000))) == 4


async def test_what_is_between_the_files_of_a_bomb_counts() -> None:
    # A file that nobody would take, so that its size is no file's.
    bomb = tarred({"a": b"\0" * 30_000_000}, mode="w:gz")
    folder = Field("Blob", "dict", max_blob_size=2**40)
    with pytest.raises(TooLarge, match="larger by more"):
        async for _ in unpacked(io.BytesIO(bomb), ACTION, folder, turns()):
            pass  # without its bytes


async def test_a_size_that_is_a_lie_is_found_out() -> None:
    packed = bytearray(zipped({"a": b"1" * 5000}))
    # The size in the directory, of which the library makes the end of the data.
    at = packed.rindex(b"PK\x01\x02") + 24
    packed[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(BadRequest):
        await files_of(bytes(packed))


async def test_the_same_file_twice_is_refused() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a", b"1")
        archive.writestr("./a", b"2")
    with pytest.raises(BadRequest, match="more than once"):
        await files_of(made.getvalue())
    with pytest.raises(BadRequest, match="more than once"):
        await files_of(tarred({"a": b"1", "./a": b"2"}))


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
async def test_links_and_devices_of_tar_are_refused(kind: bytes) -> None:
    with pytest.raises(BadRequest, match="links, devices"):
        await files_of(tarred_entry(type=kind, linkname="/etc/passwd"))


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666])
async def test_links_and_devices_of_zip_are_refused(mode: int) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        entry = zipfile.ZipInfo("a")
        entry.create_system = 3
        entry.external_attr = mode << 16
        archive.writestr(entry, b"/etc/passwd")
    with pytest.raises(BadRequest, match="links or devices"):
        await files_of(made.getvalue())


async def test_encrypted_and_strange_zips_are_refused() -> None:
    packed = bytearray(zipped({"a": b"1"}))
    packed[packed.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(BadRequest, match="encrypted"):
        await files_of(bytes(packed))
    with pytest.raises(BadRequest, match="not known here"):
        await files_of(zipped({"a": b"1"}, method=zipfile.ZIP_LZMA))


async def test_a_file_among_others_that_are_bad_is_not_begun() -> None:
    packed = zipped({"good": b"1", "../bad": b"2"})
    with pytest.raises(BadRequest):
        await anext(unpacked(io.BytesIO(packed), ACTION, FOLDER, turns()))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x1f\x8b",
        b"\x1f\x8b" + b"\xff" * 100,
        b"text" * 1000,
        b"\x7fELF" + b"\0" * 2000,
    ],
)
async def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest, match="no zip or tar"):
        await files_of(data)


@every_format
async def test_damaged_archives_are_refused_and_nothing_else_happens(make: Maker) -> None:
    files = {f"folder/{number}": bytes(range(256)) * number for number in range(5)}
    whole = make(files)
    chance = random.Random(len(whole))
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            await files_of(bytes(damaged[: chance.randint(1, len(damaged) * 2)]))
        except (BadRequest, TooLarge):
            refused += 1
    assert refused > 10


async def test_a_directory_without_end_is_not_read() -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for number in range(11_000):
            archive.mkdir(str(number))
    with pytest.raises(BadRequest, match="more than 10000 entries"):
        await files_of(made.getvalue())
    # 4 MiB of directory, most of it what is said of a single file.
    packed = bytearray(zipped({"a": b"1"}))
    end = packed.rindex(b"PK\x05\x06")
    packed[end:end] = bytes(4 * 1024 * 1024)
    at = packed.rindex(b"PK\x05\x06") + 12
    packed[at : at + 4] = (4 * 1024 * 1024 + 47).to_bytes(4, "little")
    with pytest.raises(BadRequest, match="more than 10000 entries"):
        await files_of(bytes(packed))


async def test_names_without_end_are_not_read() -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 20_000_000
    packed = tarred_raw(header.tobuf(tarfile.GNU_FORMAT) + bytes(20_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match="too long"):
            await files_of(packed)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


def tarred_raw(data: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        assert archive.fileobj is not None
        archive.fileobj.write(data)
    return made.getvalue()


async def test_a_tar_of_folders_without_end_is_not_read() -> None:
    entry = tarfile.TarInfo("folder")
    entry.type = tarfile.DIRTYPE
    with pytest.raises(BadRequest, match="more than 10000 entries"):
        await files_of(entry.tobuf() * 10_001 + bytes(1024))


def extended(data: bytes, *, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A header that says `data` of the next file, with the data."""
    header = tarfile.TarInfo("././@PaxHeader")
    header.type = kind
    header.size = len(data)
    return header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def record(key: str, value: bytes) -> bytes:
    """One of pax, with four digits of length."""
    return b"%04d %s=%s\n" % (len(key) + len(value) + 7, key.encode(), value)


ONE_FILE = tarred({"a": b"1"})


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE])
async def test_digits_hold_nobody_up(kind: bytes) -> None:
    """Python's own reading of these takes minutes, in which its process does nothing else."""
    digits = b"".join(record(f"comment{number}", b"1" * 9000) for number in range(7))
    packed = extended(digits, kind=kind) * 200 + ONE_FILE
    assert await files_of(packed) == {"a": b"1"}
    with pytest.raises(BadRequest, match="damaged"):
        await files_of(extended(b"1" * 65_536) + ONE_FILE)


@pytest.mark.parametrize(
    "data",
    [
        b"6 a=b",
        b"7 a=b\n",
        b"5 a=b\n",
        b"0 a=b\n",
        b"-6 a=b\n",
        b"6 a-b\n",
        b"6\ta=b\n",
        b"x",
        b"10 size=x\n",
    ],
)
async def test_extensions_that_are_none_are_refused(data: bytes) -> None:
    assert await files_of(extended(b"6 a=b\n\0\0") + ONE_FILE) == {"a": b"1"}
    with pytest.raises(BadRequest, match="damaged"):
        await files_of(extended(data) + ONE_FILE)


@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK]
)
async def test_what_is_said_of_files_counts_as_entries(kind: bytes) -> None:
    """Each of them is read as a whole, and a thousand before a file are a thousand."""
    says = extended(b"6 a=b\n", kind=kind)
    assert len(await files_of(says * 9_999 + ONE_FILE)) == 1
    with pytest.raises(BadRequest, match="more than 10000 entries"):
        await files_of(says * 10_000 + ONE_FILE)


async def test_what_is_said_of_a_file_is_not_kept() -> None:
    says = [extended(record(f"comment{number}", b"1" * 9000)) for number in range(500)]
    packed = b"".join(says) + ONE_FILE
    tracemalloc.start()
    try:
        assert await files_of(packed) == {"a": b"1"}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


async def test_a_file_is_what_was_said_of_it() -> None:
    large = tarfile.TarInfo("short")
    large.size = 0
    packed = (
        extended(record("path", b"folder/" + "ключ".encode()) + record("size", b"600"))
        + large.tobuf()
        + b"1" * 600
        + bytes(424)
        # Of one file only.
        + ONE_FILE
    )
    assert await files_of(packed) == {"folder/ключ": b"1" * 600, "a": b"1"}
    with pytest.raises(BadRequest, match="sparse"):
        await files_of(extended(record("GNU.sparse.major", b"1")) + ONE_FILE)


@pytest.mark.parametrize("size", [b"-1", b"-512"])
async def test_sizes_below_zero_are_refused(size: bytes) -> None:
    with pytest.raises(BadRequest, match="damaged"):
        await files_of(extended(record("size", size)) + ONE_FILE)


async def test_an_archive_waits_for_its_turn() -> None:
    turns = asyncio.Semaphore(1)
    first = unpacked(io.BytesIO(ONE_FILE), ACTION, FOLDER, turns)
    await anext(first)
    second = unpacked(io.BytesIO(ONE_FILE), ACTION, FOLDER, turns)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(second), 0.05)
    await first.aclose()
    third = unpacked(io.BytesIO(ONE_FILE), ACTION, FOLDER, turns)
    assert (await anext(third))[0] == "a"
    await third.aclose()
