"""The type `non_nullable_fields_artifact`: fields that are never null."""

from typing import Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field

NON_NULLABLE_FIELDS_ARTIFACT: Final = ArtifactType(
    "non_nullable_fields_artifact",
    "Non Nullable Fields Artifact",
    {
        "int_not_nullable_without_default": Field("Integer", nullable=False),
        "int_not_nullable_with_default": Field(
            "Integer", required_on_activate=False, nullable=False, default=0
        ),
    },
)
