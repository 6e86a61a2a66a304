"""The fields that every artifact has."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.validators import (
    UUID,
    AllowedValues,
    ForbiddenChars,
    MaxStrLen,
    MinStrLen,
    Unique,
    Version,
)

STATUSES: Final = ("drafted", "active", "deactivated", "deleted")
VISIBILITIES: Final = ("private", "public")
DEFAULT_VERSION: Final = "0.0.0"

FIELDS: Final[Mapping[str, Field]] = MappingProxyType(
    {
        "id": Field(
            "String",
            system=True,
            nullable=False,
            sortable=True,
            validators=[UUID()],
            description="The artifact's UUID.",
        ),
        "name": Field(
            "String",
            required_on_activate=False,
            nullable=False,
            sortable=True,
            filter_ops=("like", "eq", "neq", "in"),
            validators=[MinStrLen(1)],
            description="What the artifact is called; with its version it is unique.",
        ),
        "owner": Field(
            "String",
            system=True,
            required_on_activate=False,
            nullable=False,
            sortable=True,
            description="The project that the artifact belongs to.",
        ),
        "status": Field(
            "String",
            mutable=True,
            nullable=False,
            default="drafted",
            sortable=True,
            validators=[AllowedValues(STATUSES)],
            description="Where the artifact is in its life.",
        ),
        "created_at": Field(
            "DateTime",
            system=True,
            nullable=False,
            sortable=True,
            description="When the artifact was created.",
        ),
        "updated_at": Field(
            "DateTime",
            mutable=True,
            system=True,
            nullable=False,
            sortable=True,
            description="When the artifact was last changed.",
        ),
        "activated_at": Field(
            "DateTime",
            required_on_activate=False,
            system=True,
            sortable=True,
            description="When the artifact last became active.",
        ),
        "description": Field(
            "String",
            mutable=True,
            required_on_activate=False,
            default="",
            filter_ops=(),
            validators=[MaxStrLen(4096)],
            description="What the artifact is, for people.",
        ),
        "tags": Field(
            "String",
            "list",
            mutable=True,
            required_on_activate=False,
            filter_ops=(),  # they have a grammar of their own
            validators=[Unique(convert_to_set=True)],
            element_validators=[ForbiddenChars([",", "/"]), MinStrLen(1)],
            description="Words to find the artifact by.",
        ),
        "metadata": Field(
            "String",
            "dict",
            required_on_activate=False,
            element_validators=[MinStrLen(1)],
            description="What else is to be known of the artifact, by keys of the owner's choice.",
        ),
        "visibility": Field(
            "String",
            mutable=True,
            nullable=False,
            default="private",
            sortable=True,
            validators=[AllowedValues(VISIBILITIES)],
            description="Whether other projects see the artifact.",
        ),
        "version": Field(
            "Version",
            required_on_activate=False,
            nullable=False,
            default=DEFAULT_VERSION,
            sortable=True,
            filter_ops=("eq", "neq", "in", "gt", "gte", "lt", "lte"),
            validators=[Version()],
            description="The artifact's version, a Semantic Version.",
        ),
        "display_type_name": Field(
            "String",
            system=True,
            sortable=True,
            filter_ops=("like", "eq", "neq", "in"),
            description="What the artifact's type is called for people.",
        ),
    }
)
