"""A type of artifacts as a value."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from diptych_artifacts.types.base import FIELDS
from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.hooks import NO_HOOKS, Hooks
from diptych_artifacts.types.unpacking import Unpack
from diptych_artifacts.types.validators import DeclarationError

ALL_NAME: Final = "all"

# A segment of URLs, and a part of the names of quotas, which have 255 characters.
_TYPE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
# A segment of URLs and a parameter of lists, where a dot parts a field from its key.
_FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,254}")
_OF_LISTS: Final = frozenset({"limit", "marker", "sort", "tags-any", "type_name"})


def _nothing(_: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


def _nothing_in(one: Field) -> Any:
    if one.holds_blobs:
        return {} if one.is_folder else None
    return one.default


@dataclass(frozen=True, slots=True)
class ArtifactType:
    """A type: declared with the fields of its own, it has those of every artifact before them.

    `extras` gets the document of an artifact and returns keys to add to it, there and in lists of
    `all`; clients that look each key up in the schema stumble over them. Blobs of an `encrypted`
    type are encrypted in their store. `unpack` says by the names of blobs which of them are
    archives to unpack. `blank` is what each field has where an artifact has nothing in it; those in
    `copied` are lists and dicts, which every artifact needs as its own. Raises DeclarationError,
    whose message names the field.
    """

    name: str
    display_name: str
    fields: Mapping[str, Field]
    version: str = "1.0"
    hooks: Hooks = NO_HOOKS
    extras: Callable[[Mapping[str, Any]], Mapping[str, Any]] = _nothing
    encrypted: bool = False
    unpack: Mapping[str, Unpack] = field(default_factory=dict[str, Unpack])
    blank: Mapping[str, Any] = field(init=False, repr=False, compare=False)
    copied: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _TYPE_NAME.fullmatch(self.name):
            raise DeclarationError(
                f"name: {self.name!r} is not up to 200 letters, digits, dots, hyphens, underscores"
            )
        for name, own in self.fields.items():
            try:
                self._require_declarable(name, own)
            except DeclarationError as error:
                raise DeclarationError(f"fields.{name}: {error}") from error
        if self.encrypted and self.unpack:
            # An archive is kept in a file while it is unpacked, as it came.
            raise DeclarationError("unpack: blobs of an encrypted type are not unpacked")
        for name, action in self.unpack.items():
            if name not in self.fields or not self.fields[name].is_blob:
                raise DeclarationError(f"unpack.{name}: the type has no such blob")
            if action.into not in self.fields or not self.fields[action.into].is_folder:
                raise DeclarationError(f"unpack.{name}.into: there is no folder {action.into!r}")
            if self.fields[name].mutable and not self.fields[action.into].mutable:
                raise DeclarationError(
                    f"unpack.{name}.into: {action.into!r} must be mutable, for {name!r} is"
                )
        object.__setattr__(self, "fields", MappingProxyType({**FIELDS, **self.fields}))
        blank = {name: _nothing_in(one) for name, one in self.fields.items()}
        object.__setattr__(self, "blank", MappingProxyType(blank))
        copied = tuple(name for name, value in blank.items() if isinstance(value, list | dict))
        object.__setattr__(self, "copied", copied)

    def _require_declarable(self, name: str, own: Field) -> None:
        if not _FIELD_NAME.fullmatch(name):
            raise DeclarationError("a name is up to 255 letters, digits, hyphens and underscores")
        if name in FIELDS:
            raise DeclarationError("every artifact has it; it cannot be declared anew")
        if name in _OF_LISTS and self.name != ALL_NAME:
            raise DeclarationError("the name means something else in lists")
        if own.kind == "Version" and (own.sortable or not {"eq", "neq", "in"} >= {*own.filter_ops}):
            raise DeclarationError(
                "a Version beside the artifact's own has no order: sortable must be false, and"
                " filter_ops of eq, neq and in"
            )

    @property
    def required_at_creation(self) -> tuple[str, ...]:
        """The names of fields without which no artifact of the type can be created."""
        return tuple(
            name
            for name, one in self.fields.items()
            if not (one.nullable or one.system or one.holds_blobs) and one.default is None
        )
