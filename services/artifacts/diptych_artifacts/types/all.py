"""The type `all`: the artifacts of every type, by what they have in common; read only."""

from typing import Final

from diptych_artifacts.types.artifact_type import ALL_NAME, ArtifactType
from diptych_artifacts.types.fields import Field

ALL: Final = ArtifactType(
    ALL_NAME,
    "All Artifacts",
    {
        "type_name": Field(
            "String",
            sortable=True,
            filter_ops=("like", "eq", "neq", "in"),
            description="The artifact's type.",
        )
    },
)
