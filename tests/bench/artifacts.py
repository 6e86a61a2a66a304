"""The artifacts services: the same as with images, and the bytes of a blob.

Glare has PostgreSQL as ours has. Lists that are sorted by a field of the type's own are a 500
there, and are not asked for.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlsplit

import httpx
from dev.places import DevError

from tests.bench import requests, servers
from tests.bench.data import BLOCK, blocks
from tests.bench.figures import Figure, figure
from tests.bench.load import Making
from tests.bench.requests import Case
from tests.bench.servers import Pair, Rig, Server

PART = "artifacts"
_TYPE = "/artifacts/images"


def figures(rig: Rig, *, quick: bool) -> list[Figure]:
    """All figures of this part; `quick` is one short round."""
    rounds, seconds, size, listed = (
        (1, 1, 256 * BLOCK, 100) if quick else (3, 2, 1024 * BLOCK, 1000)
    )
    with servers.artifacts_pair(rig, "artifacts") as pair:
        shown = {server.name: _filled(server, listed) for server in pair.both}
        cases = [
            Case("show artifact", f"{_TYPE}/{{id}}"),
            Case("list of artifacts", _TYPE),
            Case(f"list of artifacts, limit={listed}", f"{_TYPE}?limit={listed}"),
            Case("create artifact", _TYPE, Making(json.dumps({**_new(0), "name": "image-SERIAL"}))),
        ]
        made = requests.measured(
            PART, pair, cases, rounds=rounds, seconds=seconds, ids=shown, same_by="name"
        )
        return [*made, *_blobs(pair, shown, rounds=rounds, size=size)]


def _new(number: int) -> dict[str, object]:
    """An artifact as people make them: with formats, tags and some metadata."""
    return {
        "name": f"image-{number}",
        "disk_format": "qcow2",
        "container_format": "bare",
        "min_ram": 512,
        "os_distro": "debian",
        "tags": ["bench", f"tag-{number % 10}"],
        "metadata": {"build": str(number), "branch": "main"},
    }


def _filled(server: Server, number: int) -> str:
    """Make what is listed; the id of the last."""
    made: list[str] = []
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=60) as client:
        for at in range(number):
            answer = client.post(_TYPE, json=_new(at))
            answer.raise_for_status()
            made.append(answer.json()["id"])
    return made[-1]


def _blobs(pair: Pair, ids: Mapping[str, str], *, rounds: int, size: int) -> list[Figure]:
    """One stream up, and down again."""
    made: list[Figure] = []
    for work, move in (("upload a blob", _upload), ("download a blob", _download)):
        print(f"  {work} …", file=sys.stderr, flush=True)
        turns = [
            [
                _timed(server, f"{_TYPE}/{ids[server.name]}/image", move, size)
                for server in pair.both
            ]
            for _ in range(rounds)
        ]
        ours, theirs = zip(*turns, strict=True)
        made += [
            figure(
                *(PART, work, "MiB/s"),
                ours=[size / BLOCK / seconds for seconds, _ in ours],
                theirs=[size / BLOCK / seconds for seconds, _ in theirs],
                more_is_better=True,
            ),
            figure(
                *(PART, work, "CPU s/GiB"),
                ours=[cpu_s * 1024 * BLOCK / size for _, cpu_s in ours],
                theirs=[cpu_s * 1024 * BLOCK / size for _, cpu_s in theirs],
            ),
        ]
    return made


def _timed(
    server: Server, path: str, move: Callable[[HTTPConnection, Server, str, int], None], size: int
) -> tuple[float, float]:
    """Seconds, and the CPU seconds of the service."""
    cpu, begun = servers.cpu_s(server.process), time.perf_counter()
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=600)
    try:
        move(connection, server, path, size)
    finally:
        connection.close()
    return time.perf_counter() - begun, servers.cpu_s(server.process) - cpu


def _upload(connection: HTTPConnection, server: Server, path: str, size: int) -> None:
    headers = {
        **server.headers,
        "Content-Type": "application/octet-stream",
        "Content-Length": str(size),
    }
    connection.request("PUT", path, body=blocks(size), headers=headers)
    _good(connection.getresponse()).read()


def _download(connection: HTTPConnection, server: Server, path: str, size: int) -> None:
    connection.request("GET", path, headers=dict(server.headers))
    answer = _good(connection.getresponse())
    read = 0
    while block := answer.read(BLOCK):
        read += len(block)
    if read != size:
        raise DevError(f"{read} bytes came instead of {size}")


def _good(answer: HTTPResponse) -> HTTPResponse:
    if answer.status >= 300:
        raise DevError(f"{answer.status}: {answer.read(500)!r}")
    return answer
