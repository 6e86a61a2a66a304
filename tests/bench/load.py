"""Small requests by the thousand, sent by wrk; anything but a good answer ends the bench."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dev.places import DevError

from tests import debian

_SCRIPT = Path(__file__).with_name("load.lua")
_FOUND = re.compile(r"^found (.*)$", re.MULTILINE)
_LONGEST_S = 120


@dataclass(frozen=True)
class Answered:
    """What came of one run: how many answers in how many seconds, and how long each took."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class Making:
    """A request that makes something, whose id `find` (a Lua pattern) finds in the answer.

    With `find` each thing is deleted again, below `path`, by a request that counts, too.
    """

    body: str
    find: str = ""
    path: str = ""


def run(
    url: str,
    headers: Mapping[str, str],
    *,
    seconds: float,
    connections: int,
    making: Making | None = None,
) -> Answered:
    """Ask for `url` over and over; DevError if a single answer is no success, or none comes."""
    wrk = debian.program("wrk", "wrk")
    if wrk is None:
        raise DevError("needs wrk: install Debian's package of this name")
    sent = dict(headers)
    tail: Sequence[str] = ()
    if making is not None:
        sent["Content-Type"] = "application/json"
        tail = ["--", "POST", making.body, making.find, making.path]
    done = subprocess.run(
        [
            *(wrk, "--threads", "1", "--connections", str(connections)),
            *("--duration", f"{max(1, round(seconds))}s", "--timeout", f"{_LONGEST_S}s"),
            *("--script", str(_SCRIPT)),
            *(part for name, value in sent.items() for part in ("--header", f"{name}: {value}")),
            *(url, *tail),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    found = _FOUND.search(done.stdout)
    if done.returncode or found is None:
        raise DevError(f"wrk failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    requests, micros, p50, p99, refused, broken, late = map(int, found[1].split())
    if refused or broken or late or not requests:
        raise DevError(
            f"{url}: of {requests} requests {refused} were refused, {broken} broke off, "
            f"{late} had no answer"
        )
    return Answered(requests, micros / 1e6, p50 / 1000, p99 / 1000)
