"""A service killed at any step of an upload, a replacement, a publication or a deletion."""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import pytest
from dev.seaweedfs import Seaweedfs

from tests import databases, servers
from tests.artifacts.service import (
    ADMIN,
    ALICE,
    OCTETS,
    PATCH,
    client,
    configuration,
    opened,
    types_file,
)
from tests.artifacts.test_blob_store import in_bucket
from tests.artifacts.uploads import chunks, files, zipped
from tests.images.import_crashes import Forge, Victim
from tests.kills import Kill, record
from tests.store import s3_bucket
from tests.waiting import until

# More would only wait for the processor, and lose leases by that.
SLOTS = 4
LEASE_S = 2
# What is not killed at all of its steps.
OF_S3 = 3
SETTLED_WITHIN_S = LEASE_S + 30

OLD, NEW = b"the old bytes" * 5000, bytes(range(256)) * 8200
ARCHIVE = zipped({"a": b"a" * 3000, "b/c": b"b"})
UPLOAD = {**ALICE, **OCTETS}
# The project has room for both, and not for a byte more.
ROOM = len(OLD) + len(NEW)

_UNSETTLED = """
    SELECT 'job ' || kind || ' ' || state FROM jobs
        WHERE period IS NULL AND state IN ('waiting', 'running')
    UNION ALL SELECT 'blob ' || status FROM blobs WHERE status <> 'active'
    UNION ALL SELECT 'blob of nobody' FROM blobs WHERE artifact_id IS NULL
    UNION ALL SELECT 'attempt at ' || key FROM blob_objects WHERE NOT published
"""


@dataclass(frozen=True)
class Slot:
    """A database and a folder of one service at a time; with a bucket, samples are there."""

    url: str
    folder: Path
    s3: Seaweedfs | None = None
    bucket: str = ""

    @property
    def log(self) -> Path:
        """What the forked services say."""
        return self.folder / "log"

    @property
    def environ(self) -> dict[str, str]:
        """The service's settings."""
        return configuration(
            self.url,
            self.folder,
            JOBS__LEASE=str(LEASE_S),
            JOBS__REAPER_INTERVAL="1",
            JOBS__POLL_INTERVAL="0.5",
            DATABASE__MAX_POOL_SIZE="3",
            # What delivers them works by the clock.
            OSLO_MESSAGING_NOTIFICATIONS__DRIVER="noop",
            DEFAULT__ENABLED_ARTIFACT_TYPES="sample_artifact,images,unpacking_artifact",
            DEFAULT__MAX_UPLOADED_DATA=str(ROOM),
            **(in_bucket(self.s3, self.bucket) if self.s3 else {}),
        )

    @property
    def types(self) -> Path:
        """Settings of types."""
        samples = {"default_store": "s3" if self.s3 else "fast"}
        types = {"images": {"default_store": "database"}, "sample_artifact": samples}
        return types_file(self.folder, types)

    @asynccontextmanager
    async def serving(self, *, worker: bool = True) -> AsyncGenerator[httpx.AsyncClient]:
        """A service in this process."""
        with_worker = {"DIPTYCH_ARTIFACTS__JOBS__WITH_WORKER": str(worker).lower()}
        environ = {**self.environ, **with_worker, "DIPTYCH_ARTIFACTS__JOBS__LEASE": "60"}
        async with opened(environ, self.types) as app, client(app) as http:
            yield http

    async def set_recurring(self, due: str) -> None:
        """Have what recurs due at that time of PostgreSQL's."""
        async with databases.connection(self.url) as server:
            await server.execute(f"UPDATE jobs SET run_after = {due} WHERE period IS NOT NULL")

    async def clear(self) -> None:
        """Forget everything, as if no service had been here."""
        async with databases.connection(self.url) as server:
            await server.execute(
                "DELETE FROM blobs; DELETE FROM artifacts; DELETE FROM blob_objects;"
                "DELETE FROM jobs WHERE period IS NULL;"
                "UPDATE jobs SET state = 'waiting', lease_until = NULL, worker = NULL"
            )
        for store in ("fast", "cheap"):
            shutil.rmtree(self.folder / store, ignore_errors=True)
        if self.s3:
            await s3_bucket.empty(self.s3, self.bucket)
        self.log.write_bytes(b"")

    async def unsettled(self, server: asyncpg.Connection) -> list[str]:
        """What somebody still has to do here, and what nobody knows of."""
        found = [row[0] for row in await server.fetch(_UNSETTLED)]
        if found:
            return found
        known = {str(row["id"]) for row in await server.fetch("SELECT id FROM blobs")}
        there = {row["key"] for row in await server.fetch("SELECT key FROM blob_objects")}
        there |= files(self.folder / "fast") | files(self.folder / "cheap")
        if self.s3:
            there |= set(await s3_bucket.everything(self.s3, self.bucket))
        return [f"nobody knows {one}" for one in there - known] + [
            f"nowhere: {one}" for one in known - there
        ]

    async def settle(self) -> None:
        """Wait until nothing is left to do."""
        deadline = time.monotonic() + SETTLED_WITHIN_S
        async with databases.connection(self.url) as server:
            while problems := await self.unsettled(server):
                assert time.monotonic() < deadline, problems
                await asyncio.sleep(0.05)


Act = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]
State = tuple[int | str | None, ...]


@dataclass(frozen=True)
class Operation:
    """What is done to `blob` of an artifact, that has these data before: its state afterwards."""

    act: Act
    done: State
    kind: str = "sample_artifact"
    blob: str = "blob"
    before: bytes | None = None


def uploading(data: bytes, *, blob: str = "blob", is_announced: bool = True) -> Act:
    async def act(http: httpx.AsyncClient, path: str) -> httpx.Response:
        content = data if is_announced else chunks(data, 1 << 17)
        return await http.put(f"{path}/{blob}", content=content, headers=UPLOAD)

    return act


async def publishing(http: httpx.AsyncClient, path: str) -> httpx.Response:
    values = {"/status": "active", "/visibility": "public"}
    patch = [{"op": "replace", "path": field, "value": to} for field, to in values.items()]
    return await http.patch(path, json=patch, headers={**ADMIN, **PATCH})


async def deleting(http: httpx.AsyncClient, path: str) -> httpx.Response:
    return await http.delete(path, headers=ALICE)


GONE = (None,)
OPERATIONS: Final = {
    "upload": Operation(uploading(NEW), (len(NEW),)),
    "replacement": Operation(uploading(NEW, is_announced=False), (len(NEW),), before=OLD),
    "upload into the database": Operation(
        uploading(NEW, blob="image"), (len(NEW),), kind="images", blob="image"
    ),
    "archive": Operation(
        uploading(ARCHIVE, blob="zip"),
        (len(ARCHIVE), 3000, 1),
        kind="unpacking_artifact",
        blob="zip",
        before=zipped({"old": b"old"}),
    ),
    "publication": Operation(publishing, (len(OLD), "public"), before=OLD),
    "deletion": Operation(deleting, GONE, before=OLD),
    "deletion from the database": Operation(
        deleting, GONE, kind="images", blob="image", before=OLD
    ),
}


async def state(http: httpx.AsyncClient, path: str, operation: Operation) -> State:
    """The sizes of the artifact's blobs, and whether it is public; `GONE` if there is none."""
    shown = await http.get(path, headers=ALICE)
    if shown.status_code == 404:
        return GONE
    document: dict[str, Any] = shown.json()
    blob = document[operation.blob]
    found = [] if blob is None else [blob]
    if operation.blob == "zip":
        found += [document["content"][key] for key in sorted(document["content"])]
    for one in found:
        got = await http.get(one["url"], headers=ALICE)
        assert (got.status_code, len(got.content)) == (200, one["size"])
    is_public = document["visibility"] == "public"
    assert (document["status"] == "active") is is_public
    return (*(one["size"] for one in found), *(["public"] if is_public else []))


async def prepare(slot: Slot, operation: Operation) -> tuple[str, State]:
    """The path of an artifact, and what it is before the operation."""
    await slot.clear()
    async with slot.serving(worker=False) as http:
        new = {"name": "x"}
        if operation.kind == "sample_artifact":
            new["string_required"] = "x"
        created = await http.post(f"/artifacts/{operation.kind}", json=new, headers=ALICE)
        path = f"/artifacts/{operation.kind}/{created.json()['id']}"
        if operation.before is not None:
            stored = await http.put(
                f"{path}/{operation.blob}", content=operation.before, headers=UPLOAD
            )
            assert stored.status_code == 200, stored.text
        await slot.set_recurring("now() + interval '1 day'")
        return path, await state(http, path, operation)


async def suffer(
    forge: Forge, slot: Slot, operation: Operation, at: int | str | None
) -> tuple[str, State, Victim, bool]:
    """Have a service do it that is killed on its way; whether it said that it had done it."""
    path, before = await prepare(slot, operation)
    victim = await forge.fork(slot, at, config_files=[slot.types])
    try:
        async with httpx.AsyncClient(base_url=victim.url, timeout=60) as http:
            try:
                answer = await operation.act(http, path)
                assert answer.is_success, answer.text
                is_answered = True
            except httpx.TransportError:
                is_answered = False
                await victim.died()
        if is_answered:
            # Its jobs come after its answer.
            settling = asyncio.create_task(slot.settle())
            dying = asyncio.create_task(victim.died())
            await asyncio.wait([settling, dying], return_when=asyncio.FIRST_COMPLETED)
            for task in (settling, dying):
                task.cancel()
            await asyncio.gather(settling, dying, return_exceptions=True)
    finally:
        await victim.kill()
    return path, before, victim, is_answered


async def kill(forge: Forge, slot: Slot, name: str, at: int | str) -> Kill | None:
    """Kill a service at a step, and see to it that all comes right; None if there was no step."""
    operation = OPERATIONS[name]
    path, before, victim, is_answered = await suffer(forge, slot, operation, at)
    since = time.monotonic()
    if len(victim.steps) <= at if isinstance(at, int) else at not in victim.steps:
        assert isinstance(at, int), f"{name} has no step {at!r}: {victim.steps}"
        return None
    try:
        await slot.set_recurring("now()")
        async with slot.serving() as http:
            await slot.settle()
            settled_s = time.monotonic() - since
            now = await state(http, path, operation)
            assert now in ((operation.done,) if is_answered else (operation.done, before))
            if now == before:
                # Nothing of the room is lost either: it is just enough.
                again = await operation.act(http, path)
                assert again.is_success, again.text
                await slot.settle()
                assert await state(http, path, operation) == operation.done
    except AssertionError as error:
        error.add_note(f"{name}, killed at step {at}: {victim.steps[-1]}")
        error.add_note(slot.log.read_text()[-20_000:])
        raise
    return Kill(f"artifacts, {name}", victim.steps[-1], settled_s)


@pytest.fixture(scope="module")
async def forge(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Forge]:
    async with Forge.lit(tmp_path_factory.mktemp("forge") / "log", "artifacts") as lit:
        yield lit


@asynccontextmanager
async def several_slots(
    postgres_url: str, folders: pytest.TempPathFactory, s3: Seaweedfs | None = None
) -> AsyncGenerator[list[Slot]]:
    """Slots to kill in at a time."""
    template = f"artifacts_{servers.folder().name}"
    async with AsyncExitStack() as stack:
        made: list[Slot] = []
        for number in range(SLOTS):
            url = await databases.create(postgres_url, template=template)
            stack.push_async_callback(databases.drop, url)
            bucket = await s3_bucket.make(s3) if s3 else ""
            slot = Slot(url, folders.mktemp(f"slot{number}"), s3, bucket)
            # The rows of what recurs, which are put off later, are made by the first worker.
            async with slot.serving(), databases.connection(url) as server:

                async def is_scheduled(server: asyncpg.Connection = server) -> bool:
                    return bool(await server.fetchval("SELECT count(*) > 3 FROM jobs"))

                await until(is_scheduled)
            made.append(slot)
        yield made


@pytest.fixture(scope="module")
async def slots(
    _artifacts_schema: tuple[str, list[str]],
    postgres_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncGenerator[list[Slot]]:
    async with several_slots(postgres_url, tmp_path_factory) as made:
        yield made


@pytest.fixture(scope="module")
async def s3_slots(
    _artifacts_schema: tuple[str, list[str]],
    postgres_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    s3: Seaweedfs,
) -> AsyncGenerator[list[Slot]]:
    async with several_slots(postgres_url, tmp_path_factory, s3) as made:
        yield made


async def kill_at(
    forge: Forge, slots: Sequence[Slot], orders: Iterable[tuple[str, int | str]]
) -> list[Kill]:
    """Kill at each step, as many at a time as there are slots; earlier where there are fewer."""
    left, kills = list(orders), list[Kill]()

    async def work(slot: Slot) -> None:
        while left:
            name, at = left.pop()
            while (killed := await kill(forge, slot, name, at)) is None:
                assert isinstance(at, int), name
                assert at, name
                at -= 1
            kills.append(killed)

    async with asyncio.TaskGroup() as group:
        for slot in slots:
            group.create_task(work(slot))
    return kills


async def steps_of(forge: Forge, slot: Slot, name: str) -> int:
    """How many steps an operation has when nothing dies."""
    _, _, victim, is_answered = await suffer(forge, slot, OPERATIONS[name], None)
    assert is_answered, slot.log.read_text()
    return len(victim.steps)


# Steps after which there is something to clear up, of each kind.
DEATHS = (
    ("upload", "before block 1 for fast"),
    ("upload", "after fast.publish"),
    ("replacement", "after blobs._touch"),
    ("replacement", "after fast.delete"),
    ("upload into the database", "after database.write"),
    ("archive", "after fast.write"),
    ("deletion from the database", "before blobs.forget"),
)


async def test_nothing_tells_of_a_death(
    forge: Forge, slots: list[Slot], request: pytest.FixtureRequest
) -> None:
    record(request, await kill_at(forge, slots, DEATHS))


@pytest.mark.crash
@pytest.mark.parametrize("name", OPERATIONS)
async def test_nothing_tells_of_a_death_wherever_it_was(
    forge: Forge, slots: list[Slot], request: pytest.FixtureRequest, name: str
) -> None:
    steps = await steps_of(forge, slots[0], name)
    record(request, await kill_at(forge, slots, [(name, at) for at in range(steps)]))


@pytest.mark.crash
@pytest.mark.parametrize("name", ["upload", "replacement", "deletion"])
async def test_nothing_tells_of_a_death_with_s3(
    forge: Forge, s3_slots: list[Slot], request: pytest.FixtureRequest, name: str
) -> None:
    steps = await steps_of(forge, s3_slots[0], name)
    record(request, await kill_at(forge, s3_slots, [(name, at) for at in range(0, steps, OF_S3)]))
