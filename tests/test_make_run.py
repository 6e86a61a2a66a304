"""`make run` and `make stack` from a fresh clone in an empty home, used as a person would."""

import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from dev import balancers, places, ports
from dev.places import CHECKOUT
from dev.rabbitmq import PACKAGE as RABBITMQ

VARIABLES = (
    *("POSTGRES_PORT", "KEYSTONE_PORT", "IMAGES_PORT", "ARTIFACTS_PORT"),
    *("IMAGES_METRICS_PORT", "ARTIFACTS_METRICS_PORT", "S3_PORT", "RABBITMQ_PORT"),
)
DOWNLOADS_S = 300

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@dataclass
class Clone:
    """A fresh clone, the home of its user, and ports of its own."""

    path: Path
    home: Path
    ports: dict[str, int]

    def environment(self) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            # What reaches the registries stays; nothing of the surrounding checkout does.
            if name not in ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "CI")
            and not name.startswith(("OS_", "DIPTYCH_", "PYTEST_", "COV_"))
        }
        chosen = {name: str(number) for name, number in self.ports.items()}
        return {**kept, "HOME": str(self.home), "UV_CACHE_DIR": _uv_cache(), **chosen}

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments],
            cwd=self.path,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=DOWNLOADS_S,
        )

    def client(self, *command: str, cloud: str = "diptych") -> str:
        done = subprocess.run(
            [self.path / ".dev/envs/clients/bin" / command[0], *command[1:]],
            env={
                **self.environment(),
                "OS_CLOUD": cloud,
                "OS_CLIENT_CONFIG_FILE": str(self.path / ".dev/run/clouds.yaml"),
                "PYTHONPATH": str(self.path / ".dev/envs/artifactclient"),
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def free(self) -> bool:
        return all(ports.is_free(number) for number in self.ports.values())


class Running:
    """`make run`, or what else is asked of make, in a terminal of its own."""

    def __init__(self, clone: Clone, *asked: str) -> None:
        self._output = clone.home / "output"
        self._keyboard, terminal = pty.openpty()
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                ["make", *(asked or ["run"])],
                cwd=clone.path,
                env=clone.environment(),
                stdin=terminal,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        os.close(terminal)

    @property
    def text(self) -> str:
        return self._output.read_text()

    def wait_until_up(self) -> float:
        """Wait for the announcement; the seconds that it says the start took."""
        return float(self.wait_for(r"(?:Diptych|The stack) is up \(([\d.]+) s\)")[1])

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + DOWNLOADS_S
        while not (found := re.search(pattern, self.text)):
            assert self._process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.1)
        return found

    def type(self, line: str) -> None:
        os.write(self._keyboard, f"{line}\n".encode())

    def end(self, number: signal.Signals) -> None:
        """Send the signal to all of the terminal's processes, as Ctrl-C does, and wait."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)
            self._process.wait(60)
            os.close(self._keyboard)


def _uv_cache() -> str:
    # Packages are downloaded once for a machine, not once for a test.
    uv = places.VENV / "bin" / "uv"
    return subprocess.run([uv, "cache", "dir"], capture_output=True, text=True).stdout.strip()


def _some_ports(count: int) -> Sequence[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind((ports.LOOPBACK, 0))
    numbers = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return numbers


@pytest.fixture(scope="module", params=["anywhere", "in a private folder"])
def clone(request: pytest.FixtureRequest) -> Generator[Clone]:
    if request.param != "anywhere" and os.geteuid() != 0:
        pytest.skip("only for root does it matter whether others reach the checkout")
    # Not one of pytest's folders, which are all private, now or as soon as another run begins.
    place = Path(tempfile.mkdtemp(prefix="diptych-clone-"))
    place.chmod(0o755 if request.param == "anywhere" else 0o700)
    home = place / "home"
    home.mkdir()
    path = place / "diptych"
    subprocess.run(["git", "clone", "--quiet", CHECKOUT, path], check=True)
    numbers = dict(zip(VARIABLES, _some_ports(len(VARIABLES)), strict=True))
    fresh = Clone(path, home, numbers)
    yield fresh
    fresh.make("clean-data")
    shutil.rmtree(place)


@pytest.fixture
def running(clone: Clone) -> Generator[Running]:
    started = Running(clone)
    yield started
    started.end(signal.SIGTERM)


def test_a_fresh_clone_serves_real_clients(clone: Clone, running: Running) -> None:
    assert running.wait_until_up() < 90
    disk = clone.home / "disk.raw"
    disk.write_bytes(os.urandom(3 << 20))
    formats = ("--disk-format", "raw", "--container-format", "bare")
    clone.client("openstack", "image", "create", "--file", str(disk), *formats, "kept")
    assert "kept" in clone.client("openstack", "image", "list")
    assert "kept" not in clone.client("openstack", "image", "list", cloud="diptych-other")
    assert "kept" in clone.client("openstack", "image", "list", "--all", cloud="diptych-admin")
    copy = clone.home / "copy.raw"
    clone.client("openstack", "image", "save", "--file", str(copy), "kept")
    assert copy.read_bytes() == disk.read_bytes()
    clone.client(
        *("openstack", "image", "create", "--import", "--file", str(disk), *formats, "imported")
    )
    show = ("openstack", "image", "show", "imported", "-c", "status", "-f", "value")
    deadline = time.monotonic() + 30
    while (status := clone.client(*show).strip()) != "active":
        assert status == "importing"
        assert time.monotonic() < deadline
    fields = ("-p", "disk_format=raw", "-p", "container_format=bare")
    clone.client("openstack", "artifact", "create", "images", "kept", *fields)
    clone.client("openstack", "artifact", "upload", "images", "kept", "--file", str(disk))
    copy.unlink()
    clone.client("openstack", "artifact", "download", "images", "kept", "--file", str(copy))
    assert copy.read_bytes() == disk.read_bytes()
    catalog = clone.client("openstack", "catalog", "list")
    assert f":{clone.ports['IMAGES_PORT']}" in catalog
    assert f":{clone.ports['ARTIFACTS_PORT']}" in catalog
    for name in ("images", "artifacts"):
        assert "unknown" not in (clone.path / f".dev/run/{name}.log").read_text()


def test_glance_finds_its_way_with_openrc(clone: Clone, running: Running) -> None:
    running.wait_until_up()
    done = subprocess.run(
        ["/bin/sh", "-ec", ". .dev/run/openrc; exec .dev/envs/clients/bin/glance image-list"],
        cwd=clone.path,
        env=clone.environment(),
        capture_output=True,
        text=True,
    )
    assert "kept" in done.stdout, done.stderr


def test_ctrl_c_stops_all_and_the_next_start_has_the_data(clone: Clone, running: Running) -> None:
    running.wait_until_up()
    running.end(signal.SIGINT)
    assert "Stopped." in running.text
    assert clone.free()
    again = Running(clone)
    try:
        assert again.wait_until_up() < 30
        assert "kept" in clone.client("openstack", "image", "list")
    finally:
        again.end(signal.SIGTERM)


def test_killed_outright_it_leaves_nothing_running(clone: Clone, running: Running) -> None:
    running.wait_until_up()
    running.end(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while not clone.free():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_it_names_the_port_that_is_taken(clone: Clone) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((ports.LOOPBACK, clone.ports["IMAGES_PORT"]))
        other.listen()
        done = clone.make("run")
    assert done.returncode != 0
    assert f"port {clone.ports['IMAGES_PORT']} " in done.stderr
    assert "IMAGES_PORT=" in done.stderr
    assert clone.free()


def test_a_second_one_beside_it_is_refused(clone: Clone, running: Running) -> None:
    running.wait_until_up()
    assert "running already" in clone.make("run").stderr


def test_files_stay_in_the_checkout_unless_others_cannot_reach_it(
    clone: Clone, running: Running
) -> None:
    running.wait_until_up()
    if os.geteuid() == 0 and clone.path.parent.stat().st_mode & 0o001 == 0:
        elsewhere = re.search(r"/var/lib/diptych-dev/\w+", running.text)
        assert elsewhere
        assert (Path(elsewhere[0]) / "postgres" / "PG_VERSION").exists()
    else:
        assert (clone.path / ".dev/postgres/PG_VERSION").exists()
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone.path, capture_output=True, text=True
    )
    assert status.stdout == ""


def test_a_stack_does_what_is_typed_until_ctrl_c(
    clone: Clone, debian: Callable[[str, str], str]
) -> None:
    debian(RABBITMQ, "rabbitmqctl")
    debian(balancers.PACKAGES["nginx"], "nginx")
    stack = Running(clone, "stack", "IMAGES=3", "ARTIFACTS=1")
    try:
        stack.wait_until_up()
        nodes = re.findall(r"^    ((?:images|artifacts)-\d+) +pid", stack.text, re.MULTILINE)
        assert nodes == ["images-1", "images-2", "images-3", "artifacts-1"]
        stack.type("add images")
        added = stack.wait_for(r"images-4 serves at (http://\S+), and behind the balancer")[1]
        assert ports.answers(f"{added}/livez")
        stack.type("add compute")
        stack.wait_for("'add compute' is none of")
        stack.end(signal.SIGINT)
        assert "Stopped." in stack.text
        assert not ports.answers(f"{added}/livez")
        assert clone.free()
    finally:
        stack.end(signal.SIGTERM)
