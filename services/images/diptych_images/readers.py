"""Who may read an image's bytes without this service, at a backend that keeps lists of its own.

Lists are set by a job, never by a request: the backend may be away, and what it is told follows
the commit. One job per image is enough, for it applies what is true when it runs.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from diptych_common import jobs
from diptych_common.database import Connection, Database
from diptych_store.errors import BadLocation, NotFound, StoreError
from diptych_store.protocol import AccessLists
from diptych_store.registry import Stores

from diptych_images.db import members
from diptych_images.db.images import ImageRow
from diptych_images.db.members import MemberRow
from diptych_images.db.tables import jobs as jobs_table

log = logging.getLogger(__name__)

JOB = "set_readers"

# With any other status there are no bytes that somebody could read, and the change that gives an
# image its bytes comes here as well.
_HAS_BYTES = ("active", "deactivated")


@dataclass(frozen=True, slots=True)
class Readers:
    """The projects that may read, beside the one in whose account the bytes are."""

    projects: tuple[str, ...] = ()
    public: bool = False


async def changed(connection: Connection, stores: Stores, row: ImageRow) -> None:
    """Have the lists set anew after the caller's transaction, which changed who may read the image.

    For a transaction that holds the image. One statement where a store keeps lists, else none:
    `row` may miss a location that was added meanwhile, so it is not asked where the bytes are.
    """
    if row["status"] in _HAS_BYTES and any(_keeps_lists(stores, name) for name in stores.names):
        await jobs.enqueue(
            connection, jobs_table, JOB, {"image_id": row["id"]}, dedup_key=row["id"]
        )


async def apply(db: Database, stores: Stores, image_id: str) -> None:
    """Set the lists of all places where the image's bytes are; of a deleted image there are none.

    One that fails does not keep the others from being set. Raises the first StoreError.
    """
    async with db.read() as connection:
        found = await members.of_image(connection, image_id, project_id=None, is_admin=True)
    if found is None:
        return
    row, entries = found
    readers = readers_of(row, entries)
    failures: list[StoreError] = []
    for location in row["locations"]:
        try:
            store = stores.by_location(location["url"], {"store": location["store"]})
            if isinstance(store, AccessLists) and not stores.info[store.name].read_only:
                await store.allow_reading(
                    location["url"], projects=readers.projects, public=readers.public
                )
        except (NotFound, BadLocation) as nothing:
            # Nobody can read what is not there; a download says so too.
            log.warning("Image %s in store %s: %s", image_id, location["store"], nothing)
        except StoreError as failure:
            failures.append(failure)
    if failures:
        raise failures[0]


def readers_of(row: ImageRow, entries: Sequence[MemberRow]) -> Readers:
    """Who may read an image with these members.

    A community image is for everybody who knows its id, and a member may read whatever it has
    answered. Unlike in Glance, members count only while the image is shared, nobody may read a
    deactivated image, and its owner may read what an administrator uploaded for it.

    Source: Glance 33.0, glance/location.py `_set_acls`.
    """
    if row["status"] == "deactivated":
        return Readers()
    if row["visibility"] in ("public", "community"):
        return Readers(public=True)
    projects = [] if row["owner"] is None else [row["owner"]]
    if row["visibility"] == "shared":
        projects += [entry["member"] for entry in entries]
    return Readers(tuple(projects))


def _keeps_lists(stores: Stores, name: str) -> bool:
    return isinstance(stores[name], AccessLists) and not stores.info[name].read_only
