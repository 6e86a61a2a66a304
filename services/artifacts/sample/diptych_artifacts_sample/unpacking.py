"""The type `unpacking_artifact`: an archive whose files are in a folder once it is uploaded."""

from typing import Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.unpacking import Unpack

UNPACKING_ARTIFACT: Final = ArtifactType(
    "unpacking_artifact",
    "Unpacking Artifact",
    {
        "zip": Field(
            "Blob",
            required_on_activate=False,
            max_blob_size=100_000,
            description="The archive, as it was uploaded.",
        ),
        "content": Field(
            "Blob",
            "dict",
            required_on_activate=False,
            system=True,
            description="The files in the archive.",
        ),
    },
    unpack={"zip": Unpack(into="content")},
)
