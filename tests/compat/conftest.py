"""Glance and our daemon side by side: the same Keystone, the same kind of stores."""

from collections.abc import AsyncGenerator, Mapping

import httpx
import pytest
from dev.keystone import PASSWORD, Keystone
from diptych_common import migrations

from tests import databases
from tests.clients.conftest import by_keystone
from tests.compat import glance
from tests.compat.exchanges import PERSONAS
from tests.compat.sides import Side
from tests.images.daemon import Daemon
from tests.images.service import configuration


@pytest.fixture(scope="session")
def _tokens(keystone: Keystone) -> dict[str, str | None]:
    """A token for each persona; those whom Keystone does not have yet are made."""
    roles = {role["name"]: role["id"] for role in keystone.call("GET", "/roles")["roles"]}
    tokens: dict[str, str | None] = {"anonymous": None, "forger": "nonsense"}
    projects = _projects(keystone)
    for persona, who in PERSONAS.items():
        if who is None:
            continue
        user, project, granted = who
        if user.startswith("compat-"):
            made = {"name": user, "password": PASSWORD, "domain_id": "default"}
            user_id = keystone.call("POST", "/users", {"user": made})["user"]["id"]
            for role in granted:
                path = f"/projects/{projects[project]}/users/{user_id}/roles/{roles[role]}"
                keystone.call("PUT", path)
        tokens[persona] = keystone.token(user, project)
    return tokens


def _projects(keystone: Keystone) -> dict[str, str]:
    """The ids of Keystone's projects by name, one of our own among them."""
    found = {one["name"]: one["id"] for one in keystone.call("GET", "/projects")["projects"]}
    if "compat" not in found:
        made = {"project": {"name": "compat", "domain_id": "default"}}
        found["compat"] = keystone.call("POST", "/projects", made)["project"]["id"]
    return found


@pytest.fixture(scope="session")
def _project_ids(keystone: Keystone, _tokens: Mapping[str, str | None]) -> dict[str, str]:
    """The values of `$owner`, `$member` and `$stranger`."""
    ids = _projects(keystone)
    return {"owner": ids["demo"], "member": ids["other"], "stranger": ids["compat"]}


@pytest.fixture(scope="session")
async def _glance(
    keystone: Keystone, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[glance.Glance]:
    database = await databases.create(postgres_url)
    served = glance.started(tmp_path_factory.mktemp("glance"), database=database, keystone=keystone)
    yield served
    served.stop()
    await databases.drop(database)


@pytest.fixture(scope="session")
async def _daemon(
    keystone: Keystone, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Daemon]:
    folder = tmp_path_factory.mktemp("diptych")
    database = await databases.create(postgres_url)
    await migrations.upgrade(database, "diptych_images.migrations")
    options = {
        "DEFAULT__WORKERS": "1",
        "OS_GLANCE_STAGING_STORE__FILESYSTEM_STORE_DATADIR": str(folder / "staging"),
        "JOBS__WITH_WORKER": "true",
        **by_keystone(keystone),
    }
    daemon = Daemon(configuration(database, folder, **options), folder / "log")
    daemon.start()
    yield daemon
    assert daemon.stop() == 0
    await databases.drop(database)


@pytest.fixture(scope="session")
async def sides(
    _glance: glance.Glance,
    _daemon: Daemon,
    _tokens: Mapping[str, str | None],
    _project_ids: Mapping[str, str],
) -> AsyncGenerator[tuple[Side, Side]]:
    """Glance, and ours."""
    async with (
        httpx.AsyncClient(base_url=_glance.url, timeout=60) as theirs,
        httpx.AsyncClient(base_url=_daemon.url, timeout=60) as ours,
    ):
        yield Side(theirs, _tokens, _project_ids), Side(ours, _tokens, _project_ids)
