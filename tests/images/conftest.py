"""The images service in this process, on a real database and a real file store."""

import os
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.types import ASGIApp

from tests.images.service import ALICE, OCTETS, client, configuration, opened
from tests.images.sites import Make, Site, open_site


@pytest.fixture(scope="session")
def qemu_img(debian: Callable[[str, str], str]) -> Callable[..., str]:
    """`qemu_img("info", path)`: what the program says; it raises if it fails."""
    program = debian("qemu-utils", "qemu-img")

    def run(*arguments: str) -> str:
        return subprocess.run(
            [program, *arguments], check=True, capture_output=True, text=True, timeout=60
        ).stdout

    return run


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk of 20 MiB, most of it empty."""
    path = tmp_path_factory.mktemp("qemu") / "source.raw"
    path.write_bytes(os.urandom(3 * 1024 * 1024).ljust(20 * 1024 * 1024, b"\x00"))
    return path


@pytest.fixture(scope="session")
def images_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stores of `api` keep their objects: `fast/` and `cheap/`."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="session")
async def _application(
    _images_schema: tuple[str, list[str]], images_folder: Path
) -> AsyncGenerator[ASGIApp]:
    # A test may open another service with other directories beside this one.
    alone = {"BACKEND_DEFAULTS__FILESYSTEM_STORE_SHARED": "false"}
    async with opened(configuration(_images_schema[0], images_folder, **alone)) as app:
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
    async with AsyncExitStack() as stack:

        async def make(**options: str) -> httpx.AsyncClient:
            environ = configuration(images_database, tmp_path, **options)
            app = await stack.enter_async_context(opened(environ))
            return await stack.enter_async_context(client(app))

        yield make


@pytest.fixture
async def site(images_database: str, tmp_path: Path) -> AsyncGenerator[Make]:
    """`await site(…)`: the service with three stores and one for staging, and other settings."""
    async with AsyncExitStack() as stack:

        async def make(**options: str) -> Site:
            return await stack.enter_async_context(open_site(images_database, tmp_path, **options))

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
