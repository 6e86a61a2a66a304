import pytest
from diptych_store.drivers.memory import MemoryStore

from tests.store.conformance import StoreConformance, WritableRig


class Memory(WritableRig):
    def __init__(self) -> None:
        self.store = self.memory = MemoryStore("here")

    async def open_read_only(self) -> MemoryStore:
        return self.memory.again(read_only=True)

    async def open_another(self) -> MemoryStore:
        return self.memory.again()

    async def everything(self) -> list[str]:
        return self.memory.everything()


class TestMemoryConformance(StoreConformance):
    @pytest.fixture
    async def rig(self) -> WritableRig:
        return Memory()
