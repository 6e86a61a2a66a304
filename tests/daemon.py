"""A service as operators run it: the command, its supervisor and its worker processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import httpx
import psutil
from dev import ports

Service = Literal["images", "artifacts"]


_PROGRAMS = Path(sys.executable).parent

# The images service's.
COMMAND = _PROGRAMS / "diptych-images"


@dataclass
class Daemon:
    """A daemon on a free port of loopback; `environ` is as `service.configuration` makes it."""

    environ: Mapping[str, str]
    log: Path
    service: Service = "images"
    port: int = field(default_factory=ports.any_free)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, within_s: float = 90) -> None:
        """Start it and wait until it serves."""
        environ = {
            **os.environ,
            **self.environ,
            f"DIPTYCH_{self.service.upper()}__DEFAULT__BIND_PORT": str(self.port),
            f"DIPTYCH_{self.service.upper()}__METRICS__BIND_PORT": "0",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [_PROGRAMS / f"diptych-{self.service}", "api"], env=environ, stdout=log, stderr=log
            )
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if httpx.get(f"{self.url}/livez").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"the daemon did not start:\n{self.log.read_text()}")

    def workers(self) -> list[psutil.Process]:
        """The processes that serve requests."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if child.name() != "diptych-metrics"]

    def kill(self) -> None:
        """End all of it at once, without a chance to clean up."""
        assert self.process is not None
        supervisor = psutil.Process(self.process.pid)
        supervisor.suspend()  # or it would start a worker that is not among the victims
        victims = [*supervisor.children(recursive=True), supervisor]
        for victim in victims:
            victim.kill()
        psutil.wait_procs(victims, timeout=10)
        self.process.wait(10)

    def stop(self) -> int:
        """Stop it as systemd would; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def working(
    environ: Mapping[str, str], log: Path, *, service: Service = "images"
) -> Generator[int]:
    """A worker apart from any daemon, until the context is left; its process id."""
    quiet = {f"DIPTYCH_{service.upper()}__METRICS__ENABLED": "false"}
    apart = {**os.environ, **quiet, **environ}
    with log.open("ab") as written:
        worker = subprocess.Popen(
            [_PROGRAMS / f"diptych-{service}", "worker"], env=apart, stdout=written, stderr=written
        )
    try:
        yield worker.pid
    finally:
        worker.terminate()
        code = worker.wait(60)
    assert code == 0, log.read_text()
