"""How much memory the images service takes: idle, with many slow clients, after long lists."""

import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from tests.bench.data import BLOCK, blocks
from tests.bench.figures import Figure, figure
from tests.bench.servers import Rig, Server, images_pair, pss
from tests.bench.sides import asked, made, removed
from tests.bench.streams import connected, head

PART: Final = "memory"

_CLIENTS: Final = 100
_MIB: Final = 1024 * 1024
_AT_ONCE: Final = 4 * _MIB
_PIECE: Final = 16 * 1024
_PAUSE_S: Final = 0.25
_LISTED: Final = 1000


def figures(rig: Rig, *, quick: bool) -> list[Figure]:
    """All that is measured here."""
    with images_pair(rig, "memory") as pair:
        for server in pair.both:
            for _ in range(20):
                asked(server, "GET", "/v2/images")
        ours, theirs = (pss(server.process) / _MIB for server in pair.both)
        seconds = 3 if quick else 15
        return [
            figure(PART, "idle, 2 processes", "MiB", ours=[ours], theirs=[theirs]),
            _slow_uploads(pair.ours, seconds),
            _slow_downloads(pair.ours, seconds),
            _lists(pair.ours, batch=10 if quick else 50),
        ]


def _slow_uploads(server: Server, seconds: int) -> Figure:
    images = [made(server) for _ in range(_CLIENTS)]
    piece = next(blocks(_PIECE))

    def send(connection: socket.socket) -> int:
        return connection.send(piece)

    before = pss(server.process)
    with ExitStack() as stack:
        connections = [
            stack.enter_context(_asking(server, "PUT", image, {"Content-Length": str(1 << 30)}))
            for image in images
        ]
        most = _most_meanwhile(server, connections, send, seconds)
    for image in images:
        removed(server, image)
    return _for_one(f"{_CLIENTS} slow uploads", most - before)


def _slow_downloads(server: Server, seconds: int) -> Figure:
    image = made(server)
    size = 64 * BLOCK
    with _asking(server, "PUT", image, {"Content-Length": str(size)}) as connection:
        for block in blocks(size):
            connection.sendall(block)
        connection.recv(_PIECE)

    def receive(connection: socket.socket) -> int:
        count = len(connection.recv(_PIECE))
        if not count:
            raise SystemExit("a slow download was broken off")
        return count

    before = pss(server.process)
    with ExitStack() as stack:
        connections = [
            stack.enter_context(_asking(server, "GET", image, {})) for _ in range(_CLIENTS)
        ]
        most = _most_meanwhile(server, connections, receive, seconds)
    removed(server, image)
    return _for_one(f"{_CLIENTS} slow downloads", most - before)


def _asking(server: Server, method: str, image: str, headers: dict[str, str]) -> socket.socket:
    """A connection on which the bytes of an image were asked for, or announced."""
    url = f"{server.url}/v2/images/{image}/file"
    connection = connected(url)
    octets = {"Content-Type": "application/octet-stream"}
    connection.sendall(head(method, url, {**server.headers, **octets, **headers}))
    return connection


def _most_meanwhile(
    server: Server,
    connections: Sequence[socket.socket],
    move: Callable[[socket.socket], int],
    seconds: int,
) -> int:
    """The most memory that is seen while each connection moves its bytes, slowly from 4 MiB on."""
    moved = dict.fromkeys(connections, 0)
    for connection in connections:
        connection.setblocking(False)
    allowed, most = _AT_ONCE, 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for connection in connections:
            try:
                while moved[connection] < allowed:
                    moved[connection] += move(connection)
            except BlockingIOError:
                continue
        most = max(most, pss(server.process))
        time.sleep(_PAUSE_S)
        # What a connection could not move at once, it may do later.
        if min(moved.values()) >= _AT_ONCE:
            allowed += _PIECE
    return most


def _for_one(work: str, size: int) -> Figure:
    return figure(PART, work, "MiB each", ours=[size / _MIB / _CLIENTS])


def _lists(server: Server, *, batch: int) -> Figure:
    for number in range(_LISTED):
        made(server, f"listed-{number}")

    def taken() -> Iterator[int]:
        for _ in range(4):
            for _ in range(batch):
                asked(server, "GET", f"/v2/images?limit={_LISTED}")
            yield pss(server.process)

    first, second, *rest = taken()
    # The first lists make room for what comes after them.
    growth = statistics.mean(rest) / statistics.mean((first, second)) - 1
    return figure(PART, f"growth by lists of {_LISTED}", "%", ours=[100 * growth])
