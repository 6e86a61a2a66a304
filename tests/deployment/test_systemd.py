"""The systemd units are what systemd takes, and say what is true of the services."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from dev.places import CHECKOUT, VENV
from diptych_common import server

from tests.deployment.programs import SERVICES, require_command

FOLDER = CHECKOUT / "deploy" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
# Tenths; 100 is a service that systemd keeps from nothing.
MOST_EXPOSED = "15"


@pytest.fixture(scope="session")
def systemd_analyze(debian: Callable[[str, str], str]) -> str:
    return debian("systemd", "systemd-analyze")


def options(unit: Path) -> dict[str, str]:
    """The unit's options; of repeated ones the last."""
    lines = [line for line in unit.read_text().splitlines() if "=" in line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


def service_of(unit: Path) -> str:
    return unit.name.split("-")[1]


def test_there_is_one_of_each() -> None:
    parts = ("api", "migration", "worker")
    expected = {f"diptych-{name}-{part}.service" for name in SERVICES for part in parts}
    assert {unit.name for unit in UNITS} == expected


def test_systemd_takes_them(systemd_analyze: str, tmp_path: Path) -> None:
    for unit in UNITS:
        # Where the programs are here, for it looks whether they are there.
        text = unit.read_text().replace(f"/opt/diptych/{service_of(unit)}", str(VENV))
        (tmp_path / unit.name).write_text(text)
    command = [systemd_analyze, "verify", *sorted(tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_they_are_exposed_to_little(systemd_analyze: str, unit: Path) -> None:
    command = [systemd_analyze, "security", "--no-pager", "--offline=true"]
    done = subprocess.run(
        [*command, f"--threshold={MOST_EXPOSED}", unit], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_they_start_what_is_there_as_a_user_of_its_own(unit: Path) -> None:
    service = service_of(unit)
    said = options(unit)
    program, *arguments = shlex.split(said["ExecStart"])
    assert Path(program).name == f"diptych-{service}"
    require_command(service, arguments)
    users = (FOLDER / "diptych.sysusers.conf").read_text()
    assert said["User"] == said["Group"] == f"diptych-{service}"
    assert f"u {said['User']} " in users


@pytest.mark.parametrize("service", SERVICES)
def test_an_api_has_the_time_that_its_transfers_have(service: str) -> None:
    said = options(FOLDER / f"diptych-{service}-api.service")
    default = SERVICES[service].model().default
    needed = default.drain_delay + default.graceful_timeout + server.CLOSING_S
    assert int(said["TimeoutStopSec"]) > needed
    # Its processes hear of it from their supervisor, in its order.
    assert said["KillMode"] == "mixed"
