"""Ports of the development stack: which are asked for, which are taken, and who answers there."""

import itertools
import os
import random
import socket
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

from dev.places import DevError

LOOPBACK = "127.0.0.1"
_GRACE_S = 3
# Loopback is never reached through a proxy, whatever the environment says.
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

_DEFAULTS = {
    "postgres": ("PostgreSQL", "POSTGRES_PORT", 15432),
    "keystone": ("Keystone", "KEYSTONE_PORT", 5000),
    "s3": ("S3", "S3_PORT", 8333),
    "rabbitmq": ("RabbitMQ", "RABBITMQ_PORT", 5672),
    "images": ("the images service", "IMAGES_PORT", 9292),
    "artifacts": ("the artifacts service", "ARTIFACTS_PORT", 9494),
    "images_metrics": ("the images service's metrics", "IMAGES_METRICS_PORT", 9293),
    "artifacts_metrics": ("the artifacts service's metrics", "ARTIFACTS_METRICS_PORT", 9495),
}
RUN = ("postgres", "keystone", "images", "artifacts", "images_metrics", "artifacts_metrics")
STACK = ("postgres", "keystone", "s3", "rabbitmq", "images", "artifacts")


@dataclass(frozen=True, slots=True)
class Port:
    """One listener: what it's for, the environment variable that moves it, and where it is."""

    purpose: str
    variable: str
    number: int


def wanted(names: Sequence[str] = RUN) -> dict[str, Port]:
    """Ports by short name, as the environment asks for them; those of `make run` if none is named.

    Raises DevError for a value that isn't a port, and for one port asked for twice.
    """
    ports = {
        name: Port(purpose, variable, _number(variable, default))
        for name, (purpose, variable, default) in _DEFAULTS.items()
        if name in names
    }
    by_number: dict[int, Port] = {}
    for port in ports.values():
        first = by_number.setdefault(port.number, port)
        if first is not port:
            raise DevError(
                f"port {port.number} is asked for twice, by {first.variable} and {port.variable}"
            )
    return ports


def require_free(port: Port, *, command: str = "make run") -> None:
    """Raise a DevError that names the port, its purpose and the way out, if it is taken."""
    # Some seconds' grace: the servers of a run that was killed may still be leaving, and a passing
    # connection of anybody's may have been given the number for its own end.
    deadline = time.monotonic() + _GRACE_S
    while not is_free(port.number):
        if time.monotonic() < deadline:
            time.sleep(0.1)
            continue
        raise DevError(
            f"port {port.number} on {LOOPBACK}, wanted for {port.purpose}, is already in use. "
            f"Stop what listens there, or choose another port: "
            f"{command} {port.variable}={port.number + 10000 if port.number < 50000 else 45432}"
        )


def is_free(number: int) -> bool:
    """True if a server could listen on the loopback port now."""
    with socket.socket() as probe:
        # As servers do, so that connections of an earlier run in TIME_WAIT don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, number))
        except OSError:
            return False
        return True


def answers(url: str) -> bool:
    """True if a server on loopback answers a GET now, and with no error."""
    try:
        with direct.open(url, timeout=5):
            return True
    except OSError:
        return False


def any_free() -> int:
    """A port that was free a moment ago; no passing connection is given it (several_free)."""
    (number,) = several_free(1)
    return number


def several_free(count: int) -> list[int]:
    """Different free ports below those that Linux hands out to connections of its own accord.

    One of those would now and then be taken between this look and the server's start.
    """
    candidates = random.SystemRandom().sample(range(20_000, 32_000), 1000)
    free = (number for number in candidates if is_free(number))
    return list(itertools.islice(free, count))


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "") or str(default)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise DevError(f"{variable}={text!r} is not a port number (1 to 65535)")
    return int(text)
