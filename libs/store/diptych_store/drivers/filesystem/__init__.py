"""Objects as files: `<directory>/<key>`, as Glance lays them out.

An attempt is `<directory>/.attempts/<token>.<key>` until `link(2)` makes it the object, which never
replaces one. So a directory has to be one file system that knows hard links; a local one or NFS.
"""

import errno
import logging
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Self, TypeVar

from diptych_store.calls import OnCall, tell_nobody, told
from diptych_store.drivers.filesystem.directory import Directory
from diptych_store.drivers.filesystem.files import OpenFile, Place, Source
from diptych_store.drivers.filesystem.metadata import Mountpoint, mountpoints
from diptych_store.errors import (
    AlreadyThere,
    AttemptLost,
    BadLocation,
    Full,
    NotFound,
    ReadDenied,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.locations import check_attempt, file_location, split_file_location
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.protocol import (
    WHOLE,
    Attempt,
    Block,
    ByteRange,
    LocalPaths,
    Reading,
    Store,
)
from diptych_store.threads import Threads

log = logging.getLogger(__name__)
T = TypeVar("T")

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
# Seconds after which a start no longer waits for a directory that does not answer.
_PATIENCE_S = 10.0
# Copies at a time. They have threads of their own: another store's file may hang them.
_COPIES = 4
# Seconds within which two who published one key in two directories at once try again, apart.
_STEPS_BACK = (0.02, 0.05, 0.1, 0.2, 0.5)


class FilesystemStore:
    """A directory, or several; see docs/drivers/filesystem.md.

    Has the capabilities Annotates, Copies, LocalPaths, Marks, Measures and Sweeps. Every call into
    the file system is made by the store's own threads: a mount that hangs blocks neither the loop
    nor another store. OnCall is told of `start`, `write`, `publish`, `discard`, `open`, `read`,
    `delete`, `copy`, `free`, `list` and `mark`.
    """

    def __init__(
        self,
        name: str,
        options: FilesystemOptions,
        *,
        read_only: bool = False,
        on_call: OnCall = tell_nobody,
    ) -> None:
        self.name = name
        self._on_call = on_call
        self._options = options
        self._read_only = read_only
        self._directories = [
            Directory(path, priority=priority, store=name, read_only=read_only)
            for path, priority in options.directories().items()
        ]
        # As locations spell them.
        self._spellings = {directory.path: directory for directory in self._directories}
        self._mountpoints: tuple[Mountpoint, ...] = ()
        timeout_s = options.filesystem_store_timeout or None
        self._threads = Threads(
            f"store-{name}",
            count=options.filesystem_store_thread_pool_size,
            timeout_s=timeout_s,
        )
        self._copying = Threads(f"store-{name}-copies", count=_COPIES, timeout_s=timeout_s)

    @classmethod
    async def open_directory(
        cls,
        name: str,
        options: FilesystemOptions,
        *,
        read_only: bool = False,
        on_call: OnCall = tell_nobody,
    ) -> Self:
        """Make the directories where they are missing and try what the store needs of them.

        Raises Full, WriteDenied, ReadDenied, Unreachable, and ValueError for a metadata file that
        is none. A read-only store makes and writes nothing; it needs the directories to be there.
        One that does not answer for 10 seconds is waited for no longer: the store is there, and its
        calls hang or time out until the directory answers again.
        """
        store = cls(name, options, read_only=read_only, on_call=on_call)
        starting = Threads(f"store-{name}-start", count=1, timeout_s=_PATIENCE_S)
        try:
            await starting.run(store._translated, "start", store._prepare)
        except TimeoutError:
            log.warning("Store %s does not answer; the service starts without waiting", name)
        except BaseException:
            await store.aclose()
            raise
        finally:
            starting.close()
        return store

    def recognises(self, location: str) -> bool:
        """See Store.recognises."""
        try:
            self._split(location)
        except BadLocation:
            return False
        return True

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        """See Store.write; `size` chooses among several directories."""
        self._check_writable(attempt)
        directory = await self._run("write", self._directory_for, attempt, size)
        place = self._new_place(attempt, directory)
        try:
            await self._run("write", place.begin)
            async for block in blocks:
                await self._run("write", place.append, block)
            await self._run("write", place.finish)
        except BaseException:
            # Behind a call that hangs and was given up it comes later than this returns, or never:
            # then `attempts` finds what is left.
            await self._threads.settle(self._threads.submit(place.abandon))
            raise
        return place.size

    async def publish(self, attempt: Attempt) -> str:
        """See Store.publish; publishing again after Unreachable is safe."""
        self._check_writable(attempt)
        directory = await self._run("publish", self._publish, attempt)
        return file_location(directory.path, attempt.key)

    async def discard(self, attempt: Attempt, *, published: bool = False) -> None:
        """See Store.discard."""
        self._check_writable(attempt)
        await self._run("discard", self._discard, attempt, published)

    @asynccontextmanager
    async def open(self, location: str, range: ByteRange = WHOLE) -> AsyncGenerator[Reading, None]:
        """See Store.open. The first block is read on entry, each other one ahead of its use."""
        directory, key = self._split(location)
        file = OpenFile(directory.file(key), range, self._options.filesystem_store_chunk_size)

        async def pass_to(socket: int, count: int) -> int | None:
            first.clear()  # it was read to see that it can be
            # The thread's own, open until it has ended: who asked may be gone by then, and the
            # number be that of somebody else's connection.
            own = os.dup(socket)
            future = self._threads.submit(self._translated, "read", file.pass_to, own, count)
            future.add_done_callback(lambda _: os.close(own))
            return await self._result(self._threads, future)

        try:
            first = [await self._run("open", self._open, file, directory, key)]
            async with aclosing(self._blocks(file, first)) as blocks:
                yield Reading(file.size, file.length, blocks, pass_to)
        finally:
            await self._threads.settle(self._threads.submit(file.close))

    async def delete(self, location: str) -> None:
        """See Store.delete."""
        directory, key = self._split(location)
        if self._read_only:
            raise self._denied()
        await self._run("delete", directory.delete, key)

    async def copy(
        self, attempt: Attempt, source: Store, location: str, *, temporary: bool = False
    ) -> int | None:
        """See Copies: from a store whose objects are files that this process can open.

        On one file system a temporary object's file gets a second name; else the blocks are shared
        where the file system can, or the kernel copies them, holes left out.
        """
        self._check_writable(attempt)
        if not isinstance(source, LocalPaths):
            return None
        file = Source(str(source.local_path(location)))
        place: Place | None = None
        try:
            try:
                if not await self._copy(file.open):
                    # Its store says better what the matter is, unless it is only that we may not.
                    async with source.open(location):
                        return None
                directory = await self._copy(self._directory_for, attempt, file.size)
                place = self._new_place(attempt, directory)
                await self._fill(place, file, directory.file(attempt.key), temporary=temporary)
            finally:
                await self._copying.settle(self._copying.submit(file.close))
        except BaseException:
            if place is not None:
                await self._copying.settle(self._copying.submit(place.abandon))
            raise
        return file.size

    def local_path(self, location: str) -> Path:
        """See LocalPaths."""
        directory, key = self._split(location)
        return Path(directory.file(key))

    def annotations(self, location: str) -> Mapping[str, object]:
        """See Annotates: of the metadata file's entries the first whose mountpoint has the file."""
        path = self.local_path(location)
        for mountpoint in self._mountpoints:
            if mountpoint.has(path):
                return mountpoint.told
        return {}

    async def free(self) -> int | None:
        """See Measures; what an unprivileged user may still write."""
        return await self._run("free", self._free)

    async def marks(self) -> frozenset[str]:
        """See Marks."""
        if not self._options.filesystem_store_shared:
            return frozenset()
        return await self._run("mark", self._marks)

    async def attempts(self, *, older_than: timedelta) -> AsyncIterator[Attempt]:
        """See Sweeps."""
        before = time.time() - older_than.total_seconds()
        for attempt in await self._run("list", self._begun, before):
            yield attempt

    async def aclose(self) -> None:
        """Let the threads end; readings and writings have to be over."""
        self._threads.close()
        self._copying.close()

    def _split(self, location: str) -> tuple[Directory, str]:
        path, key = split_file_location(location)
        directory = self._spellings.get(path)
        if directory is None:
            raise BadLocation(
                f"Store {self.name} has no location in another directory than its own."
            )
        return directory, key

    def _new_place(self, attempt: Attempt, directory: Directory) -> Place:
        return Place(
            directory.place(attempt),
            token=attempt.token,
            mode=self._options.filesystem_store_file_perm,
            sparse=self._options.filesystem_thin_provisioning,
        )

    def _check_writable(self, attempt: Attempt) -> None:
        check_attempt(attempt)
        if self._read_only:
            raise self._denied()

    def _denied(self) -> WriteDenied:
        return WriteDenied(f"Store {self.name} is read-only.")

    async def _fill(self, place: Place, file: Source, final: str, *, temporary: bool) -> None:
        if temporary and await self._copy(place.share, file, final):
            return
        await self._copy(place.begin)
        if not await self._copy(place.clone, file):
            reached = 0
            while reached < file.size:
                reached = await self._copy(place.copy, file, reached)
        await self._copy(place.finish_copy, file)

    async def _blocks(self, file: OpenFile, first: list[bytes]) -> AsyncGenerator[bytes, None]:
        # A block is a `bytes` of its own, never a buffer that is used again: a server may keep
        # what it was given to send for longer than until it asks for more.
        block = first.pop()
        while block:
            ahead = self._threads.submit(self._translated, "read", file.read)
            yield block
            del block
            block = await self._result(self._threads, ahead)

    async def _run(self, operation: str, function: Callable[..., T], /, *args: object) -> T:
        future = self._threads.submit(self._translated, operation, function, *args)
        return await self._result(self._threads, future)

    async def _copy(self, function: Callable[..., T], /, *args: object) -> T:
        future = self._copying.submit(self._translated, "copy", function, *args)
        return await self._result(self._copying, future)

    async def _result(self, threads: Threads, future: Future[T]) -> T:
        try:
            return await threads.result(future)
        except TimeoutError:
            raise Unreachable(
                f"Store {self.name} did not answer within "
                f"{self._options.filesystem_store_timeout} seconds."
            ) from None

    # What follows runs in the store's threads.

    def _translated(self, operation: str, function: Callable[..., T], /, *args: object) -> T:
        with told(self._on_call, operation):
            try:
                return function(*args)
            except OSError as error:
                raise self._error(error) from error

    def _error(self, error: OSError) -> StoreError:
        # Without the path: messages reach clients.
        message = f"Store {self.name}: {error.strerror or 'no answer'}."
        if error.errno in _FULL:
            return Full(message)
        if error.errno in _DENIED:
            return WriteDenied(message)
        return Unreachable(message)

    def _prepare(self) -> None:
        metadata_file = self._options.filesystem_store_metadata_file
        if metadata_file:
            self._mountpoints = mountpoints(Path(metadata_file), store=self.name)
        for directory in self._directories:
            directory.prepare(file_mode=self._options.filesystem_store_file_perm)
            # A directory may be a symbolic link, and rows may hold either spelling.
            self._spellings.setdefault(os.path.realpath(directory.path), directory)

    def _directory_for(self, attempt: Attempt, size: int | None) -> Directory:
        """The directory for a new attempt; raises AlreadyThere, Full, Unreachable."""
        if len(self._directories) == 1:
            return self._directories[0]
        if any(directory.has_begun(attempt) for directory in self._directories):
            raise AlreadyThere("The attempt was begun before.")
        # Source: glance_store 5.7, _drivers/filesystem.py `_find_best_datadir`.
        for _, equals in groupby(self._directories, key=lambda directory: directory.priority):
            room, roomiest = max(
                ((directory.room(), directory) for directory in equals), key=lambda one: one[0]
            )
            if room > 0 and room >= (size or 0):
                return roomiest
        raise Full(f"Store {self.name}: no directory has room for that.")

    def _publish(self, attempt: Attempt) -> Directory:
        if len(self._directories) == 1:
            directory = self._directories[0]
            directory.link(attempt)
            directory.forget(attempt)
            return directory
        directory = self._begun_in(attempt)
        others = [one for one in self._directories if one is not directory]
        # No file system makes a name in two of them at once, so each looks before its link and
        # after it. Of two that meet, one at most does not see the other; if both do, both step
        # back.
        for pause_s in _STEPS_BACK:
            if any(other.has(attempt.key) for other in others):
                break
            directory.link(attempt)
            if not any(other.has(attempt.key) for other in others):
                directory.forget(attempt)
                return directory
            directory.unlink(attempt)
            time.sleep(random.uniform(0, pause_s))  # noqa: S311 - not a secret
        raise AlreadyThere(f"Store {self.name} already holds an object {attempt.key}.")

    def _begun_in(self, attempt: Attempt) -> Directory:
        for directory in self._directories:
            if directory.has_begun(attempt):
                return directory
        raise AttemptLost(f"Store {self.name}: the attempt at writing {attempt.key} was discarded.")

    def _discard(self, attempt: Attempt, published: bool) -> None:
        # First the places: from here on a `publish` of this attempt fails, and one that came before
        # has left the object that is looked for next.
        for directory in self._directories:
            directory.discard(attempt)
        if published:
            for directory in self._directories:
                directory.discard_object(attempt)

    def _open(self, file: OpenFile, directory: Directory, key: str) -> bytes:
        try:
            return file.open()
        except FileNotFoundError:
            directory.check_mounted()
            raise NotFound(f"Store {self.name} has no object {key}.") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR):
                raise BadLocation(f"Store {self.name}: {key} is not a file.") from None
            if error.errno in _DENIED:
                raise ReadDenied(f"Store {self.name}: {error.strerror}.") from error
            raise

    def _free(self) -> int:
        # Directories of one file system have its room together.
        rooms = {
            Path(directory.path).stat().st_dev: directory.room() for directory in self._directories
        }
        return sum(rooms.values())

    def _marks(self) -> frozenset[str]:
        return frozenset(filter(None, (directory.mark() for directory in self._directories)))

    def _begun(self, before: float) -> list[Attempt]:
        return [one for directory in self._directories for one in directory.begun(before=before)]
