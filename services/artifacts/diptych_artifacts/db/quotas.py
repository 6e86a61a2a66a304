"""The quotas of projects, and what they use, which is counted from the rows themselves."""

from collections.abc import Mapping
from typing import Any, Final, cast

import sqlalchemy as sa
from diptych_common.prepared import Prepared
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_artifacts.db.artifacts import quota_lock, word
from diptych_artifacts.db.tables import artifacts, blobs
from diptych_artifacts.db.tables import quotas as table

_PROJECT: Final = sa.bindparam("project_id", type_=sa.String)
_LOCK: Final = Prepared(sa.select(quota_lock(_PROJECT)))
_OF_PROJECT: Final = Prepared(
    cast("sa.Select[Any]", sa.select(table.c.name, table.c.value)).where(
        table.c.project_id == _PROJECT
    )
)


async def lock(connection: AsyncConnection, project_id: str) -> None:
    """Wait for everybody else who adds to what the project uses, until the transaction ends."""
    await _LOCK.rows(connection, {"project_id": project_id})


async def of_project(connection: AsyncConnection, project_id: str) -> dict[str, int]:
    """The quotas that were set for the project, by name."""
    found = await _OF_PROJECT.rows(connection, {"project_id": project_id})
    return {row["name"]: row["value"] for row in found}


async def artifacts_of(connection: AsyncConnection, project_id: str, type_name: str | None) -> int:
    """How many artifacts the project has, of one type or of all, those to be scrubbed too."""
    conditions = [artifacts.c.owner == project_id]
    if type_name is not None:
        conditions.append(artifacts.c.type_name == type_name)
    # Those and the others have an index each.
    is_deleted = artifacts.c.status == word("deleted")
    living, deleted = (
        sa.select(sa.func.count()).select_from(artifacts).where(*conditions, part).scalar_subquery()
        for part in (sa.not_(is_deleted), is_deleted)
    )
    return (await connection.execute(sa.select(living + deleted))).scalar_one()


async def bytes_of(connection: AsyncConnection, project_id: str, type_name: str | None) -> int:
    """How many bytes the project has, of one type or of all; with what uploads have reserved."""
    conditions = [
        blobs.c.owner == project_id,
        # As the index has it that is read for this.
        blobs.c.status != word("deleted"),
        blobs.c.size.is_not(None),
    ]
    if type_name is not None:
        conditions.append(blobs.c.type_name == type_name)
    used = sa.cast(sa.func.coalesce(sa.func.sum(blobs.c.size), 0), sa.BigInteger)
    return (await connection.execute(sa.select(used).where(*conditions))).scalar_one()


async def of_all(connection: AsyncConnection) -> dict[str, dict[str, int]]:
    """The quotas that were set, by project and name, in this order."""
    found = await connection.execute(
        sa.select(table.c.project_id, table.c.name, table.c.value).order_by(
            sa.collate(table.c.project_id, "C"), sa.collate(table.c.name, "C")
        )
    )
    quotas: dict[str, dict[str, int]] = {}
    for row in found:
        quotas.setdefault(row.project_id, {})[row.name] = row.value
    return quotas


async def replace(connection: AsyncConnection, quotas: Mapping[str, Mapping[str, int]]) -> None:
    """Set the quotas of these projects, by name, instead of those that they have.

    Whoever adds to what the projects use waits meanwhile, and so do others who replace.
    """
    projects = sa.cast(sorted(quotas), ARRAY(sa.Text))
    every = sa.func.unnest(projects).column_valued("project")
    await connection.execute(sa.select(quota_lock(every)))
    await connection.execute(sa.delete(table).where(table.c.project_id == sa.any_(projects)))
    rows = [
        (project, name, str(value)) for project in quotas for name, value in quotas[project].items()
    ]
    columns = [sa.cast([row[at] for row in rows], ARRAY(sa.Text)) for at in range(3)]
    new = sa.func.unnest(*columns).table_valued("project_id", "name", "value").render_derived()
    chosen = sa.select(new.c.project_id, new.c.name, sa.cast(new.c.value, sa.BigInteger))
    await connection.execute(sa.insert(table).from_select(["project_id", "name", "value"], chosen))
