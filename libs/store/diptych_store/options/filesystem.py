"""The options of the filesystem store."""

import os
from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from diptych_store.options.common import DriverOptions


def _octal(value: object) -> object:
    return int(value, 8) if isinstance(value, str) else value


def _directories(text: str) -> dict[str, int]:
    """The priority of each directory; one without a priority has 0, as in Glance."""
    found: dict[str, int] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        path, colon, number = (part.strip() for part in line.rpartition(":"))
        if not colon:
            path, number = line, ""
        try:
            priority = int(number or "0")
        except ValueError:
            priority = None
        if priority is None or not path.startswith("/"):
            raise PydanticCustomError(
                "directories", "an absolute path and a number in each line: /directory:priority"
            )
        if found.setdefault(os.path.normpath(path), priority) != priority:
            raise PydanticCustomError("directories", "one priority for each directory")
    return found


def _checked(text: str) -> str:
    _directories(text)
    return text


class FilesystemOptions(DriverOptions):
    """A directory of this host, or one that all hosts mount."""

    UNUSED: ClassVar[Mapping[str, str]] = {
        "filesystem_store_threadpool_threshold": "a full pool of threads holds up its store alone",
    }

    filesystem_store_datadir: Annotated[str, Field(pattern=r"^/[^\r\n]*$")] = Field(
        default="/var/lib/glance/images",
        description="The directory, an absolute path. Each store needs one of its own.",
    )
    filesystem_store_datadirs: Annotated[str, AfterValidator(_checked)] = Field(
        default="",
        description="Several directories instead of one, each as directory:priority; repeat the "
        "option for each. New objects go to the highest priority that has room for them, among "
        "equals to the directory with most room.",
    )
    filesystem_store_metadata_file: Annotated[str, Field(pattern=r"^(/[^\r\n]*)?$")] = Field(
        default="",
        description="A JSON file with id and mountpoint, or a list of such, which are shown with "
        "the locations of new objects below that mountpoint. Read at the start.",
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
    filesystem_store_shared: bool = Field(
        default=True,
        description="All hosts have the same directory under this path, and one that has another "
        "refuses to start. Off: each host may have its own.",
    )

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if self.filesystem_store_datadirs and "filesystem_store_datadir" in self.model_fields_set:
            raise PydanticCustomError(
                "directories",
                "this or filesystem_store_datadir, not both",
                {"option": "filesystem_store_datadirs"},
            )
        return self

    def directories(self) -> Mapping[str, int]:
        """The directories, normalised, each with its priority; the highest first."""
        several = _directories(self.filesystem_store_datadirs)
        if not several:
            return {os.path.normpath(self.filesystem_store_datadir): 0}
        return dict(sorted(several.items(), key=lambda one: -one[1]))

    def places(self) -> Mapping[str, str]:
        """See DriverOptions.places."""
        several = bool(self.filesystem_store_datadirs)
        option = "filesystem_store_datadirs" if several else "filesystem_store_datadir"
        return {os.path.realpath(path): option for path in self.directories()}

    def properties(self) -> Mapping[str, object]:
        """See DriverOptions.properties."""
        return {
            "data_dir": ", ".join(self.directories()),
            "chunk_size": self.filesystem_store_chunk_size,
            "thin_provisioning": self.filesystem_thin_provisioning,
        }
