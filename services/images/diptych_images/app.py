"""The images service put together: its routes, its middleware, and what a process opens.

Where a route is: `/v2/<family>…` in `api/<family>.py`, `/v2/images/{id}/<sub>…` in
`api/<sub>.py`. The exceptions: `file` is in `data.py`, `import` in `imports.py`, and
`PATCH /v2/images/{id}` in `patch.py`. `/v2/cached_images` and `/v2/queued_images` are in
`cache.py`. `/v2/metadefs/…/<sub>` is in `api/metadefs/<sub>.py`.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from datetime import timedelta
from importlib.metadata import version
from typing import Any, cast

from diptych_common import backlog, sealing, service, tracing
from diptych_common.application import Application, assemble, stopping
from diptych_common.database import Database
from diptych_common.delivery import Delivery, delivering
from diptych_common.handover import Handover
from diptych_common.keystone import Keystone
from diptych_common.limits import UnifiedLimits
from diptych_common.metrics import Metrics
from diptych_common.outbound import Outbound
from diptych_common.policy import Policy
from diptych_common.rate_limit import RateLimit
from diptych_common.settings import Loaded
from diptych_common.worker import running
from diptych_store.errors import StoreError
from diptych_store.ingest import BlockPool
from diptych_store.protocol import Measures, Sweeps
from diptych_store.registry import Stores, check_host
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.types import Scope

from diptych_images import marks, policies, property_protection, site_schema
from diptych_images.api import (
    actions,
    cache,
    data,
    images,
    imports,
    info,
    locations,
    members,
    patch,
    schemas,
    stage,
    stores,
    tags,
    tasks,
)
from diptych_images.api.errors import from_store, render
from diptych_images.api.metadefs import namespaces, objects, properties, resource_types
from diptych_images.api.metadefs import tags as metadef_tags
from diptych_images.api.resources import Resources
from diptych_images.api.versions import VersionNegotiation
from diptych_images.barbican import Barbican
from diptych_images.cache import upkeep as caches
from diptych_images.db.tables import image_locations, outbox
from diptych_images.db.tables import jobs as jobs_table
from diptych_images.imports import plugins
from diptych_images.imports.equipment import Equipment
from diptych_images.property_protection import PropertyProtection
from diptych_images.quotas import Quotas, unified_limits
from diptych_images.settings import ImagesSettings, delivers
from diptych_images.settings import stores as settings_of_stores
from diptych_images.worker import make_worker

_LONGER_THAN_ANY_ATTEMPT = timedelta(days=36500)

ROUTERS = (
    images.router,
    patch.router,
    data.router,
    stage.router,
    imports.router,
    locations.router,
    members.router,
    tags.router,
    actions.router,
    info.router,
    stores.router,
    cache.router,
    schemas.router,
    tasks.router,
    namespaces.router,
    resource_types.router,
    objects.router,
    properties.router,
    metadef_tags.router,
)


def create_app(loaded: Loaded[ImagesSettings]) -> Application:
    """The service as an ASGI application; what it needs is opened when the server starts it.

    Raises what tells an operator that the settings cannot be used: SettingsError,
    PolicyError, ValueError (the latter for files that protect or declare properties too).
    """
    settings = loaded.settings
    stores_config = settings_of_stores(loaded)
    check_host(stores_config)
    delivery = delivers(loaded)
    policy = service.load_policy(policies.RULES, loaded)
    protection = property_protection.load(loaded, policy)
    schema = site_schema.load(loaded)
    metrics = Metrics()
    db = Database(
        settings.database,
        application_name="diptych-images",
        on_in_use=metrics.database_connections.set,
        wants_event=settings.wants_event,
    )

    outbound = Outbound(settings.outbound)
    # Before the lifespan, for the settings may lack what it takes.
    unified = unified_limits(settings)
    unopened = Barbican(settings)

    async def database_answers(_: Scope) -> None:
        await db.ping()

    front = service.middleware_stack(
        settings,
        identification=service.identification(
            settings, settings.paste_deploy.identity, service_type="image", metrics=metrics
        ),
        metrics=metrics,
        render_error=render,
        checks={"database": database_answers, "default_store": _default_store_answers},
        versions=Middleware(
            VersionNegotiation,
            public_endpoint=settings.default.public_endpoint,
            cache=settings.default.image_cache_dir is not None,
            multi_store=stores_config.is_multiple,
        ),
        title="Images",
        routers=ROUTERS,
    )

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(_traced(settings))
            await stack.enter_async_context(db)
            await stack.enter_async_context(front.opened)
            stores = await stack.enter_async_context(
                Stores.open(stores_config, on_call=metrics.store_called, outbound=outbound)
            )
            await stack.enter_async_context(marks.compared(db, stores))
            quotas = await stack.enter_async_context(_quotas(settings, unified))
            barbican = await stack.enter_async_context(unopened)
            # Blocks of full size for two uploads at a time, smaller ones for more: with what a
            # transfer costs besides (inspection holds up to 1 MiB, the allocator its share), twenty
            # slow uploads stay well below 64 MiB.
            blocks = BlockPool(blocks=8)
            stack.callback(blocks.close)
            await stack.enter_async_context(_watching(policy, protection))
            caching = await stack.enter_async_context(caches.kept(settings, db, stores, metrics))
            await stack.enter_async_context(_backlog_measured(settings, db, metrics))
            if settings.jobs.with_worker:
                await plugins.tidy(settings)
                equipment = Equipment(
                    settings, db, stores, outbound, blocks, metrics, protection, quotas, barbican
                )
                await stack.enter_async_context(running(make_worker(equipment), stop=stopping(api)))
                await stack.enter_async_context(_delivering(equipment, delivery))
            yield {
                "resources": Resources(
                    settings=settings,
                    db=db,
                    policy=policy,
                    protection=protection,
                    stores=stores,
                    blocks=blocks,
                    schema=schema,
                    metrics=metrics,
                    sealed=sealing.configured(settings.jobs),
                    creations=RateLimit(
                        per_minute=settings.create_limit.per_minute,
                        burst=settings.create_limit.burst,
                    ),
                    quotas=quotas,
                    caching=caching,
                    barbican=barbican,
                    handover=Handover.configured(settings),
                )
            }

    return assemble(
        title="Images",
        version=version("diptych-images"),
        routers=ROUTERS,
        lifespan=lifespan,
        middleware=front.middleware,
        render_error=render,
        errors={StoreError: from_store},
    )


@asynccontextmanager
async def _quotas(
    settings: ImagesSettings, unified: tuple[Keystone, UnifiedLimits] | None
) -> AsyncGenerator[Quotas]:
    if unified is None:
        yield Quotas(settings, None)
        return
    keystone, limits = unified
    async with keystone:
        yield Quotas(settings, limits)


async def _default_store_answers(scope: Scope) -> None:
    store = cast(Resources, scope["state"]["resources"]).stores.default
    if isinstance(store, Measures):
        await store.free()
    elif isinstance(store, Sweeps):
        # A look that finds nothing: it only matters that there is an answer.
        async for _ in store.attempts(older_than=_LONGER_THAN_ANY_ATTEMPT):
            break


@asynccontextmanager
async def _watching(policy: Policy, protection: PropertyProtection) -> AsyncGenerator[None]:
    """Take over changes of the operator's files meanwhile."""
    tasks = [asyncio.create_task(policy.watch()), asyncio.create_task(protection.watch())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


def _traced(settings: ImagesSettings) -> AbstractAsyncContextManager[None]:
    """Send the spans of this process meanwhile."""
    return tracing.sending(settings.tracing, service="diptych-images")


def _backlog_measured(
    settings: ImagesSettings, db: Database, metrics: Metrics
) -> AbstractAsyncContextManager[None]:
    """Tell what nobody does although it should be done, meanwhile."""
    return backlog.measured(
        db, settings.metrics, metrics, jobs=jobs_table, attempts=image_locations
    )


def _delivering(
    equipment: Equipment, delivery: Delivery | None
) -> AbstractAsyncContextManager[None]:
    """Deliver events meanwhile."""
    settings, metrics = equipment.settings.jobs, equipment.metrics
    return delivering(equipment.db, settings, metrics, delivery, jobs=jobs_table, outbox=outbox)


async def run_worker(loaded: Loaded[ImagesSettings]) -> None:
    """Run background jobs alone, until SIGTERM or SIGINT."""
    settings = loaded.settings
    policy = service.load_policy(policies.RULES, loaded)
    protection = property_protection.load(loaded, policy)
    delivery = delivers(loaded)
    metrics = Metrics()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    db = Database(
        settings.database,
        application_name="diptych-images-worker",
        on_in_use=metrics.database_connections.set,
        wants_event=settings.wants_event,
    )
    outbound = Outbound(settings.outbound)
    opened = Stores.open(
        settings_of_stores(loaded), on_call=metrics.store_called, outbound=outbound
    )
    # Nobody else takes bytes in here; see `create_app`.
    blocks = BlockPool(blocks=8)
    listening = metrics.listening(settings.metrics.bind_host, settings.metrics.worker_bind_port)
    try:
        with listening if settings.metrics.enabled else nullcontext():
            async with (
                _traced(settings),
                db,
                opened as stores,
                marks.compared(db, stores),
                _watching(policy, protection),
                _backlog_measured(settings, db, metrics),
                _quotas(settings, unified_limits(settings)) as quotas,
                Barbican(settings) as barbican,
            ):
                await plugins.tidy(settings)
                equipment = Equipment(
                    settings, db, stores, outbound, blocks, metrics, protection, quotas, barbican
                )
                async with _delivering(equipment, delivery):
                    await make_worker(equipment).run(stop)
    finally:
        blocks.close()
