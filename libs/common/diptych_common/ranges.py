"""Which part of a blob a request asks for, and whether it has it already (RFC 9110 §13, §14)."""

import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from diptych_common.errors import BadRequest, RangeNotSatisfiable

_UNIT = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(.*)", re.DOTALL)
_RANGE = re.compile(r"([0-9]*)-([0-9]*)")
_CONTENT_RANGE = re.compile(r"bytes[ \t]+([0-9]+)-([0-9]+)/([0-9]+|\*)", re.IGNORECASE)
_ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')

# More digits than any size has; int() refuses thousands of them with an error of its own.
_MANY_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a blob: `length` bytes, at least one, from `start` (0-based)."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        """The value of `Content-Range` for this part of `size` bytes."""
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


def requested_part(headers: Headers, *, size: int, etag: str | None = None) -> Part | None:
    """The part that a GET asks for; None for the whole.

    `size` is that of the whole in bytes, `etag` its strong entity tag with the quotes, against
    which `If-Range` is held. An end beyond the last byte is cut, a suffix longer than the whole
    is all of it. A request `Content-Range` counts where there is no `Range`, for old clients of
    Glance sent that.

    Raises BadRequest for several ranges, RangeNotSatisfiable for a malformed one or one that
    begins at or beyond the end.

    Source: RFC 9110 §14.2; Glance 33.0 for the statuses and the request `Content-Range`.
    """
    asked = headers.getlist("range")
    if not asked:
        return _from_content_range(headers.get("content-range"), size)
    if_range = headers.get("if-range")
    # A date never matches: a blob has no Last-Modified.
    if if_range is not None and (etag is None or if_range.strip() != etag):
        return None
    if len(asked) > 1:
        raise BadRequest("Only one range can be asked for at a time.")
    return _from_range(asked[0].strip(), size)


def has_current(headers: Headers, etag: str) -> bool:
    """Whether `If-None-Match` names `etag` (strong, with quotes), so that the answer is 304."""
    asked = ", ".join(headers.getlist("if-none-match")).strip()
    return asked == "*" or etag in _ENTITY_TAG.findall(asked)


def _from_range(value: str, size: int) -> Part | None:
    unit = _UNIT.fullmatch(value)
    if unit is None:
        raise _unsatisfiable(f"{value!r} is not a range.", size)
    if unit[1].lower() != "bytes":
        # RFC 9110 §14.2: a unit that the server does not know is ignored.
        return None
    specs = [spec for item in unit[2].split(",") if (spec := item.strip(" \t"))]
    if len(specs) > 1:
        raise BadRequest("Only one range can be asked for at a time.")
    spec = _RANGE.fullmatch(specs[0]) if specs else None
    if spec is None or not (spec[1] or spec[2]):
        raise _unsatisfiable(f"{value!r} is not a range.", size)
    if not spec[1]:
        return _part(max(size - _number(spec[2]), 0), size - 1, size)
    return _part(_number(spec[1]), _number(spec[2]) if spec[2] else size - 1, size)


def _from_content_range(value: str | None, size: int) -> Part | None:
    if value is None:
        return None
    spec = _CONTENT_RANGE.fullmatch(value.strip())
    if spec is None:
        raise _unsatisfiable(f"{value!r} is not a range.", size)
    return _part(_number(spec[1]), _number(spec[2]), size)


def _part(first: int, last: int, size: int) -> Part:
    if first >= size or last < first:
        raise _unsatisfiable(f"The {size} bytes there are do not include that range.", size)
    return Part(start=first, length=min(last, size - 1) - first + 1)


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _MANY_DIGITS else 10**_MANY_DIGITS


def _unsatisfiable(message: str, size: int) -> RangeNotSatisfiable:
    return RangeNotSatisfiable(message, headers={"Content-Range": f"bytes */{size}"})
