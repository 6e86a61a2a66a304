"""Glare and our daemon side by side; both believe the headers of whoever asks."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests import databases
from tests.compat import glare
from tests.compat.artifacts import ours
from tests.compat.artifacts.opened import OF_TYPES, SETTINGS
from tests.compat.artifacts.sides import Side


@pytest.fixture(scope="session")
async def artifact_sides(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[tuple[Side, Side]]:
    """Glare, and ours."""
    async with _both(postgres_url, tmp_path_factory.mktemp("glare")) as sides:
        yield sides


@pytest.fixture(scope="session")
async def open_artifact_sides(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[tuple[Side, Side]]:
    """As `artifact_sides`, with the settings of `opened`."""
    folder = tmp_path_factory.mktemp("glare-open")
    async with _both(postgres_url, folder, options=SETTINGS, sections=OF_TYPES) as sides:
        yield sides


@asynccontextmanager
async def _both(
    postgres_url: str,
    folder: Path,
    *,
    options: Mapping[str, str] | None = None,
    sections: Mapping[str, Mapping[str, str]] | None = None,
) -> AsyncGenerator[tuple[Side, Side]]:
    options, sections = options or {}, sections or {}
    async with AsyncExitStack() as stack:
        theirs = await glare.started(
            folder / "glare",
            options=options,
            sections="\n".join(
                f"[{section}]\n" + "\n".join(f"{name} = {value}" for name, value in values.items())
                for section, values in sections.items()
            ),
        )
        stack.callback(theirs.stop)
        database = await databases.create(postgres_url)
        stack.push_async_callback(databases.drop, database)
        (folder / "diptych").mkdir()
        served = await ours.started(
            folder / "diptych",
            database=database,
            environ={
                f"{section}__{name}".upper(): value
                for section, values in {"default": options, **sections}.items()
                for name, value in values.items()
            },
        )
        stack.callback(served.stop)
        clients = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=60))
            for url in (theirs.url, served.url)
        ]
        keeps = options.get("delayed_delete") == "true"
        yield Side(clients[0], keeps), Side(clients[1], keeps)
