"""What is compared, side by side: ours and theirs on one PostgreSQL, one Keystone.

Each service has two processes, a file store, a database of its own and real tokens. Glance and
Glare remember tokens in memcached, as their installation guides have it; ours remember them in
each process.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import psutil
from dev import guard, ports, postgres
from dev.keystone import Keystone
from dev.places import DevError
from diptych_common import migrations

from tests import databases, debian
from tests.artifacts.service import configuration as artifacts_configuration
from tests.clients.conftest import by_keystone
from tests.compat import glance, glare
from tests.images.service import configuration as images_configuration

PROCESSES = 2

# Everything fits into memory and commits are durable.
_POSTGRES = {
    "shared_buffers": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "512MB",
    "max_wal_size": "8GB",
    "max_connections": "200",
}


@dataclass(frozen=True)
class Rig:
    """What the services share, and who asks them: a member of `project` with `token`."""

    folder: Path
    server: postgres.Server
    keystone: Keystone
    memcached: str
    token: str
    project: str

    @property
    def postgres(self) -> psutil.Process:
        """PostgreSQL's first process."""
        return psutil.Process(self.server.pid)


@dataclass(frozen=True)
class Server:
    """A running service; `process` is the parent of all its processes.

    `headers` are a caller's, `folder` is where it keeps its files, `database` SQLAlchemy's address.
    """

    name: str
    url: str
    process: psutil.Process
    headers: Mapping[str, str]
    folder: Path
    database: str


@dataclass(frozen=True)
class Pair:
    """Two that do the same work."""

    ours: Server
    theirs: Server
    postgres: psutil.Process

    @property
    def both(self) -> tuple[Server, Server]:
        """In the order in which they take their turns."""
        return self.ours, self.theirs


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a process and all below it, those that have ended included.

    What has ended counts with the parent that waited for it, as all of these servers do.
    """
    while True:
        try:
            times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
        except psutil.NoSuchProcess:
            if not process.is_running():
                raise
            continue  # one ended meanwhile: its parent has its time now
        return sum(one.user + one.system + one.children_user + one.children_system for one in times)


def pss(process: psutil.Process) -> int:
    """Bytes of memory of a process and all below it, shared pages divided among who has them."""
    processes = (process, *process.children(recursive=True))
    return sum(one.memory_full_info().pss for one in processes)


@contextmanager
def rig(folder: Path) -> Generator[Rig]:
    """Start what the services need, in this folder."""
    # PostgreSQL may run as another user, who has to pass.
    folder.chmod(0o711)
    server = postgres.Server(
        postgres.binaries(), data=folder / "postgres", port=ports.any_free(), options=_POSTGRES
    )
    server.start()
    try:
        keystone = Keystone(folder / "keystone", port=ports.any_free(), endpoints={})
        keystone.start()
        try:
            with _memcached(folder) as memcached:
                token = keystone.token("demo", "demo")
                yield Rig(folder, server, keystone, memcached, token, keystone.project_id("demo"))
        finally:
            keystone.stop()
    finally:
        server.stop()


@contextmanager
def images_pair(
    rig: Rig, name: str, *, options: Mapping[str, str] | None = None
) -> Generator[Pair]:
    """Our images service and Glance, both empty, in a folder of this name.

    `options` are more settings of ours, as `tests.images.service.configuration` takes them.
    """
    folder = rig.folder / name
    with (
        our_images(rig, folder / "ours", options=options) as ours,
        _glance(rig, folder / "glance") as theirs,
    ):
        yield Pair(ours, theirs, rig.postgres)


@contextmanager
def artifacts_pair(
    rig: Rig, name: str, *, options: Mapping[str, str] | None = None
) -> Generator[Pair]:
    """As `images_pair`, our artifacts service and Glare."""
    folder = rig.folder / name
    with (
        _ours("artifacts", rig, folder / "ours", options or {}) as ours,
        _glare(rig, folder / "glare") as theirs,
    ):
        yield Pair(ours, theirs, rig.postgres)


@contextmanager
def our_images(
    rig: Rig, folder: Path, *, options: Mapping[str, str] | None = None
) -> Generator[Server]:
    """Our images service alone."""
    with _ours("images", rig, folder, options or {}) as server:
        yield server


@contextmanager
def _ours(
    service: Literal["images", "artifacts"], rig: Rig, folder: Path, options: Mapping[str, str]
) -> Generator[Server]:
    folder.mkdir(parents=True)
    database = _database(rig)
    asyncio.run(migrations.upgrade(database, package=f"diptych_{service}.migrations"))
    port = ports.any_free()
    url = f"http://{ports.LOOPBACK}:{port}"
    settings = {
        "DEFAULT__WORKERS": str(PROCESSES),
        "DEFAULT__BIND_PORT": str(port),
        "METRICS__BIND_PORT": "0",
        "JOBS__WITH_WORKER": "true",
        "OSLO_MESSAGING_NOTIFICATIONS__DRIVER": "noop",
        **by_keystone(rig.keystone),
        **options,
    }
    if service == "images":
        environ = images_configuration(database, folder, **settings)
    else:
        settings["KEYSTONE_AUTHTOKEN__SERVICE_TYPE"] = "artifact"
        environ = artifacts_configuration(database, folder, **settings)
    log = folder / "log"
    process = guard.guarded(
        [str(Path(sys.executable).parent / f"diptych-{service}"), "api"],
        log=log,
        environment={**os.environ, **environ},
    )
    try:
        guard.await_start(process, lambda: _lives(url), name="ours", log=log, within_s=120)
        yield _server("ours", url, process, rig, folder / "fast", database)
    finally:
        guard.stop(process)


@contextmanager
def _glance(rig: Rig, folder: Path) -> Generator[Server]:
    database = _database(rig)
    served = glance.started(
        folder,
        database=database,
        keystone=rig.keystone,
        backends="fast:file",
        sections=_remembering(rig),
        processes=PROCESSES,
    )
    try:
        yield _server("Glance", served.url, served.process, rig, folder / "fast", database)
    finally:
        served.stop()


@contextmanager
def _glare(rig: Rig, folder: Path) -> Generator[Server]:
    database = _database(rig)
    served = asyncio.run(
        glare.started(
            folder,
            database=database,
            keystone=rig.keystone,
            sections=_remembering(rig),
            workers=PROCESSES,
        )
    )
    try:
        yield _server("Glare", served.url, served.process, rig, folder / "artifacts", database)
    finally:
        served.stop()


def _remembering(rig: Rig) -> str:
    return f"[keystone_authtoken]\nmemcached_servers = {rig.memcached}\n"


def _server(
    name: str,
    url: str,
    guarding: subprocess.Popen[bytes],
    rig: Rig,
    folder: Path,
    database: str,
) -> Server:
    (process,) = psutil.Process(guarding.pid).children()
    return Server(name, url, process, {"X-Auth-Token": rig.token}, folder, database)


def _database(rig: Rig) -> str:
    return asyncio.run(databases.create(rig.server.url()))


def _lives(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def _memcached(folder: Path) -> Generator[str]:
    found = debian.program("memcached", "memcached")
    if found is None:
        raise DevError("needs memcached: install Debian's package of this name")
    port = ports.any_free()
    # It does not run as root.
    user = ("-u", "nobody") if os.geteuid() == 0 else ()
    log = folder / "memcached.log"
    process = guard.guarded(
        [found, *user, "-l", ports.LOOPBACK, "-p", str(port), "-U", "0"], log=log, environment={}
    )
    try:
        guard.await_start(process, lambda: _listens(port), name="memcached", log=log, within_s=20)
        yield f"{ports.LOOPBACK}:{port}"
    finally:
        guard.stop(process)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((ports.LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
