"""A pool of Ceph, looked at and changed with the plain bindings, as Nova or an operator would."""

import asyncio
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

    def data_objects(self) -> list[int]:
        """The numbers of the objects that have data, of all images."""
        keys = [str(one.key) for one in self.pool.list_objects()]
        return sorted(int(key.rpartition(".")[2], 16) for key in keys if key.startswith("rbd_data"))

    def wipe(self) -> None:
        """Remove what a test that failed has left."""
        for one in list(self.pool.list_objects()):
            if one.key != "rbd_info":
                self.pool.remove_object(one.key)

    def is_open(self) -> bool:
        """Whether somebody has an image of the pool open to change it."""
        for one in self.pool.list_objects():
            prefix, _, image_id = str(one.key).partition(".")
            if prefix == "rbd_header":
                with self.rbd.Image(self.pool, image_id=image_id, read_only=True) as image:
                    if list(image.watchers_list()):
                        return True
        return False

    async def until_closed(self) -> None:
        """Wait until nobody has; fails after a minute."""
        async with asyncio.timeout(60):
            while await asyncio.to_thread(self.is_open):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.2)
