"""Runs a server and stops it when the process that wanted it is gone, however that one ended.

A test run that is killed, or a terminal that is closed, must not leave servers behind. The guard is
a small process between the two: it looks for its owner twice a second and stops the server in the
server's own gentle way.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dev.places import Account, DevError, is_alive

_LOOK_EVERY_S = 0.5
_GENTLE_FOR_S = 20


def guarded(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    owner: int | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    """Start the command under a guard, in a session of its own; return the guard's process.

    `owner` is the pid whose end stops the command, our own if None. SIGTERM to the guard stops the
    command with `stop_signal` and, if it won't go in 20 s, with SIGKILL. The guard ends after it
    with its exit code, which is 128 and a signal's number if that ended it. `environment` is all
    that the command sees. Its output is added to `log`.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "dev.guard"),
                *(str(os.getpid() if owner is None else owner), stop_signal.name),
                *((str(account.uid), str(account.gid)) if account else ("-", "-")),
                *command,
            ],
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def await_start(
    guard: subprocess.Popen[bytes],
    is_up: Callable[[], bool],
    *,
    name: str,
    log: Path,
    within_s: float,
) -> None:
    """Wait until the server is up; one that ends or takes too long is stopped, with a DevError."""
    deadline = time.monotonic() + within_s
    while not is_up():
        if guard.poll() is not None or time.monotonic() > deadline:
            stop(guard)
            raise DevError(f"{name} did not start; {last_words(log)}")
        time.sleep(0.05)


def last_words(log: Path) -> str:
    """The end of a log, for the message about a server that has failed."""
    lines = log.read_text(errors="replace").splitlines()[-15:]
    return f"{log} ends with:\n" + "\n".join(lines)


def started(guard: subprocess.Popen[bytes] | None) -> subprocess.Popen[bytes]:
    """The guard of a server that has one once it was started; before, a DevError."""
    if guard is None:
        raise DevError("not started")
    return guard


def child(guard: subprocess.Popen[bytes]) -> int:
    """The pid of the server that the guard runs."""
    return children(guard.pid)[0]


def children(pid: int) -> list[int]:
    """The pids of a process' children; none if it is gone."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def stop(guard: subprocess.Popen[bytes] | None) -> None:
    """Stop what the guard runs, and wait until both are gone; fine if they are or never were."""
    if guard is None:
        return
    if guard.poll() is None:
        guard.terminate()
    guard.wait()


def main(arguments: Sequence[str]) -> int:
    """Run as `python -m dev.guard OWNER SIGNAL UID GID COMMAND…`; UID and GID may be `-`."""
    owner, stop_signal, uid, gid, *command = arguments
    stopping = False

    def begin_stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, begin_stop)
    os.environ.pop("PYTHONPATH", None)
    if uid == "-":
        child = subprocess.Popen(command)
    else:
        child = subprocess.Popen(command, user=int(uid), group=int(gid), extra_groups=[])
    looked = time.monotonic()
    while not stopping and not _ended(child, within_s=0.1):
        if time.monotonic() - looked > _LOOK_EVERY_S:
            looked = time.monotonic()
            if not is_alive(int(owner)):
                break
    if child.poll() is None:
        child.send_signal(signal.Signals[stop_signal])
        if not _ended(child, within_s=_GENTLE_FOR_S):
            child.kill()
    code = child.wait()
    return code if code >= 0 else 128 - code


def _ended(child: subprocess.Popen[bytes], *, within_s: float) -> bool:
    try:
        child.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
