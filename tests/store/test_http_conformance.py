import uuid
from collections.abc import Callable, Generator

import pytest
from diptych_store.drivers.http import HttpStore
from diptych_store.options.http import HttpOptions

from tests.store.conformance import Calls, ReadConformance, Rig
from tests.store.web_folder import Folder, loopback, serving, serving_with_nginx


class FolderRig(Rig):
    def __init__(self, folder: Folder) -> None:
        self.calls = Calls()
        self._folder = folder
        self.store = HttpStore("web", HttpOptions(), outbound=loopback(), on_call=self.calls)

    async def place(self, data: bytes, key: str | None = None) -> str:
        return self._folder.put(key or str(uuid.uuid4()), data)

    async def remove(self, location: str) -> None:
        self._folder.remove(location)

    async def open_another(self) -> HttpStore:
        return HttpStore("web", HttpOptions(), outbound=loopback())

    async def everything(self) -> list[str]:
        return self._folder.everything()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[Folder]:
    with serving(tmp_path_factory.mktemp("web")) as folder:
        yield folder


@pytest.fixture(scope="module")
def folder_of_nginx(
    tmp_path_factory: pytest.TempPathFactory, debian: Callable[[str, str], str]
) -> Generator[Folder]:
    nginx = debian("nginx-light", "nginx")
    with serving_with_nginx(nginx, tmp_path_factory.mktemp("nginx")) as folder:
        yield folder


class TestHttpConformance(ReadConformance):
    @pytest.fixture
    async def rig(self, folder: Folder) -> Rig:
        return FolderRig(folder)


class TestHttpNginxConformance(ReadConformance):
    @pytest.fixture
    async def rig(self, folder_of_nginx: Folder) -> Rig:
        return FolderRig(folder_of_nginx)
