"""The artifacts service opened in this process, and who asks it."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from diptych_artifacts.app import create_app
from diptych_artifacts.settings import load
from starlette.types import ASGIApp, Receive, Scope, Send

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/json-patch+json"}
LOCATION = {"Content-Type": "application/vnd+openstack.glare-custom-location+json"}

# The fixtures `make_artifact` and `custom_api`.
Make = Callable[..., Awaitable[dict[str, Any]]]
CustomApi = Callable[..., Awaitable[httpx.AsyncClient]]

ROLES = {"admin": "admin,member,reader", "member": "member,reader", "reader": "reader"}

TYPES = "sample_artifact,images,heat_templates,heat_environments,tosca_templates,murano_packages"


def persona(project: str | None, role: str = "member") -> dict[str, str]:
    """The headers of a caller, as a trusted proxy sets them."""
    headers = {"X-User-Id": f"{role}-of-{project}", "X-Roles": ROLES[role]}
    return headers if project is None else {**headers, "X-Project-Id": project}


ALICE = persona("alpha")
BOB = persona("beta")
ADMIN = persona("service", "admin")


def configuration(database: str, folder: Path, **options: str) -> dict[str, str]:
    """Settings as environment variables: two file stores, identities from headers, no worker."""
    for store in ("fast", "cheap"):
        (folder / store).mkdir(parents=True, exist_ok=True)
    return {
        "DIPTYCH_ARTIFACTS__DATABASE__CONNECTION": database,
        "DIPTYCH_ARTIFACTS__PASTE_DEPLOY__FLAVOR": "trusted",
        "DIPTYCH_ARTIFACTS__DEFAULT__BIND_HOST": "127.0.0.1",
        "DIPTYCH_ARTIFACTS__DEFAULT__ENABLED_BACKENDS": "fast:file, cheap:file",
        "DIPTYCH_ARTIFACTS__DEFAULT__ENABLED_ARTIFACT_TYPES": TYPES,
        "DIPTYCH_ARTIFACTS__GLANCE_STORE__DEFAULT_BACKEND": "fast",
        "DIPTYCH_ARTIFACTS__FAST__FILESYSTEM_STORE_DATADIR": str(folder / "fast"),
        "DIPTYCH_ARTIFACTS__CHEAP__FILESYSTEM_STORE_DATADIR": str(folder / "cheap"),
        "DIPTYCH_ARTIFACTS__JOBS__WITH_WORKER": "false",
        # Events are recorded; they stay where they are unless there is a worker.
        "DIPTYCH_ARTIFACTS__OSLO_MESSAGING_NOTIFICATIONS__DRIVER": "log",
        **{f"DIPTYCH_ARTIFACTS__{name}": value for name, value in options.items()},
    }


def types_file(folder: Path, types: Mapping[str, Mapping[str, str]]) -> Path:
    """A file with sections of types, which have no environment variables."""
    file = folder / "types.conf"
    sections = [
        f"[artifact_type:{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        for name, values in types.items()
    ]
    file.write_text("".join(sections))
    return file


@asynccontextmanager
async def opened(environ: dict[str, str], *config_files: Path) -> AsyncGenerator[ASGIApp]:
    """The application with its lifespan open, ready to be called."""
    app = create_app(load(environ=environ, config_files=config_files))
    async with app.api.router.lifespan_context(app.api) as state:

        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        yield call


def client(app: ASGIApp) -> httpx.AsyncClient:
    """A client of an opened application; a request without headers of its own has no identity."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://artifacts.example"
    )
