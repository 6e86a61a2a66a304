"""The `limit` and `marker` of a list, and the `first` and `next` links of its answer."""

import re
from collections.abc import Iterable
from urllib.parse import urlencode

from diptych_common.errors import BadRequest

_INTEGER = re.compile(r"[+-]?[0-9]+")

# int() refuses thousands of digits with an error of its own; no limit has as many as this.
_MANY_DIGITS = 18


def limit_of(query: Iterable[tuple[str, str]], *, default: int, cap: int) -> int:
    """How many rows the page has at most: the last `limit`, no more than `cap`; 0 is an empty page.

    `default` counts where there is none, and is cut to `cap` too. Raises BadRequest for anything
    but an integer ≥ 0.
    """
    text = _last(query, "limit")
    if text is None:
        return min(default, cap)
    digits = text.strip()
    if _INTEGER.fullmatch(digits) is None:
        raise BadRequest(f"limit must be an integer, not {text!r}.")
    number = int(digits[:_MANY_DIGITS])
    if number < 0:
        raise BadRequest("limit must not be negative.")
    return min(number, cap)


def marker_of(query: Iterable[tuple[str, str]]) -> str | None:
    """The id after which the page begins; None for the first page, which an empty one means too."""
    return _last(query, "marker") or None


def links(
    path: str, query: Iterable[tuple[str, str]], *, next_marker: str | None
) -> dict[str, str]:
    """`first`, and `next` unless `next_marker` is None: `path` with the parameters of `query`.

    Parameters keep their order, and repeated ones stay repeated (Glance keeps the last only, and
    so drops filters on its second page). `path` is relative to the host, as clients expect.
    """
    kept = [(name, value) for name, value in query if name != "marker"]
    document = {"first": _url(path, kept)}
    if next_marker is not None:
        document["next"] = _url(path, [*kept, ("marker", next_marker)])
    return document


def _last(query: Iterable[tuple[str, str]], name: str) -> str | None:
    values = [value for key, value in query if key == name]
    return values[-1] if values else None


def _url(path: str, query: list[tuple[str, str]]) -> str:
    return f"{path}?{urlencode(query)}" if query else path
