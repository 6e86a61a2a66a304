"""Schema migrations: alembic driven by code, in expand and contract branches.

A service keeps its revisions in `<package>/versions`. `expand` revisions only add, so that the
release before and this one run on the same database; `contract` revisions take away what only the
older one needed, and run when it is gone. They are two alembic branches (`branch_labels`); a
contract revision names the expand revision that it completes in `depends_on`. A revision is named
for its branch (`0008_expand`): so an older release, which has not got it, knows what it does. There
is no way down: a database is restored from a backup instead.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Final, Literal

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError, to_tuple
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from diptych_common.database import MigrationRefused, connect, dsn

Phase = Literal["all", "expand", "contract"]

UP_TO_DATE: Final = 0
EXPAND_NEEDED: Final = 3
CONTRACT_NEEDED: Final = 5
EXPANDED_FURTHER: Final = 6

# Any fixed number will do; it spells "dipt".
_LOCK: Final = 0x64697074
LOCK_PAUSE_S: Final = 0.2

APPLICATION: Final = "diptych-migrations"


async def upgrade(url: str, package: str, phase: Phase = "all") -> tuple[str, ...]:
    """Apply the pending revisions of `phase`; the revisions that were applied, in order.

    Starters that come at the same time wait for each other; the later ones find nothing to do.
    Raises MigrationRefused for a database of a newer release, and for `contract` before `expand`.
    """
    config = _config(package)
    script = ScriptDirectory.from_config(config)
    async with _engine(url) as engine, _alone(url), engine.connect() as connection:
        before = await connection.run_sync(_applied, script)
        # Else alembic would take the transaction of that look for its caller's, and commit nothing.
        await connection.rollback()
        if phase == "contract" and _pending(script, before, "expand"):
            raise MigrationRefused("Run the expand phase first.")
        for branch in ("expand", "contract") if phase == "all" else (phase,):
            if _pending(script, before, branch):
                await connection.run_sync(_upgrade, config, f"{branch}@head")
        after = await connection.run_sync(_applied, script)
    new = after - before
    return tuple(
        revision.revision
        for revision in reversed(list(script.walk_revisions()))
        if revision.revision in new
    )


async def current(url: str, package: str) -> tuple[str, ...]:
    """The revisions that the database is at: one per branch at most, none for an empty one."""
    script = ScriptDirectory.from_config(_config(package))
    async with _engine(url) as engine, engine.connect() as connection:
        applied = await connection.run_sync(_applied, script)
    return tuple(
        sorted(
            revision
            for revision in applied
            if not applied & set(script.get_revision(revision).nextrev)
        )
    )


async def check(url: str, package: str) -> int:
    """What the database needs, as the exit code of `glance-manage db check` tells it.

    0: nothing; 3: the expand phase; 5: the contract phase. (4, a phase that migrates data, does
    not exist here: contract revisions do that.) 6, which is ours: nothing, for a newer release has
    expanded it, beside which this one goes on. Raises MigrationRefused when one has contracted it.
    """
    script = ScriptDirectory.from_config(_config(package))
    async with _engine(url) as engine, engine.connect() as connection:
        unknown = await connection.run_sync(_unknown, script)
        if unknown and all(branch_of(revision) == "expand" for revision in unknown):
            return EXPANDED_FURTHER
        applied = await connection.run_sync(_applied, script)
    if _pending(script, applied, "expand"):
        return EXPAND_NEEDED
    if _pending(script, applied, "contract"):
        return CONTRACT_NEEDED
    return UP_TO_DATE


def branch_of(revision: str) -> str:
    """The branch that a revision is named for: also one that another release has."""
    return revision.partition("_")[2]


def _config(package: str) -> Config:
    versions = Path(import_module(package).__path__[0]) / "versions"
    config = Config()
    for name, value in (
        ("script_location", Path(__file__).parent / "migration_environment"),
        ("version_locations", versions),
        ("path_separator", "newline"),
    ):
        # The value passes through configparser, to which a percent sign is special.
        config.set_main_option(name, str(value).replace("%", "%%"))
    return config


@asynccontextmanager
async def _engine(url: str) -> AsyncGenerator[AsyncEngine]:
    """Connections without a pool and without a limit on the time of a statement."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=NullPool,
        connect_args={
            "dsn": dsn(url),
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "server_settings": {"application_name": APPLICATION},
        },
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def _alone(url: str) -> AsyncGenerator[None]:
    """Hold the lock that lets one starter at a time migrate this database.

    The lock of a transaction, not of a session, so that it also holds behind pgbouncer; on a
    connection of its own, because each revision commits. `CREATE INDEX CONCURRENTLY` waits for
    whoever has a snapshot, hence the two oddities: the lock is tried for again and again, since
    waiting for it inside a statement keeps one, and by a statement of the simple protocol, since
    the portal of a prepared one keeps another until the transaction ends.
    """
    guard = await connect(dsn(url), application_name=APPLICATION)
    try:
        while True:
            transaction = guard.transaction()
            await transaction.start()
            try:
                await guard.execute(
                    f"DO $$ BEGIN IF NOT pg_try_advisory_xact_lock({_LOCK}) THEN"
                    " RAISE lock_not_available; END IF; END $$"
                )
                break
            except asyncpg.LockNotAvailableError:
                await transaction.rollback()
                await asyncio.sleep(LOCK_PAUSE_S)
        yield
    finally:
        await guard.close()


def _upgrade(connection: Connection, config: Config, target: str) -> None:
    config.attributes["connection"] = connection
    command.upgrade(config, target)


def _applied(connection: Connection, script: ScriptDirectory) -> set[str]:
    """Every revision that the database has; its own table names only the last of each branch."""
    heads = MigrationContext.configure(connection).get_current_heads()
    applied: set[str] = set()
    unseen = list(heads)
    while unseen:
        try:
            revision = script.get_revision(unseen.pop())
        except CommandError as error:
            raise MigrationRefused(
                f"The database is at {', '.join(heads)}, which this release does not know:"
                " a newer release has migrated it."
            ) from error
        if revision.revision not in applied:
            applied.add(revision.revision)
            unseen += to_tuple(revision.down_revision, default=())
            unseen += to_tuple(revision.dependencies, default=())
    return applied


def _unknown(connection: Connection, script: ScriptDirectory) -> list[str]:
    """The last revisions of the database's that this release has not got.

    Each branch is one line, so that one of these was applied after all of ours in its branch.
    """
    ours = {revision.revision for revision in script.walk_revisions()}
    return [
        head
        for head in MigrationContext.configure(connection).get_current_heads()
        if head not in ours
    ]


def _pending(script: ScriptDirectory, applied: set[str], branch: str) -> bool:
    return any(
        head not in applied
        for head in script.get_heads()
        if branch in script.get_revision(head).branch_labels
    )
