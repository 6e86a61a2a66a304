"""The wrapped keys of encrypted blobs: which key wraps how many, and wrapping them anew."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from diptych_common.database import Connection
from sqlalchemy.dialects.postgresql import JSONB

from diptych_artifacts.db.tables import blobs

_KEY_ID: Final = blobs.c.encryption["key_id"].astext
_KEPT: Final = blobs.c.status != sa.literal_column("'deleted'")


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A blob and what is kept of its encryption."""

    blob_id: str
    envelope: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Count:
    """Blobs whose keys are wrapped by the key of this name, and the bytes that they have in all.

    `name` is None for those that are not encrypted.
    """

    name: str | None
    blobs: int
    size: int


async def wrapped_otherwise(
    connection: Connection, name: str, *, after: str | None, limit: int
) -> Sequence[Wrapped]:
    """Blobs whose keys are wrapped by another key, in the order of their ids beyond `after`."""
    found = await connection.execute(
        sa.select(blobs.c.id, blobs.c.encryption)
        .where(
            blobs.c.encryption.is_not(None),
            _KEY_ID.is_distinct_from(name),
            _KEPT,
            *(() if after is None else (blobs.c.id > after,)),
        )
        .order_by(blobs.c.id)
        .limit(limit)
    )
    return [Wrapped(row.id, row.encryption) for row in found]


async def rewrap(connection: Connection, old: Wrapped, new: Mapping[str, object]) -> bool:
    """Keep another envelope of the same key; False if the blob has gone or has another by now."""
    done = await connection.execute(
        sa.update(blobs)
        .where(
            blobs.c.id == old.blob_id,
            blobs.c.encryption == sa.cast(sa.literal(dict(old.envelope), JSONB), JSONB),
        )
        .values(encryption=dict(new))
        .returning(blobs.c.id)
    )
    return done.first() is not None


async def counts(connection: Connection, encrypted_types: Collection[str]) -> Sequence[Count]:
    """How many blobs each key wraps, and how many of types that are encrypted are not."""
    name = _KEY_ID.label("name")
    found = await connection.execute(
        sa.select(
            name,
            sa.func.count().label("blobs"),
            sa.cast(sa.func.coalesce(sa.func.sum(blobs.c.size), 0), sa.BigInteger).label("size"),
        )
        .where(
            _KEPT,
            sa.not_(blobs.c.external),
            sa.or_(blobs.c.encryption.is_not(None), blobs.c.type_name.in_(sorted(encrypted_types))),
        )
        .group_by(name)
        .order_by(name)
    )
    return [Count(row.name, row.blobs, row.size) for row in found]
