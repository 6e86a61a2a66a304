"""Attempts: from their marker by way of their segments to a manifest, or to nothing.

An attempt may be published for as long as its marker is there, and `discard` takes that away first.
"""

import json
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from diptych_store.drivers.swift import layout
from diptych_store.drivers.swift.client import Answer, decoded
from diptych_store.drivers.swift.container import AT_A_TIME, OCTETS, Container, Piece, etag_in
from diptych_store.drivers.swift.layout import path_of
from diptych_store.drivers.swift.writing import (
    HELD,
    MIB,
    Body,
    Stream,
    etag_of,
    manifest_etag,
)
from diptych_store.errors import (
    AlreadyThere,
    AttemptLost,
    Full,
    NotFound,
    StoreError,
    Unreachable,
)
from diptych_store.protocol import Attempt
from diptych_store.tasks import finished, gathered, only_publisher
from diptych_store.threads import Threads

# What a server-side copy may take for a segment, at the least.
_COPIED_BYTES_A_SECOND = 10 * MIB
# Swift looks at two at a time, each within some ten milliseconds.
_SEGMENTS_LOOKED_AT_A_SECOND = 10
_ATTEMPT = "X-Object-Meta-Diptych-Attempt"
_WRITER = "X-Object-Meta-Diptych-Writer"
_SEGMENTS = "X-Object-Meta-Diptych-Segments"
_ETAG = "X-Object-Meta-Diptych-Etag"
_BY_URL = "X-Object-Meta-Diptych-By-Url"


@dataclass(slots=True)
class Begun:
    """How many segments of an attempt may be there."""

    segments: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """An attempt whose bytes are all there: how many segments, and their manifest's ETag."""

    segments: int
    etag: str


async def fill(
    place: Container,
    attempt: Attempt,
    work: Callable[[Begun], Awaitable[list[tuple[int, str]]]],
) -> int:
    """Begin an attempt, have its segments made, and complete it; or leave nothing.

    `work` returns the segments' sizes and ETags.
    """
    writer = secrets.token_hex(8)
    begun = Begun()
    try:
        await begin(place, attempt, writer=writer)
        sent = await work(begun)
        await _complete(place, attempt, writer, [etag for _, etag in sent])
    except AlreadyThere:
        raise
    except BaseException:
        await finished(_undo_write(place, attempt, begun.segments))
        raise
    return sum(size for size, _ in sent)


async def begin(place: Container, attempt: Attempt, *, writer: str, by_url: bool = False) -> None:
    """Make the attempt's marker; raises AlreadyThere if there is one."""
    path = path_of(place.name, layout.marker(attempt))
    headers = {"If-None-Match": "*", **_noted(writer, by_url=by_url)}

    async def put() -> Answer:
        return await place.client.call(
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
        await place.make()
        answer = await put()
    if answer.status != HTTPStatus.PRECONDITION_FAILED:
        return
    # It may have been made by a try whose answer was lost.
    found = await place.head("write", layout.marker(attempt))
    if found is None or found.get(_WRITER) != writer:
        raise AlreadyThere(f"Store {place.store}: the attempt at {attempt.key} was begun before.")


async def send(
    place: Container,
    attempt: Attempt,
    stream: Stream,
    hashing: Threads,
    begun: Begun,
    *,
    usual: int,
    size: int | None,
) -> list[tuple[int, str]]:
    """Send the stream as segments of the `usual` size or more; their sizes and ETags.

    `size` is that of the whole, as far as it is known.
    """
    prefix = layout.segments(attempt)
    head = await stream.head(HELD)
    if stream.has_ended:
        begun.segments = 1
        return [await _put_held(place, attempt, layout.numbered(prefix, 1), head)]
    limits = await place.client.limits(place.account)
    sent: list[tuple[int, str]] = []
    while head:
        number = begun.segments + 1
        if number > limits.max_segments:
            raise Full(
                f"Store {place.store}: {attempt.key} would need more than "
                f"{limits.max_segments} segments."
            )
        begun.segments = number
        name = layout.numbered(prefix, number)
        limit = limits.segment_size(number, usual=usual, size=size)
        if stream.has_ended or len(head) == limit:
            sent.append(await _put_held(place, attempt, name, head))
        else:
            body = Body(head, stream, limit=limit, hashing=hashing)
            sent.append(await _put_streamed(place, attempt, name, body))
        head = await stream.head(HELD)
    return sent


async def _put_held(place: Container, attempt: Attempt, name: str, data: bytes) -> tuple[int, str]:
    etag = etag_of(data)
    try:
        await place.client.call(
            "write",
            place.account,
            "PUT",
            path_of(place.name, name),
            subject=attempt.key,
            headers={"ETag": etag, **OCTETS},
            content=data,
        )
    except NotFound:
        # The container goes with the last object in it, the marker.
        raise _lost(place, attempt) from None
    return len(data), etag


async def _put_streamed(
    place: Container, attempt: Attempt, name: str, body: Body
) -> tuple[int, str]:
    # A stream cannot be sent twice, so the token, and whether the attempt is still wanted, are
    # tried out first.
    if await place.head("write", layout.marker(attempt)) is None:
        raise _lost(place, attempt)
    async with aclosing(body.pieces()) as pieces:
        try:
            answer = await place.client.call(
                "write",
                place.account,
                "PUT",
                path_of(place.name, name),
                subject=attempt.key,
                headers=OCTETS,
                content=pieces,
            )
        except NotFound as error:
            if error is body.failure:
                raise
            raise _lost(place, attempt) from None
    if etag_in(answer.headers) != body.etag:
        raise Unreachable(f"Store {place.store}: a segment of {attempt.key} is not what was sent.")
    return body.size, body.etag


async def _complete(
    place: Container,
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
        await place.client.call(
            "write",
            place.account,
            "POST",
            path_of(place.name, layout.marker(attempt)),
            subject=attempt.key,
            headers=headers,
        )
    except NotFound:
        raise _lost(place, attempt) from None


async def _undo_write(place: Container, attempt: Attempt, segments: int) -> None:
    """Remove what a write has begun; what cannot be reached is left to a sweep."""
    try:
        prefix = layout.segments(attempt)
        await place.remove_numbered("write", prefix, range(1, segments + 1))
        await place.remove("write", layout.marker(attempt))
        await place.leave("write")
    except StoreError:
        return


async def publish(place: Container, attempt: Attempt) -> None:
    """Make the manifest: see Store.publish. Not to be left in the middle."""
    found = await place.head("publish", layout.marker(attempt))
    if found is None:
        raise _lost(place, attempt)
    access = await place.client.access("publish", place.account)
    async with only_publisher(access.storage_url + path_of(place.name, attempt.key)):
        written = _written(found) or await _join_parts(place, attempt, found)
        await _put_manifest(place, attempt, written)
        await _check_manifest(place, attempt)
    if not await _may_stay(place, attempt):
        await discard(place, attempt, published=True)
        raise _lost(place, attempt)
    if _BY_URL in found:
        await place.remove_listed("publish", layout.parts(attempt))
    await place.remove("publish", layout.marker(attempt))


async def _put_manifest(place: Container, attempt: Attempt, written: Written) -> None:
    """Make the object; fine if this attempt has made it already."""
    prefix = layout.segments(attempt)
    manifest = [
        {"path": f"/{place.name}/{layout.numbered(prefix, number)}"}
        for number in range(1, written.segments + 1)
    ]
    answer = await place.client.call(
        "publish",
        place.account,
        "PUT",
        path_of(place.name, attempt.key),
        subject=attempt.key,
        params={"multipart-manifest": "put"},
        headers={
            "Accept": "application/json",
            # Of all segments' ETags: that they are those that were written.
            "ETag": written.etag,
            "If-None-Match": "*",
            _ATTEMPT: attempt.token,
            **OCTETS,
        },
        content=json.dumps(manifest).encode(),
        ok={HTTPStatus.PRECONDITION_FAILED, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND},
        answer_within_s=written.segments / _SEGMENTS_LOOKED_AT_A_SECOND,
    )
    match answer.status:
        case HTTPStatus.NOT_FOUND:
            raise _lost(place, attempt)
        case HTTPStatus.BAD_REQUEST:
            errors = decoded(answer, dict[str, Any]).get("Errors", [])
            if any(str(error[1]).startswith("404") for error in errors):
                raise _lost(place, attempt)
            raise Unreachable(f"Store {place.store}: Swift refuses the manifest of {attempt.key}.")
        case _:
            return


async def _check_manifest(place: Container, attempt: Attempt) -> None:
    """Raise AlreadyThere if the key holds another attempt's object."""
    found = await place.head("publish", attempt.key)
    if found is None and await _may_stay(place, attempt):
        raise Unreachable(f"Store {place.store}: {attempt.key} is not there yet.")
    if found is None:
        raise _lost(place, attempt)
    if found.get(_ATTEMPT) != attempt.token:
        raise AlreadyThere(f"Store {place.store} already holds an object {attempt.key}.")


async def _may_stay(place: Container, attempt: Attempt) -> bool:
    """Whether nobody has discarded the attempt before its manifest was there."""
    if await place.head("publish", layout.marker(attempt)) is not None:
        return True
    # A discard that has seen the manifest leaves it, and so does another call that published.
    first = layout.numbered(layout.segments(attempt), 1)
    return (
        await place.head("publish", layout.discarding(attempt)) is None
        and await place.head("publish", first) is not None
    )


async def _join_parts(place: Container, attempt: Attempt, found: Mapping[str, str]) -> Written:
    """Make segments of the parts that came by URL.

    They are copied, for whoever still has a URL can replace a part and so break the object.
    """
    if _BY_URL not in found:
        raise _lost(place, attempt)  # its write has not ended, or never will
    prefix = layout.parts(attempt)
    sizes: dict[int, int] = {}
    async for entry in place.listed("publish", prefix):
        number = layout.number_of(str(entry["name"]))
        if number is not None:
            sizes[number] = int(entry["bytes"])
    if not sizes:
        raise _lost(place, attempt)
    if sorted(sizes) != list(range(1, len(sizes) + 1)):
        raise Unreachable(f"Store {place.store}: parts of {attempt.key} are missing.")
    pieces = [
        Piece(place.name, layout.numbered(prefix, number), sizes[number])
        for number in sorted(sizes)
    ]
    sent = await copy_pieces("publish", place, attempt, pieces)
    etags = [etag for _, etag in sent]
    await _complete(place, attempt, found.get(_WRITER, ""), etags, by_url=True)
    return Written(segments=len(etags), etag=manifest_etag(etags))


async def copy_pieces(
    operation: str,
    place: Container,
    attempt: Attempt,
    pieces: Sequence[Piece],
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
            **OCTETS,
        }
        if account_url is not None:
            headers["X-Copy-From-Account"] = account_url.rpartition("/")[2]
        answer = await place.client.call(
            operation,
            place.account,
            "PUT",
            path_of(place.name, layout.numbered(prefix, number)),
            subject=attempt.key,
            headers=headers,
            content=b"",
            answer_within_s=piece.size / _COPIED_BYTES_A_SECOND,
        )
        etag = etag_in(answer.headers)
        if piece.etag not in ("", etag):
            raise Unreachable(f"Store {place.store}: a copy for {attempt.key} is not the same.")
        return piece.size, etag

    return await gathered(
        AT_A_TIME, [partial(one, number, piece) for number, piece in enumerate(pieces, 1)]
    )


async def discard(place: Container, attempt: Attempt, *, published: bool) -> None:
    """See Store.discard. Not to be left in the middle."""
    # First of all a name by which a sweep finds what is left if this is not ended; then, by
    # the marker, the right to be published goes.
    try:
        await place.client.call(
            "discard",
            place.account,
            "PUT",
            path_of(place.name, layout.discarding(attempt)),
            subject=attempt.key,
            content=b"",
        )
    except NotFound:
        return  # no container, so nothing in it
    await place.remove("discard", layout.marker(attempt))
    found = await place.head("discard", attempt.key)
    is_published = found is not None and found.get(_ATTEMPT) == attempt.token
    if is_published and published:
        await place.delete_manifest("discard", attempt.key)
    if published or not is_published:
        await place.remove_listed("discard", layout.segments(attempt))
    await place.remove_listed("discard", layout.parts(attempt))
    await place.remove("discard", layout.discarding(attempt))
    await place.leave("discard")


def _lost(place: Container, attempt: Attempt) -> AttemptLost:
    return AttemptLost(f"Store {place.store}: the attempt at {attempt.key} was discarded.")


def _written(marker: Mapping[str, str]) -> Written | None:
    count = marker.get(_SEGMENTS, "")
    return Written(int(count), marker.get(_ETAG, "")) if count.isdecimal() else None


def _noted(writer: str, *, by_url: bool) -> dict[str, str]:
    return {_WRITER: writer, **({_BY_URL: "yes"} if by_url else {})}
