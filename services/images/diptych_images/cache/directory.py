"""Cached images on disk, in blocks: what all processes of a node share, and how they do.

    usage                     the bytes that all blocks take; its lock is for every change
    images/<image>/about      of what the blocks are: size, digest, size of a block
    images/<image>/hits       how often it was had from here; its time is that of the last use
    images/<image>/verified   there if all blocks are, and were held against the digest
    images/<image>/7          block 7, whole
    images/<image>/8.part     block 8 as far as it has come, locked by the process that fetches it
    queue/<image>             to be fetched, the oldest first

A block that is begun counts with its full length, so that what is on the disk is never more than
`usage` says, and that never more than the limit. A process may die at any point: what it was
writing has no lock any more, and `usage` then says too much until `recount`.

All calls block, and raise OSError when the directory cannot be used.
"""

import contextlib
import enum
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import orjson

_PART: Final = ".part"
# What file systems give files room in: what `du` says is bounded, too.
_UNIT: Final = 4096
_READ_SIZE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """What is cached: `size` bytes, whose digest by hashlib's `algorithm` is `digest`."""

    id: str
    size: int
    algorithm: str
    digest: str


@dataclass(frozen=True, slots=True)
class Cached:
    """What is there of an image; `stored` of its `size` bytes. Times are seconds since 1970."""

    image: Image
    stored: int
    hits: int
    last_accessed: float
    last_modified: float
    is_verified: bool


class Refusal(enum.Enum):
    """Why a block is not to be fetched by the one who asked for it."""

    THERE = "it is there"
    BUSY = "somebody fetches it"
    NO_ROOM = "what could make room for it is in use"


class Dropped(OSError):
    """The image was dropped from the cache while a block of it was written."""


class Part:
    """A block that is being fetched: to be written, and then published or abandoned."""

    def __init__(self, directory: "Directory", path: Path, descriptor: int, length: int) -> None:
        self._directory = directory
        self._path = path
        self._descriptor = descriptor
        self._length = length
        self._written = 0

    @property
    def missing(self) -> int:
        """Bytes that are not written yet."""
        return self._length - self._written

    def write(self, data: memoryview) -> None:
        """Append; readers see it at once. Raises Dropped."""
        if os.fstat(self._descriptor).st_nlink == 0:
            raise Dropped("The image was dropped from the cache.")
        while data:
            written = os.write(self._descriptor, data)
            self._written += written
            data = data[written:]

    def publish(self) -> None:
        """Make it a block that is there, durably. Raises Dropped."""
        # A block of zeros, as a power failure may leave one, would be served for the image's.
        os.fdatasync(self._descriptor)
        with self._directory.locked():
            if not self._is_there():
                raise Dropped("The image was dropped from the cache.")
            self._path.rename(self._path.with_suffix(""))
        self._close()

    def abandon(self) -> None:
        """Remove it; nothing happens if it was published."""
        if self._descriptor < 0:
            return
        try:
            with self._directory.locked() as usage:
                if self._is_there():
                    self._path.unlink()
                    usage.take(-_room(self._length))
        finally:
            self._close()

    def _is_there(self) -> bool:
        # The name may be another's by now.
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        return False

    def _close(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1


class _Usage:
    """The bytes that all blocks take, while the lock is held."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        text = os.pread(descriptor, 32, 0)
        self.bytes = int(text) if text.strip().isdigit() else 0

    def take(self, size: int) -> None:
        """Count `size` bytes more, or less."""
        self.set(max(0, self.bytes + size))

    def set(self, size: int) -> None:
        """Say how many they are."""
        self.bytes = size
        os.pwrite(self._descriptor, f"{size:<20}".encode(), 0)


class Directory:
    """The cache of a node; see the module."""

    def __init__(self, path: Path, *, max_size: int, block_size: int) -> None:
        self.max_size = max_size
        self.block_size = block_size
        self._path = path
        self._images = path / "images"
        self._queue = path / "queue"

    def prepare(self) -> None:
        """Make the directories where they are missing, and look at what others left."""
        for path in (self._path, self._images, self._queue):
            path.mkdir(mode=0o750, parents=True, exist_ok=True)
        self.recount()
        self.prune()

    @contextmanager
    def locked(self) -> Generator[_Usage]:
        """Hold the lock of the directory, which no process keeps for longer than a few calls."""
        descriptor = os.open(
            self._path / "usage", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o640
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _Usage(descriptor)
        finally:
            os.close(descriptor)

    # Reading and writing of blocks.

    def read(self, image: Image, start: int, at_most: int) -> bytes:
        """Bytes from `start` on, of a block that is there or of what has come of it; none if none.

        No file stays open: one that is removed meanwhile takes no room on the disk.
        """
        number, within = divmod(start, self.block_size)
        length = min(at_most, self._length(image, number) - within)
        folder = self._images / image.id
        if _about(folder) != self._told(image):
            return b""  # blocks of another size, or other bytes; `claim` removes them
        if within == 0:
            # Those that take long have not been used when they were begun.
            with contextlib.suppress(FileNotFoundError):
                os.utime(folder / "hits")
        for name in (str(number), f"{number}{_PART}"):
            try:
                descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                return os.pread(descriptor, length, within)
            finally:
                os.close(descriptor)
        return b""

    def claim(self, image: Image, number: int) -> Part | Refusal:
        """Begin a block that is not there, if there is room or what is used least can make some."""
        length = self._length(image, number)
        with self.locked() as usage:
            folder = self._folder(image, usage)
            block = folder / str(number)
            if block.exists():
                if block.stat().st_size == length:
                    return Refusal.THERE
                # Cut by a disk that failed: who wants the rest of it would ask for ever.
                self._remove(folder, usage)
                folder = self._folder(image, usage)
            path = folder / f"{number}{_PART}"
            if path.exists():
                if _is_locked(path):
                    return Refusal.BUSY
                path.unlink()
                usage.take(-_room(length))
            self._make_room(usage, _room(length), besides=image.id)
            if usage.bytes + _room(length) > self.max_size:
                return Refusal.NO_ROOM
            # Before the file is there: who dies in between leaves a sum that is too large.
            usage.take(_room(length))
            try:
                descriptor = os.open(
                    path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode=0o640
                )
            except OSError:
                usage.take(-_room(length))
                raise
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return Part(self, path, descriptor, length)

    def gap_end(self, image: Image, number: int, end: int) -> int:
        """Where after the block something is there, or is being fetched; `end` at most."""
        names = {name.removesuffix(_PART) for name in _names(self._images / image.id)}
        last = -(-end // self.block_size)
        taken = (one for one in range(number + 1, last) if str(one) in names)
        return min(next(taken, last) * self.block_size, end)

    def hit(self, image: Image) -> None:
        """Count a use."""
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self._images / image.id / "hits", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                text = os.pread(descriptor, 32, 0)
                os.pwrite(descriptor, str(_count(text) + 1).encode(), 0)
            finally:
                os.close(descriptor)

    def is_verified(self, image: Image) -> bool:
        """Whether all of it is there, and was held against its digest."""
        folder = self._images / image.id
        return (folder / "verified").exists() and _about(folder) == self._told(image)

    def confirm(self, image: Image) -> bool:
        """Note that what is there has the right digest; False if not all of it is there."""
        with self.locked():
            folder = self._images / image.id
            if _about(folder) != self._told(image) or not self._is_whole(image):
                return False
            (folder / "verified").touch()
            return True

    def verify(self, image: Image, stopping: threading.Event) -> bool | None:
        """Read it all and hold it against its digest; None if not all of it is there.

        One that is not right is dropped. None as well when `stopping` is set meanwhile.
        """
        if _about(self._images / image.id) != self._told(image) or not self._is_whole(image):
            return None
        found = hashlib.new(image.algorithm, usedforsecurity=False)
        position = 0
        while position < image.size:
            if stopping.is_set():
                return None
            data = self.read(image, position, _READ_SIZE)
            if not data:
                return None
            found.update(data)
            position += len(data)
        if found.hexdigest() != image.digest:
            self.drop(image.id)
            return False
        return self.confirm(image) or None

    # What is there, and what goes.

    def used(self) -> int:
        """The bytes that all blocks take, those that are begun with their full length."""
        with self.locked() as usage:
            return usage.bytes

    def cached(self) -> list[Cached]:
        """All images of which there is anything, those in part included."""
        return [found for found in map(_look_at, self._folders()) if found is not None]

    def drop(self, image_id: str) -> bool:
        """Remove an image, even while it is read or fetched; whether there was anything of it."""
        folder = self._images / image_id
        if not folder.exists():
            return False
        with self.locked() as usage:
            self._remove(folder, usage)
        return True

    def drop_all(self) -> int:
        """Remove all images; how many there were."""
        return sum(self.drop(folder.name) for folder in self._folders())

    def clean(self, stalled_s: float) -> int:
        """Remove what can't be of use; the number of images of which something was removed.

        That are blocks whose process died, images in part of which no block came for `stalled_s`
        seconds, and what is no image at all.
        """
        removed = 0
        before = time.time() - stalled_s
        for folder in self._folders():
            with self.locked() as usage:
                found = _look_at(folder)
                dead = self._remove_dead_parts(folder, usage)
                # Whoever makes or renames a file in it gives a folder its time.
                is_stalled = (
                    found is not None
                    and found.stored < found.image.size
                    and folder.stat().st_mtime < before
                    and not _has_parts(folder)
                )
                if found is None or is_stalled:
                    self._remove(folder, usage)
            removed += bool(dead or found is None or is_stalled)
        return removed

    def prune(self) -> tuple[int, int]:
        """Remove what is used least until the limit holds; how many images and bytes went.

        It always holds, unless it was lowered since.
        """
        with self.locked() as usage:
            return self._make_room(usage, 0, besides=None)

    def recount(self) -> int:
        """Count anew what all blocks take, without those whose process died."""
        with self.locked() as usage:
            total = 0
            for folder in self._folders():
                self._remove_dead_parts(folder, usage)
                total += _taken(folder)
            usage.set(total)
            return total

    # What is to be fetched.

    def enqueue(self, image_id: str) -> None:
        """Ask for an image to be fetched."""
        (self._queue / image_id).touch(mode=0o640)

    def queued(self) -> list[str]:
        """What is to be fetched, the oldest first."""
        found: list[tuple[float, str]] = []
        with os.scandir(self._queue) as entries:
            for one in entries:
                with contextlib.suppress(FileNotFoundError):  # it was fetched meanwhile
                    found.append((one.stat().st_mtime, one.name))
        return [name for _, name in sorted(found)]

    def unqueue(self, image_id: str) -> bool:
        """Take an image back out of the queue; whether it was there."""
        with contextlib.suppress(FileNotFoundError):
            (self._queue / image_id).unlink()
            return True
        return False

    def unqueue_all(self) -> int:
        """Empty the queue; how many were in it."""
        return sum(self.unqueue(image_id) for image_id in self.queued())

    def hold(self, image_id: str) -> int | None:
        """Keep others from fetching what is queued until the descriptor is closed; None if they do.

        None as well if it is not queued any more.
        """
        try:
            descriptor = os.open(self._queue / image_id, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        os.close(descriptor)
        return None

    # The rest is called with the lock held, where it changes anything.

    def _folders(self) -> list[Path]:
        try:
            return sorted(path for path in self._images.iterdir() if path.is_dir())
        except FileNotFoundError:
            return []

    def _told(self, image: Image) -> dict[str, object]:
        return {
            "size": image.size,
            "algorithm": image.algorithm,
            "digest": image.digest,
            "block_size": self.block_size,
        }

    def _folder(self, image: Image, usage: _Usage) -> Path:
        """The folder of the image, made if need be; one of other bytes, or other blocks, goes."""
        folder = self._images / image.id
        if _about(folder) == self._told(image):
            return folder
        self._remove(folder, usage)
        folder.mkdir(mode=0o750)
        (folder / "hits").write_text("0")
        (folder / "about").write_bytes(orjson.dumps(self._told(image)))
        return folder

    def _length(self, image: Image, number: int) -> int:
        return min(self.block_size, image.size - number * self.block_size)

    def _is_whole(self, image: Image) -> bool:
        number = -(-image.size // self.block_size)
        return sum(name.isdigit() for name in _names(self._images / image.id)) == number

    def _make_room(self, usage: _Usage, wanted: int, *, besides: str | None) -> tuple[int, int]:
        """Remove images, the one that was used the longest ago first; how many and their bytes."""
        before, removed = usage.bytes, 0
        if usage.bytes + wanted <= self.max_size:
            return 0, 0
        for folder in sorted(self._folders(), key=_last_used):
            # Of two that grow at a time neither is to push the other out.
            if folder.name == besides or _has_parts(folder):
                continue
            self._remove(folder, usage)
            removed += 1
            if usage.bytes + wanted <= self.max_size:
                break
        return removed, before - usage.bytes

    def _remove_dead_parts(self, folder: Path, usage: _Usage) -> int:
        about = _about(folder)
        dead = [
            folder / name
            for name in _names(folder)
            if name.endswith(_PART) and not _is_locked(folder / name)
        ]
        for path in dead:
            path.unlink()
            usage.take(-_room_of(path.name, about))
        return len(dead)

    def _remove(self, folder: Path, usage: _Usage) -> None:
        taken = _taken(folder)
        # Last what tells the lengths of the blocks: who dies here leaves what can still be counted.
        for name in sorted(_names(folder), key=lambda name: name == "about"):
            (folder / name).unlink()
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()
        usage.take(-taken)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are all that is wanted of thousands
    except FileNotFoundError:
        return []


def _about(folder: Path) -> dict[str, object] | None:
    """What the folder says of its blocks; None if it can't be read."""
    try:
        found = cast(object, orjson.loads((folder / "about").read_bytes()))
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return cast("dict[str, object]", found) if isinstance(found, dict) else None


def _room(length: int) -> int:
    """What a file of this length takes on the disk."""
    return -(-length // _UNIT) * _UNIT


def _room_of(name: str, about: dict[str, object] | None) -> int:
    """What a block takes, whole, by the name of its file; 0 for other files."""
    number = name.removesuffix(_PART)
    if about is None or not number.isdigit():
        return 0
    size, block_size = cast(int, about["size"]), cast(int, about["block_size"])
    return _room(min(block_size, size - int(number) * block_size))


def _taken(folder: Path) -> int:
    about = _about(folder)
    return sum(_room_of(name, about) for name in _names(folder))


def _has_parts(folder: Path) -> bool:
    return any(name.endswith(_PART) and _is_locked(folder / name) for name in _names(folder))


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _count(text: bytes) -> int:
    # A power failure may leave zeros.
    digits = text.rstrip(b"\0")
    return int(digits) if digits.isdigit() else 0


def _last_used(folder: Path) -> float:
    try:
        return (folder / "hits").stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _look_at(folder: Path) -> Cached | None:
    about = _about(folder)
    if about is None:
        return None
    image = Image(
        folder.name,
        cast(int, about["size"]),
        cast(str, about["algorithm"]),
        cast(str, about["digest"]),
    )
    block_size = cast(int, about["block_size"])
    stored = sum(
        min(block_size, image.size - int(name) * block_size)
        for name in _names(folder)
        if name.isdigit()
    )
    verified = folder / "verified"
    try:
        return Cached(
            image,
            stored,
            hits=_count((folder / "hits").read_bytes()),
            last_accessed=_last_used(folder),
            last_modified=(verified if verified.exists() else folder).stat().st_mtime,
            is_verified=verified.exists(),
        )
    except FileNotFoundError:
        return None  # it was removed meanwhile
