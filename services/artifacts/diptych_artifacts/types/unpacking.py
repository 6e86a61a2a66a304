"""Archives that are unpacked into a folder when they are uploaded: a declared action of a type.

An archive is a user's work: a few bytes of it may unpack without end, name places outside of where
they are unpacked, or fill the memory with names. It is read in pieces and in threads, and each
limit holds at every piece.
"""

import asyncio
import gzip
import io
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Final, cast

from diptych_common.errors import BadRequest, TooLarge

from diptych_artifacts.types.fields import Field, Invalid, coerce_key

_PIECE: Final = 256 * 1024

# Up to this many bytes a result is no bomb, whatever it is made of.
_HARMLESS: Final = 1024 * 1024

# Folders of an archive and what is said of the next file, which leave nothing behind, count too.
_MOST_ENTRIES: Final = 10_000

# The directory of a zip archive is read as one: with this size it has 22,000 entries at most.
_LARGEST_DIRECTORY: Final = 1024 * 1024

# What a tar archive says of one file beyond its header: a long name, attributes.
_LONGEST_EXTENSION: Final = 64 * 1024
_EXTENSIONS: Final = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)

_ENCRYPTED: Final = 0x1
_MADE_ON_UNIX: Final = 3
_DRIVE: Final = re.compile(r"[A-Za-z]:")

_DAMAGE: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,  # places before the beginning, names that are no text
    OverflowError,
    RuntimeError,  # NotImplementedError and RecursionError among them
)


@dataclass(frozen=True, slots=True)
class Unpack:
    """What becomes of an uploaded archive: its files go into the folder `into`, by their paths.

    How many they may be and how large is what the folder may hold. Unpacked they may be `max_ratio`
    times as large as the archive.
    """

    into: str
    max_ratio: int = 100


async def unpacked(
    file: BinaryIO, action: Unpack, folder: Field, turns: asyncio.Semaphore
) -> AsyncGenerator[tuple[str, AsyncGenerator[bytes]]]:
    """The files of a zip archive, a tar archive or a gzipped one: keys of the folder, and bytes.

    The bytes of one are to be read to their end before the next is asked for. The file is read in
    threads, from its beginning; it is left open, and nobody else may use it meanwhile. Memory is
    bounded by about 20 MiB, whatever is in the archive, and a turn is taken for as long: wait for
    one without a connection of the database.

    Raises BadRequest for what is no such archive or damaged, for more files than the folder takes,
    for the same one twice, links, devices, encrypted files and names that lead outside; TooLarge
    for a file, a sum or a ratio beyond its limit. That may be at once or after some files: what
    was made of them is then to be dropped.
    """
    async with turns:
        members = _readable(file, action, folder)
        while (member := await asyncio.to_thread(next, members, None)) is not None:
            key, pieces = member
            yield key, _in_threads(pieces)


async def _in_threads(pieces: Iterator[bytes]) -> AsyncGenerator[bytes]:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def _readable(
    file: BinaryIO, action: Unpack, folder: Field
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The archive's files; errors of all libraries as BadRequest."""
    limits = _Limits(file.seek(0, io.SEEK_END), action, folder)
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    members = _zip if head in (b"PK\x03\x04", b"PK\x05\x06") else _tar
    try:
        for key, pieces in members(file, head, limits):
            yield key, _sound(pieces)
    except _DAMAGE as error:
        raise _damaged() from error


def _sound(pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except _DAMAGE as error:
        raise _damaged() from error


def _damaged() -> BadRequest:
    return BadRequest("This is no zip or tar archive, or it is damaged.")


class _Limits:
    """What has been taken out of an archive, held against what may be."""

    def __init__(self, archive_size: int, action: Unpack, folder: Field) -> None:
        self._by_ratio = max(_HARMLESS, archive_size * action.max_ratio)
        self._folder = folder
        self._keys: set[str] = set()
        self._entries = 0
        self._total = 0

    def count(self) -> None:
        """One more entry, of whatever kind."""
        self._entries += 1
        if self._entries > _MOST_ENTRIES:
            raise BadRequest(f"The archive has more than {_MOST_ENTRIES} entries.")

    def key(self, name: str, size: int) -> str:
        """The key of one more file, which says that it has so many bytes."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or _DRIVE.match(name):
            raise BadRequest("The archive names a place outside of where it is unpacked.")
        try:
            key = coerce_key(self._folder, "/".join(path.parts))
        except Invalid as error:
            raise BadRequest(f"A name in the archive is no key of the folder: {error}") from error
        if key in self._keys:
            raise BadRequest(f"The archive has {key!r} more than once.")
        self._keys.add(key)
        if len(self._keys) > self._folder.max_items:
            raise BadRequest(f"The folder takes at most {self._folder.max_items} files.")
        if size > self._folder.max_blob_size:
            raise self._too_large()
        return key

    def measured(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The bytes of a file; raises TooLarge as soon as they are too many."""
        size = 0
        for piece in pieces:
            size += len(piece)
            self._total += len(piece)
            if size > self._folder.max_blob_size:
                raise self._too_large()
            if self._total > self._folder.max_folder_size:
                raise TooLarge(f"The folder takes at most {self._folder.max_folder_size} bytes.")
            self.require_plausible(self._total)
            yield piece

    def _too_large(self) -> TooLarge:
        return TooLarge(f"A file in the archive has more than {self._folder.max_blob_size} bytes.")

    def require_plausible(self, unpacked_size: int) -> None:
        """Raise TooLarge for more bytes than an archive of this size may unpack to."""
        if unpacked_size > self._by_ratio:
            raise TooLarge("Unpacked, the archive is larger by more than is allowed.")


def _in_pieces(opened: BinaryIO) -> Iterator[bytes]:
    while piece := opened.read(_PIECE):
        yield piece


# --- zip ------------------------------------------------------------------------------------------


def _zip(file: BinaryIO, _: bytes, limits: _Limits) -> Iterator[tuple[str, Iterator[bytes]]]:
    with zipfile.ZipFile(cast(BinaryIO, _InBounds(file))) as archive:
        files: list[tuple[str, zipfile.ZipInfo]] = []
        # All names are looked at before anything is unpacked.
        for entry in archive.infolist():
            limits.count()
            mode = entry.external_attr >> 16 if entry.create_system == _MADE_ON_UNIX else 0
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BadRequest("The archive has links or devices.")
            if entry.flag_bits & _ENCRYPTED:
                raise BadRequest("The archive is encrypted.")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadRequest("The archive is compressed in a way that is not known here.")
            # Not by `is_dir`, which fails for a name without characters.
            if not (entry.filename.endswith("/") or stat.S_ISDIR(mode)):
                files.append((limits.key(entry.filename, entry.file_size), entry))
        for key, entry in files:
            with archive.open(entry) as opened:
                yield key, limits.measured(_in_pieces(cast(BinaryIO, opened)))


class _InBounds:
    """A file for ZipFile, which reads the directory as a whole before anybody could measure it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def seekable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1) -> bytes:
        """As of the file; raises BadRequest for more than any archive for a folder needs."""
        most = _LARGEST_DIRECTORY + 1
        data = self._file.read(most if size < 0 else min(size, most))
        if len(data) == most:
            raise BadRequest(f"The archive has more than {_MOST_ENTRIES} entries.")
        return data


# --- tar ------------------------------------------------------------------------------------------
#
# The library reads single headers. What it does beyond that is without measure: it holds the
# process for minutes over digits in an extension (CVE-2024-6232), keeps what is said of all files,
# and calls itself once for each extension.

_NO_FILE: Final = "The archive has links, devices or sparse files."


def _tar(file: BinaryIO, head: bytes, limits: _Limits) -> Iterator[tuple[str, Iterator[bytes]]]:
    packed = head.startswith(b"\x1f\x8b")
    opened = cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb")) if packed else file
    stream = _Measured(opened, limits)
    extensions: dict[str, str] = {}
    while (entry := _next_entry(stream)) is not None:
        limits.count()
        if entry.type in _EXTENSIONS:
            extensions |= _extensions(stream, entry)
            continue
        name = extensions.get("path", entry.name)
        size = int(extensions.get("size", entry.size))
        extensions = {}
        if entry.isdir():
            continue
        if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
            raise BadRequest(_NO_FILE)
        key = limits.key(name, size)
        end = _end(stream, size)
        yield key, limits.measured(stream.until(stream.position + size))
        # Whoever got them need not have read them.
        for _ in stream.until(end):
            pass


class _Measured:
    """The archive as it is unpacked: what is between its files is to stay in proportion too."""

    def __init__(self, file: BinaryIO, limits: _Limits) -> None:
        self._file = file
        self._limits = limits
        self.position = 0

    def read(self, size: int) -> bytes:
        """As of the file; raises TooLarge when it has become too much."""
        data = self._file.read(size)
        self.position += len(data)
        self._limits.require_plausible(self.position)
        return data

    def until(self, position: int) -> Iterator[bytes]:
        """The bytes from here to there; raises EOFError where there are not as many."""
        while self.position < position:
            piece = self.read(min(_PIECE, position - self.position))
            if not piece:
                raise EOFError
            yield piece


def _next_entry(stream: _Measured) -> tarfile.TarInfo | None:
    """The next header; None after the last."""
    header = stream.read(tarfile.BLOCKSIZE)
    # Archives should end with blocks of zeros; some just end.
    if not any(header) and stream.position:
        return None
    return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")


def _end(stream: _Measured, size: int) -> int:
    """Where as many bytes from here end with their last block; raises ValueError."""
    if size < 0:
        raise ValueError(size)
    return stream.position - -size // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE


def _extensions(stream: _Measured, entry: tarfile.TarInfo) -> dict[str, str]:
    """What an entry says of the next one's `path` and `size`."""
    if entry.size > _LONGEST_EXTENSION:
        raise BadRequest("A name in the archive is too long.")
    end = _end(stream, entry.size)
    data = b"".join(stream.until(end))[: entry.size]
    if entry.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": _text(data.partition(b"\0")[0])}
    if entry.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        said = dict(_records(data))
        if any(key.startswith("GNU.sparse.") for key in said):
            raise BadRequest(_NO_FILE)
        return {key: said[key] for key in ("path", "size") if key in said}
    # Of a link; or of all files, such as where they come from.
    return {}


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Records of pax: their length, a space, a key, =, a value and a line feed."""
    at = 0
    # Some fill up with zeros.
    while at < len(data) and data[at]:
        length, _, _ = data[at : at + 6].partition(b" ")
        if not length.isdigit():
            raise ValueError(length)
        end = at + int(length)
        key, is_record, value = data[at + len(length) + 1 : end - 1].partition(b"=")
        if not is_record or data[end - 1 : end] != b"\n":
            raise ValueError(length)
        yield _text(key), _text(value)
        at = end


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
