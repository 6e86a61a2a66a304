"""The options of the filesystem store."""

import os
from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from diptych_store.options.common import DriverOptions


def _octal(value: object) -> object:
    return int(value, 8) if isinstance(value, str) else value


class FilesystemOptions(DriverOptions):
    """A directory of this host, or one that all hosts mount."""

    UNUSED: ClassVar[Mapping[str, str]] = {
        "filesystem_store_metadata_file": "nothing is told of a directory beyond its path",
        "filesystem_store_threadpool_threshold": "a full pool of threads holds up its store alone",
    }

    filesystem_store_datadir: Annotated[str, Field(pattern=r"^/[^\r\n]*$")] = Field(
        default="/var/lib/glance/images",
        description="The directory, an absolute path. Each store needs one of its own.",
    )
    filesystem_store_file_perm: Annotated[int, BeforeValidator(_octal), Field(le=0o777)] = Field(
        default=0,
        description="Octal permissions of a new object's file, e.g. 640; 0 or less: by the umask.",
    )
    filesystem_store_chunk_size: Annotated[int, Field(ge=4096, le=64 * 1024 * 1024)] = Field(
        default=1024 * 1024, description="Bytes that are read at a time."
    )
    filesystem_thin_provisioning: bool = Field(
        default=False, description="Leave holes for runs of zeros of 64 KiB."
    )
    filesystem_store_timeout: Annotated[float, Field(ge=0)] = Field(
        default=0,
        description="Seconds after which a call into the file system is given up (fsync of a whole "
        "object included); 0: never. Set it for network mounts.",
    )
    filesystem_store_thread_pool_size: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10, description="Calls into the file system at a time, in each process."
    )

    def places(self) -> Mapping[str, str]:
        """See DriverOptions.places."""
        return {os.path.realpath(self.filesystem_store_datadir): "filesystem_store_datadir"}

    def properties(self) -> Mapping[str, object]:
        """See DriverOptions.properties."""
        return {
            "data_dir": self.filesystem_store_datadir,
            "chunk_size": self.filesystem_store_chunk_size,
            "thin_provisioning": self.filesystem_thin_provisioning,
        }
