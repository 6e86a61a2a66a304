"""An object read from a byte on, and further from where it broke off."""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus

import httpx

from diptych_store.drivers.swift.container import Container, etag_in
from diptych_store.drivers.swift.layout import path_of
from diptych_store.drivers.swift.writing import MIB
from diptych_store.errors import NotFound, Unreachable
from diptych_store.protocol import WHOLE, ByteRange, Reading
from diptych_store.retries import Retries, resumed, retried

_BLOCK_SIZE = MIB


@asynccontextmanager
async def opened(
    place: Container, key: str, range: ByteRange, *, retries: Retries
) -> AsyncGenerator[Reading, None]:
    """See Store.open. What breaks off goes on at the byte reached, `retries` at a time."""
    if range.length == 0:
        size = await _size(place, key)
        range.length_within(size)
        yield Reading(size=size, length=0, blocks=_no_blocks())
        return
    async with AsyncExitStack() as stack:

        async def enter() -> httpx.Response:
            outside = {HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}
            return await stack.enter_async_context(_download(place, key, range, ok=outside))

        response = await retried(enter, retries)
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            range.length_within(await _size(place, key))
            raise Unreachable(f"Store {place.store}: {key} changes.")
        size, length = _extent(place, response, range)
        blocks = resumed(
            place.client.blocks(response, size=_BLOCK_SIZE, subject=key),
            partial(_go_on, place, key, range.start, length, response.headers),
            length=length,
            retries=retries,
        )
        stack.push_async_callback(blocks.aclose)
        yield Reading(size=size, length=length, blocks=blocks)


@asynccontextmanager
async def _download(
    place: Container,
    key: str,
    range: ByteRange,
    *,
    ok: Collection[int] = (),
    headers: Mapping[str, str] | None = None,
) -> AsyncGenerator[httpx.Response, None]:
    asked = {} if range == WHOLE else {"Range": _range_header(range)}
    async with AsyncExitStack() as stack:
        try:
            response = await stack.enter_async_context(
                place.client.download(
                    place.account,
                    path_of(place.name, key),
                    subject=key,
                    headers={**asked, **(headers or {})},
                    ok=ok,
                )
            )
        except NotFound:
            raise await place.missing(key) from None
        yield response


@asynccontextmanager
async def _go_on(
    place: Container,
    key: str,
    start: int,
    length: int,
    before: Mapping[str, str],
    offset: int,
) -> AsyncGenerator[AsyncIterator[bytes], None]:
    """What is left of a download, if the object is still the same."""
    rest = ByteRange(start + offset, length - offset)
    etag = etag_in(before)
    # The user was let in when the download began; its end may come after the token's.
    lasting = replace(place, account=place.account.outlasting_user())
    async with _download(
        lasting,
        key,
        rest,
        ok={HTTPStatus.PRECONDITION_FAILED},
        headers={"If-Match": f'"{etag}"'} if etag else None,
    ) as response:
        time = response.headers.get("X-Timestamp")
        if response.status_code == HTTPStatus.PRECONDITION_FAILED or (
            time != before.get("X-Timestamp")
        ):
            raise NotFound(f"Store {place.store}: {key} is no longer what it was.")
        _extent(place, response, rest)
        yield place.client.blocks(response, size=_BLOCK_SIZE, subject=key)


def _extent(place: Container, response: httpx.Response, range: ByteRange) -> tuple[int, int]:
    """The size of the object and the length of the body; raises Unreachable if untold."""
    length = response.headers.get("Content-Length", "")
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        start, _, total = response.headers.get("Content-Range", "").partition("/")
        if start.startswith(f"bytes {range.start}-") and total.isdecimal():
            return int(total), range.length_within(int(total))
    elif range == WHOLE and length.isdecimal():
        return int(length), int(length)
    raise Unreachable(f"Store {place.store}: another range came than was asked for.")


async def _size(place: Container, key: str) -> int:
    found = await place.head("open", key)
    if found is None:
        raise await place.missing(key)
    return int(found.get("Content-Length", "0"))


def _range_header(range: ByteRange) -> str:
    last = "" if range.length is None else range.start + range.length - 1
    return f"bytes={range.start}-{last}"


async def _no_blocks() -> AsyncIterator[bytes]:
    return
    yield b""
