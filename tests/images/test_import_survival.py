"""Imports while the worker, the database and a store are stopped or killed, each apart."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import httpx
import psutil
import pytest
from dev import ports, postgres
from dev.seaweedfs import Seaweedfs
from diptych_common import migrations

from tests import databases, servers
from tests.images.import_crashes import Forge, Killing
from tests.images.operations import (
    DATA,
    OPERATIONS,
    OTHERS,
    THREE,
    Act,
    Case,
    Source,
    active,
    begin_import,
    check_bytes,
    make_active,
    make_queued,
    ok,
    state_of,
)
from tests.images.service import ALICE
from tests.images.slots import LEASE_S, Slot, serving, slot
from tests.images.stores import Bucket
from tests.waiting import until

# What the job of an import may pause before it tries again, besides the lease.
AGAIN_WITHIN_S = LEASE_S + 60
# Of the steps at which a worker could be stopped.
EVERY = 8


@pytest.fixture(autouse=True)
def _needed(request: pytest.FixtureRequest) -> None:
    if "[conversion" in request.node.name:
        request.getfixturevalue("qemu_img")


@pytest.fixture(scope="module")
async def forge(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Forge]:
    async with Forge.lit(tmp_path_factory.mktemp("forge") / "log") as forge:
        yield forge


@pytest.fixture(scope="module")
async def source() -> AsyncGenerator[Source]:
    async with Source.open() as source:
        yield source


@pytest.fixture
async def here(empty_database: str, tmp_path: Path) -> AsyncGenerator[Slot]:
    await migrations.upgrade(empty_database, "diptych_images.migrations")
    async with slot(empty_database, tmp_path / "slot") as made:
        yield made


@pytest.fixture
def durable_postgres(tmp_path: Path) -> Generator[postgres.Server]:
    """A server of the test's own that forgets no commit when it is killed."""
    options = {**postgres.FOR_TESTS, "synchronous_commit": "on"}
    data = servers.folder() / f"durable-{os.getpid()}-{tmp_path.name}"
    server = postgres.Server(postgres.binaries(), data=data, port=ports.any_free(), options=options)
    server.start()
    yield server
    server.stop()


async def imported(case: Case, http: httpx.AsyncClient) -> None:
    """Wait until the image is there and nothing tells of what was before."""
    await case.slot.settle(within_s=AGAIN_WITHIN_S)
    assert await state_of(case, http) == active(*THREE)
    await check_bytes(case, http)


@pytest.mark.parametrize("back", ["before the last byte", "after the last byte"])
async def test_postgresql_killed_during_an_import(
    durable_postgres: postgres.Server, forge: Forge, source: Source, tmp_path: Path, back: str
) -> None:
    url = await databases.create(durable_postgres.url())
    await migrations.upgrade(url, "diptych_images.migrations")
    # So long that the worker learns of the database by itself, not by the end of its lease.
    async with slot(url, tmp_path / "slot", JOBS__LEASE="20") as here:
        case = Case(here, DATA, DATA, source)
        service = await forge.fork(here, None)
        try:
            async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
                await make_queued(case, http)
                ok(await begin_import("web-download", *THREE)(case, http))
                for store in THREE:
                    await service.reached(f"before block 0 for {store}")
                os.kill(durable_postgres.pid, signal.SIGKILL)
                if back == "after the last byte":
                    case.gate.set()
                    for store in THREE:
                        await service.reached(f"after the last block for {store}")

                async def is_told() -> bool:
                    return (await http.get(case.path, headers=ALICE)).status_code == 503

                # What serves a connection lives a moment longer than the server that was killed.
                await until(is_told)
                await asyncio.to_thread(durable_postgres.start)
                case.gate.set()
                await imported(case, http)
        finally:
            await service.kill()


@pytest.fixture
def own_s3(tmp_path: Path) -> Generator[Seaweedfs]:
    """An S3 server of the test's own, to kill and start again."""
    port = ports.any_free()
    server = Seaweedfs(servers.folder() / f"weed-{os.getpid()}-{tmp_path.name}", port=port)
    server.start()
    yield server
    server.stop()


@pytest.mark.timeout(240)
async def test_store_killed_during_an_import(
    own_s3: Seaweedfs, empty_database: str, forge: Forge, source: Source, tmp_path: Path
) -> None:
    await migrations.upgrade(empty_database, "diptych_images.migrations")
    buckets = {"cheap": Bucket(own_s3)}
    async with slot(empty_database, tmp_path / "slot", buckets=buckets) as here:
        case = Case(here, DATA, DATA, source)
        service = await forge.fork(here, None)
        try:
            async with httpx.AsyncClient(base_url=service.url, timeout=60) as http:
                await make_queued(case, http)
                ok(await begin_import("web-download", *THREE)(case, http))
                for store in THREE:
                    await service.reached(f"before block 0 for {store}")
                for weed in psutil.Process(own_s3.process.pid).children(recursive=True):
                    weed.kill()
                own_s3.process.wait()
                case.gate.set()

                async def is_told() -> bool:
                    tasks = ok(await http.get(f"{case.path}/tasks", headers=ALICE)).json()
                    return "cheap: it did not answer" in tasks["tasks"][0]["message"]

                # The import finds out, and goes on trying.
                await until(is_told, within_s=150)
                await asyncio.to_thread(own_s3.start)
                await imported(case, http)
        finally:
            await service.kill()


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("glance-direct to three stores", "after fast.copy"),
        ("web-download to three stores", "before block 2 for third"),
        ("copy-image to three stores", "after commit of imports.start_attempt"),
        # Others may be in the middle of a statement then.
        ("glance-direct to three stores", "after commit of imports.land"),
        # Rows are locked: the database gives up on the transaction.
        ("glance-direct", "before commit of imports.land"),
        ("conversion", "before subprocess.Popen"),
    ],
)
async def test_worker_that_slept_beyond_its_lease_changes_nothing(
    here: Slot, forge: Forge, source: Source, name: str, step: str
) -> None:
    await Killing(forge, source).stop(here, OPERATIONS[name], step)


@pytest.mark.crash
@pytest.mark.parametrize("name", [name for name in OPERATIONS if "three stores" in name])
async def test_worker_that_slept_anywhere_changes_nothing(
    here: Slot, forge: Forge, source: Source, name: str
) -> None:
    killing = Killing(forge, source)
    steps = await killing.count(here, OPERATIONS[name])
    first, last = steps.index("after commit of jobs.claim"), steps.index("before jobs.finish")
    # The first of a name counts, and the request has steps of some of these names, too.
    of_job = [step for step in dict.fromkeys(steps[first:last]) if step not in steps[:first]]
    for step in of_job[::EVERY]:
        await killing.stop(here, OPERATIONS[name], step)


async def both(act: Act, case: Case, one: httpx.AsyncClient, other: httpx.AsyncClient) -> list[int]:
    """What two services answer that are asked the same at once."""
    answers = await asyncio.gather(act(case, one), act(case, other))
    return sorted(answer.status_code for answer in answers)


async def test_two_imports_at_once(here: Slot, forge: Forge, source: Source) -> None:
    services = [await forge.fork(here, None, worker=False) for _ in range(2)]
    try:
        async with (
            httpx.AsyncClient(base_url=services[0].url, timeout=60) as one,
            httpx.AsyncClient(base_url=services[1].url, timeout=60) as other,
        ):
            new, copied = (Case(here, DATA, DATA, source) for _ in range(2))
            new.gate.set()
            await make_queued(new, one)
            await make_active(copied, one)
            download = begin_import("web-download", *THREE)
            assert await both(download, new, one, other) == [202, 409]
            copy = begin_import("copy-image", "cheap", "third")
            assert await both(copy, copied, one, other) == [202, 400]
            # Also when the other one is not at once; and into other stores it waits its turn.
            into = {store: begin_import("copy-image", store) for store in ("third", "fourth")}
            assert (await into["third"](copied, other)).status_code == 400
            assert (await into["fourth"](copied, other)).status_code == 409
            async with serving(here) as http:
                for case in (new, copied):
                    await imported(case, http)
                ok(await into["fourth"](copied, http))
                await here.settle()
                assert await state_of(copied, http) == active("fast", *OTHERS)
                await check_bytes(copied, http)
    finally:
        for service in services:
            await service.kill()
