"""`filesystem_store_metadata_file`: how others who mount the directory call it.

Glance shows an entry with the locations of new images, so that Nova and Cinder can find the file in
a mount of their own. Source: glance_store 5.7, _drivers/filesystem.py `_validate_metadata` and
`_get_metadata`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast


@dataclass(frozen=True, slots=True)
class Mountpoint:
    """An entry of the file; `told` is all of it."""

    path: Path
    told: Mapping[str, object]

    def has(self, file: Path) -> bool:
        """Whether the file is below. Glance compares letters: /a has the files of /ab, too."""
        return file.is_relative_to(self.path)


def mountpoints(file: Path, *, store: str) -> tuple[Mountpoint, ...]:
    """Read the file; raises ValueError that says what is wrong with it."""
    try:
        found = cast(object, json.loads(file.read_bytes()))
    except (OSError, ValueError) as error:
        raise ValueError(f"[{store}] filesystem_store_metadata_file: {error}") from error
    entries = cast("list[object]", found) if isinstance(found, list) else [found]
    return tuple(_mountpoint(entry, store=store) for entry in entries)


def _mountpoint(entry: object, *, store: str) -> Mountpoint:
    if isinstance(entry, dict):
        told = cast("dict[str, object]", entry)
        mountpoint = told.get("mountpoint")
        if isinstance(mountpoint, str) and isinstance(told.get("id"), str) and _is_plain(told):
            return Mountpoint(Path(mountpoint), told)
    raise ValueError(
        f"[{store}] filesystem_store_metadata_file: expected objects with the strings id and"
        " mountpoint, and nothing but strings, lists and objects besides"
    )


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, cast("dict[str, object]", value).values()))
    if isinstance(value, list):
        return all(map(_is_plain, cast("list[object]", value)))
    return isinstance(value, str)
