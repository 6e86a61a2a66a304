"""The type `images`: images of disks, to boot servers from."""

from typing import Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.validators import UUID, AllowedValues, MinNumberSize

IMAGES: Final = ArtifactType(
    "images",
    "Images",
    {
        "container_format": Field(
            "String",
            validators=[AllowedValues(["ami", "ari", "aki", "bare", "ovf", "ova", "docker"])],
            description="What the image is wrapped in.",
        ),
        "disk_format": Field(
            "String",
            validators=[
                AllowedValues(
                    ["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso"]
                )
            ],
            description="The format of the disk.",
        ),
        "min_ram": Field(
            "Integer",
            required_on_activate=False,
            validators=[MinNumberSize(0)],
            description="The least memory that a server needs to boot from the image, in MiB.",
        ),
        "min_disk": Field(
            "Integer",
            required_on_activate=False,
            validators=[MinNumberSize(0)],
            description="The smallest disk that a server needs for the image, in GiB.",
        ),
        "image": Field(
            "Blob",
            required_on_activate=False,
            max_blob_size=1_073_741_824_000,
            description="The image itself.",
        ),
        "kernel_id": Field(
            "String",
            required_on_activate=False,
            validators=[UUID()],
            description="The artifact with the kernel to boot this one with.",
        ),
        "ramdisk_id": Field(
            "String",
            required_on_activate=False,
            validators=[UUID()],
            description="The artifact with the initial ramdisk to boot this one with.",
        ),
        "instance_uuid": Field(
            "String",
            required_on_activate=False,
            description="The server that the image was made from.",
        ),
        "architecture": Field(
            "String",
            required_on_activate=False,
            description="The architecture of the processor that the image runs on.",
        ),
        "os_distro": Field(
            "String",
            required_on_activate=False,
            description="The common short name of the operating system's distribution.",
        ),
        "os_version": Field(
            "String",
            required_on_activate=False,
            description="The version of the operating system, as its distributor writes it.",
        ),
    },
)
