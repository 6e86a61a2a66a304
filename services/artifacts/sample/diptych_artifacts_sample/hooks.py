"""The type `hooks_artifact`: each of its hooks leaves a mark.

The marks are lines of files in the folder that the environment names; without it there are none.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.hooks import Before, Call, Changes, Hooks, Notice

FOLDER: Final = "DIPTYCH_ARTIFACTS_SAMPLE_MARKS"

_MOMENTS: Final = ("create", "update", "activate", "deactivate", "reactivate", "publish")


async def _mark(file: str, line: str) -> str | None:
    """Add the line to the file of this name in the folder; its path, None without a folder."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return None
    path = Path(folder) / file

    def write() -> None:
        with path.open("a", encoding="utf-8") as opened:
            opened.write(f"{line}\n")

    await asyncio.to_thread(write)
    return str(path)


def _before(moment: str) -> Before:
    async def hook(_: Call) -> Changes | None:
        path = await _mark(moment, f"pre_{moment}_hook was called")
        return None if path is None else {f"temp_file_path_{moment}": path}

    return hook


def _notice(file: str, name: str) -> Notice:
    async def hook(_: Call) -> None:
        await _mark(file, f"{name}_hook was called")

    return hook


async def _pre_upload(_: Call, data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    await _mark("upload", "pre_upload_hook was called")
    return data


HOOKS_ARTIFACT: Final = ArtifactType(
    "hooks_artifact",
    "Hooks Artifact",
    {
        **{
            f"temp_file_path_{moment}": Field("String", required_on_activate=False, mutable=True)
            for moment in _MOMENTS
        },
        "blob": Field("Blob", required_on_activate=False, mutable=True),
    },
    hooks=Hooks(
        pre_create=_before("create"),
        post_create=_notice("create", "post_create"),
        pre_update=_before("update"),
        post_update=_notice("update", "post_update"),
        pre_activate=_before("activate"),
        post_activate=_notice("activate", "post_activate"),
        pre_deactivate=_before("deactivate"),
        post_deactivate=_notice("deactivate", "post_deactivate"),
        pre_reactivate=_before("reactivate"),
        post_reactivate=_notice("reactivate", "post_reactivate"),
        pre_publish=_before("publish"),
        post_publish=_notice("publish", "post_publish"),
        pre_delete=_notice("delete", "pre_delete"),
        post_delete=_notice("delete", "post_delete"),
        pre_upload=_pre_upload,
        post_upload=_notice("upload", "post_upload"),
        pre_add_location=_notice("add_location", "pre_add_location"),
        post_add_location=_notice("add_location", "post_add_location"),
        pre_download=_notice("download", "pre_download"),
        post_download=_notice("download", "post_download"),
    ),
)
