"""What a process has opened for its imports, and what is the same throughout one of their runs."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from diptych_common import events
from diptych_common.database import Connection, Database
from diptych_common.metrics import Metrics
from diptych_common.outbound import Outbound
from diptych_common.worker import JobContext
from diptych_store.ingest import BlockPool
from diptych_store.registry import Stores

from diptych_images.db.images import ImageRow
from diptych_images.db.tables import outbox
from diptych_images.db.tasks import TaskRow
from diptych_images.settings import ImagesSettings
from diptych_images.wire import event
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

    `image` is as it was when the run began, `request_id` that of the request for the import.
    `landed` are the stores into which the bytes have been put.
    """

    order: ImportJob
    context: JobContext
    equipment: Equipment
    image: ImageRow
    request_id: str | None
    landed: set[str] = field(default_factory=set[str])
    progress: Progress = field(default_factory=Progress)

    async def emit(
        self, connection: Connection, event_type: str, row: ImageRow, *, store: str | None = None
    ) -> None:
        """Record an event about the image, and a store of the import, in the transaction."""
        payload = event.image(row) if store is None else event.imported(row, store=store)
        await events.emit(connection, outbox, event_type, payload, request_id=self.request_id)

    async def emit_task(self, connection: Connection, row: TaskRow) -> None:
        """Record that the task has another status."""
        kind = f"task.{row['status']}"
        await events.emit(connection, outbox, kind, event.task(row), request_id=self.request_id)
