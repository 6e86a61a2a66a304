import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from diptych_store.errors import NotFound, Unreachable
from diptych_store.retries import Retries, resumed, retried

from tests.store.conformance import cancelled_at, some_bytes, some_numbers

SOON = Retries(count=2, first_s=0.001)
DATA = some_bytes(1000)


class Download:
    """A download in blocks of 100 bytes of which each try ends as it was told to.

    `tries` has an item for each time the download is opened: an error that opening it raises, or
    how many bytes come before it breaks off, or (negative) before it just ends.
    """

    def __init__(self, *tries: int | Exception, data: bytes = DATA) -> None:
        self.offsets: list[int] = []
        self.open = 0
        self._tries = list(tries)
        self._data = data

    async def first(self) -> AsyncIterator[bytes]:
        async for block in self._blocks(0, self._tries.pop(0)):
            yield block

    @asynccontextmanager
    async def again(self, offset: int) -> AsyncGenerator[AsyncIterator[bytes]]:
        self.offsets.append(offset)
        assert self.open == 0
        ends = self._tries.pop(0)
        await asyncio.sleep(0)
        if isinstance(ends, Exception):
            raise ends
        self.open += 1
        try:
            yield self._blocks(offset, ends)
        finally:
            self.open -= 1
            await asyncio.sleep(0)

    async def _blocks(self, offset: int, ends: int | Exception) -> AsyncIterator[bytes]:
        assert isinstance(ends, int)
        end = offset + abs(ends)
        for start in range(offset, min(end, len(self._data)), 100):
            await asyncio.sleep(0)
            yield self._data[start : min(start + 100, end)]
        if ends > 0:
            raise Unreachable(f"after {ends} bytes")

    def resumed(self, *, retries: Retries = SOON) -> AsyncGenerator[bytes, None]:
        return resumed(self.first(), self.again, length=len(DATA), retries=retries)


async def read(download: Download) -> bytes:
    async with aclosing(download.resumed()) as blocks:
        return b"".join([block async for block in blocks])


def test_pauses_grow_up_to_the_longest():
    for _ in range(20):
        pauses = list(Retries(count=6, first_s=1, longest_s=10).pauses())
        for pause_s, longest_s in zip(pauses, (1, 2, 4, 8, 10, 10), strict=True):
            assert longest_s / 2 <= pause_s <= longest_s
    assert list(Retries(count=0).pauses()) == []


@pytest.mark.parametrize("failures", [0, 1, 2])
async def test_a_call_is_tried_again(failures: int):
    errors = [Unreachable(str(number)) for number in range(failures)]

    async def call() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert await retried(call, SOON) == "done"


async def test_a_call_that_fails_for_good_raises_its_last_error():
    calls: list[Unreachable] = []

    async def call() -> None:
        calls.append(Unreachable(str(len(calls))))
        raise calls[-1]

    with pytest.raises(Unreachable, match="2"):
        await retried(call, SOON)
    assert len(calls) == 3


async def test_only_what_may_pass_is_tried_again():
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        raise NotFound("gone")

    with pytest.raises(NotFound):
        await retried(call, SOON)
    assert calls == 1


@pytest.mark.parametrize(
    ("tries", "offsets"),
    [
        ([-1000], []),
        ([1], [1]),
        ([99], [99]),
        ([100], [100]),
        ([450], [450]),
        ([-450], [450]),
        ([999], [999]),
        ([450, 10], [450, 460]),
        ([450, -10], [450, 460]),
        ([450, Unreachable("down")], [450, 450]),
        ([450, Unreachable("down"), 1, Unreachable("down")], [450, 450, 451, 451]),
        # One byte each time, more often than there are tries.
        ([*[1] * 9], [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
    ids=repr,
)
async def test_a_download_goes_on_where_it_broke_off(
    tries: list[int | Exception], offsets: list[int]
):
    download = Download(*tries, -1000)
    assert await read(download) == DATA
    assert download.offsets == offsets
    assert download.open == 0


async def test_a_break_after_the_last_byte_is_none():
    download = Download(1000)
    assert await read(download) == DATA
    assert download.offsets == []


async def test_an_empty_download_is_no_broken_one():
    nothing = Download(-1, data=b"")
    assert [
        one async for one in resumed(nothing.first(), nothing.again, length=0, retries=SOON)
    ] == []


async def test_a_download_that_stays_broken_raises_its_last_error():
    last = Unreachable("last")
    download = Download(450, Unreachable("one"), last)
    with pytest.raises(Unreachable) as raised:
        await read(download)
    assert raised.value is last
    assert download.offsets == [450, 450]
    assert download.open == 0


async def test_tries_without_a_byte_are_counted():
    download = Download(450, 0, 0)
    with pytest.raises(Unreachable, match="before all of 1000 bytes"):
        await read(download)
    assert download.offsets == [450, 450]


async def test_empty_blocks_are_no_progress():
    opened = 0

    @asynccontextmanager
    async def again(offset: int) -> AsyncGenerator[AsyncIterator[bytes]]:
        nonlocal opened
        opened += 1

        async def blocks() -> AsyncIterator[bytes]:
            yield b""

        yield blocks()

    async with aclosing(resumed(Download(450).first(), again, length=1000, retries=SOON)) as blocks:
        with pytest.raises(Unreachable):
            assert b"" not in [block async for block in blocks]
    assert opened == 2


@pytest.mark.parametrize("tries", [[-1001], [450, -551]])
async def test_more_than_was_to_come_is_an_error_at_once(tries: list[int]):
    download = Download(*tries, data=some_bytes(1001))
    with pytest.raises(Unreachable, match="More than the 1000 bytes"):
        await read(download)
    assert len(download.offsets) == len(tries) - 1
    assert download.open == 0


async def test_what_opening_it_again_raises_comes_out():
    download = Download(450, NotFound("gone"))
    with pytest.raises(NotFound):
        await read(download)
    assert download.offsets == [450]


@pytest.mark.parametrize("blocks_read", [1, 4, 5, 6, 7])
async def test_a_reader_who_leaves_early_leaves_nothing_open(blocks_read: int):
    download = Download(450, 100, -1000)
    async with aclosing(download.resumed()) as blocks:
        for _ in range(blocks_read):
            await anext(blocks)
    assert download.open == 0


async def test_a_reader_cancelled_at_any_await_leaves_nothing_open():
    opened = 0
    for number in some_numbers():
        download = Download(450, Unreachable("down"), 100, -1000)
        was_cancelled = await cancelled_at(number, read(download))
        opened += len(download.offsets)
        assert download.open == 0
        if not was_cancelled:
            break
    assert opened > 10
