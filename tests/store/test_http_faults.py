import uuid
from collections.abc import Generator

import pytest
from diptych_store.drivers.http import HttpStore
from diptych_store.options.http import HttpOptions
from diptych_store.protocol import Store
from diptych_store.retries import Retries

from tests.store.fault_suite import FaultRig, ReadFaults
from tests.store.faults import Wire
from tests.store.web_folder import Folder, loopback, serving


class FolderRig(FaultRig):
    def __init__(self, folder: Folder) -> None:
        self.server = ("127.0.0.1", folder.port)
        self._folder = folder

    async def open_through(self, wire: Wire, *, timeout_s: float) -> HttpStore:
        return HttpStore(
            "web",
            HttpOptions(),
            outbound=loopback(
                connect_timeout=timeout_s, answer_timeout=timeout_s, read_timeout=timeout_s
            ),
            retries=Retries(count=3, first_s=0.01),
        )

    async def place(self, store: Store, wire: Wire, data: bytes, key: str | None = None) -> str:
        return self._folder.put(key or str(uuid.uuid4()), data, port=wire.port)

    async def remove(self, store: Store, location: str) -> None:
        self._folder.remove(location)

    async def everything(self) -> list[str]:
        return self._folder.everything()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[Folder]:
    with serving(tmp_path_factory.mktemp("web")) as folder:
        yield folder


class TestHttpFaults(ReadFaults):
    @pytest.fixture
    async def rig(self, folder: Folder) -> FaultRig:
        return FolderRig(folder)
