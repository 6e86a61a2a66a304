"""The loop that runs jobs: inside an API process or in one of its own, the same code.

A worker takes a job, renews its lease while the handler runs, and settles it. When it is told to
stop it hands its jobs back at once; when it dies or hangs, their leases run out and another takes
them. A handler must therefore stand being run again, from the start, after any of its steps.

A job that will not succeed is first written down as ending, then what it did is undone (by the
kind's `gave_up`, as often as it takes), then it is closed: whoever takes it up goes on there.
"""

import asyncio
import logging
import os
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, TypeVar
from uuid import uuid4

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_common import jobs, tracing
from diptych_common.database import TROUBLE, Database
from diptych_common.errors import ServiceUnavailable
from diptych_common.jobs import End, GiveUp, Job, JobLost, TryAgain
from diptych_common.sealing import Sealed

log = logging.getLogger(__name__)

PAUSE_AT_MOST_S: Final = 600.0
# Until a job is undone, what it held is held for nobody.
UNDOING_PAUSE_AT_MOST_S: Final = 15.0

T = TypeVar("T")
_CANCELLED: Final = End("cancelled", "Cancelled.")


@dataclass(frozen=True, slots=True)
class JobContext:
    """What a handler may touch of the world of jobs."""

    db: Database
    table: Table
    job: Job
    sealed: Sealed | None = None

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction that commits only if the job is still this worker's; else JobLost."""
        async with self.db.write() as connection:
            yield connection
            await jobs.fenced(connection, self.table, self.job)

    async def report(self, connection: AsyncConnection, progress: Mapping[str, Any]) -> None:
        """Replace what the job shows of its progress; raises JobLost.

        Of bytes it is {"done": …, "total": …}, where the total may be None.
        """
        await jobs.report(connection, self.table, self.job, progress)

    def secret(self) -> dict[str, str] | None:
        """What was sealed into the job; None if nothing was.

        Raises GiveUp if it cannot be opened: the keys in the settings are not those it was sealed
        with.
        """
        if self.job.secret is None:
            return None
        if self.sealed is None:
            raise GiveUp("The credentials of this job cannot be read: the service has no key.")
        return self.sealed.open(self.job.secret)


Handler = Callable[[Job, JobContext], Awaitable[None]]
"""Does a job. Returning is success; raising is a failure, tried again after a pause.

Raising GiveUp is the last of its attempts. It is cancelled when the job is no longer this
worker's, when the worker stops, and when somebody cancels the job.
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is done for a kind of job.

    `gave_up` undoes what `run` did, and tells whom it concerns, before a job that will not succeed
    is closed: without it there is nothing to undo. It is tried again until it returns, and must
    stand that. `at_a_time` is how many jobs of this kind a worker runs; None: any number.
    """

    run: Handler
    gave_up: Callable[[Job, JobContext, End], Awaitable[None]] | None = None
    at_a_time: int | None = None


Outcome = Literal["succeeded", "retried", "failed", "cancelled", "returned", "lost"]


@dataclass(slots=True)
class _Held:
    """A job that runs here. `until` is when its lease is over, by this process's clock.

    `settling` while the end of the handler, or of `gave_up`, is written down: there is nothing to
    cancel. `stopped` when the handler was cancelled because the job was, `ending` when it is not
    running any more. `outcome` is how the run ended, as far as it was written down.
    """

    job: Job
    until: float
    settling: bool = False
    stopped: bool = False
    ending: bool = False
    outcome: Outcome = "lost"


class Worker:
    """Runs the jobs of the kinds it is given; others are left for workers that know them.

    In seconds: `lease` is how long a silent worker keeps its jobs, `poll` how often to look when
    the database does not call, `leave` what a cancelled handler may take to stop a thread or
    remove a file. `recurring` gives kinds their periods, `sealed` opens the jobs' secrets.
    `on_start` is told the kind of each run, `on_end` also its outcome and its seconds. With
    `listens` false it only looks, which spares a connection where nothing is ever enqueued.
    """

    def __init__(
        self,
        db: Database,
        jobs_table: Table,
        kinds: Mapping[str, Kind],
        *,
        sealed: Sealed | None = None,
        lease: float = 30,
        concurrency: int = 4,
        poll: float = 5,
        leave: float = 10,
        recurring: Mapping[str, timedelta] | None = None,
        listens: bool = True,
        on_start: Callable[[str], None] | None = None,
        on_end: Callable[[str, Outcome, float], None] | None = None,
    ) -> None:
        self._db = db
        self._table = jobs_table
        self._kinds = kinds
        self._sealed = sealed
        self._lease = lease
        self._concurrency = concurrency
        self._poll = poll
        self._leave = leave
        self._recurring = dict(recurring or {})
        self._listens = listens and db.can_listen
        self._on_start = on_start or _unheeded
        self._on_end = on_end or _unheeded
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._held: dict[asyncio.Task[None], _Held] = {}
        self._wake = asyncio.Event()
        self._draining = False
        # How often a cancellation was told of, and that one may have been missed.
        self._cancellations = 0
        self._look_for_cancelled = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Take and run jobs until `stop` is set, then hand back what runs and return.

        Outlives a database that goes away: what was running is dropped when its lease must be
        over, and taken up again when the database is back.
        """
        helpers = [
            asyncio.create_task(self._wake_on(stop)),
            asyncio.create_task(self._listen()),
            asyncio.create_task(self._stop_cancelled()),
        ]
        heart = asyncio.create_task(self._beat())
        try:
            await self._take_until(stop)
        finally:
            for helper in helpers:
                helper.cancel()
            await self._drain()
            heart.cancel()
            await asyncio.gather(*helpers, heart, return_exceptions=True)

    async def _take_until(self, stop: asyncio.Event) -> None:
        unscheduled = dict(self._recurring)
        while not stop.is_set():
            # Before the look at the queue: what arrives during it must not be slept through.
            self._wake.clear()
            try:
                while unscheduled:
                    kind, period = next(iter(unscheduled.items()))
                    async with self._db.write() as connection:
                        await jobs.schedule(connection, self._table, kind, period)
                    del unscheduled[kind]
                idle = await self._take()
            except TROUBLE as error:
                # Nobody would notice that the loop ended, beside an API that works.
                log.error("No jobs are taken for now: %s", error)
                idle = min(self._poll, 1.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(idle):
                    await self._wake.wait()

    async def _take(self) -> float | None:
        """Start what is due, as far as there is room; seconds until the next look is worth it.

        None: when a job ends, since there is no room before.
        """
        while True:
            room = self._concurrency - len(self._held)
            if room <= 0:
                return None
            rooms = self._room_by_kind()
            kinds = [kind for kind, left in rooms.items() if left > 0]
            full = rooms.keys() - kinds
            # So few that no kind can get more than it has room for.
            limit = min([room, *(rooms[kind] for kind in kinds)])
            if await self._start(kinds, full, limit) < limit:
                break
        async with self._db.read() as connection:
            due = await jobs.next_due(connection, self._table, kinds, only_ending=full)
        # Never zero: what is due but locked by another worker would be asked for in a hot loop.
        return self._poll if due is None else min(self._poll, max(due, 0.05))

    def _room_by_kind(self) -> dict[str, int]:
        running = Counter(held.job.kind for held in self._held.values() if not held.ending)
        return {
            name: self._concurrency if kind.at_a_time is None else kind.at_a_time - running[name]
            for name, kind in self._kinds.items()
        }

    async def _start(self, kinds: Collection[str], full: Collection[str], limit: int) -> int:
        """Take up to `limit` jobs and start them; how many there were."""
        asked, cancellations = time.monotonic(), self._cancellations
        async with self._db.write() as connection:
            taken = await jobs.claim(
                connection,
                self._table,
                kinds,
                only_ending=full,
                worker=self._name,
                lease=timedelta(seconds=self._lease),
                limit=limit,
            )
        for job in taken:
            held = _Held(job, until=asked + self._lease)
            task = asyncio.create_task(self._run(held))
            self._held[task] = held
            task.add_done_callback(self._ended)
        if cancellations != self._cancellations:
            # One of these may be meant: the call came before anybody here knew that it runs here.
            self._look_for_cancelled.set()
        return len(taken)

    async def _run(self, held: _Held) -> None:
        job = held.job
        began = time.monotonic()
        self._on_start(job.kind)
        try:
            end = self._foregone(job)
            with tracing.job(job.kind):
                if end is None:
                    end = await self._work(held)
                if end is not None:
                    await self._undo(held, end)
        except asyncio.CancelledError:
            if self._draining:
                held.outcome = "returned"
            raise
        except JobLost as lost:
            log.warning("%s", lost)
        finally:
            self._on_end(job.kind, held.outcome, time.monotonic() - began)

    def _foregone(self, job: Job) -> End | None:
        """How the job ends without being run."""
        if job.end is not None:
            return job.end
        if job.cancelled:
            return _CANCELLED
        if job.max_attempts is not None and job.attempts > job.max_attempts:
            return End("died", "The worker died or hung on each attempt.")
        return None

    async def _work(self, held: _Held) -> End | None:
        """Run the handler and settle the job, unless it is to be undone: then its end."""
        job = held.job
        try:
            await self._kinds[job.kind].run(job, self._context(job))
        except JobLost:
            raise
        except asyncio.CancelledError:
            if not _taken_back(held):
                raise
            return _CANCELLED
        except GiveUp as refusal:
            log.warning("Job %s (%s) gave up: %s", job.id, job.kind, refusal)
            return _CANCELLED if _taken_back(held) else End("refused", str(refusal))
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            if isinstance(error, TryAgain):
                log.warning("Job %s (%s), attempt %s: %s", job.id, job.kind, job.attempts, error)
            else:
                log.exception("Job %s (%s), attempt %s, failed.", job.id, job.kind, job.attempts)
            if _taken_back(held):
                # Its clean-up failed; what that left is for `gave_up`.
                return _CANCELLED
            if job.max_attempts is not None and job.attempts >= job.max_attempts:
                return End("failed", words)
            await self._settle(held, self._put_back(job, words))
            held.outcome = "retried"
        else:
            await self._settle(held, lambda connection: jobs.finish(connection, self._table, job))
            held.outcome = "succeeded"
        return None

    async def _undo(self, held: _Held, end: End) -> None:
        """Write down that the job ends so, have undone what it did, and close it."""
        job = held.job
        gave_up = self._kinds[job.kind].gave_up
        put_back = self._put_back(job, end.error)

        async def write_end(connection: AsyncConnection) -> bool:
            ends = await jobs.end(connection, self._table, job, end)
            if not ends:
                await put_back(connection)
            return ends

        if job.end is None and not await self._settle(held, write_end):
            held.outcome = "retried"
            return
        held.ending = True
        self._wake.set()  # there is room for another of its kind
        if gave_up is not None:
            if self._draining:
                held.outcome = "returned"
                return
            held.settling = False
            try:
                await gave_up(job, self._context(job), end)
            except JobLost:
                raise
            except Exception as error:
                log.exception("Job %s (%s) could not be undone.", job.id, job.kind)
                words = f"{end.error}\nNot undone yet: {type(error).__name__}: {error}"
                await self._settle(
                    held, self._put_back(job, words, at_most_s=UNDOING_PAUSE_AT_MOST_S)
                )
                held.outcome = "retried"
                return
        await self._settle(held, lambda connection: jobs.close(connection, self._table, job))
        held.outcome = "cancelled" if end.why == "cancelled" else "failed"

    def _context(self, job: Job) -> JobContext:
        return JobContext(self._db, self._table, job, self._sealed)

    def _put_back(
        self, job: Job, error: str, *, at_most_s: float = PAUSE_AT_MOST_S
    ) -> Callable[[AsyncConnection], Awaitable[None]]:
        pause = timedelta(seconds=_pause_s(job.attempts, at_most_s))
        return lambda connection: jobs.fail(connection, self._table, job, error, pause=pause)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._held[task]
        self._wake.set()

    async def _settle(self, held: _Held, write: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Write down how the job goes on, until the database takes it or the lease is over."""
        held.settling = True
        job = held.job
        while True:
            try:
                async with self._db.write() as connection:
                    return await write(connection)
            except TROUBLE as trouble:
                log.warning("Job %s (%s) is not settled yet: %s", job.id, job.kind, trouble)
                if time.monotonic() > held.until:
                    raise JobLost(f"Job {job.id} ({job.kind}) could not be settled.") from None
                await asyncio.sleep(min(1.0, self._lease / 10))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            asked = time.monotonic()
            beating = {task: held for task, held in self._held.items() if not held.settling}
            if not beating:
                continue
            try:
                async with asyncio.timeout(self._lease / 3), self._db.write() as connection:
                    kept = await jobs.heartbeat(
                        connection,
                        self._table,
                        [held.job for held in beating.values()],
                        lease=timedelta(seconds=self._lease),
                    )
            except (*TROUBLE, TimeoutError) as error:
                log.warning("The leases of %s jobs were not renewed: %r", len(beating), error)
                lost = [task for task, held in beating.items() if held.until < time.monotonic()]
            else:
                lost = [
                    task
                    for task, held in beating.items()
                    if (held.job.id, held.job.fence) not in kept
                ]
                for held in beating.values():
                    held.until = asked + self._lease
            for task in lost:
                # One that settles by now was asked about before it began to.
                if not beating[task].settling:
                    job = beating[task].job
                    log.warning("Job %s (%s) was lost while it ran.", job.id, job.kind)
                    task.cancel()

    async def _stop_cancelled(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll):
                    await self._look_for_cancelled.wait()
            self._look_for_cancelled.clear()
            running = {task: held for task, held in self._held.items() if _is_working(held)}
            if not running:
                continue
            try:
                async with self._db.read() as connection:
                    asked = await jobs.cancelled(
                        connection, self._table, [held.job for held in running.values()]
                    )
            except TROUBLE as error:
                log.warning("Nobody knows which jobs are cancelled: %s", error)
                continue
            for task, held in running.items():
                if (held.job.id, held.job.fence) in asked and _is_working(held):
                    held.stopped = True
                    task.cancel()

    async def _drain(self) -> None:
        self._draining = True
        leaving = dict(self._held)
        for task, held in leaving.items():
            if not held.settling:
                task.cancel()
        if leaving:
            # One that does not leave in time keeps its lease: nobody may take it while it runs.
            await asyncio.wait(leaving, timeout=self._leave)
        returned = [
            held.job
            for task, held in leaving.items()
            # The first also of one that had not begun.
            if task.cancelled() or held.outcome == "returned"
        ]
        if returned:
            try:
                async with self._db.write() as connection:
                    await jobs.give_back(connection, self._table, returned)
            except TROUBLE as error:
                log.warning("Jobs wait until their leases are over: %s", error)

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._wake.set()

    async def _listen(self) -> None:
        while self._listens:
            with suppress(ServiceUnavailable):
                await self._db.listen(self._table.name, self._hear)
            await asyncio.sleep(self._poll)

    def _hear(self, words: str) -> None:
        if not words or words.startswith(jobs.CANCELLED):
            self._cancellations += 1
            self._look_for_cancelled.set()
        self._wake.set()


def _unheeded(*_: object) -> None:
    pass


def _is_working(held: _Held) -> bool:
    return not (held.settling or held.stopped or held.ending)


def _taken_back(held: _Held) -> bool:
    """Whether the handler was stopped because the job was cancelled, and for no other reason.

    The task goes on then as if it had never been cancelled.
    """
    task = asyncio.current_task()
    return held.stopped and task is not None and not task.uncancel()


def _pause_s(attempts: int, at_most_s: float) -> float:
    """1 s after the first failure, doubled each time up to `at_most_s`, spread by a quarter.

    Spread, so that jobs that failed together of one cause do not come back together.
    """
    pause = min(2.0 ** min(attempts - 1, 30), at_most_s)
    return pause * random.uniform(0.75, 1.25)  # noqa: S311 nothing secret about it


@asynccontextmanager
async def running(worker: Worker, *, stop: asyncio.Event | None = None) -> AsyncGenerator[None]:
    """Run a worker beside the API; when `stop` is set, or on leaving, its jobs are handed back."""
    stop = stop or asyncio.Event()
    run = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        await run
