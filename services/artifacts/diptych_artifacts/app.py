"""The artifacts service put together: its routes, its middleware, and what a process opens.

Where a route is: `/artifacts/{type}…` in `api/artifacts.py`, PATCH in `api/patch.py`, what is below
an artifact in `api/blobs.py`, `/schemas` in `api/schemas.py`, quotas in `api/quotas.py`.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from datetime import timedelta
from importlib.metadata import version
from typing import Any, cast

from diptych_common import backlog, service, tracing
from diptych_common.application import Application, assemble, stopping
from diptych_common.database import Database
from diptych_common.delivery import Delivery, delivering
from diptych_common.handover import Handover
from diptych_common.metrics import Metrics
from diptych_common.outbound import Outbound
from diptych_common.policy import Policy
from diptych_common.settings import Loaded
from diptych_common.worker import running
from diptych_store.calls import OnCall
from diptych_store.errors import StoreError
from diptych_store.ingest import BlockPool
from diptych_store.protocol import Measures, Store, Sweeps
from diptych_store.registry import Stores, check_host
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import Scope

from diptych_artifacts import policies
from diptych_artifacts.api import artifacts, blobs, patch, quotas, schemas
from diptych_artifacts.api.errors import from_store, from_unreadable, render
from diptych_artifacts.api.paths import Paths
from diptych_artifacts.api.resources import Resources
from diptych_artifacts.api.versions import Versions
from diptych_artifacts.authentication import identification
from diptych_artifacts.db.blob_store import DatabaseStore
from diptych_artifacts.db.tables import blobs as blobs_table
from diptych_artifacts.db.tables import jobs as jobs_table
from diptych_artifacts.db.tables import outbox
from diptych_artifacts.encryption import Unreadable
from diptych_artifacts.quotas import Quotas
from diptych_artifacts.settings import DATABASE_STORE, ArtifactsSettings, delivers
from diptych_artifacts.settings import stores as settings_of_stores
from diptych_artifacts.settings import types as options_of_types
from diptych_artifacts.types import registry
from diptych_artifacts.worker import Equipment, make_worker
from diptych_artifacts.wrapping_keys import WrappingKeys

_LONGER_THAN_ANY_ATTEMPT = timedelta(days=36500)

ROUTERS = (artifacts.router, patch.router, blobs.router, schemas.router, quotas.router)


def create_app(loaded: Loaded[ArtifactsSettings]) -> Application:
    """The service as an ASGI application; what it needs is opened when the server starts it.

    Raises what tells an operator that the settings cannot be used: SettingsError, PolicyError,
    ValueError (the latter for declarations of types too).
    """
    settings = loaded.settings
    stores_config = settings_of_stores(loaded)
    check_host(stores_config)
    type_options = options_of_types(loaded)
    types = load_types(loaded)
    _require_wrapping_keys(loaded, types)
    wrapping_keys = WrappingKeys(settings)
    delivery = delivers(loaded)
    policy = service.load_policy(policies.RULES, loaded, admin_rule=policies.ADMIN_RULE)
    metrics = Metrics()
    db = Database(
        settings.database,
        application_name="diptych-artifacts",
        on_in_use=metrics.database_connections.set,
        wants_event=settings.wants_event,
    )
    outbound = Outbound(settings.outbound)

    async def database_answers(_: Scope) -> None:
        await db.ping()

    front = service.middleware_stack(
        settings,
        identification=identification(settings, metrics=metrics),
        metrics=metrics,
        render_error=render,
        checks={"database": database_answers, "default_store": _default_store_answers},
        versions=Middleware(Versions, render_error=render),
        title="Artifacts",
        routers=ROUTERS,
    )

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_traced(settings))
            await stack.enter_async_context(db)
            await stack.enter_async_context(front.opened)
            await stack.enter_async_context(wrapping_keys)
            stores = await stack.enter_async_context(
                Stores.open(
                    stores_config,
                    on_call=metrics.store_called,
                    outbound=outbound,
                    of_service=_stores_of_service(db),
                )
            )
            blocks = BlockPool(blocks=8)
            stack.callback(blocks.close)
            await stack.enter_async_context(_watching(policy))
            await stack.enter_async_context(_backlog_measured(settings, db, metrics))
            if settings.jobs.with_worker:
                equipment = Equipment(settings, db, stores, metrics)
                await stack.enter_async_context(running(make_worker(equipment), stop=stopping(api)))
                await stack.enter_async_context(_delivering(equipment, delivery))
            yield {
                "resources": Resources(
                    settings=settings,
                    type_options=type_options,
                    types=types,
                    db=db,
                    policy=policy,
                    stores=stores,
                    blocks=blocks,
                    metrics=metrics,
                    wrapping_keys=wrapping_keys,
                    handover=Handover.configured(settings),
                    quotas=Quotas(settings, type_options),
                )
            }

    return assemble(
        title="Artifacts",
        version=version("diptych-artifacts"),
        routers=ROUTERS,
        lifespan=lifespan,
        middleware=[*front.middleware, Middleware(Paths, render_error=render)],
        render_error=render,
        errors={StoreError: from_store, Unreadable: from_unreadable},
    )


def _stores_of_service(db: Database) -> Mapping[str, Callable[[OnCall], Store]]:
    """The stores that types may name without any settings."""
    return {DATABASE_STORE: lambda on_call: DatabaseStore(DATABASE_STORE, db, on_call=on_call)}


def load_types(loaded: Loaded[ArtifactsSettings]) -> registry.Types:
    """The types that the settings enable. Raises ValueError."""
    default = loaded.settings.default
    folder = default.artifact_types_directory
    return registry.load(
        default.enabled_artifact_types,
        modules=default.custom_artifact_types_modules,
        directory=None if folder is None else loaded.resolve(folder),
    )


def _require_wrapping_keys(loaded: Loaded[ArtifactsSettings], types: registry.Types) -> None:
    encrypted = [name for name, one in types.items() if one.encrypted]
    if encrypted and not loaded.settings.secrets.keys:
        expected = (
            "a key, as `diptych-artifacts secrets key` prints one: enabled_artifact_types has"
            f" {', '.join(encrypted)}, whose blobs are encrypted"
        )
        raise loaded.refusal([("secrets", "keys", expected)])


async def _default_store_answers(scope: Scope) -> None:
    store = cast(Resources, scope["state"]["resources"]).stores.default
    if isinstance(store, Measures):
        await store.free()
    elif isinstance(store, Sweeps):
        # A look that finds nothing: it only matters that there is an answer.
        async for _ in store.attempts(older_than=_LONGER_THAN_ANY_ATTEMPT):
            break


@asynccontextmanager
async def _watching(policy: Policy) -> AsyncGenerator[None]:
    """Take over changes of the policy files meanwhile."""
    task = asyncio.create_task(policy.watch())
    try:
        yield
    finally:
        task.cancel()


def _traced(settings: ArtifactsSettings) -> AbstractAsyncContextManager[None]:
    """Send the spans of this process meanwhile."""
    return tracing.sending(settings.tracing, service="diptych-artifacts")


def _backlog_measured(
    settings: ArtifactsSettings, db: Database, metrics: Metrics
) -> AbstractAsyncContextManager[None]:
    """Tell what nobody does although it should be done, meanwhile."""
    return backlog.measured(db, settings.metrics, metrics, jobs=jobs_table, attempts=blobs_table)


def _delivering(
    equipment: Equipment, delivery: Delivery | None
) -> AbstractAsyncContextManager[None]:
    """Deliver events meanwhile."""
    settings, metrics = equipment.settings.jobs, equipment.metrics
    return delivering(equipment.db, settings, metrics, delivery, jobs=jobs_table, outbox=outbox)


async def run_worker(loaded: Loaded[ArtifactsSettings]) -> None:
    """Run background jobs alone, until SIGTERM or SIGINT."""
    settings = loaded.settings
    delivery = delivers(loaded)
    metrics = Metrics()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    db = Database(
        settings.database,
        application_name="diptych-artifacts-worker",
        on_in_use=metrics.database_connections.set,
        wants_event=settings.wants_event,
    )
    outbound = Outbound(settings.outbound)
    opened = Stores.open(
        settings_of_stores(loaded),
        on_call=metrics.store_called,
        outbound=outbound,
        of_service=_stores_of_service(db),
    )
    listening = metrics.listening(settings.metrics.bind_host, settings.metrics.worker_bind_port)
    with listening if settings.metrics.enabled else nullcontext():
        async with (
            _traced(settings),
            db,
            opened as stores,
            _backlog_measured(settings, db, metrics),
        ):
            equipment = Equipment(settings, db, stores, metrics)
            async with _delivering(equipment, delivery):
                await make_worker(equipment).run(stop)
