"""Locations in a Ceph cluster, as Glance writes them and Nova and Cinder read them."""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from diptych_store.errors import BadLocation
from diptych_store.locations import check_key, for_display

# The name that Nova and Cinder expect of the snapshot that they clone.
SNAPSHOT = "snap"

_URI = re.compile(r"rbd://([^/]+)(?:/([^/]+)/([^/]+)/([^/]+))?")


@dataclass(frozen=True, slots=True)
class RbdLocation:
    """Where an image is.

    In the short form, which Glance wrote before images could be cloned, `fsid`, `pool` and
    `snapshot` are None: the store's own cluster and pool, and the image as it is.
    """

    image: str
    fsid: str | None = None
    pool: str | None = None
    snapshot: str | None = None

    def __str__(self) -> str:
        if self.fsid is None or self.pool is None or self.snapshot is None:
            return f"rbd://{self.image}"
        parts = (self.fsid, self.pool, self.image, self.snapshot)
        return "rbd://" + "/".join(quote(part, safe="") for part in parts)


def parse_location(location: str) -> RbdLocation:
    """Read `rbd://<fsid>/<pool>/<image>/<snapshot>` or `rbd://<image>`; raises BadLocation.

    The four parts are percent-encoded, the image of the short form is not: glance_store 5.7,
    _drivers/rbd.py `StoreLocation`.
    """
    match = _URI.fullmatch(location)
    if match is None:
        raise BadLocation(f"{for_display(location)} is not the location of an RBD image.")
    if match[2] is None:
        return RbdLocation(image=check_key(match[1]))
    fsid, pool, image, snapshot = (unquote(part) for part in match.groups())
    return RbdLocation(
        image=check_key(image),
        fsid=check_key(fsid),
        pool=check_key(pool),
        snapshot=check_key(snapshot),
    )
