"""The stores of a service, read from raw INI sections under Glance's names.

`enabled_backends` in DEFAULT lists several stores, each with a section of its own name over what
`[backend_defaults]` says; without it there is one store, configured in `[glance_store]`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

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


def _octal(value: object) -> object:
    return int(value, 8) if isinstance(value, str) else value


class CommonSettings(BaseModel):
    """What every store has, whatever its driver."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    store_description: str = Field(default="", description="Shown to the users of /v2/info/stores.")
    weight: int = Field(
        default=0, description="Where several stores have the data: the highest is read."
    )
    read_only: bool = Field(default=False, description="Refuse to write and to delete.")


class FilesystemSettings(BaseModel):
    """A directory of this host, or one that all hosts mount."""

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    filesystem_store_datadir: Annotated[str, Field(pattern=r"^/[^\r\n]*$")] = Field(
        default="/var/lib/glance/images",
        description="The directory, an absolute path. Each store needs one of its own.",
    )
    filesystem_store_file_perm: Annotated[int, BeforeValidator(_octal), Field(le=0o777)] = Field(
        default=0,
        description="Octal permissions of a new object's file, e.g. 640; 0 or less: by the umask.",
    )
    filesystem_store_chunk_size: Annotated[int, Field(ge=4096, le=64 * 1024 * 1024)] = Field(
        default=1024 * 1024, description="Bytes that are read at a time."
    )
    filesystem_thin_provisioning: bool = Field(
        default=False, description="Leave holes for runs of zeros of 64 KiB."
    )
    filesystem_store_timeout: Annotated[float, Field(ge=0)] = Field(
        default=0,
        description="Seconds after which a call into the file system is given up (fsync of a whole "
        "object included); 0: never. Set it for network mounts.",
    )
    filesystem_store_thread_pool_size: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10, description="Calls into the file system at a time, in each process."
    )


class MemorySettings(BaseModel):
    """Nothing to set."""

    model_config = ConfigDict(extra="ignore", frozen=True)


DriverSettings = FilesystemSettings | MemorySettings

# By the type that `enabled_backends` and `stores` name.
DRIVERS: dict[str, type[DriverSettings]] = {"file": FilesystemSettings, "memory": MemorySettings}

# What a Glance file may hold and nobody here asks for.
_NOT_NEEDED = {"filesystem_store_threadpool_threshold", "filesystem_store_metadata_file"}
_OTHER_DRIVERS = ("cinder_", "http_", "https_", "rados_", "rbd_", "s3_", "swift_", "vmware_")


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """One store: its name, what a client may be told of it, and the settings of its driver."""

    name: str
    type: str
    settings: DriverSettings
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
        if kind == "filesystem":  # Glance's other name for the same driver
            kind = "file"
        if kind not in DRIVERS:
            self.refuse(GLANCE_STORE, "default_store", _expected_type())
            return self.config([], default=kind, is_multiple=False)
        if kind not in kinds and not (kind == "file" and "filesystem" in kinds):
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
        common = self.model(CommonSettings, section=section, options=options)
        settings = self.model(DRIVERS[kind], section=section, options=options)
        if common is None or settings is None:
            return []
        return [
            StoreConfig(
                name=name,
                type=kind,
                settings=settings,
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
            if isinstance(store.settings, FilesystemSettings):
                directory = os.path.realpath(store.settings.filesystem_store_datadir)
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
            known = {*CommonSettings.model_fields, *type(store.settings).model_fields}
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
    known = {name for model in (CommonSettings, *DRIVERS.values()) for name in model.model_fields}
    # Right elsewhere: an option of the single-store form beside `enabled_backends`, or the reverse.
    elsewhere = known | {"stores", "default_store", "default_backend"}
    return "not needed" if option in elsewhere else None


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _expected_type() -> str:
    return f"a store is of type {' or '.join(sorted(DRIVERS))}"
