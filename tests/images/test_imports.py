"""Imports from the request to the end, by a worker in this process."""

import asyncio
import contextlib
import gzip
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from diptych_common import jobs
from diptych_common.database import Database
from diptych_common.errors import Gone
from diptych_common.jobs import GiveUp, JobLost
from diptych_common.worker import JobContext
from diptych_images.db.tables import jobs as jobs_table
from diptych_images.imports import run
from diptych_images.imports.equipment import Equipment
from diptych_images.settings import load
from diptych_store.drivers.filesystem import FilesystemStore
from diptych_store.errors import StoreError
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.protocol import Attempt, Block, Store
from diptych_store.registry import Stores
from diptych_store.settings import StoresConfig

from tests import databases, web
from tests.images.service import ADMIN, ALICE
from tests.images.sites import DATA, STORES, Make, Site
from tests.images.workers import equipped, running, working
from tests.waiting import until


def require_whole(shown: dict[str, Any], data: bytes = DATA) -> None:
    assert shown["status"] == "active"
    assert shown["size"] == len(data)
    assert shown["checksum"] == hashlib.md5(data, usedforsecurity=False).hexdigest()
    assert shown["os_hash_algo"] == "sha512"
    assert shown["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert "os_glance_import_task" not in shown
    assert shown["os_glance_importing_to_stores"] == ""


# --- Each method ------------------------------------------------------------------------------


async def test_staged_data_becomes_the_image_by_a_rename(site: Make) -> None:
    here = await site()
    image = await here.staged()
    (staged,) = here.files("staging")
    inode = (here.folder / staged).stat().st_ino
    await here.ask(image, "glance-direct", stores=["cheap"])
    assert (await here.show(image))["status"] == "importing"
    called = await here.work()
    shown = await here.show(image)
    require_whole(shown)
    assert shown["stores"] == "cheap"
    assert shown["virtual_size"] == len(DATA)
    assert here.files() == [f"cheap/{image}"]
    assert (here.folder / "cheap" / image).stat().st_ino == inode
    assert (here.folder / "cheap" / image).read_bytes() == DATA
    assert {operation for _, operation in called}.isdisjoint({"open", "read", "write"})
    task = await here.task(image)
    assert (task["status"], task["result"]) == ("success", {"image_id": image})


async def test_staged_data_that_no_backend_copies_is_read_once(site: Make) -> None:
    here = await site(DEFAULT__ENABLED_BACKENDS="fast:file, one:memory, other:memory")
    image = await here.staged()
    await here.ask(image, "glance-direct", stores=["one", "other", "fast"])
    async with working(here.environ) as equipment:
        await until(lambda: here.is_over())
        for name in ("one", "other"):
            store = equipment.stores[name]
            async with store.open(f"memory://{name}/{image}") as reading:
                assert b"".join([bytes(block) async for block in reading.blocks]) == DATA
        (reads,) = [
            sample.value
            for metric in equipment.metrics.store_calls.collect()
            for sample in metric.samples
            if sample.name.endswith("_count") and sample.labels["operation"] == "open"
        ]
        assert reads == 1
    shown = await here.show(image)
    require_whole(shown)
    assert shown["stores"] == "fast,one,other"


async def test_a_download_is_read_once_for_all_stores(site: Make) -> None:
    here = await site()
    async with web.serving(web.answer(DATA)) as server:
        image = await here.make()
        await here.ask(
            image,
            "web-download",
            method_uri=server.url,
            method_validation_data={
                "os_hash_algo": "sha256",
                "os_hash_value": hashlib.sha256(DATA).hexdigest(),
            },
            all_stores=True,
        )
        await here.work()
        assert len(server.asked) == 1
    require_whole(await here.show(image))
    assert here.files() == [f"{store}/{image}" for store in STORES]
    for store in STORES:
        assert (here.folder / store / image).read_bytes() == DATA


async def test_an_image_is_copied_by_the_backends(site: Make) -> None:
    here = await site()
    image = await here.active()
    await here.ask(image, "copy-image", headers=ADMIN, all_stores=True)
    shown = await here.show(image)
    assert shown["status"] == "active"
    assert shown["os_glance_importing_to_stores"] == "cheap,third"
    called = await here.work()
    shown = await here.show(image)
    require_whole(shown)
    assert shown["stores"] == "cheap,fast,third"
    assert shown["os_glance_failed_import"] == ""
    for store in STORES:
        assert (here.folder / store / image).read_bytes() == DATA
    assert {operation for _, operation in called}.isdisjoint({"open", "read", "write"})


async def test_a_copy_comes_from_the_next_store_where_the_first_has_lost_it(site: Make) -> None:
    here = await site()
    image = await here.active()
    await here.ask(image, "copy-image", headers=ADMIN, stores=["cheap"])
    await here.work()
    (here.folder / "fast" / image).unlink()
    await here.ask(image, "copy-image", headers=ADMIN, stores=["third"])
    await here.work()
    assert (await here.show(image))["stores"] == "cheap,fast,third"
    assert (here.folder / "third" / image).read_bytes() == DATA


async def test_damaged_bytes_are_not_copied(site: Make) -> None:
    here = await site(DEFAULT__ENABLED_BACKENDS="fast:file, one:memory")
    image = await here.active()
    (here.folder / "fast" / image).write_bytes(DATA[:-1] + b"!")
    await here.ask(image, "copy-image", headers=ADMIN, stores=["one"])
    await here.work()
    shown = await here.show(image)
    assert (shown["status"], shown["stores"]) == ("active", "fast")
    assert shown["os_glance_failed_import"] == "one"
    assert "Store fast has damaged data." in shown["os_glance_import_message"]


# --- Plug-ins ---------------------------------------------------------------------------------

DECOMPRESSION = {"IMAGE_IMPORT_OPTS__IMAGE_IMPORT_PLUGINS": "[image_decompression]"}


async def test_staged_data_goes_through_the_plug_ins(site: Make) -> None:
    here = await site(**DECOMPRESSION)
    image = await here.staged(gzip.compress(DATA))
    await here.ask(image, "glance-direct", stores=["cheap", "third"])
    await here.work()
    require_whole(await here.show(image))
    assert here.files() == [f"cheap/{image}", f"third/{image}"]
    assert (here.folder / "cheap" / image).read_bytes() == DATA
    assert list((here.folder / "scratch").iterdir()) == []


async def test_a_download_goes_through_the_plug_ins(site: Make) -> None:
    here = await site(**DECOMPRESSION)
    packed = gzip.compress(DATA)
    async with web.serving(web.answer(packed)) as server:
        image = await here.make()
        await here.ask(
            image,
            "web-download",
            method_uri=server.url,
            method_validation_data={
                "os_hash_algo": "md5",
                "os_hash_value": hashlib.md5(packed, usedforsecurity=False).hexdigest(),
            },
        )
        await here.work()
    require_whole(await here.show(image))
    assert list((here.folder / "scratch").iterdir()) == []


async def test_properties_are_injected_but_not_into_copies(site: Make) -> None:
    here = await site(
        IMAGE_IMPORT_OPTS__IMAGE_IMPORT_PLUGINS="[inject_image_metadata]",
        INJECT_METADATA_PROPERTIES__INJECT="color:blue,size_class:small",
        INJECT_METADATA_PROPERTIES__IGNORE_USER_ROLES="nobody",
    )
    image, other = await here.staged(color="red"), await here.active()
    await here.ask(image, "glance-direct")
    await here.ask(other, "copy-image", headers=ADMIN, stores=["cheap"])
    await here.work()
    shown = await here.show(image)
    assert (shown["color"], shown["size_class"]) == ("blue", "small")
    assert "color" not in await here.show(other)


# --- Failures ---------------------------------------------------------------------------------


async def require_queued(here: Site, image: str, *words: str, failed: str = "fast") -> None:
    """The image is as it was before the import, nothing is left, and the owner knows why."""
    shown = await here.show(image)
    assert shown["status"] == "queued"
    for column in ("size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"):
        assert shown[column] is None
    assert shown["os_glance_importing_to_stores"] == ""
    assert shown["os_glance_failed_import"] == failed
    assert "os_glance_import_task" not in shown
    task = await here.task(image)
    assert task["status"] == "failure"
    assert task["message"] == shown["os_glance_import_message"]
    for part in words:
        assert part in task["message"]
    assert here.files() == []
    # Events go to whoever listens, not to the owner alone.
    async with databases.connection(here.database) as database:
        assert not await database.fetch(
            "SELECT id FROM outbox WHERE payload::text LIKE '%os_glance_import_message%'"
        )


async def test_staged_data_of_another_format_is_refused(site: Make) -> None:
    here = await site()
    image = await here.staged(disk_format="qcow2")
    await here.ask(image, "glance-direct")
    await here.work()
    await require_queued(here, image, "The data is raw, not qcow2", "stage it again")


async def test_downloaded_data_of_another_format_is_refused(site: Make) -> None:
    here = await site()
    image = await here.make(disk_format="qcow2")
    async with web.serving(web.answer(DATA)) as server:
        await here.ask(image, "web-download", method_uri=server.url)
        await here.work()
    await require_queued(here, image, "The data is raw, not qcow2", "imported anew")


async def test_a_server_without_the_data_is_asked_once(site: Make) -> None:
    here = await site()
    image = await here.make()
    async with web.serving(web.answer(b"no", status=404)) as server:
        await here.ask(image, "web-download", method_uri=server.url)
        await here.work()
        assert len(server.asked) == 1
    await require_queued(here, image, "404")


async def test_data_with_another_digest_is_refused(site: Make) -> None:
    here = await site()
    image = await here.make()
    async with web.serving(web.answer(DATA)) as server:
        await here.ask(
            image,
            "web-download",
            method_uri=server.url,
            method_validation_data={"os_hash_algo": "sha256", "os_hash_value": "0" * 64},
        )
        await here.work()
    await require_queued(here, image, "sha256")


async def test_more_than_an_image_can_have_is_refused(site: Make) -> None:
    here = await site(DEFAULT__IMAGE_SIZE_CAP="1000")
    image = await here.make()
    async with web.serving(web.answer(DATA, content_length=None)) as server:
        await here.ask(image, "web-download", method_uri=server.url)
        await here.work()
    await require_queued(here, image, "1000 bytes")


async def test_a_server_that_fails_is_asked_again_until_attempts_are_used_up(site: Make) -> None:
    here = await site()
    image = await here.make()
    async with web.serving(web.answer(b"sorry", status=503)) as server:
        await here.ask(image, "web-download", method_uri=server.url)
        await here.allow_attempts(3)
        await here.work()
        assert len(server.asked) == 3
    await require_queued(here, image, "503")


async def test_what_the_service_does_not_expect_is_not_told_to_users(site: Make) -> None:
    here = await site(**DECOMPRESSION)
    (here.folder / "scratch").write_text("no folder")
    image = await here.staged(gzip.compress(DATA))
    await here.ask(image, "glance-direct")
    await here.allow_attempts(2)
    await here.work()
    await require_queued(here, image, "The service failed; try again.")
    assert str(here.folder) not in str(await here.task(image))


async def test_staged_data_that_is_in_no_store_any_more_is_told(site: Make) -> None:
    here = await site()
    image = await here.staged()
    await here.ask(image, "glance-direct")
    await here.allow_attempts(2)
    elsewhere = here.folder / "elsewhere"
    async with databases.connection(here.database) as database:
        await database.execute("UPDATE image_locations SET url = $1", f"file://{elsewhere / 'x'}")
    async with working(here.environ):

        async def is_queued() -> bool:
            await here.hurry()
            return (await here.show(image))["status"] == "queued"

        await until(is_queued)
    message = (await here.task(image))["message"]
    assert "The staging store is not the one that has the data." in message
    assert str(elsewhere) not in message


def occupy(here: Site, store: str, image: str) -> Path:
    """Have a store refuse the image for good."""
    path = here.folder / store / image
    path.write_bytes(b"somebody else's")
    return path


async def test_where_all_stores_must_succeed_one_failure_takes_all_back(site: Make) -> None:
    here = await site()
    image = await here.make()
    others = occupy(here, "cheap", image)
    async with web.serving(web.answer(DATA)) as server:
        await here.ask(image, "web-download", method_uri=server.url, all_stores=True)
        await here.work()
        others.unlink()
        await require_queued(
            here,
            image,
            "fast: stored, and removed again; cheap: something else is in the image's place;",
            failed="cheap",
        )
        # Nothing that was left is in the way of another try.
        await here.ask(image, "web-download", method_uri=server.url, all_stores=True)
        await here.work()
    shown = await here.show(image)
    require_whole(shown)
    assert shown["stores"] == ",".join(sorted(STORES))
    assert shown["os_glance_failed_import"] == ""
    assert "os_glance_import_message" not in shown


async def test_a_store_that_is_not_configured_any_more_costs_the_others_nothing(site: Make) -> None:
    here = await site()
    image = await here.make()
    async with web.serving(web.answer(DATA)) as server:
        await here.ask(image, "web-download", method_uri=server.url, stores=["fast", "cheap"])
        await here.work(DEFAULT__ENABLED_BACKENDS="fast:file, third:file")
        assert not server.asked
    await require_queued(here, image, "There is no store cheap any more.", failed="cheap,fast")


async def test_where_stores_may_fail_the_others_have_the_image(site: Make) -> None:
    here = await site()
    image = await here.staged()
    others = occupy(here, "cheap", image)
    await here.ask(image, "glance-direct", all_stores=True, all_stores_must_succeed=False)
    await here.work()
    shown = await here.show(image)
    require_whole(shown)
    assert shown["stores"] == "fast,third"
    assert shown["os_glance_failed_import"] == "cheap"
    assert "cheap: something else" in shown["os_glance_import_message"]
    task = await here.task(image)
    assert task["status"] == "success"
    assert "cheap: something else" in task["message"]
    assert others.read_bytes() == b"somebody else's"


async def test_where_stores_may_fail_all_of_them_is_a_failure(site: Make) -> None:
    here = await site()
    image = await here.staged()
    others = [occupy(here, store, image) for store in ("fast", "cheap")]
    await here.ask(image, "glance-direct", stores=["fast", "cheap"], all_stores_must_succeed=False)
    await here.work()
    for path in others:
        path.unlink()
    await require_queued(here, image, "fast: something", failed="cheap,fast")


async def test_a_failed_copy_leaves_the_image_as_it_was(site: Make) -> None:
    here = await site()
    image = await here.active()
    before = await here.show(image)
    others = occupy(here, "cheap", image)
    await here.ask(image, "copy-image", headers=ADMIN, stores=["cheap", "third"])
    await here.work()
    others.unlink()
    shown = await here.show(image)
    assert here.files() == [f"fast/{image}"]
    for name in ("status", "stores", "size", "checksum", "os_hash_value", "virtual_size"):
        assert shown[name] == before[name]
    assert shown["os_glance_failed_import"] == "cheap"
    assert (await here.task(image))["status"] == "failure"


async def test_a_store_that_is_back_gets_what_it_missed(site: Make) -> None:
    here = await site()
    image = await here.make()
    attempts = here.folder / "cheap" / ".attempts"

    async def is_told() -> bool:
        await here.hurry()
        return "cheap: it did not answer. It is tried" in (await here.task(image))["message"]

    async with web.serving(web.answer(DATA)) as server, working(here.environ):
        away = attempts.rename(here.folder / "away")
        await here.ask(image, "web-download", method_uri=server.url, stores=["fast", "cheap"])
        await until(is_told)
        assert (await here.show(image))["os_glance_importing_to_stores"] == "cheap"
        away.rename(attempts)
        await until(lambda: here.is_over())
    shown = await here.show(image)
    require_whole(shown)
    assert shown["stores"] == "cheap,fast"
    assert (await here.task(image))["message"] == ""


# --- Runs that are interrupted, and runs that sleep -------------------------------------------


class Slow(FilesystemStore):
    """A file store that stops at a step, until it is let go on."""

    stops_at = ""
    reached: asyncio.Event
    go_on: asyncio.Event

    async def _pass(self, step: str) -> None:
        if step == self.stops_at:
            self.reached.set()
            await self.go_on.wait()

    async def copy(
        self, attempt: Attempt, source: Store, location: str, *, temporary: bool = False
    ) -> int | None:
        await self._pass("copy")
        size = await super().copy(attempt, source, location, temporary=temporary)
        await self._pass("copied")
        return size

    async def write(
        self, attempt: Attempt, blocks: AsyncIterator[Block], *, size: int | None
    ) -> int:
        await self._pass("write")
        written = await super().write(attempt, blocks, size=size)
        await self._pass("written")
        return written

    async def publish(self, attempt: Attempt) -> str:
        await self._pass("publish")
        location = await super().publish(attempt)
        await self._pass("published")
        return location


@asynccontextmanager
async def slowed(here: Site, store: str, step: str) -> AsyncGenerator[tuple[Equipment, Slow]]:
    """What jobs work with, where one of the stores stops at a step; leases last."""
    environ = here.environ | {"DIPTYCH_IMAGES__JOBS__LEASE": "300"}
    loaded = load(environ=environ)
    config = StoresConfig.from_sections(loaded.sections)
    (options,) = [one.options for one in config.stores if one.name == store]
    assert isinstance(options, FilesystemOptions)
    slow = await Slow.open_directory(store, options)
    slow.stops_at, slow.reached, slow.go_on = step, asyncio.Event(), asyncio.Event()
    async with (
        Database(loaded.settings.database) as db,
        Stores.open(config) as stores,
        contextlib.aclosing(slow),
    ):
        every = {name: stores[name] for name in stores.names} | {store: slow}
        mixed = Stores(every, stores.info, is_multiple=True, staging=stores.staging)
        with equipped(loaded.settings, db, mixed) as equipment:
            yield equipment, slow


@asynccontextmanager
async def sleeping(equipment: Equipment) -> AsyncGenerator[asyncio.Task[None]]:
    """A run of the only import, by a worker that knows of nothing but it."""
    async with equipment.db.write() as connection:
        (job,) = await jobs.claim(
            connection, jobs_table, [run.JOB], worker="x", lease=timedelta(minutes=5), limit=1
        )
    context = JobContext(equipment.db, jobs_table, job)
    task = asyncio.create_task(run.run(job, context, equipment))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def let_leases_end(here: Site) -> None:
    async with databases.connection(here.database) as server:
        await server.execute("UPDATE jobs SET lease_until = now() WHERE state = 'running'")


# What such a run meets with; a job that is given up by somebody who lost it is lost all the same.
SLEPT = (JobLost, Gone, StoreError, GiveUp)


@pytest.mark.parametrize(
    ("store", "step"),
    [
        ("fast", "copy"),
        ("fast", "copied"),
        ("fast", "publish"),
        ("fast", "published"),
        ("third", "publish"),  # when others have landed
    ],
)
async def test_a_run_that_slept_changes_nothing(site: Make, store: str, step: str) -> None:
    here = await site()
    image = await here.staged()
    await here.ask(image, "glance-direct", all_stores=True)
    async with slowed(here, store, step) as (equipment, slow), sleeping(equipment) as sleeper:
        await slow.reached.wait()
        if store == "third":
            await until(lambda: has_landed(here, 2))
        await let_leases_end(here)
        await here.work()
        shown, files = await here.show(image), here.files()
        require_whole(shown)
        assert {*files} == {f"{name}/{image}" for name in STORES}
        slow.go_on.set()
        with pytest.raises(SLEPT):
            await sleeper
    assert await here.show(image) == shown
    assert here.files() == files
    assert await here.left() == []


async def has_landed(here: Site, count: int) -> bool:
    async with databases.connection(here.database) as server:
        return count == await server.fetchval(
            "SELECT count(*) FROM image_locations WHERE status = 'active'"
        )


@pytest.mark.parametrize("step", ["write", "written", "published"])
async def test_a_run_that_slept_gives_a_deleted_image_nothing(site: Make, step: str) -> None:
    here = await site()
    image = await here.make()
    async with web.serving(web.answer(DATA)) as server:
        await here.ask(image, "web-download", method_uri=server.url, all_stores=True)
        async with (
            slowed(here, "cheap", step) as (equipment, slow),
            sleeping(equipment) as sleeper,
        ):
            await slow.reached.wait()
            deleted = await here.api.delete(f"/v2/images/{image}", headers=ALICE)
            assert deleted.status_code == 204
            await let_leases_end(here)
            await here.work()
            slow.go_on.set()
            with pytest.raises(SLEPT):
                await sleeper
    assert here.files() == []
    assert await here.left() == []


async def test_an_import_of_a_deleted_image_ends_at_once(site: Make) -> None:
    here = await site()
    image = await here.make()
    half = asyncio.Event()

    async def answer(_: web.Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(web.head(content_length=len(DATA)) + DATA[:100_000])
        await writer.drain()
        half.set()
        await writer.wait_closed()

    async with web.serving(answer) as server, working(here.environ):
        await here.ask(image, "web-download", method_uri=server.url, all_stores=True)
        await half.wait()
        deleted = await here.api.delete(f"/v2/images/{image}", headers=ALICE)
        assert deleted.status_code == 204
        await until(lambda: here.is_over(), within_s=8)
    assert here.files() == []
    async with databases.connection(here.database) as database:
        row = await database.fetchrow("SELECT status, message FROM tasks")
        assert row is not None
        assert tuple(row) == ("failure", "The image was deleted.")


async def test_clients_see_an_import_go_on_in_glances_order(site: Make) -> None:
    here = await site()
    image = await here.active()
    await here.ask(image, "copy-image", headers=ADMIN, stores=["third", "cheap"])
    async with slowed(here, "cheap", "publish") as (equipment, slow), running(equipment):
        await slow.reached.wait()
        await until(lambda: has_landed(here, 2))
        shown = await here.show(image)
        assert shown["status"] == "active"
        assert shown["stores"] == "fast,third"
        assert shown["os_glance_importing_to_stores"] == "cheap"
        assert shown["os_glance_failed_import"] == ""
        task = await here.task(image)
        assert task["status"] == "processing"
        assert shown["os_glance_import_task"] == task["id"]
        slow.go_on.set()
        await until(lambda: here.is_over())
    shown = await here.show(image)
    assert shown["stores"] == "cheap,fast,third"
    assert shown["os_glance_importing_to_stores"] == ""


async def test_events_tell_of_an_import(site: Make) -> None:
    here = await site()
    image = await here.staged()
    before = len(await here.events())
    await here.ask(image, "glance-direct", stores=["fast", "cheap"])
    await here.work()
    assert (await here.events())[before:] == [
        "image.update",
        "task.create",
        "task.run",
        "task.processing",
        "image.prepare",
        "image.prepare",
        "image.upload",
        "image.upload",
        "image.update",
        "image.activate",
        "task.success",
    ]
    request = (await here.task(image))["request_id"]
    async with databases.connection(here.database) as database:
        told = await database.fetch("SELECT request_id FROM outbox ORDER BY id")
    assert {row[0] for row in told[before:]} == {request}
