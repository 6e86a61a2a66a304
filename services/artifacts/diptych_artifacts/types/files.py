"""Types that operators declare in files: TOML or JSON, one type in each.

The format is told in docs/operators/artifact-types.md. Everything that is wrong with a file is said
with the file and the place in it.
"""

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
)

from diptych_artifacts.settings import LARGEST_INTEGER
from diptych_artifacts.types import fields, validators
from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import DeclarationError, FilterOp
from diptych_artifacts.types.unpacking import Unpack
from diptych_artifacts.types.validators import Kind, Shape, Validator

_SUFFIXES: Final = (".json", ".toml")

_STRICT: Final = ConfigDict(extra="forbid", strict=True, frozen=True)

_Size = Annotated[int, Field(ge=0, le=LARGEST_INTEGER)]
_Scalar = str | int | float | bool


def _as_tuple(ops: Sequence[FilterOp]) -> Sequence[FilterOp]:
    return tuple(ops)


class _ValidatorsDocument(BaseModel):
    """What each validator is given; of those that are not there the default means nothing."""

    model_config = _STRICT

    UUID: Literal[True] = True
    AllowedValues: list[str | int | float] = []
    Regex: str = ""
    MaxStrLen: _Size = 0
    MinStrLen: _Size = 0
    ForbiddenChars: list[str] = []
    MaxNumberSize: int | float = 0
    MinNumberSize: int | float = 0
    MaxListSize: _Size = 0
    MinListSize: _Size = 0
    Unique: Literal[True, "convert_to_set"] = True
    MaxDictSize: _Size = 0
    MinDictSize: _Size = 0
    AllowedDictKeys: list[str] = []
    RequiredDictKeys: list[str] = []
    MaxDictKeyLen: _Size = 0
    MinDictKeyLen: _Size = 0


class _FieldDocument(BaseModel):
    model_config = _STRICT

    kind: Kind
    shape: Shape = "one"
    mutable: bool = False
    required_on_activate: bool = True
    system: bool = False
    nullable: bool = True
    default: _Scalar | list[_Scalar] | dict[str, _Scalar] | None = None
    sortable: bool = False
    filter_ops: Annotated[list[FilterOp], AfterValidator(_as_tuple)] = []
    description: str = ""
    metadata: dict[str, JsonValue] | None = None
    validators: _ValidatorsDocument = _ValidatorsDocument()
    element_validators: _ValidatorsDocument = _ValidatorsDocument()
    max_blob_size: _Size = fields.DEFAULT_MAX_BLOB_SIZE
    max_folder_size: _Size = fields.DEFAULT_MAX_FOLDER_SIZE


class _UnpackDocument(BaseModel):
    model_config = _STRICT

    into: str
    max_ratio: Annotated[int, Field(ge=1)] = 100


class _TypeDocument(BaseModel):
    model_config = _STRICT

    name: str
    display_name: Annotated[str, Field(min_length=1, max_length=255)]
    version: str = "1.0"
    encrypted: bool = False
    fields: dict[str, _FieldDocument]
    unpack: dict[str, _UnpackDocument] = {}


_MAKE: Final[Mapping[str, Callable[[Any], Validator]]] = {
    "UUID": lambda _: validators.UUID(),
    "AllowedValues": validators.AllowedValues,
    "Regex": validators.Regex,
    "MaxStrLen": validators.MaxStrLen,
    "MinStrLen": validators.MinStrLen,
    "ForbiddenChars": validators.ForbiddenChars,
    "MaxNumberSize": validators.MaxNumberSize,
    "MinNumberSize": validators.MinNumberSize,
    "MaxListSize": validators.MaxListSize,
    "MinListSize": validators.MinListSize,
    "Unique": lambda how: validators.Unique(convert_to_set=how == "convert_to_set"),
    "MaxDictSize": validators.MaxDictSize,
    "MinDictSize": validators.MinDictSize,
    "AllowedDictKeys": validators.AllowedDictKeys,
    "RequiredDictKeys": validators.RequiredDictKeys,
    "MaxDictKeyLen": validators.MaxDictKeyLen,
    "MinDictKeyLen": validators.MinDictKeyLen,
}


def read_all(directory: Path) -> list[tuple[Path, ArtifactType]]:
    """The types that the directory's *.toml and *.json declare, by file, in the files' order.

    Raises DeclarationError, also where there is no such directory.
    """
    try:
        found = sorted(one for one in directory.iterdir() if one.suffix in _SUFFIXES)
    except OSError as error:
        raise DeclarationError(f"artifact_types_directory: {directory}: {error}") from error
    return [(file, read(file)) for file in found]


def read(file: Path) -> ArtifactType:
    """The type that the file declares. Raises DeclarationError, which names the file."""
    try:
        return _declared(_document(file))
    except DeclarationError as error:
        raise DeclarationError(f"{file}: {error}") from error


def _document(file: Path) -> object:
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".toml":
            return tomllib.loads(text)
        return cast(object, json.loads(text, object_pairs_hook=_each_once))
    # A text that is nested without end is no document either.
    except (OSError, ValueError, RecursionError) as error:
        raise DeclarationError(f"cannot be read: {error}") from error


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there more than once in one object")
    return found


def _declared(document: object) -> ArtifactType:
    try:
        told = _TypeDocument.model_validate(document)
    except ValidationError as error:
        raise _refusal(error) from error
    declared: dict[str, fields.Field] = {}
    for name, one in told.fields.items():
        try:
            declared[name] = _field(one)
        except DeclarationError as error:
            raise DeclarationError(f"fields.{name}: {error}") from error
    return ArtifactType(
        told.name,
        told.display_name,
        declared,
        version=told.version,
        encrypted=told.encrypted,
        unpack={name: Unpack(**one.model_dump()) for name, one in told.unpack.items()},
    )


def _field(told: _FieldDocument) -> fields.Field:
    # What is not said is left out: the defaults depend on the kind and the shape.
    arguments = {name: getattr(told, name) for name in told.model_fields_set}
    for name in ("validators", "element_validators"):
        arguments[name] = _validators(getattr(told, name), name)
    return fields.Field(**arguments)


def _validators(told: _ValidatorsDocument, where: str) -> list[Validator]:
    try:
        return [
            make(getattr(told, name))
            for name, make in _MAKE.items()
            if name in told.model_fields_set
        ]
    except DeclarationError as error:
        raise DeclarationError(f"{where}.{error}") from error


def _refusal(error: ValidationError) -> DeclarationError:
    return DeclarationError(
        "; ".join(
            ": ".join([".".join(map(str, one["loc"])) or "the whole", one["msg"]])
            for one in error.errors(include_url=False, include_input=False)
        )
    )
