"""What is unpacked on its way in, and what is not because nobody could bear it."""

import asyncio
import gzip
import io
import lzma
import os
import struct
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from diptych_common.jobs import GiveUp
from diptych_images.imports.plugins import Draft, transform
from hypothesis import HealthCheck, given
from hypothesis import settings as rounds
from hypothesis import strategies as st

from tests.images.corpus import BY_HAND, MIB, qcow2
from tests.images.drafts import draft, settings
from tests.waiting import until

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAIN = os.urandom(200_000) + bytes(100_000)


async def unpacked(
    folder: Path,
    data: bytes,
    disk_format: str = "raw",
    container_format: str = "bare",
    *,
    limit: int = 1 << 40,
    **options: Any,
) -> Draft:
    made = draft(folder, data, disk_format, container_format)
    return await transform(
        made,
        folder,
        settings("image_decompression", image_decompression=options),
        limit=limit,
    )


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def zipped(
    data: bytes = PLAIN,
    *,
    name: str = "disk.raw",
    method: int = zipfile.ZIP_DEFLATED,
    comment: bytes = b"",
    is_wide: bool = False,
    is_streamed: bool = False,
    mode: int = 0o100644,
) -> bytes:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    file = Stream() if is_streamed else io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.comment = comment
        member = zipfile.ZipInfo(name)
        member.compress_type = method
        member.external_attr = mode << 16
        with archive.open(member, "w", force_zip64=is_wide) as opened:
            opened.write(data)
    return file.getvalue()


SKIPPED_FRAME = struct.pack("<II", 0x184D2A53, 5) + b"12345"

PACKED: dict[str, bytes] = {
    "gzip": gzip.compress(PLAIN),
    "gzip, fast": gzip.compress(PLAIN, compresslevel=1),
    "gzip, of two": gzip.compress(PLAIN[:70_000]) + gzip.compress(PLAIN[70_000:]),
    "gzip, of many": b"".join(
        gzip.compress(PLAIN[at : at + 1000]) for at in range(0, len(PLAIN), 1000)
    ),
    "gzip, padded": gzip.compress(PLAIN) + bytes(10_000),
    "xz": lzma.compress(PLAIN),
    "xz, best": lzma.compress(PLAIN, preset=9),
    "xz, of two": lzma.compress(PLAIN[:70_000]) + bytes(8) + lzma.compress(PLAIN[70_000:]),
    "xz, padded": lzma.compress(PLAIN) + bytes(10_000),
    "zstd": zstd.compress(PLAIN),
    "zstd, best": zstd.compress(PLAIN, level=22),
    "zstd, of two": zstd.compress(PLAIN[:70_000]) + zstd.compress(PLAIN[70_000:]),
    "zstd, in parallel": SKIPPED_FRAME + zstd.compress(PLAIN) + SKIPPED_FRAME,
    "zip": zipped(),
    "zip, stored": zipped(method=zipfile.ZIP_STORED),
    "zip, commented": zipped(comment=b"PK\x05\x07" * 1000),
    "zip of 64 bits": zipped(is_wide=True),
    "zip, in a folder": zipped(name="images/disk.raw"),
}  # fmt: skip


@pytest.mark.parametrize("name", PACKED)
async def test_the_compressed_is_stored_as_it_was(name: str, tmp_path: Path) -> None:
    result = await unpacked(tmp_path, PACKED[name])

    assert result.path.read_bytes() == PLAIN
    assert (result.size, result.disk_format, result.container_format) == (
        len(PLAIN),
        "raw",
        "bare",
    )
    assert files(tmp_path) == [result.path]
    assert result.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstd.compress, zipped])
@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 1])
async def test_sizes_do_not_matter(
    pack: Callable[[bytes], bytes], size: int, tmp_path: Path
) -> None:
    data = b"all work and no play " * (size // 21) + bytes(size % 21)

    result = await unpacked(tmp_path, pack(data))

    assert result.path.read_bytes() == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1f\x8b",
        b"PK\x03",
        b"BZh91AY&SY",
        PLAIN,
        bytes(2 * MIB),
        b"  -lh is no archive by itself",
    ],
)
async def test_what_is_not_compressed_stays(data: bytes, tmp_path: Path) -> None:
    result = await unpacked(tmp_path, data)

    assert result.path == tmp_path / "image"
    assert result.path.read_bytes() == data


async def test_what_is_to_be_compressed_stays(tmp_path: Path) -> None:
    data = gzip.compress(qcow2())

    result = await unpacked(tmp_path, data, "qcow2", "compressed")

    assert result.path.read_bytes() == data


@pytest.mark.parametrize("inner", [gzip.compress, lzma.compress, zstd.compress, zipped])
@pytest.mark.parametrize("outer", [gzip.compress, zipped])
async def test_one_layer_is_unpacked(
    inner: Callable[[bytes], bytes], outer: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    data = inner(PLAIN)

    result = await unpacked(tmp_path, outer(data))

    assert result.path.read_bytes() == data


# --- The result is judged -------------------------------------------------------------------------


async def test_an_image_is_what_it_was_declared_once_it_is_unpacked(tmp_path: Path) -> None:
    result = await unpacked(tmp_path, gzip.compress(qcow2()), "qcow2")

    (match,) = result.findings.matches
    assert (match.name, match.virtual_size) == ("qcow2", 5 * MIB)


@pytest.mark.parametrize(
    ("sample", "declared", "words"),
    [
        ("qcow2", "vmdk", "qcow2, not vmdk"),
        ("qcow2, backing file", "qcow2", "backing_file"),
        ("qcow2, backing file", "raw", "backing_file"),
        ("vmdk descriptor", "vmdk", "descriptor"),
        ("vmdk descriptor, padded", "raw", "descriptor"),
        ("text", "qcow2", "raw, not qcow2"),
    ],
)
async def test_the_unsafe_does_not_get_in_by_being_compressed(
    sample: str, declared: str, words: str, tmp_path: Path
) -> None:
    for pack in (gzip.compress, zipped):
        with pytest.raises(GiveUp, match=words):
            await unpacked(tmp_path, pack(BY_HAND[sample].data), declared)
        (tmp_path / "image.unpacked").unlink()


# --- Damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACKED)
async def test_what_is_cut_is_refused(name: str, tmp_path: Path) -> None:
    data = PACKED[name].rstrip(b"\0")
    for left in (20, len(data) // 3, len(data) - 1):
        with pytest.raises(GiveUp, match="damaged"):
            await unpacked(tmp_path, data[:left])
        (tmp_path / "image.unpacked").unlink()


@pytest.mark.parametrize("name", ["gzip", "xz", "zip", "zip, stored"])
async def test_what_is_changed_is_refused(name: str, tmp_path: Path) -> None:
    data = bytearray(PACKED[name])
    data[100_000] ^= 1

    with pytest.raises(GiveUp, match="damaged"):
        await unpacked(tmp_path, bytes(data))


@pytest.mark.parametrize("name", ["gzip", "xz", "zstd", "zip"])
async def test_what_something_follows_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(GiveUp, match="damaged"):
        await unpacked(tmp_path, PACKED[name] + b"and more")


@rounds(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(PACKED)),
    changes=st.lists(
        st.tuples(
            st.integers(0, 120) | st.integers(-160, -1) | st.integers(0, 60_000),
            st.integers(0, 255),
        ),
        max_size=5,
    ),
    left=st.integers(0, 300_000) | st.just(300_000),
)
async def test_whatever_comes_is_unpacked_or_refused(
    name: str, changes: list[tuple[int, int]], left: int, tmp_path: Path
) -> None:
    data = bytearray(PACKED[name])
    for at, value in changes:
        data[at] = value
    try:
        result = await unpacked(tmp_path, bytes(data[:left]), limit=10 * MIB)
    except GiveUp:
        (tmp_path / "image.unpacked").unlink(missing_ok=True)
    else:
        result.path.unlink()


# --- Bombs ----------------------------------------------------------------------------------------

# Of a thousand MiB but for the last; members and frames one after the other are made in no time.
BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip.compress(bytes(8 * MIB)) * 128,
    "xz": lambda: lzma.compress(bytes(8 * MIB)) * 128,
    "zstd": lambda: zstd.compress(bytes(8 * MIB)) * 128,
    "zip": lambda: zipped(bytes(80 * MIB)),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_is_refused_before_the_disk_is_full(name: str, tmp_path: Path) -> None:
    with pytest.raises(GiveUp, match="larger than what was imported"):
        await unpacked(tmp_path, BOMBS[name](), max_ratio=10)

    assert (tmp_path / "image.unpacked").stat().st_size <= 64 * MIB


@pytest.mark.parametrize("name", BOMBS)
async def test_an_image_has_the_size_that_images_may_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(GiveUp, match="more than 5000000 bytes"):
        await unpacked(tmp_path, BOMBS[name](), limit=5_000_000)

    assert (tmp_path / "image.unpacked").stat().st_size <= 5_000_000


@pytest.mark.parametrize("limit", [len(PLAIN), len(PLAIN) - 1])
async def test_the_largest_image_is_not_too_large(limit: int, tmp_path: Path) -> None:
    if limit == len(PLAIN):
        assert (await unpacked(tmp_path, PACKED["gzip"], limit=limit)).size == limit
        return
    with pytest.raises(GiveUp):
        await unpacked(tmp_path, PACKED["gzip"], limit=limit)


async def test_what_is_small_may_have_any_ratio(tmp_path: Path) -> None:
    result = await unpacked(tmp_path, gzip.compress(bytes(20 * MIB)), max_ratio=1)

    assert result.size == 20 * MIB


@pytest.mark.parametrize("name", ["gzip", "xz", "zstd"])
async def test_unpacking_takes_little_memory(name: str, tmp_path: Path) -> None:
    bomb = BOMBS[name]()
    tracemalloc.start()
    try:
        result = await unpacked(tmp_path, bomb[: len(bomb) // 16], max_ratio=10**9)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert result.size == 64 * MIB
    assert peak < 16 * MIB


async def test_xz_that_needs_much_memory_is_refused(tmp_path: Path) -> None:
    data = bytearray(lzma.compress(PLAIN))
    # The block's header: its size, flags, the filter's id and the size of what it says: the
    # dictionary's, here of 1 GiB; then the header's checksum.
    end = 12 + (data[12] + 1) * 4
    data[16] = 36
    data[end - 4 : end] = struct.pack("<I", zlib.crc32(data[12 : end - 4]))

    with pytest.raises(GiveUp, match="takes more memory"):
        await unpacked(tmp_path, bytes(data))


async def test_zstd_that_needs_much_memory_is_refused(tmp_path: Path) -> None:
    # A frame with a window of 2 GiB and one byte.
    data = b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3]) + b"\x09\x00\x00x"

    with pytest.raises(GiveUp, match="takes more memory"):
        await unpacked(tmp_path, data)


async def test_unpacking_is_cancelled_at_once(tmp_path: Path) -> None:
    # Ten GiB.
    data = gzip.compress(bytes(64 * MIB)) * 160
    made = draft(tmp_path, data)
    options = settings("image_decompression", image_decompression={"max_ratio": 10**9})
    running = asyncio.create_task(transform(made, tmp_path, options, limit=1 << 40))
    target = tmp_path / "image.unpacked"
    await until(lambda: target.exists() and target.stat().st_size > 0)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    size = target.stat().st_size
    await asyncio.sleep(0.1)
    assert target.stat().st_size == size


# --- Archives -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class End:
    """The end of an archive that says what it likes."""

    members: int = 1
    disk: int = 0
    directory: int = 0

    def __bytes__(self) -> bytes:
        return struct.pack(
            "<4s4H2LH", b"PK\5\6", self.disk, 0, self.members, self.members, 0, self.directory, 0
        )


def of_members(count: int) -> bytes:
    end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, 46 * count, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, 4, 1)
    small = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, 0, 0xFFFFFFFF, 0)
    return b"PK\3\4" + end + locator + small


def two_members() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("disk.raw", PLAIN)
        archive.writestr("README", b"read me")
    return file.getvalue()


def patched(at: int, value: bytes, *, data: bytes = PACKED["zip"]) -> bytes:
    """The archive with other bytes in its directory's entry."""
    start = data.rindex(b"PK\1\2") + at
    return data[:start] + value + data[start + len(value) :]


REFUSED: dict[str, tuple[bytes, str]] = {
    "no members": (bytes(End(members=0)), "0 members"),
    "two members": (two_members(), "2 members"),
    "a million members": (of_members(10**6), "1000000 members"),
    "a folder": (zipped(b"", name="images/"), "not a plain file"),
    "a link": (zipped(b"/etc/passwd", mode=0o120777), "not a plain file"),
    "a device": (zipped(b"", mode=0o060600), "not a plain file"),
    "a member above": (zipped(name="../../etc/passwd"), "outside"),
    "a member above, of another platform": (zipped(name="..\\..\\passwd"), "outside"),
    "a member at the root": (zipped(name="/etc/passwd"), "outside"),
    "encrypted": (patched(8, b"\x01"), "encrypted"),
    "strongly encrypted": (patched(8, b"\x41"), "encrypted"),
    "by another method": (zipped(method=zipfile.ZIP_BZIP2), "not known"),
    "in parts": (bytes(End(disk=1)), "several"),
    "another name inside": (patched(46, b"e"), "damaged"),
    "another checksum": (patched(16, b"abcd"), "damaged"),
    "another size": (patched(24, struct.pack("<L", len(PLAIN) - 1)), "damaged"),
    "less data": (patched(20, struct.pack("<L", 1000)), "damaged"),
    "more data than there is": (patched(20, struct.pack("<L", 10**9)), "damaged"),
    "data elsewhere": (patched(42, struct.pack("<L", 5)), "damaged"),
    "data nowhere": (patched(42, struct.pack("<L", 10**9)), "damaged"),
    "data far away, and not said where": (patched(42, b"\xff" * 4), "damaged"),
    "a directory elsewhere": (PACKED["zip"][:-6] + b"\5\0\0\0\0\0", "damaged"),
    "no end": (PACKED["zip"][:-22], "damaged"),
    "an archive of lha": (b"\x16\x2a-lh5-" + PLAIN, "lha"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_archives_that_are_not_one_file_are_refused(name: str, tmp_path: Path) -> None:
    data, words = REFUSED[name]
    if data.startswith(b"PK\5\6"):
        assert len(data) == 22

    with pytest.raises(GiveUp, match=words):
        await unpacked(tmp_path, data)
