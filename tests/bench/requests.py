"""Small requests to the images services: what a deployment answers all day."""

import json
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psutil
from dev import guard, ports
from dev.places import CHECKOUT, DevError

from tests.bench import catalogue, load, servers
from tests.bench.figures import Figure, figure
from tests.bench.load import Answered, Making
from tests.bench.servers import PROCESSES, Pair, Rig, Server
from tests.images.catalogue import image_id, image_name

PART = "requests"
_CONNECTIONS = 8
_LONGEST_S = 20
# One of the caller's own images.
_ONE = 602

_NEW = {
    "name": "bench",
    "disk_format": "qcow2",
    "container_format": "bare",
    "visibility": "private",
    "tags": ["bench", "linux"],
    "os_distro": "debian",
    "hw_disk_bus": "virtio",
}


@dataclass(frozen=True)
class Case:
    """A request that both are asked for; `making` if it is not only read."""

    work: str
    path: str
    making: Making | None = None


@dataclass(frozen=True)
class Turn:
    """What one side did in one round: many clients at once, then one alone."""

    many: Answered
    alone: Answered
    cpu_ms: float
    postgres_ms: float


def figures(rig: Rig, *, quick: bool) -> list[Figure]:
    """All figures of this part; `quick` has the catalogue of a thousand images only."""
    rounds, seconds = (1, 1) if quick else (3, 2)
    with servers.images_pair(rig, "images-1k") as small:
        catalogue.grow(small, 1, 1000, me=rig.project, folder=rig.folder)
        raw = _raw(rig, small, rounds=rounds, seconds=seconds)
        of_small = [
            Case("show image", f"/v2/images/{image_id(_ONE)}"),
            Case("list, 25 of 1k", "/v2/images"),
        ]
        made = measured(PART, small, of_small, rounds=rounds, seconds=seconds, raw=raw)
        if quick:
            made += measured(PART, small, _lists(small, "1k"), rounds=rounds, seconds=seconds)
        else:
            with servers.images_pair(rig, "images-1m") as large:
                catalogue.grow(large, 1, 100_000, me=rig.project, folder=rig.folder)
                cases = [Case("list, 25 of 100k", "/v2/images"), *_lists(large, "100k")]
                made += measured(PART, large, cases, rounds=rounds, seconds=seconds)
                catalogue.grow(large, 100_001, 1_000_000, me=rig.project, folder=rig.folder)
                made += _against(small, large, rounds=rounds, seconds=seconds)
        creating = Case(
            "create + delete",
            "/v2/images",
            Making(json.dumps(_NEW), '"id": ?"([^"]+)"', "/v2/images/"),
        )
        made += measured(PART, small, [creating], rounds=rounds, seconds=seconds)
        memory = {server.name: servers.pss(server.process) / 2**20 for server in small.both}
        made.append(
            figure(
                *(PART, "memory after all of these", "MiB"),
                ours=[memory["ours"]],
                theirs=[memory["Glance"]],
            )
        )
    return [*made, *raw.values()]


def _lists(pair: Pair, size: str) -> Sequence[Case]:
    """What is asked of a catalogue of any size."""
    seen = _found(pair.ours, "/v2/images?limit=1000", "id")
    return [
        Case(f"by property, {size}", "/v2/images?os_distro=debian"),
        Case(f"by tag, {size}", "/v2/images?tag=amphora&status=active"),
        Case(f"deep page, {size}", f"/v2/images?marker={seen[-100]}"),
        Case(f"by name, {size}", f"/v2/images?name={image_name(_ONE)}"),
        Case("list, limit=1000", "/v2/images?limit=1000"),
    ]


def measured(
    part: str,
    pair: Pair,
    cases: Sequence[Case],
    *,
    rounds: int,
    seconds: float,
    raw: Mapping[str, Figure] | None = None,
    ids: Mapping[str, str] | None = None,
    same_by: str = "id",
) -> list[Figure]:
    """The figures of each case, in rounds of ours and theirs.

    Both must find the same things in the same order, as their field `same_by` says. `ids` are what
    `{id}` in a path stands for, by the name of the server.
    """
    found: list[Figure] = []
    for case in cases:
        print(f"  {case.work} …", file=sys.stderr, flush=True)
        paths = [case.path.format(id=(ids or {}).get(server.name)) for server in pair.both]
        if case.making is None:
            _require_same(pair, paths, same_by)
        turns = [
            [
                _turn(server, pair.postgres, path, case.making, seconds)
                for server, path in zip(pair.both, paths, strict=True)
            ]
            for _ in range(rounds)
        ]
        ours, theirs = zip(*turns, strict=True)
        found += _figures(part, case.work, ours, theirs, raw=(raw or {}).get(case.work))
    return found


def _figures(
    part: str, work: str, ours: Sequence[Turn], theirs: Sequence[Turn], *, raw: Figure | None
) -> list[Figure]:
    rate = figure(
        *(part, work, "requests/s"),
        ours=[turn.many.rate for turn in ours],
        theirs=[turn.many.rate for turn in theirs],
        raw=raw.ours if raw else None,
        raw_name=raw.work if raw else "",
        more_is_better=True,
    )
    others = {
        "p50 ms": lambda turn: turn.many.p50_ms,
        "p99 ms": lambda turn: turn.many.p99_ms,
        "p50 ms, one client": lambda turn: turn.alone.p50_ms,
        "CPU ms": lambda turn: turn.cpu_ms,
        "PostgreSQL's CPU ms": lambda turn: turn.postgres_ms,
    }
    return [
        rate,
        *(
            figure(
                *(part, work, unit),
                ours=[of(turn) for turn in ours],
                theirs=[of(turn) for turn in theirs],
            )
            for unit, of in others.items()
        ),
    ]


def _turn(
    server: Server,
    postgres: psutil.Process,
    path: str,
    making: Making | None,
    seconds: float,
) -> Turn:
    url = f"{server.url}{path}"
    took = _one(server, url)
    cpu, of_postgres = servers.cpu_s(server.process), servers.cpu_s(postgres)
    many = load.run(
        *(url, server.headers),
        # Enough of them that those which are not over when the time is do not count for much.
        seconds=max(seconds, min(10 * took, _LONGEST_S)),
        connections=_CONNECTIONS,
        making=making,
    )
    cpu = servers.cpu_s(server.process) - cpu
    of_postgres = servers.cpu_s(postgres) - of_postgres
    # Behind those that wrk has left in the queue.
    _one(server, url)
    alone = load.run(
        *(url, server.headers), seconds=max(seconds / 2, 4 * took), connections=1, making=making
    )
    return Turn(many, alone, 1000 * cpu / many.requests, 1000 * of_postgres / many.requests)


def _one(server: Server, url: str) -> float:
    """Seconds of a single GET."""
    begun = time.monotonic()
    httpx.get(url, headers=server.headers, timeout=600).raise_for_status()
    return time.monotonic() - begun


def _against(small: Pair, large: Pair, *, rounds: int, seconds: float) -> list[Figure]:
    """The first page of a million, and how much longer it takes than that of a thousand."""
    work, path = "list, 25 of 1M", "/v2/images"
    print(f"  {work} …", file=sys.stderr, flush=True)
    _require_same(large, (path, path), "id")
    turns: dict[str, list[Turn]] = {"ours": [], "Glance": []}
    longer: dict[str, list[float]] = {"ours": [], "Glance": []}
    for _ in range(rounds):
        for less, more in zip(small.both, large.both, strict=True):
            first, second = (
                _turn(server, large.postgres, path, None, seconds) for server in (less, more)
            )
            turns[more.name].append(second)
            longer[more.name].append(first.many.rate / second.many.rate)
    return [
        *_figures(PART, work, turns["ours"], turns["Glance"], raw=None),
        figure(
            *(PART, "1M against 1k", "times as long"), ours=longer["ours"], theirs=longer["Glance"]
        ),
    ]


def _require_same(pair: Pair, paths: Sequence[str], same_by: str) -> None:
    """Both find the same things: what is compared is the same work."""
    ours, theirs = (
        _found(server, path, same_by) for server, path in zip(pair.both, paths, strict=True)
    )
    if ours != theirs:
        raise DevError(
            f"{paths[0]}: {len(ours)} of ours are not the same as the {len(theirs)} of "
            f"{pair.theirs.name}"
        )


def _found(server: Server, path: str, field: str) -> list[str]:
    answer = httpx.get(f"{server.url}{path}", headers=server.headers, timeout=600)
    answer.raise_for_status()
    document = answer.json()
    listed = document.get("images", document.get("artifacts", [document]))
    if not listed:
        raise DevError(f"{server.name} finds nothing: {path}")
    return [one[field] for one in listed]


def _raw(rig: Rig, pair: Pair, *, rounds: int, seconds: float) -> dict[str, Figure]:
    """The bare route, for `show image`, and the bare statement."""
    with _bare_route(rig) as url:
        routes = [
            load.run(url, {}, seconds=seconds, connections=_CONNECTIONS) for _ in range(rounds)
        ]
    asking = [
        *(sys.executable, "-m", "tests.bench.bare", pair.ours.database, image_id(_ONE)),
        *(str(seconds), str(PROCESSES)),
    ]
    statements = [
        float(
            subprocess.run(
                asking, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True, text=True
            ).stdout
        )
        for _ in range(rounds)
    ]
    return {
        "show image": figure(
            *(PART, "bare ASGI route", "requests/s"), ours=[one.rate for one in routes]
        ),
        "statement": figure(PART, "one row by key, asyncpg", "statements/s", ours=statements),
    }


@contextmanager
def _bare_route(rig: Rig) -> Generator[str]:
    port = ports.any_free()
    log = rig.folder / "bare.log"
    process = guard.guarded(
        [
            *(sys.executable, "-m", "uvicorn", "--app-dir", str(CHECKOUT)),
            *("--host", ports.LOOPBACK, "--port", str(port), "--workers", str(PROCESSES)),
            *("--loop", "uvloop", "--http", "httptools", "--lifespan", "off"),
            *("--no-access-log", "--log-level", "warning", "tests.bench.bare:route"),
        ],
        log=log,
        environment={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'deploy'}"},
    )
    url = f"http://{ports.LOOPBACK}:{port}"
    try:
        guard.await_start(process, lambda: ports.answers(url), name="uvicorn", log=log, within_s=60)
        yield url
    finally:
        guard.stop(process)
