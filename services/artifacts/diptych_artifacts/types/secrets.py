"""The type `secrets`: keys, certificates and passphrases, stored encrypted or not at all."""

from typing import Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.validators import AllowedValues, MinNumberSize

SECRETS: Final = ArtifactType(
    "secrets",
    "Secrets",
    {
        "payload": Field("Blob", description="The secret itself."),
        "payload_content_encoding": Field(
            "String",
            required_on_activate=False,
            default="base64",
            filter_ops=(),
            validators=[AllowedValues(["base64"])],
            description="How the secret is encoded.",
        ),
        "secret_type": Field(
            "String",
            required_on_activate=False,
            default="opaque",
            sortable=True,
            filter_ops=("eq",),
            validators=[
                AllowedValues(
                    ["symmetric", "public", "private", "passphrase", "certificate", "opaque"]
                )
            ],
            description="What kind of secret it is.",
        ),
        "algorithm": Field(
            "String",
            required_on_activate=False,
            filter_ops=("eq",),
            description="The algorithm that the secret is for, in the owner's words.",
        ),
        "bit_length": Field(
            "Integer",
            required_on_activate=False,
            sortable=True,
            validators=[MinNumberSize(1)],
            description="The length of the key in bits, as its owner says.",
        ),
        "mode": Field(
            "String",
            required_on_activate=False,
            filter_ops=("eq",),
            description="The mode of the algorithm, in the owner's words.",
        ),
    },
    encrypted=True,
)
