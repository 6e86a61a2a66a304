"""Objects as files: `<datadir>/<key>`, as Glance lays them out.

An attempt is `<datadir>/.attempts/<token>.<key>` until `link(2)` makes it the object, which never
replaces one. So the directory has to be one file system that knows hard links; a local one or NFS.
"""

import contextlib
import errno
import os
import stat
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Self, TypeVar

from diptych_store.calls import OnCall, tell_nobody, told
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
from diptych_store.locations import check_key, check_token, file_location, split_file_location
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.protocol import WHOLE, Attempt, Block, ByteRange, Reading
from diptych_store.threads import Threads

T = TypeVar("T")

_ATTEMPTS = ".attempts"
# Tells whose object it is, where the file system has extended attributes.
_OWNER = "user.diptych.attempt"
_HOLE = 64 * 1024
_ZEROS = bytes(_HOLE)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class FilesystemStore:
    """A directory; see docs/drivers/filesystem.md.

    Has the capabilities LocalPaths, Measures and Sweeps. Every call into the file system is made
    by the store's own threads: a mount that hangs blocks neither the loop nor another store.
    """

    def __init__(
        self,
        name: str,
        options: FilesystemOptions,
        *,
        read_only: bool,
        on_call: OnCall = tell_nobody,
    ) -> None:
        self.name = name
        self._on_call = on_call
        self._options = options
        self._read_only = read_only
        self._datadir = os.path.normpath(options.filesystem_store_datadir)
        self._directories = {self._datadir}
        self._attempts = f"{self._datadir}/{_ATTEMPTS}"
        self._threads = Threads(
            f"store-{name}",
            count=options.filesystem_store_thread_pool_size,
            timeout_s=options.filesystem_store_timeout or None,
        )

    @classmethod
    async def open_directory(
        cls,
        name: str,
        options: FilesystemOptions,
        *,
        read_only: bool = False,
        on_call: OnCall = tell_nobody,
    ) -> Self:
        """Make the directory where it is missing and try what the store needs of it.

        Raises Full, WriteDenied, ReadDenied, Unreachable. A read-only store makes and writes
        nothing; it needs the directory to be there.
        """
        store = cls(name, options, read_only=read_only, on_call=on_call)
        try:
            await store._run(store._prepare)
        except BaseException:
            store._threads.close()
            raise
        return store

    def recognises(self, location: str) -> bool:
        """See Store.recognises."""
        try:
            return split_file_location(location)[0] in self._directories
        except BadLocation:
            return False

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        """See Store.write; `size` is of no use here."""
        self._check_writable()
        place = _Place(
            self._place(attempt),
            token=attempt.token,
            mode=self._options.filesystem_store_file_perm,
            sparse=self._options.filesystem_thin_provisioning,
        )
        try:
            await self._run(place.begin)
            async for block in blocks:
                await self._run(place.append, block)
            await self._run(place.finish)
        except BaseException:
            # Behind a call that hangs and was given up it comes later than this returns, or never:
            # then `attempts` finds what is left.
            await self._threads.settle(self._threads.submit(place.abandon))
            raise
        return place.size

    async def publish(self, attempt: Attempt) -> str:
        """See Store.publish; publishing again after Unreachable is safe."""
        self._check_writable()
        place, final = self._place(attempt), self._file(attempt.key)
        await self._run(self._publish, attempt, place, final)
        return file_location(self._datadir, attempt.key)

    async def discard(self, attempt: Attempt, *, published: bool = False) -> None:
        """See Store.discard."""
        self._check_writable()
        final = self._file(attempt.key) if published else None
        await self._run(self._discard, attempt, self._place(attempt), final)

    @asynccontextmanager
    async def open(self, location: str, range: ByteRange = WHOLE) -> AsyncGenerator[Reading, None]:
        """See Store.open. The first block is read on entry, each other one ahead of its use."""
        key = self._key(location)
        file = _OpenFile(self._file(key), range, self._options.filesystem_store_chunk_size)
        try:
            first = await self._run(self._open, file, key)
            async with aclosing(self._blocks(file, first)) as blocks:
                yield Reading(size=file.size, length=file.length, blocks=blocks)
        finally:
            await self._threads.settle(self._threads.submit(file.close))

    async def delete(self, location: str) -> None:
        """See Store.delete."""
        self._check_writable()
        key = self._key(location)
        await self._run(self._delete, key)

    def local_path(self, location: str) -> Path:
        """See LocalPaths."""
        return Path(self._file(self._key(location)))

    async def free(self) -> int | None:
        """See Measures; what an unprivileged user may still write."""
        return await self._run(self._free)

    async def attempts(self, *, older_than: timedelta) -> AsyncIterator[Attempt]:
        """See Sweeps."""
        for attempt in await self._run(
            self._list_attempts, time.time() - older_than.total_seconds()
        ):
            yield attempt

    async def aclose(self) -> None:
        """Let the threads end; readings and writings have to be over."""
        self._threads.close()

    def _key(self, location: str) -> str:
        directory, key = split_file_location(location)
        if directory not in self._directories:
            raise BadLocation(
                f"Store {self.name} has no location in another directory than its own."
            )
        return key

    def _file(self, key: str) -> str:
        return f"{self._datadir}/{check_key(key)}"

    def _place(self, attempt: Attempt) -> str:
        return f"{self._attempts}/{check_token(attempt.token)}.{check_key(attempt.key)}"

    def _check_writable(self) -> None:
        if self._read_only:
            raise WriteDenied(f"Store {self.name} is read-only.")

    async def _run(self, function: Callable[..., T], /, *args: object) -> T:
        return await self._result(self._threads.submit(self._translated, function, *args))

    async def _result(self, future: Future[T]) -> T:
        try:
            return await self._threads.result(future)
        except TimeoutError:
            raise Unreachable(
                f"Store {self.name} did not answer within "
                f"{self._options.filesystem_store_timeout} seconds."
            ) from None

    def _translated(self, function: Callable[..., T], /, *args: object) -> T:
        with told(self._on_call, function.__name__.strip("_")):
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

    # What follows runs in the store's threads.

    def _prepare(self) -> None:
        if self._read_only:
            if not Path(self._datadir).is_dir():
                raise Unreachable(f"Store {self.name}: there is no directory {self._datadir}.")
        else:
            Path(self._attempts).mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_directory(self._datadir)
            self._try_link()
        # A datadir may be a symbolic link, and rows may hold either spelling.
        self._directories.add(os.path.realpath(self._datadir))

    def _try_link(self) -> None:
        """Refuse at the start what would fail at the end of the first upload."""
        place = f"{self._attempts}/{uuid.uuid4()}.probe"
        with open(place, "xb"):  # noqa: PTH123 - an exclusive, empty file
            pass
        try:
            os.link(place, f"{place}.link")
            os.unlink(f"{place}.link")  # noqa: PTH108 - beside its os.link
        except OSError as error:
            raise Unreachable(
                f"Store {self.name}: the file system of {self._datadir} has no hard links "
                f"({error.strerror})."
            ) from error
        finally:
            os.unlink(place)  # noqa: PTH108 - beside its os.link

    def _check_mounted(self) -> None:
        """Raise Unreachable rather than call an object missing because its disk is.

        A file system that is not mounted looks like an empty directory. An object that is taken
        for missing would be answered as `no data`, or its row be dropped and its bytes forgotten.
        """
        if not Path(self._datadir if self._read_only else self._attempts).is_dir():
            raise Unreachable(f"Store {self.name}: its directory is gone; is it mounted?")

    def _publish(self, attempt: Attempt, place: str, final: str) -> None:
        try:
            os.link(place, final, follow_symlinks=False)
        except FileExistsError:
            # Over NFS a link that was made may be answered so when the request had to be repeated.
            if not _is_same_file(place, final):
                raise AlreadyThere(
                    f"Store {self.name} already holds an object {attempt.key}."
                ) from None
        except FileNotFoundError:
            self._check_mounted()
            raise AttemptLost(
                f"Store {self.name}: the attempt at writing {attempt.key} was discarded."
            ) from None
        _sync_directory(self._datadir)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place)  # noqa: PTH108 - beside its os.link

    def _discard(self, attempt: Attempt, place: str, final: str | None) -> None:
        # First the place: from here on a `publish` of this attempt fails, and one that came before
        # has left the object that is looked for next.
        try:
            os.unlink(place)  # noqa: PTH108 - beside its os.link
        except FileNotFoundError:
            self._check_mounted()
        _sync_directory(self._attempts)
        if final is not None and _owner(final) in (None, attempt.token):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(final)  # noqa: PTH108 - beside its os.link
            _sync_directory(self._datadir)

    def _open(self, file: "_OpenFile", key: str) -> bytes:
        try:
            return file.open()
        except FileNotFoundError:
            self._check_mounted()
            raise NotFound(f"Store {self.name} has no object {key}.") from None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR):
                raise BadLocation(f"Store {self.name}: {key} is not a file.") from None
            if error.errno in _DENIED:
                raise ReadDenied(f"Store {self.name}: {error.strerror}.") from error
            raise

    async def _blocks(self, file: "_OpenFile", first: bytes) -> AsyncGenerator[Block, None]:
        # A block is a `bytes` of its own, never a buffer that is used again: a server may keep
        # what it was given to send for longer than until it asks for more.
        block = first
        while block:
            ahead = self._threads.submit(self._translated, file.read)
            yield block
            del block
            block = await self._result(ahead)

    def _delete(self, key: str) -> None:
        try:
            os.unlink(self._file(key))  # noqa: PTH108 - beside its os.link
        except FileNotFoundError:
            self._check_mounted()
            raise NotFound(f"Store {self.name} has no object {key}.") from None
        except IsADirectoryError:
            raise BadLocation(f"Store {self.name}: {key} is not a file.") from None
        _sync_directory(self._datadir)

    def _free(self) -> int:
        about = os.statvfs(self._datadir)
        return about.f_bavail * about.f_frsize

    def _list_attempts(self, before: float) -> list[Attempt]:
        if self._read_only:
            return []
        found: list[Attempt] = []
        with os.scandir(self._attempts) as entries:
            for entry in entries:
                token, _, key = entry.name.partition(".")
                # The one is not ours, the other was published or discarded a moment ago.
                with contextlib.suppress(BadLocation, FileNotFoundError):
                    attempt = Attempt(key=check_key(key), token=check_token(token))
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        found.append(attempt)
        return found


class _Place:
    """The file of an attempt while it is written; every method is one step for a thread.

    The lock is for calls that were given up while they hung: what follows waits behind them
    instead of using or closing a descriptor under their feet.
    """

    def __init__(self, path: str, *, token: str, mode: int, sparse: bool) -> None:
        self.size = 0
        self._path = path
        self._token = token
        self._mode = mode
        self._sparse = sparse
        self._descriptor = -1
        self._made = False
        self._abandoned = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Make the file; raises AlreadyThere when the attempt was begun before."""
        with self._lock:
            if self._abandoned:
                return
            try:
                self._descriptor = os.open(
                    self._path,
                    os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                    0o666,
                )
            except FileExistsError:
                raise AlreadyThere("The attempt was begun before.") from None
            self._made = True
            # Not everywhere; without it `discard` relies on its caller alone.
            with contextlib.suppress(OSError):
                os.setxattr(self._descriptor, _OWNER, self._token.encode())
            if self._mode:
                os.fchmod(self._descriptor, self._mode)

    def append(self, block: Block) -> None:
        """Write the whole block; zeros become a hole where the store is thin."""
        with self._lock, memoryview(block) as view:
            for part in _parts(view, _HOLE) if self._sparse else (view,):
                if self._sparse and bytes(part) == _ZEROS[: len(part)]:
                    os.lseek(self._descriptor, len(part), os.SEEK_CUR)
                else:
                    _write_all(self._descriptor, part)
            self.size += len(view)

    def finish(self) -> None:
        """Make the bytes durable."""
        with self._lock:
            if self._sparse:  # the file may end with a hole
                os.ftruncate(self._descriptor, self.size)
            os.fsync(self._descriptor)
            self._close()  # may still tell of a failed write, on NFS

    def abandon(self) -> None:
        """Remove the file if this made it; safe at any point, and no step has effect after it."""
        with self._lock:
            self._abandoned = True
            with contextlib.suppress(OSError):
                self._close()
            if self._made:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)  # noqa: PTH108 - beside its os.open

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class _OpenFile:
    """An object that is read in order; every method is one step for a thread.

    The lock is for calls that were given up while they hung, as in `_Place`.
    """

    def __init__(self, path: str, range: ByteRange, block_size: int) -> None:
        self.size = 0
        self.length = 0
        self._path = path
        self._range = range
        self._block_size = block_size
        self._next = 0
        self._end = 0
        self._descriptor = -1
        self._lock = threading.Lock()

    def open(self) -> bytes:
        """Open the file and return the first block; raises RangeOutside."""
        with self._lock:
            # Not blocking, or a FIFO put there by somebody would hang the thread.
            self._descriptor = os.open(
                self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            )
            about = os.fstat(self._descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self.size = about.st_size
            self.length = self._range.length_within(self.size)
            self._next = self._range.start
            self._end = self._next + self.length
            return self._read()

    def read(self) -> bytes:
        """The next block; empty at the end of the range."""
        with self._lock:
            return self._read()

    def close(self) -> None:
        """Close the file if it is open."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            self._end = self._next
            if descriptor >= 0:
                os.close(descriptor)

    def _read(self) -> bytes:
        wanted = min(self._block_size, self._end - self._next)
        if not wanted:
            return b""
        block = os.pread(self._descriptor, wanted, self._next)
        if not block:
            raise OSError(errno.EIO, "the object is shorter than it was when it was opened")
        self._next += len(block)
        return block


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]


def _parts(view: memoryview, length: int) -> Iterator[memoryview]:
    for start in range(0, len(view), length):
        yield view[start : start + length]


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_same_file(one: str, other: str) -> bool:
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except FileNotFoundError:
        return False


def _owner(path: str) -> str | None:
    """The token of the attempt that wrote the file, None where nothing tells it."""
    try:
        return os.getxattr(path, _OWNER, follow_symlinks=False).decode(errors="replace")
    except OSError:
        return None
