"""What the operator has done to images that are imported, between their source and the stores.

The plug-ins have Glance's names and run in the order in which they are configured. What they do to
data they do to a file in a folder of the import's own (`scratch`); whatever comes out is inspected
and judged anew before anything else sees it. Properties are no matter of files (`injected`).
"""

import logging
import shutil
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Final, Protocol

from diptych_images.imports.plugins.conversion import PROGRAM, convert
from diptych_images.imports.plugins.decompression import decompress
from diptych_images.imports.plugins.draft import Draft, require_soundness
from diptych_images.imports.plugins.injection import injected
from diptych_images.imports.plugins.scratch import scratch, tidy
from diptych_images.settings import ImagesSettings

__all__ = ["Draft", "injected", "missing", "needs_file", "scratch", "tidy", "transform"]

log = logging.getLogger(__name__)


class _Transform(Protocol):
    def __call__(
        self, draft: Draft, folder: Path, settings: ImagesSettings, *, limit: int
    ) -> Awaitable[Draft]: ...


# `no_op` does nothing, and `inject_image_metadata` nothing to data.
_TRANSFORMS: Final[Mapping[str, _Transform]] = {
    "image_conversion": convert,
    "image_decompression": decompress,
}


def needs_file(settings: ImagesSettings) -> bool:
    """Whether a configured plug-in wants an image's bytes in a file."""
    return not _TRANSFORMS.keys().isdisjoint(settings.image_import_opts.image_import_plugins)


def missing(settings: ImagesSettings) -> list[str]:
    """A line for an operator about each program that a configured plug-in does not find here."""
    if "image_conversion" not in settings.image_import_opts.image_import_plugins:
        return []
    if shutil.which(PROGRAM) is not None:
        return []
    return [
        f"[image_import_opts] image_import_plugins: image_conversion needs {PROGRAM} (Debian's"
        " qemu-utils), which this host has not; imports fail here"
    ]


async def transform(draft: Draft, folder: Path, settings: ImagesSettings, *, limit: int) -> Draft:
    """Take the image through the plug-ins, in their order; what is to be stored in its place.

    `folder` is for files of theirs, and `draft.path` in it; each file that is not needed any more
    is removed. `limit` is the most bytes that the result may have. Raises GiveUp, with a reason
    for users, where a plug-in refuses the image or its result is unsafe or not what it should be.
    Other errors may pass: a full disk.
    """
    rules = settings.image_format
    for name in settings.image_import_opts.image_import_plugins:
        plugin = _TRANSFORMS.get(name)
        if plugin is None:
            continue
        before, draft = draft, await plugin(draft, folder, settings, limit=limit)
        if draft is not before:
            require_soundness(draft, rules)
            log.info(
                "%s made %s bytes of %s into %s bytes of %s",
                name, before.size, before.disk_format, draft.size, draft.disk_format,
            )  # fmt: skip
    # What no plug-in touched has not been judged yet: before it was unpacked it could not be.
    require_soundness(draft, rules)
    return draft
