"""Migrations by phases, with revisions of our own, on a real PostgreSQL."""

import asyncio
import itertools
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from diptych_common import migrations
from diptych_common.migrations import MigrationRefused

from tests import databases

numbers = itertools.count()

Write = Callable[..., None]

REVISION = """
from alembic import op

revision = {name!r}
down_revision = {after!r}
branch_labels = {labels!r}
depends_on = {needs!r}


def upgrade() -> None:
    {body}
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty package for revisions; its folder has a name that configuration files stumble on."""
    name = f"revisions_{next(numbers)}"
    parent = tmp_path / "a folder with 100% %(here)s : and , in it"
    (parent / name / "versions").mkdir(parents=True)
    (parent / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(parent)
    return name


@pytest.fixture
def write(package: str) -> Write:
    """Write a revision: its name begins with its branch."""
    versions = Path(import_module(package).__path__[0]) / "versions"

    def revision(
        name: str, sql: str, *, after: str | None = None, needs: str | None = None
    ) -> None:
        labels = None if after else (name.partition("_")[0],)
        body = f"op.execute({sql!r})"
        if "CONCURRENTLY" in sql:
            body = f"with op.get_context().autocommit_block(): {body}"
        (versions / f"{name}.py").write_text(
            REVISION.format(name=name, after=after, labels=labels, needs=needs, body=body)
        )

    return revision


@pytest.fixture
def history(write: Write) -> None:
    """Two pairs, as two releases would bring them."""
    write("expand_1", "CREATE TABLE things (old int, new int)")
    write("contract_1", "ALTER TABLE things DROP COLUMN old", needs="expand_1")
    write("expand_2", "ALTER TABLE things ADD COLUMN newer int", after="expand_1")
    write(
        "contract_2",
        "ALTER TABLE things DROP COLUMN new",
        after="contract_1",
        needs="expand_2",
    )


async def columns(url: str) -> set[str]:
    async with databases.connection(url) as server:
        found = await server.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'things'"
        )
    return {row["column_name"] for row in found}


@pytest.mark.usefixtures("history")
async def test_everything_is_applied_once(empty_database: str, package: str) -> None:
    assert await migrations.current(empty_database, package) == ()
    applied = await migrations.upgrade(empty_database, package)
    assert set(applied) == {"expand_1", "expand_2", "contract_1", "contract_2"}
    assert applied.index("expand_2") < applied.index("contract_2")
    assert await columns(empty_database) == {"newer"}
    assert await migrations.upgrade(empty_database, package) == ()
    assert await migrations.current(empty_database, package) == ("contract_2", "expand_2")


@pytest.mark.usefixtures("history")
async def test_the_phases_run_apart_and_check_tells_which_is_next(
    empty_database: str, package: str
) -> None:
    assert await migrations.check(empty_database, package) == 3
    assert await migrations.upgrade(empty_database, package, "expand") == ("expand_1", "expand_2")
    assert await columns(empty_database) == {"old", "new", "newer"}
    assert await migrations.check(empty_database, package) == 5
    assert await migrations.upgrade(empty_database, package, "expand") == ()
    assert await migrations.upgrade(empty_database, package, "contract") == (
        "contract_1",
        "contract_2",
    )
    assert await columns(empty_database) == {"newer"}
    assert await migrations.check(empty_database, package) == 0


@pytest.mark.usefixtures("history")
async def test_contract_is_refused_before_expand(empty_database: str, package: str) -> None:
    with pytest.raises(MigrationRefused, match="expand"):
        await migrations.upgrade(empty_database, package, "contract")
    assert await migrations.current(empty_database, package) == ()


async def test_a_package_may_have_no_contract_revisions(
    empty_database: str, package: str, write: Write
) -> None:
    write("expand_1", "CREATE TABLE things (a int)")
    assert await migrations.upgrade(empty_database, package) == ("expand_1",)
    assert await migrations.upgrade(empty_database, package, "contract") == ()
    assert await migrations.check(empty_database, package) == 0


async def test_starters_at_the_same_time_migrate_once(
    empty_database: str, package: str, write: Write
) -> None:
    write("expand_1", "CREATE TABLE things (a int)")
    # Waits for every other transaction that has a snapshot: those who wait must have none.
    write("expand_2", "CREATE INDEX CONCURRENTLY ON things (a)", after="expand_1")
    outcomes = await asyncio.wait_for(
        asyncio.gather(*(migrations.upgrade(empty_database, package) for _ in range(4))), 60
    )
    assert sorted(outcomes) == [(), (), (), ("expand_1", "expand_2")]


async def test_what_was_applied_before_a_failure_stays_and_the_rest_can_follow(
    empty_database: str, package: str, write: Write
) -> None:
    write("expand_1", "CREATE TABLE things (a int)")
    write("expand_2", "ALTER TABLE things ADD COLUMN b nonsense", after="expand_1")
    with pytest.raises(Exception, match="nonsense"):
        await migrations.upgrade(empty_database, package)
    assert await migrations.current(empty_database, package) == ("expand_1",)
    assert await columns(empty_database) == {"a"}
    write("expand_2", "ALTER TABLE things ADD COLUMN b int", after="expand_1")
    assert await migrations.upgrade(empty_database, package) == ("expand_2",)


@pytest.mark.usefixtures("history")
async def test_the_database_of_a_newer_release_is_left_alone(
    empty_database: str, package: str
) -> None:
    await migrations.upgrade(empty_database, package)
    async with databases.connection(empty_database) as server:
        await server.execute("UPDATE alembic_version SET version_num = 'of the future'")
    for act in (migrations.upgrade, migrations.check, migrations.current):
        with pytest.raises(MigrationRefused, match="newer release"):
            await act(empty_database, package)
