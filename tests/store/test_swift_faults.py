from collections.abc import AsyncIterator

import pytest
from dev.swift import Swift
from diptych_store.protocol import Store

from tests.store.fault_suite import FaultRig, StoreFaults
from tests.store.faults import Wire
from tests.store.swift_container import Container


class ContainerBehindWire(FaultRig):
    def __init__(self, container: Container) -> None:
        self.server = ("127.0.0.1", int(container.server.url.rpartition(":")[2]))
        self._container = container

    async def open_through(self, wire: Wire, *, timeout_s: float) -> Store:
        return self._container.store(
            swift_store_auth_address=f"http://127.0.0.1:{wire.port}/auth/v1.0",
            swift_store_endpoint=f"http://127.0.0.1:{wire.port}/v1/AUTH_test",
            swift_store_timeout=timeout_s,
        )

    async def everything(self) -> list[str]:
        return await self._container.everything()


class TestSwiftFaults(StoreFaults):
    # S3's are in every run.
    slow = (
        "test_a_fault_that_stays",
        "test_a_fault_in_one_exchange",
        "test_what_hangs_may_be_cancelled",
    )

    @pytest.fixture
    async def rig(self, swift: Swift) -> AsyncIterator[FaultRig]:
        async with Container(swift) as container:
            await container.make()
            yield ContainerBehindWire(container)
