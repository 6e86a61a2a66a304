"""Artifacts one at a time: reading them, and every change of their rows.

Lists are in `artifact_list.py`, blobs in `blobs.py`. Rows are locked in one order, so that no two
of these functions can wait for each other: an artifact, then its blobs.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypedDict, cast

import sqlalchemy as sa
from asyncpg import UniqueViolationError
from diptych_common.prepared import Prepared
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, aggregate_order_by
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_artifacts.db.tables import artifacts, blobs

Status = Literal["drafted", "active", "deactivated", "deleted"]
Visibility = Literal["private", "public"]


class BlobRow(TypedDict):
    """What an artifact has, or is being given, in one field, or under one key of a folder.

    `size` is bytes; while `saving`, those that room was taken for. `url` is the location in the
    store, or the address of what is external. `encryption` says how its bytes are sealed.
    """

    id: str
    field: str
    key: str
    status: Literal["saving", "active"]
    size: int | None
    md5: str | None
    sha1: str | None
    sha256: str | None
    external: bool
    url: str | None
    store: str | None
    content_type: str | None
    encryption: dict[str, Any] | None


class ArtifactRow(TypedDict):
    """An artifact: its columns and its blobs.

    `version` is canonical; times are aware, in UTC, to the microsecond. `fields` holds what of its
    type's own fields, and of `metadata`, has a value. `blobs` has one for each field and key: the
    active one, or else the one that is being saved; `saving` tells whether any is, one that
    replaces another included.
    """

    id: str
    type_name: str
    name: str
    version: str
    owner: str
    status: Status
    visibility: Visibility
    description: str | None
    display_type_name: str | None
    tags: list[str]
    fields: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    activated_at: datetime | None
    deleted_at: datetime | None
    blobs: list[BlobRow]
    saving: bool


@dataclass(frozen=True, slots=True)
class Content:
    """What of an artifact a client decides: the columns that create and PATCH write.

    `version_sort` and `version_build` are those of `version`, see `types.semver`.
    """

    name: str
    version: str
    version_sort: str
    version_build: str
    description: str | None
    tags: tuple[str, ...]
    fields: Mapping[str, Any]


class Duplicate(Exception):
    """The name and version are taken, in the scope of the artifact's owner or among public ones.

    The transaction is over with it.
    """


_UUID: Final = re.compile(
    r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
)


def is_uuid(text: str) -> bool:
    """Whether the text can be the id of an artifact: 8-4-4-4-12 hexadecimal digits."""
    return _UUID.fullmatch(text) is not None


# Parts of statements. No parameter is named like a column: an UPDATE would set that column.

_ID: Final = sa.bindparam("the_artifact", type_=sa.Uuid(as_uuid=False))
_TYPE: Final = sa.bindparam("the_type", type_=sa.String)
_PROJECT: Final = sa.bindparam("project_id", type_=sa.String)
_NOW: Final = sa.func.statement_timestamp()


def quota_lock(project: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
    """Waits for everybody else who adds to what a project uses, until the transaction ends.

    What others have added is seen by later statements, not by the one that waits.
    """
    key = sa.literal_column("'quota '", sa.Text) + project
    return sa.func.pg_advisory_xact_lock(
        sa.func.hashtextextended(key, sa.literal_column("0", sa.BigInteger))
    )


_COLUMNS: Final = tuple(
    artifacts.c[name] for name in ArtifactRow.__annotations__ if name not in ("blobs", "saving")
)
_NO_BLOBS: Final = sa.literal_column("'[]'::jsonb", JSONB)


def word(value: str) -> sa.ColumnElement[str]:
    """A fixed word as part of the statement, so that the planner sees it in every plan."""
    return sa.literal_column(f"'{value}'", sa.String)


def blobs_of(of: sa.FromClause) -> sa.ColumnElement[Any]:
    """The `blobs` of an ArtifactRow, for the artifact that `of` is at.

    One that is being replaced comes twice, the active one last: see `row_of`.
    """
    pairs = [part for field in BlobRow.__annotations__ for part in (word(field), blobs.c[field])]
    listed = sa.func.jsonb_agg(
        aggregate_order_by(
            sa.func.jsonb_build_object(*pairs, type_=JSONB), blobs.c.key, blobs.c.status.desc()
        ),
        type_=JSONB,
    )
    return (
        sa.select(sa.func.coalesce(listed, _NO_BLOBS, type_=JSONB))
        .where(blobs.c.artifact_id == of.c.id, blobs.c.status != word("deleted"))
        .correlate(of)
        .scalar_subquery()
    )


def columns_of(of: sa.FromClause) -> tuple[sa.ColumnElement[Any], ...]:
    """What `row_of` makes an ArtifactRow of, for the artifact that `of` is at."""
    return (*(of.c[column.name] for column in _COLUMNS), blobs_of(of).label("blobs"))


def row_of(found: dict[str, Any]) -> ArtifactRow:
    """The row of a statement that selected `columns_of`; it is the same dict."""
    every: list[BlobRow] = found["blobs"]
    if every:
        shown = {(blob["field"], blob["key"]): blob for blob in every}
        found["blobs"] = [*shown.values()]
    found["saving"] = any(blob["status"] == "saving" for blob in every)
    return cast(ArtifactRow, found)


def may_see(*, sees_all: bool) -> sa.ColumnElement[bool]:
    """Whether the project in the parameter `project_id` may read an artifact."""
    if sees_all:
        return sa.true()
    return sa.or_(artifacts.c.visibility == word("public"), artifacts.c.owner == _PROJECT)


def _select(*, sees_all: bool, any_type: bool) -> sa.Select[Any]:
    conditions = [artifacts.c.id == _ID, may_see(sees_all=sees_all)]
    if not any_type:
        conditions.append(artifacts.c.type_name == _TYPE)
    return sa.select(*columns_of(artifacts)).where(*conditions)


_SELECTS: Final = {
    (sees_all, any_type): Prepared(_select(sees_all=sees_all, any_type=any_type))
    for sees_all in (False, True)
    for any_type in (False, True)
}
_LOCK: Final = Prepared(sa.select(artifacts.c.id).where(artifacts.c.id == _ID).with_for_update())


async def lock_row(connection: AsyncConnection, artifact_id: str) -> bool:
    """Let nobody else change the artifact or its blobs until the transaction ends; False: none."""
    return await _LOCK.row(connection, {"the_artifact": artifact_id}) is not None


async def get(
    connection: AsyncConnection,
    artifact_id: str,
    *,
    type_name: str | None,
    project_id: str | None,
    sees_all: bool,
    lock: bool = False,
) -> ArtifactRow | None:
    """The artifact if there is one that the project may see; of any type where that is None.

    With `lock` nobody else changes it until the transaction ends, and what is read is what was
    there when the lock was had: blobs too, for these change under the lock only.
    """
    if not is_uuid(artifact_id):
        return None
    parameters = {"the_artifact": artifact_id, "the_type": type_name, "project_id": project_id}
    # In a statement of its own: one that had to wait sees blobs as they were when it began.
    if lock and not await lock_row(connection, artifact_id):
        return None
    row = await _SELECTS[sees_all, type_name is None].row(connection, parameters)
    return None if row is None else row_of(row)


_VISIBLE: Final = {
    sees_all: sa.select(artifacts.c.id).where(
        artifacts.c.id
        == sa.any_(sa.bindparam("the_artifacts", type_=ARRAY(sa.Uuid(as_uuid=False)))),
        may_see(sees_all=sees_all),
    )
    for sees_all in (False, True)
}


async def visible(
    connection: AsyncConnection,
    artifact_ids: Collection[str],
    *,
    project_id: str | None,
    sees_all: bool,
) -> set[str]:
    """Those of the artifacts, of whatever type, that there are and that the project may see."""
    parameters = {"the_artifacts": [*artifact_ids], "project_id": project_id}
    return {*(await connection.execute(_VISIBLE[sees_all], parameters)).scalars()}


_NEW: Final = (
    *("type_name", "display_type_name", "owner", "name", "version", "version_sort"),
    *("version_build", "description", "tags", "fields"),
)
_GIVEN: Final = {name: sa.bindparam(name, type_=artifacts.c[name].type) for name in _NEW}
# The lock comes with it, which spares a creation one round trip of six.
_LOCKED: Final = sa.select(quota_lock(_GIVEN["owner"])).subquery()
_INSERT: Final = Prepared(
    sa.insert(artifacts)
    .from_select(_NEW, sa.select(*_GIVEN.values()).select_from(_LOCKED))
    .returning(*_COLUMNS)
)


async def insert(
    connection: AsyncConnection,
    content: Content,
    *,
    type_name: str,
    display_type_name: str | None,
    owner: str,
) -> ArtifactRow:
    """Add a drafted, private artifact, under the `quota_lock` of its owner. Raises Duplicate."""
    values = {
        "type_name": type_name,
        "display_type_name": display_type_name,
        "owner": owner,
        **_values(content),
    }
    try:
        (inserted,) = await _INSERT.rows(connection, values)
    except UniqueViolationError as error:
        raise _duplicate(error, error) from error
    return cast(ArtifactRow, {**inserted, "blobs": [], "saving": False})


async def update(
    connection: AsyncConnection,
    row: ArtifactRow,
    content: Content,
    *,
    status: Status,
    visibility: Visibility,
    activated: bool,
) -> ArtifactRow:
    """Write what a PATCH has made of an artifact that is locked. Raises Duplicate.

    `activated`: it became active by this, which dates `activated_at`, again if it was before.
    """
    values: dict[str, Any] = {
        **_values(content),
        "tags": sa.cast(list(content.tags), ARRAY(sa.Text)),
        "fields": sa.cast(dict(content.fields), JSONB),
        "status": status,
        "visibility": visibility,
        "updated_at": _NOW,
    }
    if activated:
        values["activated_at"] = _NOW
    try:
        updated = await connection.execute(
            sa.update(artifacts)
            .where(artifacts.c.id == row["id"])
            .values(values)
            .returning(*_COLUMNS)
        )
    except IntegrityError as error:
        raise _duplicate(error, getattr(error.orig, "__cause__", None)) from error
    return cast(
        ArtifactRow,
        {**updated.mappings().one(), "blobs": row["blobs"], "saving": row["saving"]},
    )


def _values(content: Content) -> dict[str, Any]:
    return {
        "name": content.name,
        "version": content.version,
        "version_sort": content.version_sort,
        "version_build": content.version_build,
        "description": content.description,
        "tags": content.tags,
        "fields": content.fields,
    }


_UNIQUE: Final = ("uq_artifacts_private", "uq_artifacts_public")


def _duplicate(error: Exception, cause: BaseException | None) -> Exception:
    """What to raise for an error, which asyncpg's own caused."""
    return Duplicate() if getattr(cause, "constraint_name", None) in _UNIQUE else error
