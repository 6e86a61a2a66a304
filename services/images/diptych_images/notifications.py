"""Events of what was changed, recorded in the transaction of the change.

They carry the id of the request that is being served, or that asked for the job that runs.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from diptych_common import events
from diptych_common.database import Connection, Database
from diptych_common.errors import ServiceUnavailable
from diptych_common.events import Priority
from diptych_common.identity import Identity
from diptych_common.logs import request_id

from diptych_images.db.images import ImageRow
from diptych_images.db.members import MemberRow
from diptych_images.db.metadefs.namespaces import Entry, Kind, NamespaceRow
from diptych_images.db.tables import outbox
from diptych_images.db.tasks import TaskRow
from diptych_images.wire import event

log = logging.getLogger(__name__)


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


_METADEF_KINDS: dict[Kind, str] = {
    "resource_type_associations": "resource_type",
    "properties": "property",
    "objects": "object",
    "tags": "tag",
}


async def emit_namespace(
    connection: Connection, what: str, row: NamespaceRow, *, old: str | None = None
) -> None:
    """Record a `metadef_namespace.*` event: `what` is its last word, `old` the name before."""
    deleted_at = datetime.now(UTC) if what == "delete" else None
    await events.emit(
        connection,
        outbox,
        f"metadef_namespace.{what}",
        event.namespace(row, old=old, deleted_at=deleted_at),
        request_id=request_id.get(),
    )


async def emit_metadefs(
    connection: Connection,
    what: str,
    row: NamespaceRow,
    kind: Kind,
    entries: Sequence[Entry],
    *,
    old: str | None = None,
) -> None:
    """Record an event for each entry of a namespace that was created, changed or deleted."""
    word = _METADEF_KINDS[kind]
    deleted_at = datetime.now(UTC) if what == "delete" else None
    await events.emit_all(
        connection,
        outbox,
        f"metadef_{word}.{what}",
        [event.metadef(word, row, entry, old=old, deleted_at=deleted_at) for entry in entries],
        request_id=request_id.get(),
    )


async def emit_failure(db: Database, words: str) -> None:
    """Record that bytes of an image could not be stored: `image.upload`, with priority ERROR.

    In a transaction of its own; what becomes of the image is told by other events. `words` are the
    payload, as in Glance, so they name the image, and hold nothing that users may not see.
    """
    await _emit_alone(db, "image.upload", words, priority="ERROR")


@dataclass(slots=True)
class Sending:
    """The bytes of an image on their way to somebody: `expected` of them, `bytes_sent` so far.

    `on_sent` is told of each block, too.
    """

    db: Database
    row: ImageRow
    who: Identity
    expected: int
    on_sent: Callable[[int], None] | None = None
    bytes_sent: int = 0

    def sent(self, size: int) -> None:
        """Count a block of `size` bytes that was handed to the server."""
        self.bytes_sent += size
        if self.on_sent is not None:
            self.on_sent(size)

    async def ended(self) -> None:
        """Record `image.send`, with priority ERROR if not all was sent.

        In a transaction of its own: nothing is changed by a download.
        """
        payload = event.sent(
            self.row,
            bytes_sent=self.bytes_sent,
            project_id=self.who.project_id,
            user_id=self.who.user_id,
        )
        priority = "INFO" if self.bytes_sent == self.expected else "ERROR"
        await _emit_alone(self.db, "image.send", payload, priority=priority)


async def _emit_alone(
    db: Database, event_type: str, payload: Mapping[str, object] | str, *, priority: Priority
) -> None:
    if not db.wants_event(event_type):
        return
    try:
        async with db.write() as connection:
            await events.emit(
                connection,
                outbox,
                event_type,
                payload,
                priority=priority,
                request_id=request_id.get(),
            )
    except ServiceUnavailable as trouble:
        # What it tells of has happened, and is the client's to know.
        log.error("%s is told nobody, %s: %s", event_type, payload, trouble)
