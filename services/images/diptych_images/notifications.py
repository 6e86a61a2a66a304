"""Events of what was changed, recorded in the transaction of the change.

They carry the id of the request that is being served, or that asked for the job that runs.
"""

from diptych_common import events
from diptych_common.database import Connection
from diptych_common.logs import request_id

from diptych_images.db.images import ImageRow
from diptych_images.db.members import MemberRow
from diptych_images.db.tables import outbox
from diptych_images.db.tasks import TaskRow
from diptych_images.wire import event


async def emit(
    connection: Connection, event_type: str, row: ImageRow, *, store: str | None = None
) -> None:
    """Record an `image.*` event; `store` is the one of an import that it is about."""
    payload = event.image(row) if store is None else event.imported(row, store=store)
    await events.emit(connection, outbox, event_type, payload, request_id=request_id.get())


async def emit_task(connection: Connection, event_type: str, row: TaskRow) -> None:
    """Record a `task.*` event."""
    await events.emit(connection, outbox, event_type, event.task(row), request_id=request_id.get())


async def emit_member(connection: Connection, event_type: str, row: MemberRow) -> None:
    """Record an `image.member.*` event."""
    payload = event.member(row, deleted=event_type == "image.member.delete")
    await events.emit(connection, outbox, event_type, payload, request_id=request_id.get())
