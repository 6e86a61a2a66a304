"""Wrapping the keys of encrypted blobs anew, by the first of the wrapping keys.

The service may run meanwhile; no blob is read or written. Each batch is a transaction of its own,
so that it can be broken off at any time, and begun anew.
"""

from dataclasses import dataclass

from diptych_common.database import Database

from diptych_artifacts.db import envelopes
from diptych_artifacts.db.envelopes import Wrapped
from diptych_artifacts.encryption import Unreadable
from diptych_artifacts.wrapping_keys import WrappingKeys


@dataclass(slots=True)
class Rotated:
    """What became of the keys that another key wrapped.

    `unknown` are wrapped by a key that the settings do not have, `unreadable` are not opened by the
    key that they name.
    """

    wrapped: int = 0
    unknown: int = 0
    unreadable: int = 0


async def rotate(db: Database, keys: WrappingKeys, *, batch_size: int = 200) -> Rotated:
    """Wrap all keys anew that another key than the first wraps, so many in a transaction.

    Raises ServiceUnavailable where a key cannot be had from Barbican.
    """
    rotated = Rotated()
    after: str | None = None
    while True:
        async with db.read() as connection:
            batch = await envelopes.wrapped_otherwise(
                connection, keys.names[0], after=after, limit=batch_size
            )
        if not batch:
            return rotated
        after = batch[-1].blob_id
        anew = [await _anew(one, keys, rotated) for one in batch]
        async with db.write() as connection:
            for one, new in zip(batch, anew, strict=True):
                if new is not None and await envelopes.rewrap(connection, one, new):
                    rotated.wrapped += 1


async def _anew(old: Wrapped, keys: WrappingKeys, rotated: Rotated) -> dict[str, object] | None:
    if old.envelope.get("key_id") not in keys.names:
        rotated.unknown += 1
        return None
    try:
        key = await keys.of_blob(old.blob_id, dict(old.envelope))
    except Unreadable:
        rotated.unreadable += 1
        return None
    return (await keys.wrap(key)).document()
