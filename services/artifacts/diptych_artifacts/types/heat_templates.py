"""The type `heat_templates`: stacks that Heat can make."""

from typing import Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field

HEAT_TEMPLATES: Final = ArtifactType(
    "heat_templates",
    "Heat Templates",
    {
        "environments": Field(
            "Link",
            "dict",
            mutable=True,
            description="The environments that go with the template, by name.",
        ),
        "template": Field("Blob", description="The template itself."),
        "nested_templates": Field(
            "Blob", "dict", description="The templates that this one is made of, by name."
        ),
        "default_envs": Field(
            "String",
            "dict",
            mutable=True,
            description="What holds where a user names no environment.",
        ),
    },
)
