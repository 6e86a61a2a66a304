"""The artifacts service in this process, on a real database and a real file store."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.types import ASGIApp

from tests.artifacts.service import (
    ALICE,
    CustomApi,
    Make,
    client,
    configuration,
    opened,
    types_file,
)


@pytest.fixture(scope="session")
def artifacts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stores of `api` keep their objects: `fast/` and `cheap/`."""
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="session")
async def _application(
    _artifacts_schema: tuple[str, list[str]], artifacts_folder: Path
) -> AsyncGenerator[ASGIApp]:
    async with opened(configuration(_artifacts_schema[0], artifacts_folder)) as app:
        yield app


@pytest.fixture
async def api(_application: ASGIApp, artifacts_database: str) -> AsyncGenerator[httpx.AsyncClient]:
    """The service with default settings and no artifacts; say who asks by `headers=ALICE`."""
    async with client(_application) as opened_client:
        yield opened_client


@pytest.fixture
async def custom_api(artifacts_database: str, tmp_path: Path) -> AsyncGenerator[CustomApi]:
    """`await custom_api(DEFAULT__MAX_ARTIFACT_NUMBER="10")`: the service with other settings.

    `types` are those of types: `{"images": {"default_store": "cheap"}}`.
    """
    async with AsyncExitStack() as stack:

        async def make(
            *, types: Mapping[str, Mapping[str, str]] | None = None, **options: str
        ) -> httpx.AsyncClient:
            environ = configuration(artifacts_database, tmp_path, **options)
            config_files = [types_file(tmp_path, types)] if types else []
            app = await stack.enter_async_context(opened(environ, *config_files))
            return await stack.enter_async_context(client(app))

        yield make


@pytest.fixture
def make_artifact(api: httpx.AsyncClient) -> Make:
    """`await make_artifact(name="x", str1="…")`: a sample_artifact of Alice's, drafted."""

    async def make(
        *, kind: str = "sample_artifact", headers: dict[str, str] = ALICE, **fields: Any
    ) -> dict[str, Any]:
        body = {"name": f"artifact-{uuid4().hex[:8]}", **fields}
        created = await api.post(f"/artifacts/{kind}", json=body, headers=headers)
        assert created.status_code == 201, created.text
        return created.json()

    return make
