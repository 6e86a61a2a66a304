"""The plug-in `inject_image_metadata`: properties that imported images get from the operator."""

import logging
from collections.abc import Collection

from diptych_images.settings import ImagesSettings

log = logging.getLogger(__name__)

NAME = "inject_image_metadata"

# Properties that begin like this are the service's own words.
_RESERVED = "os_glance"


def injected(settings: ImagesSettings, roles: Collection[str]) -> dict[str, str]:
    """The properties to set on an image that a caller with these roles imports.

    They replace those that the image has. Empty where the plug-in is not configured, and for
    callers with a role that is ignored; roles count as they are spelled, as in Glance.

    Source: Glance 33.0, async_/flows/plugins/inject_image_metadata.py.
    """
    options = settings.inject_metadata_properties
    if NAME not in settings.image_import_opts.image_import_plugins:
        return {}
    if not set(options.ignore_user_roles).isdisjoint(roles):
        return {}
    properties = {
        name.strip(): value.strip()
        for name, _, value in (pair.partition(":") for pair in options.inject)
    }
    for name in [name for name in properties if name.startswith(_RESERVED)]:
        log.warning("Property %s is reserved and not injected", name)
        del properties[name]
    return properties
