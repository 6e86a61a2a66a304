"""What every store can be told, whatever its driver, and how options are declared."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

OPTIONS = ConfigDict(extra="ignore", frozen=True, validate_default=True)


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
