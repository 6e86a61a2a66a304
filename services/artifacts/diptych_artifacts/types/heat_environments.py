"""The type `heat_environments`: what Heat fills its templates in with."""

from typing import Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field

HEAT_ENVIRONMENTS: Final = ArtifactType(
    "heat_environments",
    "Heat Environments",
    {"environment": Field("Blob", description="The environment itself.")},
)
