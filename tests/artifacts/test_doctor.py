"""`diptych-artifacts doctor` and `db purge`, beside a daemon."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from diptych_artifacts.wrapping_keys import new_key

from tests.artifacts.service import configuration
from tests.daemon import Daemon

COMMAND = Path(sys.executable).parent / "diptych-artifacts"


def run(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_service_is_examined_from_both_sides(artifacts_database: str, tmp_path: Path) -> None:
    key = new_key(now=datetime.now(UTC))
    environ = configuration(
        artifacts_database,
        tmp_path,
        DEFAULT__WORKERS="1",
        JOBS__WITH_WORKER="true",
        SECRETS__KEYS=key,
    )
    daemon = Daemon(environ, tmp_path / "daemon.log", service="artifacts")
    daemon.start()
    try:
        done = run(environ, "doctor", "--json", "--timeout", "60", "--url", daemon.url)
    finally:
        daemon.stop()
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert key.partition(":")[2] not in done.stdout
    found = {one["about"]: one["level"] for one in json.loads(done.stdout)}
    assert [*found] == [
        "settings", "policy", "database", "clock of the database", "schema", "workers", "events",
        "identities", "store fast", "store cheap", "wrapping keys", "proxy", "uploads",
        "size of uploads",
    ]  # fmt: skip
    assert {about for about, level in found.items() if level != "ok"} == set()


def test_nothing_but_jobs_is_kept(artifacts_database: str, tmp_path: Path) -> None:
    environ = configuration(artifacts_database, tmp_path)
    done = run(environ, "db", "purge")
    assert (done.returncode, done.stdout) == (0, "Removed: 0 jobs that have ended.\n")
