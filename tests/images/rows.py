"""Images made as rows, for tests of statements."""

from uuid import uuid4

from diptych_common.database import Database
from diptych_common.settings import Database as DatabaseSettings
from diptych_images.db import images
from diptych_images.db.images import ImageRow
from sqlalchemy.ext.asyncio import AsyncConnection

OWNER = "project-of-the-owner"


def open_database(url: str) -> Database:
    """A pool with the service's own defaults."""
    return Database(DatabaseSettings(connection=url))


async def make_image(connection: AsyncConnection, **values: object) -> ImageRow:
    """A queued image of OWNER, unless told otherwise."""
    row = await images.insert(connection, {"owner": OWNER, **values})
    assert row is not None
    return row


async def make_active(connection: AsyncConnection, **values: object) -> ImageRow:
    """An image that has its bytes, in the store `fast`."""
    row = await make_image(connection, **values)
    attempt = str(uuid4())
    await images.start_upload(connection, row["id"], store="fast", attempt=attempt, lease_s=60)
    active = await finish(connection, row["id"], attempt)
    assert active is not None
    return active


async def finish(connection: AsyncConnection, image_id: str, attempt: str) -> ImageRow | None:
    """Finish an upload with 3 bytes."""
    return await images.finish_upload(
        connection,
        image_id,
        attempt=attempt,
        url=f"file:///images/{image_id}",
        metadata={"store": "fast"},
        size=3,
        virtual_size=30,
        checksum="c" * 32,
        os_hash_algo="sha512",
        os_hash_value="d" * 128,
    )
