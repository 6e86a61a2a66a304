"""Fields of artifacts: what they are declared to be, and what becomes of values for them.

Source: Glare 5.0.1, objects/meta/wrappers.py and fields.py, and the coercion of
oslo.versionedobjects that they stand on.
"""

import copy
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as data
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from diptych_artifacts.settings import LARGEST_INTEGER
from diptych_artifacts.types import semver
from diptych_artifacts.types.validators import (
    UUID_PATTERN,
    AllowedDictKeys,
    AllowedValues,
    DeclarationError,
    Invalid,
    Kind,
    MaxDictKeyLen,
    MaxDictSize,
    MaxListSize,
    MaxStrLen,
    MinDictKeyLen,
    Shape,
    Unique,
    Validator,
)

__all__ = [
    "NOT_IN_URLS",
    "DeclarationError",
    "Field",
    "FilterOp",
    "Invalid",
    "Kind",
    "Scalar",
    "Shape",
    "Value",
    "coerce",
    "coerce_element",
    "coerce_key",
    "is_web_address",
    "linked_artifact",
    "settled",
]

FilterOp = Literal["eq", "neq", "in", "gt", "gte", "lt", "lte", "like"]

Scalar: TypeAlias = str | int | float | bool
# As it is stored in JSON.
Value: TypeAlias = Scalar | list[Scalar] | dict[str, Scalar] | None

DEFAULT_MAX_BLOB_SIZE: Final = 10_485_760
DEFAULT_MAX_FOLDER_SIZE: Final = 2_673_868_800
_MOST_ITEMS: Final = 255
_LONGEST_STRING: Final = 255
_LONGEST_KEY: Final = 255
# Bytes. PostgreSQL's indexes take 2,704 of a row, which holds the artifact and the field besides.
_LONGEST_FOLDER_KEY: Final = 2048
# Glare's own limit for the URL of a blob; links have none there but their column's.
_LONGEST_LINK: Final = 2048
_SMALLEST_INTEGER: Final = -LARGEST_INTEGER - 1

_EQUALITY: Final[tuple[FilterOp, ...]] = ("eq", "neq", "in")
_ORDER: Final[tuple[FilterOp, ...]] = ("gt", "gte", "lt", "lte")

DEFAULT_FILTER_OPS: Final[Mapping[Kind, tuple[FilterOp, ...]]] = {
    "String": _EQUALITY,
    "Integer": (*_EQUALITY, *_ORDER),
    "Float": (*_EQUALITY, *_ORDER),
    "Boolean": ("eq", "neq"),
    "DateTime": ("lt", "gt"),
    # The artifact's own has an order besides; others are text to the database.
    "Version": _EQUALITY,
    "Link": ("eq", "neq"),
    "Blob": (),
}
_ALSO: Final[Mapping[Kind, tuple[FilterOp, ...]]] = {
    "String": ("like",),
    "Version": (*_ORDER, "like"),
}

# Strings that oslo.utils takes for true; all others are false.
_TRUE: Final = frozenset({"1", "t", "true", "on", "y", "yes"})

_LOCAL_LINK: Final = re.compile(f"/artifacts/[^/]+/({UUID_PATTERN.strip('^$')})")
NOT_IN_URLS: Final = re.compile(r"[\x00-\x20\x7f]")
"""Blanks and control characters, which are in no URL unless they are encoded."""


class _Unset(Enum):
    UNSET = "unset"


# What a field has that does not say; typed as what it becomes.
_UNSET: Final[Any] = _Unset.UNSET


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an artifact type.

    Its attributes are explained in docs/operators/artifact-types.md. What was not given is, once it
    is made: `default`, an empty list or dict for these shapes (None if that was given), and
    `filter_ops`, those of its kind. `checks` and `element_checks` are its validators and the limits
    that every field of its kind has. Raises DeclarationError for what cannot be.
    """

    kind: Kind
    shape: Shape = "one"
    mutable: bool = data(default=False, kw_only=True)
    required_on_activate: bool = data(default=True, kw_only=True)
    system: bool = data(default=False, kw_only=True)
    nullable: bool = data(default=True, kw_only=True)
    default: Value = data(default=_UNSET, kw_only=True)
    sortable: bool = data(default=False, kw_only=True)
    filter_ops: tuple[FilterOp, ...] = data(default=_UNSET, kw_only=True)
    description: str = data(default="", kw_only=True)
    metadata: Mapping[str, Any] | None = data(default=None, kw_only=True)
    validators: Sequence[Validator] = data(default=(), kw_only=True)
    element_validators: Sequence[Validator] = data(default=(), kw_only=True)
    max_blob_size: int = data(default=DEFAULT_MAX_BLOB_SIZE, kw_only=True)
    max_folder_size: int = data(default=DEFAULT_MAX_FOLDER_SIZE, kw_only=True)
    checks: tuple[Validator, ...] = data(init=False, repr=False, compare=False)
    element_checks: tuple[Validator, ...] = data(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        set_ = object.__setattr__  # frozen from here on
        if self.filter_ops is _UNSET:
            set_(self, "filter_ops", DEFAULT_FILTER_OPS[self.kind])
        else:
            set_(self, "filter_ops", tuple(self.filter_ops))
        if self.default is _UNSET:
            empty: dict[Shape, Value] = {"one": None, "list": [], "dict": {}}
            set_(self, "default", empty[self.shape])
        _require_declarable(self)
        if self.shape == "one":
            set_(self, "checks", _with_limit(self.kind, self.validators))
            set_(self, "element_checks", ())
        else:
            set_(self, "checks", (*_limits_of_items(self), *self.validators))
            set_(self, "element_checks", _with_limit(self.kind, self.element_validators))
        if self.default not in (None, [], {}):
            try:
                coerce(self, self.default)
            except Invalid as error:
                raise DeclarationError(f"default: {error}") from error

    @property
    def holds_blobs(self) -> bool:
        """Whether its values come by uploads and locations only."""
        return self.kind == "Blob"

    @property
    def is_blob(self) -> bool:
        """Whether it is one blob."""
        return self.holds_blobs and self.shape == "one"

    @property
    def is_folder(self) -> bool:
        """Whether it is blobs by keys."""
        return self.holds_blobs and self.shape == "dict"

    @property
    def max_items(self) -> int:
        """The most items or keys, for a list, a dict or a folder."""
        sizes = [one.size for one in self.checks if isinstance(one, MaxListSize | MaxDictSize)]
        return min(sizes)


def _require_declarable(field: Field) -> None:
    if field.holds_blobs and field.shape == "list":
        raise DeclarationError("shape: lists of blobs cannot be; dicts of them can")
    if field.sortable and (field.shape != "one" or field.holds_blobs):
        raise DeclarationError("sortable: lists, dicts and blobs have no order")
    allowed = DEFAULT_FILTER_OPS[field.kind] + _ALSO.get(field.kind, ())
    for op in field.filter_ops:
        if op not in allowed:
            expected = ", ".join(allowed) or "none"
            raise DeclarationError(
                f"filter_ops: {op!r} is not one for {field.kind} (which can have: {expected})"
            )
    if field.element_validators and (field.shape == "one" or field.holds_blobs):
        raise DeclarationError("element_validators: only lists and dicts of values have elements")
    if field.max_blob_size < 0 or field.max_folder_size < 0:
        raise DeclarationError("max_blob_size, max_folder_size: expected numbers of bytes")
    for validator in field.validators:
        _require_fitting(validator, field.kind, field.shape, "validators")
    for validator in field.element_validators:
        _require_fitting(validator, field.kind, "one", "element_validators")
    if field.sortable and any(
        isinstance(one, MaxStrLen) and one.size > _LONGEST_STRING for one in field.validators
    ):
        raise DeclarationError(
            f"sortable: a string is only if it has at most {_LONGEST_STRING} characters"
        )


def _require_fitting(validator: Validator, kind: Kind, shape: Shape, where: str) -> None:
    if validator.shape != shape or (validator.kinds is not None and kind not in validator.kinds):
        what = kind if shape == "one" else f"{shape} of {kind}"
        raise DeclarationError(f"{where}: {type(validator).__name__} is not for {what}")


def _with_limit(kind: Kind, given: Iterable[Validator]) -> tuple[Validator, ...]:
    """The validators of a value, its limit first."""
    checks = sorted(given, key=lambda one: not isinstance(one, MaxStrLen))
    if kind != "String" or any(isinstance(one, MaxStrLen | AllowedValues) for one in checks):
        return tuple(checks)
    return (MaxStrLen(_LONGEST_STRING), *checks)


def _limits_of_items(field: Field) -> Sequence[Validator]:
    defaults: Sequence[Validator] = (
        (MaxListSize(_MOST_ITEMS),)
        if field.shape == "list"
        else (MaxDictSize(_MOST_ITEMS), MaxDictKeyLen(_LONGEST_KEY), MinDictKeyLen(1))
    )
    given = {type(one) for one in field.validators}
    return [one for one in defaults if type(one) not in given]


# --- Values ---------------------------------------------------------------------------------------


def coerce(field: Field, value: object) -> Value:
    """The value as it is stored, for what a client sent; the field's default for null.

    Raises Invalid for what the field does not take; for null where there is no default and the
    field is not nullable; and for any value of a blob or a folder.
    """
    if value is None:
        if field.default is None and not field.nullable:
            raise Invalid("It cannot be null.")
        return copy.deepcopy(field.default)
    if field.holds_blobs:
        raise Invalid("Its data is uploaded, not set.")
    return settled(field, _COERCE_SHAPE[field.shape](field, value))


def settled(field: Field, coerced: Value) -> Value:
    """What is stored for a list or a dict all of whose elements and keys were coerced.

    Raises Invalid if it does not fulfil the conditions of the whole.
    """
    if isinstance(coerced, list) and any(
        isinstance(one, Unique) and one.convert_to_set for one in field.validators
    ):
        coerced = list(dict.fromkeys(coerced))
    for check in field.checks:
        check.check(coerced)
    return coerced


def coerce_element(field: Field, value: object) -> Scalar:
    """One element of a list or a dict, or the operand of a filter, as it is stored.

    Raises Invalid; null is no element.
    """
    if value is None:
        raise Invalid("It cannot be null.")
    if field.holds_blobs:
        raise Invalid("Its data is uploaded, not set.")
    coerced = _COERCE[field.kind](value)
    for check in field.checks if field.shape == "one" else field.element_checks:
        check.check(coerced)
    return coerced


def coerce_key(field: Field, key: object) -> str:
    """A key of a dict or of a folder. Raises Invalid."""
    if not isinstance(key, str):
        raise Invalid("Keys are strings.")
    _require_storable(key)
    if field.is_folder and len(key.encode()) > _LONGEST_FOLDER_KEY:
        raise Invalid(f"Keys have at most {_LONGEST_FOLDER_KEY} bytes.")
    for check in field.checks:
        if isinstance(check, MaxDictKeyLen | MinDictKeyLen | AllowedDictKeys):
            check.check([key])
    return key


def linked_artifact(link: str) -> str | None:
    """The id of the artifact that the value of a Link names; None for one on the web."""
    local = _LOCAL_LINK.fullmatch(link)
    return local[1] if local else None


def _one(field: Field, value: object) -> Scalar:
    return _COERCE[field.kind](value)


def _list(field: Field, value: object) -> list[Scalar]:
    if not isinstance(value, list):
        raise Invalid("Expected a list.")
    return [coerce_element(field, item) for item in cast(list[object], value)]


def _dict(field: Field, value: object) -> dict[str, Scalar]:
    if not isinstance(value, dict):
        raise Invalid("Expected an object.")
    return {
        coerce_key(field, key): coerce_element(field, item)
        for key, item in cast(dict[object, object], value).items()
    }


_COERCE_SHAPE: Final = {"one": _one, "list": _list, "dict": _dict}


def _string(value: object) -> str:
    if isinstance(value, datetime):
        return _date_time(value)
    if not isinstance(value, str | int | float):
        raise Invalid("Expected a string.")
    try:
        text = str(value)
    except ValueError as error:  # Python refuses to print numbers of more than 4,300 digits
        raise Invalid("The number is too long.") from error
    _require_storable(text)
    return text


def _require_storable(text: str) -> None:
    # PostgreSQL keeps neither: U+0000 is no character of text to it, half of a pair no UTF-8.
    if "\0" in text:
        raise Invalid("U+0000 is not taken.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Invalid("Half of a surrogate pair is not taken.") from error


def _integer(value: object) -> int:
    if not isinstance(value, str | int | float):
        raise Invalid("Expected a whole number.")
    try:
        number = int(value)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{_shortened(value)} is not a whole number.") from error
    if not _SMALLEST_INTEGER <= number <= LARGEST_INTEGER:
        raise Invalid("The number does not fit 64 bits.")
    return number


def _float(value: object) -> float:
    if not isinstance(value, str | int | float):
        raise Invalid("Expected a number.")
    try:
        number = float(value)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{_shortened(value)} is not a number.") from error
    if not math.isfinite(number):  # JSON has no word for it
        raise Invalid(f"{_shortened(value)} is not a finite number.")
    return number


def _boolean(value: object) -> bool:
    # Never an error, as in Glare: what is not true is false.
    return isinstance(value, str | int | float) and _lower(value) in _TRUE


def _lower(value: str | int | float) -> str:
    if isinstance(value, str):
        return value.strip().lower()
    return "1" if value is True or (type(value) is int and value == 1) else ""


def _date_time(value: object) -> str:
    """The time in UTC and whole seconds, for text by ISO 8601; without an offset it is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise Invalid(f"{_shortened(value)} is not a time by ISO 8601.") from error
    if not isinstance(value, datetime):
        raise Invalid("Expected a time by ISO 8601.")
    try:
        utc = value.astimezone(UTC) if value.tzinfo else value
    except OverflowError as error:
        raise Invalid("The time is out of range.") from error
    return f"{utc.replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def _version(value: object) -> str:
    if not isinstance(value, str | int | float):
        raise Invalid("Expected a version.")
    try:
        return semver.coerce(_string(value)).text
    except ValueError as error:
        raise Invalid(str(error)) from error


def _link(value: object) -> str:
    """The link, by its form alone: nothing is fetched, and nothing is looked up."""
    if not isinstance(value, str):
        raise Invalid("Expected a link.")
    if len(value) > _LONGEST_LINK:
        raise Invalid(f"A link has at most {_LONGEST_LINK} characters.")
    _require_storable(value)
    if _LOCAL_LINK.fullmatch(value) or is_web_address(value):
        return value
    raise Invalid(
        f"{_shortened(value)} is neither an address on the web nor /artifacts/<type>/<id>."
    )


def is_web_address(value: str) -> bool:
    """Whether it is the URL of something on the web, by its form."""
    if NOT_IN_URLS.search(value):
        return False
    try:
        parts = urlsplit(value)
        # Whether the port is a number is found out when it is asked for.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _shortened(value: object) -> str:
    # A number may have more digits than Python prints.
    text = repr(value) if isinstance(value, str) else "The value"
    return text if len(text) <= 100 else f"{text[:100]}…"


_COERCE: Final[Mapping[Kind, Any]] = {
    "String": _string,
    "Integer": _integer,
    "Float": _float,
    "Boolean": _boolean,
    "DateTime": _date_time,
    "Version": _version,
    "Link": _link,
}
