"""Objects in a bucket: `<key>`, as Glance lays them out.

An attempt is a multipart upload at the key and a small object `.attempts/<token>.<key>` that holds
the upload's id. To complete the upload is to publish; who may do that for a key is settled by a
small object `.claims/<key>`, which is stored on condition that there is none.
"""

import asyncio
import io
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from diptych_store.calls import OnCall, tell_nobody
from diptych_store.drivers.s3.bucket import Bucket, Download, Marker
from diptych_store.drivers.s3.connection import (
    ConditionFailed,
    Connection,
    NoUpload,
    OutsideOfObject,
    Refused,
    Unsupported,
)
from diptych_store.drivers.s3.locations import host_of, parse_location, same_host, written
from diptych_store.drivers.s3.parts import MIB, Room, Sending, known_part_size
from diptych_store.errors import (
    AlreadyThere,
    AttemptLost,
    BadLocation,
    NotFound,
    RangeOutside,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.locations import check_attempt, for_display
from diptych_store.options.s3 import S3Options
from diptych_store.protocol import WHOLE, Attempt, Block, ByteRange, Reading, Store
from diptych_store.retries import Retries, resumed
from diptych_store.tasks import finished, gathered, only_publisher

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import PartTypeDef

# A copied part: short enough for the server to answer within a time-out, long enough for 5 TiB.
_COPIED_PART = 64 * MIB
_COPIES_AT_A_TIME = 4
# S3's longest, for signatures of version 4.
_LONGEST_SIGNED = timedelta(days=7)


class S3Store:
    """A bucket of a server that speaks S3; see docs/drivers/s3.md.

    Has the capabilities Copies, Presigns and Sweeps. Nothing about an attempt is kept in memory:
    any process can publish or discard it.
    """

    def __init__(
        self,
        name: str,
        options: S3Options,
        *,
        read_only: bool = False,
        on_call: OnCall = tell_nobody,
    ) -> None:
        self.name = name
        self._options = options
        self._read_only = read_only
        self._connection = Connection(name, options, on_call)
        self._bucket = Bucket(self._connection, make=options.s3_store_create_bucket_on_put)
        self._smallest_part = options.s3_store_large_object_chunk_size * MIB
        self._room = Room(options.s3_store_thread_pools)
        self._retries = Retries(options.s3_store_retries)

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
        """See Store.write. With a `size`, parts are sent in parallel."""
        check_attempt(attempt)
        self._check_writable()

        async def send(upload: str) -> int:
            async def send_part(number: int, part: io.BytesIO) -> None:
                await self._bucket.put_part(attempt, upload, number, part)

            sending = Sending(send_part, size=size, smallest=self._smallest_part, room=self._room)
            return await sending.all(blocks)

        return await self._filled(attempt, send)

    async def publish(self, attempt: Attempt) -> str:
        """See Store.publish; publishing again after Unreachable is safe."""
        check_attempt(attempt)
        self._check_writable()
        endpoint, bucket = self._connection.endpoint, self._bucket.name
        async with only_publisher(f"{host_of(endpoint)}/{bucket}/{attempt.key}"):
            await finished(self._publish(attempt))
        return written(endpoint, bucket, attempt.key)

    async def discard(self, attempt: Attempt, *, published: bool = False) -> None:
        """See Store.discard."""
        check_attempt(attempt)
        self._check_writable()
        await finished(self._discard(attempt, published=published))

    @asynccontextmanager
    async def open(self, location: str, range: ByteRange = WHOLE) -> AsyncGenerator[Reading]:
        """See Store.open."""
        key = self._key(location)
        if range.length == 0:  # S3 has no word for it
            size = await self._size(key)
            yield Reading(size=size, length=range.length_within(size), blocks=_no_blocks())
            return
        async with self._opened(key, range) as first:
            length = range.length_within(first.size)

            @asynccontextmanager
            async def again(offset: int) -> AsyncGenerator[AsyncIterator[bytes]]:
                try:
                    async with self._bucket.get(
                        key,
                        start=range.start + offset,
                        length=length - offset,
                        etag=first.etag,
                    ) as rest:
                        yield rest.blocks
                except (ConditionFailed, OutsideOfObject):
                    raise NotFound(
                        f"Store {self.name}: the object {key} was replaced while it was read."
                    ) from None

            async with aclosing(
                resumed(first.blocks, again, length=length, retries=self._retries)
            ) as blocks:
                yield Reading(size=first.size, length=length, blocks=blocks)

    async def delete(self, location: str) -> None:
        """See Store.delete."""
        key = self._key(location)
        self._check_writable()
        # S3 answers alike whether it had something to delete or not.
        await self._size(key)
        await self._bucket.delete(key)

    async def copy(
        self, attempt: Attempt, source: Store, location: str, *, temporary: bool = False
    ) -> int | None:
        """See Copies; between buckets of one server, if these credentials may read both."""
        check_attempt(attempt)
        self._check_writable()
        if not isinstance(source, S3Store) or not self._is_beside(source):
            return None
        key = source._key(location)
        about = await source._bucket.head(key)
        if about is None:
            raise await source._missing(key)

        async def copy(upload: str) -> int:
            if about.size == 0:
                await self._bucket.put_part(attempt, upload, 1, io.BytesIO())
            else:
                await self._copy_parts(
                    attempt,
                    upload,
                    source={"bucket": source._bucket.name, "key": key},
                    size=about.size,
                    etag=about.etag,
                )
            return about.size

        try:
            return await self._filled(attempt, copy)
        except (_CannotCopyError, Unsupported):
            return None

    async def presign_get(self, location: str, *, expires: timedelta) -> str:
        """See Presigns. Whoever opens the URL in a browser is offered a file to keep."""
        key = self._key(location)
        return await self._presigned(
            "get_object",
            {
                "Key": key,
                "ResponseContentDisposition": "attachment",
                "ResponseContentType": "application/octet-stream",
            },
            expires,
        )

    async def presign_put(self, attempt: Attempt, *, part: int = 1, expires: timedelta) -> str:
        """See Presigns; the first call for an attempt begins it."""
        check_attempt(attempt)
        self._check_writable()
        upload = await finished(self._upload_of(attempt))
        return await self._presigned(
            "upload_part",
            {"Key": attempt.key, "UploadId": upload, "PartNumber": part},
            expires,
        )

    async def attempts(self, *, older_than: timedelta) -> AsyncIterator[Attempt]:
        """See Sweeps; by the server's clock."""
        if self._read_only:
            return
        async with aclosing(self._bucket.markers()) as markers:
            async for marked in markers:
                if await self._was_left(marked.attempt, marked.written, marked.now - older_than):
                    yield marked.attempt

    async def aclose(self) -> None:
        """Close the connections to the server; readings and writings have to be over."""
        await self._connection.aclose()

    def _key(self, location: str) -> str:
        place = parse_location(location)
        here = host_of(self._connection.endpoint)
        if not same_host(place.host, here) or place.bucket != self._bucket.name:
            raise BadLocation(f"{for_display(location)} is not in the bucket of store {self.name}.")
        return place.key

    def _check_writable(self) -> None:
        if self._read_only:
            raise WriteDenied(f"Store {self.name} is read-only.")

    def _is_beside(self, other: "S3Store") -> bool:
        return same_host(host_of(self._connection.endpoint), host_of(other._connection.endpoint))

    def _lost(self, attempt: Attempt) -> AttemptLost:
        return AttemptLost(
            f"Store {self.name}: the attempt at writing {attempt.key} was discarded."
        )

    # Writing.

    async def _filled(self, attempt: Attempt, fill: Callable[[str], Awaitable[int]]) -> int:
        """Begin the attempt and let `fill` fill its upload; on any error nothing of it remains."""
        beginning = asyncio.create_task(self._bucket.begin(attempt))
        try:
            return await fill(await finished(beginning))
        except BaseException:
            # Unless it is another's, who began it before. Where the server is away, `attempts`
            # finds what is left.
            if not isinstance(beginning.exception(), AlreadyThere):
                with suppress(StoreError):
                    await finished(self._discard(attempt, published=False))
            raise

    async def _upload_of(self, attempt: Attempt) -> str:
        """The upload of an attempt, begun if nobody has begun it; several may ask at once."""
        for pause_s in Retries(10, first_s=0.1, longest_s=1).pauses():
            marker = await self._bucket.marker(attempt)
            if marker is None:
                with suppress(AlreadyThere):
                    return await self._bucket.begin(attempt)
            elif marker.discarded:
                raise self._lost(attempt)
            elif marker.upload is not None:
                return marker.upload
            await asyncio.sleep(pause_s)
        raise Unreachable(f"Store {self.name}: the attempt at {attempt.key} was not quite begun.")

    async def _copy_parts(
        self, attempt: Attempt, upload: str, *, source: Mapping[str, str], size: int, etag: str
    ) -> None:
        length = known_part_size(size, smallest=_COPIED_PART)

        async def copy(number: int, start: int) -> None:
            await self._bucket.copy_part(
                attempt,
                upload,
                number,
                source=source,
                etag=etag,
                span=(start, min(start + length, size) - 1),
            )

        starts = enumerate(range(0, size, length), start=1)
        try:
            await gathered(_COPIES_AT_A_TIME, [partial(copy, *one) for one in starts])
        except (WriteDenied, Refused):
            # The upload could be begun, so it is the other bucket that may not be read.
            raise _CannotCopyError from None
        except ConditionFailed:
            raise NotFound(
                f"Store {self.name}: the object {source['key']} was replaced meanwhile."
            ) from None

    # Publishing and discarding.

    async def _publish(self, attempt: Attempt) -> None:
        marker = await self._bucket.marker(attempt)
        if marker is None:
            # That is how an attempt ends as well: whoever had no answer may ask again.
            if await self._owner(attempt.key) == attempt.token:
                return
            raise self._lost(attempt)
        if marker.discarded or marker.upload is None:
            raise self._lost(attempt)
        try:
            parts = await self._bucket.parts(attempt, marker.upload)
        except NoUpload:
            if await self._owner(attempt.key) != attempt.token:
                raise self._lost(attempt) from None
        else:
            await self._publish_parts(attempt, marker.upload, parts)
        # The object is there: what could not be removed is removed by a sweep.
        with suppress(StoreError):
            await self._bucket.release(attempt)
            await self._bucket.remove_marker(attempt)

    async def _publish_parts(
        self, attempt: Attempt, upload: str, parts: "list[PartTypeDef]"
    ) -> None:
        if not parts:  # none was sent to a presigned URL
            raise self._lost(attempt)
        if not await self._bucket.claim(attempt):
            raise self._taken(attempt)
        try:
            owner = await self._owner(attempt.key)
            if owner is None:
                owner = await self._complete(attempt, upload, parts)
            if owner != attempt.token:
                raise self._taken(attempt)
        except (AlreadyThere, AttemptLost):
            await self._bucket.release(attempt)
            raise

    async def _complete(self, attempt: Attempt, upload: str, parts: "list[PartTypeDef]") -> str:
        """Complete the upload while the attempt has the claim; returns whose the object is."""
        try:
            await self._bucket.complete(attempt, upload, parts)
        except (ConditionFailed, NoUpload) as error:
            # By the first of two requests, perhaps, of which the second was answered.
            owner = await self._owner(attempt.key)
            if owner is not None:
                return owner
            if isinstance(error, NoUpload):
                raise self._lost(attempt) from None
            raise Unreachable(
                f"Store {self.name}: something happened to {attempt.key} at the same time."
            ) from None
        except Unreachable:
            # What Ceph's gateway says of an upload that is being aborted.
            marker = await self._bucket.marker(attempt)
            if marker is not None and not marker.discarded:
                raise
        # A `discard` that began meanwhile may have aborted nothing and found no object yet.
        marker = await self._bucket.marker(attempt)
        if marker is None or marker.discarded:
            if await self._owner(attempt.key) == attempt.token:
                await self._bucket.delete(attempt.key)
            raise self._lost(attempt)
        return attempt.token

    async def _discard(self, attempt: Attempt, *, published: bool) -> None:
        marker = await self._bucket.marker(attempt)
        if marker is not None:
            # First this: from here on a `publish` undoes itself. The marker is removed last, so
            # that whatever is left is found by it.
            await self._bucket.discard_marker(attempt, marker)
            for upload in await self._uploads(attempt, marker):
                await self._bucket.abort(attempt, upload)
        if published and await self._owner(attempt.key) == attempt.token:
            await self._bucket.delete(attempt.key)
        await self._bucket.release(attempt)
        if marker is not None:
            await self._bucket.remove_marker(attempt)

    async def _uploads(self, attempt: Attempt, marker: Marker) -> list[str]:
        if marker.upload is not None:
            return [marker.upload]
        # It died, or had no answer, between its two markers.
        return await self._bucket.unmarked_uploads(attempt)

    async def _was_left(self, attempt: Attempt, written: datetime, before: datetime) -> bool:
        """Whether nothing of the attempt was written at or after this moment."""
        marker = await self._bucket.marker(attempt) if written < before else None
        if marker is None:
            return False
        if marker.upload is None:
            return True
        try:
            parts = await self._bucket.parts(attempt, marker.upload)
        except NoUpload:
            return True
        return all(part.get("LastModified", written) < before for part in parts)

    def _taken(self, attempt: Attempt) -> AlreadyThere:
        return AlreadyThere(f"Store {self.name} already holds an object {attempt.key}.")

    # Objects.

    async def _owner(self, key: str) -> str | None:
        """The token of the attempt that wrote the object, empty if none did; None: no object."""
        about = await self._bucket.head(key)
        return None if about is None else about.owner

    async def _size(self, key: str) -> int:
        about = await self._bucket.head(key)
        if about is None:
            raise await self._missing(key)
        return about.size

    async def _missing(self, key: str) -> NotFound:
        """What to raise for an object that is not there; raises Unreachable if no bucket is."""
        await self._bucket.check_it_is_there()
        return NotFound(f"Store {self.name} has no object {key}.")

    @asynccontextmanager
    async def _opened(self, key: str, range: ByteRange) -> AsyncGenerator[Download]:
        try:
            async with self._bucket.get(key, start=range.start, length=range.length) as download:
                yield download
        except OutsideOfObject:
            size = await self._size(key)
            raise RangeOutside(
                f"The range begins at byte {range.start}, the object has {size} bytes.", size=size
            ) from None

    async def _presigned(
        self, operation: str, parameters: Mapping[str, Any], expires: timedelta
    ) -> str:
        client = await self._connection.client()
        return await client.generate_presigned_url(
            operation,
            Params={"Bucket": self._bucket.name, **parameters},
            ExpiresIn=int(min(expires, _LONGEST_SIGNED).total_seconds()),
        )


class _CannotCopyError(Exception):
    """The server cannot copy between the two, or may not."""


async def _no_blocks() -> AsyncGenerator[bytes]:
    return
    yield b""
