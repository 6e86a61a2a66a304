"""What `make run` and `make stack` have in common: they stay in a terminal until Ctrl-C."""

import fcntl
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dev import guard, services
from dev.keystone import PASSWORD, Keystone
from dev.places import STATE, DevError

# cloud: (user, project); the first is the one that openrc speaks for.
CLOUDS = {
    "diptych": ("demo", "demo"),
    "diptych-other": ("other", "other"),
    "diptych-admin": ("admin", "admin"),
}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stopped(Exception):
    """Ctrl-C, or a signal that means the same."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that should not end by itself."""

    name: str
    log: Path
    guard: subprocess.Popen[bytes]


def run(command: str, start: Callable[[ExitStack], None]) -> int:
    """Call `start`, which starts all and watches over it, and stop all in the end; the exit code.

    `command` is what the user typed. What `start` puts on the stack is undone when it is left, be
    it by a signal or by a DevError, which is shown.
    """
    for name in _SIGNALS:
        signal.signal(name, _stop)
    try:
        with ExitStack() as running:
            start(running)
    except _Stopped:
        print(f"\nStopped. `{command}` brings it all back as it was.")
        return 0
    except DevError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 1
    return 0


def _stop(_signal: int, _frame: object) -> None:
    # A second Ctrl-C must not interrupt the stopping; who is impatient can still use SIGKILL.
    for name in _SIGNALS:
        signal.signal(name, signal.SIG_IGN)
    raise _Stopped


@contextmanager
def only_one() -> Generator[None]:
    """Be the only one who uses what is kept in `.dev`; DevError if another does."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "run.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DevError("it is running already, in another terminal") from None
        yield


def write_clouds(folder: Path, keystone: Keystone) -> Path:
    """Write clouds.yaml, and openrc for clients that don't read that; return the former's path."""
    lines = ["# Written anew at each start.", "clouds:"]
    for cloud, (user, project) in CLOUDS.items():
        lines += [
            f"  {cloud}:",
            "    auth:",
            f"      auth_url: {keystone.url}",
            f"      username: {user}",
            f"      password: {PASSWORD}",
            f"      project_name: {project}",
            "      user_domain_name: Default",
            "      project_domain_name: Default",
            "    region_name: RegionOne",
            "    identity_api_version: 3",
        ]
    user, project = CLOUDS["diptych"]
    variables = {
        "OS_AUTH_URL": keystone.url,
        "OS_USERNAME": user,
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": project,
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": "RegionOne",
        "OS_IDENTITY_API_VERSION": "3",
    }
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    services.write(folder / "openrc", "\n".join(exports) + "\n")
    return services.write(folder / "clouds.yaml", "\n".join(lines) + "\n")


def watch(watched: Sequence[Running], *, obey: Callable[[str], None] | None = None) -> None:
    """Wait for a signal, or for one of them to end, which it should not: DevError.

    `obey` gets each line that is typed meanwhile; what it raises as DevError is shown.
    """
    reads = [sys.stdin] if obey is not None and sys.stdin.isatty() else []
    while True:
        for one in watched:
            if one.guard.poll() is not None:
                raise DevError(
                    f"{one.name} has ended, so the rest was stopped; {guard.last_words(one.log)}"
                )
        typed, _, _ = select.select(reads, [], [], 0.5)
        if typed and obey is not None:
            try:
                obey(sys.stdin.readline().strip())
            except DevError as error:
                print(error, flush=True)
