"""Folders of imports: they are private, they go, and what the dead left goes too."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from diptych_images.imports.plugins import scratch, tidy

from tests.images.drafts import settings
from tests.waiting import open_files, until

OWNER = """
import asyncio, sys
from diptych_images.imports.plugins import scratch
from diptych_images.settings import ImagesSettings

async def main():
    settings = ImagesSettings.model_validate({"task": {"work_dir": sys.argv[1]}})
    async with scratch(settings) as folder:
        (folder / "image").write_bytes(b"x")
        print(folder, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def names(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_folder_is_private_and_goes(tmp_path: Path) -> None:
    here = settings(task={"work_dir": str(tmp_path / "imports" / "here")})

    async with scratch(here) as folder, scratch(here) as other:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.parent == other.parent == tmp_path / "imports" / "here"
        assert folder != other
        (folder / "image").write_bytes(b"x")
        (folder / "more").mkdir()
        (folder / "more" / "image").write_bytes(b"x")

    assert names(folder.parent) == []
    assert not [name for name in open_files() if name.startswith(str(tmp_path))]


async def test_a_folder_goes_whatever_happens(tmp_path: Path) -> None:
    here = settings(task={"work_dir": str(tmp_path)})

    async def work() -> None:
        async with scratch(here) as folder:
            (folder / "image").write_bytes(b"x")
            await asyncio.Event().wait()

    running = asyncio.create_task(work())
    await until(lambda: len(names(tmp_path)) == 2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert names(tmp_path) == []

    with pytest.raises(ZeroDivisionError):
        async with scratch(here):
            raise ZeroDivisionError
    assert names(tmp_path) == []


async def test_a_folder_that_is_not_wanted_any_more_goes(tmp_path: Path) -> None:
    here = settings(task={"work_dir": str(tmp_path)})

    async def work() -> None:
        async with scratch(here):
            await asyncio.Event().wait()

    # At each of the first moments, among them while the folder is made.
    for moments in range(12):
        running = asyncio.create_task(work())
        for _ in range(moments):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    assert names(tmp_path) == []
    assert not [name for name in open_files() if name.startswith(str(tmp_path))]


async def test_what_the_dead_left_goes_and_what_the_living_have_stays(tmp_path: Path) -> None:
    here = settings(task={"work_dir": str(tmp_path)})
    owners: list[asyncio.subprocess.Process] = []
    folders: list[Path] = []
    try:
        for _ in range(2):
            owner = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", OWNER, str(tmp_path)), stdout=asyncio.subprocess.PIPE
            )
            owners.append(owner)
            assert owner.stdout is not None
            folders.append(Path((await owner.stdout.readline()).decode().strip()))
        owners[0].kill()
        await owners[0].wait()
        dead, living = folders

        async with scratch(here) as mine:
            assert names(tmp_path) == sorted(
                [living.name, f"{living.name}.lock", mine.name, f"{mine.name}.lock"]
            )
            assert names(living) == ["image"]
        assert not dead.exists()
    finally:
        for owner in owners:
            if owner.returncode is None:
                owner.kill()
            await owner.communicate()


async def test_what_is_not_an_imports_stays(tmp_path: Path) -> None:
    here = settings(task={"work_dir": str(tmp_path)})
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("x")
    (tmp_path / "diptych-import-of-mine").mkdir()  # without a lock, it is nobody's
    (tmp_path / "diptych-import-link.lock").symlink_to(victim / "file")
    (tmp_path / "diptych-import-link").symlink_to(victim)
    (tmp_path / "diptych-import-folder.lock").mkdir()
    (tmp_path / "diptych-import-dead.lock").touch()
    (tmp_path / "diptych-import-dead").symlink_to(victim)

    async with scratch(here):
        pass

    assert names(victim) == ["file"]
    assert names(tmp_path) == [
        "diptych-import-dead",
        "diptych-import-dead.lock",
        "diptych-import-folder.lock",
        "diptych-import-link",
        "diptych-import-link.lock",
        "diptych-import-of-mine",
        "victim",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
async def test_what_is_somebody_elses_stays(tmp_path: Path) -> None:
    theirs = tmp_path / "diptych-import-theirs.lock"
    theirs.touch()
    os.chown(theirs, 12345, 12345)

    async with scratch(settings(task={"work_dir": str(tmp_path)})):
        pass

    assert names(tmp_path) == [theirs.name]


async def test_a_lock_without_a_folder_goes(tmp_path: Path) -> None:
    (tmp_path / "diptych-import-young.lock").touch()

    async with scratch(settings(task={"work_dir": str(tmp_path)})):
        pass

    assert names(tmp_path) == []


async def test_what_the_dead_left_goes_before_there_is_an_import(tmp_path: Path) -> None:
    (tmp_path / "diptych-import-dead").mkdir()
    (tmp_path / "diptych-import-dead.lock").touch()

    async with scratch(settings(task={"work_dir": str(tmp_path)})) as living:
        (tmp_path / "diptych-import-late.lock").touch()
        await tidy(settings(task={"work_dir": str(tmp_path)}))
        assert names(tmp_path) == sorted([living.name, f"{living.name}.lock"])

    await tidy(settings(task={"work_dir": str(tmp_path / "nowhere")}))


async def test_a_place_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="file"):
        async with scratch(settings(task={"work_dir": str(tmp_path / "file")})):
            pass


async def test_folders_are_where_the_system_keeps_such_things() -> None:
    async with scratch(settings()) as folder:
        assert folder.parent == Path("/var/tmp")
