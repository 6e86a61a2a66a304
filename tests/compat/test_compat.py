"""Each exchange with the real Glance and with ours: the same answers, but for the listed ones."""

import asyncio

import pytest

from tests.compat.comparing import answer, different
from tests.compat.differences import DIFFERENCES, EVERYWHERE
from tests.compat.exchanges import EXCHANGES
from tests.compat.form import Exchange, Step
from tests.compat.opened import OPENED
from tests.compat.sides import Side, ids_of


@pytest.mark.compat
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
async def test_answers_are_the_same(exchange: Exchange, sides: tuple[Side, Side]) -> None:
    await compare(exchange, sides)


@pytest.mark.compat
@pytest.mark.parametrize("exchange", OPENED, ids=lambda exchange: exchange.name)
async def test_open_services_answer_the_same(
    exchange: Exchange, open_sides: tuple[Side, Side]
) -> None:
    try:
        await compare(exchange, open_sides)
    finally:
        # Else the quotas would soon be used up.
        for side in open_sides:
            await side.forget(ids_of(exchange))


async def compare(exchange: Exchange, sides: tuple[Side, Side]) -> None:
    ids = ids_of(exchange)

    async def outcome(side: Side) -> tuple[dict[str, object], dict[str, object]]:
        await side.prepare(exchange.given, ids)
        answered = answer(await side.send(exchange, ids), ids=ids.values())
        if exchange.request.startswith(("GET", "HEAD")):
            return answered, {}
        for awaited in exchange.then:
            await side.wait(awaited, ids)
        afterwards = Step(request=exchange.after, by="admin")
        return answered, answer(await side.send(afterwards, ids), ids=ids.values())

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
    told = [
        *(
            f"{part}: Glance has {one!r}, we have {two!r}"
            for part, (one, two) in unexpected.items()
        ),
        *(f"{one.part} is listed as different and is not: {one.reason}" for one in outlived),
    ]
    if told:
        pytest.fail("\n".join([f"{exchange.by}: {exchange.request}", *told]), pytrace=False)
