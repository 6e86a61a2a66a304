"""Waiting for what nobody tells, and what this process holds open meanwhile."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path


async def until(holds: Callable[[], bool | Awaitable[bool]], *, within_s: float = 20) -> None:
    """Wait until `holds` says yes; fail if it does not in time."""
    deadline = time.monotonic() + within_s
    while True:
        answer = holds()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, f"nothing happened within {within_s} s"
        await asyncio.sleep(0.02)


def open_files() -> set[str]:
    """The files that this process has open, devices left out."""
    return {
        name
        for name in _descriptors()
        if name.startswith("/") and not name.startswith(("/dev/", "/proc/"))
    }


def open_sockets() -> set[str]:
    """The sockets that this process has open."""
    return {name for name in _descriptors() if name.startswith("socket:")}


def _descriptors() -> set[str]:
    found: set[str] = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(str(entry.readlink()))
    return found
