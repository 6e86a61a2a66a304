"""What one test run has once for all its processes: PostgreSQL, Keystone, Swift, and their place.

The first test that needs a server starts it, in whichever worker process that happens; the others
find it. The process that began the run stops them all at its end, and if it is killed, their guards
do.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from dev import barbican as dev_barbican
from dev import environments, places, ports, postgres
from dev import swift as dev_swift
from dev.barbican import Barbican
from dev.ceph import Ceph
from dev.keystone import Keystone
from dev.rabbitmq import Rabbitmq
from dev.seaweedfs import Seaweedfs

_VARIABLE = "DIPTYCH_TEST_FOLDER"
_PREFIX = "diptych-tests-"
_ROOM_IN_MEMORY = 2 << 30
# Kept for as long as this process lives: a server is not stopped where it was started.
_started: list["Running"] = []
_ENDPOINTS = {"image": "http://127.0.0.1:9292", "artifact": "http://127.0.0.1:9494"}


class Running(Protocol):
    """A server of `dev` that was started: `process` is its guard."""

    @property
    def process(self) -> subprocess.Popen[bytes]: ...


@dataclass(frozen=True, slots=True)
class _Guarded:
    """One of several processes of a server."""

    process: subprocess.Popen[bytes]


def prepare() -> None:
    """Make the folder of this run; its worker processes inherit its name."""
    memory = Path("/dev/shm")
    parents = [Path(tempfile.gettempdir())]
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM_IN_MEMORY:
        parents.insert(0, memory)
    for parent in parents:
        _sweep(parent)
    place = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parents[0]))
    # PostgreSQL may run as another user, who has to pass.
    place.chmod(0o711)
    os.environ[_VARIABLE] = str(place)


def stop() -> None:
    """Stop what this run has started and remove its folder; by the process that made it."""
    place = Path(os.environ.pop(_VARIABLE))
    for found in place.glob("*.json"):
        started = json.loads(found.read_text())
        for guard_pid in started.get("guards", [started.get("guard")]):
            _end(guard_pid)
    for server in _started:
        server.process.wait()
    shutil.rmtree(place, ignore_errors=True)
    shutil.rmtree(Path(tempfile.gettempdir()) / place.name, ignore_errors=True)


def leave() -> None:
    """Let what this process has started run on, for the others; by a process that leaves first."""
    for server in _started:
        # Popen complains of a child that is still running when it is forgotten.
        server.process.returncode = 0


def folder() -> Path:
    """The folder of this run."""
    return Path(os.environ[_VARIABLE])


def postgres_url() -> str:
    """SQLAlchemy's address of the run's PostgreSQL, database `postgres`, as its superuser.

    TEST_DATABASE_URL puts another server in its place; the user named there must be able to make
    databases.
    """
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        return "postgresql+asyncpg://" + given.partition("://")[2]

    def start() -> dict[str, object]:
        server = private_postgres("postgres")
        server.start(owner=_owner())
        _started.append(server)
        return {"guard": server.process.pid, "url": server.url()}

    return str(_once("postgres", start)["url"])


def private_postgres(name: str) -> postgres.Server:
    """A server of one's own, not started yet, to be killed or filled as one likes."""
    return postgres.Server(
        postgres.binaries(),
        data=folder() / name,
        port=ports.any_free(),
        options=postgres.FOR_TESTS,
    )


def keystone() -> Keystone:
    """The run's Keystone, started if it isn't yet; never stop this one."""
    root = folder() / "keystone"

    def start() -> dict[str, object]:
        port = ports.any_free()
        server = Keystone(root, port=port, endpoints=_ENDPOINTS)
        server.start(owner=_owner())
        _started.append(server)
        return {"guard": server.process.pid, "port": port}

    port = int(str(_once("keystone", start)["port"]))
    return Keystone(root, port=port, endpoints=_ENDPOINTS)


def seaweedfs() -> Seaweedfs:
    """The run's S3 server, started if it isn't yet; never stop this one."""
    root = folder() / "seaweedfs"

    def start() -> dict[str, object]:
        port = ports.any_free()
        server = Seaweedfs(root, port=port)
        server.start(owner=_owner())
        _started.append(server)
        return {"guard": server.process.pid, "port": port}

    return Seaweedfs(root, port=int(str(_once("seaweedfs", start)["port"])))


def swift() -> dev_swift.Swift:
    """The run's Swift, started if it isn't yet; never stop this one.

    It has a proxy for tempauth and one that asks the run's Keystone; all tests share the accounts
    and take containers of their own.
    """
    asked = keystone()

    def start() -> dict[str, object]:
        listening = dev_swift.Ports.any_free()
        server = private_swift("swift", listening=listening, keystone_url=asked.url)
        server.start(owner=_owner())
        _started.append(server)
        dev_swift.prepare_keystone(asked, server.keystone_proxy_url)
        return {"guard": server.process.pid, "ports": asdict(listening)}

    found = _once("swift", start)["ports"]
    assert isinstance(found, dict)
    return private_swift("swift", listening=dev_swift.Ports(**found), keystone_url=asked.url)


def rabbitmq() -> Rabbitmq:
    """The run's RabbitMQ, started if it isn't yet; never stop this one. Take topics of your own."""
    root = folder() / "rabbitmq"

    def start() -> dict[str, object]:
        port = ports.any_free()
        server = Rabbitmq(root, port=port)
        server.start(owner=_owner())
        _started.extend(_Guarded(each) for each in server.guards)
        return {"guards": [each.pid for each in reversed(server.guards)], "port": port}

    return Rabbitmq(root, port=int(str(_once("rabbitmq", start)["port"])))


def private_rabbitmq(name: str) -> Rabbitmq:
    """A RabbitMQ of one's own, not started yet, to be stopped as one likes."""
    return Rabbitmq(folder() / name, port=ports.any_free())


def barbican() -> Barbican:
    """The run's Barbican, which asks the run's Keystone, started if it isn't yet; never stop it."""
    asked = keystone()
    root = folder() / "barbican"

    def start() -> dict[str, object]:
        port = ports.any_free()
        server = Barbican(root, port=port, keystone_url=asked.url)
        dev_barbican.prepare_keystone(asked, server.url)
        server.start(owner=_owner())
        _started.append(server)
        return {"guard": server.process.pid, "port": port}

    port = int(str(_once("barbican", start)["port"]))
    return Barbican(root, port=port, keystone_url=asked.url)


def ceph() -> Ceph:
    """The run's Ceph, started if it isn't yet; never stop this one. Make pools of your own."""
    root = folder() / "ceph"

    def start() -> dict[str, object]:
        port = Ceph.free_port()
        server = Ceph(root, port=port)
        server.start(owner=_owner())
        return {**_several(server), "port": port}

    return Ceph(root, port=int(str(_once("ceph", start)["port"])))


def ceph_gateway() -> Ceph:
    """The same, with the gateway that speaks S3."""
    server = ceph()

    def start() -> dict[str, object]:
        server.start_gateway(owner=_owner())
        return _several(server)

    _once("ceph-gateway", start)
    return server


def private_ceph(name: str) -> Ceph:
    """A Ceph of one's own, not started yet, to be stopped as one likes."""
    return Ceph(folder() / name, port=Ceph.free_port())


def _several(server: Ceph) -> dict[str, object]:
    _started.extend(server.daemons)
    return {"guards": [daemon.process.pid for daemon in reversed(server.daemons)]}


def private_swift(
    name: str,
    *,
    listening: dev_swift.Ports | None = None,
    keystone_url: str | None = None,
    max_file_size: int = 5 * dev_swift.GIB,
) -> dev_swift.Swift:
    """A Swift of one's own, not started yet."""
    return dev_swift.Swift(
        _with_attributes() / name,
        ports=listening or dev_swift.Ports.any_free(),
        keystone_url=keystone_url,
        max_file_size=max_file_size,
    )


def _with_attributes() -> Path:
    """A folder of this run whose files may have extended attributes: Swift's need some."""
    probe = folder() / "attributes"
    probe.touch()
    try:
        os.setxattr(probe, "user.diptych", b"")
    except OSError:
        # tmpfs has them from Linux 6.6 on only.
        place = Path(tempfile.gettempdir()) / folder().name
        place.mkdir(exist_ok=True)
        return place
    return folder()


def _once(name: str, start: Callable[[], Mapping[str, object]]) -> Mapping[str, object]:
    started = folder() / f"{name}.json"
    with environments.exclusive(folder() / f"{name}.lock"):
        if not started.exists():
            started.write_text(json.dumps(start()))
        return json.loads(started.read_text())


def _owner() -> int:
    return _pid_in(folder())


def _pid_in(place: Path) -> int:
    return int(place.name.removeprefix(_PREFIX).partition("-")[0])


def _sweep(parent: Path) -> None:
    """Remove what runs that were killed have left."""
    for left in parent.glob(f"{_PREFIX}*"):
        if left.stat().st_uid == os.geteuid() and not places.is_alive(_pid_in(left)):
            shutil.rmtree(left, ignore_errors=True)


def _end(guard_pid: int) -> None:
    try:
        os.kill(guard_pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + 30
    while places.is_alive(guard_pid) and time.monotonic() < deadline:
        time.sleep(0.02)
