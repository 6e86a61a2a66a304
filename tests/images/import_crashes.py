"""Operations on images, the services that are killed in them, and what must hold afterwards.

A `Slot` is a database and stores of its own, so that what is in them after a kill is exactly what
that kill left. In each run a forked service (`tests.images.crashing_service`) is asked to do an
operation and dies on its way; then another service, with the same settings, finds what is left, and
within the lease and half a minute more nothing may tell of the death.
"""

import asyncio
import hashlib
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import asyncpg
import httpx

from tests import databases, web
from tests.images.crashing_service import Order
from tests.images.service import ALICE, OCTETS, client, configuration, opened
from tests.kills import Kill
from tests.waiting import until

MIB = 1 << 20
LEASE_S = 3
SETTLED_WITHIN_S = LEASE_S + 30
STORES = ("fast", "cheap", "third")
ROOT = Path(__file__).parents[2]

# Whole sectors, but no whole blocks.
DATA = random.Random(1).randbytes(3 * MIB + 25 * 512)

# What still has to be done in a database, and so must be nothing in the end.
_UNSETTLED = """
    SELECT 'job ' || kind || ' ' || state FROM jobs
        WHERE period IS NULL AND state IN ('waiting', 'running')
    UNION ALL SELECT 'location in ' || store || ' ' || status FROM image_locations
        WHERE status IN ('pending', 'discarding', 'deleted') OR attempt IS NOT NULL
    UNION ALL SELECT 'image ' || status FROM images
        WHERE status IN ('saving', 'importing')
    UNION ALL SELECT 'lock of ' || import_task FROM images WHERE import_task IS NOT NULL
    UNION ALL SELECT 'image uploading without staged data' FROM images
        WHERE status = 'uploading' AND NOT EXISTS (
            SELECT FROM image_locations WHERE image_id = images.id AND status = 'staged')
    UNION ALL SELECT 'staged data of an image ' || images.status FROM image_locations
        JOIN images ON images.id = image_id
        WHERE image_locations.status = 'staged' AND images.status <> 'uploading'
    UNION ALL SELECT 'task ' || status FROM tasks WHERE status IN ('pending', 'processing')
"""


class Place(Protocol):
    """Where a store keeps its bytes."""

    async def everything(self) -> list[str]:
        """The names of all that is there."""
        ...

    async def read(self, key: str) -> bytes:
        """What is there under a key."""
        ...

    async def clear(self) -> None:
        """Remove all that is there."""
        ...


@dataclass(frozen=True)
class Folder:
    """A folder of a file store, or the one for scratch files."""

    path: Path

    async def everything(self) -> list[str]:
        return [
            str(found.relative_to(self.path))
            for found in self.path.rglob("*")
            if found.is_file() and found.name != ".mark"
        ]

    async def read(self, key: str) -> bytes:
        return (self.path / key).read_bytes()

    async def clear(self) -> None:
        for found in self.path.iterdir():
            if found.is_dir():
                shutil.rmtree(found)
            elif found.name != ".mark":
                found.unlink()


@dataclass(frozen=True)
class Slot:
    """A database and stores for one service at a time; `environ` are its settings."""

    url: str
    folder: Path
    environ: dict[str, str]
    places: dict[str, Place]

    @property
    def log(self) -> Path:
        """What the forked services say."""
        return self.folder / "log"

    def having(self, options: Mapping[str, str]) -> "Slot":
        """This slot for services that have these settings, too."""
        more = {f"DIPTYCH_IMAGES__{name}": value for name, value in options.items()}
        return replace(self, environ={**self.environ, **more})

    async def park(self) -> None:
        """Have nothing recur in the service that is killed: that comes by the clock."""
        async with databases.connection(self.url) as database:
            await database.execute(
                "UPDATE jobs SET run_after = now() + interval '1 day' WHERE period IS NOT NULL"
            )

    async def unpark(self) -> None:
        async with databases.connection(self.url) as database:
            await database.execute("UPDATE jobs SET run_after = now() WHERE period IS NOT NULL")

    async def clear(self) -> None:
        """Forget everything, as if no service had been here."""
        async with databases.connection(self.url) as database:
            await database.execute(
                "DELETE FROM image_locations; DELETE FROM image_members; DELETE FROM tasks;"
                "DELETE FROM images; DELETE FROM outbox; DELETE FROM jobs WHERE period IS NULL;"
                "UPDATE jobs SET state = 'waiting', lease_until = NULL, worker = NULL"
            )
        for place in self.places.values():
            await place.clear()
        self.log.write_bytes(b"")

    async def unsettled(self, database: asyncpg.Connection) -> list[str]:
        """What somebody still has to do here, and what nobody knows of any more."""
        found = [row[0] for row in await database.fetch(_UNSETTLED)]
        if found:
            return found
        rows = await database.fetch("SELECT store, url FROM image_locations")
        known = {(row["store"], urlsplit(row["url"]).path.rpartition("/")[2]) for row in rows}
        there = [
            (name, key.rpartition("/")[2])
            for name, place in self.places.items()
            for key in await place.everything()
        ]
        found += [f"nobody knows {one}" for one in sorted(set(there) - known)]
        found += [f"nowhere: {one}" for one in sorted(known - set(there))]
        if len(there) > len(set(there)):
            found.append(f"there twice: {there}")
        return found

    async def settle(self, *, within_s: float = SETTLED_WITHIN_S) -> None:
        """Wait until nothing is left to do."""
        deadline = time.monotonic() + within_s
        async with databases.connection(self.url) as database:
            while problems := await self.unsettled(database):
                assert time.monotonic() < deadline, problems
                await asyncio.sleep(0.05)


@asynccontextmanager
async def slot(url: str, folder: Path, **options: str) -> AsyncGenerator[Slot]:
    """A slot with a migrated database and three file stores on one file system."""
    places: dict[str, Place] = {}
    for name in (*STORES, "staging", "scratch"):
        (folder / name).mkdir(parents=True)
        places[name] = Folder(folder / name)
    environ = configuration(
        url,
        folder,
        JOBS__LEASE=str(LEASE_S),
        JOBS__REAPER_INTERVAL="1",
        JOBS__POLL_INTERVAL="0.5",
        DATABASE__MAX_POOL_SIZE="3",
        DEFAULT__ENABLED_BACKENDS="fast:file, cheap:file, third:file",
        THIRD__FILESYSTEM_STORE_DATADIR=str(folder / "third"),
        # The tests open the same stores beside the services.
        OUTBOUND__ALLOWED_NETWORKS="127.0.0.0/8",
        OUTBOUND__ALLOWED_PORTS="",
        IMPORT_FILTERING_OPTS__ALLOWED_PORTS="",
        **options,
    )
    made = Slot(url, folder, environ, places)
    made.log.touch()
    # The rows of what recurs, which are parked later, are made by the first worker.
    async with serving(made), databases.connection(url) as database:

        async def is_scheduled() -> bool:
            return bool(await database.fetchval("SELECT count(*) > 2 FROM jobs"))

        await until(is_scheduled)
    yield made


@asynccontextmanager
async def serving(slot: Slot, *, worker: bool = True) -> AsyncGenerator[httpx.AsyncClient]:
    """A service in this process."""
    environ = {**slot.environ, "DIPTYCH_IMAGES__JOBS__WITH_WORKER": str(worker).lower()}
    async with opened(environ) as app, client(app) as http:
        yield http


class Victim:
    """A forked service, and what it has told of its steps."""

    def __init__(self, port: int, report: socket.socket) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = 0
        self.steps: list[str] = []
        self.stepped = asyncio.Event()
        self._reading = asyncio.create_task(self._read(report))

    async def _read(self, report: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=report)
        with suppress(ConnectionError):
            while line := (await reader.readline()).decode().strip():
                if self.pid:
                    self.steps.append(line)
                else:
                    self.pid = int(line)
                self.stepped.set()
        writer.close()

    @property
    def is_dead(self) -> bool:
        return self._reading.done()

    async def died(self, *, within_s: float = 60) -> None:
        """Wait for its death."""
        await asyncio.wait_for(asyncio.shield(self._reading), within_s)

    async def reached(self, count: int) -> None:
        """Wait until it has done so many steps."""
        while len(self.steps) < count:
            self.stepped.clear()
            await self.stepped.wait()

    async def kill(self) -> None:
        """Kill it, wherever it is."""
        if not self.is_dead:
            os.kill(self.pid, signal.SIGKILL)
        await self.died()


class Forge:
    """The process that forks services."""

    def __init__(self, control: socket.socket, process: asyncio.subprocess.Process) -> None:
        self._control = control
        self._process = process

    @classmethod
    @asynccontextmanager
    async def lit(cls, log: Path) -> AsyncGenerator["Forge"]:
        """Start it, and end it with all that it forked."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.images.crashing_service", str(theirs.fileno())),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'deploy'}"},
                pass_fds=[theirs.fileno()],
                stdout=output,
                stderr=output,
            )
            theirs.close()
            try:
                yield cls(ours, process)
            finally:
                ours.close()
                await process.wait()

    async def fork(
        self,
        slot: Slot,
        at: int | None,
        *,
        with_signal: int = signal.SIGKILL,
        worker: bool = True,
        armed_by: Sequence[str] = ("PUT", "POST", "DELETE"),
    ) -> Victim:
        """A service in this slot to which the signal comes at that step."""
        order = Order(
            environ={**slot.environ, "DIPTYCH_IMAGES__JOBS__WITH_WORKER": str(worker).lower()},
            log=str(slot.log),
            at=at,
            signal=with_signal,
            armed_by=tuple(armed_by),
        )
        listening = socket.create_server(("127.0.0.1", 0), backlog=16)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with listening, theirs:
            socket.send_fds(self._control, [order.packed()], [listening.fileno(), theirs.fileno()])
            port = listening.getsockname()[1]
        victim = Victim(port, ours)
        async with asyncio.timeout(60):
            while not victim.pid:
                victim.stepped.clear()
                await victim.stepped.wait()
        return victim


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

    `source` is where a web server gives it, half of it until `gate` is set; `asked` is set when
    somebody has got so far.
    """

    slot: Slot
    data: bytes
    given: bytes
    disk_format: str = "raw"
    image: str = ""
    source: str = ""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def path(self) -> str:
        return f"/v2/images/{self.image}"


class Source:
    """A web server with the data of cases."""

    def __init__(self) -> None:
        self._cases: dict[str, Case] = {}
        self._url = ""

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncGenerator["Source"]:
        source = cls()
        async with web.serving(source._answer) as server:
            source._url = server.url
            yield source

    def add(self, case: Case) -> None:
        """Have the data of this case."""
        target = f"/{len(self._cases)}"
        self._cases[target] = case
        case.source = f"{self._url}{target}"

    async def _answer(self, asked: web.Asked, writer: asyncio.StreamWriter) -> None:
        case = self._cases[asked.target]
        half = len(case.given) // 2
        writer.write(web.head(200, content_length=len(case.given)) + case.given[:half])
        await writer.drain()
        case.asked.set()
        await case.gate.wait()
        writer.write(case.given[half:])
        await writer.drain()


Act = Callable[[Case, httpx.AsyncClient], Awaitable[httpx.Response]]


@dataclass(frozen=True)
class Operation:
    """Something that clients ask for: from which state, to which, and how.

    `act` is what the victim is asked, and again whoever finds the image where it was. `may_be`
    has the states besides `start` and `done` in which an image may be when the victim's client got
    no answer. `given` makes what clients send, or sources give, of what the image shall be.
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
    ok(await begin_import("web-download", *STORES)(case, http))
    await case.asked.wait()
    return await delete(case, http)


def begin_import(method: str, *stores: str) -> Act:
    async def act(case: Case, http: httpx.AsyncClient) -> httpx.Response:
        how = {"name": method} | ({"uri": case.source} if method == "web-download" else {})
        body = {"method": how, "stores": list(stores)}
        return await http.post(f"{case.path}/import", json=body, headers=ALICE)

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


class Killing:
    """Runs operations in slots, each with a death at a step."""

    def __init__(self, forge: Forge, source: Source) -> None:
        self.forge = forge
        self.source = source

    async def count(self, slot: Slot, operation: Operation) -> list[str]:
        """The names of an operation's steps when nothing dies."""
        slot = slot.having(operation.options)
        case, victim, _ = await self._act(slot, operation, None)
        async with serving(slot, worker=False) as http:
            assert await state_of(case, http) == operation.done, operation.name
        return victim.steps

    async def kill(self, slot: Slot, operation: Operation, at: int) -> Kill | None:
        """Kill the service at a step of the operation, and see to it that all comes right.

        None if there were fewer steps this time, so that nothing was killed.
        """
        slot = slot.having(operation.options)
        case, victim, answered = await self._act(slot, operation, at)
        since = time.monotonic()
        if len(victim.steps) <= at:
            return None
        where = victim.steps[at]
        begun = await self._has_task(slot)
        await slot.unpark()
        try:
            async with serving(slot) as http:
                case.gate.set()
                await slot.settle()
                killed = Kill(operation.name, where, time.monotonic() - since)
                state = await state_of(case, http)
                if answered or begun:
                    assert state == operation.done
                elif state not in (operation.done, *operation.may_be):
                    assert state == operation.start
                    await self._act_again(case, operation, http)
                    state = await state_of(case, http)
                if state.status == "active":
                    await check_bytes(case, http)
                await self._check_tasks(slot, operation, state)
        except AssertionError as error:
            error.add_note(f"{operation.name}, killed at step {at}: {where}")
            error.add_note(slot.log.read_text()[-20_000:])
            raise
        return killed

    async def _act(
        self, slot: Slot, operation: Operation, at: int | None
    ) -> tuple[Case, Victim, bool]:
        """Have a victim do it; whether it said so. It is dead in the end in any case."""
        await slot.clear()
        case = Case(slot, DATA, operation.given(DATA), operation.disk_format)
        if not operation.slow_source:
            case.gate.set()
        self.source.add(case)
        async with serving(slot, worker=False) as http:
            await operation.prepare(case, http)
        await slot.park()
        victim = await self.forge.fork(slot, at, armed_by=operation.armed_by)
        try:
            async with httpx.AsyncClient(base_url=victim.url, timeout=60) as http:
                try:
                    answered = ok(await operation.act(case, http)).is_success
                except httpx.TransportError:
                    answered = False
                    await victim.died()
            await self._end(slot, victim, at)
        finally:
            await victim.kill()
        return case, victim, answered

    async def _end(self, slot: Slot, victim: Victim, at: int | None) -> None:
        """Wait until the victim is dead, or has done everything."""
        async with databases.connection(slot.url) as database:

            async def has_ended() -> bool:
                return victim.is_dead or not await slot.unsettled(database)

            await until(has_ended, within_s=60)
        # The last steps come when all is settled already.
        with suppress(TimeoutError):
            await victim.died(within_s=0.5)
        assert at is not None or not victim.is_dead, slot.log.read_text()

    async def _act_again(self, case: Case, operation: Operation, http: httpx.AsyncClient) -> None:
        ok(await operation.act(case, http))
        await case.slot.settle()
        assert await state_of(case, http) == operation.done

    async def _has_task(self, slot: Slot) -> bool:
        async with databases.connection(slot.url) as database:
            return bool(await database.fetchval("SELECT count(*) > 0 FROM tasks"))

    async def _check_tasks(self, slot: Slot, operation: Operation, state: State) -> None:
        async with databases.connection(slot.url) as database:
            tasks = await database.fetch("SELECT status, message FROM tasks")
        if state == operation.done and state != GONE:
            assert all(task["status"] == "success" for task in tasks), tasks
