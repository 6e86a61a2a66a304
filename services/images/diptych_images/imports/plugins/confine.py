"""Becomes a program that is held in narrow limits: `python -I confine.py LIMITS PROGRAM ARGUMENT…`.

A process of its own, because limits and namespaces are a process's, and because nothing may be run
between fork and exec in a process that has threads. It stands on the standard library alone.
`diptych_images.imports.plugins.sandbox` starts it.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence

# Source: linux/sched.h, linux/prctl.h.
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

# Threads get stacks of this size, and all of them count as address space.
_STACK = 2 * 1024 * 1024
_OPEN_FILES = 256


def main(arguments: Sequence[str]) -> None:
    """Take the limits on and become the program; returns only by raising OSError.

    The first argument is a JSON object: `parent` is the id of the process without which this one
    must not live, `memory` and `file_size` are bytes, `cpu` seconds.
    """
    limits: Mapping[str, int] = json.loads(arguments[0])
    command = list(arguments[1:])
    libc = ctypes.CDLL(None, use_errno=True)
    _leave_network(libc)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    # After the namespaces, for a change of privileges forgets it.
    _prctl(libc, _PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != limits["parent"]:
        sys.exit(1)  # it died before it could take this process with it
    os.umask(0o077)
    # Python ignores these, and what is ignored stays so in the program.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_STACK, _STACK)
    _limit(resource.RLIMIT_FSIZE, limits["file_size"])
    # A second more for SIGKILL: it is the first signal that says what happened.
    _limit(resource.RLIMIT_CPU, limits["cpu"], limits["cpu"] + 1)
    _limit(resource.RLIMIT_AS, limits["memory"])
    os.execve(command[0], command, {})  # noqa: S606 - no shell is what is wanted


def _leave_network(libc: ctypes.CDLL) -> None:
    """Go where there is no network, as far as the system allows."""
    if libc.unshare(_CLONE_NEWNET) != 0:
        libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    unused = (ctypes.c_ulong(0),) * 3
    if libc.prctl(option, ctypes.c_ulong(value), *unused) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    _, allowed = resource.getrlimit(kind)
    ceiling = sys.maxsize if allowed == resource.RLIM_INFINITY else allowed
    hard = min(soft if hard is None else hard, ceiling)
    resource.setrlimit(kind, (min(soft, hard), hard))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"cannot start: {error}")
