"""A service killed at any step of anything that is done with images: see `import_crashes`."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography.fernet import Fernet
from dev.keystone import Keystone
from dev.seaweedfs import Seaweedfs

from tests import databases, servers
from tests.images.import_crashes import Forge, Killing
from tests.images.operations import (
    OPERATIONS,
    QUEUED,
    THREE,
    Operation,
    Source,
    active,
    begin_import,
    make_queued,
)
from tests.images.slots import STAGING, Slot, slot
from tests.images.stores import Bucket
from tests.images.test_remote_sources import by_keystone, make_region
from tests.kills import Kill, record

# More would only wait for the processor, and lose leases by that.
SLOTS = 4
KILLS = 4
# What is not killed at all of its steps.
OF_OTHER_SERVICES = 2
OF_S3 = 5
FIRST_DEATHS, SECOND_DEATHS = 2, 10
T = TypeVar("T")


@pytest.fixture(autouse=True)
def _needed(request: pytest.FixtureRequest) -> None:
    if "[conversion" in request.node.name:
        request.getfixturevalue("qemu_img")


@pytest.fixture(scope="module")
async def killing(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Killing]:
    log = tmp_path_factory.mktemp("forge") / "log"
    async with Forge.lit(log) as forge, Source.open() as source:
        yield Killing(forge, source)


@asynccontextmanager
async def several_slots(
    count: int, postgres_url: str, folder: Path, s3: Seaweedfs | None = None
) -> AsyncGenerator[list[Slot]]:
    """Slots to kill in at a time; with `s3`, staging and two of their stores are there."""
    template = f"images_{servers.folder().name}"
    async with AsyncExitStack() as stack:
        made: list[Slot] = []
        for number in range(count):
            url = await databases.create(postgres_url, template=template)
            stack.push_async_callback(databases.drop, url)
            buckets = {name: Bucket(s3) for name in ("fast", "cheap", STAGING)} if s3 else {}
            opening = slot(url, folder / str(number), buckets=buckets)
            made.append(await stack.enter_async_context(opening))
        yield made


@pytest.fixture(scope="module")
async def slots(
    _images_schema: tuple[str, list[str]],
    postgres_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[list[Slot]]:
    folder = tmp_path_factory.mktemp("slots")
    async with several_slots(SLOTS, postgres_url, folder) as made:
        yield made


@pytest.fixture(scope="module")
async def s3_slots(
    _images_schema: tuple[str, list[str]],
    postgres_url: str,
    s3: Seaweedfs,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[list[Slot]]:
    folder = tmp_path_factory.mktemp("s3-slots")
    async with several_slots(SLOTS, postgres_url, folder, s3) as made:
        yield made


async def at_a_time(
    slots: Sequence[Slot], orders: Iterable[T], do: Callable[[Slot, T], Awaitable[None]]
) -> None:
    """Do something for each order, as many at a time as there are slots."""
    left = list(orders)

    async def work(slot: Slot) -> None:
        while left:
            await do(slot, left.pop())

    async with asyncio.TaskGroup() as group:
        for slot in slots:
            group.create_task(work(slot))


async def kill_at(
    killing: Killing, slots: Sequence[Slot], operation: Operation, steps: Sequence[int]
) -> list[Kill]:
    """Kill at each of the steps; at the last one, where there are fewer this time."""
    kills: list[Kill] = []

    async def kill(slot: Slot, at: int) -> None:
        while (killed := await killing.kill(slot, operation, at)) is None:
            assert at, operation.name
            at -= 1
        kills.append(killed)

    await at_a_time(slots, steps, kill)
    return kills


def spread(count: int, steps: Sequence[str]) -> list[int]:
    """So many steps, the first and the last among them; all, if there are fewer."""
    count = min(count, len(steps))
    return [round((len(steps) - 1) / max(1, count - 1) * number) for number in range(count)]


@pytest.mark.parametrize("name", OPERATIONS)
async def test_nothing_tells_of_a_death(
    killing: Killing, slots: list[Slot], request: pytest.FixtureRequest, name: str
) -> None:
    operation = OPERATIONS[name]
    steps = await killing.count(slots[0], operation)
    record(request, await kill_at(killing, slots, operation, spread(KILLS, steps)))


@pytest.mark.crash
@pytest.mark.parametrize("name", OPERATIONS)
async def test_nothing_tells_of_a_death_wherever_it_was(
    killing: Killing, slots: list[Slot], request: pytest.FixtureRequest, name: str
) -> None:
    operation = OPERATIONS[name]
    steps = await killing.count(slots[0], operation)
    record(request, await kill_at(killing, slots, operation, range(len(steps))))


@pytest.mark.crash
@pytest.mark.parametrize("name", OPERATIONS)
async def test_nothing_tells_of_a_death_with_s3(
    killing: Killing, s3_slots: list[Slot], request: pytest.FixtureRequest, name: str
) -> None:
    operation = replace(OPERATIONS[name], name=f"{name}, S3")
    steps = await killing.count(s3_slots[0], operation)
    record(request, await kill_at(killing, s3_slots, operation, range(0, len(steps), OF_S3)))


@pytest.mark.crash
@pytest.mark.usefixtures("swift")  # whose object store the catalog has
@pytest.mark.parametrize("method", ["glance-download", "swift-local"])
async def test_nothing_tells_of_a_death_while_another_service_is_asked(
    killing: Killing,
    slots: list[Slot],
    keystone: Keystone,
    request: pytest.FixtureRequest,
    method: str,
) -> None:
    source = killing.source
    source.token = keystone.token("demo", "demo")
    source.region = make_region(keystone, "image", public=source.url)
    operation = Operation(
        f"{method} to three stores",
        make_queued,
        begin_import(method, *THREE),
        QUEUED,
        active(*THREE),
        options={
            **by_keystone(keystone),
            "PASTE_DEPLOY__FLAVOR": "trusted",
            "KEYSTONE_AUTHTOKEN__REGION_NAME": make_region(
                keystone, "object-store", public=source.url
            ),
            "JOBS__SECRET_KEYS": Fernet.generate_key().decode(),
            "DEFAULT__ENABLED_IMPORT_METHODS": method,
        },
    )
    steps = range(0, len(await killing.count(slots[0], operation)), OF_OTHER_SERVICES)
    record(request, await kill_at(killing, slots, operation, steps))


@pytest.mark.crash
@pytest.mark.parametrize("name", OPERATIONS)
async def test_nothing_tells_of_two_deaths(
    killing: Killing, slots: list[Slot], request: pytest.FixtureRequest, name: str
) -> None:
    """Who cleans up after one that died dies as well."""
    operation = replace(OPERATIONS[name], name=f"{name}, two deaths")
    kills: list[Kill] = []
    orders: list[tuple[int, int]] = []
    for first in spread(FIRST_DEATHS + 2, await killing.count(slots[0], operation))[1:-1]:
        inherited = await killing.count_inherited(slots[0], operation, first)
        orders += [(first, second) for second in spread(SECOND_DEATHS, inherited)]

    async def kill(slot: Slot, deaths: tuple[int, int]) -> None:
        first, second = deaths
        killed = await killing.kill(slot, operation, first, then=second)
        if killed is not None:
            kills.append(killed)

    await at_a_time(slots, orders, kill)
    record(request, kills)
