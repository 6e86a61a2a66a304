import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from dev import ceph as dev_ceph
from dev.ceph import Ceph
from diptych_store.calls import OnCall, tell_nobody
from diptych_store.drivers.rbd import RbdStore
from diptych_store.options.rbd import RbdOptions
from diptych_store.protocol import Attempt

from tests import servers
from tests.store.conformance import CALLS, MIB, Calls, StoreConformance, WritableRig
from tests.store.pools import Pool

pytestmark = pytest.mark.conformance_all


async def open_there(argument: str, on_call: OnCall = tell_nobody) -> RbdStore:
    """The store for a process of its own; `argument` is a folder of bindings and the options."""
    bindings, options = json.loads(argument)
    sys.path.append(bindings)
    return RbdStore("here", RbdOptions.model_validate(options), on_call=on_call)


class Images(WritableRig):
    # Four pieces under way, one that is gathered and one on its way between the two.
    held_writing = 7 * MIB
    # Three pieces asked for, in memory twice while they arrive, one being sent, the next one.
    held_reading = 8 * MIB
    transferred = 12 * MIB

    def __init__(self, store: RbdStore, calls: Calls, pool: Pool, options: RbdOptions) -> None:
        self.store = store
        self.calls = calls
        self.pool = pool
        self.crash = (
            f"{__name__}:{open_there.__name__}",
            json.dumps([str(dev_ceph.bindings(servers.folder())), options.model_dump()]),
            CALLS,
        )
        self._options = options

    async def open_read_only(self) -> RbdStore:
        return RbdStore("here", self._options, read_only=True)

    async def open_another(self) -> RbdStore:
        return RbdStore("here", self._options)

    async def everything(self) -> list[str]:
        return await asyncio.to_thread(self.pool.everything)


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

    async def killed(
        self, rig: WritableRig, scenario: str
    ) -> AsyncIterator[tuple[Attempt, str, str]]:
        assert isinstance(rig, Images)
        async for step in super().killed(rig, scenario):
            # What a dead process has open is open for some seconds more: nobody's lease is shorter.
            await rig.pool.until_closed()
            yield step


class TestThinRbdConformance(TestRbdConformance):
    """Holes, small objects, one thread: the other values of each setting."""

    settings: ClassVar[dict[str, Any]] = {
        "rbd_thin_provisioning": True,
        "rbd_store_chunk_size": 1,
        "rbd_store_thread_pool_size": 1,
        "rados_connect_timeout": 20,
        "rbd_store_timeout": 20,
    }
