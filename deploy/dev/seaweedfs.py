"""A real S3 server for developers and tests: SeaweedFS, all of it in one process."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dev import environments, guard, ports

_START_WITHIN_S = 60
# A bucket is made of volumes of its own. Nothing of a volume is allocated before it is filled.
_VOLUMES = 2000
_VOLUME_MB = 256


@dataclass(frozen=True, slots=True)
class AccessKey:
    """What a client signs its requests with."""

    access: str
    secret: str


# Every character that a secret of AWS may have, and some that only others use.
FULL = AccessKey("dev-full", "dev/secret+of@full:rights")
READ_ONLY = AccessKey("dev-read-only", "dev/secret+of@fewer:rights")


class Seaweedfs:
    """One SeaweedFS on loopback that speaks S3, any region, at `url`.

    `root` holds everything it keeps. Buckets are made by clients, with `full`; `read_only` may
    read and list. A bucket is addressed by path, or as `<bucket>.<DOMAIN>:<port>` by whoever sends
    such a Host header here.
    """

    DOMAIN = "s3.test"
    full = FULL
    read_only = READ_ONLY

    def __init__(self, root: Path, *, port: int) -> None:
        self.root = root
        self.url = f"http://{ports.LOOPBACK}:{port}"
        self.port = port
        self.log = root / "output.log"
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self, *, owner: int | None = None) -> None:
        """Start, and return when objects can be written: about a second.

        It stops by itself when the process `owner` (our own, if None) is gone. Raises DevError
        with the end of its log if it doesn't come up.
        """
        weed = environments.ready("seaweedfs") / "weed"
        data = self.root / "data"
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        # It notes its options and takes them up again; ports differ from one start to the next.
        (data / "mini.options").unlink(missing_ok=True)
        keys = self.root / "keys.json"
        keys.write_text(json.dumps(_identities()))
        volume, *others = ports.several_free(9)
        self._guard = guard.guarded(
            [
                str(weed),
                "-logtostderr=true",
                "-v=0",
                "mini",
                *self._options(data, keys, volume, others),
            ],
            log=self.log,
            environment={
                "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
                "HOME": str(self.root),
                "TMPDIR": str(self.root),
                "GOMEMLIMIT": "512MiB",
                # One volume at a time for a bucket instead of seven.
                "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
            },
            owner=owner,
        )
        guard.await_start(
            self._guard,
            lambda: all(
                ports.answers(f"http://{ports.LOOPBACK}:{port}/healthz")
                for port in (self.port, volume)
            ),
            name="SeaweedFS",
            log=self.log,
            within_s=_START_WITHIN_S,
        )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The guard: it ends when the server does, and to terminate it stops the server."""
        return guard.started(self._guard)

    def stop(self) -> None:
        """Stop serving; what it holds stays."""
        guard.stop(self._guard)

    def _options(self, data: Path, keys: Path, volume: int, others: list[int]) -> list[str]:
        free = iter(others)
        # Every listener is named: those that aren't are 10,000 above another, or in /tmp.
        options = {
            "dir": data,
            "ip": ports.LOOPBACK,
            "ip.bind": ports.LOOPBACK,
            "master.port": next(free),
            "master.port.grpc": next(free),
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": _VOLUME_MB,
            "volume.port": volume,
            "volume.port.grpc": next(free),
            "volume.max": _VOLUMES,
            "filer.port": next(free),
            "filer.port.grpc": next(free),
            "filer.localSocket": self.root / "filer.sock",
            "admin.port": next(free),
            "admin.port.grpc": next(free),
            "admin.ui": "false",
            "webdav": "false",
            "s3.port": self.port,
            "s3.port.grpc": next(free),
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.iam": "false",
            "s3.config": keys,
            "s3.localSocket": self.root / "s3.sock",
            "s3.domainName": self.DOMAIN,
            # A bucket that is missing has to be an error, as elsewhere.
            "s3.autoCreateBucket": "false",
        }
        return [f"-{name}={value}" for name, value in options.items()]


def _identities() -> dict[str, object]:
    return {
        "identities": [
            {
                "name": key.access,
                "credentials": [{"accessKey": key.access, "secretKey": key.secret}],
                "actions": actions,
            }
            for key, actions in (
                (FULL, ["Admin", "Read", "Write", "List", "Tagging"]),
                (READ_ONLY, ["Read", "List"]),
            )
        ]
    }
