"""The commands around what a service hands in, where a real service cannot be made to misbehave."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from diptych_common import jobs
from diptych_common.application import Application
from diptych_common.command_line import BackgroundJobs, Service, commands
from diptych_common.sealing import Sealed
from diptych_common.settings import Loaded, ServiceDefault, ServiceSettings, load, option
from sqlalchemy.ext.asyncio import AsyncConnection
from typer.testing import CliRunner, Result

from tests.common import job_tables

# A service whose check does not let itself be cancelled, like a thread in a dead mount.
SCRIPT = """
import asyncio, contextlib, threading
from dataclasses import dataclass, field
from diptych_common.command_line import Service, StoreReports, commands
from diptych_common.settings import ServiceDefault, ServiceSettings, load, option


class Default(ServiceDefault, frozen=True):
    bind_port: int = option(1, "A port.")


class Settings(ServiceSettings, frozen=True):
    default: Default = Default()


@dataclass
class Report:
    lines: list = field(default_factory=lambda: ["told"])
    document: list = field(default_factory=lambda: [1, 2])
    is_well: bool = False
    hangs: bool = False


async def hang():
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


async def check(loaded, names, seconds):
    if "for-ever" in names:
        print("waiting", flush=True)
        try:
            await asyncio.sleep(3600)
        finally:
            print("cleaned up", flush=True)
            if "hangs" in names:
                check.left = asyncio.create_task(hang())
    elif "hangs" in names:
        check.left = asyncio.create_task(hang())
    return Report(is_well="well" in names, hangs="hangs" in names)


commands(
    Service(
        name="diptych-sample",
        model=Settings,
        load=lambda **files: load(Settings, env_prefix="SAMPLE", **files),
        create_app=None,
        rules=(),
        migrations=None,
        stores=StoreReports(describe=lambda loaded: Report(is_well=True), check=check),
    )
)()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "sample.py"
    file.write_text(SCRIPT)
    return file


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["well"], 0, "told\n"),
        (["--json"], 1, "[1,2]\n"),
        (["well", "hangs", "--json"], 0, "[1,2]\n"),
        (["hangs"], 1, "told\n"),
    ],
)
def test_a_check_ends_with_what_it_found_though_a_call_hangs(
    script: Path, arguments: list[str], code: int, told: str
):
    command = [sys.executable, script, "stores", "check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (code, told, "")


@pytest.mark.parametrize(
    ("number", "names"),
    [
        (signal.SIGINT, []),
        (signal.SIGTERM, []),
        (signal.SIGHUP, []),
        (signal.SIGTERM, ["hangs"]),
    ],
)
def test_a_signal_lets_a_check_clean_up(script: Path, number: signal.Signals, names: list[str]):
    command = [sys.executable, script, "stores", "check", "for-ever", *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(number)
        told, complaint = process.communicate(timeout=60)
    assert (told, complaint) == (b"cleaned up\n", b"Interrupted.\n")
    assert process.returncode == 128 + number


def test_stores_are_listed_without_being_asked(script: Path):
    command = [sys.executable, script, "stores", "list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [1, 2]


class Default(ServiceDefault, frozen=True):
    bind_port: int = option(1, "A port.")


class Settings(ServiceSettings, frozen=True):
    default: Default = Default()


@dataclass(frozen=True)
class Line:
    """The command line of a service with jobs, on a database of its own."""

    url: str

    def __call__(self, *arguments: str | int) -> Result:
        app = commands(
            Service(
                name="diptych-sample",
                model=Settings,
                load=partial(load, Settings, environ=self._environ, env_prefix="SAMPLE"),
                create_app=_refuse,
                rules=(),
                migrations=None,
                refusals=(LookupError,),
                jobs=BackgroundJobs(table=job_tables.jobs, can_retry=["k"]),
            )
        )
        return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)

    @property
    def _environ(self) -> dict[str, str]:
        return {"SAMPLE__DATABASE__CONNECTION": self.url}

    def change(self, *steps: Callable[[AsyncConnection], Awaitable[object]]) -> None:
        """Do these with the jobs, each in a transaction of its own."""

        async def run() -> None:
            async with job_tables.opened(self.url) as db:
                for step in steps:
                    async with db.write() as connection:
                        await step(connection)

        asyncio.run(run())

    def documents(self, *options: str) -> list[dict[str, Any]]:
        """What `jobs list --json` tells."""
        return json.loads(self("jobs", "list", "--json", *options).stdout)


def _refuse(loaded: Loaded[Settings]) -> Application:
    raise LookupError(f"with_worker is {loaded.settings.jobs.with_worker}")


@pytest.fixture
def line(empty_database: str) -> Line:
    line = Line(empty_database)
    line.change()
    return line


def added(kind: str = "k", **options: Any) -> Callable[[AsyncConnection], Awaitable[object]]:
    payload = options.pop("payload", {})
    return lambda connection: jobs.enqueue(connection, job_tables.jobs, kind, payload, **options)


def ended(why: jobs.Why | None) -> Callable[[AsyncConnection], Awaitable[object]]:
    """Take a job that is due and end it; None: it succeeds."""

    async def step(connection: AsyncConnection) -> None:
        (job,) = await jobs.claim(
            connection,
            job_tables.jobs,
            ["k", "import"],
            worker="w",
            lease=timedelta(minutes=1),
            limit=1,
        )
        if why is None:
            await jobs.finish(connection, job_tables.jobs, job)
        else:
            error = jobs.End(why, "http://user:sesame@host/ does not answer")
            await jobs.end(connection, job_tables.jobs, job, error)
            await jobs.close(connection, job_tables.jobs, job)

    return step


async def taken(connection: AsyncConnection) -> None:
    (job,) = await jobs.claim(
        connection, job_tables.jobs, ["k"], worker="w", lease=timedelta(minutes=1), limit=1
    )
    await jobs.report(connection, job_tables.jobs, job, {"done": 512, "total": 2048})


def test_jobs_are_listed_by_what_became_of_them(line: Line) -> None:
    assert line("jobs", "list").stdout == "No jobs.\n"
    line.change(
        *(added(), ended(None), added(), ended("failed"), added(), ended("cancelled")),
        *(added(max_attempts=3), taken, added("import", run_after=timedelta(hours=1))),
    )
    head, waiting, running = line("jobs", "list").stdout.splitlines()
    assert head.split() == ["ID", "KIND", "STATE", "ATTEMPTS", "WHEN", "PROGRESS", "ERROR"]
    assert re.fullmatch(r"5 +import +waiting +0 +due 20\S+Z", waiting)
    assert re.fullmatch(r"4 +k +running +1/3 +lease until 20\S+Z +512 of 2048 B \(25 %\)", running)
    assert [job["id"] for job in line.documents("--all")] == [5, 4, 3, 2, 1]
    assert [job["id"] for job in line.documents("--state", "failed")] == [2]
    assert [job["id"] for job in line.documents("--kind", "import")] == [5]
    both = line.documents("--state", "failed", "--state", "cancelled")
    assert [job["state"] for job in both] == ["cancelled", "failed"]
    assert line("jobs", "list", "--state", "lost").exit_code == 2
    short = line("jobs", "list", "--all", "--limit", 2).stdout.splitlines()
    assert len(short) == 4
    assert short[-1].startswith("There are more than these 2")


def test_a_job_is_shown_with_everything_but_its_secret(line: Line) -> None:
    payload = {"image_id": "é", "asked": {"uri": ["https://host/x?sig=sesame&a=b", 1]}}
    line.change(added(payload=payload, secret=b"sesame", priority=3))
    told = line("jobs", "show", 1).stdout
    shown = {"image_id": "é", "asked": {"uri": ["https://host/x?***", 1]}}
    assert "sesame" not in told
    assert '"image_id":"é"' in told
    assert "priority:     3\n" in told
    assert "has_secret:   true\n" in told
    document = json.loads(line("jobs", "show", 1, "--json").stdout)
    assert document["payload"] == shown
    assert document["created_at"].endswith("Z")
    assert "secret" not in document
    line.change(ended("failed"))
    told = line("jobs", "show", 1).stdout
    assert "does not answer" in told
    assert "sesame" not in told
    missing = line("jobs", "show", 9)
    assert (missing.exit_code, missing.stderr) == (1, "diptych-sample: There is no job 9.\n")


def test_a_job_is_cancelled_by_its_number(line: Line) -> None:
    async def recur(connection: AsyncConnection) -> None:
        await jobs.schedule(connection, job_tables.jobs, "sweep", timedelta(hours=1))

    line.change(added(), ended(None), added(), recur)
    assert line("jobs", "cancel", 2).exit_code == 0
    assert "waiting, to be cancelled" in line("jobs", "list").stdout
    for number, reason in (
        (1, "Job 1 (k) has ended: succeeded."),
        (3, "Job 3 (sweep) recurs: it cannot be cancelled."),
        (9, "There is no job 9."),
    ):
        refused = line("jobs", "cancel", number)
        assert (refused.exit_code, refused.stderr) == (1, f"diptych-sample: {reason}\n")


def test_a_job_that_failed_is_tried_again(line: Line) -> None:
    line.change(added(dedup_key="x"), ended("failed"))
    told = line("jobs", "retry", 1)
    assert (told.exit_code, told.stdout) == (0, "Job 1 is due now.\n")
    (job,) = line.documents()
    assert (job["state"], job["attempts"]) == ("waiting", 0)


def test_a_job_is_not_tried_again_where_that_makes_no_sense(line: Line) -> None:
    line.change(
        *(added(), ended(None), added("import"), ended("cancelled")),
        *(added(dedup_key="x"), ended("failed"), added(dedup_key="x")),
        *(added(priority=1), taken),
    )
    for number, reason in (
        (1, "Job 1 (k) needs no other try: succeeded."),
        (2, "Job 2 (import) has ended (cancelled), and what it did was undone: ask the service"
            " anew for what it was to do."),
        (3, "An equal job was enqueued since job 3 ended: see jobs list."),
        (5, "Job 5 (k) needs no other try: running."),
        (9, "There is no job 9."),
    ):  # fmt: skip
        refused = line("jobs", "retry", number)
        assert (refused.exit_code, refused.stderr) == (1, f"diptych-sample: {reason}\n")


def test_a_database_without_jobs_is_told(empty_database: str) -> None:
    told = Line(empty_database)("jobs", "list")
    assert told.exit_code == 2
    assert told.stderr.endswith("run: db upgrade\n")


def test_a_key_is_made_that_the_settings_take(line: Line) -> None:
    made = line("jobs", "key").stdout.strip()
    assert made != line("jobs", "key").stdout.strip()
    assert Sealed([made]).open(Sealed([made]).seal({"a": "b"})) == {"a": "b"}


@pytest.mark.parametrize(
    ("options", "runs_jobs"), [([], True), (["--without-worker"], False), (["--with-worker"], True)]
)
def test_who_starts_the_api_says_whether_it_runs_jobs(
    line: Line, options: list[str], runs_jobs: bool
) -> None:
    told = line("api", *options)
    assert (told.exit_code, told.stderr) == (2, f"diptych-sample: with_worker is {runs_jobs}\n")
