"""The stores of a process by name; the only module that knows the drivers."""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from diptych_store.calls import OnCall, tell_nobody
from diptych_store.errors import BadLocation, StoreError
from diptych_store.locations import for_display
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.options.http import HttpOptions
from diptych_store.options.memory import MemoryOptions
from diptych_store.options.rbd import RbdOptions
from diptych_store.options.s3 import S3Options
from diptych_store.options.swift import SwiftOptions
from diptych_store.protocol import Outbound, Store
from diptych_store.settings import (
    Problem,
    StoreConfig,
    StoresConfig,
    StoreSettingsError,
)

# What a deployment installs for stores of a type, if it has any.
_CLIENTS: Final = {
    "rbd": "python3-rados and python3-rbd of the Ceph cluster's release (Debian's packages)",
    "s3": "aiobotocore (diptych-store[s3])",
    "swift": "httpx (diptych-store[swift])",
}

L = TypeVar("L", bound=Mapping[str, object])


def _tell_nobody(store: str, operation: str, seconds: float, error: StoreError | None, /) -> None:
    pass


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What may be told of a store; `properties` only to those who may see details.

    `never_writes` if its driver can but read, so that what it has is not the service's to remove.
    """

    name: str
    type: str
    description: str
    weight: int
    read_only: bool
    is_default: bool
    properties: Mapping[str, object]
    never_writes: bool = False


class Stores:
    """Open stores; `stores["fast"]` raises KeyError for a name that is not configured.

    The staging store, where it is one of its own, is had by its name as well, and `info` knows it,
    but it is not among `names`: those are the stores that users may see and name.
    """

    def __init__(
        self,
        stores: Mapping[str, Store],
        info: Mapping[str, StoreInfo],
        *,
        is_multiple: bool,
        staging: Store | None = None,
    ) -> None:
        self.names = tuple(stores)
        self.info = dict(info)
        self.is_multiple = is_multiple
        self._own_staging = staging
        self._stores = {**stores, staging.name: staging} if staging else dict(stores)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: StoresConfig,
        *,
        on_call: Callable[[str, str, float, StoreError | None], None] = _tell_nobody,
        outbound: Outbound | None = None,
        of_service: Mapping[str, Callable[[OnCall], Store]] | None = None,
    ) -> "AsyncGenerator[Stores, None]":
        """Open every store; all are closed in the end. A store that cannot be opened raises.

        `on_call` is told of the calls to backends: the store's
        name, then as `OnCall`. `outbound` is for the stores behind URLs of users. `of_service`
        makes stores that are the service's own and in no settings, by names which no store of the
        settings has. Raises StoreSettingsError as `check_host`.
        """
        check_host(config)
        stores: dict[str, Store] = {}
        info: dict[str, StoreInfo] = {}
        async with AsyncExitStack() as stack:
            for one in config.every:
                stores[one.name] = await open_store(
                    one, on_call=partial(on_call, one.name), outbound=outbound
                )
                stack.push_async_callback(stores[one.name].aclose)
                info[one.name] = StoreInfo(
                    name=one.name,
                    type=one.type,
                    description=one.description,
                    weight=one.weight,
                    read_only=one.read_only,
                    is_default=one.name == config.default,
                    properties=one.options.properties(),
                    never_writes=one.options.NEVER_WRITES,
                )
            for name, make in (of_service or {}).items():
                stores[name] = make(partial(on_call, name))
                stack.push_async_callback(stores[name].aclose)
                info[name] = StoreInfo(
                    name=name,
                    type=name,
                    description="",
                    weight=0,
                    read_only=False,
                    is_default=False,
                    properties={},
                )
            staging = stores.pop(config.staging.name) if config.staging else None
            yield cls(stores, info, is_multiple=config.is_multiple, staging=staging)

    def __getitem__(self, name: str) -> Store:
        return self._stores[name]

    def __contains__(self, name: object) -> bool:
        return name in self._stores

    @property
    def every(self) -> tuple[Store, ...]:
        """All that are open, in the order of the configuration, the staging store last."""
        return tuple(self._stores.values())

    @property
    def default(self) -> Store:
        """The store of uploads that name none."""
        return next(self._stores[one.name] for one in self.info.values() if one.is_default)

    @property
    def staging(self) -> Store:
        """Where data wait to be imported: a store that every process reaches."""
        return self._own_staging or self.default

    def by_location(self, location: str, metadata: Mapping[str, object] | None = None) -> Store:
        """The store whose location this can be, first of all the one that `metadata` names.

        That one may have been renamed since, and another have its name now. The staging store has
        to be named. Raises BadLocation.
        """
        name = (metadata or {}).get("store")
        named = self._stores.get(name) if isinstance(name, str) else None
        for store in (named, *(self._stores[one] for one in self.names)):
            if store is not None and store.recognises(location):
                return store
        raise BadLocation(f"No store here has the location {for_display(location)}.")

    def in_read_order(self, locations: Iterable[L]) -> list[L]:
        """Rows with a `store` by the weight of their stores, highest first, then by their names.

        Rows of stores that are not configured come last. tempest expects the names of equally
        heavy stores in alphabetical order.
        """

        def heaviest_first(row: L) -> tuple[bool, int, str]:
            name = str(row["store"])
            one = self.info.get(name)
            return (one is None, -one.weight if one else 0, name)

        return sorted(locations, key=heaviest_first)


def check_host(config: StoresConfig) -> None:
    """Raise StoreSettingsError for what stores need of this host and it does not have.

    That is the client of a type, and the certificates in a file that an option names.
    """
    section, option = config.where_types_are
    problems: list[Problem] = []
    for one in config.every:
        try:
            _opener(one)
        except ImportError:
            needed = _CLIENTS.get(one.type, "its driver")
            expected = f"{needed} to be installed for store {one.name} of type {one.type}"
            problems.append(Problem(section, option, expected))
        place = config.section_of(one)
        problems += [Problem(place, *wrong) for wrong in _wrong_authorities(one)]
    if problems:
        raise StoreSettingsError(tuple(problems))


def _wrong_authorities(config: StoreConfig) -> Iterator[tuple[str, str]]:
    """The options that name a file of certificates that is none, and what was expected."""
    for option, file in config.options.authorities().items():
        try:
            if file:
                ssl.create_default_context(cafile=file)
        except ssl.SSLError:
            yield option, "a file of certificates; there are none in it"
        except OSError as error:
            yield option, f"a file of certificates; this one cannot be read ({error.strerror})"


async def open_store(
    config: StoreConfig, *, on_call: OnCall = tell_nobody, outbound: Outbound | None = None
) -> Store:
    """Open one store, to be closed by the caller. Raises StoreError, and ImportError.

    Nothing is asked of a server elsewhere: a backend that is down must not keep the service from
    serving the others.
    """
    for option, expected in _wrong_authorities(config):
        raise StoreError(f"Store {config.name}: {option} has to be {expected}.")
    store = _opener(config)(on_call, outbound)
    return await store if isinstance(store, Awaitable) else store


def _opener(
    config: StoreConfig,
) -> Callable[[OnCall, Outbound | None], Store | Awaitable[Store]]:
    # Drivers are imported late: each may need a client that a deployment has not installed.
    name, read_only = config.name, config.read_only
    match config.options:
        case FilesystemOptions() as files:
            from diptych_store.drivers.filesystem import FilesystemStore

            return lambda on_call, _: FilesystemStore.open_directory(
                name, files, read_only=read_only, on_call=on_call
            )
        case S3Options() as s3:
            from diptych_store.drivers.s3 import S3Store

            return lambda on_call, _: S3Store(name, s3, read_only=read_only, on_call=on_call)
        case SwiftOptions() as swift:
            from diptych_store.drivers.swift import MultiTenantSwiftStore, SwiftStore

            kind = MultiTenantSwiftStore if swift.swift_store_multi_tenant else SwiftStore
            return lambda on_call, _: kind(name, swift, read_only=read_only, on_call=on_call)
        case RbdOptions() as rbd:
            from diptych_store.drivers.rbd import RbdStore
            from diptych_store.drivers.rbd.cluster import libraries

            libraries()
            return lambda on_call, _: RbdStore(name, rbd, read_only=read_only, on_call=on_call)
        case HttpOptions() as http:
            from diptych_store.drivers.http import HttpStore

            return lambda on_call, outbound: HttpStore(
                name, http, outbound=outbound, on_call=on_call
            )
        case MemoryOptions():
            from diptych_store.drivers.memory import MemoryStore

            return lambda _, __: MemoryStore(name, read_only=read_only)
        case _:
            raise TypeError(f"no driver has the options of store {name}")
