"""Workers: what they run, when, and what is left when they are killed, stopped or cut off."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Mapping,
)
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dev.postgres import Server
from diptych_common import jobs as queue
from diptych_common.database import Database
from diptych_common.errors import ServiceUnavailable
from diptych_common.jobs import End, GiveUp, Job, JobLost, TryAgain
from diptych_common.sealing import Sealed, new_key
from diptych_common.settings import Database as DatabaseSettings
from diptych_common.worker import Handler, JobContext, Kind, Outcome, Worker, running
from sqlalchemy import text

from tests import databases
from tests.common.job_tables import jobs, noted, notes, opened, rows
from tests.waiting import until

SCRIPT = Path(__file__).with_name("job_worker.py")

Start = Callable[[float], subprocess.Popen[bytes]]


@pytest.fixture
async def db(empty_database: str) -> AsyncIterator[Database]:
    async with opened(empty_database) as db:
        yield db


@pytest.fixture
def start(empty_database: str, db: Database) -> Generator[Start]:
    """Start workers in processes of their own; killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(lease: float) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, SCRIPT, empty_database, str(lease)])
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


@asynccontextmanager
async def working(
    db: Database, handlers: Mapping[str, Handler | Kind], **options: Any
) -> AsyncGenerator[asyncio.Event]:
    """A worker that runs meanwhile and is stopped at the end."""
    stop = asyncio.Event()
    kinds = {
        name: given if isinstance(given, Kind) else Kind(given) for name, given in handlers.items()
    }
    running = asyncio.create_task(Worker(db, jobs, kinds, **options).run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await asyncio.wait_for(running, 20)


async def enqueue(db: Database, kind: str = "k", **options: Any) -> int:
    payload = options.pop("payload", {})
    async with db.write() as connection:
        return await queue.enqueue(connection, jobs, kind, payload, **options)


async def states(db: Database) -> list[str]:
    return [
        state
        for (state,) in await rows(
            db, "SELECT state FROM jobs WHERE period IS NULL ORDER BY run_after, id"
        )
    ]


async def all_succeeded(db: Database) -> bool:
    return set(await states(db)) == {"succeeded"}


async def note(context: JobContext, words: str) -> None:
    async with context.write() as connection:
        await connection.execute(notes.insert().values(note=words))


async def noting(job: Job, context: JobContext) -> None:
    await note(context, f"{job.kind} {job.payload.get('n')} {job.attempts}")


async def test_a_job_is_run_as_soon_as_its_transaction_commits(db: Database) -> None:
    async with working(db, {"k": noting}, poll=60):
        await asyncio.sleep(0.3)
        began = time.monotonic()
        async with db.write() as connection:
            await queue.enqueue(connection, jobs, "k", {"n": 1})
            await asyncio.sleep(0.2)
            assert await noted(db) == []
        await until(lambda: all_succeeded(db))
        assert time.monotonic() - began < 10
    assert await noted(db) == ["k 1 1"]


# The driver's own error, for it comes with the COMMIT.
REFUSE_COMMITS = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE 'not now';
    END $$;
    CREATE CONSTRAINT TRIGGER refusing AFTER UPDATE ON jobs DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse()
"""


async def test_a_worker_outlives_commits_that_are_refused(
    db: Database, empty_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with databases.connection(empty_database) as server:
        await server.execute(REFUSE_COMMITS)
        async with working(db, {"k": noting}, poll=0.05):
            await enqueue(db)
            await until(lambda: "No jobs are taken for now: not now" in caplog.text)
            await server.execute("DROP TRIGGER refusing ON jobs")
            await until(lambda: all_succeeded(db))


async def test_a_job_for_later_is_run_when_it_is_due(db: Database) -> None:
    async with working(db, {"k": noting}, poll=60):
        began = time.monotonic()
        await enqueue(db, run_after=timedelta(seconds=0.6))
        await until(lambda: all_succeeded(db))
        assert 0.55 < time.monotonic() - began < 10


async def test_jobs_of_unknown_kinds_are_left_alone(db: Database) -> None:
    async with working(db, {"k": noting}, poll=0.05):
        await enqueue(db, "other")
        await enqueue(db)
        await until(lambda: _any(noted(db)))
    assert sorted(await states(db)) == ["succeeded", "waiting"]


async def _any(found: Awaitable[list[str]]) -> bool:
    return bool(await found)


async def test_no_more_jobs_run_at_a_time_than_allowed(db: Database) -> None:
    now = most = 0

    async def count(job: Job, context: JobContext) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1

    for _ in range(12):
        await enqueue(db)
    async with working(db, {"k": count}, concurrency=3, poll=60):
        await until(lambda: all_succeeded(db))
    assert most == 3


async def test_several_workers_run_each_job_once(db: Database) -> None:
    for n in range(60):
        await enqueue(db, payload={"n": n})
    async with (
        working(db, {"k": noting}, concurrency=3),
        working(db, {"k": noting}, concurrency=3),
        working(db, {"k": noting}, concurrency=3),
    ):
        await until(lambda: all_succeeded(db))
    assert await noted(db) == sorted(f"k {n} 1" for n in range(60))


@pytest.mark.parametrize("kind", [OSError, TryAgain])
async def test_a_job_that_raises_is_tried_again(
    kind: type[Exception], db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def second_time(job: Job, context: JobContext) -> None:
        if job.attempts == 1:
            raise kind("the store is away")
        await noting(job, context)

    async with working(db, {"k": second_time}, poll=60):
        await enqueue(db)
        await until(lambda: all_succeeded(db))
    assert await noted(db) == ["k None 2"]
    assert "the store is away" in caplog.text
    assert ("Traceback" in caplog.text) == (kind is OSError)


async def test_a_job_out_of_attempts_stays_as_failed_with_its_error(db: Database) -> None:
    async def never(job: Job, context: JobContext) -> None:
        raise OSError("the store is away")

    async def failed() -> bool:
        return await states(db) == ["failed"]

    async with working(db, {"k": never}):
        await enqueue(db, max_attempts=1)
        await until(failed)
    assert await rows(db, "SELECT error FROM jobs WHERE period IS NULL") == [
        ("OSError: the store is away",)
    ]


async def test_a_job_that_kills_its_workers_is_given_up(db: Database) -> None:
    await enqueue(db, max_attempts=1)
    async with db.write() as connection:
        await queue.claim(
            connection, jobs, ["k"], worker="dead", lease=timedelta(seconds=-1), limit=1
        )

    async def failed() -> bool:
        return await states(db) == ["failed"]

    async with working(db, {"k": noting}):
        await until(failed)
    assert await noted(db) == []


async def test_a_long_job_keeps_its_lease(db: Database) -> None:
    async def long(job: Job, context: JobContext) -> None:
        await asyncio.sleep(2.5)
        await noting(job, context)

    async with working(db, {"k": long}, lease=0.9), working(db, {"k": long}, lease=0.9):
        await enqueue(db)
        await until(lambda: all_succeeded(db))
    assert await noted(db) == ["k None 1"]


async def test_a_stopped_worker_hands_its_jobs_back_at_once(db: Database) -> None:
    started = asyncio.Event()
    cancelled = asyncio.Event()

    async def forever(job: Job, context: JobContext) -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    await enqueue(db, max_attempts=1)
    async with working(db, {"k": forever}):
        await started.wait()
    assert cancelled.is_set()
    assert await states(db) == ["waiting"]
    async with working(db, {"k": noting}):
        await until(lambda: all_succeeded(db))
    assert await noted(db) == ["k None 1"]


async def test_a_process_that_is_going_to_stop_hands_its_jobs_back_before_it_does(
    db: Database,
) -> None:
    started, stop = asyncio.Event(), asyncio.Event()

    async def forever(job: Job, context: JobContext) -> None:
        started.set()
        await asyncio.sleep(3600)

    async def is_handed_back() -> bool:
        return await states(db) == ["waiting"]

    await enqueue(db)
    async with running(Worker(db, jobs, {"k": Kind(forever)}), stop=stop):
        await started.wait()
        stop.set()
        # Its requests go on meanwhile.
        await until(is_handed_back)


async def test_a_job_that_does_not_leave_is_not_given_to_another(db: Database) -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def stubborn(job: Job, context: JobContext) -> None:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    await enqueue(db)
    async with working(db, {"k": stubborn}, lease=60, leave=0.1):
        await started.wait()
    assert await states(db) == ["running"]
    release.set()
    await until(lambda: all_succeeded(db))


async def test_a_worker_that_was_killed_is_replaced_when_its_lease_is_over(
    db: Database, start: Start
) -> None:
    await enqueue(db, "slow", payload={"seconds": 0.5})
    first = start(1)
    await until(lambda: _any(noted(db)))
    first.send_signal(signal.SIGKILL)
    second = start(1)
    await until(lambda: all_succeeded(db))
    assert await noted(db) == sorted(
        [f"started {first.pid}", f"started {second.pid}", f"done {second.pid}"]
    )


async def test_a_worker_that_slept_through_its_lease_changes_nothing(
    db: Database, start: Start
) -> None:
    await enqueue(db, "slow", payload={"seconds": 1})
    asleep = start(1.5)
    await until(lambda: _any(noted(db)))
    asleep.send_signal(signal.SIGSTOP)
    awake = start(1.5)
    await until(lambda: all_succeeded(db))
    before = await rows(db, "SELECT * FROM jobs WHERE period IS NULL")
    asleep.send_signal(signal.SIGCONT)
    # It answers again when it has taken a job that came later.
    awake.terminate()
    awake.wait()
    later = await enqueue(db, "slow", payload={"seconds": 0})
    await until(lambda: all_succeeded(db))
    assert await rows(db, f"SELECT * FROM jobs WHERE period IS NULL AND id <> {later}") == before
    assert [words for words in await noted(db) if words.startswith("done")] == sorted(
        [f"done {awake.pid}", f"done {asleep.pid}"]
    )


async def test_sigterm_hands_the_job_to_another_process_at_once(db: Database, start: Start) -> None:
    await enqueue(db, "slow", payload={"seconds": 2})
    first = start(60)
    await until(lambda: _any(noted(db)))
    second = start(60)
    first.terminate()
    assert first.wait(10) == 0
    await until(lambda: all_succeeded(db))
    assert f"done {second.pid}" in await noted(db)


async def cancel(db: Database, key: str = "x", kind: str = "k") -> None:
    async with db.write() as connection:
        assert await queue.cancel(connection, jobs, kind=kind, dedup_key=key)


async def ended(db: Database) -> bool:
    return not {"waiting", "running"} & set(await states(db))


def noting_the_end(run: Handler) -> Kind:
    async def gave_up(job: Job, context: JobContext, end: End) -> None:
        await note(context, f"undone: {end.why}: {end.error}")

    return Kind(run, gave_up=gave_up)


async def forever(job: Job, context: JobContext) -> None:
    """Notes that it runs, then that it was stopped."""
    await note(context, "started")
    try:
        await asyncio.sleep(3600)
    finally:
        await note(context, "cleaned up")


async def refusing(job: Job, context: JobContext) -> None:
    raise GiveUp("There is no such thing.")


async def test_a_running_job_is_stopped_and_undone_as_soon_as_it_is_cancelled(db: Database) -> None:
    order: list[object] = []

    async def run(job: Job, context: JobContext) -> None:
        try:
            await forever(job, context)
        finally:
            order.append("cleaned up")

    async def gave_up(job: Job, context: JobContext, end: End) -> None:
        task = asyncio.current_task()
        order.extend([end.why, None if task is None else task.cancelling()])

    async with working(db, {"k": Kind(run, gave_up=gave_up)}, lease=600, poll=600):
        await enqueue(db, dedup_key="x")
        await until(lambda: _any(noted(db)))
        await cancel(db)
        await until(lambda: ended(db))
    assert await states(db) == ["cancelled"]
    assert order == ["cleaned up", "cancelled", 0]


async def test_a_job_that_waits_is_cancelled_without_being_run(db: Database) -> None:
    kinds = {"k": noting_the_end(noting), "simple": noting}
    async with working(db, kinds, lease=600, poll=600):
        for kind in kinds:
            await enqueue(db, kind, dedup_key="x", run_after=timedelta(hours=1))
            await cancel(db, kind=kind)
        await until(lambda: ended(db))
    assert await states(db) == ["cancelled", "cancelled"]
    assert await noted(db) == ["undone: cancelled: Cancelled."]


async def test_where_nothing_can_be_listened_for_a_job_is_cancelled_at_the_next_look(
    empty_database: str,
) -> None:
    async with opened(empty_database, statement_cache_size=0) as db:
        async with working(db, {"k": forever}, lease=600, poll=0.1):
            await enqueue(db, dedup_key="x")
            await until(lambda: _any(noted(db)))
            await cancel(db)
            await until(lambda: ended(db))
        assert await states(db) == ["cancelled"]


async def test_a_cancelled_job_whose_clean_up_fails_is_undone_all_the_same(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def untidy(job: Job, context: JobContext) -> None:
        try:
            await forever(job, context)
        finally:
            raise OSError("the store is away")

    async with working(db, {"k": noting_the_end(untidy)}, poll=600):
        await enqueue(db, dedup_key="x")
        await until(lambda: _any(noted(db)))
        await cancel(db)
        await until(lambda: ended(db))
    assert "undone: cancelled: Cancelled." in await noted(db)
    assert await states(db) == ["cancelled"]
    assert "the store is away" in caplog.text


async def test_a_worker_that_stops_hands_back_a_job_that_is_being_cancelled(db: Database) -> None:
    stopping = asyncio.Event()

    async def slow_to_leave(job: Job, context: JobContext) -> None:
        try:
            await forever(job, context)
        finally:
            stopping.set()
            await asyncio.sleep(3600)

    kinds = {"k": noting_the_end(slow_to_leave)}
    await enqueue(db, dedup_key="x")
    async with working(db, kinds):
        await until(lambda: _any(noted(db)))
        await cancel(db)
        await stopping.wait()
    assert await states(db) == ["waiting"]
    async with working(db, kinds):
        await until(lambda: ended(db))
    assert await states(db) == ["cancelled"]


async def test_a_job_that_gives_up_is_not_tried_again(db: Database) -> None:
    async with working(db, {"k": noting_the_end(refusing), "simple": refusing}):
        await enqueue(db)
        await enqueue(db, "simple", max_attempts=9)
        await until(lambda: ended(db))
    assert await noted(db) == ["undone: refused: There is no such thing."]
    found = await rows(db, "SELECT state, error, attempts, ending->>'why' FROM jobs")
    assert found == [("failed", "There is no such thing.", 1, "refused")] * 2


async def test_a_job_out_of_attempts_is_undone(db: Database) -> None:
    async def never(job: Job, context: JobContext) -> None:
        raise OSError("the store is away")

    async with working(db, {"k": noting_the_end(never)}):
        await enqueue(db, max_attempts=1)
        await until(lambda: ended(db))
    assert await noted(db) == ["undone: failed: OSError: the store is away"]


async def test_a_job_that_kills_its_workers_is_undone(db: Database) -> None:
    await enqueue(db, max_attempts=1)
    async with db.write() as connection:
        await queue.claim(
            connection, jobs, ["k"], worker="dead", lease=timedelta(seconds=-1), limit=1
        )
    async with working(db, {"k": noting_the_end(noting)}):
        await until(lambda: ended(db))
    assert await noted(db) == ["undone: died: The worker died or hung on each attempt."]
    assert await states(db) == ["failed"]


async def test_a_recurring_job_that_gives_up_runs_again(db: Database) -> None:
    runs = 0

    async def refuse(job: Job, context: JobContext) -> None:
        nonlocal runs
        runs += 1
        raise GiveUp("not today")

    async def ran_twice() -> bool:
        return runs >= 2

    kinds = {"k": noting_the_end(refuse)}
    async with working(db, kinds, recurring={"k": timedelta(milliseconds=50)}):
        await until(ran_twice)
    assert await noted(db) == []


async def test_undoing_that_fails_is_tried_again_and_nothing_else(db: Database) -> None:
    tried = 0

    async def gave_up(job: Job, context: JobContext, end: End) -> None:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise OSError("the store is away")
        await note(context, f"undone: {end.why}")

    async def run(job: Job, context: JobContext) -> None:
        await note(context, "run")
        raise GiveUp("There is no such thing.")

    async def is_put_back() -> bool:
        return await rows(db, "SELECT 1 FROM jobs WHERE error LIKE '%store is away'") != []

    async with working(db, {"k": Kind(run, gave_up=gave_up)}, poll=600):
        job_id = await enqueue(db, max_attempts=1)
        await until(is_put_back)
        async with db.write() as connection:
            assert await queue.retry(connection, jobs, job_id, kinds=())
        await until(lambda: ended(db))
    assert await noted(db) == ["run", "undone: refused"]
    assert await rows(db, "SELECT state, error FROM jobs") == [
        ("failed", "There is no such thing.")
    ]


async def test_a_stopped_worker_hands_back_what_it_undoes(db: Database) -> None:
    undoing = asyncio.Event()

    async def gave_up(job: Job, context: JobContext, end: End) -> None:
        undoing.set()
        await asyncio.sleep(3600)

    await enqueue(db, max_attempts=1)
    async with working(db, {"k": Kind(refusing, gave_up=gave_up)}):
        await undoing.wait()
    assert await states(db) == ["waiting"]
    async with working(db, {"k": noting_the_end(noting)}):
        await until(lambda: ended(db))
    assert await noted(db) == ["undone: refused: There is no such thing."]


async def test_a_worker_that_was_killed_while_it_undid_a_job_is_replaced(
    db: Database, start: Start
) -> None:
    await enqueue(db, "doomed", payload={"seconds": 0.5})
    first = start(1)
    await until(lambda: _any(noted(db)))
    first.send_signal(signal.SIGKILL)
    second = start(1)
    await until(lambda: ended(db))
    assert await noted(db) == sorted(
        [f"undoing {first.pid}", f"undoing {second.pid}", f"undone {second.pid} refused"]
    )
    assert await states(db) == ["failed"]


async def test_a_worker_that_slept_while_it_undid_a_job_changes_nothing(
    db: Database, start: Start
) -> None:
    await enqueue(db, "doomed", payload={"seconds": 1})
    asleep = start(1)
    await until(lambda: _any(noted(db)))
    asleep.send_signal(signal.SIGSTOP)
    awake = start(1)
    await until(lambda: ended(db))
    before = await rows(db, "SELECT * FROM jobs")
    asleep.send_signal(signal.SIGCONT)
    # It answers again when it has taken a job that came later.
    awake.terminate()
    awake.wait()
    later = await enqueue(db, "slow", payload={"seconds": 0})
    await until(lambda: ended(db))
    assert await rows(db, f"SELECT * FROM jobs WHERE id <> {later}") == before
    assert f"undone {awake.pid} refused" in await noted(db)
    assert f"undone {asleep.pid} refused" not in await noted(db)


async def test_a_kind_that_is_full_does_not_hold_up_others(db: Database) -> None:
    now = most = 0
    others = asyncio.Event()

    async def limited(job: Job, context: JobContext) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await others.wait()
        await asyncio.sleep(0.01)
        now -= 1

    async def other(job: Job, context: JobContext) -> None:
        if job.payload["n"] == 4:
            others.set()

    for _ in range(6):
        await enqueue(db, "limited", priority=9)
    for n in range(5):
        await enqueue(db, "other", payload={"n": n})
    async with working(
        db, {"limited": Kind(limited, at_a_time=2), "other": other}, concurrency=3, poll=600
    ):
        await until(lambda: all_succeeded(db))
    assert most == 2


async def test_a_job_of_a_full_kind_can_be_cancelled(db: Database) -> None:
    kind = noting_the_end(forever)
    async with working(db, {"k": Kind(kind.run, kind.gave_up, at_a_time=1)}, poll=600):
        await enqueue(db, dedup_key="x")
        await until(lambda: _any(noted(db)))
        await enqueue(db, dedup_key="y")
        await cancel(db, "y")

        async def is_cancelled() -> bool:
            return "cancelled" in await states(db)

        await until(is_cancelled)
        assert sorted(await states(db)) == ["cancelled", "running"]


async def test_what_is_more_urgent_runs_first(db: Database) -> None:
    order: list[int] = []

    async def run(job: Job, context: JobContext) -> None:
        order.append(job.payload["n"])

    for n in (0, 2, 1):
        await enqueue(db, payload={"n": n}, priority=n)
    async with working(db, {"k": run}, concurrency=1):
        await until(lambda: all_succeeded(db))
    assert order == [2, 1, 0]


async def test_a_secret_is_for_the_handler_alone(db: Database) -> None:
    sealed = Sealed([new_key()])
    seen: list[object] = []

    async def run(job: Job, context: JobContext) -> None:
        seen.append(context.secret())

    async with working(db, {"k": run}, sealed=sealed, concurrency=1):
        await enqueue(db, secret=sealed.seal({"token": "sesame"}))
        await enqueue(db)
        await until(lambda: all_succeeded(db))
    assert seen == [{"token": "sesame"}, None]
    assert await rows(db, "SELECT secret FROM jobs") == [(None,), (None,)]


@pytest.mark.parametrize("sealed", [None, Sealed([new_key()])], ids=["none", "another"])
async def test_a_job_whose_secret_cannot_be_opened_is_refused(
    db: Database, sealed: Sealed | None
) -> None:
    async def run(job: Job, context: JobContext) -> None:
        context.secret()

    async with working(db, {"k": noting_the_end(run)}, sealed=sealed):
        await enqueue(db, secret=Sealed([new_key()]).seal({"token": "sesame"}))
        await until(lambda: ended(db))
    (words,) = await noted(db)
    assert words.startswith("undone: refused: The credentials of this job cannot be read")
    assert await rows(db, "SELECT state, secret FROM jobs") == [("failed", None)]


async def test_runs_are_told_with_their_outcome(db: Database) -> None:
    started: list[str] = []
    told: list[tuple[str, Outcome]] = []

    def on_end(kind: str, outcome: Outcome, _seconds: float) -> None:
        told.append((kind, outcome))

    async def second_time(job: Job, context: JobContext) -> None:
        if job.attempts == 1:
            raise OSError("the store is away")

    kinds: dict[str, Handler | Kind] = {
        "good": noting,
        "late": second_time,
        "bad": refusing,
        "long": noting_the_end(forever),
        "longer": noting_the_end(forever),
    }

    async def only_one_runs() -> bool:
        return (await states(db)).count("running") == 1 and "waiting" not in await states(db)

    for kind in kinds:
        await enqueue(db, kind, dedup_key="x")
    async with working(db, kinds, concurrency=9, on_start=started.append, on_end=on_end):
        await until(lambda: started.count("long") == 1)
        await cancel(db, kind="long")
        await until(only_one_runs)
    assert sorted(started) == ["bad", "good", "late", "late", "long", "longer"]
    assert sorted(told) == [
        ("bad", "failed"),
        ("good", "succeeded"),
        ("late", "retried"),
        ("late", "succeeded"),
        ("long", "cancelled"),
        ("longer", "returned"),
    ]


async def test_a_recurring_job_runs_once_per_period_however_many_workers(db: Database) -> None:
    due = "SELECT extract(epoch FROM run_after)::text FROM jobs WHERE id = :id"
    options: dict[str, Any] = {"recurring": {"k": timedelta(seconds=0.25)}, "poll": 60}

    async def tick(job: Job, context: JobContext) -> None:
        ((slot,),) = await rows(db, due, id=job.id)
        await note(context, slot)

    async def ticked_eight_times() -> bool:
        return len(await noted(db)) >= 8

    async with (
        working(db, {"k": tick}, **options),
        working(db, {"k": tick}, **options),
        working(db, {"k": tick}, **options),
    ):
        await until(ticked_eight_times)
    slots = await noted(db)
    since = [(float(slot) - float(slots[0])) / 0.25 for slot in slots]
    assert len(set(slots)) == len(slots)
    assert since == pytest.approx([round(periods) for periods in since], abs=0.001)
    # Some may be skipped on a busy machine, but it is not twice as slow as it should be.
    assert since[-1] < 2 * len(slots)


async def test_the_handler_of_a_job_that_was_taken_over_is_cancelled(db: Database) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def forever(job: Job, context: JobContext) -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    await enqueue(db)
    async with working(db, {"k": forever}, lease=0.6):
        await started.wait()
        async with db.write() as connection:
            await connection.execute(text("UPDATE jobs SET fence = fence + 1"))
        await asyncio.wait_for(cancelled.wait(), 10)


async def test_a_change_under_a_lost_job_is_rolled_back(db: Database) -> None:
    await enqueue(db)
    async with db.write() as connection:
        (job,) = await queue.claim(
            connection, jobs, ["k"], worker="w", lease=timedelta(seconds=9), limit=1
        )
        await connection.execute(text("UPDATE jobs SET fence = fence + 1"))
    with pytest.raises(JobLost):
        await note(JobContext(db, jobs, job), "too late")
    assert await noted(db) == []


async def test_progress_is_shown_while_the_job_runs(db: Database) -> None:
    reported, seen = asyncio.Event(), asyncio.Event()

    async def reporting(job: Job, context: JobContext) -> None:
        async with context.write() as connection:
            await context.report(connection, {"percent": 50})
        reported.set()
        await seen.wait()

    await enqueue(db)
    async with working(db, {"k": reporting}):
        await reported.wait()
        assert await rows(db, "SELECT progress FROM jobs WHERE kind = 'k'") == [({"percent": 50},)]
        seen.set()
        await until(lambda: all_succeeded(db))


async def test_a_worker_may_start_before_the_schema_is_there(empty_database: str) -> None:
    async with (
        Database(DatabaseSettings(connection=empty_database)) as db,
        working(db, {"k": noting}, recurring={"k": timedelta(hours=1)}, poll=0.2),
    ):
        await asyncio.sleep(0.3)
        async with opened(empty_database):
            await until(lambda: _any(noted(db)))


async def test_a_worker_outlives_postgresql(private_postgres: Server) -> None:
    url = await databases.create(private_postgres.url())
    async with opened(url, connect_timeout=2) as db:
        async with db.write() as connection:
            name = url.rpartition("/")[2]
            await connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = on'))

        async def short(job: Job, context: JobContext) -> None:
            await asyncio.sleep(0.3)
            await noting(job, context)

        async with working(db, {"k": short}, lease=1.5, poll=0.5):
            await enqueue(db, payload={"n": 1})
            await asyncio.sleep(0.15)
            os.kill(private_postgres.pid, signal.SIGKILL)
            await asyncio.to_thread(private_postgres.start)

            async def kept() -> bool:
                try:
                    await enqueue(db, payload={"n": 2})
                except ServiceUnavailable:
                    return False
                return True

            await until(kept)
            await until(lambda: all_succeeded(db))
        assert {words.split()[1] for words in await noted(db)} == {"1", "2"}


async def test_where_nothing_can_be_listened_for_a_worker_looks_now_and_then(
    empty_database: str,
) -> None:
    async with opened(empty_database, statement_cache_size=0) as db:
        async with working(db, {"k": noting}, poll=0.2):
            await asyncio.sleep(0.3)
            await enqueue(db, payload={"n": 1})
            await until(lambda: all_succeeded(db))
        listening = await rows(
            db,
            "SELECT 1 FROM pg_stat_activity"
            " WHERE query LIKE 'LISTEN%' AND datname = current_database()",
        )
        assert listening == []


async def test_a_worker_starts_while_postgresql_is_away(private_postgres: Server) -> None:
    url = await databases.create(private_postgres.url())
    async with opened(url) as db:
        pass
    private_postgres.stop()
    async with (
        Database(DatabaseSettings(connection=url)) as db,
        working(db, {"k": noting}, recurring={"k": timedelta(hours=1)}, poll=0.2),
    ):
        await asyncio.sleep(0.5)
        await asyncio.to_thread(private_postgres.start)

        async def run() -> bool:
            try:
                return bool(await noted(db))
            except ServiceUnavailable:
                return False

        await until(run)
