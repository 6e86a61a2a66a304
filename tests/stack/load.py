"""Work of all kinds that goes on while something happens to the servers, and what becomes of it.

No client here asks for anything twice: what is not answered as it should be is a failure.
"""

import asyncio
import hashlib
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.waiting import until

OCTETS = {"Content-Type": "application/octet-stream"}
PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
_NEW = {"name": "load", "disk_format": "raw", "container_format": "bare"}
_KIND = "/artifacts/images"

# What is uploaded, in pieces with pauses: over a second of sending.
_PIECE = os.urandom(64 * 1024)
_PIECES = 24
_PAUSE_S = 0.05
_SENT = _PIECE * _PIECES
# What is downloaded, with pauses: more than sockets and proxies hold of it by themselves.
_KEPT = os.urandom(8 << 20)
# Between two rounds of one client: many requests, and time for others on the machine.
_REST_S = 0.1
_IMPORTED_WITHIN_S = 90.0


class Failed(Exception):
    """A request was not answered as it should be; `began` is by time.monotonic()."""

    def __init__(self, began: float, words: str) -> None:
        super().__init__(words)
        self.began = began


@dataclass
class Report:
    """What was done by kind of work, and what failed."""

    done: Counter[str] = field(default_factory=Counter)
    failures: list[Failed] = field(default_factory=list)

    def counted(self) -> str:
        """For people."""
        return ", ".join(f"{count} {work}" for work, count in sorted(self.done.items()))


@dataclass(frozen=True)
class _Site:
    """Clients of both services, and what was made for them to read."""

    images: httpx.AsyncClient
    artifacts: httpx.AsyncClient
    image: str
    blob: str


async def _ask(
    client: httpx.AsyncClient, method: str, path: str, expected: int, **given: Any
) -> httpx.Response:
    began = time.monotonic()
    try:
        answer = await client.request(method, path, **given)
    except httpx.HTTPError as error:
        raise Failed(began, f"{method} {path}: {error!r}") from error
    if answer.status_code != expected:
        raise Failed(began, f"{method} {path}: {answer.status_code} {answer.text[:300]}")
    return answer


async def _slowly() -> AsyncIterator[bytes]:
    for _ in range(_PIECES):
        yield _PIECE
        await asyncio.sleep(_PAUSE_S)


async def _read_slowly(client: httpx.AsyncClient, path: str) -> None:
    began = time.monotonic()
    digest, taken = hashlib.sha256(), 0
    try:
        async with client.stream("GET", path) as answer:
            if answer.status_code != 200:
                raise Failed(began, f"GET {path}: {answer.status_code}")
            async for piece in answer.aiter_bytes(1 << 20):
                digest.update(piece)
                taken += len(piece)
                await asyncio.sleep(_PAUSE_S)
    except httpx.HTTPError as error:
        raise Failed(began, f"GET {path}, {taken} bytes: {error!r}") from error
    if digest.digest() != hashlib.sha256(_KEPT).digest():
        raise Failed(began, f"GET {path}: {taken} other bytes")


async def _upload(site: _Site) -> None:
    path = (await _ask(site.images, "POST", "/v2/images", 201, json=_NEW)).json()["self"]
    await _ask(site.images, "PUT", f"{path}/file", 204, content=_slowly(), headers=OCTETS)
    shown = (await _ask(site.images, "GET", path, 200)).json()
    if (shown["status"], shown["checksum"]) != ("active", hashlib.md5(_SENT).hexdigest()):
        raise Failed(time.monotonic(), f"uploaded, and it is {shown}")
    await _ask(site.images, "DELETE", path, 204)


async def _import(site: _Site) -> None:
    path = (await _ask(site.images, "POST", "/v2/images", 201, json=_NEW)).json()["self"]
    await _ask(site.images, "PUT", f"{path}/stage", 204, content=_slowly(), headers=OCTETS)
    body = {"method": {"name": "glance-direct"}}
    await _ask(site.images, "POST", f"{path}/import", 202, json=body)
    deadline = time.monotonic() + _IMPORTED_WITHIN_S
    while (shown := (await _ask(site.images, "GET", path, 200)).json())["status"] != "active":
        if shown["status"] != "importing" or time.monotonic() > deadline:
            raise Failed(deadline - _IMPORTED_WITHIN_S, f"imported, and it is {shown}")
        await asyncio.sleep(0.1)
    await _ask(site.images, "DELETE", path, 204)


async def _change(site: _Site) -> None:
    path = (await _ask(site.images, "POST", "/v2/images", 201, json=_NEW)).json()["self"]
    change = [{"op": "add", "path": "/colour", "value": "red"}]
    await _ask(site.images, "PATCH", path, 200, json=change, headers=PATCH)
    await _ask(site.images, "DELETE", path, 204)


async def _list(site: _Site) -> None:
    await _ask(site.images, "GET", "/v2/images?limit=5", 200)


async def _show(site: _Site) -> None:
    await _ask(site.images, "GET", site.image, 200)


async def _download(site: _Site) -> None:
    await _read_slowly(site.images, f"{site.image}/file")


async def _store_blob(site: _Site) -> None:
    body = {"name": f"load-{time.monotonic_ns()}"}
    made = (await _ask(site.artifacts, "POST", _KIND, 201, json=body)).json()
    path = f"{_KIND}/{made['id']}"
    await _ask(site.artifacts, "PUT", f"{path}/image", 200, content=_slowly(), headers=OCTETS)
    got = await _ask(site.artifacts, "GET", f"{path}/image", 200)
    if got.content != _SENT:
        raise Failed(time.monotonic(), f"{len(got.content)} other bytes")
    await _ask(site.artifacts, "DELETE", path, 204)


async def _read_blob(site: _Site) -> None:
    await _read_slowly(site.artifacts, f"{site.blob}/image")


async def _list_artifacts(site: _Site) -> None:
    await _ask(site.artifacts, "GET", f"{_KIND}?limit=5", 200)


Work = Callable[[_Site], Awaitable[None]]
WORK: Mapping[str, Work] = {
    "uploads": _upload,
    "imports": _import,
    "changes": _change,
    "lists": _list,
    "shows": _show,
    "downloads": _download,
    "blobs stored": _store_blob,
    "blobs read": _read_blob,
    "lists of artifacts": _list_artifacts,
}
# So many clients at a time, one of the others: with two of them each of two nodes has one.
_CLIENTS = {"uploads": 2, "imports": 2, "blobs stored": 2, "downloads": 2, "blobs read": 2}


@asynccontextmanager
async def going_on(
    images_url: str, artifacts_url: str, user: Mapping[str, str]
) -> AsyncGenerator[Report]:
    """Do all of WORK over and over until the context is left, and then finish what was begun.

    Leaves it with an exception if a worker of the load itself breaks.
    """
    report = Report()
    ending = asyncio.Event()
    async with (
        httpx.AsyncClient(base_url=images_url, headers=user, timeout=60) as images,
        httpx.AsyncClient(base_url=artifacts_url, headers=user, timeout=60) as artifacts,
    ):
        image = (await _ask(images, "POST", "/v2/images", 201, json=_NEW)).json()["self"]
        await _ask(images, "PUT", f"{image}/file", 204, content=_KEPT, headers=OCTETS)
        made = (await _ask(artifacts, "POST", _KIND, 201, json={"name": "kept"})).json()
        blob = f"{_KIND}/{made['id']}"
        await _ask(artifacts, "PUT", f"{blob}/image", 200, content=_KEPT, headers=OCTETS)
        site = _Site(images, artifacts, image, blob)

        async def go_on(name: str, work: Work) -> None:
            while not ending.is_set():
                try:
                    await work(site)
                except Failed as failure:
                    report.failures.append(failure)
                else:
                    report.done[name] += 1
                await asyncio.sleep(_REST_S)

        async with asyncio.TaskGroup() as group:
            for name, work in WORK.items():
                for _ in range(_CLIENTS.get(name, 1)):
                    group.create_task(go_on(name, work))
            try:
                yield report
            finally:
                ending.set()


async def forget_all(images_url: str, artifacts_url: str, user: Mapping[str, str]) -> None:
    """Delete all images and artifacts that the user has."""
    async with (
        httpx.AsyncClient(base_url=images_url, headers=user, timeout=60) as images,
        httpx.AsyncClient(base_url=artifacts_url, headers=user, timeout=60) as artifacts,
    ):
        for one in (await _ask(images, "GET", "/v2/images?limit=1000", 200)).json()["images"]:
            await _ask(images, "DELETE", one["self"], 204)

        async def is_without_artifacts() -> bool:
            found = await _ask(artifacts, "GET", f"{_KIND}?limit=1000", 200)
            for one in found.json()["artifacts"]:
                # Not while it is thought to be uploaded by a node that was killed.
                await artifacts.delete(f"{_KIND}/{one['id']}")
            return not found.json()["artifacts"]

        await until(is_without_artifacts, within_s=120)
