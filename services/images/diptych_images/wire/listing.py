"""The query string of the image list, and the document of a page.

Names that are no parameter of the list are custom properties to compare with; a name that no
image has simply matches nothing.

Source: Glance 33.0, api/v2/images.py and common/utils.py; Images API reference, "List images".
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, TypeVar, cast
from urllib.parse import parse_qsl

from diptych_common import paging
from diptych_common.errors import BadRequest
from oslo_utils import timeutils

from diptych_images.db.image_list import Field, Filter, ListQuery, Operator, SortKey
from diptych_images.db.images import MemberStatus, Visibility
from diptych_images.db.pages import Direction
from diptych_images.wire.schemas import MAX_INT, MEMBER_STATUSES, VISIBILITIES

Items = Sequence[tuple[str, str]]
T = TypeVar("T")

SORT_KEYS: Mapping[str, SortKey] = {
    "name": "name",
    "status": "status",
    "container_format": "container_format",
    "disk_format": "disk_format",
    "size": "size",
    "id": "id",
    "created_at": "created_at",
    "updated_at": "updated_at",
}
_DIRECTIONS: Mapping[str, Direction] = {"asc": "asc", "desc": "desc"}

_VISIBILITIES: Mapping[str, Visibility | Literal["all"]] = {
    "all": "all",
    **{known: known for known in VISIBILITIES},
}
_MEMBER_STATUSES: Mapping[str, MemberStatus | Literal["all"]] = {
    "all": "all",
    **{known: known for known in MEMBER_STATUSES},
}
_BOOLEANS: Mapping[str, bool] = {"true": True, "false": False}

_TIME_OPERATORS: Mapping[str, Operator] = {
    "eq": "eq", "neq": "neq", "gt": "gt", "gte": "gte", "lt": "lt", "lte": "lte",
}  # fmt: skip

_LARGEST: Mapping[str, int] = {
    "size": 2**63 - 1,
    "virtual_size": 2**63 - 1,
    "min_disk": MAX_INT,
    "min_ram": MAX_INT,
}
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")

# The last moment that a second can still be added to.
_END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)


def items(query_string: bytes) -> list[tuple[str, str]]:
    """The parameters in order, repeated ones and empty values kept; BadRequest unless UTF-8."""
    try:
        return parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest("The query string is not UTF-8.") from error


def parse(items: Items, *, default_limit: int, max_limit: int) -> ListQuery:
    """What a client asks of the list; BadRequest for what cannot be asked.

    Of a repeated parameter the last counts, save `tag`, `sort_key` and `sort_dir`.
    """
    for name, value in items:
        if "\x00" in name or "\x00" in value:
            raise BadRequest("The query string holds the character U+0000.")
    given = {name: value for name, value in items if name not in _READ_APART}
    filters: list[Filter] = []
    properties: dict[str, str] = {}
    for name, value in given.items():
        read = _FILTERS.get(name)
        if read is not None:
            filters.append(read(name, value))
        elif name.endswith(("_min", "_max")):
            raise BadRequest(f"{name} is not a limit that images can be filtered by.")
        else:
            properties[name] = value

    last = dict(items)
    if "changes-since" in last:
        raise BadRequest("changes-since is not supported; use updated_at=gte:<time>.")
    visibility = None
    if "visibility" in last:
        visibility = _one_of("visibility", last["visibility"], _VISIBILITIES)
    return ListQuery(
        limit=paging.limit_of(items, default=default_limit, cap=max_limit),
        filters=tuple(filters),
        tags=tuple(dict.fromkeys(value.strip() for name, value in items if name == "tag")),
        properties=properties,
        visibility=visibility,
        member_status=_one_of(
            "member_status", last.get("member_status", "accepted"), _MEMBER_STATUSES
        ),
        os_hidden=_one_of("os_hidden", last.get("os_hidden", "false").lower(), _BOOLEANS),
        sort=_sort(items),
        marker=paging.marker_of(items),
    )


def without_properties(query: ListQuery, hidden: Collection[str]) -> ListQuery:
    """The query of a caller for whom no image has these properties.

    Where it compares with one of them it matches nothing, and never looks at their values.
    """
    readable = {name: value for name, value in query.properties.items() if name not in hidden}
    if len(readable) == len(query.properties):
        return query
    nothing = Filter("id", "in", ())
    return replace(query, properties=readable, filters=(*query.filters, nothing))


def document(
    images: Sequence[Mapping[str, object]], items: Items, *, page_is_full: bool
) -> dict[str, object]:
    """A page of images as clients see it.

    `page_is_full` says that the database found as many rows as were asked for, of which policy
    may have hidden some. The page after an exactly full last one is empty, as in Glance.
    """
    next_marker = cast("str", images[-1]["id"]) if images and page_is_full else None
    return {
        "images": list(images),
        "schema": "/v2/schemas/images",
        **paging.links("/v2/images", items, next_marker=next_marker),
    }


def unknown_marker(marker: str | None) -> BadRequest:
    """The answer to a marker that the caller cannot see, whether there is such an image or not."""
    return BadRequest(f"There is no image {marker} to begin after.")


def _text(name: str, value: str) -> Filter:
    return Filter(cast("Field", name), "eq", value)


def _text_or_several(name: str, value: str) -> Filter:
    operator, operand = _split(value)
    match operator:
        case "eq":
            return Filter(cast("Field", name), "eq", operand)
        case "in":
            return Filter(cast("Field", name), "in", _values(name, operand))
        case _:
            raise BadRequest(
                f"{name} can be filtered with eq: and in:, not {operator}:. "
                f"A value with a colon in it is written eq:{value}."
            )


def _time(name: str, value: str) -> Filter:
    operator, operand = _split(value)
    if operator not in _TIME_OPERATORS:
        raise BadRequest(f"{name} can be filtered with {', '.join(_TIME_OPERATORS)}.")
    moment = _moment(operand)
    if moment is None:
        raise BadRequest(f"{name} is compared with a time in ISO 8601, not {operand!r}.")
    return Filter(cast("Field", name), _TIME_OPERATORS[operator], moment)


def _integer(name: str, value: str) -> Filter:
    return Filter(cast("Field", name), "eq", _number(name, value, largest=_LARGEST[name]))


def _at_least(name: str, value: str) -> Filter:
    field = name.removesuffix("_min")
    return Filter(cast("Field", field), "gte", _number(name, value, largest=_LARGEST[field]))


def _at_most(name: str, value: str) -> Filter:
    field = name.removesuffix("_max")
    return Filter(cast("Field", field), "lte", _number(name, value, largest=_LARGEST[field]))


def _is_protected(name: str, value: str) -> Filter:
    return Filter(cast("Field", name), "eq", _one_of(name, value, _BOOLEANS))


_FILTERS: Mapping[str, Callable[[str, str], Filter]] = {
    "id": _text_or_several,
    "name": _text_or_several,
    "status": _text_or_several,
    "container_format": _text_or_several,
    "disk_format": _text_or_several,
    "owner": _text,
    "checksum": _text,
    "os_hash_algo": _text,
    "os_hash_value": _text,
    "protected": _is_protected,
    "created_at": _time,
    "updated_at": _time,
    **dict.fromkeys(_LARGEST, _integer),
    **{f"{name}_min": _at_least for name in _LARGEST},
    **{f"{name}_max": _at_most for name in _LARGEST},
}
_READ_APART = frozenset(
    {
        "changes-since", "limit", "marker", "member_status", "os_hidden", "sort", "sort_dir",
        "sort_key", "tag", "visibility",
    }
)  # fmt: skip


def _split(value: str) -> tuple[str, str]:
    """Operator and operand; a time has colons of its own and is compared with `eq`."""
    operator, colon, operand = value.partition(":")
    if not colon or _moment(value) is not None:
        return "eq", value
    return operator, operand


def _moment(text: str) -> datetime | None:
    """The time in UTC; None for what is not ISO 8601 or out of the calendar."""
    try:
        moment = timeutils.parse_isotime(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return min(moment, _END_OF_TIME)


def _values(name: str, text: str) -> tuple[str, ...]:
    """The items of a list with commas, some in double quotes, in which `\\"` is a quote.

    Empty items are left out unless quoted. A quote elsewhere than around a whole item, or one
    without its partner, is a BadRequest.
    """
    values: list[str] = []
    rest = text
    while rest:
        if rest.startswith('"'):
            quoted = _QUOTED.match(rest)
            if quoted is None:
                raise BadRequest(f"In the list of {name} a quote is not where it can be.")
            values.append(quoted[1].replace('\\"', '"'))
            rest = rest[quoted.end() :]
        else:
            value, _, rest = rest.partition(",")
            if '"' in value:
                raise BadRequest(f"In the list of {name} a quote is not where it can be.")
            if value:
                values.append(value)
    return tuple(dict.fromkeys(values))


_QUOTED = re.compile(r'"((?:\\"|\\(?!")|[^"\\])*)"(?:,|\Z)')


def _number(name: str, text: str, *, largest: int) -> int:
    digits = text.strip()
    if _INTEGER.fullmatch(digits) is None or abs(int(digits)) > largest:
        raise BadRequest(f"{name} must be an integer of at most {largest}, not {text[:99]!r}.")
    return int(digits)


def _one_of(name: str, value: str, allowed: Mapping[str, T]) -> T:
    if value not in allowed:
        raise BadRequest(f"{name} must be one of {', '.join(allowed)}, not {value[:99]!r}.")
    return allowed[value]


def _sort(items: Items) -> tuple[tuple[SortKey, Direction], ...]:
    """The order asked for, made total by the time of creation and the id."""
    together = [value for name, value in items if name == "sort"]
    keys = [value for name, value in items if name == "sort_key"]
    directions = [value for name, value in items if name == "sort_dir"]
    if together and (keys or directions):
        raise BadRequest("sort cannot be given together with sort_key and sort_dir.")
    if together:
        pairs = [part.partition(":") for part in together[-1].split(",")]
        keys = [key.strip() for key, _, _ in pairs]
        directions = [direction.strip() if colon else "desc" for _, colon, direction in pairs]
    # Of the columns that the client did not name, so that equal images have an order too.
    the_rest = (
        _one_of("A direction", directions[0], _DIRECTIONS) if len(directions) == 1 else "desc"
    )
    keys = keys or ["created_at"]
    if len(directions) < 2:
        directions = directions * len(keys) or ["desc"] * len(keys)
    if len(directions) != len(keys):
        raise BadRequest("There must be one sort_dir, or as many as there are sort_key.")

    order: dict[SortKey, Direction] = {}
    for key, direction in zip(keys, directions, strict=True):
        order.setdefault(
            _one_of("A sort key", key, SORT_KEYS), _one_of("A direction", direction, _DIRECTIONS)
        )
    order.setdefault("created_at", the_rest)
    order.setdefault("id", the_rest)
    return tuple(order.items())
