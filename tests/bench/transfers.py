"""How fast images go in and out, against Glance and against what the machine can do."""

import os
import pwd
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from dev import guard, ports

from tests import debian
from tests.bench import streams
from tests.bench.data import BLOCK, blocks
from tests.bench.figures import Figure, figure
from tests.bench.servers import Pair, Rig, Server, cpu_s, images_pair, our_images
from tests.bench.sides import made, removed
from tests.bench.streams import Order

PART: Final = "transfers"

_STREAMS: Final = 8
_DIGESTS: Final = ("md5", "sha512")
_GIB: Final = 1 << 30

_ACCEL: Final = "/_store"
_NGINX: Final = """\
daemon off;
user {user};
pid {folder}/nginx.pid;
worker_processes 2;
events {{ worker_connections 512; }}
http {{
    access_log off;
    sendfile on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {alone};
        root /;
    }}
    server {{
        listen {before};
        location / {{
            proxy_pass {url};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Sendfile-Type X-Accel-Redirect;
        }}
        location {accel}/ {{
            internal;
            alias /;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Moved:
    """What took a turn: GiB a second, and CPU seconds for a GiB (the server's if there is one)."""

    gib_s: float
    cpu_s_gib: float


def figures(rig: Rig, *, quick: bool) -> list[Figure]:
    """All that is measured here; files of 1 GiB (quick: 128 MiB) are in the rig's folder."""
    size = (128 if quick else 1024) * BLOCK
    rounds = 1 if quick else 3
    source = rig.folder / "source"
    with source.open("wb") as file:
        file.writelines(blocks(size))
        os.fsync(file.fileno())
    with images_pair(rig, "transfers") as pair:
        found = [
            *_uploads(pair, source, size, rounds),
            *_downloads(pair, source, size, rounds),
            _others(pair, source, size, seconds=2 if quick else 8),
        ]
    found += _through_nginx(rig, source, size, rounds)
    source.unlink()
    return found


def _uploads(pair: Pair, source: Path, size: int, rounds: int) -> Iterator[Figure]:
    def slower_digest() -> Moved:
        alone = (_ran([_digest(source, size, name)]) for name in _DIGESTS)
        return min(alone, key=lambda one: one.gib_s)

    def two_cores() -> Moved:
        return _ran([_digest(source, size // 2, *_DIGESTS)] * 2)

    for work, number, raw_name, limit in (
        ("upload, one stream", 1, "the slower digest", slower_digest),
        (f"upload, {_STREAMS} streams", _STREAMS, "digests by two cores", two_cores),
    ):
        ours, theirs, raw = _in_turn(
            rounds,
            lambda number=number: _uploaded(pair.ours, source, size, number),
            lambda number=number: _uploaded(pair.theirs, source, size, number),
            limit,
        )
        yield from _both(work, ours, theirs, raw, raw_name)


def _downloads(pair: Pair, source: Path, size: int, rounds: int) -> Iterator[Figure]:
    images = [_filled(server, source, size) for server in pair.both]
    for work, number in (("download, one stream", 1), (f"download, {_STREAMS} streams", _STREAMS)):
        from_ours, from_theirs = (
            [_order("download", server, image, size)] * number
            for server, image in zip(pair.both, images, strict=True)
        )
        copies = [Order("copy", size=size, file=str(source))] * number
        ours, theirs, raw = _in_turn(
            rounds,
            lambda orders=from_ours: _ran(orders, pair.ours),
            lambda orders=from_theirs: _ran(orders, pair.theirs),
            lambda orders=copies: _ran(orders),
        )
        yield from _both(work, ours, theirs, raw, "reading the file")
    for server, image in zip(pair.both, images, strict=True):
        removed(server, image)


def _through_nginx(rig: Rig, source: Path, size: int, rounds: int) -> Iterator[Figure]:
    program = debian.program("nginx", "nginx")
    if program is None:
        print("through nginx: left out, nginx is not installed", file=sys.stderr)
        return
    folder = rig.folder / "nginx"
    settings = {"DEFAULT__X_ACCEL_REDIRECT": _ACCEL}
    with our_images(rig, folder, options=settings) as server:
        image = _filled(server, source, size)
        with _nginx(program, folder, server) as (alone, before):
            of_nginx = Order("download", url=f"{alone}{server.folder}/{image}", size=size)
            of_ours = Order(
                "download",
                url=f"{before}/v2/images/{image}/file",
                headers=server.headers,
                size=size,
            )
            for work, number in (("one stream", 1), (f"{_STREAMS} streams", _STREAMS)):
                ours, raw = _in_turn(
                    rounds,
                    lambda number=number: _ran([of_ours] * number, server),
                    lambda number=number: _ran([of_nginx] * number),
                )
                yield figure(
                    *(PART, f"download through nginx, {work}", "GiB/s"),
                    ours=[one.gib_s for one in ours],
                    raw=statistics.median(one.gib_s for one in raw),
                    raw_name="nginx alone",
                    more_is_better=True,
                )


def _others(pair: Pair, source: Path, size: int, *, seconds: int) -> Figure:
    ours, theirs = (_shown_meanwhile(one, source, size, seconds) for one in pair.both)
    work = f"show, p50 during {_STREAMS} uploads"
    return figure(PART, work, "ms", ours=[ours], theirs=[theirs])


def _shown_meanwhile(server: Server, source: Path, size: int, seconds: int) -> float:
    shown = made(server)
    busy = [made(server) for _ in range(_STREAMS)]
    url = f"{server.url}/v2/images/{shown}"
    ask = Order("ask", url=url, headers=server.headers, size=seconds)
    # They are cut off when there have been enough answers.
    with streams.begun(*(_order("upload", server, one, size, source) for one in busy)):
        time.sleep(0.5)
        (answers,) = streams.together([ask])
    for image in (shown, *busy):
        removed(server, image)
    return statistics.median(answers.times) * 1000


def _filled(server: Server, source: Path, size: int) -> str:
    """The id of an image with these bytes."""
    image = made(server)
    _ran([_order("upload", server, image, size, source)])
    return image


def _uploaded(server: Server, source: Path, size: int, number: int) -> Moved:
    images = [made(server) for _ in range(number)]
    parts = [_order("upload", server, one, size // number, source) for one in images]
    moved = _ran(parts, server)
    for image in images:
        removed(server, image)
    return moved


def _order(work: streams.Work, server: Server, image: str, size: int, file: Path = Path()) -> Order:
    url = f"{server.url}/v2/images/{image}/file"
    return Order(work, url=url, headers=server.headers, size=size, file=str(file))


def _digest(source: Path, size: int, *digests: str) -> Order:
    return Order("digest", size=size, file=str(source), digests=digests)


def _ran(orders: Sequence[Order], server: Server | None = None) -> Moved:
    """All at once; the CPU time is the clients' own where there is no server."""
    before = 0.0 if server is None else cpu_s(server.process)
    done = streams.together(orders)
    cpu = sum(one.cpu_s for one in done) if server is None else cpu_s(server.process) - before
    gib = sum(order.size for order in orders) / _GIB
    return Moved(gib / streams.seconds(done), cpu / gib)


def _in_turn(rounds: int, *turns: Callable[[], Moved]) -> list[list[Moved]]:
    taken = [[turn() for turn in turns] for _ in range(rounds)]
    return [list(of_one) for of_one in zip(*taken, strict=True)]


def _both(
    work: str,
    ours: Sequence[Moved],
    theirs: Sequence[Moved],
    raw: Sequence[Moved],
    raw_name: str,
) -> Iterator[Figure]:
    """The figures of speed, and of CPU time."""
    yield figure(
        *(PART, work, "GiB/s"),
        ours=[one.gib_s for one in ours],
        theirs=[one.gib_s for one in theirs],
        raw=statistics.median(one.gib_s for one in raw),
        raw_name=raw_name,
        more_is_better=True,
    )
    yield figure(
        *(PART, work, "CPU s/GiB"),
        ours=[one.cpu_s_gib for one in ours],
        theirs=[one.cpu_s_gib for one in theirs],
        raw=statistics.median(one.cpu_s_gib for one in raw),
        raw_name=raw_name,
    )


@contextmanager
def _nginx(program: str, folder: Path, server: Server) -> Generator[tuple[str, str]]:
    """nginx with all files of this host, and nginx before the server."""
    alone, before = (f"http://127.0.0.1:{port}" for port in ports.several_free(2))
    configuration, log = folder / "nginx.conf", folder / "nginx.log"
    configuration.write_text(
        _NGINX.format(
            user=pwd.getpwuid(os.geteuid()).pw_name,
            folder=folder,
            alone=urlsplit(alone).netloc,
            before=urlsplit(before).netloc,
            url=server.url,
            accel=_ACCEL,
        )
    )
    process = guard.guarded(
        [program, "-p", str(folder), "-e", str(log), "-c", str(configuration)],
        log=log,
        environment={},
    )
    try:
        guard.await_start(
            *(process, lambda: ports.answers(f"{before}/healthcheck")),
            name="nginx",
            log=log,
            within_s=20,
        )
        yield alone, before
    finally:
        guard.stop(process)
