"""Metadata definitions in files: a namespace each, as Glance and Horizon ship them.

Source: Glance 33.0, `glance-manage db_load_metadefs` and its files in etc/metadefs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import orjson
from diptych_common.database import Connection
from diptych_common.errors import ApiError

from diptych_images.db.metadefs import entries, namespaces, resource_types
from diptych_images.db.metadefs.namespaces import Entry, Kind, NamespaceRow
from diptych_images.notifications import emit_metadefs, emit_namespace
from diptych_images.wire import metadef as wire
from diptych_images.wire.metadef import NewNamespace

Mode = Literal["skip", "merge", "prefer_new", "overwrite"]
"""What becomes of a namespace that is there: nothing; it gets what it lacks; it gets that, and what
it has is replaced; or it is made anew."""

# What Glance gives a namespace whose file names no owner.
_OWNER: Final = "admin"


class CatalogueError(ValueError):
    """Files that cannot be used; the message says which and why."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The names of the namespaces that were made, were changed, and were left alone."""

    created: tuple[str, ...]
    changed: tuple[str, ...]
    skipped: tuple[str, ...]


def read(path: Path) -> list[NewNamespace]:
    """The namespace of a file, or those of a directory's `.json` files, by the files' names.

    Raises CatalogueError if one of them cannot be used, or there is none.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise CatalogueError(f"{path} has no .json files.")
    read = [_read(file) for file in files]
    names = [each.values["namespace"] for each in read]
    for name, file in zip(names, files, strict=True):
        if names.count(name) > 1:
            raise CatalogueError(f"{file}: another file has namespace {name} too.")
    return read


def _read(file: Path) -> NewNamespace:
    try:
        document: object = orjson.loads(file.read_bytes())
        return wire.namespace(document, owner=_OWNER)
    except orjson.JSONDecodeError as error:
        raise CatalogueError(f"{file}: not JSON: {error}") from error
    except ApiError as error:
        raise CatalogueError(f"{file}: {error.message}") from error


async def load(connection: Connection, new: Sequence[NewNamespace], mode: Mode) -> Loaded:
    """Put namespaces into the database; with all events, in the caller's transaction.

    As in Glance, a namespace that is there keeps what the file does not name, but in `overwrite`.
    """
    created: list[str] = []
    changed: list[str] = []
    skipped: list[str] = []
    for each in sorted(new, key=lambda one: one.values["namespace"]):
        name = each.values["namespace"]
        row = await namespaces.get_for_update(connection, name, project_id=None, is_admin=True)
        if row is not None and mode == "skip":
            skipped.append(name)
            continue
        (created if row is None else changed).append(name)
        if row is not None and mode == "overwrite":
            await namespaces.remove(connection, row["id"])
            await emit_namespace(connection, "delete", row)
            row = None
        if row is None:
            row = await namespaces.insert(connection, each.values)
            await emit_namespace(connection, "create", row)
        elif mode == "prefer_new":
            row = await namespaces.update(connection, row["id"], each.values)
            await emit_namespace(connection, "update", row)
        for kind in namespaces.ALL:
            await _fill(connection, row, kind, each.held[kind], replace=mode == "prefer_new")
    return Loaded(tuple(created), tuple(changed), tuple(skipped))


async def _fill(
    connection: Connection,
    row: NamespaceRow,
    kind: Kind,
    given: Sequence[Entry],
    *,
    replace: bool,
) -> None:
    whole = await namespaces.get(connection, row["namespace"], kind, project_id=None, is_admin=True)
    known = {entry["name"] for entry in whole[kind]} if whole is not None else set[str]()
    lacking = [entry for entry in given if entry["name"] not in known]
    if lacking and kind == "resource_type_associations":
        await resource_types.ensure(connection, (entry["name"] for entry in lacking))
    added = await entries.add(connection, kind, row["id"], lacking)
    await emit_metadefs(connection, "create", row, kind, added)
    for entry in given:
        if not replace or entry["name"] not in known:
            continue
        changed = await entries.update(connection, kind, row["id"], entry["name"], entry)
        if changed is not None and kind != "resource_type_associations":
            await emit_metadefs(connection, "update", row, kind, [changed])


async def unload(connection: Connection) -> list[str]:
    """Remove every namespace, protected ones too, and every resource type; their names."""
    rows = await namespaces.everything(connection)
    for row in rows:
        await namespaces.remove(connection, row["id"])
        await emit_namespace(connection, "delete", row)
    await resource_types.forget_unused(connection)
    return [row["namespace"] for row in rows]


def write(rows: Sequence[NamespaceRow], directory: Path) -> list[Path]:
    """Write a file for each namespace, over those that are there; the directory is made.

    A file is named after its namespace, in letters, digits, `.`, `_` and `-`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files: dict[str, NamespaceRow] = {}
    for row in rows:
        stem = re.sub(r"[^\w.-]+", "-", row["namespace"]).strip(".-").lower() or "namespace"
        number = 1
        while (name := f"{stem}.json" if number == 1 else f"{stem}-{number}.json") in files:
            number += 1
        files[name] = row
    for name, row in files.items():
        document = cast("Mapping[str, Any]", wire.file_document(row))
        text = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        (directory / name).write_bytes(text)
    return [directory / name for name in files]
