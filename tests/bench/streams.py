"""A client that costs next to nothing: one connection over a bare socket, in a process of its own.

The process reads an order, one line of JSON, says `ready`, waits for another line, does what it was
told, and prints one line of JSON. Many that were told at once begin at once: their times are of the
machine's one monotonic clock. Bytes that are sent go from a file to the socket
within the kernel; bytes that come are counted and thrown away there.
"""

import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

_MIB = 1024 * 1024
# Questions that `ask` puts in a second: few enough to be no load of their own.
_PER_SECOND = 50
# MiB that are digested again and again: more than any cache nearby holds.
_KEPT = 64
# Seconds after which a client that hangs ends.
_PATIENCE_S = 600


Work = Literal["upload", "download", "ask", "digest", "copy"]


@dataclass(frozen=True)
class Order:
    """What one process is to do.

    `upload` sends `size` bytes of `file`, `download` gets as many; `ask` asks for small answers for
    `size` seconds. `digest` computes `digests` of `size` bytes, one after the other, and `copy`
    reads as many: what the machine can do without a server.
    """

    work: Work
    size: int
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    file: str = ""
    digests: Sequence[str] = ()


@dataclass(frozen=True)
class Done:
    """What came of it: when it began and ended, its own CPU seconds, and the answers' times."""

    begun: float
    ended: float
    cpu_s: float
    times: Sequence[float] = ()


def together(orders: Sequence[Order]) -> list[Done]:
    """Carry out orders at the same time."""
    with begun(*orders) as processes:
        return [_result(process) for process in processes]


@contextmanager
def begun(*orders: Order) -> Generator[list[subprocess.Popen[str]]]:
    """Processes that are at it; they end with the context, done or not."""
    processes = [
        subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in orders
    ]
    try:
        for process, order in zip(processes, orders, strict=True):
            _tell(process, json.dumps(asdict(order)))
        for process in processes:
            _said(process)
        for process in processes:
            _tell(process, "go")
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def seconds(done: Sequence[Done]) -> float:
    """From the first one's begin to the last one's end."""
    return max(one.ended for one in done) - min(one.begun for one in done)


def _result(process: subprocess.Popen[str]) -> Done:
    return Done(**json.loads(_said(process)))


def _tell(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is None:
        raise SystemExit("no way to tell the client")
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _said(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit("a client ended before its time; what it said is above")
    return line


# What follows runs in the client's process.


def connected(url: str) -> socket.socket:
    """A connection to the server of `url`."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80))


def head(method: str, url: str, headers: Mapping[str, str]) -> bytes:
    """The first part of a request."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def answered(connection: socket.socket) -> tuple[int, int, bytes]:
    """Status, Content-Length (0 without one) and what has come of the body."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            raise SystemExit(f"the connection ended after {received[:500]!r}")
        received += piece
    first, _, body = received.partition(b"\r\n\r\n")
    lines = first.lower().split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
    status = int(lines[0].split()[1])
    if status >= 300:
        raise SystemExit(f"the answer is {received[:500]!r}")
    return status, length, body


def _upload(order: Order) -> None:
    headers = {
        **order.headers,
        "Content-Type": "application/octet-stream",
        "Content-Length": str(order.size),
    }
    with connected(order.url) as connection, Path(order.file).open("rb") as file:
        connection.sendall(head("PUT", order.url, headers))
        connection.sendfile(file, count=order.size)
        answered(connection)


def _download(order: Order) -> None:
    with connected(order.url) as connection:
        connection.sendall(head("GET", order.url, order.headers))
        _, length, body = answered(connection)
        if length != order.size:
            raise SystemExit(f"{length} bytes are announced instead of {order.size}")
        missing = length - len(body)
        buffer = bytearray(_MIB)
        while missing:
            # Thrown away by the kernel, see tcp(7).
            count = connection.recv_into(buffer, 0, socket.MSG_TRUNC)
            if not count:
                raise SystemExit(f"{missing} of {length} bytes are missing")
            missing -= count


def _ask(order: Order) -> list[float]:
    """Seconds that answers took, one after the other, each on a connection of its own."""
    request = head("GET", order.url, {**order.headers, "Connection": "close"})
    times: list[float] = []
    until = time.monotonic() + order.size
    while (now := time.monotonic()) < until:
        with connected(order.url) as connection:
            connection.sendall(request)
            answered(connection)
        times.append(time.monotonic() - now)
        time.sleep(max(0.0, 1 / _PER_SECOND - times[-1]))
    return times


def _digest(order: Order) -> None:
    hashes = [hashlib.new(name, usedforsecurity=False) for name in order.digests]
    with Path(order.file).open("rb") as file:
        kept = [file.read(_MIB) for _ in range(min(_KEPT, order.size // _MIB))]
    for number in range(order.size // _MIB):
        for one in hashes:
            one.update(kept[number % len(kept)])


def _copy(order: Order) -> None:
    buffer = bytearray(_MIB)
    with Path(order.file).open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _main() -> None:
    signal.alarm(_PATIENCE_S)
    order = Order(**json.loads(sys.stdin.readline()))
    print("ready", flush=True)
    sys.stdin.readline()
    times: list[float] = []
    begun, cpu_s = time.monotonic(), time.process_time()
    match order.work:
        case "upload":
            _upload(order)
        case "download":
            _download(order)
        case "ask":
            times = _ask(order)
        case "digest":
            _digest(order)
        case "copy":
            _copy(order)
    done = Done(begun, time.monotonic(), time.process_time() - cpu_s, times)
    print(json.dumps(asdict(done)), flush=True)


if __name__ == "__main__":
    _main()
