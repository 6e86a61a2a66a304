"""The options of the rbd store."""

import os
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from diptych_store.options.common import DriverOptions

_Name = Field(min_length=1, pattern=r"^[^/@\r\n]*$")


class RbdOptions(DriverOptions):
    """A pool of a Ceph cluster."""

    rbd_store_chunk_size: Annotated[int, Field(ge=1, le=32)] = Field(
        default=8,
        description="MiB of the RADOS objects that an image is cut into; rounded down to a power "
        "of two.",
    )
    rbd_store_pool: Annotated[str, _Name] = Field(
        default="images", description="The pool of the images."
    )
    rbd_store_user: Annotated[str | None, _Name] = Field(
        default=None,
        description="The Ceph user without `client.`; unset: librados's own choice, `admin`.",
    )
    rbd_store_ceph_conf: str = Field(
        default="",
        description="Ceph's configuration file, which names the monitors and the user's keyring; "
        "empty: where librados looks for one.",
    )
    rados_connect_timeout: Annotated[int, Field(ge=-1)] = Field(
        default=-1,
        description="Seconds within which the cluster has to be reached; 0 and -1: as "
        "`rbd_store_timeout`.",
    )
    rbd_thin_provisioning: bool = Field(
        default=False, description="Leave out runs of zeros of 64 KiB."
    )
    rbd_store_timeout: Annotated[int, Field(ge=1)] = Field(
        default=60,
        description="Seconds after which a request that the cluster does not answer is given up.",
    )
    rbd_store_thread_pool_size: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10, description="Calls into the cluster at a time, in each process."
    )

    @property
    def connect_timeout_s(self) -> int:
        """Seconds within which the cluster has to be reached."""
        connecting_s = self.rados_connect_timeout
        return connecting_s if connecting_s > 0 else self.rbd_store_timeout

    def places(self) -> Mapping[str, str]:
        """See DriverOptions.places: a pool of the cluster of a file."""
        conf = self.rbd_store_ceph_conf or "/etc/ceph/ceph.conf"
        return {f"pool {self.rbd_store_pool} of {os.path.realpath(conf)}": "rbd_store_pool"}

    def properties(self) -> Mapping[str, object]:
        """See DriverOptions.properties."""
        return {
            "chunk_size": self.rbd_store_chunk_size,
            "pool": self.rbd_store_pool,
            "thin_provisioning": self.rbd_thin_provisioning,
        }
