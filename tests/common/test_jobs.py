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
from sqlalchemy.exc import IntegrityError

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


async def test_what_is_more_urgent_goes_first(db: Database) -> None:
    normal = await enqueue(db)
    low = await enqueue(db, priority=-1)
    late = await enqueue(db, priority=1, run_after=timedelta(hours=1))
    high = await enqueue(db, priority=1)
    (first,) = await claim(db)
    assert first.id == high
    assert {job.id for job in await claim(db, limit=5)} == {normal, low}
    assert await rows(db, "SELECT id FROM jobs WHERE state = 'waiting'") == [(late,)]


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

    async def end() -> None:
        async with db.write() as connection:
            await queue.end(connection, jobs, lost, End("refused", "no"))

    async def close() -> None:
        async with db.write() as connection:
            await queue.close(connection, jobs, lost)

    async def note() -> None:
        async with db.write() as connection:
            await connection.execute(notes.insert().values(note="too late"))
            await queue.fenced(connection, jobs, lost)

    for late in (lambda: finish(db, lost), lambda: fail(db, lost), report, end, close, note):
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


async def cancel(db: Database, key: str = "x", *, kind: str = "k") -> bool:
    async with db.write() as connection:
        return await queue.cancel(connection, jobs, kind=kind, dedup_key=key)


async def end(db: Database, job: Job, why: queue.Why = "refused") -> None:
    async with db.write() as connection:
        assert await queue.end(connection, jobs, job, End(why, "no\0pe"))


async def close(db: Database, job: Job) -> None:
    async with db.write() as connection:
        await queue.close(connection, jobs, job)


async def test_a_waiting_job_that_is_cancelled_is_due_at_once(db: Database) -> None:
    job_id = await enqueue(db, dedup_key="x", run_after=timedelta(hours=1))
    await enqueue(db, dedup_key="y", run_after=timedelta(hours=1))
    assert await cancel(db)
    (job,) = await claim(db, limit=5)
    assert (job.id, job.cancelled, job.end) == (job_id, True, None)


async def test_only_an_unfinished_job_can_be_cancelled(db: Database) -> None:
    await enqueue(db, dedup_key="x")
    async with db.write() as connection:
        await queue.schedule(connection, jobs, "recurs", timedelta(hours=1))
    assert not await cancel(db, "y")
    assert not await cancel(db, kind="other")
    assert not await cancel(db, queue.RECURRING, kind="recurs")
    (job,) = await claim(db)
    await finish(db, job)
    assert not await cancel(db)
    assert await rows(db, "SELECT id FROM jobs WHERE cancelled") == []


async def test_a_running_job_learns_that_it_is_cancelled(db: Database) -> None:
    await enqueue(db, dedup_key="x")
    await enqueue(db, dedup_key="y")
    first, other = await claim(db, limit=2)
    await cancel(db)
    async with db.read() as connection:
        assert await queue.cancelled(connection, jobs, [first, other]) == {(first.id, first.fence)}
    await fail(db, first, pause=timedelta(hours=1))
    (again,) = await claim(db)
    assert (again.id, again.cancelled) == (first.id, True)


async def test_what_was_enqueued_before_a_cancellation_is_cancelled_with_it(db: Database) -> None:
    await enqueue(db, dedup_key="x")
    (job,) = await claim(db)
    await enqueue(db, dedup_key="x")
    await cancel(db)
    await end(db, job, "cancelled")
    await close(db, job)
    assert await states(db) == ["cancelled"]


async def test_what_is_enqueued_after_a_cancellation_is_run(db: Database) -> None:
    await enqueue(db, dedup_key="x", payload={"n": 1}, secret=b"1")
    await cancel(db)
    await enqueue(db, dedup_key="x", payload={"n": 2}, secret=b"2")
    (job,) = await claim(db)
    assert job.cancelled
    await end(db, job, "cancelled")
    await close(db, job)
    (again,) = await claim(db)
    assert (again.payload, again.secret, again.cancelled, again.end) == (
        {"n": 2},
        b"2",
        False,
        None,
    )


async def test_who_takes_up_a_job_that_was_ending_learns_why(db: Database) -> None:
    await enqueue(db)
    (job,) = await claim(db)
    await end(db, job)
    await end_leases(db)
    (taken,) = await claim(db)
    assert taken.end == End("refused", "nope")
    await fail(db, taken)
    (taken,) = await claim(db)
    assert taken.end == End("refused", "nope")
    await close(db, taken)
    assert await rows(db, "SELECT state, error, lease_until, finished_at IS NULL FROM jobs") == [
        ("failed", "nope", None, False)
    ]


async def test_a_kind_without_room_gets_only_what_is_to_be_undone(db: Database) -> None:
    await enqueue(db, dedup_key="x")
    await enqueue(db, dedup_key="y")
    other = await enqueue(db, "other")
    await cancel(db, "y")

    async def taken() -> list[Job]:
        async with db.write() as connection:
            return await queue.claim(
                connection, jobs, ["other"], only_ending=["k"], worker="w", lease=LEASE, limit=9
            )

    cancelled, unlimited = await taken()
    assert (cancelled.cancelled, unlimited.id) == (True, other)
    await end(db, cancelled, "cancelled")
    await fail(db, cancelled)
    assert [job.end for job in await taken()] == [End("cancelled", "nope")]
    async with db.read() as connection:
        free = await queue.next_due(connection, jobs, ["other"], only_ending=["k"])
        assert free is not None
        assert free > 0
        full = await queue.next_due(connection, jobs, ["other", "k"])
        assert full is not None
        assert full <= 0


@pytest.mark.parametrize("how", ["succeeded", "refused", "failed", "died", "cancelled"])
async def test_a_secret_is_erased_when_its_job_ends(db: Database, how: Any) -> None:
    secret = "SELECT secret FROM jobs"
    await enqueue(db, secret=b"sealed")
    (job,) = await claim(db)
    assert job.secret == b"sealed"
    assert "sealed" not in repr(job)
    await fail(db, job)
    (job,) = await claim(db)
    async with db.write() as connection:
        await queue.give_back(connection, jobs, [job])
    (job,) = await claim(db)
    if how == "succeeded":
        assert await rows(db, secret) == [(b"sealed",)]
        await finish(db, job)
    else:
        await end(db, job, how)
        assert await rows(db, secret) == [(b"sealed",)]
        await close(db, job)
    assert await rows(db, secret) == [(None,)]


async def retry(db: Database, job_id: int, *kinds: str) -> bool:
    async with db.write() as connection:
        return await queue.retry(connection, jobs, job_id, kinds=kinds)


@pytest.mark.parametrize("why", ["failed", "cancelled"])
async def test_a_job_that_ended_may_be_run_again_from_its_start(db: Database, why: Any) -> None:
    job_id = await enqueue(db, dedup_key="x", max_attempts=1)
    (job,) = await claim(db)
    await cancel(db)
    await end(db, job, why)
    await close(db, job)
    assert not await retry(db, job_id, "other")
    assert await claim(db) == []
    assert await retry(db, job_id, "k")
    (again,) = await claim(db)
    assert (again.id, again.attempts, again.cancelled, again.end) == (job_id, 1, False, None)


async def test_a_waiting_job_may_be_run_without_its_pause(db: Database) -> None:
    job_id = await enqueue(db)
    (job,) = await claim(db)
    await fail(db, job, pause=timedelta(hours=1))
    assert await retry(db, job_id)
    (again,) = await claim(db)
    assert again.attempts == 2
    assert not await retry(db, job_id, "k")
    await finish(db, again)
    assert not await retry(db, job_id, "k")


async def test_a_job_is_not_run_again_beside_its_equal(db: Database) -> None:
    job_id = await enqueue(db, dedup_key="x")
    (job,) = await claim(db)
    await end(db, job)
    await close(db, job)
    await enqueue(db, dedup_key="x")
    with pytest.raises(IntegrityError):
        await retry(db, job_id, "k")


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


async def test_a_claim_from_a_long_queue_reads_about_what_it_takes(db: Database) -> None:
    read = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables WHERE relname = 'jobs'"
    async with db.write() as connection:
        await connection.execute(
            text(
                "INSERT INTO jobs (kind, payload, priority, run_after)"
                " SELECT 'k', jsonb '{}', n % 2, now() - n * interval '1 ms'"
                " FROM generate_series(1, 5000) n"
            )
        )
    async with db.write() as connection:
        await connection.execute(text("ANALYZE jobs"))
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    ((before,),) = await rows(db, read)
    async with db.write() as connection:
        taken = await queue.claim(connection, jobs, ["k"], worker="w", lease=LEASE, limit=4)
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    ((after,),) = await rows(db, read)
    assert [job.id for job in taken] == [4993, 4995, 4997, 4999]
    assert after - before < 100


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
