"""A worker of the images service in this process."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from diptych_common.database import Database
from diptych_common.metrics import Metrics
from diptych_common.outbound import Outbound
from diptych_common.policy import Policy
from diptych_images import policies, property_protection
from diptych_images.barbican import Barbican
from diptych_images.imports.equipment import Equipment
from diptych_images.property_protection import PropertyProtection
from diptych_images.quotas import Quotas
from diptych_images.settings import ImagesSettings, load
from diptych_images.worker import make_worker
from diptych_store.ingest import BlockPool
from diptych_store.registry import Stores
from diptych_store.settings import StoresConfig

POLICY = Policy.load(policies.RULES)
UNPROTECTED = PropertyProtection(None, "roles", POLICY)


@contextmanager
def equipped(
    settings: ImagesSettings,
    db: Database,
    stores: Stores,
    metrics: Metrics | None = None,
    protection: PropertyProtection = UNPROTECTED,
) -> Generator[Equipment]:
    """What jobs work with: these stores, and the rest as a process has it."""
    blocks = BlockPool(blocks=8)
    outbound = Outbound(settings.outbound)
    try:
        metrics = metrics or Metrics()
        quotas = Quotas(settings, None)
        barbican = Barbican(settings)
        yield Equipment(
            settings, db, stores, outbound, blocks, metrics, protection, quotas, barbican
        )
    finally:
        blocks.close()


@asynccontextmanager
async def running(equipment: Equipment) -> AsyncGenerator[None]:
    """A worker that runs beside the block, and hands back its jobs at the end."""
    stop = asyncio.Event()
    worker = asyncio.create_task(make_worker(equipment).run(stop))
    try:
        yield
    finally:
        stop.set()
        await worker


@asynccontextmanager
async def working(environ: dict[str, str]) -> AsyncGenerator[Equipment]:
    """A worker with the stores of these settings."""
    loaded = load(environ=environ)
    metrics = Metrics()
    async with (
        Database(loaded.settings.database) as db,
        Stores.open(
            StoresConfig.from_sections(loaded.sections), on_call=metrics.store_called
        ) as stores,
    ):
        protection = property_protection.load(loaded, POLICY)
        with equipped(loaded.settings, db, stores, metrics, protection) as equipment:
            async with running(equipment):
                yield equipment
