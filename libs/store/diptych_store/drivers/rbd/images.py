"""RBD images: written once and in order, read in order, removed; all for a store's threads."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from diptych_store.drivers.rbd.cluster import Cluster, Connection
from diptych_store.drivers.rbd.locations import SNAPSHOT, RbdLocation
from diptych_store.errors import (
    AlreadyThere,
    AttemptLost,
    BadLocation,
    InUse,
    NotFound,
    Unreachable,
)
from diptych_store.locations import attempt_name, attempt_named
from diptych_store.protocol import Attempt, Block, ByteRange

# Tells whose object an image is. Clones inherit it, to no effect.
OWNER = "diptych_attempt"

# No image that a location can name begins with a dot.
_BEGUN = ".attempt."
_DISCARDED = ".discarded."

MIB = 1024 * 1024
# What is sent and asked for at a time. It divides the size of the objects, so that none of these
# is part of two objects.
_PIECE = MIB
_WRITES_UNDER_WAY = 4
# Each is in memory twice while it arrives.
_READS_UNDER_WAY = 3
_HOLE = 64 * 1024
_ZEROS = bytes(_PIECE)
# An image of unknown size grows by steps that double, up to Glance's largest.
_FIRST_STEP = 16 * MIB
_LARGEST_STEP = 8 * 1024 * MIB
# An announced size is not trusted, and each image has a map of its objects.
_LARGEST_BEGINNING = 1024 * 1024 * MIB
# Seconds between tries to remove what somebody has open, who most likely is about to leave.
_PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8)


def place_of(attempt: Attempt) -> str:
    """The name of the image of an attempt."""
    return f"{_BEGUN}{attempt_name(attempt)}"


def attempt_of(name: str) -> Attempt | None:
    """The attempt whose image has this name, discarded or not; None for other images."""
    for prefix in (_BEGUN, _DISCARDED):
        if name.startswith(prefix):
            with contextlib.suppress(BadLocation):
                return attempt_named(name.removeprefix(prefix))
    return None


class Writings:
    """The names of the images that this process writes at the moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: set[str] = set()

    def begin(self, name: str) -> None:
        """Take note before the image is made."""
        with self._lock:
            self._names.add(name)

    def end(self, name: str) -> None:
        """Take note after the image was closed."""
        with self._lock:
            self._names.discard(name)

    def __contains__(self, name: str) -> bool:
        with self._lock:
            return name in self._names


class Place:
    """The image of an attempt while it is written; every method is one step for a thread.

    The lock is for calls that were given up while they hung: what follows waits behind them
    instead of closing the image under their feet.
    """

    def __init__(
        self,
        cluster: Cluster,
        attempt: Attempt,
        *,
        writings: Writings,
        expected: int | None,
        object_size: int,
        thin: bool,
    ) -> None:
        self.size = 0
        self._cluster = cluster
        self._attempt = attempt
        self._name = place_of(attempt)
        self._writings = writings
        self._allocated = min(expected or 0, _LARGEST_BEGINNING)
        self._order = object_size.bit_length() - 1
        self._thin = thin
        self._step = _FIRST_STEP // 2
        self._gathered = bytearray()
        self._under_way: deque[Any] = deque()
        self._connection: Connection | None = None
        self._image: Any = None
        self._image_id = ""
        self._made = False
        self._abandoned = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Make the image; raises AlreadyThere when the attempt was begun before."""
        with self._lock:
            if self._abandoned:
                return
            connection = self._connection = self._cluster.connect()
            # As glance_store does it; clones need layering.
            features = int(connection.client.conf_get("rbd_default_features") or 0)
            rbd = self._cluster.rbd
            self._writings.begin(self._name)
            self._made = True  # most likely, even if no answer comes
            try:
                rbd.RBD().create(
                    connection.pool,
                    self._name,
                    self._allocated,
                    self._order,
                    old_format=False,
                    features=features | rbd.RBD_FEATURE_LAYERING,
                )
            except rbd.ImageExists:
                self._made = False
                raise AlreadyThere(
                    f"Store {self._cluster.store}: the attempt was begun before."
                ) from None
            self._image = rbd.Image(connection.pool, self._name)
            self._image_id = self._image.id()
            self._image.metadata_set(OWNER, self._attempt.token)

    def append(self, block: Block) -> None:
        """Write the block; what is left of the last piece waits for more."""
        with self._lock, memoryview(block).cast("B") as view:
            start = 0
            while start < len(view):
                end = start + _PIECE - len(self._gathered)
                if self._gathered or end > len(view):
                    self._gathered += view[start:end]
                    if len(self._gathered) == _PIECE:
                        self._write(bytes(self._gathered))
                        self._gathered.clear()
                else:
                    self._write(bytes(view[start:end]))
                start = end

    def finish(self) -> None:
        """Make the bytes durable and ready to be cloned; raises AttemptLost if it was discarded."""
        with self._lock:
            if self._gathered:
                self._write(bytes(self._gathered))
                self._gathered.clear()
            while self._under_way:
                self._wait()
            if self._allocated != self.size:
                self._image.resize(self.size)
            self._image.flush()
            self._image.create_snap(SNAPSHOT)
            self._image.protect_snap(SNAPSHOT)
            self._close()
            # Only now: whoever discards the attempt from here on removes the image as well.
            connection = self._cluster.connect()
            if self._cluster.id_of(connection, self._name) != self._image_id:
                raise _lost(self._cluster, connection, self._attempt)

    def abandon(self) -> None:
        """Remove the image if this made it; safe at any point, and no step has effect after it."""
        with self._lock:
            self._abandoned = True
            while self._under_way:
                with contextlib.suppress(*self._cluster.errors):
                    self._wait()
            with contextlib.suppress(*self._cluster.errors):
                self._close()
            if self._made:
                discard(self._cluster, self._attempt, writings=self._writings, published=False)

    def _write(self, piece: bytes) -> None:
        offset = self.size
        end = offset + len(piece)
        if end > self._allocated:
            self._step = min(2 * self._step, _LARGEST_STEP)
            self._allocated = max(end, self._allocated + self._step)
            self._image.resize(self._allocated)
        for start, part in _without_zeros(piece) if self._thin else ((0, piece),):
            if len(self._under_way) == _WRITES_UNDER_WAY:
                self._wait()
            self._under_way.append(self._image.aio_write(part, offset + start, _nothing))
        self.size = end

    def _wait(self) -> None:
        _waited(self._under_way.popleft(), self._cluster)

    def _close(self) -> None:
        image, self._image = self._image, None
        try:
            if image is not None:
                image.close()
        finally:
            self._connection = None
            if self._made:
                self._writings.end(self._name)


class OpenImage:
    """An image that is read in order; every method is one step for a thread.

    The lock is for calls that were given up while they hung, as in `Place`.
    """

    def __init__(self, cluster: Cluster, location: RbdLocation, range: ByteRange) -> None:
        self.size = 0
        self.length = 0
        self._cluster = cluster
        self._location = location
        self._range = range
        self._next = 0
        self._end = 0
        self._under_way: deque[tuple[Any, int, list[bytes]]] = deque()
        self._connection: Connection | None = None
        self._image: Any = None
        self._image_id = ""
        self._snapshot_id: int | None = None
        self._closed = False
        self._lock = threading.Lock()

    def open(self) -> bytes:
        """Open the image and return the first block; raises RangeOutside, rbd.ImageNotFound."""
        with self._lock:
            if self._closed:
                return b""
            connection = self._connection = self._cluster.connect()
            snapshot = self._location.snapshot
            self._image = self._cluster.rbd.Image(
                connection.pool,
                self._location.image,
                snapshot=snapshot,
                # Without a snapshot nothing but a watch, which needs more than that, tells that the
                # image is being removed: librbd refuses to, then.
                read_only=snapshot is not None,
            )
            self._image_id = self._image.id()
            if snapshot is not None:
                self._snapshot_id = self._image.snap_get_id(snapshot)
            self.size = self._image.size()
            self.length = self._range.length_within(self.size)
            self._next = self._range.start
            self._end = self._next + self.length
            return self._read()

    def read(self) -> bytes:
        """The next block; empty at the end of the range. Raises NotFound if it was deleted."""
        with self._lock:
            return self._read()

    def close(self) -> None:
        """Close the image if it is open."""
        with self._lock:
            self._closed = True
            self._end = self._next
            while self._under_way:
                completion, _, _ = self._under_way.popleft()
                completion.wait_for_complete_and_cb()
            image, self._image = self._image, None
            if image is not None:
                image.close()
            self._connection = None

    def _read(self) -> bytes:
        if self._closed:
            return b""
        while self._next < self._end and len(self._under_way) < _READS_UNDER_WAY:
            length = min(_PIECE - self._next % _PIECE, self._end - self._next)
            came: list[bytes] = []
            completion = self._image.aio_read(self._next, length, _keep_in(came))
            self._under_way.append((completion, length, came))
            self._next += length
        if not self._under_way:
            return b""
        completion, length, came = self._under_way.popleft()
        _waited(completion, self._cluster)
        [block] = came
        if len(block) != length or not self._is_certain(block):
            raise NotFound(
                f"Store {self._cluster.store}: {self._location.image} was deleted while it was "
                "read."
            )
        return block

    def _is_certain(self, block: bytes) -> bool:
        """Whether these are bytes of the image: those of an object that was removed are zeros.

        A removal takes the snapshot first, so while that is there nothing was removed yet.
        """
        if self._connection is None or self._snapshot_id is None:
            return True
        if block != _ZEROS[: len(block)]:
            return True
        return self._cluster.has_snapshot(self._connection, self._image_id, self._snapshot_id)


def publish(cluster: Cluster, attempt: Attempt) -> None:
    """Rename the attempt's image to its key. Raises AlreadyThere, AttemptLost.

    librbd's `rename` makes the object that holds the new name, which fails if there is one; then
    it renames in the directory, which fails if the old name is not that image any more; then it
    removes the object of the old name. So one of many wins, and none after `discard`. Died between
    these, it leaves an object of the new name that `discard` or the next `publish` removes, or one
    of the old name that nobody opens. Source: Ceph 16.2 and newer, librbd/operation/
    RenameRequest.cc, and `dir_rename_image` of cls_rbd.
    """
    connection, name, key = cluster.connect(), place_of(attempt), attempt.key
    rbd = cluster.rbd
    image_id = cluster.id_of(connection, name)
    if image_id is None:
        raise _lost(cluster, connection, attempt)
    for _ in range(2):
        with contextlib.suppress(rbd.ImageExists, rbd.ImageNotFound):
            rbd.RBD().rename(connection.pool, name, key)
        holder = cluster.holder(connection, key)
        if holder == image_id:
            # Now or by an earlier call of which no answer came; that one may not have come further.
            cluster.rename_entry(connection, name, key, image_id)
        # A rename that came second may have said that all went well: librbd/Operations.cc takes
        # EEXIST for its own work.
        current = cluster.name_of(connection, image_id)
        if current == key:
            cluster.let_go(connection, name, image_id)
            return
        if current != name:
            cluster.let_go(connection, key, image_id)
            raise _lost(cluster, connection, attempt)
        if holder is not None:
            if not _is_gone(cluster, connection, holder):
                raise AlreadyThere(f"Store {cluster.store} already holds an object {key}.")
            cluster.let_go(connection, key, holder)
    raise _lost(cluster, connection, attempt)


def discard(cluster: Cluster, attempt: Attempt, *, writings: Writings, published: bool) -> None:
    """Make a later `publish` impossible, then remove the attempt's image.

    First its entry in the directory gets another name: what `publish` needs is gone at once, and
    whatever dies from here on, the image is found under that name. It is opened by its old one
    all the same. An image that is open elsewhere stays there; a process that writes it removes it
    when it is done.
    """
    connection, name, key = cluster.connect(), place_of(attempt), attempt.key
    discarded = _DISCARDED + name.removeprefix(_BEGUN)
    image_id = cluster.id_of(connection, name)
    if image_id is not None:
        cluster.rename_entry(connection, name, discarded, image_id)
    if published:
        _remove_published(cluster, connection, attempt)
    image_id = cluster.id_of(connection, discarded)
    if image_id is None:
        if cluster.id_of(connection, name) is None:
            cluster.check_pool(connection)
            cluster.let_go(connection, name)
        return
    if name in writings:
        return
    # A `publish` that was cut short may have taken the key already.
    cluster.let_go(connection, key, image_id)
    if _remove(cluster, connection, name):
        cluster.let_go(connection, name)
        cluster.remove_entry(connection, discarded, image_id)


def _remove_published(cluster: Cluster, connection: Connection, attempt: Attempt) -> None:
    """Remove the object of the key if it is this attempt's; raises Unreachable if it is in use."""
    image_id = cluster.id_of(connection, attempt.key)
    # Without an entry there may be an image whose removal died: librbd knows it by its name.
    if image_id is not None and _owner(cluster, connection, image_id) != attempt.token:
        return
    if not _remove(cluster, connection, attempt.key):
        raise Unreachable(f"Store {cluster.store}: the image {attempt.key} is in use.")


def delete(cluster: Cluster, location: RbdLocation) -> None:
    """Delete an image by Glance's rules. Raises NotFound, InUse.

    Its snapshot goes first: it does not while there are clones that need it (InUse). An image with
    other snapshots, or with clones that let their parent go, is moved to the trash. Source:
    glance_store 5.7, _drivers/rbd.py `_delete_image`.
    """
    connection, rbd = cluster.connect(), cluster.rbd
    in_use = InUse(f"Store {cluster.store}: the image {location.image} is in use.")
    try:
        # A delete that died after this has to be finished, so a missing image is no news yet.
        with contextlib.suppress(rbd.ImageNotFound):
            if not _remove_snapshot(cluster, connection, location.image, location.snapshot):
                raise in_use
        try:
            rbd.RBD().remove(connection.pool, location.image)
        except rbd.ImageHasSnapshots:
            rbd.RBD().trash_move(connection.pool, location.image)
    except rbd.ImageNotFound:
        cluster.check_pool(connection)
        raise NotFound(f"Store {cluster.store} has no object {location.image}.") from None
    except rbd.ImageBusy:
        raise in_use from None


def attempts(cluster: Cluster, *, before: float) -> list[Attempt]:
    """Attempts whose image was last written to before this time, in seconds since the epoch."""
    connection = cluster.connect()
    found: list[Attempt] = []
    for name in cluster.rbd.RBD().list(connection.pool):
        attempt = attempt_of(name)
        if attempt is not None and _written(cluster, connection, name, attempt) < before:
            found.append(attempt)
    return found


def _written(cluster: Cluster, connection: Connection, name: str, attempt: Attempt) -> float:
    image_id = cluster.id_of(connection, name)
    try:
        with cluster.rbd.Image(connection.pool, image_id=image_id, read_only=True) as image:
            modified: datetime = image.modify_timestamp()
            return modified.timestamp()
    except cluster.rbd.ImageNotFound:
        # Half made, or half removed.
        return cluster.touched(connection, place_of(attempt))


def _remove(cluster: Cluster, connection: Connection, name: str) -> bool:
    """Remove an image of an attempt; False if it is in use, and stays so."""
    rbd = cluster.rbd
    for pause_s in (*_PAUSES_S, None):
        with contextlib.suppress(rbd.ImageBusy):
            try:
                is_free = _remove_snapshot(cluster, connection, name, SNAPSHOT)
            except rbd.ImageNotFound:
                is_free = True
            if is_free:
                # An image that has no entry of this name, as a discarded one, is removed and said
                # to have been missing.
                with contextlib.suppress(rbd.ImageNotFound):
                    rbd.RBD().remove(connection.pool, name)
                return True
        if pause_s is not None:
            time.sleep(pause_s)
    return False


def _remove_snapshot(
    cluster: Cluster, connection: Connection, name: str, snapshot: str | None
) -> bool:
    """Remove the snapshot if it is there; False if the image is open elsewhere.

    Raises rbd.ImageNotFound if there is no such image, rbd.ImageBusy if the snapshot has clones.
    """
    rbd = cluster.rbd
    with rbd.Image(connection.pool, name) as image:
        # Before anything is changed: an image that can't be removed in the end stays as it is.
        if len(list(image.watchers_list())) > 1:
            return False
        if snapshot is not None:
            with contextlib.suppress(rbd.ImageNotFound):
                # Unprotected already, by a removal that died or by somebody's hand.
                with contextlib.suppress(rbd.InvalidArgument):
                    image.unprotect_snap(snapshot)
                image.remove_snap(snapshot)
        return True


def _owner(cluster: Cluster, connection: Connection, image_id: str) -> str | None:
    """The token of the attempt that wrote the image, None where nothing tells it."""
    try:
        with cluster.rbd.Image(connection.pool, image_id=image_id, read_only=True) as image:
            return str(image.metadata_get(OWNER))
    except (cluster.rbd.ImageNotFound, KeyError):
        return None


def _is_gone(cluster: Cluster, connection: Connection, image_id: str) -> bool:
    """Whether the image of this id is no more, or no longer anybody's."""
    name = cluster.name_of(connection, image_id)
    if name is not None:
        return name.startswith(_DISCARDED)
    try:
        # One that is being restored has its name before it has its entry.
        cluster.rbd.RBD().trash_get(connection.pool, image_id)
    except cluster.rbd.ImageNotFound:
        return True
    return False


def _lost(cluster: Cluster, connection: Connection, attempt: Attempt) -> AttemptLost:
    cluster.check_pool(connection)
    return AttemptLost(
        f"Store {cluster.store}: the attempt at writing {attempt.key} was discarded."
    )


def _waited(completion: Any, cluster: Cluster) -> None:
    completion.wait_for_complete_and_cb()
    code: int = completion.get_return_value()
    if code < 0:
        raise cluster.rbd.OSError("a request failed", errno=-code)


def _nothing(completion: Any) -> None:
    """What aio_write calls at the end."""


def _keep_in(came: list[bytes]) -> Any:
    def keep(completion: Any, data: bytes | None) -> None:
        came.append(data or b"")

    return keep


def _without_zeros(piece: bytes) -> Iterator[tuple[int, bytes]]:
    """The parts of a piece, with where they begin, that have no hole's length of zeros in them."""
    if piece == _ZEROS[: len(piece)]:
        return
    begin: int | None = None
    for start in range(0, len(piece), _HOLE):
        part = piece[start : start + _HOLE]
        if part == _ZEROS[: len(part)]:
            if begin is not None:
                yield begin, piece[begin:start]
                begin = None
        elif begin is None:
            begin = start
    if begin is not None:
        yield begin, piece[begin:]
