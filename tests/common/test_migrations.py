"""Migrations by phases, with revisions of our own, on a real PostgreSQL."""

import asyncio
import itertools
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from diptych_common import migrations
from diptych_common.database import MigrationRefused

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
    """Write a revision: its name ends with its branch."""
    versions = Path(import_module(package).__path__[0]) / "versions"

    def revision(
        name: str, sql: str, *, after: str | None = None, needs: str | None = None
    ) -> None:
        labels = None if after else (name.partition("_")[2],)
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
    write("0001_expand", "CREATE TABLE things (old int, new int)")
    write("0001_contract", "ALTER TABLE things DROP COLUMN old", needs="0001_expand")
    write("0002_expand", "ALTER TABLE things ADD COLUMN newer int", after="0001_expand")
    write(
        "0002_contract",
        "ALTER TABLE things DROP COLUMN new",
        after="0001_contract",
        needs="0002_expand",
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
    assert set(applied) == {"0001_expand", "0002_expand", "0001_contract", "0002_contract"}
    assert applied.index("0002_expand") < applied.index("0002_contract")
    assert await columns(empty_database) == {"newer"}
    assert await migrations.upgrade(empty_database, package) == ()
    assert await migrations.current(empty_database, package) == ("0002_contract", "0002_expand")


@pytest.mark.usefixtures("history")
async def test_the_phases_run_apart_and_check_tells_which_is_next(
    empty_database: str, package: str
) -> None:
    assert await migrations.check(empty_database, package) == 3
    assert await migrations.upgrade(empty_database, package, "expand") == (
        "0001_expand",
        "0002_expand",
    )
    assert await columns(empty_database) == {"old", "new", "newer"}
    assert await migrations.check(empty_database, package) == 5
    assert await migrations.upgrade(empty_database, package, "expand") == ()
    assert await migrations.upgrade(empty_database, package, "contract") == (
        "0001_contract",
        "0002_contract",
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
    write("0001_expand", "CREATE TABLE things (a int)")
    assert await migrations.upgrade(empty_database, package) == ("0001_expand",)
    assert await migrations.upgrade(empty_database, package, "contract") == ()
    assert await migrations.check(empty_database, package) == 0


async def test_starters_at_the_same_time_migrate_once(
    empty_database: str, package: str, write: Write
) -> None:
    write("0001_expand", "CREATE TABLE things (a int)")
    # Waits for every other transaction that has a snapshot: those who wait must have none.
    write("0002_expand", "CREATE INDEX CONCURRENTLY ON things (a)", after="0001_expand")
    outcomes = await asyncio.wait_for(
        asyncio.gather(*(migrations.upgrade(empty_database, package) for _ in range(4))), 60
    )
    assert sorted(outcomes) == [(), (), (), ("0001_expand", "0002_expand")]


async def test_what_was_applied_before_a_failure_stays_and_the_rest_can_follow(
    empty_database: str, package: str, write: Write
) -> None:
    write("0001_expand", "CREATE TABLE things (a int)")
    write("0002_expand", "ALTER TABLE things ADD COLUMN b nonsense", after="0001_expand")
    with pytest.raises(Exception, match="nonsense"):
        await migrations.upgrade(empty_database, package)
    assert await migrations.current(empty_database, package) == ("0001_expand",)
    assert await columns(empty_database) == {"a"}
    write("0002_expand", "ALTER TABLE things ADD COLUMN b int", after="0001_expand")
    assert await migrations.upgrade(empty_database, package) == ("0002_expand",)


@pytest.mark.parametrize("has_contracted", [True, False])
@pytest.mark.usefixtures("history")
async def test_what_a_newer_release_has_expanded_is_left_alone_and_serves(
    empty_database: str, package: str, write: Write, has_contracted: bool
) -> None:
    await migrations.upgrade(empty_database, package, "all" if has_contracted else "expand")
    write("0003_expand", "ALTER TABLE things ADD COLUMN newest int", after="0002_expand")
    write("0003_contract", "SELECT 1", after="0002_contract", needs="0003_expand")
    assert await migrations.upgrade(empty_database, package, "expand") == ("0003_expand",)
    versions = Path(import_module(package).__path__[0]) / "versions"
    newest = {one: one.read_text() for one in versions.glob("0003_*.py")}
    for one in newest:
        one.unlink()
    assert await migrations.check(empty_database, package) == 6
    for phase in ("all", "expand", "contract"):
        with pytest.raises(MigrationRefused, match="newer release"):
            await migrations.upgrade(empty_database, package, phase)
    for one, source in newest.items():
        one.write_text(source)
    await migrations.upgrade(empty_database, package)
    for one in newest:
        one.unlink()
    with pytest.raises(MigrationRefused, match="newer release"):
        await migrations.check(empty_database, package)


@pytest.mark.parametrize("service", ["diptych_images", "diptych_artifacts"])
def test_revisions_are_named_for_their_branches(service: str) -> None:
    versions = Path(import_module(f"{service}.migrations").__path__[0]) / "versions"
    script = ScriptDirectory(str(versions.parent), version_locations=[str(versions)])
    names = [one.revision for one in script.walk_revisions()]
    assert names
    for name in names:
        assert migrations.branch_of(name) in script.get_revision(name).branch_labels


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
