"""A pool of Ceph, looked at and changed with the plain bindings, as Nova or an operator would."""

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from dev.ceph import Ceph

# What librbd keeps in every pool, whatever is in it.
_EVERYWHERE = {"rbd_children", "rbd_directory", "rbd_info", "rbd_trash"}


class Pool:
    """A connection to one pool as a user of `dev.ceph`; blocks, and is closed in the end."""

    def __init__(self, ceph: Ceph, name: str, *, user: str = "admin") -> None:
        self.name = name
        self.rbd: Any = import_module("rbd")
        self.client: Any = import_module("rados").Rados(conffile=str(ceph.conf), rados_id=user)
        self.client.connect()
        self.fsid = str(self.client.get_fsid())
        self.pool: Any = self.client.open_ioctx(name)

    def close(self) -> None:
        self.pool.close()
        self.client.shutdown()

    @contextmanager
    def image(self, name: str, *, snapshot: str | None = None) -> Generator[Any]:
        with self.rbd.Image(self.pool, name, snapshot=snapshot) as image:
            yield image

    def names(self) -> list[str]:
        return sorted(self.rbd.RBD().list(self.pool))

    def trash(self) -> list[str]:
        return sorted(one["name"] for one in self.rbd.RBD().trash_list(self.pool))

    def everything(self) -> list[str]:
        """All objects of RADOS but those of librbd's own, and all names."""
        objects = {one.key for one in self.pool.list_objects()} - _EVERYWHERE
        return sorted([*objects, *self.names(), *self.trash()])
