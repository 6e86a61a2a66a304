"""The types of artifacts that a deployment has, wherever they are declared."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final

from diptych_artifacts.types import files
from diptych_artifacts.types.all import ALL
from diptych_artifacts.types.artifact_type import ALL_NAME, ArtifactType
from diptych_artifacts.types.fields import DeclarationError
from diptych_artifacts.types.heat_environments import HEAT_ENVIRONMENTS
from diptych_artifacts.types.heat_templates import HEAT_TEMPLATES
from diptych_artifacts.types.images import IMAGES
from diptych_artifacts.types.murano_packages import MURANO_PACKAGES
from diptych_artifacts.types.secrets import SECRETS
from diptych_artifacts.types.tosca_templates import TOSCA_TEMPLATES

__all__ = [
    "BUILT_IN",
    "ENTRY_POINTS",
    "ArtifactType",
    "DeclarationError",
    "Types",
    "load",
]

BUILT_IN: Final[Mapping[str, ArtifactType]] = {
    one.name: one
    for one in (
        HEAT_TEMPLATES,
        HEAT_ENVIRONMENTS,
        MURANO_PACKAGES,
        TOSCA_TEMPLATES,
        IMAGES,
        SECRETS,
    )
}

# Where installed packages name their types.
ENTRY_POINTS: Final = "diptych.artifact_types"


class Types(Mapping[str, ArtifactType]):
    """The enabled types in the order in which they were enabled, and `all` as the last."""

    all: Final = ALL

    def __init__(self, enabled: Sequence[ArtifactType]) -> None:
        self._types = {one.name: one for one in (*enabled, ALL)}

    def __getitem__(self, name: str) -> ArtifactType:
        """The type of this name. Raises KeyError if it is unknown or not enabled."""
        return self._types[name]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._types)

    def __len__(self) -> int:
        """How many there are, `all` counted."""
        return len(self._types)


@dataclass(frozen=True, slots=True)
class _Declaration:
    """A type that could be enabled: where it is declared, for operators, and how to get at it."""

    name: str
    where: str
    load: Callable[[], ArtifactType]


def load(
    enabled: Sequence[str],
    *,
    modules: Sequence[str] = (),
    directory: Path | None = None,
) -> Types:
    """The types that are enabled, of those built in and of those that operators declare.

    Operators declare types by entry points of installed packages, in modules, and in files of the
    directory. All modules are imported and all files read, but of the installed packages those
    only whose type is enabled. Raises DeclarationError, whose message is for the operator: for
    what cannot be imported or read, for types that cannot be, that are declared twice, and that
    are enabled and nowhere declared.
    """
    declarations = [
        *_built_in(),
        *_installed(),
        *(one for module in modules for one in _in_module(module)),
        *([] if directory is None else _in_directory(directory)),
    ]
    types: list[ArtifactType] = []
    for name in dict.fromkeys(enabled):
        if name == ALL_NAME:
            continue
        found = [one for one in declarations if one.name == name]
        if not found:
            known = ", ".join(sorted({one.name for one in declarations}))
            raise DeclarationError(
                f"enabled_artifact_types: there is no type {name!r} (there are: {known})"
            )
        if len(found) > 1:
            # Glare would take the first without a word.
            places = " and ".join(one.where for one in found)
            raise DeclarationError(f"The type {name} is declared more than once: {places}")
        types.append(found[0].load())
    return Types(types)


def _built_in() -> list[_Declaration]:
    return [
        _Declaration(name, "a type that is built in", lambda one=one: one)
        for name, one in BUILT_IN.items()
    ]


def _installed() -> list[_Declaration]:
    return [
        _Declaration(point.name, f"the entry point {point.value}", lambda point=point: _at(point))
        for point in entry_points(group=ENTRY_POINTS)
    ]


def _at(point: EntryPoint) -> ArtifactType:
    where = f"The entry point {point.name} = {point.value} of {ENTRY_POINTS}"
    try:
        found = point.load()
    except Exception as error:  # the code of others: whatever it raises is for its operator
        raise DeclarationError(f"{where} cannot be loaded: {error}") from error
    if not isinstance(found, ArtifactType):
        raise DeclarationError(f"{where} is no ArtifactType")
    if found.name != point.name:
        raise DeclarationError(f"{where} is a type with another name, {found.name}")
    return found


def _in_module(name: str) -> list[_Declaration]:
    where = f"custom_artifact_types_modules: {name}"
    try:
        module = importlib.import_module(name)
    except Exception as error:  # the code of others: whatever it raises is for its operator
        raise DeclarationError(f"{where} cannot be imported: {error}") from error
    found = {
        # What it imports from here is not its own.
        one.name: _Declaration(one.name, where, lambda one=one: one)
        for one in vars(module).values()
        if isinstance(one, ArtifactType) and one is not BUILT_IN.get(one.name, ALL)
    }
    if not found:
        raise DeclarationError(f"{where} has no ArtifactType among its values")
    return list(found.values())


def _in_directory(directory: Path) -> list[_Declaration]:
    return [
        _Declaration(one.name, str(file), lambda one=one: one)
        for file, one in files.read_all(directory)
    ]
