"""The stores of a service, read from raw INI sections under Glance's names.

`enabled_backends` in DEFAULT lists several stores, each with a section of its own name over what
`[backend_defaults]` says; without it the stores are those of `[glance_store]`, one of each type.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar, get_args

from pydantic import BaseModel, SecretStr, ValidationError

from diptych_store.options.common import CommonOptions, DriverOptions
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.options.http import HttpOptions
from diptych_store.options.memory import MemoryOptions
from diptych_store.options.rbd import RbdOptions
from diptych_store.options.s3 import S3Options
from diptych_store.options.swift import SwiftOptions

DEFAULT: Final = "DEFAULT"
GLANCE_STORE: Final = "glance_store"
BACKEND_DEFAULTS: Final = "backend_defaults"
RESERVED_PREFIX: Final = "os_glance_"
STAGING: Final = "os_glance_staging_store"
TASKS: Final = "os_glance_tasks_store"
NODE_STAGING_URI: Final = "node_staging_uri"

# Options that may be given several times and of which every value counts. The reader of the files
# hands the values over as the lines of one text.
REPEATED: Final = frozenset({"filesystem_store_datadirs"})

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
    reason: str | None


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_is_secret, get_args(annotation)))


# By the type that `enabled_backends` and `stores` name.
DRIVERS: Final[Mapping[str, type[DriverOptions]]] = {
    "file": FilesystemOptions,
    "http": HttpOptions,
    "memory": MemoryOptions,
    "rbd": RbdOptions,
    "s3": S3Options,
    "swift": SwiftOptions,
}
# Options that hold a secret, of whatever type of store: never to be shown.
SECRETS: Final = frozenset(
    name
    for model in DRIVERS.values()
    for name, field in model.model_fields.items()
    if _is_secret(field.annotation)
)
# `default_store` names a scheme of locations, not a type.
_SCHEMES: Final = {
    "filesystem": "file",
    "https": "http",
    "swift+http": "swift",
    "swift+https": "swift",
    "swift+config": "swift",
    "s3+http": "s3",
    "s3+https": "s3",
    "vsphere": "vmware",
}
# Glance's own types that are not here, and how their options begin.
_ELSEWHERE: Final = {"cinder": "cinder_", "vmware": "vmware_"}
# Glance's defaults of `stores` and of the staging store's directory.
_STORES: Final = ("file", "http")
_STAGING_DIRECTORY: Final = f"/var/lib/glance/{STAGING}"
_DIRECTORIES: Final = frozenset({"filesystem_store_datadir", "filesystem_store_datadirs"})
_RESERVED: Final = frozenset({STAGING, TASKS})
_STAGING_URI: Final = re.compile(r"file://(/[^\r\n]*)")


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
    and each store has the name of its type. `staging` is where data wait to be imported, a store
    that no user sees or names; None: the default store. `unused` are options that have no effect.
    """

    stores: tuple[StoreConfig, ...]
    default: str
    is_multiple: bool = True
    staging: StoreConfig | None = None
    unused: tuple[UnusedOption, ...] = ()

    @property
    def every(self) -> tuple[StoreConfig, ...]:
        """All stores, the staging store last."""
        return (*self.stores, self.staging) if self.staging else self.stores

    def section_of(self, store: StoreConfig) -> str:
        """The section that a store's options are in."""
        return store.name if self.is_multiple or store is self.staging else GLANCE_STORE

    @property
    def where_types_are(self) -> tuple[str, str]:
        """Section and option that say of what type each store is."""
        return (DEFAULT, "enabled_backends") if self.is_multiple else (GLANCE_STORE, "stores")

    @property
    def unknown(self) -> tuple[UnusedOption, ...]:
        """The options that nobody knows: most likely misspelt."""
        return tuple(option for option in self.unused if option.reason is None)

    @classmethod
    def from_sections(
        cls,
        sections: Mapping[str, Mapping[str, str]],
        *,
        defaults: Mapping[str, str] | None = None,
        node_staging_uri: str | None = None,
    ) -> "StoresConfig":
        """Read the raw options by section; raises StoreSettingsError.

        `defaults` are options of drivers that stores have which do not say otherwise, in place of
        Glance's defaults. Of a file store's directories any counts as said.
        `node_staging_uri` is that option of the service: the staging store as a `file://` URI, for
        services without `enabled_backends` and without a section for it.
        """
        reader = _Reader(sections, defaults or {}, node_staging_uri)
        is_multiple = bool(reader.value(DEFAULT, "enabled_backends"))
        config = reader.several() if is_multiple else reader.single()
        if reader.problems:
            # In the single-store form all stores have one section, and make the same mistakes.
            raise StoreSettingsError(tuple(dict.fromkeys(reader.problems)))
        return config


@dataclass(slots=True)
class _Reader:
    sections: Mapping[str, Mapping[str, str]]
    defaults: Mapping[str, str]
    node_staging_uri: str | None
    problems: list[Problem] = field(default_factory=list[Problem])

    def value(self, section: str, option: str) -> str:
        return self.sections.get(section, {}).get(option, "").strip()

    def refuse(self, section: str, option: str, expected: str) -> None:
        self.problems.append(Problem(section, option, expected))

    def several(self) -> StoresConfig:
        stores: list[StoreConfig] = []
        names: set[str] = set()
        kinds: dict[str, str] = {}
        for item in _items(self.value(DEFAULT, "enabled_backends")):
            name, _, kind = (part.strip() for part in item.partition(":"))
            wrong = (
                _wrong_name(name, taken=names | {*kinds})
                or _wrong_type(kind)
                or (_wrong_for_staging(kind) if name == STAGING else None)
            )
            if wrong:
                self.refuse(DEFAULT, "enabled_backends", f"{wrong} (in {item!r})")
            elif name in _RESERVED:
                kinds[name] = kind
            else:
                names.add(name)
                stores += self.store(name, kind)
        default = self.value(GLANCE_STORE, "default_backend")
        if default not in names:
            choice = " or ".join(sorted(names)) or "the name of a store"
            self.refuse(GLANCE_STORE, "default_backend", choice)
        elif any(one.name == default and one.options.NEVER_WRITES for one in stores):
            self.refuse(GLANCE_STORE, "default_backend", "a store that can be written to")
        staging = self.staging(kinds.get(STAGING))
        return self.config(stores, staging, default=default, is_multiple=True)

    def single(self) -> StoresConfig:
        default = self.value(GLANCE_STORE, "default_store") or _STORES[0]
        default = _SCHEMES.get(default, default)
        listed = _items(self.value(GLANCE_STORE, "stores"))
        kinds = [_SCHEMES.get(kind, kind) for kind in listed] or [default, *_STORES[1:]]
        stores: list[StoreConfig] = []
        for kind in dict.fromkeys(kinds):
            wrong = _wrong_type(kind)
            if wrong:
                self.refuse(GLANCE_STORE, "stores" if listed else "default_store", wrong)
            else:
                stores += self.store(kind, kind, section=GLANCE_STORE)
        if default not in kinds:
            self.refuse(GLANCE_STORE, "default_store", "one of `stores`")
        elif any(one.name == default and one.options.NEVER_WRITES for one in stores):
            self.refuse(GLANCE_STORE, "default_store", "a store that can be written to")
        staging = self.staging(None) or self.staging_directory()
        return self.config(stores, staging, default=default, is_multiple=False)

    def config(
        self,
        stores: list[StoreConfig],
        staging: StoreConfig | None,
        *,
        default: str,
        is_multiple: bool,
    ) -> StoresConfig:
        config = StoresConfig(tuple(stores), default, is_multiple=is_multiple, staging=staging)
        self.check_places(config)
        return replace(config, unused=tuple(self.unused(config)))

    def staging(self, kind: str | None) -> StoreConfig | None:
        """The staging store that has a section, or is listed as one of this type."""
        if not kind and not self.sections.get(STAGING):
            return None
        found = self.store(STAGING, kind or "file")
        if not found:
            return None
        (store,) = found
        if store.read_only:
            self.refuse(STAGING, "read_only", "false: staged data are written and removed")
        options = store.options
        if isinstance(options, FilesystemOptions) and not options.filesystem_store_shared:
            expected = "true: what one host stages, another imports"
            self.refuse(STAGING, "filesystem_store_shared", expected)
        return store

    def staging_directory(self) -> StoreConfig | None:
        """The staging store in the directory that `node_staging_uri` names."""
        if not self.node_staging_uri:
            return None
        found = _STAGING_URI.fullmatch(self.node_staging_uri)
        if found is None:
            self.refuse(DEFAULT, NODE_STAGING_URI, "file:// and an absolute path")
            return None
        options = FilesystemOptions(filesystem_store_datadir=found[1])
        return StoreConfig(name=STAGING, type="file", options=options)

    def store(self, name: str, kind: str, *, section: str | None = None) -> list[StoreConfig]:
        """The store, or none of it with the problems noted; its section has its name."""
        options = {} if section else _given(self.sections.get(BACKEND_DEFAULTS, {}))
        options |= _given(self.sections.get(section or name, {}))
        defaults = dict(self.defaults)
        if name == STAGING:
            defaults["filesystem_store_datadir"] = _STAGING_DIRECTORY
        if options.keys() & _DIRECTORIES:
            defaults.pop("filesystem_store_datadir", None)
        options = {**defaults, **options}
        common = self.model(CommonOptions, section=section or name, options=options)
        driver = self.model(DRIVERS[kind], section=section or name, options=options)
        if common is None or driver is None:
            return []
        return [
            StoreConfig(
                name=name,
                type=kind,
                options=driver,
                description=common.store_description,
                weight=common.weight,
                read_only=common.read_only or driver.NEVER_WRITES,
            )
        ]

    def model(self, model: type[M], *, section: str, options: Mapping[str, str]) -> M | None:
        try:
            return model.model_validate(options)
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False):
                # A check of several options at once says which of them is to be mended.
                place = detail["loc"] or (detail.get("ctx", {}).get("option", "*"),)
                self.refuse(section, str(place[0]), _in_words(detail["msg"]))
            return None

    def check_places(self, config: StoresConfig) -> None:
        """Two stores in one place would take each other's objects for their own."""
        seen: dict[tuple[str, str], str] = {}
        for store in config.every:
            for place, option in store.options.places().items():
                other = seen.setdefault((store.type, place), store.name)
                if other != store.name:
                    said = (config.section_of(store), option)
                    if store is config.staging and not self.has_staging_section(config):
                        said = (DEFAULT, NODE_STAGING_URI)
                    self.refuse(*said, f"another place than that of store {other}")

    def has_staging_section(self, config: StoresConfig) -> bool:
        """Whether the staging store is not that of `node_staging_uri`."""
        return config.is_multiple or bool(self.sections.get(STAGING))

    def unused(self, config: StoresConfig) -> list[UnusedOption]:
        is_multiple = config.is_multiple
        used: dict[str, set[str]] = {GLANCE_STORE: set(), BACKEND_DEFAULTS: set()}
        used[GLANCE_STORE] |= {"default_backend"} if is_multiple else {"stores", "default_store"}
        reasons = dict[str, dict[str, str]]()
        for store in config.every if self.has_staging_section(config) else config.stores:
            own = config.section_of(store)
            for section in [GLANCE_STORE] if own == GLANCE_STORE else [own, BACKEND_DEFAULTS]:
                options = {*CommonOptions.model_fields, *type(store.options).model_fields}
                used.setdefault(section, set()).update(options)
                reasons.setdefault(section, {}).update(store.options.UNUSED)
        not_used = [
            UnusedOption(
                section,
                option,
                reasons.get(section, {}).get(option)
                or _reason(section, option, is_multiple=is_multiple),
            )
            for section in sorted({*used, *_reserved(self.sections)})
            for option in self.sections.get(section, {})
            if option not in used.get(section, set())
        ]
        if self.node_staging_uri and self.has_staging_section(config):
            reason = f"[{STAGING}] says where staging is"
            not_used.append(UnusedOption(DEFAULT, NODE_STAGING_URI, reason))
        return not_used


def store_sections(sections: Mapping[str, Mapping[str, str]]) -> set[str]:
    """The sections that are about stores alone, whether there are such or not.

    Those of the stores that Glance has for itself are among them.
    """
    backends = _items(sections.get(DEFAULT, {}).get("enabled_backends", ""))
    names = {item.partition(":")[0].strip() for item in backends}
    return {GLANCE_STORE, BACKEND_DEFAULTS, *_RESERVED, *_reserved(sections)} | names - {""}


def _reserved(sections: Mapping[str, Mapping[str, str]]) -> set[str]:
    return {name for name in sections if name.startswith(RESERVED_PREFIX)}


def _given(options: Mapping[str, str]) -> dict[str, str]:
    """Options with a value: `option =` is how templates leave one unset."""
    return {option: value.strip() for option, value in options.items() if value.strip()}


def _wrong_name(name: str, *, taken: set[str]) -> str | None:
    if not name or name in taken:
        return "a different name for each store"
    if name.startswith(RESERVED_PREFIX) and name not in _RESERVED:
        return f"no name with the prefix {RESERVED_PREFIX}"
    if name in (DEFAULT, GLANCE_STORE, BACKEND_DEFAULTS):
        return "no store with the name of another section"
    return None


def _wrong_type(kind: str) -> str | None:
    if kind in DRIVERS:
        return None
    types = f"a type among {', '.join(sorted(DRIVERS))}"
    if kind in _ELSEWHERE:
        return f"{types}; there are no stores of type {kind} here"
    return types


def _wrong_for_staging(kind: str) -> str | None:
    return "a type of store that can be written to" if DRIVERS[kind].NEVER_WRITES else None


def _reason(section: str, option: str, *, is_multiple: bool) -> str | None:
    """Why a known option has no effect in this section; None if nobody knows it."""
    for kind, prefix in _ELSEWHERE.items():
        if option.startswith(prefix):
            return f"there are no stores of type {kind} here"
    if option == "rootwrap_config":
        return "no program is run with the rights of another user"
    if option in ("stores", "default_store"):
        return "enabled_backends and default_backend say it"
    if option == "default_backend":
        return "without enabled_backends, default_store says it"
    kinds = [
        kind
        for kind, model in DRIVERS.items()
        if option in model.model_fields or option in model.UNUSED
    ]
    if not kinds and option not in CommonOptions.model_fields:
        return None
    if section == TASKS:
        return "tasks keep nothing in a store"
    if is_multiple and section == GLANCE_STORE:
        return "each of enabled_backends has a section of its own"
    if not is_multiple and section == BACKEND_DEFAULTS:
        return f"without enabled_backends, [{GLANCE_STORE}] says it"
    return f"only stores of type {' or '.join(kinds)} have it" if kinds else "there is no store"


def _in_words(message: str) -> str:
    """Pydantic's message as what was expected."""
    if message == "Field required":
        return "a value"
    for beginning in ("Value error, ", "Input should be ", "String should "):
        message = message.removeprefix(beginning)
    return message


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]
