"""What clients ask the images service for, from which state of an image to which."""

import asyncio
import hashlib
import json
import random
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from tests import web
from tests.images.service import ADMIN, ALICE, OCTETS
from tests.images.slots import STORES, Slot

MIB = 1 << 20
THREE = STORES[:3]
OTHERS = STORES[1:]

# Whole sectors, but no whole blocks.
DATA = random.Random(1).randbytes(3 * MIB + 25 * 512)


@dataclass(frozen=True)
class State:
    """What clients see of an image."""

    status: str
    stores: frozenset[str] = frozenset()


QUEUED = State("queued")
STAGED = State("uploading")
GONE = State("gone")


def active(*stores: str) -> State:
    return State("active", frozenset(stores))


@dataclass
class Case:
    """One image: what is to be its data, and what is given for them.

    A source has that under `key`, and gives half of it until `gate` is set; `asked` is set when
    somebody has got so far.
    """

    slot: Slot
    data: bytes
    given: bytes
    source: "Source"
    disk_format: str = "raw"
    image: str = ""
    key: str = field(default_factory=lambda: str(uuid4()))
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.source.cases[self.key] = self

    @property
    def path(self) -> str:
        return f"/v2/images/{self.image}"


@dataclass
class Source:
    """A web server with what is given in cases: as files, as images, and as objects of Swift.

    Who has `token` finds it as the image service of `region`, and as the object store.
    """

    url: str
    cases: dict[str, Case] = field(default_factory=dict[str, Case])
    token: str = ""
    region: str = ""

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncGenerator["Source"]:
        async def answer(asked: web.Asked, writer: asyncio.StreamWriter) -> None:
            await source._answer(asked, writer)

        async with web.serving(answer) as server:
            source = cls(server.url)
            yield source

    async def _answer(self, asked: web.Asked, writer: asyncio.StreamWriter) -> None:
        [key] = {*asked.target.split("/")} & self.cases.keys()
        case = self.cases[key]
        if asked.target.endswith(f"/images/{key}"):
            document = {"status": "active", "disk_format": case.disk_format}
            document |= {"container_format": "bare", "size": len(case.given)}
            await web.answer(json.dumps(document).encode())(asked, writer)
            return
        half = len(case.given) // 2
        writer.write(web.head(200, content_length=len(case.given)) + case.given[:half])
        await writer.drain()
        case.asked.set()
        await case.gate.wait()
        writer.write(case.given[half:])
        await writer.drain()


def where(method: str, case: Case) -> dict[str, str]:
    """Where a method finds what a source gives."""
    source = case.source
    match method:
        case "web-download":
            return {"uri": f"{source.url}/{case.key}"}
        case "glance-download":
            return {"glance_region": source.region, "glance_image_id": case.key}
        case "swift-local":
            return {"swift-location": f"box/{case.key}"}
        case _:
            return {}


Act = Callable[[Case, httpx.AsyncClient], Coroutine[Any, Any, httpx.Response]]


@dataclass(frozen=True)
class Operation:
    """Something that clients ask for: from which state, to which, and how.

    `act` is what the victim is asked, and again whoever finds the image where it was. `may_be`
    has the states besides `start` and `done` in which an image may be when the victim's client got
    no answer. `given` makes what clients send, or sources give, of what the image shall be. A task
    that is there, if not for something else, has to come to `done`.
    """

    name: str
    prepare: Callable[[Case, httpx.AsyncClient], Awaitable[None]]
    act: Act
    start: State
    done: State
    may_be: tuple[State, ...] = ()
    armed_by: tuple[str, ...] = ("PUT", "POST", "DELETE")
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    given: Callable[[bytes], bytes] = bytes
    disk_format: str = "raw"
    slow_source: bool = False
    has_task: bool = True

    def __str__(self) -> str:
        return self.name


def ok(answer: httpx.Response) -> httpx.Response:
    assert answer.is_success, (answer.status_code, answer.text)
    return answer


async def make_queued(case: Case, http: httpx.AsyncClient) -> None:
    body = {"disk_format": case.disk_format, "container_format": "bare"}
    case.image = ok(await http.post("/v2/images", json=body, headers=ALICE)).json()["id"]


async def in_pieces(data: bytes) -> AsyncGenerator[bytes]:
    for at in range(0, len(data), 1 << 18):
        yield data[at : at + (1 << 18)]


async def put_file(case: Case, http: httpx.AsyncClient) -> httpx.Response:
    content = in_pieces(case.given)
    return await http.put(f"{case.path}/file", content=content, headers={**ALICE, **OCTETS})


async def put_stage(case: Case, http: httpx.AsyncClient) -> httpx.Response:
    content = in_pieces(case.given)
    return await http.put(f"{case.path}/stage", content=content, headers={**ALICE, **OCTETS})


async def delete(case: Case, http: httpx.AsyncClient) -> httpx.Response:
    return await http.delete(case.path, headers=ALICE)


async def delete_meanwhile(case: Case, http: httpx.AsyncClient) -> httpx.Response:
    """Delete an image while an import into it is under way."""
    ok(await begin_import("web-download", *THREE)(case, http))
    await case.asked.wait()
    return await delete(case, http)


def begin_import(method: str, *stores: str) -> Act:
    async def act(case: Case, http: httpx.AsyncClient) -> httpx.Response:
        body = {"method": {"name": method, **where(method, case)}, "stores": list(stores)}
        headers = ADMIN if method == "copy-image" else ALICE
        if case.source.token:
            headers = {**headers, "X-Auth-Token": case.source.token}
        return await http.post(f"{case.path}/import", json=body, headers=headers)

    return act


async def make_staged(case: Case, http: httpx.AsyncClient) -> None:
    await make_queued(case, http)
    ok(await put_stage(case, http))


async def make_active(case: Case, http: httpx.AsyncClient) -> None:
    await make_queued(case, http)
    ok(await put_file(case, http))


async def state_of(case: Case, http: httpx.AsyncClient) -> State:
    """What the image has come to; fails if it tells of something that is going on."""
    answer = await http.get(case.path, headers=ALICE)
    if answer.status_code == 404:
        return GONE
    image = ok(answer).json()
    assert "os_glance_import_task" not in image, image
    assert not image.get("os_glance_importing_to_stores"), image
    assert not image.get("os_glance_failed_import"), image
    return State(image["status"], frozenset(filter(None, image.get("stores", "").split(","))))


async def check_bytes(case: Case, http: httpx.AsyncClient) -> None:
    """Fail unless the image is its data, in each of its stores."""
    image = (await http.get(case.path, headers=ALICE)).json()
    right = hashlib.sha512(case.data).hexdigest()
    assert (image["size"], image["os_hash_value"]) == (len(case.data), right)
    assert image["checksum"] == hashlib.md5(case.data, usedforsecurity=False).hexdigest()
    whole = ok(await http.get(f"{case.path}/file", headers=ALICE)).content
    assert hashlib.sha512(whole).hexdigest() == right
    for store in image["stores"].split(","):
        assert await case.slot.places[store].read(case.image) == case.data, store


@cache
def as_qcow2(data: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        raw, qcow2 = Path(folder) / "raw", Path(folder) / "qcow2"
        raw.write_bytes(data)
        command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2]
        subprocess.run(command, check=True)
        return qcow2.read_bytes()


TO_RAW = {
    "IMAGE_IMPORT_OPTS__IMAGE_IMPORT_PLUGINS": "image_conversion",
    "IMAGE_CONVERSION__OUTPUT_FORMAT": "raw",
}

OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("upload", make_queued, put_file, QUEUED, active("fast")),
        Operation("stage", make_queued, put_stage, QUEUED, STAGED),
        Operation(
            "glance-direct",
            make_staged,
            begin_import("glance-direct", "fast"),
            STAGED,
            active("fast"),
        ),
        Operation(
            "glance-direct to three stores",
            make_staged,
            begin_import("glance-direct", *THREE),
            STAGED,
            active(*THREE),
        ),
        Operation(
            "web-download to three stores",
            make_queued,
            begin_import("web-download", *THREE),
            QUEUED,
            active(*THREE),
        ),
        Operation(
            "copy-image to three stores",
            make_active,
            begin_import("copy-image", *OTHERS),
            active("fast"),
            active(*STORES),
        ),
        Operation(
            "conversion",
            make_queued,
            begin_import("web-download", "fast", "cheap"),
            QUEUED,
            active("fast", "cheap"),
            options=TO_RAW,
            given=as_qcow2,
            disk_format="qcow2",
        ),
        Operation(
            "delete during an import",
            make_queued,
            delete_meanwhile,
            QUEUED,
            GONE,
            may_be=(active(*THREE),),
            armed_by=("DELETE",),
            slow_source=True,
            has_task=False,
        ),
        Operation("delete", make_active, delete, active("fast"), GONE),
    )
}
