"""The type `murano_packages`: applications and libraries for Murano."""

from typing import Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.validators import AllowedValues, Unique

MURANO_PACKAGES: Final = ArtifactType(
    "murano_packages",
    "Murano packages",
    {
        "package": Field(
            "Blob",
            required_on_activate=False,
            max_blob_size=104_857_600,
            description="The package itself.",
        ),
        "type": Field(
            "String",
            default="Application",
            validators=[AllowedValues(["Application", "Library"])],
            description="Whether it is for users or for other packages.",
        ),
        "display_name": Field(
            "String", mutable=True, description="What the package is called for people."
        ),
        "categories": Field(
            "String", "list", mutable=True, description="What the package is listed under."
        ),
        "class_definitions": Field(
            "String",
            "list",
            validators=[Unique()],
            description="The classes that the package defines.",
        ),
        # Glare's schema says nothing of these two.
        "inherits": Field("String", "dict"),
        "keywords": Field("String", "list", mutable=True),
        "dependencies": Field(
            "Link",
            "list",
            required_on_activate=False,
            description="The packages that this one needs.",
        ),
    },
)
