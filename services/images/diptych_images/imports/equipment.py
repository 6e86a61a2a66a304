"""What a process has opened for its imports, and what is the same throughout one of their runs."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from diptych_common.database import Database
from diptych_common.metrics import Metrics
from diptych_common.outbound import Outbound
from diptych_common.worker import JobContext
from diptych_store.ingest import BlockPool
from diptych_store.registry import Stores

from diptych_images.barbican import Barbican
from diptych_images.db.images import ImageRow
from diptych_images.property_protection import PropertyProtection
from diptych_images.quotas import Quotas
from diptych_images.settings import ImagesSettings
from diptych_images.wire.imports import ImportJob


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a process has opened for its jobs."""

    settings: ImagesSettings
    db: Database
    stores: Stores
    outbound: Outbound
    blocks: BlockPool
    metrics: Metrics
    protection: PropertyProtection
    quotas: Quotas
    barbican: Barbican


@dataclass(slots=True)
class Progress:
    """How many bytes came from the source, and of how many; None if that is not known."""

    done: int = 0
    total: int | None = None

    async def counted(self, blocks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """The same bytes, counted as they pass."""
        async for block in blocks:
            self.done += len(block)
            yield block


class ImageGone(Exception):
    """The image was deleted, or the import does not hold it any more: there is nothing to do."""


@dataclass(frozen=True, slots=True)
class Import:
    """A run of an import's job.

    `image` is as it was when the run began, `landed` are the stores into which the bytes have been
    put.
    """

    order: ImportJob
    context: JobContext
    equipment: Equipment
    image: ImageRow
    landed: set[str] = field(default_factory=set[str])
    progress: Progress = field(default_factory=Progress)
