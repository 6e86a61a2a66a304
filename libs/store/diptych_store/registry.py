"""The stores of a process by name; the only module that knows the drivers."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from diptych_store.errors import BadLocation
from diptych_store.locations import for_display
from diptych_store.protocol import Store
from diptych_store.settings import FilesystemSettings, StoreConfig, StoresConfig

L = TypeVar("L", bound=Mapping[str, object])


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What may be told of a store; `properties` only to those who may see details.

    `location_prefixes` are for finding the store of a location and are nobody else's business.
    """

    name: str
    type: str
    description: str
    weight: int
    read_only: bool
    is_default: bool
    properties: Mapping[str, object]
    location_prefixes: tuple[str, ...]


class Stores:
    """Open stores; `stores["fast"]` raises KeyError for a name that is not configured."""

    def __init__(
        self, stores: Mapping[str, Store], info: Mapping[str, StoreInfo], *, is_multiple: bool
    ) -> None:
        self._stores = dict(stores)
        self.info = dict(info)
        self.is_multiple = is_multiple

    @classmethod
    @asynccontextmanager
    async def open(cls, config: StoresConfig) -> "AsyncGenerator[Stores, None]":
        """Open every store; all are closed in the end. A store that cannot be opened raises."""
        stores: dict[str, Store] = {}
        info: dict[str, StoreInfo] = {}
        async with AsyncExitStack() as stack:
            for one in config.stores:
                stores[one.name], prefixes = await _open(one)
                stack.push_async_callback(stores[one.name].aclose)
                info[one.name] = StoreInfo(
                    name=one.name,
                    type=one.type,
                    description=one.description,
                    weight=one.weight,
                    read_only=one.read_only,
                    is_default=one.name == config.default,
                    properties=_properties(one),
                    location_prefixes=prefixes,
                )
            yield cls(stores, info, is_multiple=config.is_multiple)

    def __getitem__(self, name: str) -> Store:
        return self._stores[name]

    def __contains__(self, name: object) -> bool:
        return name in self._stores

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of the configuration."""
        return tuple(self._stores)

    @property
    def default(self) -> Store:
        """The store of uploads that name none."""
        return next(self._stores[one.name] for one in self.info.values() if one.is_default)

    def by_location(self, location: str, metadata: Mapping[str, object] | None = None) -> Store:
        """The store that `metadata` names, or else the one whose location this can be.

        The first may be a store that was renamed since, hence the second. Raises BadLocation.
        """
        name = (metadata or {}).get("store")
        if isinstance(name, str) and name in self._stores:
            return self._stores[name]
        claims = [
            (len(prefix), one.name)
            for one in self.info.values()
            for prefix in one.location_prefixes
            if location.startswith(prefix)
        ]
        if not claims:
            raise BadLocation(f"No store here has the location {for_display(location)}.")
        return self._stores[max(claims)[1]]

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


async def _open(config: StoreConfig) -> tuple[Store, tuple[str, ...]]:
    # Drivers are imported late: each may need a client that a deployment has not installed.
    if isinstance(config.settings, FilesystemSettings):
        from diptych_store.drivers.filesystem import FilesystemStore

        store = await FilesystemStore.open_directory(
            config.name, config.settings, read_only=config.read_only
        )
        return store, store.location_prefixes
    from diptych_store.drivers.memory import MemoryStore

    store = MemoryStore(config.name, read_only=config.read_only)
    return store, store.location_prefixes


def _properties(config: StoreConfig) -> dict[str, object]:
    """The `properties` of /v2/info/stores/detail, under Glance's names."""
    if isinstance(config.settings, FilesystemSettings):
        return {
            "data_dir": config.settings.filesystem_store_datadir,
            "chunk_size": config.settings.filesystem_store_chunk_size,
            "thin_provisioning": config.settings.filesystem_thin_provisioning,
        }
    return {}
