"""The type `tosca_templates`: topologies of services in OASIS TOSCA."""

from typing import Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field

TOSCA_TEMPLATES: Final = ArtifactType(
    "tosca_templates",
    "TOSCA Templates",
    {
        "template_format": Field("String", description="The format of the template."),
        "template": Field("Blob", description="The template itself."),
    },
)
