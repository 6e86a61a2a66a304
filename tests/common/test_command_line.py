"""The commands around what a service hands in, where a real service cannot be made to misbehave."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

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
