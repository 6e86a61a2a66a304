"""The stores themselves: attempts, objects, and what else Swift can do with them."""

import asyncio
import json
import secrets
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit
from weakref import WeakValueDictionary

import httpx

from diptych_store.calls import OnCall, tell_nobody
from diptych_store.drivers.swift import layout, references, tempurl
from diptych_store.drivers.swift.auth import Access, Tokens
from diptych_store.drivers.swift.client import Account, Answer, Client, decoded
from diptych_store.drivers.swift.layout import Location, path_of
from diptych_store.drivers.swift.writing import (
    HELD,
    MIB,
    Body,
    Limits,
    Stream,
    etag_of,
    finished,
    gathered,
    manifest_etag,
)
from diptych_store.errors import (
    AlreadyThere,
    AttemptLost,
    BadLocation,
    Full,
    NotFound,
    ReadDenied,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.locations import check_key, check_token, for_display
from diptych_store.options.swift import SwiftOptions
from diptych_store.protocol import WHOLE, Attempt, Block, ByteRange, Reading, Store
from diptych_store.retries import Retries, resumed, retried
from diptych_store.threads import Threads

_BLOCK_SIZE = MIB
# Requests at a time where there is one for each segment.
_AT_A_TIME = 4
# What a server-side copy may take for a segment, at the least.
_COPIED_BYTES_A_SECOND = 10 * MIB
# Swift looks at two at a time, each within some ten milliseconds.
_SEGMENTS_LOOKED_AT_A_SECOND = 10
_ATTEMPT = "X-Object-Meta-Diptych-Attempt"
_WRITER = "X-Object-Meta-Diptych-Writer"
_SEGMENTS = "X-Object-Meta-Diptych-Segments"
_ETAG = "X-Object-Meta-Diptych-Etag"
_BY_URL = "X-Object-Meta-Diptych-By-Url"
_OCTETS = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the objects of a key are."""

    account: Account
    container: str


@dataclass(frozen=True, slots=True)
class Written:
    """An attempt whose bytes are all there: how many segments, and their manifest's ETag."""

    segments: int
    etag: str


@dataclass(frozen=True, slots=True)
class Piece:
    """An object that is part of another one; `etag` is empty where it isn't known."""

    container: str
    name: str
    size: int
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a store and those that act for users have in common."""

    client: Client
    hashing: Threads
    tokens: Mapping[str, Tokens]
    references: Mapping[str, references.Reference]


class SwiftStore:
    """Containers in the service's own account.

    Has the capabilities Copies, Measures, Presigns and Sweeps. An attempt has a marker, and is
    one that may be published for as long as the marker is there.
    """

    # If-None-Match is looked at before a PUT's bytes are stored, so that of two at a time both may
    # pass. Here at least one waits for the other, whichever store object they came through.
    _publishing: ClassVar[WeakValueDictionary[str, asyncio.Lock]] = WeakValueDictionary()

    def __init__(
        self,
        name: str,
        options: SwiftOptions,
        *,
        read_only: bool = False,
        on_call: OnCall = tell_nobody,
    ) -> None:
        self.name = name
        self._options = options
        self._read_only = read_only
        try:
            known = references.read(options)
        except ValueError as error:
            raise StoreError(f"Store {name}: {error}") from None
        client = Client(name, options, on_call=on_call)
        self._shared = Shared(
            client=client,
            hashing=Threads(f"{name}-md5", count=2),
            tokens={reference: client.tokens(one) for reference, one in known.items()},
            references=known,
        )
        self._client = client
        self._limits: Limits | None = None
        self._digest: str | None = None

    # Locations.

    def recognises(self, location: str) -> bool:
        """See Store.recognises."""
        try:
            self._find(location)
        except BadLocation:
            return False
        return True

    def _find(self, location: str) -> tuple[Place, str]:
        """Where the object of a location is, and its key; asks nobody. Raises BadLocation."""
        parsed = layout.parse_location(location)
        reference = self._reference_of(parsed)
        base = self._options.swift_store_container
        if reference is None or not layout.is_container_of(parsed.container, base, parsed.key):
            raise BadLocation(f"{for_display(location)} is not a location of store {self.name}.")
        return Place(self._account(reference), parsed.container), parsed.key

    def _reference_of(self, location: Location) -> str | None:
        if location.reference:
            return location.reference if location.reference in self._shared.references else None
        project, colon, _ = location.user.partition(":")
        for name, reference in self._ordered_references():
            # The project says which account it is; users come and go. An application credential
            # does not tell its project, and its locations in Glance have no user.
            same_account = not colon or not reference.project or project == reference.project
            if same_account and _same_address(location.url, reference.address):
                return name
        return None

    def _ordered_references(self) -> list[tuple[str, references.Reference]]:
        default = self._options.default_swift_reference
        return sorted(self._shared.references.items(), key=lambda item: item[0] != default)

    def _account(self, reference: str) -> Account:
        return Account(self._shared.tokens[reference], lambda access: access.storage_url)

    def _place(self, key: str) -> Place:
        """Where a new object goes; raises BadLocation for what can be no key."""
        container = layout.seeded_container(
            self._options.swift_store_container,
            check_key(key),
            self._options.swift_store_multiple_containers_seed,
        )
        return Place(self._account(self._options.default_swift_reference), container)

    async def _location(self, place: Place, key: str) -> str:
        return layout.reference_location(
            self._options.default_swift_reference, place.container, key
        )

    @property
    def _makes_containers(self) -> bool:
        return self._options.swift_store_create_container_on_put

    # Writing.

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        """See Store.write."""
        place = self._writable(attempt)

        return await self._fill(
            place, attempt, partial(self._send, place, attempt, Stream(blocks), size)
        )

    async def _fill(
        self,
        place: Place,
        attempt: Attempt,
        work: Callable[["_Begun"], Awaitable[list[tuple[int, str]]]],
    ) -> int:
        """Begin an attempt, have its segments made, and complete it; or leave nothing.

        `work` returns the segments' sizes and ETags.
        """
        writer = secrets.token_hex(8)
        begun = _Begun()
        try:
            await self._begin(place, attempt, writer=writer)
            sent = await work(begun)
            await self._complete(place, attempt, writer, [etag for _, etag in sent])
        except AlreadyThere:
            raise
        except BaseException:
            await finished(self._undo_write(place, attempt, begun.segments))
            raise
        return sum(size for size, _ in sent)

    async def _begin(
        self, place: Place, attempt: Attempt, *, writer: str, by_url: bool = False
    ) -> None:
        """Make the attempt's marker; raises AlreadyThere if there is one."""
        path = path_of(place.container, layout.marker(attempt))
        headers = {"If-None-Match": "*", **_noted(writer, by_url=by_url)}

        async def put() -> Answer:
            return await self._client.call(
                "write",
                place.account,
                "PUT",
                path,
                subject=f"attempt at {attempt.key}",
                headers=headers,
                content=b"",
                ok={HTTPStatus.PRECONDITION_FAILED},
            )

        try:
            answer = await put()
        except NotFound:
            await self._make_container(place)
            answer = await put()
        if answer.status != HTTPStatus.PRECONDITION_FAILED:
            return
        # It may have been made by a try whose answer was lost.
        found = await self._head("write", place, layout.marker(attempt))
        if found is None or found.get(_WRITER) != writer:
            raise AlreadyThere(f"Store {self.name}: the attempt at {attempt.key} was begun before.")

    async def _make_container(self, place: Place) -> None:
        if not self._makes_containers:
            raise Unreachable(
                f"Store {self.name}: there is no container {place.container}; make it, or set "
                "swift_store_create_container_on_put."
            )
        await self._client.call(
            "write",
            place.account,
            "PUT",
            path_of(place.container),
            subject=f"container {place.container}",
            headers=self._new_container_headers(),
        )

    def _new_container_headers(self) -> Mapping[str, str]:
        return {}

    async def _send(
        self, place: Place, attempt: Attempt, stream: Stream, size: int | None, begun: "_Begun"
    ) -> list[tuple[int, str]]:
        """Send the stream as segments; their sizes and ETags."""
        usual = self._options.swift_store_large_object_chunk_size * MIB
        prefix = layout.segments(attempt)
        head = await stream.head(HELD)
        if stream.has_ended:
            begun.segments = 1
            return [await self._put_held(place, attempt, layout.numbered(prefix, 1), head)]
        limits = await self._cluster_limits(place)
        sent: list[tuple[int, str]] = []
        while head:
            number = begun.segments + 1
            if number > limits.max_segments:
                raise Full(
                    f"Store {self.name}: {attempt.key} would need more than "
                    f"{limits.max_segments} segments."
                )
            begun.segments = number
            name = layout.numbered(prefix, number)
            limit = limits.segment_size(number, usual=usual, size=size)
            if stream.has_ended or len(head) == limit:
                sent.append(await self._put_held(place, attempt, name, head))
            else:
                body = Body(head, stream, limit=limit, hashing=self._shared.hashing)
                sent.append(await self._put_streamed(place, attempt, name, body))
            head = await stream.head(HELD)
        return sent

    async def _put_held(
        self, place: Place, attempt: Attempt, name: str, data: bytes
    ) -> tuple[int, str]:
        etag = etag_of(data)
        await self._client.call(
            "write",
            place.account,
            "PUT",
            path_of(place.container, name),
            subject=attempt.key,
            headers={"ETag": etag, **_OCTETS},
            content=data,
        )
        return len(data), etag

    async def _put_streamed(
        self, place: Place, attempt: Attempt, name: str, body: Body
    ) -> tuple[int, str]:
        # A stream cannot be sent twice, so the token, and whether the attempt is still wanted, are
        # tried out first.
        if await self._head("write", place, layout.marker(attempt)) is None:
            raise self._lost(attempt)
        async with aclosing(body.pieces()) as pieces:
            answer = await self._client.call(
                "write",
                place.account,
                "PUT",
                path_of(place.container, name),
                subject=attempt.key,
                headers=_OCTETS,
                content=pieces,
            )
        if _etag(answer.headers) != body.etag:
            raise Unreachable(
                f"Store {self.name}: a segment of {attempt.key} is not what was sent."
            )
        return body.size, body.etag

    async def _complete(
        self,
        place: Place,
        attempt: Attempt,
        writer: str,
        etags: list[str],
        *,
        by_url: bool = False,
    ) -> None:
        """Note in the marker that all segments are there; raises AttemptLost if it's gone."""
        headers = {
            **_noted(writer, by_url=by_url),
            _SEGMENTS: str(len(etags)),
            _ETAG: manifest_etag(etags),
        }
        try:
            await self._client.call(
                "write",
                place.account,
                "POST",
                path_of(place.container, layout.marker(attempt)),
                subject=attempt.key,
                headers=headers,
            )
        except NotFound:
            raise self._lost(attempt) from None

    async def _undo_write(self, place: Place, attempt: Attempt, segments: int) -> None:
        """Remove what a write has begun; what cannot be reached is left to a sweep."""
        try:
            prefix = layout.segments(attempt)
            await self._remove_numbered("write", place, prefix, range(1, segments + 1))
            await self._remove("write", place, layout.marker(attempt))
            await self._leave("write", place)
        except (Unreachable, WriteDenied):
            return

    async def _cluster_limits(self, place: Place) -> Limits:
        """The cluster's limits, asked for once; Swift's own defaults where it doesn't tell."""
        if self._limits is None:
            self._limits = Limits()
            access = await self._client.access("write", place.account)
            found = await self._client.info(access)
            slo = found.get("slo", {})
            self._limits = Limits(
                max_file_size=int(
                    found.get("swift", {}).get("max_file_size", self._limits.max_file_size)
                ),
                max_segments=int(slo.get("max_manifest_segments", self._limits.max_segments)),
            )
        return self._limits

    # Publishing and discarding.

    async def publish(self, attempt: Attempt) -> str:
        """See Store.publish."""
        place = self._writable(attempt)
        # A manifest that arrives after somebody has cleaned up would stand in the way for ever.
        return await finished(self._publish(place, attempt))

    async def _publish(self, place: Place, attempt: Attempt) -> str:
        found = await self._head("publish", place, layout.marker(attempt))
        if found is None:
            raise self._lost(attempt)
        async with self._only_publisher(place, attempt.key):
            written = _written(found) or await self._join_parts(place, attempt, found)
            await self._put_manifest(place, attempt, written)
            await self._check_manifest(place, attempt)
        if not await self._may_stay(place, attempt):
            await self._discard(place, attempt, published=True)
            raise self._lost(attempt)
        if _BY_URL in found:
            await self._remove_listed("publish", place, layout.parts(attempt))
        await self._remove("publish", place, layout.marker(attempt))
        return await self._location(place, attempt.key)

    @asynccontextmanager
    async def _only_publisher(self, place: Place, key: str) -> AsyncGenerator[None, None]:
        access = await self._client.access("publish", place.account)
        lock = self._publishing.setdefault(
            f"{access.storage_url}{path_of(place.container, key)}", asyncio.Lock()
        )
        async with lock:
            yield

    async def _put_manifest(self, place: Place, attempt: Attempt, written: Written) -> None:
        """Make the object; fine if this attempt has made it already."""
        prefix = layout.segments(attempt)
        manifest = [
            {"path": f"/{place.container}/{layout.numbered(prefix, number)}"}
            for number in range(1, written.segments + 1)
        ]
        answer = await self._client.call(
            "publish",
            place.account,
            "PUT",
            path_of(place.container, attempt.key),
            subject=attempt.key,
            params={"multipart-manifest": "put"},
            headers={
                "Accept": "application/json",
                # Of all segments' ETags: that they are those that were written.
                "ETag": written.etag,
                "If-None-Match": "*",
                _ATTEMPT: attempt.token,
                **_OCTETS,
            },
            content=json.dumps(manifest).encode(),
            ok={HTTPStatus.PRECONDITION_FAILED, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND},
            answer_within_s=written.segments / _SEGMENTS_LOOKED_AT_A_SECOND,
        )
        match answer.status:
            case HTTPStatus.NOT_FOUND:
                raise self._lost(attempt)
            case HTTPStatus.BAD_REQUEST:
                errors = decoded(answer, dict[str, Any]).get("Errors", [])
                if any(str(error[1]).startswith("404") for error in errors):
                    raise self._lost(attempt)
                raise Unreachable(
                    f"Store {self.name}: Swift refuses the manifest of {attempt.key}."
                )
            case _:
                return

    async def _check_manifest(self, place: Place, attempt: Attempt) -> None:
        """Raise AlreadyThere if the key holds another attempt's object."""
        found = await self._head("publish", place, attempt.key)
        if found is None and await self._may_stay(place, attempt):
            raise Unreachable(f"Store {self.name}: {attempt.key} is not there yet.")
        if found is None:
            raise self._lost(attempt)
        if found.get(_ATTEMPT) != attempt.token:
            raise AlreadyThere(f"Store {self.name} already holds an object {attempt.key}.")

    async def _may_stay(self, place: Place, attempt: Attempt) -> bool:
        """Whether nobody has discarded the attempt before its manifest was there."""
        if await self._head("publish", place, layout.marker(attempt)) is not None:
            return True
        # A discard that has seen the manifest leaves it, and so does another call that published.
        first = layout.numbered(layout.segments(attempt), 1)
        return (
            await self._head("publish", place, layout.discarding(attempt)) is None
            and await self._head("publish", place, first) is not None
        )

    async def _join_parts(
        self, place: Place, attempt: Attempt, found: Mapping[str, str]
    ) -> Written:
        """Make segments of the parts that came by URL.

        They are copied, for whoever still has a URL can replace a part and so break the object.
        """
        if _BY_URL not in found:
            raise self._lost(attempt)  # its write has not ended, or never will
        prefix = layout.parts(attempt)
        sizes: dict[int, int] = {}
        async for entry in self._listed("publish", place, prefix):
            number = layout.number_of(str(entry["name"]))
            if number is not None:
                sizes[number] = int(entry["bytes"])
        if not sizes:
            raise self._lost(attempt)
        if sorted(sizes) != list(range(1, len(sizes) + 1)):
            raise Unreachable(f"Store {self.name}: parts of {attempt.key} are missing.")
        pieces = [
            Piece(place.container, layout.numbered(prefix, number), sizes[number])
            for number in sorted(sizes)
        ]
        sent = await self._copy_pieces("publish", place, attempt, pieces)
        etags = [etag for _, etag in sent]
        await self._complete(place, attempt, found.get(_WRITER, ""), etags, by_url=True)
        return Written(segments=len(etags), etag=manifest_etag(etags))

    async def discard(self, attempt: Attempt, *, published: bool = False) -> None:
        """See Store.discard."""
        place = self._writable(attempt)
        await finished(self._discard(place, attempt, published=published))

    async def _discard(self, place: Place, attempt: Attempt, *, published: bool) -> None:
        # First of all a name by which a sweep finds what is left if this is not ended; then, by
        # the marker, the right to be published goes.
        try:
            await self._client.call(
                "discard",
                place.account,
                "PUT",
                path_of(place.container, layout.discarding(attempt)),
                subject=attempt.key,
                content=b"",
            )
        except NotFound:
            return  # no container, so nothing in it
        await self._remove("discard", place, layout.marker(attempt))
        found = await self._head("discard", place, attempt.key)
        is_published = found is not None and found.get(_ATTEMPT) == attempt.token
        if is_published and published:
            await self._delete_manifest("discard", place, attempt.key)
        if published or not is_published:
            await self._remove_listed("discard", place, layout.segments(attempt))
        await self._remove_listed("discard", place, layout.parts(attempt))
        await self._remove("discard", place, layout.discarding(attempt))
        await self._leave("discard", place)

    # Reading.

    @asynccontextmanager
    async def open(self, location: str, range: ByteRange = WHOLE) -> AsyncGenerator[Reading, None]:
        """See Store.open."""
        place, key = self._find(location)
        if range.length == 0:
            size = await self._size(place, key)
            range.length_within(size)
            yield Reading(size=size, length=0, blocks=_no_blocks())
            return
        async with AsyncExitStack() as stack:
            retries = Retries(self._options.swift_store_retry_get_count)

            async def enter() -> httpx.Response:
                return await stack.enter_async_context(
                    self._download(
                        place, key, range, ok={HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}
                    )
                )

            response = await retried(enter, retries)
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                size = await self._size(place, key)
                range.length_within(size)
                raise Unreachable(f"Store {self.name}: {key} changes.")
            size, length = self._extent(response, range)
            blocks = resumed(
                self._client.blocks(response, size=_BLOCK_SIZE, subject=key),
                partial(self._go_on, place, key, range.start, length, response.headers),
                length=length,
                retries=retries,
            )
            stack.push_async_callback(blocks.aclose)
            yield Reading(size=size, length=length, blocks=blocks)

    @asynccontextmanager
    async def _download(
        self,
        place: Place,
        key: str,
        range: ByteRange,
        *,
        ok: Collection[int] = (),
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[httpx.Response, None]:
        asked = {} if range == WHOLE else {"Range": _range_header(range)}
        try:
            async with self._client.download(
                place.account,
                path_of(place.container, key),
                subject=key,
                headers={**asked, **(headers or {})},
                ok=ok,
            ) as response:
                yield response
        except NotFound:
            raise await self._missing(place, key) from None

    def _extent(self, response: httpx.Response, range: ByteRange) -> tuple[int, int]:
        """The size of the object and the length of the body; raises Unreachable if untold."""
        length = response.headers.get("Content-Length", "")
        if response.status_code == HTTPStatus.PARTIAL_CONTENT:
            start, _, total = response.headers.get("Content-Range", "").partition("/")
            if start.startswith(f"bytes {range.start}-") and total.isdecimal():
                return int(total), range.length_within(int(total))
        elif range == WHOLE and length.isdecimal():
            return int(length), int(length)
        raise Unreachable(f"Store {self.name}: another range came than was asked for.")

    @asynccontextmanager
    async def _go_on(
        self,
        place: Place,
        key: str,
        start: int,
        length: int,
        before: Mapping[str, str],
        offset: int,
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """What is left of a download, if the object is still the same."""
        rest = ByteRange(start + offset, length - offset)
        etag = _etag(before)
        # The user was let in when the download began; its end may come after the token's.
        lasting = Place(place.account.outlasting_user(), place.container)
        async with self._download(
            lasting,
            key,
            rest,
            ok={HTTPStatus.PRECONDITION_FAILED},
            headers={"If-Match": f'"{etag}"'} if etag else None,
        ) as response:
            if response.status_code == HTTPStatus.PRECONDITION_FAILED or response.headers.get(
                "X-Timestamp"
            ) != before.get("X-Timestamp"):
                raise NotFound(f"Store {self.name}: {key} is no longer what it was.")
            self._extent(response, rest)
            yield self._client.blocks(response, size=_BLOCK_SIZE, subject=key)

    async def _size(self, place: Place, key: str) -> int:
        found = await self._head("open", place, key)
        if found is None:
            raise await self._missing(place, key)
        return int(found.get("Content-Length", "0"))

    async def _missing(self, place: Place, key: str) -> NotFound | Unreachable:
        """What to raise for an object that isn't there.

        The one container of all images is never gone by right: then another account or cluster
        answers, and nothing of it may be taken for deleted.
        """
        if place.container == self._options.swift_store_container:
            path = path_of(place.container)
            if await self._client.head("open", place.account, path, subject=key) is None:
                return Unreachable(f"Store {self.name}: there is no container {place.container}.")
        return NotFound(f"Store {self.name} has no object {key}.")

    # Deleting.

    async def delete(self, location: str) -> None:
        """See Store.delete."""
        place, key = self._find(location)
        self._check_writable()
        await finished(self._delete(place, key))

    async def _delete(self, place: Place, key: str) -> None:
        found = await self._head("delete", place, key)
        if found is None:
            raise await self._missing(place, key)
        if _is_static(found):
            await self._delete_manifest("delete", place, key)
        else:
            pieces = await self._dynamic_pieces("delete", place, key, found)
            # A prefix that is not the object's own may hold what belongs to others.
            own = [piece for piece in pieces if piece.name.startswith(f"{key}-")]
            await gathered(
                _AT_A_TIME,
                [
                    partial(
                        self._remove, "delete", Place(place.account, piece.container), piece.name
                    )
                    for piece in own
                ],
            )
            await self._remove("delete", place, key)
        await self._leave("delete", place)

    async def _delete_manifest(self, operation: str, place: Place, key: str) -> None:
        """Remove a static large object: its segments first, so that it can be tried again."""
        answer = await self._client.call(
            operation,
            place.account,
            "DELETE",
            path_of(place.container, key),
            subject=key,
            params={"multipart-manifest": "delete"},
            headers={"Accept": "application/json"},
            ok={HTTPStatus.NOT_FOUND},
        )
        if answer.status == HTTPStatus.NOT_FOUND:
            return
        # The status is sent before the work begins; the outcome is in the body.
        outcome = decoded(answer, dict[str, Any])
        failures = [str(error[1]) for error in outcome.get("Errors", [])]
        if any(failure.startswith(("401", "403")) for failure in failures):
            raise WriteDenied(f"Store {self.name}: {key} may not be deleted.")
        if failures or not str(outcome.get("Response Status", "")).startswith(("2", "404")):
            raise Unreachable(f"Store {self.name}: not all of {key} could be deleted.")

    # Capabilities.

    async def copy(
        self, attempt: Attempt, source: Store, location: str, *, temporary: bool = False
    ) -> int | None:
        """See Copies. Swift shares no bytes, so `temporary` makes no difference."""
        place = self._writable(attempt)
        if not isinstance(source, SwiftStore):
            return None
        origin, key = source._find(location)
        pieces = await source._pieces(origin, key)
        access = await self._client.access("copy", place.account)
        other = await source._client.access("open", origin.account)
        if pieces is None or not _same_cluster(access.storage_url, other.storage_url):
            return None
        limits = await self._cluster_limits(place)
        if len(pieces) > limits.max_segments:
            return None
        foreign = None if access.storage_url == other.storage_url else other.storage_url

        async def work(begun: _Begun) -> list[tuple[int, str]]:
            begun.segments = len(pieces)
            return await self._copy_pieces("copy", place, attempt, pieces, account_url=foreign)

        try:
            return await self._fill(place, attempt, work)
        except WriteDenied:
            if foreign is not None:
                return None  # ours is not the account that may read there
            raise

    async def _copy_pieces(
        self,
        operation: str,
        place: Place,
        attempt: Attempt,
        pieces: Sequence["Piece"],
        *,
        account_url: str | None = None,
    ) -> list[tuple[int, str]]:
        """Copy objects to be the attempt's segments; their sizes and ETags."""
        prefix = layout.segments(attempt)

        async def one(number: int, piece: Piece) -> tuple[int, str]:
            headers = {
                "Content-Length": "0",
                "X-Copy-From": path_of(piece.container, piece.name),
                "X-Fresh-Metadata": "true",
                **_OCTETS,
            }
            if account_url is not None:
                headers["X-Copy-From-Account"] = account_url.rpartition("/")[2]
            answer = await self._client.call(
                operation,
                place.account,
                "PUT",
                path_of(place.container, layout.numbered(prefix, number)),
                subject=attempt.key,
                headers=headers,
                content=b"",
                answer_within_s=piece.size / _COPIED_BYTES_A_SECOND,
            )
            etag = _etag(answer.headers)
            if piece.etag not in ("", etag):
                raise Unreachable(f"Store {self.name}: a copy for {attempt.key} is not the same.")
            return piece.size, etag

        return await gathered(
            _AT_A_TIME, [partial(one, number, piece) for number, piece in enumerate(pieces, 1)]
        )

    async def _pieces(self, place: Place, key: str) -> list["Piece"] | None:
        """The objects that make up an object; None for a manifest that names parts of objects."""
        found = await self._head("open", place, key)
        if found is None:
            raise await self._missing(place, key)
        if not _is_static(found):
            pieces = await self._dynamic_pieces("open", place, key, found)
            size = int(found.get("Content-Length", "0"))
            return pieces or [Piece(place.container, key, size, _etag(found))]
        answer = await self._client.call(
            "open",
            place.account,
            "GET",
            path_of(place.container, key),
            subject=key,
            params={"multipart-manifest": "get"},
        )
        pieces = list[Piece]()
        for entry in decoded(answer, list[dict[str, Any]]):
            if entry.keys() & {"range", "data", "sub_slo"}:
                return None
            container, _, name = str(entry["name"]).lstrip("/").partition("/")
            pieces.append(Piece(container, name, int(entry["bytes"]), str(entry["hash"])))
        return pieces

    async def _dynamic_pieces(
        self, operation: str, place: Place, key: str, found: Mapping[str, str]
    ) -> list["Piece"]:
        """The segments of a dynamic large object, as Glance writes them; none of a plain one."""
        container, _, prefix = unquote(found.get("X-Object-Manifest", "")).partition("/")
        if not container or not prefix:
            return []
        there = Place(place.account, container)
        return [
            Piece(container, str(entry["name"]), int(entry["bytes"]), str(entry["hash"]))
            async for entry in self._listed(operation, there, prefix)
        ]

    async def presign_get(self, location: str, *, expires: timedelta) -> str:
        """See Presigns. Raises ReadDenied where no key is set."""
        place, key = self._find(location)
        return await self._presigned(place, key, method="GET", expires=expires)

    async def presign_put(self, attempt: Attempt, *, part: int = 1, expires: timedelta) -> str:
        """See Presigns."""
        place = self._writable(attempt)
        if await self._head("presign", place, layout.marker(attempt)) is None:
            with suppress(AlreadyThere):
                await self._begin(place, attempt, writer=secrets.token_hex(8), by_url=True)
        name = layout.numbered(layout.parts(attempt), part)
        try:
            return await self._presigned(place, name, method="PUT", expires=expires)
        except ReadDenied as error:
            raise WriteDenied(str(error)) from None

    async def _presigned(self, place: Place, name: str, *, method: str, expires: timedelta) -> str:
        access = await self._client.access("presign", place.account)
        key = self._options.swift_temp_url_key.get_secret_value()
        if not key:
            for level, path in (("Account", ""), ("Container", path_of(place.container))):
                found = await self._client.head("presign", place.account, path, subject=level)
                key = key or tempurl.key_in(found or {}, level=level)
        if not key:
            raise ReadDenied(f"Store {self.name}: no key for temporary URLs is set.")
        if self._digest is None:
            info = await self._client.info(access)
            self._digest = tempurl.digest_of(info.get("tempurl", {}).get("allowed_digests", ()))
        return tempurl.sign(
            access.storage_url,
            path_of(place.container, name),
            method=method,
            key=key,
            digest=self._digest,
            expires=expires,
        )

    async def free(self) -> int | None:
        """See Measures: what the quotas of the account and of the one container leave."""
        account = self._account(self._options.default_swift_reference)
        left: list[int] = []
        paths = {"Account": ""}
        if not self._options.swift_store_multiple_containers_seed:
            paths["Container"] = path_of(self._options.swift_store_container)
        for level, path in paths.items():
            found = await self._client.head("measure", account, path, subject=level) or {}
            quota = found.get(f"X-{level}-Meta-Quota-Bytes", "")
            used = found.get(f"X-{level}-Bytes-Used", "")
            if quota.isdecimal() and used.isdecimal():
                left.append(max(0, int(quota) - int(used)))
        return min(left, default=None)

    async def attempts(self, *, older_than: timedelta) -> AsyncIterator[Attempt]:
        """See Sweeps."""
        async for place in self._places():
            seen: set[Attempt] = set()
            for prefix in (layout.ATTEMPTS, layout.PARTS):
                async for entry in self._listed("list", place, prefix):
                    attempt = layout.attempt_of(str(entry["name"]))
                    if attempt is None or attempt in seen or not _is_older(entry, older_than):
                        continue
                    if await self._was_written_to(place, attempt, older_than):
                        continue
                    seen.add(attempt)
                    yield attempt

    async def _was_written_to(self, place: Place, attempt: Attempt, within: timedelta) -> bool:
        """Whether a segment or part of the attempt is not as old as that."""
        for prefix in (layout.segments(attempt), layout.parts(attempt)):
            async for entry in self._listed("list", place, prefix):
                if not _is_older(entry, within):
                    return True
        return False

    async def _places(self) -> AsyncIterator[Place]:
        """All containers of the store in the account that it is used in."""
        account = self._account(self._options.default_swift_reference)
        base = self._options.swift_store_container
        async for entry in self._client.listing("list", account, "", prefix=base, subject=base):
            name = str(entry["name"])
            if name == base or name.startswith(f"{base}_"):
                yield Place(account, name)

    async def aclose(self) -> None:
        """See Store.aclose."""
        self._shared.hashing.close()
        await self._client.aclose()

    # Common to all of these.

    def _writable(self, attempt: Attempt) -> Place:
        place = self._place(attempt.key)
        check_token(attempt.token)
        self._check_writable()
        return place

    def _check_writable(self) -> None:
        if self._read_only:
            raise WriteDenied(f"Store {self.name} is read-only.")

    def _lost(self, attempt: Attempt) -> AttemptLost:
        return AttemptLost(f"Store {self.name}: the attempt at {attempt.key} was discarded.")

    async def _head(self, operation: str, place: Place, name: str) -> Mapping[str, str] | None:
        path = path_of(place.container, name)
        return await self._client.head(operation, place.account, path, subject=name)

    def _listed(
        self, operation: str, place: Place, prefix: str
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        path = path_of(place.container)
        return self._client.listing(
            operation, place.account, path, prefix=prefix, subject=place.container
        )

    async def _remove(self, operation: str, place: Place, name: str) -> bool:
        """Remove one object; whether it was there."""
        answer = await self._client.call(
            operation,
            place.account,
            "DELETE",
            path_of(place.container, name),
            subject=name,
            ok={HTTPStatus.NOT_FOUND},
        )
        return answer.status != HTTPStatus.NOT_FOUND

    async def _remove_numbered(
        self, operation: str, place: Place, prefix: str, numbers: Iterable[int]
    ) -> None:
        names = [layout.numbered(prefix, number) for number in numbers]
        await gathered(_AT_A_TIME, [partial(self._remove, operation, place, one) for one in names])

    async def _remove_listed(self, operation: str, place: Place, prefix: str) -> None:
        """Remove all segments or parts of an attempt, those too that no listing shows yet."""
        found = [
            number
            async for entry in self._listed(operation, place, prefix)
            if (number := layout.number_of(str(entry["name"]))) is not None
        ]
        await self._remove_numbered(operation, place, prefix, found)
        following = max(found, default=0) + 1
        while await self._remove(operation, place, layout.numbered(prefix, following)):
            following += 1

    async def _leave(self, operation: str, place: Place) -> None:
        """Do what is to be done when something of a container has gone: nothing here."""


class MultiTenantSwiftStore(SwiftStore):
    """A container for each image, in the account of the image's project.

    Has the capabilities ActsForUsers and AccessLists besides. By itself it acts with the
    service's credentials, which have to be good for every account (Swift's reseller admin).
    """

    _project_id: str | None = None
    _user_token: str | None = None

    def acting_for(self, project_id: str, *, token: str | None) -> "MultiTenantSwiftStore":
        """See ActsForUsers."""
        acting = copy(self)
        acting._project_id = project_id
        acting._user_token = token
        return acting

    async def allow_reading(self, location: str, *, projects: Iterable[str], public: bool) -> None:
        """See AccessLists. "Everybody" are those who have a token, as in Glance."""
        place, key = self._find(location)
        self._check_writable()
        if await self._head("allow", place, key) is None:
            raise NotFound(f"Store {self.name} has no object {key}.")
        await self._client.call(
            "allow",
            place.account,
            "POST",
            path_of(place.container),
            subject=key,
            headers=self._lists(projects, public=public),
        )

    def _lists(self, projects: Iterable[str], *, public: bool) -> Mapping[str, str]:
        # No referrer lists (`.r:*`): they let those in who have no token at all.
        admins = [f"{project}:*" for project in self._options.swift_store_admin_tenants]
        readers = ["*:*"] if public else [f"{project}:*" for project in projects]
        return {
            "X-Container-Read": ",".join([*readers, *admins]),
            "X-Container-Write": ",".join(admins),
        }

    def _find(self, location: str) -> tuple[Place, str]:
        parsed = layout.parse_location(location)
        if parsed.reference or parsed.user:
            return super()._find(location)  # written before the store was a multi-tenant one
        base = self._options.swift_store_container
        endpoint = self._options.swift_store_endpoint
        if parsed.container != layout.user_container(base, parsed.key) or (
            endpoint and not _is_neighbour(parsed.url, endpoint)
        ):
            raise BadLocation(f"{for_display(location)} is not a location of store {self.name}.")

        def place(own: Access) -> str:
            # A token must not go to another cluster because a location says so.
            if not _is_neighbour(parsed.url, own.storage_url):
                raise BadLocation(
                    f"{for_display(location)} is not a location of store {self.name}."
                )
            return parsed.url

        return Place(self._used(place), parsed.container), parsed.key

    def _place(self, key: str) -> Place:
        container = layout.user_container(self._options.swift_store_container, check_key(key))
        return Place(self._account(self._options.default_swift_reference), container)

    def _account(self, reference: str) -> Account:
        if self._project_id is None or reference != self._options.default_swift_reference:
            return super()._account(reference)
        return self._used(partial(_account_of, self._project_id), outlasts_user=True)

    def _used(self, place: Callable[[Access], str], *, outlasts_user: bool = False) -> Account:
        return Account(
            self._shared.tokens[self._options.default_swift_reference],
            place,
            user_token=self._user_token,
            outlasts_user=outlasts_user,
        )

    async def _location(self, place: Place, key: str) -> str:
        access = await self._client.access("publish", place.account)
        return layout.storage_location(access.storage_url, place.container, key)

    @property
    def _makes_containers(self) -> bool:
        return True  # nobody else could: each image has its own

    def _new_container_headers(self) -> Mapping[str, str]:
        return self._lists((), public=False)

    async def _leave(self, operation: str, place: Place) -> None:
        """Remove the image's container if nothing is left in it."""
        await self._client.call(
            operation,
            place.account,
            "DELETE",
            path_of(place.container),
            subject=f"container {place.container}",
            ok={HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT},
        )


@dataclass(slots=True)
class _Begun:
    """How many segments of an attempt may be there."""

    segments: int = 0


def _account_of(project_id: str, own: Access) -> str:
    """The storage URL of a project's account, which differs from the service's by its id only."""
    if not own.project_id or not own.storage_url.endswith(own.project_id):
        raise Unreachable("The service's storage URL does not end with its project's id.")
    return own.storage_url.removesuffix(own.project_id) + quote(project_id, safe="")


def _is_neighbour(storage_url: str, own: str) -> bool:
    """Whether two storage URLs are of accounts of one cluster, with the same prefix."""
    before, _, account = storage_url.rpartition("/")
    own_before, _, own_account = own.rpartition("/")
    reseller, own_reseller = (name.rpartition("_")[0] for name in (account, own_account))
    return bool(account) and before == own_before and reseller == own_reseller


def _same_cluster(storage_url: str, other: str) -> bool:
    return urlsplit(storage_url)[:2] == urlsplit(other)[:2]


def _same_address(url: str, address: str) -> bool:
    return _plain_address(url) == _plain_address(address)


def _plain_address(url: str) -> str:
    # `swift://` is `https`; a trailing slash and a version are sometimes left out.
    return url.rstrip("/").removesuffix("/v3").removesuffix("/v2.0")


def _written(marker: Mapping[str, str]) -> Written | None:
    count = marker.get(_SEGMENTS, "")
    return Written(int(count), marker.get(_ETAG, "")) if count.isdecimal() else None


def _is_static(headers: Mapping[str, str]) -> bool:
    return headers.get("X-Static-Large-Object", "").lower() == "true"


def _etag(headers: Mapping[str, str]) -> str:
    return headers.get("ETag", "").strip('"')


def _range_header(range: ByteRange) -> str:
    last = "" if range.length is None else range.start + range.length - 1
    return f"bytes={range.start}-{last}"


def _is_older(entry: Mapping[str, Any], than: timedelta) -> bool:
    modified = datetime.fromisoformat(str(entry["last_modified"]))
    return modified.replace(tzinfo=UTC) < datetime.now(UTC) - than


def _noted(writer: str, *, by_url: bool) -> dict[str, str]:
    return {_WRITER: writer, **({_BY_URL: "yes"} if by_url else {})}


async def _no_blocks() -> AsyncIterator[bytes]:
    return
    yield b""
