"""What one service feels of the other: its small requests while the other has all that it can do.

Three states take turns, in several rounds: `alone`; `burners`, beside as many processes that only
compute as keep the other service busy; `saturated`, beside the other service under uploads and
lists. Sharing the cores explains what `burners` costs; what `saturated` costs beyond that would be
a place where the services meet. They share the machine and PostgreSQL's server, where each has a
database of its own.
"""

import asyncio
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import httpx
from diptych_common import migrations

from tests import databases, servers
from tests.artifacts import service as artifacts
from tests.bench.figures import Figure, figure
from tests.daemon import Daemon
from tests.images import service as images
from tests.images.service import ALICE, OCTETS

PART: Final = "independence"
State = Literal["alone", "burners", "saturated"]
STATES: Final[Mapping[State, str]] = {
    "alone": "alone",
    "burners": "beside burners",
    "saturated": "beside the other service",
}

# The service's two processes, and two that keep it busy.
_BURNERS: Final = 4
_PER_SECOND: Final = 50
_UPLOAD: Final = 64 * 1024 * 1024
_KEPT: Final = 100


@dataclass(frozen=True)
class Served:
    """A daemon at `url`: its collection, what one of it is made of, and where its bytes go."""

    url: str
    collection: str
    new: Mapping[str, object]
    data: str

    def make(self, client: httpx.Client, name: str) -> str:
        """Make one of this name; its path."""
        made = client.post(self.collection, json={**self.new, "name": name})
        made.raise_for_status()
        return f"{self.collection}/{made.json()['id']}"


def figures(folder: Path, *, quick: bool) -> list[Figure]:
    """Milliseconds of each service in each state; `raw` is what it takes beside `burners`."""
    rounds, seconds = (1, 5) if quick else (3, 20)
    servers.prepare()
    try:
        with _images(folder / "images") as one, _artifacts(folder / "artifacts") as other:
            shown = {served.url: _filled(served) for served in (one, other)}
            return [
                made
                for measured, busy in ((other, one), (one, other))
                for made in _figures(measured, shown[measured.url], busy, rounds, seconds)
            ]
    finally:
        servers.stop()


def _figures(
    measured: Served, url: str, busy: Served, rounds: int, seconds: float
) -> Iterator[Figure]:
    print(f"  {measured.collection} …", file=sys.stderr, flush=True)
    times: dict[State, list[float]] = {state: [] for state in STATES}
    for _ in range(rounds):
        for state in STATES:
            with _busy(state, busy):
                times[state] += asyncio.run(_asked(url, seconds))
    for percent in (50, 99):
        found = {state: _percentile(values, percent) for state, values in times.items()}
        for state, what in STATES.items():
            yield figure(
                *(PART, f"GET {measured.collection}/… {what}", f"p{percent} ms"),
                ours=[found[state]],
                raw=found["burners"] if state == "saturated" else None,
                raw_name="beside burners",
            )


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


@contextmanager
def _busy(state: State, served: Served) -> Generator[None]:
    work: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
    if state == "burners":
        work = [(_burn, ())] * _BURNERS
    elif state == "saturated":
        work = [(_upload, (served,)), (_list, (served,))]
    processes = [
        multiprocessing.get_context("spawn").Process(target=function, args=given, daemon=True)
        for function, given in work
    ]
    for process in processes:
        process.start()
    # Until they are at it.
    time.sleep(3 if processes else 0)
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _burn() -> None:
    while True:
        pass


def _upload(served: Served) -> None:
    """Uploads, one after the other."""
    data = bytes(_UPLOAD)
    with httpx.Client(base_url=served.url, headers=ALICE, timeout=120) as client:
        while True:
            path = served.make(client, f"busy {time.monotonic_ns()}")
            put = client.put(f"{path}{served.data}", content=data, headers=OCTETS)
            put.raise_for_status()
            client.delete(path).raise_for_status()


def _list(served: Served) -> None:
    """Lists, several at a time."""

    async def ask() -> None:
        async with httpx.AsyncClient(base_url=served.url, headers=ALICE, timeout=120) as client:

            async def again() -> None:
                while True:
                    page = await client.get(served.collection, params={"limit": str(_KEPT)})
                    page.raise_for_status()

            await asyncio.gather(*(again() for _ in range(8)))

    asyncio.run(ask())


async def _asked(url: str, seconds: float) -> list[float]:
    """Milliseconds of requests that come at a steady rate, whatever the answers take."""
    times: list[float] = []

    async with httpx.AsyncClient(timeout=60, headers=ALICE) as client:

        async def ask() -> None:
            began = time.perf_counter()
            (await client.get(url)).raise_for_status()
            times.append((time.perf_counter() - began) * 1000)

        await ask()  # the connection
        times.clear()
        async with asyncio.TaskGroup() as group:
            for _ in range(int(seconds * _PER_SECOND)):
                group.create_task(ask())
                await asyncio.sleep(1 / _PER_SECOND)
    return times


@contextmanager
def _images(folder: Path) -> Generator[Served]:
    environ = images.configuration(_database("images"), folder)
    with _running(Daemon(environ, folder / "log")) as url:
        formats = {"disk_format": "raw", "container_format": "bare"}
        yield Served(url, "/v2/images", formats, "/file")


@contextmanager
def _artifacts(folder: Path) -> Generator[Served]:
    environ = artifacts.configuration(
        _database("artifacts"), folder, DEFAULT__ENABLED_ARTIFACT_TYPES="images"
    )
    with _running(Daemon(environ, folder / "log", service="artifacts")) as url:
        yield Served(url, "/artifacts/images", {}, "/image")


@contextmanager
def _running(daemon: Daemon) -> Generator[str]:
    daemon.start()
    try:
        yield daemon.url
    finally:
        daemon.stop()


def _database(service: str) -> str:
    async def migrated() -> str:
        url = await databases.create(servers.postgres_url())
        await migrations.upgrade(url, package=f"diptych_{service}.migrations")
        return url

    return asyncio.run(migrated())


def _filled(served: Served) -> str:
    """Where one of many is."""
    with httpx.Client(base_url=served.url, headers=ALICE) as client:
        paths = [served.make(client, f"kept {at}") for at in range(_KEPT)]
    return f"{served.url}{paths[-1]}"
