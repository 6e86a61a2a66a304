"""How fast the artifacts service answers, against the real Glare on the same PostgreSQL.

Both have as many processes, a file store and identities from headers, and take turns, so that a
machine whose speed drifts slows both. One client asks for one thing after the other on a connection
that stays open: it is how long an answer takes, and the CPU time of the service for it; that of
PostgreSQL is not in it. Commits are durable.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from dev import ports, postgres

from tests import databases
from tests.bench.data import BLOCK, blocks
from tests.compat import glare
from tests.compat.artifacts import ours

_WHO = {
    "X-Identity-Status": "Confirmed",
    "X-User-Id": "bench",
    "X-Project-Id": "bench",
    "X-Roles": "member",
}
_JSON = {"Content-Type": "application/json"}
_OCTETS = {"Content-Type": "application/octet-stream"}
_TYPE = "/artifacts/images"
_LISTED = 1000


@dataclass
class Asked:
    """One of the services, as its client has it; `process` is its guard."""

    connection: HTTPConnection
    process: psutil.Process
    numbers: Iterator[int] = field(default_factory=count)
    ids: list[str] = field(default_factory=list[str])

    def create(self) -> None:
        """Make an artifact as people do: with formats, tags and some metadata."""
        number = next(self.numbers)
        body = {
            "name": f"image-{number}",
            "disk_format": "qcow2",
            "container_format": "bare",
            "min_ram": 512,
            "os_distro": "debian",
            "tags": ["bench", f"tag-{number % 10}"],
            "metadata": {"build": str(number), "branch": "main"},
        }
        made = self._send("POST", _TYPE, body=json.dumps(body).encode(), headers=_JSON)
        self.ids.append(json.loads(made)["id"])

    def show(self) -> None:
        """Ask for the first of them."""
        self._send("GET", f"{_TYPE}/{self.ids[0]}")

    def list(self) -> None:
        """Ask for a page of a thousand."""
        found = json.loads(self._send("GET", f"{_TYPE}?limit={_LISTED}"))["artifacts"]
        if len(found) != _LISTED:
            raise SystemExit(f"{len(found)} artifacts are listed")

    def upload(self, size: int) -> None:
        """Put a blob of this size into the first of them."""
        headers = {**_OCTETS, "Content-Length": str(size)}
        self._send("PUT", f"{_TYPE}/{self.ids[0]}/image", body=blocks(size), headers=headers)

    def download(self, size: int) -> None:
        """Get it again."""
        read = 0
        self.connection.request("GET", f"{_TYPE}/{self.ids[0]}/image", headers=_WHO)
        answer = _good(self.connection.getresponse())
        while block := answer.read(BLOCK):
            read += len(block)
        if read != size:
            raise SystemExit(f"{read} bytes came instead of {size}")

    def cpu_s(self) -> float:
        """What its processes have used so far."""
        times = [one.cpu_times() for one in self.process.children(recursive=True)]
        return sum(one.user + one.system for one in times)

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        self.connection.request(method, path, body=body, headers={**_WHO, **(headers or {})})
        return _good(self.connection.getresponse()).read()


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of one request, and the CPU seconds of the service for it."""

    seconds: float
    cpu_s: float


def table(
    folder: Path, *, rounds: int, requests: int, size: int, processes: int
) -> list[dict[str, object]]:
    """A row for each kind of request: medians in milliseconds, the ratios Glare : ours."""
    with ExitStack() as stack:
        services = _started(stack, folder, processes)
        for service in services:
            for _ in range(_LISTED):
                service.create()
        cases: list[tuple[str, int, Callable[[Asked], None]]] = [
            ("show", requests, Asked.show),
            (f"list of {_LISTED}", max(1, requests // 50), Asked.list),
            ("create", requests, Asked.create),
            (f"upload {size // BLOCK} MiB", 1, lambda asked: asked.upload(size)),
            (f"download {size // BLOCK} MiB", 1, lambda asked: asked.download(size)),
        ]
        return [_row(name, times, ask, services, rounds) for name, times, ask in cases]


def _row(
    name: str, times: int, ask: Callable[[Asked], None], services: Sequence[Asked], rounds: int
) -> dict[str, object]:
    for service in services:
        ask(service)
    ours_, theirs = zip(
        *([_measured(service, ask, times) for service in services] for _ in range(rounds)),
        strict=True,
    )
    return {
        "request": name,
        "ours_ms": _ms(one.seconds for one in ours_),
        "ours_cpu_ms": _ms(one.cpu_s for one in ours_),
        "glare_ms": _ms(one.seconds for one in theirs),
        "glare_cpu_ms": _ms(one.cpu_s for one in theirs),
        "ratio": _ratio((b.seconds, a.seconds) for a, b in zip(ours_, theirs, strict=True)),
        "cpu_ratio": _ratio((b.cpu_s, a.cpu_s) for a, b in zip(ours_, theirs, strict=True)),
    }


def _measured(service: Asked, ask: Callable[[Asked], None], times: int) -> Measured:
    cpu, begun = service.cpu_s(), time.perf_counter()
    for _ in range(times):
        ask(service)
    seconds = time.perf_counter() - begun
    return Measured(seconds / times, (service.cpu_s() - cpu) / times)


def _ms(seconds: Iterator[float]) -> float:
    return round(1000 * statistics.median(seconds), 2)


def _ratio(pairs: Iterator[tuple[float, float]]) -> float:
    # A run that is too short for the kernel's clock ticks has used no CPU time.
    return round(statistics.median(theirs / max(own, 1e-6) for theirs, own in pairs), 2)


def _started(stack: ExitStack, folder: Path, processes: int) -> tuple[Asked, Asked]:
    """Ours, and Glare."""
    # PostgreSQL may run as another user, who has to pass.
    folder.chmod(0o711)
    server = postgres.Server(
        postgres.binaries(), data=folder / "postgres", port=ports.any_free(), options={}
    )
    server.start()
    stack.callback(server.stop)

    async def both() -> tuple[ours.Ours, glare.Glare]:
        urls = [await databases.create(server.url()) for _ in range(2)]
        (folder / "ours").mkdir()
        # Glare has no jobs either.
        no_jobs = {"JOBS__WITH_WORKER": "false"}
        mine = await ours.started(
            folder / "ours", database=urls[0], environ=no_jobs, workers=processes
        )
        stack.callback(mine.stop)
        theirs = await glare.started(folder / "glare", database=urls[1], workers=processes)
        stack.callback(theirs.stop)
        return mine, theirs

    mine, theirs = asyncio.run(both())
    return _asked(mine.url, mine.process.pid), _asked(theirs.url, theirs.process.pid)


def _asked(url: str, pid: int) -> Asked:
    return Asked(HTTPConnection(urlsplit(url).netloc, timeout=600), psutil.Process(pid))


def _good(answer: HTTPResponse) -> HTTPResponse:
    if answer.status >= 300:
        raise SystemExit(f"{answer.status}: {answer.read(500)!r}")
    return answer
