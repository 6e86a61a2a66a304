"""The images service opened in this process, and who asks it."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from diptych_images.app import create_app
from diptych_images.settings import load
from starlette.types import ASGIApp, Receive, Scope, Send

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}

ROLES = {
    "admin": "admin,manager,member,reader",
    "manager": "manager,member,reader",
    "member": "member,reader",
    "reader": "reader",
    "service": "service",
}


def persona(project: str | None, role: str = "member") -> dict[str, str]:
    """The headers of a caller, as a trusted proxy sets them."""
    headers = {"X-User-Id": f"{role}-of-{project}", "X-Roles": ROLES[role]}
    return headers if project is None else {**headers, "X-Project-Id": project}


ALICE = persona("alpha")
BOB = persona("beta")
ADMIN = persona("service", "admin")
READER = persona("alpha", "reader")


def configuration(database: str, folder: Path, **options: str) -> dict[str, str]:
    """Settings as environment variables: two file stores, identities from headers, no worker."""
    for store in ("fast", "cheap"):
        (folder / store).mkdir(parents=True, exist_ok=True)
    return {
        "DIPTYCH_IMAGES__DATABASE__CONNECTION": database,
        "DIPTYCH_IMAGES__PASTE_DEPLOY__FLAVOR": "trusted",
        "DIPTYCH_IMAGES__DEFAULT__BIND_HOST": "127.0.0.1",
        "DIPTYCH_IMAGES__DEFAULT__ENABLED_BACKENDS": "fast:file, cheap:file",
        "DIPTYCH_IMAGES__GLANCE_STORE__DEFAULT_BACKEND": "fast",
        "DIPTYCH_IMAGES__FAST__FILESYSTEM_STORE_DATADIR": str(folder / "fast"),
        "DIPTYCH_IMAGES__CHEAP__FILESYSTEM_STORE_DATADIR": str(folder / "cheap"),
        "DIPTYCH_IMAGES__JOBS__WITH_WORKER": "false",
        # Events are recorded; they stay where they are unless there is a worker.
        "DIPTYCH_IMAGES__OSLO_MESSAGING_NOTIFICATIONS__DRIVER": "log",
        **{f"DIPTYCH_IMAGES__{name}": value for name, value in options.items()},
    }


@asynccontextmanager
async def opened(environ: dict[str, str]) -> AsyncGenerator[ASGIApp]:
    """The application with its lifespan open, ready to be called."""
    app = create_app(load(environ=environ))
    async with app.api.router.lifespan_context(app.api) as state:

        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        yield call


def client(app: ASGIApp) -> httpx.AsyncClient:
    """A client of an opened application; a request without headers of its own has no identity."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://images.example",
        headers={"Accept": "application/json"},
    )
