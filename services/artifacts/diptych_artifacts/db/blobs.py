"""Blobs: those under way, those that artifacts have, and those whose bytes are still to go.

A row that is `saving` is its upload's while the lease is renewed. Once it is certain that nothing
comes of it, it is detached: the artifact has no part in it any more and no quota counts it, and
whoever detached it removes its bytes and then the row. Artifacts are given blobs, and lose them,
under the artifact's lock only; a row that is saving may be detached, or take more room, without.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypedDict, cast

import sqlalchemy as sa
from diptych_common.errors import ServiceUnavailable
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_artifacts.db.artifacts import (
    ArtifactRow,
    BlobRow,
    columns_of,
    is_uuid,
    lock_row,
    row_of,
    word,
)
from diptych_artifacts.db.tables import artifacts, blobs

_AT_A_TIME: Final = 1000

_NOW: Final = sa.func.statement_timestamp()
_IDS: Final = ARRAY(sa.Uuid(as_uuid=False))
_ID: Final = sa.bindparam("the_blob", type_=sa.Uuid(as_uuid=False))
_ARTIFACT: Final = sa.bindparam("the_artifact", type_=sa.Uuid(as_uuid=False))
_FIELD: Final = sa.bindparam("the_field", type_=sa.String)
_KEY: Final = sa.bindparam("the_key", type_=sa.String)
_LEASE: Final = _NOW + sa.bindparam("lease_s", type_=sa.Float) * sa.text("interval '1 second'")


@dataclass(frozen=True, slots=True)
class InField:
    """What a field of an artifact has: `saving`, whether an upload of this very key is under way.

    `others` is the number of other keys. `size` is bytes in all, those that are reserved too, and
    of a blob that is being replaced both. For one of those that replace all that a folder has they
    count what is being uploaded alone.
    """

    saving: bool
    others: int
    size: int


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An upload whose bytes are whole in their store; `size` is at most what was reserved."""

    id: str
    field: str
    key: str
    url: str
    size: int
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Dead:
    """An upload whose process was not heard of for as long as its lease."""

    id: str
    store: str
    owner: str


class UploadLost(ServiceUnavailable):
    """Somebody else has taken an upload for dead, or has ended it, and it is to be undone."""

    def __init__(self) -> None:
        super().__init__(
            "The upload was given up: it had not been heard of for too long, or an administrator"
            " ended it. Try again."
        )


class Removable(TypedDict):
    """A blob that nobody has any more, and where its bytes are; None: in no store."""

    id: str
    store: str | None
    url: str


def _in_field(*, replaced: bool) -> sa.Select[*tuple[Any, ...]]:
    is_saving = blobs.c.status == word("saving")
    is_key = blobs.c.key == _KEY
    saving = sa.func.bool_or(sa.and_(is_key, is_saving))
    return sa.select(
        sa.func.coalesce(saving, sa.false()),
        sa.func.count(blobs.c.key.distinct()).filter(sa.not_(is_key)),
        sa.cast(sa.func.coalesce(sa.func.sum(blobs.c.size), 0), sa.BigInteger),
    ).where(
        blobs.c.artifact_id == _ARTIFACT,
        blobs.c.field == _FIELD,
        is_saving if replaced else blobs.c.status != word("deleted"),
    )


_IN_FIELD: Final = {replaced: _in_field(replaced=replaced) for replaced in (False, True)}


async def in_field(
    connection: AsyncConnection,
    artifact_id: str,
    field: str,
    key: str = "",
    *,
    replaced: bool = False,
) -> InField:
    """What the field has, beside and under this key.

    `replaced`: for an upload at whose end what the field has now is dropped, see `finish`.
    """
    parameters = {"the_artifact": artifact_id, "the_field": field, "the_key": key}
    return InField(*(await connection.execute(_IN_FIELD[replaced], parameters)).one())


_START: Final = sa.insert(blobs).values(
    id=_ID,
    artifact_id=_ARTIFACT,
    field=_FIELD,
    key=_KEY,
    status=word("saving"),
    lease_until=_LEASE,
)


async def start(
    connection: AsyncConnection,
    artifact: ArtifactRow,
    *,
    blob_id: str,
    field: str,
    key: str,
    reserved: int,
    store: str,
    content_type: str,
    encryption: dict[str, Any] | None,
    lease_s: float,
) -> None:
    """Add a blob that is going to be written, to an artifact that is locked.

    For a key of which no upload is under way. `reserved` bytes are taken of the owner's quota.
    """
    await connection.execute(
        _START,
        {
            "the_blob": blob_id,
            "the_artifact": artifact["id"],
            "the_field": field,
            "the_key": key,
            "lease_s": lease_s,
            "owner": artifact["owner"],
            "type_name": artifact["type_name"],
            "size": reserved,
            "store": store,
            "content_type": content_type,
            "encryption": encryption,
        },
    )


_IS_HELD: Final = sa.and_(
    blobs.c.id == _ID, blobs.c.status == word("saving"), blobs.c.artifact_id.is_not(None)
)
_THESE: Final = blobs.c.id == sa.any_(sa.bindparam("the_blobs", type_=_IDS))
_RENEW: Final = (
    sa.update(blobs)
    .where(_THESE, blobs.c.status == word("saving"), blobs.c.artifact_id.is_not(None))
    .values(lease_until=_LEASE)
    .returning(blobs.c.id)
)
_RESERVE: Final = (
    sa.update(blobs)
    .where(_IS_HELD)
    .values(size=blobs.c.size + sa.bindparam("more", type_=sa.BigInteger))
    .returning(blobs.c.id)
)


async def renew(connection: AsyncConnection, blob_ids: Collection[str], *, lease_s: float) -> None:
    """Renew the leases of uploads. Raises UploadLost if one of them was detached."""
    parameters = {"the_blobs": list(blob_ids), "lease_s": lease_s}
    renewed = await connection.execute(_RENEW, parameters)
    if len(renewed.all()) < len(blob_ids):
        raise UploadLost


async def reserve(connection: AsyncConnection, blob_id: str, more: int) -> None:
    """Reserve as many bytes more for an upload, or fewer. Raises UploadLost."""
    reserved = await connection.execute(_RESERVE, {"the_blob": blob_id, "more": more})
    if reserved.first() is None:
        raise UploadLost


def _release(*which: sa.ColumnElement[bool]) -> sa.Update:
    return (
        sa.update(blobs)
        .where(
            blobs.c.artifact_id == _ARTIFACT,
            blobs.c.field == _FIELD,
            blobs.c.status == word("active"),
            *which,
        )
        .values(status=word("deleted"))
        .returning(blobs.c.id)
    )


_RELEASE: Final = _release(blobs.c.key == _KEY)
_EMPTY: Final = _release()
_FINISH: Final = (
    sa.update(blobs)
    .where(_IS_HELD)
    .values(
        status=word("active"),
        lease_until=None,
        url=sa.bindparam("the_url", type_=sa.Text),
        size=sa.bindparam("the_size", type_=sa.BigInteger),
        md5=sa.bindparam("the_md5", type_=sa.Text),
        sha1=sa.bindparam("the_sha1", type_=sa.Text),
        sha256=sa.bindparam("the_sha256", type_=sa.Text),
    )
    .returning(blobs.c.id)
)
_TOUCH: Final = (
    sa.update(artifacts)
    .where(artifacts.c.id == _ARTIFACT)
    .values(updated_at=_NOW)
    .returning(*columns_of(artifacts))
)


async def finish(
    connection: AsyncConnection,
    artifact_id: str,
    uploads: Sequence[Uploaded],
    *,
    emptied: str | None = None,
) -> tuple[ArtifactRow, list[str]]:
    """Make uploads the artifact's blobs: what the artifact is now, and the blobs they replace.

    Those are `deleted`: see `removal`; with them what is in the folder `emptied`. Raises
    UploadLost, and then nothing is to be committed.
    """
    if not await lock_row(connection, artifact_id):
        raise UploadLost
    replaced: list[str] = []
    if emptied is not None:
        where = {"the_artifact": artifact_id, "the_field": emptied}
        replaced += (await connection.execute(_EMPTY, where)).scalars()
    for one in uploads:
        where = {"the_artifact": artifact_id, "the_field": one.field, "the_key": one.key}
        replaced += (await connection.execute(_RELEASE, where)).scalars()
        finished = await connection.execute(
            _FINISH,
            {
                "the_blob": one.id,
                "the_url": one.url,
                "the_size": one.size,
                **{f"the_{name}": digest for name, digest in one.digests.items()},
            },
        )
        if finished.first() is None:
            raise UploadLost
    return await _touch(connection, artifact_id), replaced


async def _touch(connection: AsyncConnection, artifact_id: str) -> ArtifactRow:
    touched = await connection.execute(_TOUCH, {"the_artifact": artifact_id})
    return row_of(dict(touched.mappings().one()))


_DETACH: Final = (
    sa.update(blobs)
    .where(_THESE, blobs.c.status == word("saving"))
    .values(artifact_id=None, size=None, lease_until=_LEASE)
    .returning(blobs.c.id)
)


async def detach(
    connection: AsyncConnection, blob_ids: Collection[str], *, lease_s: float
) -> set[str]:
    """Take uploads away from their artifact, to remove what there is of them within the lease.

    Those that are not among what is returned have become the artifact's, or nothing is left of
    them.
    """
    parameters = {"the_blobs": list(blob_ids), "lease_s": lease_s}
    return set((await connection.execute(_DETACH, parameters)).scalars())


_END: Final = (
    sa.update(blobs)
    .where(blobs.c.artifact_id == _ARTIFACT, blobs.c.status == word("saving"))
    .values(artifact_id=None, size=None)
)


async def end_uploads(connection: AsyncConnection, artifact: ArtifactRow) -> ArtifactRow:
    """Take its uploads away from an artifact that is locked; the artifact without them.

    Who uploads finds them lost and removes what there is of them, or else the reaper does when
    their leases are over.
    """
    await connection.execute(_END, {"the_artifact": artifact["id"]})
    there: list[BlobRow] = [one for one in artifact["blobs"] if one["status"] != "saving"]
    return {**artifact, "blobs": there, "saving": False}


def _detach_expired() -> sa.Update:
    expired = (
        sa.select(blobs.c.id)
        .where(blobs.c.lease_until < _NOW)
        .order_by(blobs.c.lease_until)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        sa.update(blobs)
        .where(blobs.c.id == expired)
        .values(artifact_id=None, size=None, lease_until=_LEASE)
        .returning(blobs.c.id, blobs.c.store, blobs.c.owner)
    )


_DETACH_EXPIRED: Final = _detach_expired()


async def detach_expired(connection: AsyncConnection, *, lease_s: float) -> Dead | None:
    """As `detach`, one whose lease is over; None if there is none."""
    detached = (await connection.execute(_DETACH_EXPIRED, {"lease_s": lease_s})).one_or_none()
    return None if detached is None else Dead(*detached)


_FORGET: Final = sa.delete(blobs).where(blobs.c.id == _ID, blobs.c.status != word("active"))
_KNOWS: Final = sa.select(sa.exists().where(blobs.c.id == _ID))


async def forget(connection: AsyncConnection, blob_id: str) -> None:
    """Remove the row of a blob that no artifact has, once its bytes are gone."""
    await connection.execute(_FORGET, {"the_blob": blob_id})


async def knows(connection: AsyncConnection, blob_id: str) -> bool:
    """Whether there is a row of this blob, whatever its status; False for what is no id of one."""
    if not is_uuid(blob_id):
        return False
    return bool((await connection.execute(_KNOWS, {"the_blob": blob_id})).scalar_one())


async def add_location(
    connection: AsyncConnection,
    artifact: ArtifactRow,
    *,
    field: str,
    key: str,
    url: str,
    store: str | None,
    digests: Mapping[str, str | None],
) -> ArtifactRow:
    """Give an artifact that is locked a blob that is there already, in a store or elsewhere.

    `store` is None for what is elsewhere. For a key that has no blob of any status; `digests` are
    as they were told. What the artifact is now.
    """
    await connection.execute(
        sa.insert(blobs).values(
            artifact_id=artifact["id"],
            owner=artifact["owner"],
            type_name=artifact["type_name"],
            field=field,
            key=key,
            status="active",
            external=store is None,
            url=url,
            store=store,
            **digests,
        )
    )
    return await _touch(connection, artifact["id"])


async def remove_external(
    connection: AsyncConnection, artifact_id: str, blob_id: str
) -> ArtifactRow:
    """Take a blob that is elsewhere from an artifact that is locked; what the artifact is now."""
    await connection.execute(sa.delete(blobs).where(blobs.c.id == blob_id, blobs.c.external))
    return await _touch(connection, artifact_id)


async def removable(
    connection: AsyncConnection,
    blob_ids: Collection[str] | None = None,
    *,
    after: str | None = None,
) -> list[Removable]:
    """Of these blobs those whose bytes are to go; of all, the next thousand by id after `after`."""
    statement = sa.select(blobs.c.id, blobs.c.store, blobs.c.url).where(
        blobs.c.status == word("deleted")
    )
    if blob_ids is None:
        statement = statement.order_by(blobs.c.id).limit(_AT_A_TIME)
        if after is not None:
            statement = statement.where(blobs.c.id > after)
    else:
        statement = statement.where(blobs.c.id == sa.any_(sa.cast(list(blob_ids), _IDS)))
    found = await connection.execute(statement)
    return [cast(Removable, dict(row)) for row in found.mappings()]
