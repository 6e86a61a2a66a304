"""Each exchange with the real Glare and with ours: the same answers, but for the listed ones."""

import asyncio

import pytest

from tests.compat.artifacts.blobs import BLOBS
from tests.compat.artifacts.comparing import answer, comparable
from tests.compat.artifacts.differences import DIFFERENCES, EVERYWHERE
from tests.compat.artifacts.exchanges import CREATE, DELETE, LIFE, PATCHES, SCHEMAS, SHOW, VERSIONS
from tests.compat.artifacts.form import Exchange, Step
from tests.compat.artifacts.listing import LISTS
from tests.compat.artifacts.opened import OPENED
from tests.compat.artifacts.quotas import QUOTAS
from tests.compat.artifacts.sides import Side
from tests.compat.comparing import different

EXCHANGES = (
    *(*VERSIONS, *SCHEMAS, *CREATE, *SHOW, *DELETE, *PATCHES, *LIFE, *LISTS, *BLOBS, *QUOTAS),
)


@pytest.mark.compat
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
async def test_answers_are_the_same(exchange: Exchange, artifact_sides: tuple[Side, Side]) -> None:
    await compare(exchange, artifact_sides)


@pytest.mark.compat
@pytest.mark.parametrize("exchange", OPENED, ids=lambda exchange: exchange.name)
async def test_open_services_answer_the_same(
    exchange: Exchange, open_artifact_sides: tuple[Side, Side]
) -> None:
    await compare(exchange, open_artifact_sides)


async def compare(exchange: Exchange, sides: tuple[Side, Side]) -> None:
    async def outcome(side: Side) -> tuple[dict[str, object], dict[str, object]]:
        names = await side.bring_about(exchange)
        answered = answer(await side.send(exchange, names), names=names)
        if not exchange.after:
            return answered, {}
        afterwards = Step(request=exchange.after, by="admin")
        return answered, answer(await side.send(afterwards, names), names=names)

    theirs, ours = await asyncio.gather(*map(outcome, sides))
    found = different(theirs[0], comparable(theirs[0], ours[0]))
    afterwards = different(theirs[1], comparable(theirs[1], ours[1]))
    found |= {f"after: {part}": both for part, both in afterwards.items()}
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
        *(f"{part}: Glare has {one!r}, we have {two!r}" for part, (one, two) in unexpected.items()),
        *(f"{one.part} is listed as different and is not: {one.reason}" for one in outlived),
    ]
    if told:
        pytest.fail("\n".join([f"{exchange.by}: {exchange.request}", *told]), pytrace=False)
