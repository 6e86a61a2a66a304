"""Real file systems to mount: small ones, read-only ones, frozen ones, and one that hangs."""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path

import psutil

from tests.conftest import missing

# <linux/fs.h>
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878

Debian = Callable[[str, str], str]


@contextlib.contextmanager
def mounted(target: Path, *arguments: str) -> Generator[None, None, None]:
    target.mkdir()
    done = subprocess.run(
        ["mount", *arguments, str(target)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        missing(f"cannot mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        # A thread that hung in the file system leaves it a moment after it could.
        deadline = time.monotonic() + 30
        while (busy := _unmount(target)) and time.monotonic() < deadline:
            time.sleep(0.05)
        if busy:
            subprocess.run(["umount", "--lazy", str(target)], check=True)
            raise AssertionError(f"a file of {target} is still open: {busy}")


def _unmount(target: Path) -> str:
    """What keeps it from being unmounted, if anything."""
    done = subprocess.run(["umount", str(target)], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def make_read_only(target: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro,bind", str(target)], check=True)


@contextlib.contextmanager
def disk(make: str, folder: Path, size: int) -> Generator[Path, None, None]:
    """A file system of its own that `make` (`mkfs.ext4`) makes, without any room reserved."""
    image = folder / "disk"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([make, "-q", str(image)], check=True, capture_output=True)
    with mounted(folder / "disk-mounted", "-o", "loop", str(image)):
        yield folder / "disk-mounted"


@contextlib.contextmanager
def frozen(directory: Path) -> Generator[None, None, None]:
    """Whoever writes into the file system waits."""
    descriptor = os.open(directory, os.O_RDONLY)
    fcntl.ioctl(descriptor, FIFREEZE, 0)
    try:
        yield
    finally:
        fcntl.ioctl(descriptor, FITHAW, 0)
        os.close(descriptor)


class Served:
    """A mount that a process of its own serves, like a network's: with it every call stops."""

    def __init__(self, target: Path, process: subprocess.Popen[bytes]) -> None:
        self.target = target
        self._process = process

    def hang(self) -> None:
        """From here on no call is answered."""
        self._process.send_signal(signal.SIGSTOP)
        server = psutil.Process(self._process.pid)
        deadline = time.monotonic() + 30
        while server.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
            time.sleep(0.01)

    def answer(self) -> None:
        """Answer again, also what was asked meanwhile."""
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def served(debian: Debian, source: Path, target: Path) -> Generator[Served, None, None]:
    """`source`, mounted at `target` by bindfs."""
    program = debian("bindfs", "bindfs")
    source.mkdir()
    target.mkdir()
    with subprocess.Popen(
        [program, "-f", str(source), str(target)], stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not target.is_mount():
            time.sleep(0.02)
        if process.returncode is not None:
            assert process.stderr is not None
            missing(f"cannot mount: {process.stderr.read().decode().strip()}")
        try:
            yield Served(target, process)
        finally:
            process.send_signal(signal.SIGCONT)
            subprocess.run(["umount", "--lazy", str(target)], check=True)
            process.wait(30)
