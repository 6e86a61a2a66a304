"""What every store can be told, whatever its driver, and how options are declared."""

from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

OPTIONS = ConfigDict(extra="ignore", frozen=True, validate_default=True, hide_input_in_errors=True)


def check_address(address: str) -> str:
    """Return a server's address, with or without a scheme, if its host and port can be such.

    Raises ValueError.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        is_one = bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without an address of IPv6 in them, a port beyond 65535
        is_one = False
    if not is_one:
        raise ValueError("a host and a port that can be one")
    return address


class DriverOptions(BaseModel):
    """The options of one driver; a field's name is the option's, its description is for operators.

    Secrets are `SecretStr`. `UNUSED` are options of Glance's that have no effect here, and why;
    `NEVER_WRITES` is for a driver that can only read.
    """

    model_config = OPTIONS

    UNUSED: ClassVar[Mapping[str, str]] = {}
    NEVER_WRITES: ClassVar[bool] = False

    def places(self) -> Mapping[str, str]:
        """Where the objects are, in words without a secret, each with the option that says so.

        The same place has the same words, however it is written: two stores must not share one.
        """
        return {}

    def authorities(self) -> Mapping[str, str]:
        """The files of certificates that servers' are checked against, by the options' names."""
        return {}

    def properties(self) -> Mapping[str, object]:
        """What /v2/info/stores/detail tells, under Glance's names; never a secret."""
        return {}


class CommonOptions(BaseModel):
    """What every store has, whatever its driver."""

    model_config = OPTIONS

    store_description: str = Field(default="", description="Shown to the users of /v2/info/stores.")
    weight: int = Field(
        default=0, description="Where several stores have the data: the highest is read."
    )
    read_only: bool = Field(default=False, description="Refuse to write and to delete.")
