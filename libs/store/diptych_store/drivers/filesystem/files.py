"""The files of objects: one that is written, one that is read, one that is copied from.

Every method is one step for a thread of the store's. The locks are for calls that were given up
while they hung: what follows waits behind them instead of using or closing a descriptor under their
feet.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import stat
import threading
from collections.abc import Iterator

from diptych_store.errors import AlreadyThere
from diptych_store.protocol import Block, ByteRange

# Tells whose object it is, where the file system has extended attributes. They are the file's, not
# the name's: an object that was taken over from another store, by a link, has both.
_OWNER = "user.diptych.attempt"
_TAKER = "user.diptych.taken-by"

_HOLE = 64 * 1024
_ZEROS = bytes(_HOLE)
# Bytes that are copied in one step: a cancelled copy waits for the end of a step.
_STEP = 16 * 1024 * 1024

# Milliseconds that a thread waits for a socket to take more. One with a fast client does at once,
# and coming back for it would cost more than what is sent; the others must not keep a thread.
_SOON_MS = 2

# Bytes after which the kernel is asked to begin to write them to the disk: else it begins when all
# have to be durable, and whoever sent them waits for that.
_BEHIND = 16 * 1024 * 1024
_SYNC_FILE_RANGE_WRITE = 2  # <linux/fs.h>
_libc = ctypes.CDLL(None)

_FICLONE = 0x40049409  # <linux/fs.h>
# What `copy_file_range` answers between file systems that cannot do it between them.
_CANNOT = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


class Source:
    """A file that is copied from, of another store or this one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0
        self.descriptor = -1
        self._lock = threading.Lock()
        self._closed = False

    def open(self) -> bool:
        """Open the file; False if this process cannot open it, or it is none."""
        with self._lock:
            if self._closed:
                return False
            try:
                # Not blocking, or a FIFO put there by somebody would hang the thread.
                self.descriptor = os.open(
                    self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                )
            except OSError:
                return False
            about = os.fstat(self.descriptor)
            self.size = about.st_size
            return stat.S_ISREG(about.st_mode)

    def close(self) -> None:
        """Close the file if it is open."""
        with self._lock:
            self._closed = True
            descriptor, self.descriptor = self.descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)


class Place:
    """The file of an attempt while it is written."""

    def __init__(self, path: str, *, token: str, mode: int, sparse: bool) -> None:
        self.size = 0
        self._path = path
        self._token = token
        self._mode = mode
        self._sparse = sparse
        self._on_its_way = 0
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
                raise _begun_before() from None
            self._made = True
            # Not everywhere; without it `discard` relies on its caller alone.
            with contextlib.suppress(OSError):
                os.setxattr(self._descriptor, _OWNER, self._token.encode())
            if self._mode > 0:
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
            if self.size - self._on_its_way >= _BEHIND:
                _begin_to_write_back(self._descriptor, self._on_its_way, self.size)
                self._on_its_way = self.size

    def share(self, source: Source, final: str) -> bool:
        """Make the file a second name of the source's; False, and nothing made, if that cannot be.

        For a source whose own name goes soon. A file is shared by one attempt in its life, or else
        a late `discard` could not tell that attempt's object from another's. Nor is it where the
        key is taken: `publish` takes a file that is there already for its own.
        """
        with self._lock:
            if self._abandoned or os.path.lexists(final):
                return False
            try:
                os.link(source.path, self._path, follow_symlinks=False)
            except FileExistsError:
                raise _begun_before() from None
            except OSError:  # another file system, or one without links
                return False
            self._made = True
            if self._take(source):
                self.size = source.size
                return True
            os.unlink(self._path)  # noqa: PTH108 - beside its os.link
            self._made = False
            return False

    def _take(self, source: Source) -> bool:
        try:
            self._descriptor = os.open(
                self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            )
            if not os.path.samestat(os.fstat(self._descriptor), os.fstat(source.descriptor)):
                return False
            os.setxattr(self._descriptor, _TAKER, self._token.encode(), os.XATTR_CREATE)
            if self._mode > 0:
                os.fchmod(self._descriptor, self._mode)
            # A sweep goes by the time of the last change.
            os.utime(self._descriptor)
            os.fsync(self._descriptor)
        except OSError:  # no extended attributes, or somebody else's file
            return False
        finally:
            self._close()
        return True

    def clone(self, source: Source) -> bool:
        """Have the file share the source's blocks; False if the file system has no such thing."""
        with self._lock:
            try:
                fcntl.ioctl(self._descriptor, _FICLONE, source.descriptor)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                return False
            return True

    def copy(self, source: Source, start: int) -> int:
        """Have the kernel copy bytes from `start` on; returns where to go on, holes left out."""
        with self._lock:
            try:
                start = os.lseek(source.descriptor, start, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole until the end
                    return source.size
                raise
            end = os.lseek(source.descriptor, start, os.SEEK_HOLE)
            length = min(end - start, _STEP)
            count = _copied(source.descriptor, self._descriptor, start, length)
            if not count:
                raise OSError(errno.EIO, "the source became shorter while it was copied")
            return start + count

    def finish_copy(self, source: Source) -> None:
        """Make the copied bytes durable."""
        with self._lock:
            if os.fstat(source.descriptor).st_size != source.size:
                raise OSError(errno.EIO, "the source changed while it was copied")
            os.ftruncate(self._descriptor, source.size)  # it may end with a hole
            self.size = source.size
            self._sync()

    def finish(self) -> None:
        """Make the bytes durable."""
        with self._lock:
            if self._sparse:  # the file may end with a hole
                os.ftruncate(self._descriptor, self.size)
            self._sync()

    def abandon(self) -> None:
        """Remove the file if this made it; safe at any point, and no step has effect after it."""
        with self._lock:
            self._abandoned = True
            with contextlib.suppress(OSError):
                self._close()
            if self._made:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)  # noqa: PTH108 - beside its os.open

    def _sync(self) -> None:
        os.fsync(self._descriptor)
        self._close()  # may still tell of a failed write, on NFS

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class OpenFile:
    """An object that is read in order."""

    def __init__(self, path: str, range: ByteRange, block_size: int) -> None:
        self.size = 0
        self.length = 0
        self._path = path
        self._range = range
        self._block_size = block_size
        self._next = 0
        self._end = 0
        self._passed = 0
        self._descriptor = -1
        self._closed = False
        self._lock = threading.Lock()

    def open(self) -> bytes:
        """Open the file and return the first block; raises RangeOutside."""
        with self._lock:
            if self._closed:
                return b""
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

    def pass_to(self, socket: int, count: int) -> int | None:
        """See Reading.pass_to; begins with the range, whatever was read of it."""
        with self._lock:
            if self._descriptor < 0:
                return None
            begun = self._passed
            wanted = min(begun + count, self.length)
            while self._passed < wanted:
                start = self._range.start + self._passed
                try:
                    passed = os.sendfile(socket, self._descriptor, start, wanted - self._passed)
                except BlockingIOError:
                    if not _takes_more_soon(socket):
                        break
                except ConnectionError:
                    return None
                else:
                    if not passed:
                        raise _shorter()
                    self._passed += passed
            return self._passed - begun

    def close(self) -> None:
        """Close the file if it is open; it is not opened after this."""
        with self._lock:
            self._closed = True
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
            raise _shorter()
        self._next += len(block)
        return block


def is_owned(path: str, token: str) -> bool:
    """Whether this attempt, or nobody who can be told, made the file an object."""
    owners: set[str] = set()
    for name in (_OWNER, _TAKER):
        with contextlib.suppress(OSError):
            owners.add(os.getxattr(path, name, follow_symlinks=False).decode(errors="replace"))
    return not owners or token in owners


def is_same(one: str, other: str) -> bool:
    """Whether both names are there and of one file."""
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except FileNotFoundError:
        return False


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _begun_before() -> AlreadyThere:
    return AlreadyThere("The attempt was begun before.")


def _takes_more_soon(socket: int) -> bool:
    ready = select.poll()
    ready.register(socket, select.POLLOUT)
    return bool(ready.poll(_SOON_MS))


def _shorter() -> OSError:
    return OSError(errno.EIO, "the object is shorter than it was when it was opened")


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]


def _begin_to_write_back(descriptor: int, start: int, end: int) -> None:
    """Waits for nothing and tells of no error: making the bytes durable does, later."""
    _libc.sync_file_range(
        descriptor,
        ctypes.c_int64(start),
        ctypes.c_int64(end - start),
        ctypes.c_uint(_SYNC_FILE_RANGE_WRITE),
    )


def _parts(view: memoryview, length: int) -> Iterator[memoryview]:
    for start in range(0, len(view), length):
        yield view[start : start + length]


def _copied(source: int, target: int, start: int, length: int) -> int:
    """Copy within the kernel, to the same place; returns the number of bytes, 0 at the end."""
    try:
        count = os.copy_file_range(source, target, length, start, start)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        count = 0
    if not count:  # some file systems say so instead of refusing
        os.lseek(target, start, os.SEEK_SET)
        count = os.sendfile(target, source, start, length)
    return count
