"""Each exchange with the real Glance and with ours: the same answers, but for the listed ones."""

import asyncio

import pytest

from tests.compat.comparing import answer, different
from tests.compat.differences import DIFFERENCES, EVERYWHERE
from tests.compat.exchanges import EXCHANGES, Exchange, Step
from tests.compat.sides import Side, ids_of

_AFTERWARDS = Step(request="GET /v2/images/$id", by="admin")


@pytest.mark.compat
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
async def test_answers_are_the_same(exchange: Exchange, sides: tuple[Side, Side]) -> None:
    ids = ids_of(exchange)

    async def outcome(side: Side) -> tuple[dict[str, object], dict[str, object]]:
        await side.prepare(exchange.given, ids)
        answered = answer(await side.send(exchange, ids), ids=ids.values())
        if exchange.request.startswith(("GET", "HEAD")):
            return answered, {}
        return answered, answer(await side.send(_AFTERWARDS, ids), ids=ids.values())

    theirs, ours = await asyncio.gather(*map(outcome, sides))
    found = different(theirs[0], ours[0])
    found |= {f"after: {part}": both for part, both in different(theirs[1], ours[1]).items()}
    listed = [one for one in DIFFERENCES if exchange.name in one.exchanges]
    unexpected = {
        part: both
        for part, both in found.items()
        if not any(one.covers(part, *both) for one in (*EVERYWHERE, *listed))
    }
    # What is listed and does not occur any more has to leave the list.
    outlived = [
        one for one in listed if not any(one.covers(part, *both) for part, both in found.items())
    ]
    assert (unexpected, outlived) == ({}, [])
