"""Images on their way through the plug-ins."""

from pathlib import Path
from typing import Any

from diptych_images.formats import Inspection
from diptych_images.imports.plugins import Draft
from diptych_images.settings import ImagesSettings


def draft(
    folder: Path, data: bytes, disk_format: str = "raw", container_format: str = "bare"
) -> Draft:
    """An image whose bytes are in `folder`."""
    path = folder / "image"
    path.write_bytes(data)
    inspection = Inspection()
    inspection.update(data)
    return Draft(path, len(data), disk_format, container_format, inspection.findings())


def settings(*plugins: str, **groups: dict[str, Any]) -> ImagesSettings:
    """Settings with these plug-ins, and `image_conversion={"output_format": "qcow2"}` and such."""
    return ImagesSettings.model_validate(
        {"image_import_opts": {"image_import_plugins": plugins}, **groups}
    )
