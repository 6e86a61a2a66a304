import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from dev.ceph import Ceph
from diptych_store.drivers.rbd import RbdStore
from diptych_store.options.rbd import RbdOptions

from tests.store.conformance import Calls, StoreConformance, WritableRig
from tests.store.pools import Pool

pytestmark = pytest.mark.conformance_all


class Images(WritableRig):
    def __init__(self, store: RbdStore, calls: Calls, pool: Pool, options: RbdOptions) -> None:
        self.store = store
        self.calls = calls
        self._pool = pool
        self._options = options

    async def open_read_only(self) -> RbdStore:
        return RbdStore("here", self._options, read_only=True)

    async def open_another(self) -> RbdStore:
        return RbdStore("here", self._options)

    async def everything(self) -> list[str]:
        return await asyncio.to_thread(self._pool.everything)


class TestRbdConformance(StoreConformance):
    settings: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    async def rig(self, ceph: Ceph, ceph_pool: str) -> AsyncIterator[WritableRig]:
        options = RbdOptions(
            rbd_store_ceph_conf=str(ceph.conf),
            rbd_store_user="glance",
            rbd_store_pool=ceph_pool,
            **self.settings,
        )
        calls = Calls()
        pool = Pool(ceph, ceph_pool)
        store = RbdStore("here", options, on_call=calls)
        yield Images(store, calls, pool, options)
        await store.aclose()
        await asyncio.to_thread(pool.close)


class TestThinRbdConformance(TestRbdConformance):
    """Holes, small objects, one thread: the other values of each setting."""

    settings: ClassVar[dict[str, Any]] = {
        "rbd_thin_provisioning": True,
        "rbd_store_chunk_size": 1,
        "rbd_store_thread_pool_size": 1,
        "rados_connect_timeout": 20,
        "rbd_store_timeout": 20,
    }
