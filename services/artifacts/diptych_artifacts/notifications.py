"""Events of what was changed, recorded in the transaction of the change."""

from collections.abc import Mapping, Sequence

from diptych_common import events
from diptych_common.database import Connection
from diptych_common.logs import request_id

from diptych_artifacts.db.artifacts import ArtifactRow
from diptych_artifacts.db.tables import outbox
from diptych_artifacts.wire import event


async def emit(connection: Connection, action: str, row: ArtifactRow) -> None:
    """Record that `action` ("create", "upload", …) was done to an artifact."""
    await _record(connection, action, event.artifact(row))


async def emit_quotas(connection: Connection, quotas: Sequence[object]) -> None:
    """Record that these quotas of projects were set; Glare's event says nothing of which."""
    await _record(connection, "set_quotas", {"quotas": quotas})


async def _record(connection: Connection, action: str, payload: Mapping[str, object]) -> None:
    await events.emit(
        connection,
        outbox,
        f"artifact.artifact:{action}",
        payload,
        request_id=request_id.get(),
    )
