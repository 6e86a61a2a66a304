"""Our artifacts service as operators run it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
from dev import guard, ports
from diptych_common import migrations

from tests.artifacts.service import configuration

_COMMAND = Path(sys.executable).parent / "diptych-artifacts"


@dataclass(frozen=True)
class Ours:
    """Our service, running; `process` is its guard."""

    url: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        guard.stop(self.process)


async def started(
    folder: Path, *, database: str, environ: Mapping[str, str] | None = None, workers: int = 1
) -> Ours:
    """Make its tables in an empty database and serve it; it ends with this process.

    `environ` are settings, as `tests.artifacts.service.configuration` has them.
    """
    await migrations.upgrade(database, package="diptych_artifacts.migrations")
    port = ports.any_free()
    url = f"http://{ports.LOOPBACK}:{port}"
    settings = {
        "DEFAULT__WORKERS": str(workers),
        "JOBS__WITH_WORKER": "true",
        "PASTE_DEPLOY__FLAVOR": "noauth",
        "DEFAULT__ENABLED_BACKENDS": "fast:file, cheap:file, web:http",
        **(environ or {}),
    }
    log = folder / "log"
    process = guard.guarded(
        [str(_COMMAND), "api"],
        log=log,
        environment={
            **os.environ,
            **configuration(database, folder, **settings),
            "DIPTYCH_ARTIFACTS__DEFAULT__BIND_PORT": str(port),
            "DIPTYCH_ARTIFACTS__METRICS__BIND_PORT": "0",
        },
    )
    guard.await_start(process, lambda: _answers(url), name="our service", log=log, within_s=300)
    return Ours(url, process)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/versions").status_code == 300
    except httpx.TransportError:
        return False
