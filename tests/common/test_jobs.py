"""Statements about jobs, each by itself, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from diptych_common import events
from diptych_common import jobs as queue
from diptych_common.database import Database
from diptych_common.jobs import End, Job, JobLost
from sqlalchemy import text

from tests import databases
from tests.common.job_tables import jobs, noted, notes, opened, outbox, rows

LEASE = timedelta(seconds=30)


@pytest.fixture
async def db(empty_database: str) -> AsyncIterator[Database]:
    async with opened(empty_database) as db:
        yield db


async def enqueue(db: Database, kind: str = "k", **options: Any) -> int:
    payload = options.pop("payload", {})
    async with db.write() as connection:
        return await queue.enqueue(connection, jobs, kind, payload, **options)


async def claim(
    db: Database, *kinds: str, limit: int = 1, lease: timedelta = LEASE, worker: str = "w"
) -> list[Job]:
    async with db.write() as connection:
        return await queue.claim(
            connection, jobs, kinds or ("k",), worker=worker, lease=lease, limit=limit
        )


async def finish(db: Database, job: Job) -> None:
    async with db.write() as connection:
        await queue.finish(connection, jobs, job)


async def fail(db: Database, job: Job, *, pause: timedelta = timedelta()) -> None:
    async with db.write() as connection:
        await queue.fail(connection, jobs, job, "it broke", pause=pause)


async def states(db: Database) -> list[str]:
    return [state for (state,) in await rows(db, "SELECT state FROM jobs ORDER BY id")]


async def end_leases(db: Database) -> None:
    async with db.write() as connection:
        await connection.execute(
            text("UPDATE jobs SET lease_until = now() - interval '1 s' WHERE state = 'running'")
        )


async def test_a_job_is_claimed_run_and_finished(db: Database) -> None:
    job_id = await enqueue(db, payload={"image": "é"})
    (job,) = await claim(db)
    assert (job.id, job.kind, job.payload, job.attempts) == (job_id, "k", {"image": "é"}, 1)
    await finish(db, job)
    assert await rows(
        db, "SELECT state, worker, lease_until, finished_at IS NOT NULL, error FROM jobs"
    ) == [("succeeded", None, None, True, None)]
    assert await claim(db) == []


async def test_a_job_is_as_much_as_its_transaction(db: Database) -> None:
    async def change() -> None:
        async with db.write() as connection:
            await connection.execute(notes.insert().values(note="changed"))
            await queue.enqueue(connection, jobs, "k", {})
            await events.emit(connection, outbox, "image.update", {})
            raise LookupError

    with pytest.raises(LookupError):
        await change()
    assert await noted(db) == []
    assert await claim(db) == []
    assert await rows(db, "SELECT id FROM outbox") == []


async def test_enqueueing_is_one_statement(empty_database: str, db: Database) -> None:
    await enqueue(db)
    async with databases.statements(empty_database) as seen:
        await enqueue(db)
    assert len(seen.texts) == 3  # with BEGIN and COMMIT


async def test_jobs_are_claimed_oldest_first_and_only_kinds_that_are_known(db: Database) -> None:
    first = await enqueue(db)
    other = await enqueue(db, "other")
    second = await enqueue(db)
    assert [job.id for job in await claim(db, limit=5)] == [first, second]
    assert [job.id for job in await claim(db, "k", "other", limit=5)] == [other]


async def test_a_job_for_later_waits(db: Database) -> None:
    await enqueue(db, run_after=timedelta(hours=1))
    assert await claim(db) == []
    async with db.read() as connection:
        due = await queue.next_due(connection, jobs, ["k"])
        assert due is not None
        assert 3590 < due <= 3600
        assert await queue.next_due(connection, jobs, ["other"]) is None


async def test_workers_that_claim_at_the_same_time_never_get_the_same_job(db: Database) -> None:
    for _ in range(40):
        await enqueue(db)
    taken = await asyncio.gather(*(claim(db, limit=7, worker=str(n)) for n in range(12)))
    ids = [job.id for claimed in taken for job in claimed]
    while more := await claim(db, limit=7):
        ids += [job.id for job in more]
    assert len(ids) == 40
    assert len(set(ids)) == 40


async def test_a_claim_does_not_wait_for_another(db: Database) -> None:
    await enqueue(db)
    second = await enqueue(db)
    async with db.write() as connection:
        await queue.claim(connection, jobs, ["k"], worker="a", lease=LEASE, limit=1)
        assert [job.id for job in await asyncio.wait_for(claim(db, limit=5), 5)] == [second]


async def test_a_job_whose_lease_is_over_is_taken_over(db: Database) -> None:
    await enqueue(db)
    (lost,) = await claim(db)
    assert await claim(db) == []
    await end_leases(db)
    (taken,) = await claim(db)
    assert taken.id == lost.id
    assert (lost.fence, taken.fence) == (1, 2)
    assert taken.attempts == 2


async def test_a_heartbeat_keeps_a_job_and_names_those_that_are_lost(db: Database) -> None:
    await enqueue(db)
    await enqueue(db)
    kept, lost = await claim(db, limit=2, lease=timedelta(seconds=-1))
    async with db.write() as connection:
        assert await queue.heartbeat(connection, jobs, [kept], lease=LEASE) == {
            (kept.id, kept.fence)
        }
    (taken,) = await claim(db, limit=2)
    assert taken.id == lost.id
    async with db.write() as connection:
        assert await queue.heartbeat(connection, jobs, [kept, lost], lease=LEASE) == {
            (kept.id, kept.fence)
        }


async def test_who_lost_a_job_can_change_nothing_about_it(db: Database) -> None:
    await enqueue(db)
    (lost,) = await claim(db)
    await end_leases(db)
    (taken,) = await claim(db)
    before = await rows(db, "SELECT * FROM jobs")

    async def report() -> None:
        async with db.write() as connection:
            await queue.report(connection, jobs, lost, {"done": 1})

    async def note() -> None:
        async with db.write() as connection:
            await connection.execute(notes.insert().values(note="too late"))
            await queue.fenced(connection, jobs, lost)

    for late in (lambda: finish(db, lost), lambda: fail(db, lost), report, note):
        with pytest.raises(JobLost):
            await late()
    async with db.write() as connection:
        await queue.give_back(connection, jobs, [lost])
    assert await rows(db, "SELECT * FROM jobs") == before
    assert await noted(db) == []
    await finish(db, taken)


async def test_a_fenced_transaction_is_not_overtaken_before_its_commit(db: Database) -> None:
    await enqueue(db)
    (job,) = await claim(db, lease=timedelta(seconds=-1))
    async with db.write() as connection:
        await queue.fenced(connection, jobs, job)
        assert await claim(db) == []
    assert [taken.id for taken in await claim(db)] == [job.id]


async def test_a_failed_job_comes_back_after_its_pause_with_its_error(db: Database) -> None:
    await enqueue(db)
    (job,) = await claim(db)
    await fail(db, job, pause=timedelta(hours=1))
    assert await claim(db) == []
    assert await rows(db, "SELECT state, error, attempts FROM jobs") == [("waiting", "it broke", 1)]
    async with db.write() as connection:
        await connection.execute(text("UPDATE jobs SET run_after = now()"))
    (job,) = await claim(db)
    assert job.attempts == 2


async def test_an_error_of_any_text_can_be_kept(db: Database) -> None:
    await enqueue(db)
    (job,) = await claim(db)
    async with db.write() as connection:
        await queue.fail(connection, jobs, job, "a\0b" + "é" * 5000, pause=timedelta())
    ((error,),) = await rows(db, "SELECT error FROM jobs")
    assert error.startswith("abé")
    assert len(error) < 2001


async def test_a_returned_job_is_due_at_once_and_lost_no_attempt(db: Database) -> None:
    await enqueue(db, max_attempts=1)
    (job,) = await claim(db)
    async with db.write() as connection:
        await queue.give_back(connection, jobs, [job])
    (again,) = await claim(db)
    assert (again.id, again.attempts, again.fence) == (job.id, 1, 2)


async def test_equal_jobs_that_wait_are_one_with_the_latest_payload(db: Database) -> None:
    first = await enqueue(db, dedup_key="x", payload={"n": 1}, run_after=timedelta(hours=1))
    second = await enqueue(db, dedup_key="x", payload={"n": 2})
    third = await enqueue(db, dedup_key="x", payload={"n": 3}, run_after=timedelta(hours=1))
    other = await enqueue(db, dedup_key="y")
    kind = await enqueue(db, "other", dedup_key="x")
    assert first == second == third
    assert len({first, other, kind}) == 3
    taken = await claim(db, limit=9)
    assert [(job.id, job.payload) for job in taken] == [(first, {"n": 3}), (other, {})]


async def test_an_equal_job_enqueued_while_one_runs_makes_it_run_once_more(db: Database) -> None:
    await enqueue(db, dedup_key="x", payload={"n": 1})
    (job,) = await claim(db)
    await enqueue(db, dedup_key="x", payload={"n": 2})
    await enqueue(db, dedup_key="x", payload={"n": 3})
    assert await claim(db) == []
    await finish(db, job)
    (again,) = await claim(db)
    assert (again.id, again.payload, again.attempts) == (job.id, {"n": 3}, 1)
    await finish(db, again)
    assert await states(db) == ["succeeded"]
    await enqueue(db, dedup_key="x")
    assert await states(db) == ["succeeded", "waiting"]


async def test_an_equal_job_enqueued_while_one_fails_for_good_still_runs(db: Database) -> None:
    await enqueue(db, dedup_key="x", max_attempts=1)
    (job,) = await claim(db)
    await enqueue(db, dedup_key="x", max_attempts=1)
    async with db.write() as connection:
        assert not await queue.end(connection, jobs, job, End("failed", "it broke"))
    await fail(db, job)
    (again,) = await claim(db)
    assert again.attempts == 1


async def test_a_recurring_job_keeps_its_rhythm(db: Database) -> None:
    async with db.write() as connection:
        await queue.schedule(connection, jobs, "k", timedelta(seconds=60))
    (job,) = await claim(db)
    async with db.write() as connection:
        # It was due 150 s ago: the runs between are not made up for, the rhythm stays.
        await connection.execute(
            text("UPDATE jobs SET run_after = now() - interval '150 s', attempts = 3")
        )
    await finish(db, job)
    ((state, seconds, attempts),) = await rows(
        db, "SELECT state, extract(epoch FROM run_after - now())::float8, attempts FROM jobs"
    )
    assert (state, attempts) == ("waiting", 0)
    assert 25 < seconds <= 30


async def test_a_recurring_job_that_fails_waits_no_longer_than_its_period(db: Database) -> None:
    async with db.write() as connection:
        await queue.schedule(connection, jobs, "k", timedelta(seconds=5))
    (job,) = await claim(db)
    await fail(db, job, pause=timedelta(hours=1))
    async with db.read() as connection:
        due = await queue.next_due(connection, jobs, ["k"])
    assert due is not None
    assert 0 < due <= 5


async def test_scheduling_is_once_for_all_and_takes_a_new_period(db: Database) -> None:
    async def schedule(seconds: int) -> None:
        async with db.write() as connection:
            await queue.schedule(connection, jobs, "k", timedelta(seconds=seconds))

    await asyncio.gather(*(schedule(3600) for _ in range(8)))
    (job,) = await claim(db, limit=9)
    await finish(db, job)
    await schedule(60)
    async with db.read() as connection:
        due = await queue.next_due(connection, jobs, ["k"])
    assert due is not None
    assert 55 < due <= 60


async def test_progress_is_shown_and_replaced(db: Database) -> None:
    await enqueue(db)
    (job,) = await claim(db)
    for done in (1, 2):
        async with db.write() as connection:
            await queue.report(connection, jobs, job, {"done": done})
    assert await rows(db, "SELECT progress FROM jobs") == [({"done": 2},)]


async def test_only_jobs_that_ended_long_ago_are_forgotten(db: Database) -> None:
    for _ in range(3):
        await enqueue(db)
    for job in await claim(db, limit=2):
        await finish(db, job)
    async with db.write() as connection:
        await connection.execute(
            text(
                "UPDATE jobs SET created_at = now() - interval '9 days',"
                " finished_at = CASE id WHEN 1 THEN now() - interval '9 days' ELSE finished_at END"
            )
        )
        assert await queue.purge(connection, jobs, older_than=timedelta(days=2)) == 1
    assert await states(db) == ["succeeded", "waiting"]


async def test_a_claim_reads_due_jobs_and_not_the_history(db: Database) -> None:
    async with db.write() as connection:
        await connection.execute(
            text(
                "INSERT INTO jobs (kind, payload, state, finished_at, run_after)"
                " SELECT 'k', jsonb '{}', 'succeeded', now(), now() FROM generate_series(1, 20000)"
                " UNION ALL SELECT 'k', jsonb '{}', 'waiting', NULL, now() + interval '1 h'"
                " FROM generate_series(1, 2000)"
            )
        )
    job_id = await enqueue(db)
    scans = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'jobs'"
    async with db.write() as connection:
        await connection.execute(text("ANALYZE jobs"))
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    before = await rows(db, scans)
    async with db.write() as connection:
        (job,) = await queue.claim(connection, jobs, ["k"], worker="w", lease=LEASE, limit=4)
        await queue.next_due(connection, jobs, ["k"])
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    assert job.id == job_id
    assert await rows(db, scans) == before


async def test_an_event_is_kept_with_its_envelope(db: Database) -> None:
    async with db.write() as connection:
        await events.emit(connection, outbox, "image.create", {"id": "é"}, request_id="req-1")
        await events.emit(connection, outbox, "image.delete", {}, priority="ERROR")
    found = await rows(
        db, "SELECT event_type, priority, payload->>'id', request_id FROM outbox ORDER BY id"
    )
    assert found == [
        ("image.create", "INFO", "é", "req-1"),
        ("image.delete", "ERROR", None, None),
    ]
    ((different,),) = await rows(db, "SELECT count(DISTINCT message_id) FROM outbox")
    assert different == 2
