"""nginx and HAProxy of Debian's packages, with the samples of `deploy/proxy` as they are.

What the samples leave to a site is written here: ports, the nodes, the directories of file stores.
Both take new nodes, and leave those that are drained, without a restart.
"""

import csv
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from dev import guard, ports
from dev.places import CHECKOUT, DevError
from dev.services import SERVICES, Service

Kind = Literal["nginx", "haproxy"]
# kind: the Debian package with the program of this name.
PACKAGES: Mapping[Kind, str] = {"nginx": "nginx-light", "haproxy": "haproxy"}
# Where nginx has the files of stores, for the services alone.
STORED = "/_store"
SAMPLES = CHECKOUT / "deploy" / "proxy"
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_WITHIN_S = 30
# What a server added by the runtime API has to be told again of `default-server`.
_CHECK = "check inter 2s fastinter 500ms downinter 1s rise 2 fall 2"


@dataclass(frozen=True, slots=True)
class Place:
    """A node as a balancer knows it; one that is drained gets no new requests."""

    name: str
    service: Service
    port: int
    is_drained: bool = False


@dataclass(frozen=True, slots=True)
class Front:
    """One service as clients find it: the port, and the directories of its file stores."""

    port: int
    stores: Sequence[Path] = ()

    @property
    def url(self) -> str:
        """Where clients come."""
        return f"http://{ports.LOOPBACK}:{self.port}"


class Balancer(Protocol):
    """What stands in front of both services; `log` is where it complains."""

    log: Path

    def start(self, places: Sequence[Place], *, owner: int | None = None) -> None:
        """Start with these nodes, and return when connections are taken."""
        ...

    def follow(self, places: Sequence[Place]) -> None:
        """Have all requests that begin from now on go to these nodes, and to no drained one.

        Nodes may be added and drained, and come back. What is running goes on. DevError if it
        doesn't come to that.
        """
        ...

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The guard: it ends when the server does."""
        ...

    def stop(self) -> None:
        """Stop, whatever is running."""
        ...


def program(kind: Kind) -> str | None:
    """Where the program is, None if it is not installed."""
    return shutil.which(kind, path=_PATH)


def balancer(kind: Kind, root: Path, fronts: Mapping[Service, Front]) -> Balancer:
    """One that keeps its files in `root`, a folder that is made."""
    if program(kind) is None:
        raise DevError(f"needs {kind}: install Debian's {PACKAGES[kind]}")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Nginx(root, fronts) if kind == "nginx" else Haproxy(root, fronts)


class Nginx:
    """nginx with `nginx.conf` in the http context, as Debian and its own image have `conf.d`."""

    def __init__(self, root: Path, fronts: Mapping[Service, Front]) -> None:
        self.root = root
        self.log = root / "error.log"
        self.access_log = root / "access.log"
        self._fronts = fronts
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self, places: Sequence[Place], *, owner: int | None = None) -> None:
        """See Balancer."""
        site = self.root / "diptych-site"
        site.mkdir(exist_ok=True)
        shared = self.root / "diptych"
        shared.unlink(missing_ok=True)
        shared.symlink_to(SAMPLES)
        for service, front in self._fronts.items():
            (site / f"{service}.site").write_text(self._site(front))
        self._write_nodes(places)
        # As another user its workers could not read the files of ours that they are to send.
        user = "user root;\n" if os.geteuid() == 0 else ""
        (self.root / "nginx.conf").write_text(
            f"{user}worker_processes 2;\n"
            "daemon off;\n"
            f'pid "{self.root}/nginx.pid";\n'
            "events { worker_connections 1024; }\n"
            "http {\n"
            + "".join(
                f'  {kind}_temp_path "{self.root}/{kind}";\n'
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            + "  default_type application/octet-stream;\n"
            f'  include "{SAMPLES}/nginx.conf";\n'
            "}\n"
        )
        self._guard = guard.guarded(
            [
                *(str(program("nginx")), "-p", str(self.root), "-e", str(self.log)),
                *("-c", str(self.root / "nginx.conf")),
            ],
            log=self.log,
            environment={"PATH": _PATH},
            owner=owner,
        )
        _await_ports(self._guard, self._fronts, name="nginx", log=self.log)

    def follow(self, places: Sequence[Place]) -> None:
        """See Balancer. Workers that have transfers to finish stay for these alone."""
        master = guard.child(self.process)
        before = guard.children(master)
        self._write_nodes(places)
        os.kill(master, signal.SIGHUP)
        deadline = time.monotonic() + _WITHIN_S
        while any(_takes_connections(worker) for worker in before) or not any(
            _takes_connections(worker) for worker in guard.children(master)
        ):
            if time.monotonic() > deadline:
                raise DevError(f"nginx did not take its nodes; {guard.last_words(self.log)}")
            time.sleep(0.01)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """See Balancer."""
        return guard.started(self._guard)

    def stop(self) -> None:
        """See Balancer."""
        guard.stop(self._guard)

    def _write_nodes(self, places: Sequence[Place]) -> None:
        for service in SERVICES:
            lines = [
                # A node that is alone is never taken for dead.
                f"server {ports.LOOPBACK}:{place.port} max_fails=3 fail_timeout=5s"
                f"{' down' if place.is_drained else ''};\n"
                for place in places
                if place.service == service
            ]
            (self.root / "diptych-site" / f"{service}.nodes").write_text("".join(lines))

    def _site(self, front: Front) -> str:
        directories = "".join(
            f'location "{STORED}{store}/" {{\n'
            f'    include diptych/stored-files.conf;\n    alias "{store}/";\n}}\n'
            for store in front.stores
        )
        return (
            f"listen {ports.LOOPBACK}:{front.port};\n"
            f'access_log "{self.access_log}" diptych;\n{directories}'
        )


class Haproxy:
    """HAProxy with `haproxy.cfg`, and nodes that it is told of by its runtime API."""

    def __init__(self, root: Path, fronts: Mapping[Service, Front]) -> None:
        self.root = root
        self.log = root / "output.log"
        self._fronts = fronts
        # Not in `root`: the name of a socket has to be short.
        self._private = Path(tempfile.gettempdir()) / f"diptych-haproxy-{os.getpid()}-{id(self)}"
        self._socket = self._private / "admin.sock"
        self._known: set[str] = set()
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self, places: Sequence[Place], *, owner: int | None = None) -> None:
        """See Balancer."""
        self._private.mkdir(mode=0o700)
        self._write_site(places)
        self._guard = guard.guarded(
            [
                *(str(program("haproxy")), "-db"),
                *("-f", str(SAMPLES / "haproxy.cfg"), "-f", str(self.root / "haproxy-site.cfg")),
            ],
            log=self.log,
            environment={
                "PATH": _PATH,
                "LOG_ADDRESS": "stdout",
                **{
                    f"{service.upper()}_BIND": f"{ports.LOOPBACK}:{front.port}"
                    for service, front in self._fronts.items()
                },
            },
            owner=owner,
        )
        _await_ports(self._guard, self._fronts, name="HAProxy", log=self.log)
        self._await_states(places)

    def follow(self, places: Sequence[Place]) -> None:
        """See Balancer. That a node is drained HAProxy sees by the node's drain file."""
        for place in places:
            if place.name not in self._known:
                name = f"{place.service}/{place.name}"
                address = f"{ports.LOOPBACK}:{place.port}"
                self._command(
                    f"add server {name} {address} {_CHECK}; "
                    f"enable server {name}; enable health {name}"
                )
        # For its next start.
        self._write_site(places)
        self._await_states(places)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """See Balancer."""
        return guard.started(self._guard)

    def stop(self) -> None:
        """See Balancer."""
        guard.stop(self._guard)
        shutil.rmtree(self._private, ignore_errors=True)

    def _write_site(self, places: Sequence[Place]) -> None:
        backends = "".join(
            f"backend {service} from diptych\n"
            + "".join(
                f"    server {place.name} {ports.LOOPBACK}:{place.port}\n"
                for place in places
                if place.service == service
            )
            for service in SERVICES
        )
        (self.root / "haproxy-site.cfg").write_text(
            "global\n"
            f"    stats socket {self._socket} mode 600 level admin expose-fd listeners\n"
            f"{backends}"
        )
        self._known = {place.name for place in places}

    def _await_states(self, places: Sequence[Place]) -> None:
        """Wait until HAProxy sees which nodes are drained, and which are not."""
        wanted = {place.name: not place.is_drained for place in places}
        deadline = time.monotonic() + _WITHIN_S
        while (seen := self._states()) != wanted:
            if time.monotonic() > deadline:
                raise DevError(f"HAProxy sees {seen}, not {wanted}; {guard.last_words(self.log)}")
            time.sleep(0.05)

    def _states(self) -> dict[str, bool]:
        """server: whether it gets requests."""
        rows = csv.DictReader(self._command("show stat -1 4 -1").removeprefix("# ").splitlines())
        return {row["svname"]: row["status"].startswith("UP") for row in rows}

    def _command(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\n".encode())
            with connection.makefile() as answer:
                return answer.read()


def _takes_connections(worker: int) -> bool:
    """Whether a worker of nginx does; one that only finishes what it has begun says so."""
    try:
        name = Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return False
    return name.startswith(b"nginx: worker process") and b"shutting down" not in name


def _await_ports(
    started: subprocess.Popen[bytes], fronts: Mapping[Service, Front], *, name: str, log: Path
) -> None:
    guard.await_start(
        started,
        lambda: not any(ports.is_free(front.port) for front in fronts.values()),
        name=name,
        log=log,
        within_s=_WITHIN_S,
    )
