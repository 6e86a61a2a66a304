"""The loop that runs jobs: inside an API process or in one of its own, the same code.

A worker takes a job, renews its lease while the handler runs, and settles it. When it is told to
stop it hands its jobs back at once; when it dies or hangs, their leases run out and another takes
them. A handler must therefore stand being run again, from the start, after any of its steps.
"""

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych_common import jobs
from diptych_common.database import Database
from diptych_common.errors import ServiceUnavailable
from diptych_common.jobs import Job, JobLost

log = logging.getLogger(__name__)

PAUSE_AT_MOST_S: Final = 600.0
# What the database may answer at any time, a schema that is not migrated yet included. The loop
# goes on: nobody would notice that it ended, beside an API that works.
TROUBLE: Final = (ServiceUnavailable, SQLAlchemyError)


@dataclass(frozen=True, slots=True)
class JobContext:
    """What a handler may touch of the world of jobs."""

    db: Database
    table: Table
    job: Job

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction that commits only if the job is still this worker's; else JobLost."""
        async with self.db.write() as connection:
            yield connection
            await jobs.fenced(connection, self.table, self.job)

    async def report(self, progress: Mapping[str, Any]) -> None:
        """Replace what the job shows of its progress; raises JobLost."""
        async with self.db.write() as connection:
            await jobs.report(connection, self.table, self.job, progress)


Handler = Callable[[Job, JobContext], Awaitable[None]]
"""Does a job. Returning is success; raising is a failure, tried again after a pause.

It is cancelled when the job is no longer this worker's and when the worker stops.
"""


@dataclass(slots=True)
class _Held:
    """A job that runs here. `until` is when its lease is over, by this process's clock.

    `settling` from when the handler has ended: there is nothing to cancel any more.
    """

    job: Job
    until: float
    settling: bool = False


class Worker:
    """Runs the jobs whose kinds have a handler; others are left for workers that know them.

    In seconds: `lease` is how long a silent worker keeps its jobs, `poll` how often to look when
    the database does not call, `leave` what a cancelled handler may take to stop a thread or
    remove a file. `recurring` gives kinds their periods.
    """

    def __init__(
        self,
        db: Database,
        jobs_table: Table,
        handlers: Mapping[str, Handler],
        *,
        lease: float = 30,
        concurrency: int = 4,
        poll: float = 5,
        leave: float = 10,
        recurring: Mapping[str, timedelta] | None = None,
    ) -> None:
        self._db = db
        self._table = jobs_table
        self._handlers = handlers
        self._lease = lease
        self._concurrency = concurrency
        self._poll = poll
        self._leave = leave
        self._recurring = dict(recurring or {})
        self._name = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._held: dict[asyncio.Task[None], _Held] = {}
        self._wake = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Take and run jobs until `stop` is set, then hand back what runs and return.

        Outlives a database that goes away: what was running is dropped when its lease must be
        over, and taken up again when the database is back.
        """
        helpers = [
            asyncio.create_task(self._wake_on(stop)),
            asyncio.create_task(self._listen()),
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
                log.error("No jobs are taken for now: %s", error)
                idle = min(self._poll, 1.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(idle):
                    await self._wake.wait()

    async def _take(self) -> float | None:
        """Start what is due, as far as there is room; seconds until the next look is worth it.

        None: when a job ends, since there is no room before.
        """
        room = self._concurrency - len(self._held)
        if room <= 0:
            return None
        asked = time.monotonic()
        async with self._db.write() as connection:
            taken = await jobs.claim(
                connection,
                self._table,
                self._handlers.keys(),
                worker=self._name,
                lease=timedelta(seconds=self._lease),
                limit=room,
            )
        for job in taken:
            held = _Held(job, until=asked + self._lease)
            task = asyncio.create_task(self._run(held))
            self._held[task] = held
            task.add_done_callback(self._ended)
        if len(taken) == room:
            return None
        async with self._db.read() as connection:
            due = await jobs.next_due(connection, self._table, self._handlers.keys())
        # Never zero: what is due but locked by another worker would be asked for in a hot loop.
        return self._poll if due is None else min(self._poll, max(due, 0.05))

    async def _run(self, held: _Held) -> None:
        job = held.job
        try:
            if job.max_attempts is not None and job.attempts > job.max_attempts:
                await self._settle(held, "The worker died or hung on each attempt.")
                return
            try:
                await self._handlers[job.kind](job, JobContext(self._db, self._table, job))
            except JobLost:
                raise
            except Exception as error:
                log.exception("Job %s (%s), attempt %s, failed.", job.id, job.kind, job.attempts)
                await self._settle(held, f"{type(error).__name__}: {error}")
            else:
                await self._settle(held, None)
        except JobLost as lost:
            log.warning("%s", lost)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._held[task]
        self._wake.set()

    async def _settle(self, held: _Held, error: str | None) -> None:
        """Write down how the job ended, trying until the database takes it or the lease is over."""
        held.settling = True
        job = held.job
        while True:
            try:
                async with self._db.write() as connection:
                    if error is None:
                        await jobs.finish(connection, self._table, job)
                    else:
                        pause = timedelta(seconds=_pause_s(job.attempts))
                        await jobs.fail(connection, self._table, job, error, pause=pause)
                return
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

    async def _drain(self) -> None:
        running = {task: held for task, held in self._held.items() if not held.settling}
        for task in running:
            task.cancel()
        if self._held:
            # One that does not leave in time keeps its lease: nobody may take it while it runs.
            await asyncio.wait(list(self._held), timeout=self._leave)
        returned = [held.job for task, held in running.items() if task.cancelled()]
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
        while self._db.can_listen:
            with suppress(ServiceUnavailable):
                await self._db.listen(self._table.name, self._wake.set)
            await asyncio.sleep(self._poll)


def _pause_s(attempts: int) -> float:
    """1 s after the first failure, doubled each time, ten minutes at most, spread by a quarter.

    Spread, so that jobs that failed together of one cause do not come back together.
    """
    pause = min(2.0 ** min(attempts - 1, 30), PAUSE_AT_MOST_S)
    return pause * random.uniform(0.75, 1.25)  # noqa: S311 nothing secret about it
