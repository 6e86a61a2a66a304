"""A service killed at any step of anything that is done with images: see `import_crashes`."""

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path

import pytest

from tests import databases, servers
from tests.images.import_crashes import (
    GONE,
    QUEUED,
    STAGED,
    STORES,
    Forge,
    Killing,
    Operation,
    Slot,
    Source,
    active,
    begin_import,
    delete,
    delete_meanwhile,
    make_active,
    make_queued,
    make_staged,
    put_file,
    put_stage,
    slot,
)
from tests.kills import Kill, record

SLOTS = 6
KILLS = 4


@cache
def as_qcow2(data: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        raw, qcow2 = Path(folder) / "raw", Path(folder) / "qcow2"
        raw.write_bytes(data)
        command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2]
        subprocess.run(command, check=True)
        return qcow2.read_bytes()


TO_RAW = {
    "IMAGE_IMPORT_OPTS__IMAGE_IMPORT_PLUGINS": "image_conversion",
    "IMAGE_CONVERSION__OUTPUT_FORMAT": "raw",
}
needs_qemu_img = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")

OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("upload", make_queued, put_file, QUEUED, active("fast")),
        Operation("stage", make_queued, put_stage, QUEUED, STAGED),
        Operation(
            "glance-direct",
            make_staged,
            begin_import("glance-direct", "fast"),
            STAGED,
            active("fast"),
        ),
        Operation(
            "glance-direct to three stores",
            make_staged,
            begin_import("glance-direct", *STORES),
            STAGED,
            active(*STORES),
        ),
        Operation(
            "web-download to three stores",
            make_queued,
            begin_import("web-download", *STORES),
            QUEUED,
            active(*STORES),
        ),
        Operation(
            "copy-image to three stores",
            make_active,
            begin_import("copy-image", *STORES),
            active("fast"),
            active(*STORES),
        ),
        Operation(
            "conversion",
            make_queued,
            begin_import("web-download", "fast", "cheap"),
            QUEUED,
            active("fast", "cheap"),
            options=TO_RAW,
            given=as_qcow2,
            disk_format="qcow2",
        ),
        Operation(
            "delete during an import",
            make_queued,
            delete_meanwhile,
            QUEUED,
            GONE,
            may_be=(active(*STORES),),
            armed_by=("DELETE",),
            slow_source=True,
        ),
        Operation("delete", make_active, delete, active("fast"), GONE),
    )
}


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
