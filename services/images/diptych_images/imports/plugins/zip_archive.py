"""Where the one member of a zip archive is.

Not by the standard library's `zipfile`, which makes an object of each of the millions of members
that a directory can have before anybody can count them.

Source: PKWARE's APPNOTE.TXT 6.3, sections 4.3 and 4.5.3.
"""

import stat
import struct
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, Final

from diptych_common.jobs import GiveUp

_END: Final = struct.Struct("<4s4H2LH")
_END_64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64: Final = struct.Struct("<4sLQL")
_ENTRY: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT: Final = 0xFFFF

_STORED, _DEFLATED = 0, 8
_ENCRYPTED_FLAGS: Final = 0x2041  # the data, by strong encryption, and parts of the directory
_MADE_ON_UNIX: Final = 3
_ZIP64_FIELD: Final = 1
# Where a field has this, the true value is in the extra field of 64 bits.
_ELSEWHERE: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: where its data begins, its sizes in bytes, and its CRC-32."""

    start: int
    packed_size: int
    size: int
    checksum: int
    is_deflated: bool


def only_member(file: BinaryIO) -> Member:
    """The archive's member.

    Raises GiveUp if there is none or more than one, if it is not a plain file, or encrypted, and
    EOFError if the archive is damaged.
    """
    count, start = _directory(file)
    if count != 1:
        raise GiveUp(f"The zip archive has {count} members; one is taken, and no more.")
    (
        mark, maker, _, flags, method, _, _, checksum, packed_size, size,
        name_length, extra_length, _, _, _, attributes, local,
    ) = _ENTRY.unpack(_exactly(file, start, _ENTRY.size))  # fmt: skip
    if mark != b"PK\x01\x02":
        raise EOFError
    name = _exactly(file, start + _ENTRY.size, name_length)
    extra = _exactly(file, start + _ENTRY.size + name_length, extra_length)
    if flags & _ENCRYPTED_FLAGS:
        raise GiveUp("The zip archive is encrypted.")
    if method not in (_STORED, _DEFLATED):
        raise GiveUp("The zip archive is compressed in a way that is not known here.")
    mode = attributes >> 16 if maker >> 8 == _MADE_ON_UNIX else 0
    _require_plain_file(name.decode("utf-8", "replace"), mode)
    size, packed_size, local = _in_64_bits(extra, size, packed_size, local)

    head = _LOCAL.unpack(_exactly(file, local, _LOCAL.size))
    own_name = _exactly(file, local + _LOCAL.size, head[9])
    data = local + _LOCAL.size + head[9] + head[10]
    # The two descriptions must be of the same thing, or it depends on the program what it is.
    if (head[0], head[3], own_name) != (b"PK\x03\x04", method, name):
        raise EOFError
    return Member(
        start=data,
        packed_size=packed_size,
        size=size,
        checksum=checksum,
        is_deflated=method == _DEFLATED,
    )


def _directory(file: BinaryIO) -> tuple[int, int]:
    """How many members the archive says that it has, and where their directory begins."""
    length = file.seek(0, 2)
    begin = max(0, length - _END.size - _LONGEST_COMMENT)
    tail = _exactly(file, begin, length - begin)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise EOFError
    _, disk, first_disk, here, count, _, start, comment = _END.unpack_from(tail, at)
    if len(tail) != at + _END.size + comment:
        raise EOFError
    locator = begin + at - _LOCATOR_64.size
    if 0xFFFF in (here, count) or start == _ELSEWHERE:
        mark, disk, end, _ = _LOCATOR_64.unpack(_exactly(file, locator, _LOCATOR_64.size))
        if mark != b"PK\x06\x07":
            raise EOFError
        mark, _, _, _, _, first_disk, here, count, _, start = _END_64.unpack(
            _exactly(file, end, _END_64.size)
        )
        if mark != b"PK\x06\x06":
            raise EOFError
    if disk or first_disk or here != count:
        raise GiveUp("The zip archive is one part of several.")
    return count, start


def _require_plain_file(name: str, mode: int) -> None:
    # The name is not used, and still it tells what the archive was made for.
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise GiveUp("The zip archive's member would be outside of where it is unpacked.")
    if name.endswith("/") or stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise GiveUp("The zip archive's member is not a plain file.")


def _in_64_bits(extra: bytes, *values: int) -> tuple[int, ...]:
    """The values, those that are elsewhere taken from the extra field, where they are in order."""
    if _ELSEWHERE not in values:
        return values
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind != _ZIP64_FIELD:
            continue
        wide = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
        try:
            return tuple(next(wide) if value == _ELSEWHERE else value for value in values)
        except RuntimeError as error:  # fewer than were promised
            raise EOFError from error
    raise EOFError


def _exactly(file: BinaryIO, start: int, length: int) -> bytes:
    if start < 0:
        raise EOFError
    file.seek(start)
    data = file.read(length)
    if len(data) != length:
        raise EOFError
    return data
