"""What an import takes its bytes from: a download that goes on where it broke off.

What a server's answers mean is here, whoever the server is; who is asked, and by whose right, is in
`web` and `remote`.

    GiveUp          it would fail again
    SourceFailed    it may pass
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from diptych_common.jobs import GiveUp, TryAgain
from diptych_common.outbound import (
    EVERYTHING,
    Answer,
    BadCertificate,
    Filter,
    Outbound,
    Refused,
    TooLarge,
    TooSlow,
    UnknownHost,
    parse,
)
from diptych_store.errors import Unreachable
from diptych_store.retries import Retries, resumed

log = logging.getLogger(__name__)

RETRIES: Final = Retries(count=8, first_s=0.5, longest_s=30.0)
"""How often in a row, and over how long, the rest of a broken download is asked for."""

# Statuses below 500 that may be others the next time.
_MAY_PASS: Final = frozenset({408, 425, 429})

_LENGTH: Final = re.compile(r"\d{1,18}")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", re.IGNORECASE)
_STRONG: Final = re.compile(r'"[\x21\x23-\x7e]*"')
_NOT_PLAIN: Final = re.compile(r"[^ -~]")

Condition = Callable[[Mapping[str, str]], Mapping[str, str] | None]
"""From the headers of an answer those that ask for more of the very same bytes.

None where nobody could tell that they are the same.
"""


class SourceFailed(TryAgain):
    """Not all bytes came, for a reason that may pass. The message may be shown to users."""


@dataclass(frozen=True, slots=True)
class Source:
    """Bytes on their way: `size` of them, None if their number is not known.

    `blocks` raises GiveUp and SourceFailed, and ends only after the last byte.
    """

    size: int | None
    blocks: AsyncIterator[bytes]


def by_strong_etag(headers: Mapping[str, str]) -> Mapping[str, str] | None:
    """The condition for any server: RFC 9110 compares for parts by strong validators only.

    A date is one of second accuracy, and strong under conditions that cannot be relied on.
    """
    etag = headers.get("etag", "")
    return {"if-range": etag} if _STRONG.fullmatch(etag) else None


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, of whom: `who` begins the sentences about the one that is asked.

    `headers`, if any, are a credential for a service of the cloud, of whose address messages say
    nothing. `cafile` as in `Outbound.open`.
    """

    url: str
    who: str = "The server"
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    filter: Filter = EVERYTHING
    cafile: str | None = None
    condition: Condition = by_strong_etag


@asynccontextmanager
async def download(
    outbound: Outbound,
    request: Request,
    *,
    limit: int,
    timeout_s: float = 0,
    retries: Retries = RETRIES,
) -> AsyncGenerator[Source]:
    """The bytes of what is asked for, at most `limit`; raises GiveUp and SourceFailed on entry.

    One request, if nothing breaks. After `timeout_s` seconds, 0 for never, the blocks raise GiveUp.
    What breaks off is asked for from there on, where the server has a length, a validator and
    parts. Where it tells neither a length nor cuts the body into chunks, an early end is taken for
    the end (RFC 9112, section 8).
    """
    deadline = asyncio.get_running_loop().time() + timeout_s if timeout_s else None
    async with AsyncExitStack() as stack:
        try:
            answer = await stack.enter_async_context(
                _answered(outbound, request, request.url, limit=limit, ok={200})
            )
        except Unreachable as error:
            raise SourceFailed(str(error)) from error
        size = _announced(answer)
        first = await stack.enter_async_context(aclosing(_blocks(request, answer, limit)))
        blocks = first
        condition = request.condition(answer.headers)
        if size is not None and condition is not None and _has_parts(answer):
            again = partial(_rest, outbound, request, answer, condition, size, limit)
            blocks = await stack.enter_async_context(
                aclosing(resumed(first, again, length=size, retries=retries))
            )
        yield Source(
            size, await stack.enter_async_context(aclosing(_until(deadline, timeout_s, blocks)))
        )


@asynccontextmanager
async def _answered(
    outbound: Outbound,
    request: Request,
    url: str,
    headers: Mapping[str, str] | None = None,
    *,
    limit: int,
    ok: Collection[int],
) -> AsyncGenerator[Answer]:
    """An answer with one of these statuses; raises GiveUp, and Unreachable for what may pass."""
    async with AsyncExitStack() as stack:
        opening = outbound.open(
            url,
            headers={**request.headers, **(headers or {})},
            max_bytes=limit,
            filter=request.filter,
            cafile=request.cafile,
        )
        try:
            answer = await stack.enter_async_context(opening)
        except TooLarge as error:
            raise _too_large(request, limit) from error
        except (Refused, ValueError, BadCertificate, UnknownHost) as error:
            raise GiveUp(_reason(request, error)) from error
        except (ConnectionError, TimeoutError) as error:
            raise Unreachable(_reason(request, error)) from error
        if answer.status not in ok:
            message = f"{request.who} answered {answer.status}."
            if answer.status >= 500 or answer.status in _MAY_PASS:
                raise Unreachable(message)
            raise GiveUp(message)
        packing = answer.headers.get("content-encoding", "").lower()
        if packing not in ("", "identity"):
            # Whether to unpack it nobody has said, and what it unpacks to nobody has measured.
            raise GiveUp(
                f"{request.who} sends the data packed ({plain(packing)}), though asked not to."
            )
        yield answer


@asynccontextmanager
async def _rest(
    outbound: Outbound,
    request: Request,
    first: Answer,
    condition: Mapping[str, str],
    size: int,
    limit: int,
    offset: int,
) -> AsyncGenerator[AsyncIterator[bytes]]:
    """The bytes from `offset` on of what `first` was the answer about."""
    headers = {"range": f"bytes={offset}-", **condition}

    @asynccontextmanager
    async def part(url: str) -> AsyncGenerator[Answer]:
        # 412 and 416 are what those say whose data is another now.
        ok = {200, 206, 412, 416}
        async with _answered(outbound, request, url, headers, limit=limit, ok=ok) as answer:
            found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
            if (
                answer.status != 206
                or found is None
                or (int(found[1]), int(found[2])) != (offset, size)
                or answer.headers.get("etag") != first.headers.get("etag")
            ):
                raise SourceFailed(
                    f"{request.who} broke off, and then had other data or no parts of it."
                )
            yield answer

    async with AsyncExitStack() as stack:
        answer = None
        # Where redirects led to, because the next may lead to a mirror that has other validators;
        # else where they began, because the address that they led to may be good for a while only.
        # A credential is for the address that was asked for.
        if not request.headers and first.url != parse(request.url).url:
            with suppress(GiveUp, SourceFailed, Unreachable):
                answer = await stack.enter_async_context(part(first.url))
        if answer is None:
            answer = await stack.enter_async_context(part(request.url))
        yield await stack.enter_async_context(aclosing(_blocks(request, answer, limit)))


async def _blocks(request: Request, answer: Answer, limit: int) -> AsyncGenerator[bytes]:
    try:
        async for block in answer.blocks:
            yield block
    except TooLarge as error:
        raise _too_large(request, limit) from error
    except TooSlow as error:
        # A part of it would come as slowly.
        raise SourceFailed(_reason(request, error)) from error
    except (ConnectionError, TimeoutError) as error:
        raise Unreachable(_reason(request, error)) from error


async def _until(
    deadline: float | None, timeout_s: float, blocks: AsyncIterator[bytes]
) -> AsyncGenerator[bytes]:
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                block = await anext(blocks, None)
        except TimeoutError:
            raise GiveUp(f"The download took longer than {timeout_s:g} s.") from None
        except Unreachable as error:
            raise SourceFailed(str(error)) from error
        if block is None:
            return
        yield block


def plain(text: str) -> str:
    """The beginning of a text of somebody else's, such that any log and terminal can show it."""
    return _NOT_PLAIN.sub("?", text[:20])


def _reason(request: Request, error: Exception) -> str:
    """What a user may read of an error of `Outbound`, which names the host."""
    if not request.headers:
        return str(error)
    log.info("%s, asked for an import: %s", request.who, error)
    match error:
        case BadCertificate():
            return f"{request.who} has a certificate that is not valid."
        case ConnectionError():
            return f"{request.who} cannot be reached, or broke off."
        case TooSlow():
            return f"{request.who} sends too slowly."
        case TimeoutError():
            return f"{request.who} did not answer in time."
        case _:
            return f"{request.who} may not be asked, or leads to where nobody may go."


def _too_large(request: Request, limit: int) -> GiveUp:
    return GiveUp(f"{request.who} has more than {limit} bytes, the most that may be imported.")


def _announced(answer: Answer) -> int | None:
    if "transfer-encoding" in answer.headers:
        return None  # the two contradict each other, and this one wins (RFC 9112, 6.3)
    length = answer.headers.get("content-length", "")
    return int(length) if _LENGTH.fullmatch(length) else None


def _has_parts(answer: Answer) -> bool:
    return answer.headers.get("accept-ranges", "").strip().lower() != "none"
