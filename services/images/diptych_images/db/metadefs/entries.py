"""What a namespace holds: objects, properties, tags and associations with resource types.

The caller holds the namespace (`namespaces.get_for_update`, or it has just inserted it).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from diptych_common.errors import Conflict
from sqlalchemy.dialects.postgresql import insert as insert_into
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_images.db.metadefs.namespaces import TABLES, Entry, Kind

# PostgreSQL takes 32,767 parameters; no kind has more than five of an entry.
_AT_ONCE: Final = 5_000


async def add(
    connection: AsyncConnection,
    kind: Kind,
    namespace_id: int,
    entries: Sequence[Mapping[str, Any]],
) -> list[Entry]:
    """Add entries, in their order; all of them have the same keys, the table's columns.

    A statement per 5,000. Raises Conflict if two have one name, or one is there already.
    """
    added: list[Entry] = []
    for start in range(0, len(entries), _AT_ONCE):
        given = entries[start : start + _AT_ONCE]
        statement = (
            insert_into(TABLES[kind])
            .values([{"namespace_id": namespace_id, **entry} for entry in given])
            .on_conflict_do_nothing()
            .returning(TABLES[kind])
        )
        rows = (await connection.execute(statement)).mappings()
        added += [dict(row) for row in rows]
        if len(added) < start + len(given):
            known = {row["name"] for row in added}
            names = [entry["name"] for entry in given]
            again = next((name for name in names if name not in known), names[0])
            raise Conflict(f"There are two {kind} named {again}.")
    return added


async def update(
    connection: AsyncConnection,
    kind: Kind,
    namespace_id: int,
    name: str,
    values: Mapping[str, Any],
) -> Entry | None:
    """Replace an entry's columns, its name too; None if there is none.

    Raises Conflict if the new name is another's.
    """
    table = TABLES[kind]
    statement = (
        sa.update(table)
        .where(table.c.namespace_id == namespace_id, table.c.name == name)
        .values(**values, updated_at=sa.func.statement_timestamp())
        .returning(table)
    )
    try:
        row = (await connection.execute(statement)).mappings().one_or_none()
    except IntegrityError as error:
        raise Conflict(f"There are two {kind} named {values['name']}.") from error
    return None if row is None else dict(row)


async def remove(
    connection: AsyncConnection, kind: Kind, namespace_id: int, name: str
) -> Entry | None:
    """Remove an entry; as it was, None if there was none."""
    table = TABLES[kind]
    statement = (
        sa.delete(table)
        .where(table.c.namespace_id == namespace_id, table.c.name == name)
        .returning(table)
    )
    row = (await connection.execute(statement)).mappings().one_or_none()
    return None if row is None else dict(row)


async def clear(connection: AsyncConnection, kind: Kind, namespace_id: int) -> None:
    """Remove all entries of a kind."""
    table = TABLES[kind]
    await connection.execute(sa.delete(table).where(table.c.namespace_id == namespace_id))
