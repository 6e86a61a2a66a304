"""All that the database knows of what is going on with one image, for operators."""

from datetime import datetime
from typing import Any, Final, TypedDict, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db.images import is_uuid
from diptych_images.db.tables import image_locations, images, jobs, tasks

# What an image's tasks and jobs were, at most so many of each.
_LAST: Final = 5


class Explained(TypedDict):
    """An image, deleted or not, with its locations, tasks and jobs, the newest of these first.

    They are rows as JSON has them, without what users gave; times are ISO 8601 texts. Of locations
    and jobs `is_overdue` says that whoever held them was not heard of any more. `now` is the
    database's clock.
    """

    id: str
    name: str | None
    status: str
    owner: str | None
    import_task: str | None
    size: int | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    now: datetime
    locations: list[dict[str, Any]]
    tasks: list[dict[str, Any]]
    jobs: list[dict[str, Any]]


_ID: Final = sa.bindparam("the_image", type_=sa.Uuid(as_uuid=False))


def _rows_of(name: str, selected: sa.Select[*tuple[Any, ...]]) -> sa.ColumnElement[Any]:
    """The rows as an array of JSON objects, in their order."""
    rows = selected.subquery(name)
    # The name of a table stands for its rows.
    row = sa.func.to_jsonb(sa.literal_column(name))
    listed = sa.select(sa.func.jsonb_agg(row, type_=JSONB)).select_from(rows)
    nothing = sa.literal_column("'[]'::jsonb", JSONB)
    return sa.func.coalesce(listed.scalar_subquery(), nothing, type_=JSONB).label(name)


_LOCATIONS: Final = (
    sa.select(
        *(
            image_locations.c[name]
            for name in ("store", "status", "url", "lease_until", "created_at", "import_task")
        ),
        (image_locations.c.lease_until < sa.func.now()).label("is_overdue"),
    )
    .where(image_locations.c.image_id == _ID)
    .order_by(image_locations.c.id)
)
_TASKS: Final = (
    sa.select(*(column for column in tasks.c if column.name != "input"))
    .where(tasks.c.image_id == _ID)
    .order_by(tasks.c.created_at.desc())
    .limit(_LAST)
)
_JOBS: Final = (
    sa.select(
        *(column for column in jobs.c if column.name not in ("payload", "secret", "dedup_key")),
        jobs.c.payload["task_id"].astext.label("task"),
        (jobs.c.lease_until < sa.func.now()).label("is_overdue"),
    )
    .where(jobs.c.payload["image_id"].astext == sa.cast(_ID, sa.Text))
    .order_by(jobs.c.id.desc())
    .limit(_LAST)
)
_EXPLAIN: Final = sa.select(
    *(
        images.c[name]
        for name in (
            "id",
            "name",
            "status",
            "owner",
            "import_task",
            "size",
            "created_at",
            "updated_at",
            "deleted_at",
        )
    ),
    sa.func.now().label("now"),
    _rows_of("locations", _LOCATIONS),
    _rows_of("tasks", _TASKS),
    _rows_of("jobs", _JOBS),
).where(images.c.id == _ID)


async def of_image(connection: AsyncConnection, image_id: str) -> Explained | None:
    """What is known of the image; None if there never was one. One statement, for any text."""
    if not is_uuid(image_id):
        return None
    found = (await connection.execute(_EXPLAIN, {"the_image": image_id})).mappings()
    row = found.one_or_none()
    return None if row is None else cast(Explained, dict(row))
