"""The stores of a service, read from raw INI sections under Glance's names.

`enabled_backends` in DEFAULT lists several stores, each with a section of its own name over what
`[backend_defaults]` says; without it there is one store, configured in `[glance_store]`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from diptych_store.options.common import CommonOptions, DriverOptions
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.options.http import HttpOptions
from diptych_store.options.memory import MemoryOptions
from diptych_store.options.rbd import RbdOptions
from diptych_store.options.s3 import S3Options
from diptych_store.options.swift import SwiftOptions

DEFAULT = "DEFAULT"
GLANCE_STORE = "glance_store"
BACKEND_DEFAULTS = "backend_defaults"
RESERVED_PREFIX = "os_glance_"

ReasonUnused = Literal["not needed", "no such driver here", "reserved store"]

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Problem:
    """One value that cannot be used, and what was expected; never the value itself."""

    section: str
    option: str
    expected: str

    def __str__(self) -> str:
        return f"[{self.section}] {self.option}: expected {self.expected}"


class StoreSettingsError(ValueError):
    """The stores cannot be configured so; lists every problem at once."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class UnusedOption:
    """An option that has no effect; `reason` is None where nobody knows the option at all."""

    section: str
    option: str
    reason: ReasonUnused | None


# By the type that `enabled_backends` and `stores` name.
DRIVERS: dict[str, type[DriverOptions]] = {
    "file": FilesystemOptions,
    "http": HttpOptions,
    "memory": MemoryOptions,
    "rbd": RbdOptions,
    "s3": S3Options,
    "swift": SwiftOptions,
}
# Glance's other names for the same drivers, in the list of the single-store form.
_ALIASES = {"filesystem": "file", "https": "http", "swift+https": "swift", "swift+http": "swift"}

# What a Glance file may hold and nobody here asks for.
_NOT_NEEDED = {"filesystem_store_threadpool_threshold", "filesystem_store_metadata_file"}
_OTHER_DRIVERS = ("cinder_", "vmware_")


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """One store: its name, what a client may be told of it, and the options of its driver."""

    name: str
    type: str
    options: DriverOptions
    description: str = ""
    weight: int = 0
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class StoresConfig:
    """All stores of a service.

    `is_multiple` is False in Glance's single-store form, where `/v2/info/stores` does not exist
    and the one store has the name of its type. `unused` are options that have no effect.
    """

    stores: tuple[StoreConfig, ...]
    default: str
    is_multiple: bool = True
    unused: tuple[UnusedOption, ...] = ()

    @property
    def unknown(self) -> tuple[UnusedOption, ...]:
        """The options that nobody knows: most likely misspelt."""
        return tuple(option for option in self.unused if option.reason is None)

    @classmethod
    def from_sections(cls, sections: Mapping[str, Mapping[str, str]]) -> "StoresConfig":
        """Read the raw options by section; raises StoreSettingsError."""
        reader = _Reader(sections)
        is_multiple = bool(reader.value(DEFAULT, "enabled_backends"))
        config = reader.several() if is_multiple else reader.single()
        if reader.problems:
            raise StoreSettingsError(tuple(reader.problems))
        return config


@dataclass(slots=True)
class _Reader:
    sections: Mapping[str, Mapping[str, str]]
    problems: list[Problem] = field(default_factory=list[Problem])

    def value(self, section: str, option: str) -> str:
        return self.sections.get(section, {}).get(option, "").strip()

    def refuse(self, section: str, option: str, expected: str) -> None:
        self.problems.append(Problem(section, option, expected))

    def several(self) -> StoresConfig:
        stores: list[StoreConfig] = []
        names: set[str] = set()
        for item in _items(self.value(DEFAULT, "enabled_backends")):
            name, _, kind = (part.strip() for part in item.partition(":"))
            if not name or name in names:
                self.refuse(DEFAULT, "enabled_backends", f"a different name for each, not {item!r}")
            elif name.startswith(RESERVED_PREFIX):
                self.refuse(
                    DEFAULT, "enabled_backends", f"no name with the prefix {RESERVED_PREFIX}"
                )
            elif name in (DEFAULT, GLANCE_STORE, BACKEND_DEFAULTS):
                self.refuse(DEFAULT, "enabled_backends", f"a store cannot have the name {name}")
            elif kind not in DRIVERS:
                self.refuse(DEFAULT, "enabled_backends", f"{item!r}: {_expected_type()}")
            else:
                names.add(name)
                options = {
                    **self.sections.get(BACKEND_DEFAULTS, {}),
                    **self.sections.get(name, {}),
                }
                stores += self.store(name, kind, section=name, options=options)
        default = self.value(GLANCE_STORE, "default_backend")
        if default not in names:
            self.refuse(
                GLANCE_STORE, "default_backend", f"one of {', '.join(sorted(names)) or 'no stores'}"
            )
        self.check_directories(stores)
        return self.config(stores, default=default, is_multiple=True)

    def single(self) -> StoresConfig:
        kind = self.value(GLANCE_STORE, "default_store") or "file"
        kinds = _items(self.value(GLANCE_STORE, "stores")) or [kind]
        kind = _ALIASES.get(kind, kind)
        if kind not in DRIVERS:
            self.refuse(GLANCE_STORE, "default_store", _expected_type())
            return self.config([], default=kind, is_multiple=False)
        if kind not in {_ALIASES.get(one, one) for one in kinds}:
            self.refuse(GLANCE_STORE, "default_store", "one of `stores`")
        options = self.sections.get(GLANCE_STORE, {})
        stores = self.store(kind, kind, section=GLANCE_STORE, options=options)
        return self.config(stores, default=kind, is_multiple=False)

    def store(
        self, name: str, kind: str, *, section: str, options: Mapping[str, str]
    ) -> list[StoreConfig]:
        """The store, or none of it with the problems noted."""
        if options.get("filesystem_store_datadirs", "").strip():
            self.refuse(section, "filesystem_store_datadirs", "one store for each directory")
        common = self.model(CommonOptions, section=section, options=options)
        driver = self.model(DRIVERS[kind], section=section, options=options)
        if common is None or driver is None:
            return []
        return [
            StoreConfig(
                name=name,
                type=kind,
                options=driver,
                description=common.store_description,
                weight=common.weight,
                read_only=common.read_only,
            )
        ]

    def model(self, model: type[M], *, section: str, options: Mapping[str, str]) -> M | None:
        given = {option: value.strip() for option, value in options.items() if value.strip()}
        try:
            return model.model_validate(given)
        except ValidationError as error:
            for detail in error.errors(include_input=False):
                self.refuse(section, str(detail["loc"][0]), detail["msg"])
            return None

    def check_directories(self, stores: list[StoreConfig]) -> None:
        """Two stores in one directory would take each other's objects for their own."""
        seen: dict[str, str] = {}
        for store in stores:
            if isinstance(store.options, FilesystemOptions):
                directory = os.path.realpath(store.options.filesystem_store_datadir)
                other = seen.setdefault(directory, store.name)
                if other != store.name:
                    self.refuse(
                        store.name,
                        "filesystem_store_datadir",
                        f"another directory than that of store {other}",
                    )

    def config(self, stores: list[StoreConfig], *, default: str, is_multiple: bool) -> StoresConfig:
        used: dict[str, set[str]] = {}
        if is_multiple:
            used[GLANCE_STORE] = {"default_backend"}
            used[BACKEND_DEFAULTS] = set()
        for store in stores:
            known = {*CommonOptions.model_fields, *type(store.options).model_fields}
            if is_multiple:
                used[store.name] = known
                used[BACKEND_DEFAULTS] |= known
            else:
                used[GLANCE_STORE] = known | {"stores", "default_store"}
        unused = [
            UnusedOption(section, option, _reason(section, option))
            for section in sorted({*used, *_reserved(self.sections)})
            for option in self.sections.get(section, {})
            if option not in used.get(section, set())
        ]
        return StoresConfig(
            stores=tuple(stores),
            default=default,
            is_multiple=is_multiple,
            unused=tuple(unused),
        )


def store_sections(sections: Mapping[str, Mapping[str, str]]) -> set[str]:
    """The sections that are about stores alone, whether there are such or not.

    Those of the stores that Glance keeps to itself are among them.
    """
    backends = _items(sections.get(DEFAULT, {}).get("enabled_backends", ""))
    names = {item.partition(":")[0].strip() for item in backends}
    return {GLANCE_STORE, BACKEND_DEFAULTS, *_reserved(sections)} | names - {""}


def _reserved(sections: Mapping[str, Mapping[str, str]]) -> set[str]:
    return {name for name in sections if name.startswith(RESERVED_PREFIX)}


def _reason(section: str, option: str) -> ReasonUnused | None:
    if section.startswith(RESERVED_PREFIX):
        return "reserved store"
    if option in _NOT_NEEDED:
        return "not needed"
    if option.startswith(_OTHER_DRIVERS):
        return "no such driver here"
    known = {name for model in (CommonOptions, *DRIVERS.values()) for name in model.model_fields}
    # Right elsewhere: an option of the single-store form beside `enabled_backends`, or the reverse.
    elsewhere = known | {"stores", "default_store", "default_backend"}
    return "not needed" if option in elsewhere else None


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _expected_type() -> str:
    return f"a store is of type {' or '.join(sorted(DRIVERS))}"
