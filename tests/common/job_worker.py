"""A worker in a process of its own, for tests that kill or stop it: `job_worker.py URL LEASE`.

A job of kind `slow` writes `started PID`, waits for `payload["seconds"]`, and writes `done PID`
if the job is still its own. One of kind `doomed` gives up, and is undone like that: `undoing PID`,
`undone PID why`. SIGTERM stops the worker.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from diptych_common.database import Database
from diptych_common.jobs import End, GiveUp, Job
from diptych_common.settings import Database as DatabaseSettings
from diptych_common.worker import JobContext, Kind, Worker

from tests.common.job_tables import jobs, notes


async def slow(job: Job, context: JobContext) -> None:
    async with context.db.write() as connection:
        await connection.execute(notes.insert().values(note=f"started {os.getpid()}"))
    await asyncio.sleep(job.payload["seconds"])
    async with context.write() as connection:
        await connection.execute(notes.insert().values(note=f"done {os.getpid()}"))


async def refuse(job: Job, context: JobContext) -> None:
    raise GiveUp("There is nothing to be done.")


async def undo(job: Job, context: JobContext, end: End) -> None:
    async with context.db.write() as connection:
        await connection.execute(notes.insert().values(note=f"undoing {os.getpid()}"))
    await asyncio.sleep(job.payload["seconds"])
    async with context.write() as connection:
        words = f"undone {os.getpid()} {end.why}"
        await connection.execute(notes.insert().values(note=words))


KINDS = {"slow": Kind(slow), "doomed": Kind(refuse, gave_up=undo)}


async def main(url: str, lease: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Database(DatabaseSettings(connection=url)) as db:
        await Worker(db, jobs, KINDS, lease=lease, poll=0.5).run(stop)


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
