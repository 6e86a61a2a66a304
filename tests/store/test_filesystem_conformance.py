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
    # Of blocks of 1 MiB: one is used, one is there, one is read, one is the allocator's.
    held_reading = 4 * 1024 * 1024

    def __init__(self, store: FilesystemStore, calls: Calls, settings: FilesystemOptions) -> None:
        self.store = store
        self.calls = calls
        self.crash = (
            f"{__name__}:{open_there.__name__}",
            settings.model_dump_json(exclude_unset=True),
            "diptych_store/drivers/filesystem/",
        )
        self._settings = settings

    async def open_read_only(self) -> FilesystemStore:
        return await FilesystemStore.open_directory("here", self._settings, read_only=True)

    async def open_another(self) -> FilesystemStore:
        return await FilesystemStore.open_directory("here", self._settings)

    async def everything(self) -> list[str]:
        def files() -> list[str]:
            return [
                str(path)
                for directory in self._settings.directories()
                for path in Path(directory).rglob("*")
                # The mark is the directory's own.
                if not path.is_dir() and path.name != ".mark"
            ]

        return await asyncio.to_thread(files)


class TestFilesystemConformance(StoreConformance):
    settings: ClassVar[dict[str, object]] = {}

    def directories(self, tmp_path: Path) -> dict[str, object]:
        return {"filesystem_store_datadir": str(tmp_path / "images")}

    @pytest.fixture
    async def rig(self, tmp_path: Path) -> AsyncIterator[WritableRig]:
        settings = FilesystemOptions.model_validate({**self.directories(tmp_path), **self.settings})
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


class TestSeveralFilesystemConformance(TestFilesystemConformance):
    """Several directories that are asked in turn."""

    def directories(self, tmp_path: Path) -> dict[str, object]:
        # No two of one priority: the one with more room would be chosen, which changes any time,
        # and some cases know an object's directory by that of another.
        lines = [f"{tmp_path}/few", f"{tmp_path}/many:10", f"{tmp_path}/more:20"]
        return {"filesystem_store_datadirs": "\n".join(lines)}
