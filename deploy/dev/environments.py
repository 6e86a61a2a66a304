"""Python environments beside the product's own: Keystone, the clients, PostgreSQL's binaries.

Each `tests/locks/NAME.lock` makes one environment in `.dev/envs/NAME`. None of their packages is
ever importable from the product's environment.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev.places import LOCKS, STATE, VENV, DevError

ENVIRONMENTS = STATE / "envs"


def ready(name: str) -> Path:
    """Make the environment unless it is there already; return its `bin` folder.

    It is made anew when its lock file or the interpreter has changed. Two processes may ask at the
    same time: one makes it, the other waits. Raises DevError with the installer's own words.
    """
    lock = LOCKS / f"{name}.lock"
    home = ENVIRONMENTS / name
    stamp = home / "made-from"
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    with exclusive(ENVIRONMENTS / f"{name}.lock"):
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(home, ignore_errors=True)
            uv("venv", "--quiet", "--python", sys.executable, str(home))
            uv(
                *("pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode"),
                *("--python", str(home / "bin" / "python"), str(lock)),
            )
            stamp.write_text(wanted)
    return home / "bin"


@contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Hold the lock file `path` against other processes; its folder is made if it's missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def uv(*arguments: str) -> None:
    """Run uv, with its output shown only if it fails (as a DevError)."""
    run([_uv(), *arguments])


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
    """Run a command to its end; a failure is a DevError that carries what it printed."""
    # An activated environment of the caller's must not draw the installation to itself.
    surroundings = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    done = subprocess.run(
        command,
        env=surroundings if environment is None else environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DevError(f"`{' '.join(command)}` failed:\n{done.stdout.strip()}")


def _uv() -> str:
    own = VENV / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if found is None:
        raise DevError("uv is not installed yet: run `make setup` first")
    return found
