import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.options.filesystem import FilesystemOptions

from tests.store.conformance import Calls, StoreConformance, WritableRig


async def open_there(settings: str) -> FilesystemStore:
    return await FilesystemStore.open_directory(
        "here", FilesystemOptions.model_validate_json(settings)
    )


class Directory(WritableRig):
    def __init__(self, store: FilesystemStore, calls: Calls, settings: FilesystemOptions) -> None:
        self.store = store
        self.calls = calls
        self.crash = (
            f"{__name__}:{open_there.__name__}",
            settings.model_dump_json(exclude_unset=True),
            "diptych_store/drivers/filesystem.py",
        )
        self._settings = settings

    async def open_read_only(self) -> FilesystemStore:
        return await FilesystemStore.open_directory("here", self._settings, read_only=True)

    async def open_another(self) -> FilesystemStore:
        return await FilesystemStore.open_directory("here", self._settings)

    async def everything(self) -> list[str]:
        def files() -> list[str]:
            directory = Path(self._settings.filesystem_store_datadir)
            return [str(path) for path in directory.rglob("*") if not path.is_dir()]

        return await asyncio.to_thread(files)


class TestFilesystemConformance(StoreConformance):
    settings: ClassVar[dict[str, object]] = {}

    @pytest.fixture
    async def rig(self, tmp_path: Path) -> AsyncIterator[WritableRig]:
        settings = FilesystemOptions.model_validate(
            {"filesystem_store_datadir": str(tmp_path / "images"), **self.settings}
        )
        calls = Calls()
        store = await FilesystemStore.open_directory("here", settings, on_call=calls)
        yield Directory(store, calls, settings)
        await store.aclose()


class TestThinFilesystemConformance(TestFilesystemConformance):
    """Holes, small blocks, one thread, a time limit: the other values of each setting."""

    settings: ClassVar[dict[str, object]] = {
        "filesystem_thin_provisioning": True,
        "filesystem_store_chunk_size": 65_536,
        "filesystem_store_thread_pool_size": 1,
        "filesystem_store_timeout": 60,
        "filesystem_store_file_perm": "640",
    }
