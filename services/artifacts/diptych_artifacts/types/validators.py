"""What a field's value must fulfil beyond its kind: conditions as frozen values.

Each has `check`, which raises Invalid with a message for the client, and `schema`, what it adds to
the JSON schema of the field. Values are checked after they were coerced; null never is.

Source: Glare 5.0.1, objects/meta/validators.py, whose names these are.
"""

import importlib
import re
from collections.abc import Collection, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final, Literal, Protocol

# It comes without types.
re2: Final[Any] = importlib.import_module("re2")


Kind = Literal["String", "Integer", "Float", "Boolean", "DateTime", "Version", "Link", "Blob"]
Shape = Literal["one", "list", "dict"]

Schema = dict[str, Any]

UUID_PATTERN: Final = (
    "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
)


class Invalid(ValueError):
    """A value that the field does not take; the message is for the client."""


class DeclarationError(ValueError):
    """A type that cannot be declared so; the message is for the operator."""


class Validator(Protocol):
    """A condition for values of this shape, of these kinds or of any (None)."""

    kinds: ClassVar[Collection[Kind] | None]
    shape: ClassVar[Shape]

    def check(self, value: Any) -> None:
        """Raise Invalid if the value does not fulfil the condition."""
        ...

    def schema(self) -> Schema:
        """Its part of the field's JSON schema."""
        ...


class _OfStrings:
    __slots__ = ()
    kinds: ClassVar[Collection[Kind] | None] = ("String",)
    shape: ClassVar[Shape] = "one"


class _OfNumbers:
    __slots__ = ()
    kinds: ClassVar[Collection[Kind] | None] = ("Integer", "Float")
    shape: ClassVar[Shape] = "one"


class _OfLists:
    __slots__ = ()
    kinds: ClassVar[Collection[Kind] | None] = None
    shape: ClassVar[Shape] = "list"


class _OfDicts:
    __slots__ = ()
    kinds: ClassVar[Collection[Kind] | None] = None
    shape: ClassVar[Shape] = "dict"


@dataclass(frozen=True, slots=True)
class UUID(_OfStrings):
    """A UUID with its hyphens."""

    def check(self, value: str) -> None:
        """Raise Invalid if it is none."""
        if not _UUID.fullmatch(value):
            raise Invalid(f"{value!r} is not a UUID.")

    def schema(self) -> Schema:
        """Its pattern."""
        return {"pattern": UUID_PATTERN}


_UUID: Final = re.compile(UUID_PATTERN.strip("^$"))


@dataclass(frozen=True, slots=True)
class AllowedValues:
    """One of the values."""

    kinds: ClassVar[Collection[Kind] | None] = ("String", "Integer", "Float")
    shape: ClassVar[Shape] = "one"

    values: Sequence[str | int | float]

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values):
            raise DeclarationError("AllowedValues: expected values, each of them once")

    def check(self, value: str | int | float) -> None:
        """Raise Invalid if it is another."""
        if value not in self.values:
            allowed = ", ".join(map(str, self.values))
            raise Invalid(f"{value!r} is not one of: {allowed}.")

    def schema(self) -> Schema:
        """The values."""
        return {"enum": list(self.values)}


@dataclass(frozen=True, slots=True)
class Version:
    """Nothing that coercion did not see to; adds the pattern of versions to the schema."""

    kinds: ClassVar[Collection[Kind] | None] = ("Version",)
    shape: ClassVar[Shape] = "one"

    def check(self, value: str) -> None:
        """Take it."""

    def schema(self) -> Schema:
        """The pattern in the form of Glare, slashes included, which its clients know."""
        return {
            "pattern": r"/^([0-9]+)\.([0-9]+)\.([0-9]+)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
            r"(?:\+[0-9A-Za-z-]+)?$/"
        }


@dataclass(frozen=True, slots=True)
class Regex(_OfStrings):
    """Begins with what the pattern matches, which is in RE2's syntax.

    RE2 takes time that grows with the length of the value only; with `re` a value that a user
    chose could hold a process for years. What it has not, look-around and references to groups, is
    refused.
    """

    pattern: str

    def __post_init__(self) -> None:
        try:
            _compiled(self.pattern)
        except ValueError as error:
            raise DeclarationError(f"Regex: {error}") from error

    def check(self, value: str) -> None:
        """Raise Invalid if the pattern does not match at its beginning."""
        if _compiled(self.pattern).match(value) is None:
            raise Invalid(f"{value!r} does not match {self.pattern}.")

    def schema(self) -> Schema:
        """The pattern."""
        return {"pattern": self.pattern}


_SILENT: Final[Any] = re2.Options()
_SILENT.log_errors = False


@cache
def _compiled(pattern: str) -> Any:
    """The pattern, compiled; ValueError for one that is none."""
    try:
        return re2.compile(pattern, _SILENT)
    except re2.error as error:
        raise ValueError(f"{pattern!r} cannot be used: {_words(error)}") from error


def _words(error: Exception) -> str:
    reason = error.args[0]
    return reason.decode() if isinstance(reason, bytes) else str(reason)


@dataclass(frozen=True, slots=True)
class MaxStrLen(_OfStrings):
    """At most so many characters."""

    size: int

    def check(self, value: str) -> None:
        """Raise Invalid if it has more."""
        if len(value) > self.size:
            raise Invalid(f"At most {self.size} characters are taken; there are {len(value)}.")

    def schema(self) -> Schema:
        """The number."""
        return {"maxLength": self.size}


@dataclass(frozen=True, slots=True)
class MinStrLen(_OfStrings):
    """At least so many characters."""

    size: int

    def check(self, value: str) -> None:
        """Raise Invalid if it has fewer."""
        if len(value) < self.size:
            raise Invalid(f"At least {self.size} characters are needed; there are {len(value)}.")

    def schema(self) -> Schema:
        """The number."""
        return {"minLength": self.size}


@dataclass(frozen=True, slots=True)
class ForbiddenChars(_OfStrings):
    """None of the characters."""

    characters: Sequence[str]

    def __post_init__(self) -> None:
        if not self.characters or any(len(one) != 1 for one in self.characters):
            raise DeclarationError("ForbiddenChars: expected characters")

    def check(self, value: str) -> None:
        """Raise Invalid if one of them is in it."""
        for character in self.characters:
            if character in value:
                raise Invalid(f"{value!r} has the character {character!r}, which is not taken.")

    def schema(self) -> Schema:
        """A pattern of all other characters."""
        return {"pattern": f"^[^{''.join(map(_in_brackets, self.characters))}]+$"}


def _in_brackets(character: str) -> str:
    return f"\\{character}" if character in r"\]^-" else character


def _require_at_most(size: int, value: Sized) -> None:
    if len(value) > size:
        raise Invalid(f"At most {size} items are taken; there are {len(value)}.")


def _require_at_least(size: int, value: Sized) -> None:
    if len(value) < size:
        raise Invalid(f"At least {size} items are needed; there are {len(value)}.")


@dataclass(frozen=True, slots=True)
class MaxListSize(_OfLists):
    """At most so many items."""

    size: int

    def check(self, value: Sized) -> None:
        """Raise Invalid if there are more."""
        _require_at_most(self.size, value)

    def schema(self) -> Schema:
        """The number."""
        return {"maxItems": self.size}


@dataclass(frozen=True, slots=True)
class MinListSize(_OfLists):
    """At least so many items."""

    size: int

    def check(self, value: Sized) -> None:
        """Raise Invalid if there are fewer."""
        _require_at_least(self.size, value)

    def schema(self) -> Schema:
        """The number."""
        return {"minItems": self.size}


@dataclass(frozen=True, slots=True)
class MaxDictSize(_OfDicts):
    """At most so many keys."""

    size: int

    def check(self, value: Sized) -> None:
        """Raise Invalid if there are more."""
        _require_at_most(self.size, value)

    def schema(self) -> Schema:
        """The number."""
        return {"maxProperties": self.size}


@dataclass(frozen=True, slots=True)
class MinDictSize(_OfDicts):
    """At least so many keys."""

    size: int

    def check(self, value: Sized) -> None:
        """Raise Invalid if there are fewer."""
        _require_at_least(self.size, value)

    def schema(self) -> Schema:
        """The number."""
        return {"minProperties": self.size}


@dataclass(frozen=True, slots=True)
class MaxNumberSize(_OfNumbers):
    """At most this number."""

    size: int | float

    def check(self, value: int | float) -> None:
        """Raise Invalid if it is larger."""
        if value > self.size:
            raise Invalid(f"{value} is above {self.size}.")

    def schema(self) -> Schema:
        """The number."""
        return {"maximum": self.size}


@dataclass(frozen=True, slots=True)
class MinNumberSize(_OfNumbers):
    """At least this number."""

    size: int | float

    def check(self, value: int | float) -> None:
        """Raise Invalid if it is smaller."""
        if value < self.size:
            raise Invalid(f"{value} is below {self.size}.")

    def schema(self) -> Schema:
        """The number."""
        return {"minimum": self.size}


@dataclass(frozen=True, slots=True)
class Unique(_OfLists):
    """No item twice. With `convert_to_set` coercion has dropped what came again."""

    convert_to_set: bool = False

    def check(self, value: Sequence[object]) -> None:
        """Raise Invalid if an item is there twice."""
        if len(set(value)) != len(value):
            raise Invalid("An item is there more than once.")

    def schema(self) -> Schema:
        """That it is so."""
        return {"uniqueItems": True}


@dataclass(frozen=True, slots=True)
class AllowedDictKeys(_OfDicts):
    """No other keys than these."""

    keys: Sequence[str]

    def __post_init__(self) -> None:
        if not self.keys:
            raise DeclarationError("AllowedDictKeys: expected keys")

    def check(self, value: Collection[str]) -> None:
        """Raise Invalid if there is another."""
        for key in value:
            if key not in self.keys:
                raise Invalid(f"The key {key!r} is not one of: {', '.join(self.keys)}.")

    def schema(self) -> Schema:
        """The keys, of which the field's schema makes properties."""
        return {"properties": {key: {} for key in self.keys}}


@dataclass(frozen=True, slots=True)
class RequiredDictKeys(_OfDicts):
    """All of these keys."""

    keys: Sequence[str]

    def __post_init__(self) -> None:
        if not self.keys or len(set(self.keys)) != len(self.keys):
            raise DeclarationError("RequiredDictKeys: expected keys, each of them once")

    def check(self, value: Mapping[str, object]) -> None:
        """Raise Invalid if one is missing."""
        for key in self.keys:
            if key not in value:
                raise Invalid(f"The key {key!r} is missing.")

    def schema(self) -> Schema:
        """The keys."""
        return {"required": list(self.keys)}


@dataclass(frozen=True, slots=True)
class MaxDictKeyLen(_OfDicts):
    """Keys of at most so many characters."""

    size: int

    def check(self, value: Collection[str]) -> None:
        """Raise Invalid if one has more."""
        for key in value:
            if len(key) > self.size:
                raise Invalid(f"Keys have at most {self.size} characters; one has {len(key)}.")

    def schema(self) -> Schema:
        """Nothing: draft 4 has no word for it."""
        return {}


@dataclass(frozen=True, slots=True)
class MinDictKeyLen(_OfDicts):
    """Keys of at least so many characters."""

    size: int

    def check(self, value: Collection[str]) -> None:
        """Raise Invalid if one has fewer."""
        for key in value:
            if len(key) < self.size:
                raise Invalid(f"Keys have at least {self.size} characters; one has {len(key)}.")

    def schema(self) -> Schema:
        """Nothing: draft 4 has no word for it."""
        return {}
