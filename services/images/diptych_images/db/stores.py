"""What is known of the stores besides their settings: which place each of them is."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, TypedDict, cast

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db.tables import store_marks


class MarksRow(TypedDict):
    """The marks of a store's places, and which node noted them when (aware, in UTC)."""

    store: str
    marks: list[str]
    node: str
    noted_at: datetime


_INSERT: Final = insert_into(store_marks).values(
    store=sa.bindparam("the_store", type_=sa.Text),
    marks=sa.bindparam("the_marks", type_=ARRAY(sa.Text)),
    node=sa.bindparam("the_node", type_=sa.Text),
)
_NEW: Final = {
    "marks": _INSERT.excluded.marks,
    "node": _INSERT.excluded.node,
    "noted_at": _INSERT.excluded.noted_at,
}
# In order, equal marks are equal arrays.
_are_more: Final = sa.and_(
    store_marks.c.marks.contained_by(_INSERT.excluded.marks),
    store_marks.c.marks != _INSERT.excluded.marks,
)
_NOTE: Final = _INSERT.on_conflict_do_update(
    index_elements=[store_marks.c.store],
    set_={
        name: sa.case((_are_more, value), else_=store_marks.c[name]) for name, value in _NEW.items()
    },
).returning(store_marks)
_REPLACE: Final = _INSERT.on_conflict_do_update(
    index_elements=[store_marks.c.store], set_=_NEW
).returning(store_marks)


async def note_marks(
    connection: AsyncConnection, store: str, marks: Iterable[str], *, node: str
) -> MarksRow:
    """Note the marks of a store unless others were noted before; the row as it is then.

    More marks than were noted, those among them, are noted: the store got another place. One
    statement: of several nodes that come at once one is the first.
    """
    return await _run(connection, _NOTE, store, marks, node)


async def replace_marks(
    connection: AsyncConnection, store: str, marks: Iterable[str], *, node: str
) -> MarksRow:
    """Note the marks of a store whatever was noted before; the row as it is then."""
    return await _run(connection, _REPLACE, store, marks, node)


async def _run(
    connection: AsyncConnection,
    statement: sa.Executable,
    store: str,
    marks: Iterable[str],
    node: str,
) -> MarksRow:
    found = await connection.execute(
        statement, {"the_store": store, "the_marks": sorted(marks), "the_node": node}
    )
    return cast(MarksRow, dict(found.mappings().one()))
