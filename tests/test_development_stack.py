"""The parts of `make run` that need no whole stack: ports, guards, lock files."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dev import guard, places, ports
from dev.places import LOCKS, DevError

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    *(sys.executable, "-c"),
    "import signal, time; signal.signal(signal.SIGINT, lambda *_: print('asked', flush=True));"
    "print('up', flush=True); time.sleep(1); time.sleep(1)",
]


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.socket() as other:
        other.bind((ports.LOOPBACK, 0))
        other.listen()
        number = other.getsockname()[1]
        with pytest.raises(DevError) as refusal:
            ports.require_free(ports.Port("Keystone", "KEYSTONE_PORT", number))
    message = str(refusal.value)
    assert f"port {number} " in message
    assert "for Keystone" in message
    assert "make run KEYSTONE_PORT=" in message


def test_a_port_that_becomes_free_in_time_is_taken() -> None:
    with socket.socket() as other:
        other.bind((ports.LOOPBACK, 0))
        number = other.getsockname()[1]
    ports.require_free(ports.Port("Keystone", "KEYSTONE_PORT", number))


def test_a_variable_moves_its_port_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES_PORT", "19292")
    wanted = ports.wanted()
    assert wanted["images"].number == 19292
    assert wanted["artifacts"].number == 9494


@pytest.mark.parametrize("value", ["http", "0", "65536", "-1"])
def test_what_is_no_port_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("IMAGES_PORT", value)
    with pytest.raises(DevError, match=rf"IMAGES_PORT='{value}'"):
        ports.wanted()


def test_one_port_for_two_is_refused_by_both_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES_PORT", "5000")
    with pytest.raises(DevError, match="KEYSTONE_PORT and IMAGES_PORT"):
        ports.wanted()


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("IMAGES", "0", "IMAGES='0' is not a number of nodes (1 to 16)"),
        ("ARTIFACTS", "two", "ARTIFACTS='two' is not a number of nodes"),
        ("PROXY", "apache", "PROXY='apache' is neither of nginx, haproxy"),
        ("S3_PORT", "5000", "by KEYSTONE_PORT and S3_PORT"),
    ],
)
def test_make_stack_says_what_it_cannot_do(variable: str, value: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dev.stack"],
        env={"PYTHONPATH": "deploy", "PATH": os.environ["PATH"], variable: value},
        cwd=places.CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert told in done.stderr
    assert done.stderr.startswith("make stack: ")


def test_a_guard_stops_its_server_when_the_owner_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    owner = subprocess.Popen(["sleep", "600"])
    process = guard.guarded(SLEEP, log=log, environment={}, owner=owner.pid)
    wait_for(log, "up")
    owner.kill()
    owner.wait()
    assert process.wait(10) == 128 + signal.SIGTERM


def test_a_guard_asks_with_the_signal_that_the_server_knows(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = guard.guarded(STUBBORN, log=log, environment={}, stop_signal=signal.SIGINT)
    wait_for(log, "up")
    guard.stop(process)
    assert "asked" in log.read_text()
    assert process.returncode == 0


def test_a_guard_ends_with_its_server_and_its_code(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit(7)"]
    process = guard.guarded(command, log=tmp_path / "log", environment={})
    assert process.wait(10) == 7


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen(["true"])
    deadline = time.monotonic() + 10
    while places.is_alive(child.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.wait()


LOCK_FILES = sorted([*LOCKS.glob("*.lock"), places.CHECKOUT / "requirements.lock"])


@pytest.mark.parametrize("lock", LOCK_FILES, ids=lambda path: path.stem)
def test_a_lock_file_has_hashes_and_no_addresses(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert "--index" not in text
    requirements = re.findall(r"^[a-z0-9].*(?:\n .*)*", text, re.MULTILINE)
    assert requirements
    for requirement in requirements:
        assert "--hash=sha256:" in requirement
        assert re.match(r"[a-z0-9._-]+(\[[a-z0-9,_-]+\])?==", requirement)


def test_every_environment_can_be_locked_anew() -> None:
    assert {path.stem for path in LOCKS.glob("*.in")} == {p.stem for p in LOCKS.glob("*.lock")}
