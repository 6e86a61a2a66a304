"""The connection to a Ceph cluster, and the few requests that librbd has no call for.

A pool keeps the name of an image in two places: the object `rbd_id.<name>` holds its id, and
`rbd_directory` maps names to ids and back. librbd opens by the first and lists by the second; both
are what clients of different versions agree on. Everything here blocks: it is for the threads of a
store.
"""

import errno
import os
import struct
import threading
import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from diptych_store.errors import Full, StoreError, Unreachable, WriteDenied
from diptych_store.options.rbd import RbdOptions

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EPERM, errno.EACCES, errno.EROFS}
# The cluster no longer talks to this client: it was fenced off, or shut down.
_LOST = {errno.ESHUTDOWN, errno.ENOTCONN}
_DIRECTORY = "rbd_directory"


@dataclass(frozen=True, slots=True)
class Libraries:
    """Ceph's Python bindings, which have no types and need not be installed."""

    rados: Any
    rbd: Any


def libraries() -> Libraries:
    """Import the bindings; raises ImportError with what to install."""
    try:
        return Libraries(import_module("rados"), import_module("rbd"))
    except ImportError as error:
        raise ImportError(
            "A store of type rbd needs Ceph's Python bindings: Debian's packages python3-rados "
            "and python3-rbd, which fit Debian's own python3 and no other version; they are not "
            f"on PyPI ({error})."
        ) from error


@dataclass(frozen=True, slots=True)
class Connection:
    """What is open: the client, the pool, and which cluster that is.

    `pool` is a rados.Ioctx; those who use an image keep this alive until they have closed it.
    """

    client: Any
    pool: Any
    fsid: str


class Cluster:
    """A cluster that is connected to when it is first needed; one connection for all threads."""

    def __init__(self, store: str, options: RbdOptions, using: Libraries) -> None:
        self.rados = using.rados
        self.rbd = using.rbd
        self.pool_name = options.rbd_store_pool
        self.store = store
        self._options = options
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._fsid = self._configured_fsid()

    @property
    def fsid(self) -> str | None:
        """The cluster's id, None if it was neither configured nor seen yet; asks nobody."""
        return self._fsid

    def connect(self) -> Connection:
        """The connection, made if there is none. Raises Unreachable, WriteDenied."""
        with self._lock:
            if self._connection is None:
                self._connection = self._connected()
                self._fsid = self._connection.fsid
            return self._connection

    def disconnect(self) -> None:
        """Close the connection; all images have to be closed before."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.pool.close()
            connection.client.shutdown()

    def check_pool(self, connection: Connection) -> None:
        """Raise Unreachable if the pool is gone: then everything in it looks as if missing."""
        connection.client.wait_for_latest_osdmap()
        if not connection.client.pool_exists(self.pool_name):
            raise Unreachable(f"Store {self.store}: there is no pool {self.pool_name}.")

    def error(self, error: Exception) -> StoreError:
        """What an error of the bindings means, where its place gives it no better meaning."""
        number: int | None = getattr(error, "errno", None)
        if number in _LOST:
            # The next call connects anew. This one's images still need the old connection, which
            # goes with the last of them.
            with self._lock:
                self._connection = None
        # Without the words of the bindings, which tell names of images: messages reach clients.
        message = f"Store {self.store}: {os.strerror(number) if number else 'no answer'}."
        if number in _FULL:
            return Full(message)
        if number in _DENIED:
            return WriteDenied(message)
        return Unreachable(message)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The classes of all errors of the bindings."""
        return (self.rados.Error, self.rbd.Error)

    def _connected(self) -> Connection:
        try:
            client = self._client()
        except self.rados.ObjectNotFound as error:
            raise Unreachable(
                f"Store {self.store}: Ceph's configuration file was not found."
            ) from error
        try:
            return self._opened(client)
        except BaseException:
            client.shutdown()
            raise

    def _opened(self, client: Any) -> Connection:
        within_s = str(self._options.rbd_store_timeout)
        client.conf_set("client_mount_timeout", str(self._options.connect_timeout_s))
        client.conf_set("rados_mon_op_timeout", within_s)
        client.conf_set("rados_osd_op_timeout", within_s)
        # It would let each upload keep 24 MiB and tell of a failed write late. What is written is
        # sent by several requests at a time instead.
        client.conf_set("rbd_cache", "false")
        try:
            client.connect()
        except self.rados.ObjectNotFound as error:
            raise Unreachable(f"Store {self.store}: its user's keyring was not found.") from error
        except self.rados.OSError as error:
            if error.errno not in _DENIED:
                raise
            raise WriteDenied(f"Store {self.store}: Ceph does not let its user in.") from error
        try:
            pool = client.open_ioctx(self.pool_name)
        except self.rados.ObjectNotFound as error:
            raise Unreachable(f"Store {self.store}: there is no pool {self.pool_name}.") from error
        # A full pool refuses at once instead of letting writers wait for room.
        pool.set_osdmap_full_try()
        return Connection(client=client, pool=pool, fsid=str(client.get_fsid()))

    def _client(self) -> Any:
        user = self._options.rbd_store_user
        return self.rados.Rados(
            conffile=self._options.rbd_store_ceph_conf,
            **({} if user is None else {"rados_id": user}),
        )

    def _configured_fsid(self) -> str | None:
        try:
            client = self._client()
        except self.rados.Error:
            return None  # no such file: to connect will tell
        fsid = str(client.conf_get("fsid") or "")
        client.shutdown()
        return fsid if fsid.strip("0-") else None

    # Requests to the pool that librbd has no call for.

    def id_of(self, connection: Connection, name: str) -> str | None:
        """The id of the image that the directory has under a name."""
        return self._ask_directory(connection, "dir_get_id", name)

    def name_of(self, connection: Connection, image_id: str) -> str | None:
        """The name that the directory has for an image."""
        return self._ask_directory(connection, "dir_get_name", image_id)

    def rename_entry(self, connection: Connection, old: str, new: str, image_id: str) -> None:
        """Rename in the directory alone, atomically; nothing happens if `old` is not that image.

        From then on a `rename` of librbd's from the old name fails, wherever it had got to.
        """
        self._change_directory(connection, "dir_rename_image", old, new, image_id)

    def remove_entry(self, connection: Connection, name: str, image_id: str) -> None:
        """Remove from the directory alone; nothing happens if `name` is not that image."""
        self._change_directory(connection, "dir_remove_image", name, image_id)

    def holder(self, connection: Connection, name: str) -> str | None:
        """The id of the image that is opened under a name, which may be one that is gone."""
        try:
            content: bytes = connection.pool.read(_name_object(name))
        except self.rados.ObjectNotFound:
            return None
        return _decoded(content)

    def let_go(self, connection: Connection, name: str, image_id: str | None = None) -> None:
        """Let no image be opened under a name any more; with an id, only if it is that image."""
        with self.rados.WriteOpCtx() as operation:
            if image_id is not None:
                operation.cmpext(_encoded(image_id), 0)
            operation.remove()
            try:
                connection.pool.operate_write_op(operation, _name_object(name))
            except self.rados.Error as error:
                # Numbers from 4095 on tell at which byte the comparison failed.
                if error.errno != errno.ENOENT and error.errno < 4095:
                    raise

    def touched(self, connection: Connection, name: str) -> float:
        """When the object of a name was written, in seconds since the epoch; 0 if it is gone."""
        try:
            _, modified = connection.pool.stat(_name_object(name))
        except self.rados.ObjectNotFound:
            return 0.0
        return time.mktime(modified)

    def has_snapshot(self, connection: Connection, image_id: str, snapshot_id: int) -> bool:
        """Whether an image still has a snapshot, one in the trash included."""
        try:
            connection.pool.execute(
                f"rbd_header.{image_id}", "rbd", "get_size", struct.pack("<Q", snapshot_id)
            )
        except self.rados.ObjectNotFound:
            return False
        return True

    def _ask_directory(self, connection: Connection, method: str, asked: str) -> str | None:
        try:
            _, answer = connection.pool.execute(_DIRECTORY, "rbd", method, _encoded(asked))
        except self.rados.ObjectNotFound:
            return None
        return _decoded(answer)

    def _change_directory(self, connection: Connection, method: str, *parts: str) -> None:
        try:
            connection.pool.execute(_DIRECTORY, "rbd", method, _encoded(*parts))
        except self.rados.Error as error:
            if error.errno not in (errno.ENOENT, errno.ESTALE):
                raise


def _name_object(name: str) -> str:
    return f"rbd_id.{name}"


def _encoded(*texts: str) -> bytes:
    """Strings as Ceph encodes them: each after its length, 32 bits little-endian."""
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)


def _decoded(data: bytes) -> str:
    (length,) = struct.unpack_from("<I", data)
    return data[4 : 4 + length].decode()
