import pytest
from diptych_store.drivers.memory import MemoryStore

from tests.store.conformance import Rig, StoreConformance


class Memory:
    def __init__(self) -> None:
        self.store = MemoryStore("here")
        self.crash = None

    async def open_read_only(self) -> MemoryStore:
        return self.store.read_only()

    async def everything(self) -> list[str]:
        return self.store.everything()


class TestMemoryConformance(StoreConformance):
    @pytest.fixture
    async def rig(self) -> Rig:
        return Memory()
