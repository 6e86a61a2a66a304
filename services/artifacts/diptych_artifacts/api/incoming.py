"""What uploads are made of: a row with room for the bytes, then the bytes, then what is in them."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import BinaryIO, Final, cast
from uuid import uuid4

from diptych_common.database import Connection
from diptych_common.errors import Conflict, TooLarge
from diptych_store.digests import Digests
from diptych_store.ingest import Observer, ingest
from diptych_store.protocol import Block, Store

from diptych_artifacts.api.resources import Resources, require_changeable, require_free_key
from diptych_artifacts.attempts import Held
from diptych_artifacts.db import artifacts, blobs
from diptych_artifacts.db.artifacts import ArtifactRow
from diptych_artifacts.db.blobs import Uploaded, UploadLost
from diptych_artifacts.encryption import Sealing
from diptych_artifacts.quotas import SMALLEST_STEP, Destination, Room
from diptych_artifacts.types.registry import ArtifactType
from diptych_artifacts.types.unpacking import Unpack, unpacked
from diptych_artifacts.wire.blob import Place

_DIGESTS: Final = Digests(("md5", "sha1", "sha256"))
_OCTETS: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class NewBlob:
    """A blob to be: how it is encrypted, and what is kept of that; None, and None, if it is not."""

    id: str
    sealing: Sealing | None
    envelope: dict[str, object] | None


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload whose row is `saving`, with room for `reserved` bytes."""

    new: NewBlob
    place: Place
    to: Destination
    reserved: int
    store: Store


class Spool:
    """What passes by, once more in a file; to be closed."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def update(self, block: Block, /) -> None:
        """See Observer."""
        self.file.write(block)


async def new_blob(known: ArtifactType, res: Resources) -> NewBlob:
    """A blob that nobody has yet. Raises ServiceUnavailable where there is no key for it."""
    blob_id = str(uuid4())
    if not known.encrypted:
        return NewBlob(blob_id, None, None)
    key, envelope = await res.wrapping_keys.new(blob_id)
    return NewBlob(blob_id, Sealing(key, res.blocks.threads), envelope.document())


async def begin(
    connection: Connection,
    row: ArtifactRow,
    place: Place,
    new: NewBlob,
    res: Resources,
    *,
    size: int | None,
    content_type: str,
    store: Store,
    of_archive: bool = False,
) -> Begun:
    """Add a blob that is going to be written to an artifact that is locked.

    `size` is what was announced. Raises in this order Conflict while another upload is under way,
    Forbidden as `require_changeable` unless it is `of_archive`, BadRequest where the folder is
    full, TooLarge where there is no room for the bytes. What the folder has before the files
    `of_archive` take its place is in nobody's way.
    """
    there = await blobs.in_field(connection, row["id"], place.name, place.key, replaced=of_archive)
    if there.saving:
        raise Conflict(f"{place} is being uploaded by another request.")
    if not of_archive:
        require_changeable(row, place)
    require_free_key(place, there.others)
    limit = place.field.max_blob_size
    if size is not None and size > limit:
        raise TooLarge(f"{place} may have {limit} bytes.")
    to = Destination(
        owner=row["owner"],
        type_name=row["type_name"],
        artifact_id=row["id"],
        field=place.name,
        max_blob_size=limit,
        max_folder_size=place.field.max_folder_size if place.field.is_folder else None,
        is_replaced=of_archive,
    )
    first = min(SMALLEST_STEP, limit) if size is None else size
    reserved = await res.quotas.grant(connection, to, size or 0, most=first)
    await blobs.start(
        connection,
        row,
        blob_id=new.id,
        field=place.name,
        key=place.key,
        reserved=reserved,
        store=store.name,
        content_type=content_type,
        encryption=new.envelope,
        lease_s=res.settings.jobs.lease,
    )
    return Begun(new, place, to, reserved, store)


async def receive(
    stream: AsyncIterator[bytes],
    begun: Begun,
    held: Held,
    res: Resources,
    *,
    size: int | None = None,
    observers: Sequence[Observer] = (),
) -> Uploaded:
    """Write the bytes and publish them; for work that runs in `held.while_held`.

    The blob is `saving` still. `size` is how many come, if that is known. Raises as `ingest`, and
    TooLarge where there is no room for more.
    """
    store, blob_id = begun.store, begun.new.id
    attempt = held.add(store, blob_id)
    room = Room(res.db, res.quotas, begun.to, blob_id, taken=begun.reserved)
    async with aclosing(room.before(stream)) as covered:
        stored = await ingest(
            covered,
            store,
            attempt,
            size=size,
            limit=begun.to.max_blob_size,
            digests=_DIGESTS,
            observers=observers,
            sealing=begun.new.sealing,
            pool=res.blocks,
        )
    res.metrics.store_bytes.labels(store.name, "in").inc(stored.size)
    await room.give_back(stored.size)
    url = await held.publish(blob_id)
    place = begun.place
    return Uploaded(blob_id, place.name, place.key, url, stored.size, stored.digests)


async def receive_archive(
    stream: AsyncIterator[bytes],
    begun: Begun,
    held: Held,
    res: Resources,
    row: ArtifactRow,
    known: ArtifactType,
    action: Unpack,
    *,
    size: int | None,
) -> list[Uploaded]:
    """As `receive`, and the files in the archive, each an upload of its own.

    Raises as `unpacked`, too.
    """
    opening = asyncio.to_thread(tempfile.TemporaryFile)
    with await opening as file:
        spool = Spool(cast(BinaryIO, file))
        archive = await receive(stream, begun, held, res, size=size, observers=[spool])
        uploads = [archive]
        folder = known.fields[action.into]
        async with aclosing(unpacked(spool.file, action, folder, res.unpacking)) as files:
            async for key, data in files:
                place = Place(action.into, key, folder)
                new = await new_blob(known, res)
                async with res.db.write() as connection:
                    if not await artifacts.lock_row(connection, row["id"]):
                        raise UploadLost
                    inner = await begin(
                        connection,
                        row,
                        place,
                        new,
                        res,
                        size=None,
                        content_type=_OCTETS,
                        store=begun.store,
                        of_archive=True,
                    )
                async with aclosing(data) as stream_of_file:
                    uploads.append(await receive(stream_of_file, inner, held, res))
    return uploads
