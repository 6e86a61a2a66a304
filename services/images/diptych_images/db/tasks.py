"""Tasks: what users see of imports, from the request until some time after the end.

Which import holds an image is the image's own column (`images.import_task`); what a worker has to
do is a job. A task only tells.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict, cast

import sqlalchemy as sa
from diptych_common.purge import Removed
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db import pages
from diptych_images.db.images import (
    ImageRow,
    active_locations,
    is_uuid,
    may_see,
    membership,
    with_entries,
    word,
)
from diptych_images.db.pages import Direction
from diptych_images.db.tables import images, tasks

TaskType = Literal["import", "api_image_import", "location_import"]
TaskStatus = Literal["pending", "processing", "success", "failure"]
SortKey = Literal["id", "type", "status", "owner", "created_at", "updated_at", "expires_at"]
FilterKey = Literal["type", "status", "owner", "image_id", "user_id", "request_id"]


class TaskStub(TypedDict):
    """What a list tells of a task; times are aware, in UTC."""

    id: str
    type: TaskType
    status: TaskStatus
    owner: str | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


class TaskRow(TaskStub):
    """A task; `input` and `result` are as clients see them."""

    image_id: str | None
    user_id: str | None
    request_id: str | None
    input: dict[str, object]
    result: dict[str, object] | None
    message: str


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """What to list: tasks that have all these values, at most `limit` of them.

    They begin after the task `marker`. Equal ones come in the order of their creation; a task that
    does not expire yet comes after all that do.
    """

    limit: int
    filters: dict[FilterKey, str] = field(default_factory=dict[FilterKey, str])
    sort_key: SortKey = "created_at"
    sort_dir: Direction = "desc"
    marker: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the list; without rows and not `marker_found` if there is no such marker."""

    rows: list[TaskStub]
    marker_found: bool


_ID: Final = sa.bindparam("the_task", type_=sa.Uuid(as_uuid=False))
_PROJECT: Final = sa.bindparam("project_id", type_=sa.String)
_NOW: Final = sa.func.statement_timestamp()
_is_kept: Final = sa.or_(tasks.c.expires_at.is_(None), tasks.c.expires_at > _NOW)


def _is_shown(*, is_admin: bool) -> sa.ColumnElement[bool]:
    """Whether the project in the parameter `project_id` may see a task."""
    return _is_kept if is_admin else sa.and_(_is_kept, tasks.c.owner == _PROJECT)


def _row(result: sa.CursorResult[Any]) -> TaskRow | None:
    found = result.mappings().one_or_none()
    return None if found is None else cast(TaskRow, dict(found))


async def insert(
    connection: AsyncConnection,
    *,
    task_id: str,
    type: TaskType,
    owner: str | None,
    image_id: str | None,
    user_id: str | None,
    request_id: str | None,
    input: dict[str, object],
) -> TaskRow:
    """A new task, `pending`. The id is the caller's choice, for the image is locked by it first."""
    statement = (
        sa.insert(tasks)
        .values(
            id=task_id,
            type=type,
            owner=owner,
            image_id=image_id,
            user_id=user_id,
            request_id=request_id,
            input=input,
        )
        .returning(*tasks.c)
    )
    added = await connection.execute(statement)
    return cast(TaskRow, dict(added.mappings().one()))


_KEPT_FOR: Final = sa.bindparam("kept_for", type_=sa.Interval)
_MESSAGE: Final = sa.bindparam("new_message", type_=sa.Text)
_CHANGE: Final = (
    sa.update(tasks)
    .where(
        tasks.c.id == _ID,
        sa.or_(tasks.c.status == word("pending"), tasks.c.status == word("processing")),
    )
    .values(
        status=sa.bindparam("new_status", type_=sa.String),
        message=sa.func.coalesce(_MESSAGE, tasks.c.message),
        result=sa.bindparam("new_result", type_=JSONB(none_as_null=True)),
        expires_at=_NOW + _KEPT_FOR,
        updated_at=_NOW,
    )
    .returning(*tasks.c)
)


async def change(
    connection: AsyncConnection,
    task_id: str,
    *,
    status: Literal["processing", "success", "failure"],
    message: str | None = None,
    result: dict[str, object] | None = None,
    kept_for: timedelta | None = None,
) -> TaskRow | None:
    """Tell how a task goes on; None if it had ended before, or is not there any more.

    Without `message` the last one stays. `kept_for` is for the end: the task is shown that long.
    """
    changed = await connection.execute(
        _CHANGE,
        {
            "the_task": task_id,
            "new_status": status,
            "new_message": message,
            "new_result": result,
            "kept_for": kept_for,
        },
    )
    return _row(changed)


_GET: Final = {
    is_admin: sa.select(tasks).where(tasks.c.id == _ID, _is_shown(is_admin=is_admin))
    for is_admin in (False, True)
}


async def get(
    connection: AsyncConnection, task_id: str, *, project_id: str | None, is_admin: bool
) -> TaskRow | None:
    """The task, or None if there is none that this project sees; any text may be asked for."""
    if not is_uuid(task_id):
        return None
    return _row(
        await connection.execute(_GET[is_admin], {"the_task": task_id, "project_id": project_id})
    )


def _of_image(*, is_admin: bool) -> sa.Select[Any]:
    entry = sa.func.jsonb_build_object(
        *(part for column in tasks.c for part in (word(column.name), column))
    )
    entries = (
        sa.select(
            sa.func.coalesce(
                sa.func.jsonb_agg(aggregate_order_by(entry, tasks.c.created_at, tasks.c.id)),
                sa.literal_column("'[]'::jsonb", JSONB),
                type_=JSONB,
            )
        )
        .where(tasks.c.image_id == images.c.id, _is_shown(is_admin=is_admin))
        .correlate(images)
        .scalar_subquery()
    )
    return sa.select(
        images,
        active_locations(images).label("locations"),
        membership(images).label("member_status"),
        entries.label("entries"),
    ).where(
        images.c.id == sa.bindparam("the_image", type_=sa.Uuid(as_uuid=False)),
        images.c.deleted_at.is_(None),
        may_see(is_admin=is_admin),
    )


_OF_IMAGE: Final = {is_admin: _of_image(is_admin=is_admin) for is_admin in (False, True)}


async def of_image(
    connection: AsyncConnection, image_id: str, *, project_id: str | None, is_admin: bool
) -> tuple[ImageRow, list[TaskRow]] | None:
    """An image with its tasks, the oldest first; None as for `images.get`.

    Administrators see the tasks of all projects, others their own project's. One statement.
    """
    if not is_uuid(image_id):
        return None
    found = await connection.execute(
        _OF_IMAGE[is_admin], {"the_image": image_id, "project_id": project_id}
    )
    return cast(
        "tuple[ImageRow, list[TaskRow]] | None",
        with_entries(found, times=("created_at", "updated_at", "expires_at")),
    )


# Never NULL, or there would be no saying what comes after it.
_SORTED_BY: Final[dict[SortKey, sa.ColumnElement[Any]]] = {
    "id": tasks.c.id,
    "type": tasks.c.type,
    "status": tasks.c.status,
    "owner": sa.func.coalesce(tasks.c.owner, word("")),
    "created_at": tasks.c.created_at,
    "updated_at": tasks.c.updated_at,
    "expires_at": sa.func.coalesce(
        tasks.c.expires_at, sa.literal_column("'infinity'::timestamptz", tasks.c.expires_at.type)
    ),
}
_STUB: Final = tuple(tasks.c[name] for name in TaskStub.__annotations__)


async def page(
    connection: AsyncConnection, query: TaskQuery, *, project_id: str | None, is_admin: bool
) -> Page:
    """The page of the tasks that this project sees; an administrator sees every project's.

    One statement, none for a marker that is no UUID.
    """
    if query.marker is not None and not is_uuid(query.marker):
        return Page([], marker_found=False)
    keys = [_SORTED_BY[key] for key in dict.fromkeys((query.sort_key, *_THEN))]
    conditions = [_is_shown(is_admin=is_admin)]
    values: dict[str, object] = {"project_id": project_id, "marker": query.marker}
    for name, value in query.filters.items():
        conditions.append(sa.cast(tasks.c[name], sa.Text) == sa.bindparam(f"is_{name}"))
        values[f"is_{name}"] = value
    marker = None
    if query.marker is not None:
        is_named = tasks.c.id == sa.bindparam("marker", type_=sa.Uuid(as_uuid=False))
        marker = sa.and_(is_named, _is_shown(is_admin=is_admin))
    rows, marker_found = await pages.fetch(
        connection,
        sa.select(*_STUB).where(*conditions),
        values,
        keys=keys,
        direction=query.sort_dir,
        limit=query.limit,
        marker=marker,
    )
    return Page([cast(TaskStub, row) for row in rows], marker_found=marker_found)


_THEN: Final[tuple[SortKey, ...]] = ("created_at", "id")

_EXPIRED: Final = (
    sa.select(tasks.c.id)
    .where(tasks.c.expires_at <= _NOW)
    .order_by(tasks.c.expires_at)
    .limit(sa.bindparam("at_most", type_=sa.Integer))
    .with_for_update(skip_locked=True)
)
_REMOVE_EXPIRED: Final = sa.delete(tasks).where(tasks.c.id.in_(_EXPIRED))


async def remove_expired(connection: AsyncConnection, *, at_most: int) -> int:
    """Remove tasks that are not shown any more, as many as told at most; how many it was."""
    return (await connection.execute(_REMOVE_EXPIRED, {"at_most": at_most})).rowcount


_has_ended: Final = sa.and_(
    tasks.c.status.in_((word("success"), word("failure"))),
    tasks.c.updated_at < _NOW - sa.bindparam("the_age", type_=sa.Interval),
)
_ENDED: Final = (
    sa.select(tasks.c.id)
    .where(_has_ended)
    .limit(sa.bindparam("at_most", type_=sa.Integer))
    .with_for_update(skip_locked=True)
)
_REMOVE_ENDED: Final = sa.delete(tasks).where(tasks.c.id.in_(_ENDED))
_COUNT_ENDED: Final = sa.select(sa.func.count()).select_from(tasks).where(_has_ended)


async def remove_ended(
    connection: AsyncConnection, older_than: timedelta, at_most: int, _after: str | None
) -> Removed:
    """Remove tasks that ended longer ago, shown or not, so many at most."""
    done = await connection.execute(_REMOVE_ENDED, {"the_age": older_than, "at_most": at_most})
    return Removed(done.rowcount)


async def count_ended(connection: AsyncConnection, older_than: timedelta) -> int:
    """How many tasks `remove_ended` would remove."""
    return (await connection.execute(_COUNT_ENDED, {"the_age": older_than})).scalar_one()
