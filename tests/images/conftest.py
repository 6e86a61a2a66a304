"""The images service in this process, on a real database and a real file store."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
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


@pytest.fixture(scope="session")
def images_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stores of `api` keep their objects: `fast/` and `cheap/`."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="session")
async def _application(
    _images_schema: tuple[str, list[str]], images_folder: Path
) -> AsyncGenerator[ASGIApp]:
    async with opened(configuration(_images_schema[0], images_folder)) as app:
        yield app


@pytest.fixture
async def api(_application: ASGIApp, images_database: str) -> AsyncGenerator[httpx.AsyncClient]:
    """The service with default settings and no images; say who asks by `headers=ALICE`."""
    async with client(_application) as opened_client:
        yield opened_client


@pytest.fixture
async def custom_api(
    images_database: str, tmp_path: Path
) -> AsyncGenerator[Callable[..., Awaitable[httpx.AsyncClient]]]:
    """`await custom_api(DEFAULT__IMAGE_SIZE_CAP="10")`: the service with other settings."""
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:

        async def make(**options: str) -> httpx.AsyncClient:
            environ = configuration(images_database, tmp_path, **options)
            app = await stack.enter_async_context(opened(environ))
            return await stack.enter_async_context(client(app))

        yield make


@pytest.fixture
def make_image(api: httpx.AsyncClient) -> Callable[..., Awaitable[dict[str, Any]]]:
    """`await make_image(data=b"…", name="x")`: an image of Alice's, active if it has data."""

    async def make(
        *, data: bytes | None = None, headers: dict[str, str] = ALICE, **fields: Any
    ) -> dict[str, Any]:
        body = {
            "name": f"image-{uuid4().hex[:8]}",
            "disk_format": "raw",
            "container_format": "bare",
            **fields,
        }
        created = await api.post("/v2/images", json=body, headers=headers)
        assert created.status_code == 201, created.text
        path = created.json()["self"]
        if data is not None:
            stored = await api.put(f"{path}/file", content=data, headers={**headers, **OCTETS})
            assert stored.status_code == 204, stored.text
        return (await api.get(path, headers=headers)).json()

    return make
