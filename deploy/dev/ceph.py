"""A real Ceph for developers and tests: one node on loopback, everything in memory.

`python -m dev.ceph FOLDER` starts one that keeps its files there, until Ctrl-C.

Its programs are Debian's (`PACKAGES`), run as whoever starts them; what it holds is gone when it
stops. The Python bindings among them are modules for Debian's own Python: `bindings` makes those
two importable for another interpreter of the same version, without the rest of its packages.
"""

import os
import random
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

from dev import guard, ports
from dev.places import DevError

PACKAGES = (
    "ceph-mon",
    "ceph-mgr",
    "ceph-osd",
    "ceph-common",
    "radosgw",
    "python3-rados",
    "python3-rbd",
)
PROGRAMS = ("ceph-mon", "ceph-mgr", "ceph-osd", "ceph", "rbd", "radosgw", "radosgw-admin")
# name: what the monitors, the OSDs and the manager let it do. `glance` has the rights that Ceph's
# guide for OpenStack gives it, in all pools; `reader` has too few.
USERS: Mapping[str, Mapping[str, str]] = {
    "admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "glance": {"mon": "profile rbd", "osd": "profile rbd", "mgr": "profile rbd"},
    "nova": {"mon": "profile rbd", "osd": "profile rbd pool=vms, profile rbd-read-only"},
    "reader": {"mon": "profile rbd", "osd": "profile rbd-read-only"},
}
POOLS = ("images", "vms")
# The memory that objects may take, which is taken when they do.
ROOM = 2 << 30
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
_START_WITHIN_S = 120
# The monitor listens on the first port, the gateway on the last, OSD and manager between them.
_PORTS = 16
_DEBIANS = Path("/usr/lib/python3/dist-packages")


def missing() -> list[str]:
    """The programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]


def bindings(place: Path) -> Path:
    """A folder, made in `place`, with the modules rados and rbd alone.

    Raises DevError where there are none for this interpreter.
    """
    folder = place / "ceph-bindings"
    folder.mkdir(exist_ok=True)
    for module in ("rados", "rbd"):
        # The name says for which Python: rados.cpython-311-x86_64-linux-gnu.so.
        fitting = f"{module}.{sys.implementation.cache_tag}-*.so"
        found = next(_DEBIANS.glob(fitting), None)
        if found is None:
            raise DevError(
                f"there is no {fitting} in {_DEBIANS}: Debian's python3-{module} is not installed, "
                f"or is for another Python than this ({sys.version.split()[0]})"
            )
        link = folder / found.name
        if not link.is_symlink():
            link.symlink_to(found)
    return folder


@dataclass(frozen=True, slots=True)
class Daemon:
    """One of the processes of a cluster; `process` is its guard."""

    name: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The pid of the daemon itself."""
        return guard.child(self.process)


class Ceph:
    """One cluster with the pools `images` and `vms`; `conf` is the file that clients read.

    `root` holds its files. `gateway_url` is where S3 is spoken once `start_gateway` was called, by
    the key `access` and `secret`. The ports are `port` and the fifteen after it.
    """

    access = "dev-gateway"
    secret = "devSecretOfTheGateway"

    def __init__(self, root: Path, *, port: int) -> None:
        self.root = root
        self.conf = root / "ceph.conf"
        self.port = port
        self.gateway_url = f"http://{ports.LOOPBACK}:{port + _PORTS - 1}"
        self.daemons: list[Daemon] = []

    @staticmethod
    def free_port() -> int:
        """A port that can be `port`: it and those after it were free a moment ago."""
        for _ in range(1000):
            first = random.randrange(20_000, 32_000 - _PORTS)
            if all(ports.is_free(number) for number in range(first, first + _PORTS)):
                return first
        raise DevError(f"there are no {_PORTS} free ports in a row")

    def start(self, *, owner: int | None = None) -> None:
        """Start an empty cluster, and return when its pools can be used: about 12 s.

        It stops by itself when the process `owner` (our own, if None) is gone. Raises DevError.
        """
        lacking = missing()
        if lacking:
            raise DevError(f"needs {', '.join(lacking)}: install Debian's {' '.join(PACKAGES)}")
        shutil.rmtree(self.root, ignore_errors=True)
        for name in ("mon", "mgr", "osd", "rgw", "run", "log"):
            (self.root / name).mkdir(parents=True)
        fsid = str(uuid.uuid4())
        self.conf.write_text(self._configuration(fsid))
        self._make_keyring()
        monmap = str(self.root / "monmap")
        address = f"[v2:{ports.LOOPBACK}:{self.port}]"
        _run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        keyring = str(self.root / "keyring")
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._daemon("mon", ["ceph-mon", "-i", "a"], owner)
        self._await(lambda: self.tried("--connect-timeout", "3", "mon", "stat") is not None, "mon")
        self._daemon("mgr", ["ceph-mgr", "-i", "a"], owner)
        osd = str(uuid.uuid4())
        self.command("osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.command("osd", "crush", "add", "osd.0", "1.0", "host=dev", "root=default")
        self._daemon("osd", ["ceph-osd", "-i", "0"], owner)
        self._await(lambda: "1 up" in (self.tried("osd", "stat") or ""), "osd")
        for pool in POOLS:
            self.make_pool(pool)

    def start_gateway(self, *, owner: int | None = None) -> None:
        """Start the gateway that speaks S3; about 10 s."""
        self._daemon("rgw", ["radosgw", "-n", "client.rgw.a"], owner)
        self._await(lambda: not ports.is_free(self.port + _PORTS - 1), "rgw")
        self._run(
            *("radosgw-admin", "-n", "client.rgw.a", "user", "create"),
            *("--uid=dev", "--display-name=dev"),
            *(f"--access-key={self.access}", f"--secret={self.secret}"),
        )

    def make_pool(self, name: str) -> None:
        """Make another pool for images; about a second."""
        self.command("osd", "pool", "create", name, "8")
        self._run("rbd", "pool", "init", name)

    def stop(self) -> None:
        """Stop all of it."""
        for daemon in reversed(self.daemons):
            guard.stop(daemon.process)

    def command(self, *words: str) -> str:
        """What `ceph` prints for a command, as an administrator; a failure is a DevError."""
        return self._run("ceph", *words)

    def tried(self, *words: str) -> str | None:
        """What `ceph` prints, None if it fails or does not answer."""
        try:
            return self._run("ceph", *words)
        except DevError:
            return None

    def _run(self, program: str, *words: str) -> str:
        return _run(program, "-c", str(self.conf), *words)

    def _daemon(self, name: str, command: Sequence[str], owner: int | None) -> None:
        program, *words = command
        process = guard.guarded(
            [_found(program), "-c", str(self.conf), *words, "-f"],
            log=self.root / "log" / f"{name}.output",
            environment={"PATH": _PATH, "HOME": str(self.root), "LC_ALL": "C.UTF-8"},
            owner=owner,
            # What it holds goes with it anyway.
            stop_signal=SIGKILL,
        )
        self.daemons.append(Daemon(name, process))

    def _await(self, is_there: Callable[[], bool], name: str) -> None:
        try:
            guard.await_start(
                self.daemons[-1].process,
                is_there,
                name=f"Ceph's {name}",
                log=self.root / "log" / f"{name}.output",
                within_s=_START_WITHIN_S,
            )
        except DevError:
            self.stop()
            raise

    def _make_keyring(self) -> None:
        keyring = str(self.root / "keyring")
        _run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.")
        services = {
            "mon.": {"mon": "allow *"},
            "mgr.a": {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"},
            "osd.0": {"mon": "allow profile osd", "mgr": "allow profile osd", "osd": "allow *"},
            "client.rgw.a": {"mon": "allow rw", "osd": "allow rwx", "mgr": "allow rw"},
        }
        for name, rights in {**services, **{f"client.{n}": r for n, r in USERS.items()}}.items():
            caps = [word for kind, what in rights.items() for word in ("--cap", kind, what)]
            key = [] if name == "mon." else ["--gen-key"]
            _run("ceph-authtool", keyring, *key, "-n", name, *caps)

    def _configuration(self, fsid: str) -> str:
        root = self.root
        return f"""\
[global]
fsid = {fsid}
mon host = [v2:{ports.LOOPBACK}:{self.port}]
keyring = {root}/keyring
run dir = {root}/run
log to stderr = false
err to stderr = false
public network = 127.0.0.0/8
ms bind msgr1 = false
ms bind port min = {self.port + 1}
ms bind port max = {self.port + _PORTS - 2}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
auth allow insecure global id reclaim = false

[mon]
admin socket = {root}/run/$name.asok
log file = {root}/log/$name.log
mon cluster log file = {root}/log/cluster.log
mon initial members = a
mon data = {root}/mon
mon allow pool size one = true
mon allow pool delete = true
mon max pg per osd = 1000
mon warn on pool no redundancy = false
# Each snapshot is one proposal, which would wait a second for others.
paxos propose interval = 0.02
paxos min wait = 0.01
mon data avail warn = 2
mon data avail crit = 1

[mgr]
admin socket = {root}/run/$name.asok
log file = {root}/log/$name.log
crash dir = {root}/run
mgr data = {root}/mgr
mgr initial modules =

[osd]
admin socket = {root}/run/$name.asok
log file = {root}/log/$name.log
crash dir = {root}/run
osd data = {root}/osd
osd objectstore = memstore
memstore device bytes = {ROOM}
osd memory target = 939524096
# A process that was killed has its images open for this long; half a minute is the default.
osd client watch timeout = 5

[client]
# Ten times for each watch that would expire.
objecter tick interval = 0.5

[client.rgw.a]
admin socket = {root}/run/$name.asok
log file = {root}/log/$name.log
rgw data = {root}/rgw
rgw frontends = beast endpoint={ports.LOOPBACK}:{self.port + _PORTS - 1}
rgw enable usage log = false
"""


def _found(program: str) -> str:
    found = shutil.which(program, path=_PATH)
    if found is None:
        raise DevError(f"{program} is not installed")
    return found


def _run(program: str, *words: str) -> str:
    """Run a program to its end, a minute at most; return what it printed. Raises DevError."""
    command = ["timeout", "60", _found(program), *words]
    done = subprocess.run(
        command,
        # Some are Debian's Python programs, which must not see another Python's packages.
        env={"PATH": _PATH, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DevError(f"`{' '.join(command)}` failed:\n{done.stderr.strip()}")
    return done.stdout


def main(folder: str) -> int:
    """Start a cluster and wait; the exit code."""
    ceph = Ceph(Path(folder).resolve(), port=Ceph.free_port())
    try:
        ceph.start()
        print(f"Ceph is up: {ceph.conf}, users admin and glance, pools {' and '.join(POOLS)}.")
        ceph.daemons[0].process.wait()
    except DevError as error:
        print(f"ceph: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; what it held is gone.")
    finally:
        ceph.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
