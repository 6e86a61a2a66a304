"""Folders for files that last as long as an import, on a disk of this host."""

import asyncio
import fcntl
import logging
import os
import shutil
import stat
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from diptych_store.threads import Threads

from diptych_images.settings import ImagesSettings

log = logging.getLogger(__name__)

# Where the system keeps what is large and passing; its /tmp may be memory.
DEFAULT: Final = "/var/tmp"  # noqa: S108 - each name in it is new and random

_PREFIX: Final = "diptych-import-"
_LOCK: Final = ".lock"


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder, and the lock that says that its process lives."""

    folder: Path
    lock: int


@asynccontextmanager
async def scratch(settings: ImagesSettings) -> AsyncGenerator[Path]:
    """A folder for one import, in `[task] work_dir`, that only this process's user may enter.

    It is gone in the end, with all that is in it. What other processes left when they died is
    removed first: beside each folder is a lock that lasts as long as its process, so several
    processes, and hosts that share the disk, may have their folders in one place. Raises OSError.
    """
    root = Path(settings.task.work_dir or DEFAULT)
    threads = Threads("scratch", count=1)
    making = threads.submit(_make, root)
    try:
        place = await threads.result(making)
        yield place.folder
    finally:
        await threads.settle(threads.submit(_remove, making))
        threads.close()


async def tidy(settings: ImagesSettings) -> None:
    """Remove what processes on this host left when they died, before the next import does."""
    root = Path(settings.task.work_dir or DEFAULT)
    try:
        await asyncio.to_thread(_sweep, root)
    except OSError as error:
        log.warning("%s could not be looked through: %s", root, error)


def _make(root: Path) -> _Place:
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    while True:
        folder = root / f"{_PREFIX}{uuid4().hex}"
        lock = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # Until it is locked, somebody who sweeps takes it for a dead process's.
        if _acquire(lock, _lock_of(folder)):
            break
        os.close(lock)
    try:
        folder.mkdir(mode=0o700)
    except OSError:
        _lock_of(folder).unlink()
        os.close(lock)
        raise
    return _Place(folder, lock)


def _remove(making: Future[_Place]) -> None:
    if making.cancelled() or making.exception() is not None:
        return
    place = making.result()
    _clear(place.folder)
    os.close(place.lock)


def _sweep(root: Path) -> None:
    for path in root.glob(f"{_PREFIX}*{_LOCK}"):
        folder = path.with_name(path.name.removesuffix(_LOCK))
        try:
            lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # gone meanwhile, or somebody else's
            continue
        try:
            found = os.fstat(lock)
            is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            if is_ours and _acquire(lock, path):
                log.info("Removing %s, which a process left when it died", folder)
                _clear(folder)
        finally:
            os.close(lock)


def _acquire(lock: int, path: Path) -> bool:
    """Lock an open file; False if somebody has the lock, or removed the file."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        there = path.stat(follow_symlinks=False)
    except (BlockingIOError, FileNotFoundError):
        return False
    return os.path.samestat(there, os.fstat(lock))


def _clear(folder: Path) -> None:
    """Remove a folder and then its lock; what cannot be removed is left for the next sweep."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass  # its process died before it was made
    except OSError as error:
        log.warning("%s could not be removed: %s", folder, error)
        return
    _lock_of(folder).unlink()


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)
