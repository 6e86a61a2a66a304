"""The artifacts service put together."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any, cast

from diptych_common import service
from diptych_common.application import Application, assemble
from diptych_common.metrics import Metrics
from diptych_common.outbound import Outbound
from diptych_common.settings import Loaded
from diptych_store.protocol import Measures
from diptych_store.registry import Stores, check_host
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import Scope

from diptych_artifacts.api.errors import render
from diptych_artifacts.api.versions import Versions
from diptych_artifacts.settings import ArtifactsSettings
from diptych_artifacts.settings import stores as settings_of_stores


def create_app(loaded: Loaded[ArtifactsSettings]) -> Application:
    """The service as an ASGI application.

    Raises what tells an operator that the settings cannot be used: SettingsError, ValueError.
    """
    metrics = Metrics()
    stores_config = settings_of_stores(loaded)
    check_host(stores_config)
    outbound = Outbound(loaded.settings.outbound)
    front = service.middleware_stack(
        loaded.settings,
        service_type="artifact",
        metrics=metrics,
        render_error=render,
        checks={"default_store": _default_store_answers},
        versions=Middleware(Versions),
        title="Artifacts",
        routers=(),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(front.opened)
            stores = await stack.enter_async_context(
                Stores.open(stores_config, on_call=metrics.store_called, outbound=outbound)
            )
            yield {"stores": stores}

    return assemble(
        title="Artifacts",
        version=version("diptych-artifacts"),
        routers=(),
        lifespan=lifespan,
        middleware=front.middleware,
        render_error=render,
    )


async def _default_store_answers(scope: Scope) -> None:
    store = cast(Stores, scope["state"]["stores"]).default
    if isinstance(store, Measures):
        await store.free()
