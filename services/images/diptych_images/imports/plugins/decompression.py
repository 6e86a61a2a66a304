"""The plug-in `image_decompression`: what was imported compressed is stored as it was before.

Told by the first bytes, whatever the image's name and formats; one layer, so that an archive in an
archive stays one. A few bytes may unpack without end, so the result is held against the image's
limit and against its source's size while it is written.

Source: Glance 33.0, async_/flows/plugins/image_decompression.py, which knows gzip, zip and lha and
has no limits. lha is refused here, in words: no maintained library reads it.
"""

import asyncio
import dataclasses
import lzma
import os
import re
import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from diptych_common.jobs import GiveUp

from diptych_images.formats import Findings, Inspection
from diptych_images.imports.plugins import zip_archive
from diptych_images.imports.plugins.draft import BLOCK, Draft, in_steps
from diptych_images.settings import ImagesSettings

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# A result of up to this many bytes is no bomb, whatever it is made of.
_HARMLESS: Final = 64 * 1024 * 1024

# `xz -9` needs 65 MiB, and `zstd` refuses larger windows than this too unless it is told to.
_XZ_MEMORY: Final = 128 * 1024 * 1024
_ZSTD_WINDOW: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 27}

_HEAD: Final = 16


async def decompress(draft: Draft, folder: Path, settings: ImagesSettings, *, limit: int) -> Draft:
    """The unpacked image in another file of `folder`; the draft's own file is gone.

    What is not compressed is left as it is, and so is an image whose container says that it is.
    `limit` is the most bytes that the result may have. Raises GiveUp for what is damaged, larger
    than that or too large for its source, and for archives that are not exactly one file.
    """
    if draft.container_format == "compressed":
        return draft
    path = folder / f"{draft.path.name}.unpacked"
    # Held against the whole source: how its bytes come to be so many may differ along the way.
    by_ratio = max(_HARMLESS, draft.size * settings.image_decompression.max_ratio)
    findings = await in_steps(_unpacking(draft.path, path, limit=limit, by_ratio=by_ratio))
    if findings is None:
        return draft
    await asyncio.to_thread(draft.path.unlink)
    return dataclasses.replace(draft, path=path, size=findings.size, findings=findings)


def _unpacking(
    source: Path, target: Path, *, limit: int, by_ratio: int
) -> Generator[None, None, Findings | None]:
    """Write `target` and look at it on the way; None if `source` is not compressed."""
    with source.open("rb") as packed:
        head = packed.read(_HEAD)
        packed.seek(0)
        kind = next((name for name, start in _STARTS.items() if start.match(head)), None)
        if kind is None:
            return None
        inspection = Inspection()
        size = 0
        with open(target, "xb", opener=_for_us_alone) as unpacked:
            for piece in _readable(kind, packed):
                size += len(piece)
                if size > limit:
                    raise GiveUp(f"Unpacked, the image has more than {limit} bytes.")
                if size > by_ratio:
                    raise GiveUp(
                        "Unpacked, the image is larger than what was imported by more than is"
                        " allowed."
                    )
                inspection.update(piece)
                unpacked.write(piece)
                yield
    return inspection.findings()


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _readable(kind: str, packed: BinaryIO) -> Iterator[bytes]:
    """The unpacked bytes, in pieces of up to BLOCK; errors of all libraries as GiveUp."""
    try:
        yield from _READERS[kind](packed)
    except (zlib.error, lzma.LZMAError, zstd.ZstdError, EOFError) as error:
        # Neither library has an error of its own for it.
        if "memory" in str(error).lower():
            raise GiveUp(f"To unpack the {kind} data takes more memory than is allowed.") from error
        raise GiveUp(f"The {kind} data is damaged, or not all of it is there.") from error


# --- Streams --------------------------------------------------------------------------------------


class _Source:
    """The compressed bytes, read block by block; what was too much of a block can be given back."""

    def __init__(self, file: BinaryIO, length: int | None = None) -> None:
        self._file = file
        self._left = length
        self._returned = b""

    def take(self) -> bytes:
        """The next bytes; none at the end."""
        if self._returned:
            block, self._returned = self._returned, b""
            return block
        if self._left is None:
            return self._file.read(BLOCK)
        block = self._file.read(min(BLOCK, self._left))
        self._left -= len(block)
        return block

    def give_back(self, rest: bytes) -> None:
        """Have `rest` taken again."""
        self._returned = rest

    def is_over(self, *, padded: bool) -> bool:
        """Whether nothing follows; nothing but zeros counts as nothing if `padded`."""
        while block := self.take():
            if rest := block.lstrip(b"\0") if padded else block:
                self.give_back(rest)
                return False
        return True


class _Decompressor(Protocol):
    """What the decompressors of `lzma` and `zstd` have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes: ...


def _one_stream(source: _Source, stream: _Decompressor) -> Iterator[bytes]:
    while not stream.eof:
        block = b""
        if stream.needs_input and not (block := source.take()):
            raise EOFError
        yield stream.decompress(block, BLOCK)
    source.give_back(stream.unused_data)


def _deflated(source: _Source, window_bits: int) -> Iterator[bytes]:
    stream = zlib.decompressobj(window_bits)
    while not stream.eof:
        block = stream.unconsumed_tail or source.take()
        piece = stream.decompress(block, BLOCK)
        # Without input it still has what did not fit into the piece before.
        if not (block or piece or stream.eof):
            raise EOFError
        yield piece
    source.give_back(stream.unused_data)


def _gzip(packed: BinaryIO) -> Iterator[bytes]:
    source = _Source(packed)
    while not source.is_over(padded=True):
        yield from _deflated(source, zlib.MAX_WBITS | 16)


def _xz(packed: BinaryIO) -> Iterator[bytes]:
    source = _Source(packed)
    while not source.is_over(padded=True):
        yield from _one_stream(source, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))


def _zstd(packed: BinaryIO) -> Iterator[bytes]:
    source = _Source(packed)
    while not source.is_over(padded=False):
        yield from _one_stream(source, zstd.ZstdDecompressor(options=_ZSTD_WINDOW))


# --- Archives -------------------------------------------------------------------------------------


def _zip(packed: BinaryIO) -> Iterator[bytes]:
    member = zip_archive.only_member(packed)
    packed.seek(member.start)
    source = _Source(packed, member.packed_size)
    size, checksum = 0, 0
    for piece in _deflated(source, -zlib.MAX_WBITS) if member.is_deflated else _stored(source):
        size += len(piece)
        checksum = zlib.crc32(piece, checksum)
        yield piece
    if (size, checksum) != (member.size, member.checksum) or not source.is_over(padded=False):
        raise EOFError


def _stored(source: _Source) -> Iterator[bytes]:
    while block := source.take():
        yield block


def _lha(packed: BinaryIO) -> Iterator[bytes]:
    raise GiveUp("The data is an lha archive, which is not unpacked here.")


_STARTS: Final = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "zip": re.compile(rb"PK(\x03\x04|\x05\x06)"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    # Some programs begin with a frame to be skipped, which has one of sixteen marks.
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
    "lha": re.compile(rb"(?s)..-lh[0-9a-z]-"),
}

_READERS: Final[dict[str, Callable[[BinaryIO], Iterator[bytes]]]] = {
    "gzip": _gzip,
    "zip": _zip,
    "xz": _xz,
    "zstd": _zstd,
    "lha": _lha,
}
