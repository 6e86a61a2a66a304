"""The artifacts service put together."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from diptych_common import service
from diptych_common.application import Application, assemble
from diptych_common.metrics import Metrics
from diptych_common.settings import Loaded
from fastapi import FastAPI
from starlette.middleware import Middleware

from diptych_artifacts.api.errors import render
from diptych_artifacts.api.versions import Versions
from diptych_artifacts.settings import ArtifactsSettings


def create_app(loaded: Loaded[ArtifactsSettings]) -> Application:
    """The service as an ASGI application. ValueError where the settings cannot be used."""
    front = service.middleware_stack(
        loaded.settings,
        service_type="artifact",
        metrics=Metrics(),
        render_error=render,
        checks={},
        versions=Middleware(Versions),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with front.opened:
            yield {}

    return assemble(
        title="Artifacts",
        version=version("diptych-artifacts"),
        routers=(),
        lifespan=lifespan,
        middleware=front.middleware,
        render_error=render,
    )
