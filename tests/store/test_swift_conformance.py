import json
import uuid
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import httpx
import pytest
from dev.keystone import Keystone
from dev.swift import Swift
from diptych_store.calls import OnCall, tell_nobody
from diptych_store.drivers.swift import MultiTenantSwiftStore, SwiftStore
from diptych_store.options.swift import SwiftOptions

from tests.store.conformance import CALLS, MIB, Calls, Rig, StoreConformance, WritableRig
from tests.store.swift_container import TEMP_URL_KEY, Cloud, Container, make_cloud


async def open_there(settings: str, on_call: OnCall) -> SwiftStore:
    return SwiftStore("here", SwiftOptions.model_validate(json.loads(settings)), on_call=on_call)


class InContainer(WritableRig):
    several_parts = 3 * MIB + 4321
    # What is held to be sent again, in memory twice while it is gathered, and once on its way.
    held_writing = 3 * MIB
    # A block, what it is made of, and what httpx has read ahead.
    held_reading = 3 * MIB

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
    # S3's are killed and counted in every run.
    slow = (
        "test_killed_",
        "test_many_transfers_take_little_memory",
        "test_an_object_is_copied",
        "test_sixty_four_objects_at_once",
    )

    @pytest.fixture
    async def rig(self, swift: Swift) -> AsyncIterator[Rig]:
        async with Container(swift) as container:
            await container.make()
            rig = InContainer(container, self.settings)
            yield rig
            await rig.store.aclose()


class InAccount(WritableRig):
    """The service in the account of a project: a container for each image."""

    several_parts = 3 * MIB + 4321

    def __init__(self, cloud: Cloud, container: str) -> None:
        self.calls = Calls()
        self._cloud = cloud
        self._container = container
        self._project = cloud.keystone.project_id("demo")
        self._base = self._opened(on_call=self.calls)
        self.store = self._base.acting_for(self._project, token=None)

    def _opened(
        self, *, read_only: bool = False, on_call: OnCall = tell_nobody
    ) -> MultiTenantSwiftStore:
        options = self._cloud.options(
            swift_store_multi_tenant=True,
            swift_store_container=self._container,
            swift_temp_url_key=TEMP_URL_KEY,
        )
        return MultiTenantSwiftStore("here", options, read_only=read_only, on_call=on_call)

    async def open_another(self) -> MultiTenantSwiftStore:
        return self._opened().acting_for(self._project, token=None)

    async def open_read_only(self) -> MultiTenantSwiftStore:
        return self._opened(read_only=True).acting_for(self._project, token=None)

    async def everything(self) -> list[str]:
        """The containers of the store's: an image's goes when nothing is left in it."""
        token = self._cloud.keystone.token(self._cloud.user, "service")
        url = f"{self._cloud.swift.keystone_proxy_url}/v1/AUTH_{self._project}"
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            await client.post(
                url,
                headers={"X-Auth-Token": token, "X-Account-Meta-Temp-URL-Key": TEMP_URL_KEY},
            )
            answer = await client.get(
                url,
                params={"format": "json", "prefix": self._container},
                headers={"X-Auth-Token": token},
            )
        return [entry["name"] for entry in answer.json()] if answer.content else []


@pytest.mark.long
class TestMultiTenantSwiftConformance(StoreConformance):
    @pytest.fixture
    async def rig(self, keystone: Keystone, swift: Swift) -> AsyncIterator[Rig]:
        rig = InAccount(make_cloud(keystone, swift), f"test-{uuid.uuid4().hex[:12]}")
        yield rig
        await rig.store.aclose()
