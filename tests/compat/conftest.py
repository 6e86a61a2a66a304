"""Glance and our daemon side by side: the same Keystone, the same kind of stores."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from dev import environments
from dev.keystone import PASSWORD, Keystone
from diptych_common import migrations

from tests import databases, servers
from tests.clients.conftest import by_keystone
from tests.compat import glance
from tests.compat.form import PERSONAS
from tests.compat.opened import ORIGIN, SETTINGS
from tests.compat.sides import Side
from tests.compat.states import DATA
from tests.daemon import Daemon
from tests.images.service import configuration
from tests.web import answer, serving_from_a_thread


@pytest.fixture(scope="session")
def _tokens(keystone: Keystone) -> dict[str, str | None]:
    """A token for each persona; those whom Keystone does not have yet are made."""
    # All processes of a run share one Keystone.
    with environments.exclusive(servers.folder() / "compat-personas.lock"):
        _make_personas(keystone)
    tokens: dict[str, str | None] = {"anonymous": None, "forger": "nonsense"}
    for persona, who in PERSONAS.items():
        if who is not None:
            tokens[persona] = keystone.token(who[0], who[1])
    return tokens


def _make_personas(keystone: Keystone) -> None:
    roles = {role["name"]: role["id"] for role in keystone.call("GET", "/roles")["roles"]}
    users = {user["name"] for user in keystone.call("GET", "/users")["users"]}
    projects = _projects(keystone)
    for user, project, granted in filter(None, PERSONAS.values()):
        if not user.startswith("compat-") or user in users:
            continue
        made = {"name": user, "password": PASSWORD, "domain_id": "default"}
        user_id = keystone.call("POST", "/users", {"user": made})["user"]["id"]
        for role in granted:
            path = f"/projects/{projects[project]}/users/{user_id}/roles/{roles[role]}"
            keystone.call("PUT", path)


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
async def sides(
    keystone: Keystone,
    postgres_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    _tokens: Mapping[str, str | None],
    _project_ids: Mapping[str, str],
) -> AsyncGenerator[tuple[Side, Side]]:
    """Glance, and ours."""
    folder = tmp_path_factory.mktemp("compat")
    async with AsyncExitStack() as stack:
        urls = await _started(stack, postgres_url, keystone, folder)
        clients = [await stack.enter_async_context(_client(url)) for url in urls]
        theirs, ours = (Side(client, _tokens, _project_ids) for client in clients)
        yield theirs, ours


@pytest.fixture(scope="session")
async def open_sides(
    keystone: Keystone,
    postgres_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    _tokens: Mapping[str, str | None],
    _project_ids: Mapping[str, str],
) -> AsyncGenerator[tuple[Side, Side]]:
    """As `sides`, with the settings of `opened`, and a web server that has DATA everywhere."""
    folder = tmp_path_factory.mktemp("compat-open")
    async with AsyncExitStack() as stack:
        site = stack.enter_context(serving_from_a_thread(answer(DATA)))
        urls = await _started(
            *(stack, postgres_url, keystone, folder),
            options=SETTINGS,
            sections={
                "cors": {"allowed_origin": ORIGIN},
                "import_filtering_opts": {
                    "allowed_hosts": "[127.0.0.1]",
                    "allowed_ports": f"[80,443,{site.port}]",
                },
            },
            ours={"OUTBOUND__ALLOWED_HOSTS": f"127.0.0.1:{site.port}"},
        )
        clients = [await stack.enter_async_context(_client(url)) for url in urls]
        names = {**_project_ids, "web": f"{site.url}/disk", "web2": f"{site.url}/other"}
        theirs, ours = (Side(client, _tokens, names) for client in clients)
        yield theirs, ours


async def _started(
    stack: AsyncExitStack,
    postgres_url: str,
    keystone: Keystone,
    folder: Path,
    *,
    options: Mapping[str, str] | None = None,
    sections: Mapping[str, Mapping[str, str]] | None = None,
    ours: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """The addresses of both services, started with these settings; they end with the stack."""
    options, sections = options or {}, sections or {}
    (folder / "glance").mkdir()
    (folder / "diptych").mkdir()
    database = await stack.enter_async_context(_database(postgres_url))
    served = glance.started(
        folder / "glance",
        database=database,
        keystone=keystone,
        options=options,
        sections="\n".join(
            f"[{section}]\n" + "\n".join(f"{name} = {value}" for name, value in values.items())
            for section, values in sections.items()
        ),
    )
    stack.callback(served.stop)

    database = await stack.enter_async_context(_database(postgres_url))
    await migrations.upgrade(database, "diptych_images.migrations")
    environ = {
        "DEFAULT__WORKERS": "1",
        "OS_GLANCE_STAGING_STORE__FILESYSTEM_STORE_DATADIR": str(folder / "diptych" / "staging"),
        "JOBS__WITH_WORKER": "true",
        **by_keystone(keystone),
        **{
            f"{section}__{name}".upper(): value
            for section, values in {"default": options, **sections}.items()
            for name, value in values.items()
        },
        **(ours or {}),
    }
    daemon = Daemon(
        configuration(database, folder / "diptych", **environ), folder / "diptych" / "log"
    )
    stack.callback(_stop, daemon)
    daemon.start(within_s=300)
    return served.url, daemon.url


@asynccontextmanager
async def _database(postgres_url: str) -> AsyncGenerator[str]:
    url = await databases.create(postgres_url)
    yield url
    await databases.drop(url)


def _stop(daemon: Daemon) -> None:
    assert daemon.stop() == 0


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=60)
