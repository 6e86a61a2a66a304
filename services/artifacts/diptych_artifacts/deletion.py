"""How artifacts are deleted: at once, or after a while.

Of either the bytes go by the job of `removal.py`.
"""

from datetime import timedelta

from diptych_common.database import Connection, Database

from diptych_artifacts import removal
from diptych_artifacts.db import deletion
from diptych_artifacts.db.artifacts import ArtifactRow
from diptych_artifacts.notifications import emit
from diptych_artifacts.settings import ArtifactsSettings

JOB = "scrub"

_AT_A_TIME = 100


async def delete(connection: Connection, row: ArtifactRow, *, delayed: bool) -> None:
    """Delete an artifact that is locked, and none of whose blobs is being saved.

    With `delayed` it is `deleted` from now on, and gone when `scrub_time` is over; one that is
    `deleted` already goes now.
    """
    if row["status"] == "deleted":
        # No event: consumers were told.
        await removal.later(connection, await deletion.remove(connection, row["id"]))
        return
    if delayed:
        await deletion.delay(connection, row)
    else:
        await removal.later(connection, await deletion.remove(connection, row["id"]))
    await emit(connection, "delete", row)


async def scrub_all(db: Database, settings: ArtifactsSettings) -> int:
    """Remove all artifacts whose `scrub_time` is over; how many there were.

    No events: consumers were told when they were deleted.
    """
    after = timedelta(seconds=settings.scrubber.scrub_time)
    scrubbed = 0
    while True:
        async with db.read() as connection:
            due = await deletion.due(connection, after=after, at_most=_AT_A_TIME)
        if not due:
            return scrubbed
        for artifact_id in due:
            async with db.write() as connection:
                released = await deletion.remove_due(connection, artifact_id, after=after)
                await removal.later(connection, released or [])
            scrubbed += released is not None
