"""The requests of S3 that the driver is made of, each in the driver's terms."""

import asyncio
import base64
import dataclasses
import hashlib
import io
import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

from diptych_store.drivers.s3.connection import (
    NOT_ANSWERED,
    ConditionFailed,
    Connection,
    NoBucket,
    NoObject,
    NoUpload,
)
from diptych_store.errors import AlreadyThere, BadLocation, Unreachable
from diptych_store.locations import attempt_name, attempt_named
from diptych_store.protocol import Attempt

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef, PartTypeDef

# The key of an object has neither a slash nor a dot in front, so these are never in its way.
_MARKERS = ".attempts/"
_CLAIMS = ".claims/"
# Tells whose object it is. Without an underscore, which Ceph's gateway turns into a hyphen.
_OWNER = "diptych-attempt"
_BLOCK = 1024 * 1024
_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Marker:
    """What an attempt has in the bucket beside its parts; any process can go on from it.

    `upload` is the id of the multipart upload, None before there is one. Once it is `discarded`
    nothing may come of the attempt any more. `begun_by` tells one beginning from another.
    """

    upload: str | None
    discarded: bool = False
    begun_by: str = ""


@dataclass(frozen=True, slots=True)
class Marked:
    """An attempt with a marker: when that was written, and what time it is at the server."""

    attempt: Attempt
    written: datetime
    now: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """Who publishes an object at the moment."""

    token: str
    etag: str


@dataclass(frozen=True, slots=True)
class About:
    """What HEAD tells; `owner` is the attempt's token, empty where another program wrote it."""

    size: int
    etag: str
    owner: str


@dataclass(frozen=True, slots=True)
class Download:
    """An answer to GET: the size of the whole object, what tells it from others, its bytes."""

    size: int
    etag: str
    blocks: AsyncIterator[bytes]


class Bucket:
    """A bucket as the driver uses it."""

    def __init__(self, connection: Connection, *, make: bool) -> None:
        self.connection = connection
        self.name = connection.bucket
        self._make = make

    # Attempts.

    async def begin(self, attempt: Attempt) -> str:
        """Make the attempt's marker and its multipart upload; return the upload's id.

        Raises AlreadyThere when the attempt was begun before. The marker comes first and without
        the id: however this ends, what was made is found.
        """
        try:
            await self._put_first_marker(attempt)
        except NoBucket:
            if not self._make:
                raise
            await self._make_bucket()
            await self._put_first_marker(attempt)
        answer = await self.connection.call(
            "begin",
            lambda s3: s3.create_multipart_upload(
                Bucket=self.name,
                Key=attempt.key,
                ContentType=_TYPE,
                Metadata={_OWNER: attempt.token},
            ),
            key=attempt.key,
            writing=True,
        )
        await self._put_marker(attempt, Marker(answer["UploadId"]))
        if answer["ResponseMetadata"].get("RetryAttempts"):
            # A request that was not answered may have made an upload as well.
            for other in await self.unmarked_uploads(attempt):
                await self.abort(attempt, other)
        return answer["UploadId"]

    async def marker(self, attempt: Attempt) -> Marker | None:
        """The attempt's marker, None if there is none."""
        found = await self._get_small(_marker_key(attempt))
        if found is None:
            return None
        return Marker(**json.loads(found[0]))

    async def discard_marker(self, attempt: Attempt, marker: Marker) -> None:
        """From here on nothing may come of the attempt."""
        await self._put_marker(attempt, dataclasses.replace(marker, discarded=True))

    async def remove_marker(self, attempt: Attempt) -> None:
        """Remove the marker, if it is there."""
        await self.delete(_marker_key(attempt))

    async def markers(self) -> AsyncGenerator[Marked]:
        """All attempts that have a marker."""
        async for listed, now in self._listed(_MARKERS):
            for key, written in listed:
                try:
                    attempt = attempt_named(key.removeprefix(_MARKERS))
                except BadLocation:  # somebody else's
                    continue
                yield Marked(attempt, written=written, now=now)

    # Parts.

    async def put_part(self, attempt: Attempt, upload: str, number: int, part: io.BytesIO) -> None:
        """Upload one part; the server checks its bytes."""
        length = part.getbuffer().nbytes
        more: dict[str, Any] = {}
        if not self.connection.sends_checksums:
            # Its own thread: a part may take a second, and the loop has others to serve.
            more["ContentMD5"] = await asyncio.to_thread(_md5, part)
        await self.connection.call(
            "write",
            lambda s3: s3.upload_part(
                Bucket=self.name,
                Key=attempt.key,
                UploadId=upload,
                PartNumber=number,
                Body=part,
                ContentLength=length,
                **more,
            ),
            key=attempt.key,
            writing=True,
        )

    async def copy_part(
        self,
        attempt: Attempt,
        upload: str,
        number: int,
        *,
        source: Mapping[str, str],
        etag: str,
        span: tuple[int, int],
    ) -> None:
        """Let the server copy bytes of another object into a part; `span`: first and last byte."""
        await self.connection.call(
            "copy",
            lambda s3: s3.upload_part_copy(
                Bucket=self.name,
                Key=attempt.key,
                UploadId=upload,
                PartNumber=number,
                CopySource={"Bucket": source["bucket"], "Key": source["key"]},
                CopySourceIfMatch=etag,
                CopySourceRange=f"bytes={span[0]}-{span[1]}",
            ),
            key=attempt.key,
            writing=True,
        )

    async def parts(self, attempt: Attempt, upload: str) -> "list[PartTypeDef]":
        """All parts in order; raises NoUpload."""
        parts: list[PartTypeDef] = []
        reached = 0
        while True:
            try:
                answer = await self.connection.call(
                    "list",
                    lambda s3, reached=reached: s3.list_parts(
                        Bucket=self.name,
                        Key=attempt.key,
                        UploadId=upload,
                        PartNumberMarker=reached,
                    ),
                    key=attempt.key,
                    writing=True,
                )
            except NoObject as error:  # what Ceph says of an upload that is gone
                raise NoUpload(str(error)) from None
            parts += answer.get("Parts", [])
            if not answer.get("IsTruncated") or not answer.get("Parts"):
                return parts
            reached = parts[-1].get("PartNumber", 0)

    async def complete(self, attempt: Attempt, upload: str, parts: "Iterable[PartTypeDef]") -> None:
        """Make the parts the object of the key; raises ConditionFailed, NoUpload."""
        try:
            await self.connection.call(
                "publish",
                lambda s3: s3.complete_multipart_upload(
                    Bucket=self.name,
                    Key=attempt.key,
                    UploadId=upload,
                    MultipartUpload={"Parts": [_completed(part) for part in parts]},
                    IfNoneMatch="*",
                ),
                key=attempt.key,
                writing=True,
            )
        except NoObject as error:  # what Ceph says of an upload that is gone
            raise NoUpload(str(error)) from None

    async def abort(self, attempt: Attempt, upload: str) -> None:
        """Remove the upload and its parts; nothing there is not an error."""
        # A part that is just being received may outlive the first abort.
        for _ in range(3):
            try:
                await self.connection.call(
                    "discard",
                    lambda s3: s3.abort_multipart_upload(
                        Bucket=self.name, Key=attempt.key, UploadId=upload
                    ),
                    key=attempt.key,
                    writing=True,
                )
                await self.connection.call(
                    "list",
                    lambda s3: s3.list_parts(
                        Bucket=self.name, Key=attempt.key, UploadId=upload, MaxParts=1
                    ),
                    key=attempt.key,
                    writing=True,
                )
            except (NoUpload, NoObject):  # the latter is what Ceph says
                return

    async def unmarked_uploads(self, attempt: Attempt) -> list[str]:
        """The ids of uploads of the attempt's key that no marker names.

        None while another attempt at the key is just beginning: they could be that one's, and they
        are found when the last of these is discarded.
        """
        named: set[str] = set()
        async with aclosing(self.markers()) as markers:
            async for other in markers:
                if other.attempt.key != attempt.key:
                    continue
                marker = await self.marker(other.attempt)
                if marker is None:
                    continue
                if marker.upload is not None:
                    named.add(marker.upload)
                elif other.attempt != attempt:
                    return []
        answer = await self.connection.call(
            "list",
            lambda s3: s3.list_multipart_uploads(Bucket=self.name, Prefix=attempt.key),
            key=attempt.key,
            writing=True,
        )
        uploads = [
            upload.get("UploadId", "")
            for upload in answer.get("Uploads", [])
            if upload.get("Key") == attempt.key
        ]
        return [upload for upload in uploads if upload not in named]

    # Claims.

    async def claim(self, attempt: Attempt) -> bool:
        """Take the right to publish the key; False if another attempt has it.

        S3 knows no condition that every server keeps to while it completes an upload, but all that
        know one at all keep to it while they store an object. So whoever publishes has to have
        stored this one first.
        """
        for _ in range(5):
            try:
                await self._put_claim(attempt, IfNoneMatch="*")
            except ConditionFailed:
                held = await self.claimed(attempt.key)
            else:
                return True
            if held is None:
                continue
            if held.token == attempt.token:
                return True
            if await self.marker(Attempt(key=attempt.key, token=held.token)) is not None:
                return False
            # Of an attempt that was discarded while its process died.
            try:
                await self._put_claim(attempt, IfMatch=held.etag)
            except ConditionFailed:
                continue
            else:
                return True
        return False

    async def claimed(self, key: str) -> Claim | None:
        """Who has the right to publish the key."""
        found = await self._get_small(_CLAIMS + key)
        return None if found is None else Claim(found[0].decode(errors="replace"), found[1])

    async def release(self, attempt: Attempt) -> None:
        """Give up the right to publish, if the attempt has it."""
        held = await self.claimed(attempt.key)
        if held is not None and held.token == attempt.token:
            await self.delete(_CLAIMS + attempt.key)

    # Objects.

    async def head(self, key: str) -> About | None:
        """What the object is, None if there is none or no bucket."""
        try:
            answer = await self.connection.call(
                "look", lambda s3: s3.head_object(Bucket=self.name, Key=key), key=key
            )
        except NoObject:
            return None
        return About(
            size=answer["ContentLength"],
            etag=answer["ETag"],
            owner=answer.get("Metadata", {}).get(_OWNER, ""),
        )

    async def check_it_is_there(self) -> None:
        """Raise NoBucket if there is none, which an answer to HEAD of an object doesn't tell."""
        try:
            await self.connection.call("look", lambda s3: s3.head_bucket(Bucket=self.name))
        except NoObject:
            raise NoBucket(f"There is no bucket {self.name}.") from None

    async def delete(self, key: str) -> None:
        """Remove what is at the key, if anything is."""
        await self.connection.call(
            "delete",
            lambda s3: s3.delete_object(Bucket=self.name, Key=key),
            key=key,
            writing=True,
        )

    @asynccontextmanager
    async def get(
        self, key: str, *, start: int, length: int | None, etag: str | None = None
    ) -> AsyncGenerator[Download]:
        """Open the object from byte `start` on; only if it is still that one, where `etag` says.

        Raises NoObject, ConditionFailed, OutsideOfObject.
        """
        more: dict[str, Any] = {}
        if (start, length) != (0, None):
            last = "" if length is None else start + length - 1
            more["Range"] = f"bytes={start}-{last}"
        if etag is not None:
            more["IfMatch"] = etag
        answer = await self.connection.call(
            "read", lambda s3: s3.get_object(Bucket=self.name, Key=key, **more), key=key
        )
        body = answer["Body"]
        blocks = self._blocks(body)
        try:
            size = answer["ContentLength"]
            if "Range" in more:
                _, _, total = answer.get("ContentRange", "").rpartition("/")
                if not total.isdecimal():
                    raise Unreachable(f"The server does not know ranges of {key}.")
                size = int(total)
            yield Download(size=size, etag=answer["ETag"], blocks=blocks)
        finally:
            await blocks.aclose()
            body.close()

    async def _blocks(self, body: Any) -> AsyncGenerator[bytes]:
        gathered: list[bytes] = []
        length = 0
        while True:
            try:
                piece = cast("bytes", await body.read(_BLOCK - length))
            except NOT_ANSWERED as error:
                raise self.connection.broken(error) from error
            if piece:
                gathered.append(piece)
                length += len(piece)
            if gathered and (not piece or length == _BLOCK):
                yield b"".join(gathered)
                gathered.clear()
                length = 0
            if not piece:
                return

    # The rest.

    async def _make_bucket(self) -> None:
        more: dict[str, Any] = {}
        region = self.connection.region
        # The first region is the one that must not be named.
        if region != "us-east-1":
            more["CreateBucketConfiguration"] = {"LocationConstraint": region}
        try:
            await self.connection.call(
                "make", lambda s3: s3.create_bucket(Bucket=self.name, **more), writing=True
            )
        except Unreachable:
            # Another process was quicker, perhaps.
            await self.check_it_is_there()

    async def _put_first_marker(self, attempt: Attempt) -> None:
        marker = Marker(None, begun_by=str(uuid.uuid4()))
        try:
            await self._put_marker(attempt, marker, IfNoneMatch="*")
        except ConditionFailed:
            # It may be the very one: a request that was not answered is repeated.
            if await self.marker(attempt) != marker:
                raise AlreadyThere(
                    f"The attempt at writing {attempt.key} was begun before."
                ) from None

    async def _put_marker(self, attempt: Attempt, marker: Marker, **more: str) -> None:
        body = json.dumps(dataclasses.asdict(marker)).encode()
        await self._put_small(_marker_key(attempt), body, attempt=attempt, more=more)

    async def _put_claim(self, attempt: Attempt, **more: str) -> None:
        await self._put_small(
            _CLAIMS + attempt.key, attempt.token.encode(), attempt=attempt, more=more
        )

    async def _put_small(
        self, key: str, body: bytes, *, attempt: Attempt, more: Mapping[str, Any]
    ) -> None:
        await self.connection.call(
            "mark",
            lambda s3: s3.put_object(
                Bucket=self.name, Key=key, Body=body, ContentType=_TYPE, **more
            ),
            key=attempt.key,
            writing=True,
        )

    async def _get_small(self, key: str) -> tuple[bytes, str] | None:
        """Bytes and ETag of a marker or a claim; None if there is none."""
        try:
            async with self.get(key, start=0, length=None) as download:
                body = b"".join([block async for block in download.blocks])
                return body, download.etag
        except NoObject:
            return None

    async def _listed(
        self, prefix: str
    ) -> AsyncGenerator[tuple[list[tuple[str, datetime]], datetime]]:
        """Pages of keys with when they were written, and what time it was at the server."""
        reached = ""
        while True:
            answer = await self.connection.call(
                "list",
                lambda s3, reached=reached: s3.list_objects_v2(
                    Bucket=self.name, Prefix=prefix, StartAfter=reached
                ),
                writing=True,
            )
            page = [
                (one.get("Key", ""), one.get("LastModified", datetime.max.replace(tzinfo=UTC)))
                for one in answer.get("Contents", [])
            ]
            yield page, _server_time(answer["ResponseMetadata"]["HTTPHeaders"])
            if not answer.get("IsTruncated") or not page:
                return
            reached = page[-1][0]


def _marker_key(attempt: Attempt) -> str:
    return f"{_MARKERS}{attempt_name(attempt)}"


def _md5(part: io.BytesIO) -> str:
    with part.getbuffer() as data:
        return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _completed(part: "PartTypeDef") -> "CompletedPartTypeDef":
    # With its checksums: an upload that was begun with some has to be completed with them.
    return cast(
        "CompletedPartTypeDef",
        {
            name: value
            for name, value in part.items()
            if name in ("PartNumber", "ETag") or name.startswith("Checksum")
        },
    )


def _server_time(headers: Mapping[str, str]) -> datetime:
    try:
        return parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return datetime.now(UTC)
