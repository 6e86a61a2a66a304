import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from dev.swift import Swift
from diptych_store.calls import OnCall
from diptych_store.drivers.swift import SwiftStore
from diptych_store.options.swift import SwiftOptions

from tests.store.conformance import CALLS, MIB, Calls, Rig, StoreConformance, WritableRig
from tests.store.swift_container import Container


async def open_there(settings: str, on_call: OnCall) -> SwiftStore:
    return SwiftStore("here", SwiftOptions.model_validate(json.loads(settings)), on_call=on_call)


class InContainer(WritableRig):
    several_parts = 3 * MIB + 4321

    def __init__(self, container: Container, settings: dict[str, Any]) -> None:
        self.calls = Calls()
        self._container = container
        self._settings = settings
        self.store = container.store(on_call=self.calls, **settings)
        self.crash = (
            f"{__name__}:{open_there.__name__}",
            json.dumps({**container.values(), **settings}),
            CALLS,
        )

    async def open_another(self) -> SwiftStore:
        return self._container.store(**self._settings)

    async def open_read_only(self) -> SwiftStore:
        return self._container.store(read_only=True, **self._settings)

    async def open_elsewhere(self) -> SwiftStore:
        return Container(self._container.server, f"{self._container.name}-else").store()

    async def everything(self) -> list[str]:
        return await self._container.everything()


class TestSwiftConformance(StoreConformance):
    settings: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    async def rig(self, swift: Swift) -> AsyncIterator[Rig]:
        async with Container(swift) as container:
            await container.make()
            rig = InContainer(container, self.settings)
            yield rig
            await rig.store.aclose()
