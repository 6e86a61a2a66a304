"""A service killed at any step of anything that is done with images: see `import_crashes`."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from tests import databases, servers
from tests.images.import_crashes import Forge, Killing
from tests.images.operations import OPERATIONS, Operation, Source
from tests.images.slots import Slot, slot
from tests.kills import Kill, record

SLOTS = 6
KILLS = 4


@pytest.fixture(scope="module")
async def killing(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Killing]:
    log = tmp_path_factory.mktemp("forge") / "log"
    async with Forge.lit(log) as forge, Source.open() as source:
        yield Killing(forge, source)


@pytest.fixture(scope="module")
async def slots(
    _images_schema: tuple[str, list[str]],
    postgres_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[list[Slot]]:
    template = f"images_{servers.folder().name}"
    async with AsyncExitStack() as stack:
        made: list[Slot] = []
        for number in range(SLOTS):
            url = await databases.create(postgres_url, template=template)
            stack.push_async_callback(databases.drop, url)
            folder = tmp_path_factory.mktemp(f"slot-{number}")
            made.append(await stack.enter_async_context(slot(url, folder)))
        yield made


@pytest.fixture
def kill_at(
    request: pytest.FixtureRequest, killing: Killing, slots: list[Slot]
) -> Callable[[Operation, Sequence[int]], Awaitable[None]]:
    """Kill at each of the steps, as many at a time as there are slots."""

    async def kill_at(operation: Operation, steps: Sequence[int]) -> None:
        left = list(steps)
        kills: list[Kill] = []

        async def work(slot: Slot) -> None:
            while left:
                killed = await killing.kill(slot, operation, left.pop())
                if killed is not None:
                    kills.append(killed)

        try:
            async with asyncio.TaskGroup() as group:
                for slot in slots:
                    group.create_task(work(slot))
        finally:
            record(request, kills)

    return kill_at


KillAt = Callable[[Operation, Sequence[int]], Awaitable[None]]


@pytest.mark.parametrize("name", OPERATIONS)
async def test_nothing_tells_of_a_death(
    killing: Killing, slots: list[Slot], kill_at: KillAt, name: str
) -> None:
    operation = OPERATIONS[name]
    steps = await killing.count(slots[0], operation)
    apart = (len(steps) - 1) / (KILLS - 1)
    await kill_at(operation, [round(apart * number) for number in range(KILLS)])


@pytest.mark.crash
@pytest.mark.parametrize("name", OPERATIONS)
async def test_nothing_tells_of_a_death_wherever_it_was(
    killing: Killing, slots: list[Slot], kill_at: KillAt, name: str
) -> None:
    operation = OPERATIONS[name]
    steps = await killing.count(slots[0], operation)
    await kill_at(operation, range(len(steps)))
