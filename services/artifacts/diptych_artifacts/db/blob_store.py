"""The store `database`: blobs in PostgreSQL, in pieces, as small ones may well be.

It is a store like those of the store library and held to the same contract, so that uploads need
not know of it. No transaction and no connection is kept while bytes flow: each block is written in
a transaction of its own, each piece read by a statement of its own.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from diptych_common.database import Connection, Database
from diptych_common.errors import ServiceUnavailable
from diptych_store.calls import OnCall, tell_nobody, told
from diptych_store.errors import (
    AlreadyThere,
    AttemptLost,
    BadLocation,
    NotFound,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.locations import check_attempt, check_key, for_display
from diptych_store.protocol import WHOLE, Attempt, Block, ByteRange, Reading
from diptych_store.tasks import finished
from sqlalchemy.exc import IntegrityError

from diptych_artifacts.db.artifacts import is_uuid
from diptych_artifacts.db.tables import blob_data, blob_objects

T = TypeVar("T")

# In bytes. Glare's store of this kind has locations of this scheme, too.
_PIECE: Final = 256 * 1024
_SCHEME: Final = "sql://"
# Pieces that one statement removes: as many as it does in a second or two.
_AT_A_TIME: Final = 1024
_ATTEMPTS_AT_A_TIME: Final = 1000

_NOW: Final = sa.func.statement_timestamp()
_ID: Final = sa.bindparam("the_id", type_=sa.Uuid(as_uuid=False))
_KEY: Final = sa.bindparam("the_key", type_=sa.Text)

_BEGIN: Final = sa.insert(blob_objects).values(id=_ID, key=_KEY)
_WRITE: Final = sa.insert(blob_data)
_WRITTEN: Final = (
    sa.update(blob_objects)
    .where(blob_objects.c.id == _ID, sa.not_(blob_objects.c.published))
    .values(size=sa.bindparam("the_size", type_=sa.BigInteger))
    .returning(blob_objects.c.id)
)
_PUBLISH: Final = (
    sa.update(blob_objects)
    .where(
        blob_objects.c.id == _ID,
        blob_objects.c.key == _KEY,
        sa.not_(blob_objects.c.published),
        blob_objects.c.size.is_not(None),
    )
    .values(published=True)
    .returning(blob_objects.c.id)
)
_FIND: Final = sa.select(blob_objects.c.id, blob_objects.c.size).where(
    blob_objects.c.key == _KEY, blob_objects.c.published
)
_READ: Final = sa.select(blob_data.c.data).where(
    blob_data.c.id == _ID, blob_data.c.position == sa.bindparam("the_position")
)


def _taking_away(*conditions: sa.ColumnElement[bool]) -> Any:
    """Make of an object, or an attempt, an attempt that cannot be published."""
    return (
        sa.update(blob_objects)
        .where(*conditions)
        .values(published=False, size=None)
        .returning(blob_objects.c.id)
    )


_TAKE_OBJECT: Final = _taking_away(blob_objects.c.key == _KEY, blob_objects.c.published)
_TAKE_ATTEMPT: Final = _taking_away(blob_objects.c.id == _ID, sa.not_(blob_objects.c.published))
_TAKE_EITHER: Final = _taking_away(blob_objects.c.id == _ID)
_REMOVE_PIECES: Final = sa.delete(blob_data).where(
    blob_data.c.id == _ID,
    blob_data.c.position
    == sa.any_(
        sa.func.array(
            sa.select(blob_data.c.position)
            .where(blob_data.c.id == _ID)
            .limit(_AT_A_TIME)
            .scalar_subquery()
        )
    ),
)
_FORGET: Final = sa.delete(blob_objects).where(blob_objects.c.id == _ID)


def _attempts() -> sa.Select[*tuple[Any, ...]]:
    since = _NOW - sa.bindparam("older_than", type_=sa.Interval)
    after = sa.bindparam("after", type_=sa.Uuid(as_uuid=False))
    written_since = sa.exists().where(
        blob_data.c.id == blob_objects.c.id, blob_data.c.created_at >= since
    )
    return (
        sa.select(blob_objects.c.key, blob_objects.c.id)
        .where(
            sa.not_(blob_objects.c.published),
            blob_objects.c.created_at < since,
            sa.not_(written_since),
            blob_objects.c.id > after,
        )
        .order_by(blob_objects.c.id)
        .limit(_ATTEMPTS_AT_A_TIME)
    )


_ATTEMPTS: Final = _attempts()


class DatabaseStore:
    """Blobs in the service's own database; it can sweep. `db` is whoever opened it's to close."""

    def __init__(
        self,
        name: str,
        db: Database,
        *,
        read_only: bool = False,
        on_call: OnCall = tell_nobody,
    ) -> None:
        self.name = name
        self._db = db
        self._read_only = read_only
        self._on_call = on_call

    def recognises(self, location: str) -> bool:
        """See Store.recognises."""
        try:
            self._key(location)
        except BadLocation:
            return False
        return True

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        """See Store.write."""
        self._check(attempt)
        is_taken = False
        try:
            try:
                await self._change("begin", _BEGIN, attempt)
            except IntegrityError as error:
                is_taken = True
                raise AlreadyThere("The attempt was begun before.") from error
            written = await self._write_pieces(attempt, blocks)
            ended = await self._change("complete", _WRITTEN, attempt, the_size=written)
            if not ended:
                raise _lost(attempt)
        except BaseException:
            if not is_taken:
                await finished(self._clean_up(attempt))
            raise
        return written

    async def _write_pieces(self, attempt: Attempt, blocks: AsyncIterator[Block]) -> int:
        rest = bytearray()
        position = 0
        async for block in blocks:
            rest += block
            whole = len(rest) // _PIECE
            if whole:
                await self._insert(attempt, position, [_piece(rest, at) for at in range(whole)])
                position += whole
                del rest[: whole * _PIECE]
        written = position * _PIECE + len(rest)
        if rest:
            await self._insert(attempt, position, [bytes(rest)])
        return written

    async def _insert(self, attempt: Attempt, position: int, pieces: list[bytes]) -> None:
        rows = [
            {"id": attempt.token, "position": position + at, "data": piece}
            for at, piece in enumerate(pieces)
        ]

        async def insert(connection: Connection) -> None:
            await connection.execute(_WRITE, rows)

        try:
            await self._in_transaction("write", insert)
        except IntegrityError as error:  # it refers to the attempt, which is gone
            raise _lost(attempt) from error

    async def _clean_up(self, attempt: Attempt) -> None:
        # If it fails: the attempt is still the caller's, who discards it as well.
        try:
            await self.discard(attempt)
        except StoreError:
            return

    async def publish(self, attempt: Attempt) -> str:
        """See Store.publish."""
        self._check(attempt)
        try:
            published = await self._change("publish", _PUBLISH, attempt)
        except IntegrityError as error:
            raise AlreadyThere(
                f"Store {self.name} already holds an object {attempt.key}."
            ) from error
        if not published:
            raise _lost(attempt)
        return f"{_SCHEME}{attempt.key}"

    async def discard(self, attempt: Attempt, *, published: bool = False) -> None:
        """See Store.discard."""
        self._check(attempt)
        await self._remove("discard", _TAKE_EITHER if published else _TAKE_ATTEMPT, attempt)

    @asynccontextmanager
    async def open(self, location: str, range: ByteRange = WHOLE) -> AsyncGenerator[Reading, None]:
        """See Store.open. Who reads an object while it is deleted does not get all of it."""
        key = self._key(location)

        async def find(connection: Connection) -> Any:
            return (await connection.execute(_FIND, {"the_key": key})).one_or_none()

        found = await self._in_read("open", find)
        if found is None:
            raise NotFound(f"Store {self.name} has no object {key}.")
        length = range.length_within(found.size)
        async with aclosing(self._pieces(found.id, range.start, length)) as blocks:
            yield Reading(size=found.size, length=length, blocks=blocks)

    async def _pieces(self, object_id: str, start: int, length: int) -> AsyncGenerator[bytes]:
        position, skipped = divmod(start, _PIECE)
        while length:
            where = {"the_id": object_id, "the_position": position}

            async def read(connection: Connection, where: dict[str, Any] = where) -> bytes | None:
                return (await connection.execute(_READ, where)).scalar_one_or_none()

            piece = await self._in_read("read", read)
            if piece is None:
                raise NotFound("The object was deleted while it was read.")
            block = piece[skipped : skipped + length]
            length -= len(block)
            position, skipped = position + 1, 0
            yield block

    async def delete(self, location: str) -> None:
        """See Store.delete."""
        key = self._key(location)
        if self._read_only:
            raise WriteDenied(f"Store {self.name} is read-only.")
        if not await self._remove("delete", _TAKE_OBJECT, Attempt(key=key, token="")):
            raise NotFound(f"Store {self.name} has no object {key}.")

    async def _remove(self, operation: str, take: Any, attempt: Attempt) -> bool:
        """Remove what `take` takes away; False if there is nothing.

        Nobody sees it any more after the first transaction, which is all that there is to it unless
        it is very large: then the rest of an attempt is left if this process dies.
        """
        where = {"the_id": attempt.token or None, "the_key": attempt.key}

        async def begin(connection: Connection) -> tuple[str | None, bool]:
            object_id = (await connection.execute(take, where)).scalar_one_or_none()
            if object_id is None:
                return None, True
            return object_id, await _remove_some(connection, object_id)

        object_id, is_gone = await self._in_transaction(operation, begin)
        while object_id is not None and not is_gone:
            is_gone = await self._in_transaction(
                operation, partial(_remove_some, object_id=object_id)
            )
        return object_id is not None

    async def attempts(self, *, older_than: timedelta) -> AsyncIterator[Attempt]:
        """See Sweeps."""
        after = "00000000-0000-0000-0000-000000000000"
        while after:
            where = {"older_than": older_than, "after": after}

            async def page(connection: Connection, where: dict[str, Any] = where) -> Any:
                return (await connection.execute(_ATTEMPTS, where)).all()

            found = await self._in_read("attempts", page)
            for key, token in found:
                yield Attempt(key=key, token=token)
            after = found[-1].id if len(found) == _ATTEMPTS_AT_A_TIME else ""

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _check(self, attempt: Attempt) -> None:
        check_attempt(attempt)
        if not is_uuid(attempt.token):
            raise BadLocation(f"{attempt.token!r} cannot be the token of an attempt.")
        if self._read_only:
            raise WriteDenied(f"Store {self.name} is read-only.")

    def _key(self, location: str) -> str:
        if not location.startswith(_SCHEME):
            raise BadLocation(f"{for_display(location)} is not a location of store {self.name}.")
        return check_key(location.removeprefix(_SCHEME))

    async def _change(
        self, operation: str, statement: Any, attempt: Attempt, **parameters: object
    ) -> bool:
        """Run a statement about an attempt in a transaction; whether it changed anything."""
        where = {"the_id": attempt.token, "the_key": attempt.key, **parameters}

        async def change(connection: Connection) -> bool:
            return (await connection.execute(statement, where)).rowcount > 0

        return await self._in_transaction(operation, change)

    async def _in_transaction(
        self, operation: str, work: Callable[[Connection], Awaitable[T]]
    ) -> T:
        async def run() -> T:
            async with self._db.write() as connection:
                return await work(connection)

        # A transaction whose commit was given up could still be committed, after what undoes it.
        with told(self._on_call, operation), _reaching(self.name):
            return await finished(run())

    async def _in_read(self, operation: str, work: Callable[[Connection], Awaitable[T]]) -> T:
        with told(self._on_call, operation), _reaching(self.name):
            async with self._db.read() as connection:
                return await work(connection)


async def _remove_some(connection: Connection, object_id: str) -> bool:
    """Remove pieces of what was taken away, and itself with the last; whether all is gone."""
    where = {"the_id": object_id}
    removed = (await connection.execute(_REMOVE_PIECES, where)).rowcount
    if removed == _AT_A_TIME:
        return False
    await connection.execute(_FORGET, where)
    return True


@contextmanager
def _reaching(name: str) -> Generator[None]:
    try:
        yield
    except ServiceUnavailable as error:
        raise Unreachable(f"Store {name}: {error.message}") from error


def _piece(data: bytearray, number: int) -> bytes:
    return bytes(data[number * _PIECE : (number + 1) * _PIECE])


def _lost(attempt: Attempt) -> AttemptLost:
    return AttemptLost(f"The attempt at writing {attempt.key} was discarded.")
