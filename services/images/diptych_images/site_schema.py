"""The operator's `schema-image.json`: the properties that a deployment declares itself."""

import json
from pathlib import Path
from typing import Final

from diptych_common.settings import Loaded

from diptych_images.settings import ImagesSettings
from diptych_images.wire.schemas import ImageSchema, SiteSchemaError, site_schema

# Where Glance looks for it.
FILE: Final = "schema-image.json"


def load(loaded: Loaded[ImagesSettings]) -> ImageSchema:
    """The image schema of this deployment.

    Without a file it has what the one that comes with Glance declares. Raises SiteSchemaError,
    also where a file that the settings name is not there.
    """
    settings = loaded.settings
    formats = settings.image_format
    named = settings.default.image_schema_file
    file = loaded.resolve(named or FILE)
    if named is None and not file.exists():
        return ImageSchema(
            disk_formats=formats.disk_formats, container_formats=formats.container_formats
        )
    try:
        properties, required = site_schema(_document(file))
        return ImageSchema(
            disk_formats=formats.disk_formats,
            container_formats=formats.container_formats,
            site_properties=properties,
            required=required,
        )
    except SiteSchemaError as error:
        raise SiteSchemaError(f"{file}: {error}") from error


def _document(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    # A text that is nested without end is no document either.
    except (OSError, ValueError, RecursionError) as error:
        raise SiteSchemaError(f"cannot be read: {error}") from error
