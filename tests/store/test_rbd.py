"""What only a store in Ceph does, seen by those who share the cluster with it."""

import asyncio
import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dev import ceph as dev_ceph
from dev import environments
from dev.ceph import Ceph
from diptych_store.drivers.memory import MemoryStore
from diptych_store.drivers.rbd import RbdStore
from diptych_store.drivers.rbd.images import place_of
from diptych_store.errors import (
    AlreadyThere,
    AttemptLost,
    BadLocation,
    Full,
    InUse,
    NotFound,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.options.rbd import RbdOptions
from diptych_store.protocol import Attempt, ByteRange, Reading

from tests import servers
from tests.store.conformance import (
    MIB,
    attempt_at,
    begun_attempts,
    get,
    in_blocks,
    put,
    some_bytes,
)
from tests.store.pools import Pool

pytestmark = pytest.mark.conformance_all

OBJECT = 8 * MIB


def options_for(ceph: Ceph, pool: str, **others: object) -> RbdOptions:
    return RbdOptions.model_validate(
        {
            "rbd_store_ceph_conf": str(ceph.conf),
            "rbd_store_user": "glance",
            "rbd_store_pool": pool,
            **others,
        }
    )


@contextlib.asynccontextmanager
async def opened(ceph: Ceph, pool: str, **others: object) -> AsyncGenerator[RbdStore, None]:
    store = RbdStore("here", options_for(ceph, pool, **others))
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def store(ceph: Ceph, ceph_pool: str) -> AsyncIterator[RbdStore]:
    async with opened(ceph, ceph_pool) as store:
        yield store


@pytest.fixture
def pool(ceph: Ceph, ceph_pool: str) -> Generator[Pool]:
    """The store's pool; after the test there is nothing left in it."""
    pool = Pool(ceph, ceph_pool)
    yield pool
    left = pool.everything()
    pool.wipe()
    pool.close()
    assert left == []


@pytest.fixture
def vms(ceph: Ceph) -> Generator[Pool]:
    pool = Pool(ceph, "vms", user="nova")
    yield pool
    pool.close()


@pytest.fixture
def images_of_nova(ceph: Ceph, ceph_pool: str) -> Generator[Pool]:
    """The pool of the images with the rights of Nova."""
    pool = Pool(ceph, ceph_pool, user="nova")
    yield pool
    pool.close()


async def read_on(reading: Reading) -> bytes:
    return b"".join([bytes(block) async for block in reading.blocks])


def key_of(location: str) -> str:
    return location.split("/")[4]


# Layout.


async def test_an_object_is_an_image_that_can_be_cloned(store: RbdStore, pool: Pool):
    location = await put(store, some_bytes(MIB), key="3f1c")
    assert location == f"rbd://{pool.fsid}/{pool.name}/3f1c/snap"
    with pool.image("3f1c") as image:
        assert image.size() == MIB
        assert image.stat()["obj_size"] == OBJECT
        assert image.is_protected_snap("snap")
        # As Glance makes them: what the cluster's administrators have chosen.
        assert image.features() == int(pool.client.conf_get("rbd_default_features"))
    await store.delete(location)


@pytest.mark.parametrize(("chunk_mib", "object_size"), [(1, MIB), (3, 2 * MIB), (32, 32 * MIB)])
async def test_the_size_of_the_objects_is_that_of_the_setting(
    ceph: Ceph, pool: Pool, chunk_mib: int, object_size: int
):
    async with opened(ceph, pool.name, rbd_store_chunk_size=chunk_mib) as store:
        data = some_bytes(5 * MIB)
        location = await put(store, data, key="a")
        with pool.image("a") as image:
            assert image.stat()["obj_size"] == object_size
        assert await get(store, location) == data
        await store.delete(location)


async def test_an_image_of_unknown_size_has_its_exact_size_in_the_end(store: RbdStore, pool: Pool):
    attempt, sizes = attempt_at("a"), []

    async def blocks() -> AsyncIterator[bytes]:
        for number in range(5):
            yield some_bytes(10 * MIB, number)
            with pool.image(place_of(attempt)) as image:
                sizes.append(image.size() // MIB)

    await store.write(attempt, blocks(), size=None)
    # Each step is twice as large as the one before.
    assert sizes == [16, 48, 48, 48, 112]
    location = await store.publish(attempt)
    with pool.image("a", snapshot="snap") as image:
        assert image.size() == 50 * MIB
    await store.delete(location)


@pytest.mark.parametrize("thin", [True, False])
async def test_zeros_take_no_room_in_a_thin_store(ceph: Ceph, pool: Pool, thin: bool):
    data = some_bytes(MIB) + bytes(30 * MIB) + some_bytes(10) + bytes(OBJECT)
    async with opened(ceph, pool.name, rbd_thin_provisioning=thin) as store:
        location = await put(store, data, key="a")
        objects, extents = pool.data_objects(), list[tuple[int, int]]()
        with pool.image("a") as image:
            image.diff_iterate(
                0, image.size(), None, lambda start, length, _: extents.append((start, length))
            )
        written = sum(length for _, length in extents)
        assert objects == ([0, 3] if thin else [0, 1, 2, 3, 4])
        assert written < 2 * OBJECT if thin else written == len(data)
        assert await get(store, location) == data
        assert await get(store, location, ByteRange(31 * MIB - 5, 20)) == data[31 * MIB - 5 :][:20]
        await store.delete(location)


# Those who share the cluster.


async def test_nova_clones_the_snapshot(
    store: RbdStore, pool: Pool, vms: Pool, images_of_nova: Pool
):
    data = some_bytes(3 * MIB)
    location = await put(store, data)
    key, disk = key_of(location), str(uuid.uuid4())
    # As nova/storage/rbd_utils.py does it, with rights to nothing but read here.
    vms.rbd.RBD().clone(
        images_of_nova.pool, key, "snap", vms.pool, disk, features=vms.rbd.RBD_FEATURE_LAYERING
    )
    with vms.image(disk) as clone:
        assert clone.parent_info() == (pool.name, key, "snap")
        assert clone.read(0, len(data)) == data
        clone.write(b"changed", 0)
    with pytest.raises(InUse):
        await store.delete(location)
    # Refused as a whole: the image is still there to be read and cloned.
    assert await get(store, location) == data
    with pool.image(key) as image:
        assert image.is_protected_snap("snap")
    vms.rbd.RBD().remove(vms.pool, disk)
    await store.delete(location)


async def test_the_parent_of_a_clone_that_lets_it_go_is_trashed(
    store: RbdStore, pool: Pool, vms: Pool, images_of_nova: Pool
):
    data = some_bytes(3 * MIB)
    location = await put(store, data)
    key, disk = key_of(location), str(uuid.uuid4())
    # What clones are made like once all clients are of Mimic or newer.
    vms.client.conf_set("rbd_default_clone_format", "2")
    vms.rbd.RBD().clone(images_of_nova.pool, key, "snap", vms.pool, disk)
    await store.delete(location)
    assert pool.trash() == [key]
    with pytest.raises(NotFound):
        await get(store, location)
    with vms.image(disk) as clone:
        assert clone.read(0, len(data)) == data
    vms.rbd.RBD().remove(vms.pool, disk)
    [trashed] = pool.rbd.RBD().trash_list(pool.pool)
    pool.rbd.RBD().trash_remove(pool.pool, trashed["id"])


async def test_an_image_with_a_snapshot_of_somebody_else_is_trashed(store: RbdStore, pool: Pool):
    location = await put(store, some_bytes(MIB), key="a")
    with pool.image("a") as image:
        image.create_snap("backup")
    await store.delete(location)
    assert (pool.names(), pool.trash()) == ([], ["a"])
    with pytest.raises(NotFound):
        await store.delete(location)
    [trashed] = pool.rbd.RBD().trash_list(pool.pool)
    with pool.rbd.Image(pool.pool, image_id=trashed["id"]) as image:
        image.remove_snap("backup")
    pool.rbd.RBD().trash_remove(pool.pool, trashed["id"])


async def test_an_image_that_somebody_has_open_stays_as_it_is(store: RbdStore, pool: Pool):
    data = some_bytes(MIB)
    location = await put(store, data, key="a")
    with pool.image("a") as image:
        with pytest.raises(InUse):
            await store.delete(location)
        assert image.is_protected_snap("snap")
    assert await get(store, location) == data
    await store.delete(location)


async def test_a_reader_does_not_keep_an_image_from_being_deleted(store: RbdStore, pool: Pool):
    # Zeros are what a removed image would be read as, too.
    location = await put(store, bytes(40 * MIB), key="a")
    async with store.open(location) as reading:
        await anext(reading.blocks)
        await store.delete(location)
        with pytest.raises(NotFound):
            await read_on(reading)


async def test_images_of_glance_before_clones_are_read_and_deleted(store: RbdStore, pool: Pool):
    data = some_bytes(3 * MIB)
    pool.rbd.RBD().create(pool.pool, "old", len(data), 22)
    with pool.image("old") as image:
        image.write(data, 0)
    assert store.recognises("rbd://old")
    assert await get(store, "rbd://old") == data
    assert await get(store, "rbd://old", ByteRange(MIB - 1, 5)) == data[MIB - 1 :][:5]
    async with store.open("rbd://old") as reading:
        await anext(reading.blocks)
        with pytest.raises(InUse):
            await store.delete("rbd://old")
    await store.delete("rbd://old")


@pytest.mark.parametrize("protected", [True, False])
async def test_a_delete_that_died_half_way_is_finished(
    store: RbdStore, pool: Pool, protected: bool
):
    location = await put(store, some_bytes(MIB), key="a")
    with pool.image("a") as image:
        image.unprotect_snap("snap")
        if not protected:
            image.remove_snap("snap")
    await store.delete(location)


async def test_glance_reads_and_deletes_what_we_wrote_and_we_what_it_wrote(
    ceph: Ceph, store: RbdStore, pool: Pool, tmp_path: Path
):
    data = some_bytes(20 * MIB)
    (tmp_path / "data").write_bytes(data)
    (tmp_path / "glance.conf").write_text(
        f"""
[DEFAULT]
enabled_backends = fast:rbd
[glance_store]
default_backend = fast
[fast]
rbd_store_ceph_conf = {ceph.conf}
rbd_store_user = glance
rbd_store_pool = {pool.name}
"""
    )
    glance = await asyncio.create_subprocess_exec(
        environments.ready("glance_store") / "python",
        Path(__file__).with_name("glance_store_process.py"),
        tmp_path / "glance.conf",
        env={"PYTHONPATH": str(dev_ceph.bindings(servers.folder()))},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    stdin, stdout = glance.stdin, glance.stdout
    assert stdin is not None
    assert stdout is not None

    async def told(**command: object) -> dict[str, Any]:
        stdin.write(json.dumps({**command, "backend": "fast"}).encode() + b"\n")
        return json.loads(await stdout.readline())

    assert json.loads(await stdout.readline()) == {"ready": True}
    ours = await put(store, data)
    assert await told(get=ours, file=f"{tmp_path}/read") == {"size": len(data)}
    assert (tmp_path / "read").read_bytes() == data
    assert await told(delete=ours) == {}
    with pytest.raises(NotFound):
        await get(store, ours)

    for sized in (True, False):
        key = str(uuid.uuid4())
        answer = await told(add=key, file=f"{tmp_path}/data", sized=sized)
        theirs = answer["location"]
        assert theirs == f"rbd://{pool.fsid}/{pool.name}/{key}/snap"
        assert await get(store, theirs) == data
        with pytest.raises(AlreadyThere):
            await put(store, b"x", key=key)
        for attempt in await begun_attempts(store):
            await store.discard(attempt)
        # No attempt of ours wrote it, so none may take it away.
        await store.discard(attempt_at(key), published=True)
        assert await get(store, theirs) == data
        await store.delete(theirs)
    stdin.close()
    await glance.wait()


# Locations.


async def test_another_cluster_or_pool_is_not_ours(store: RbdStore, pool: Pool):
    location = await put(store, b"x", key="a")
    elsewhere = str(uuid.uuid4())
    for other in (
        location.replace(pool.fsid, elsewhere),
        location.replace(f"/{pool.name}/", "/vms/"),
    ):
        assert not store.recognises(other)
        with pytest.raises(BadLocation):
            await get(store, other)
        with pytest.raises(BadLocation):
            await store.delete(other)
    await store.delete(location)


# Attempts that died, at moments that a kill hits too rarely.


async def written(store: RbdStore, key: str = "a") -> Attempt:
    attempt = attempt_at(key)
    await store.write(attempt, in_blocks(some_bytes(MIB)), size=None)
    return attempt


def image_id(pool: Pool, name: str) -> str:
    with pool.image(name) as image:
        return str(image.id())


def taken_name(pool: Pool, name: str, image: str) -> None:
    """What librbd's rename does first."""
    pool.pool.write_full(f"rbd_id.{name}", len(image).to_bytes(4, "little") + image.encode())


def renamed_entry(pool: Pool, old: str, new: str, image: str) -> None:
    """What librbd's rename does then."""
    words = (word.encode() for word in (old, new, image))
    data = b"".join(len(word).to_bytes(4, "little") + word for word in words)
    pool.pool.execute("rbd_directory", "rbd", "dir_rename_image", data)


@pytest.mark.parametrize("published", [True, False])
async def test_a_publish_that_died_after_taking_the_key_is_undone(
    store: RbdStore, pool: Pool, published: bool
):
    attempt = await written(store)
    taken_name(pool, "a", image_id(pool, place_of(attempt)))
    assert await begun_attempts(store) == [attempt]
    await store.discard(attempt, published=published)
    assert pool.everything() == []


async def test_a_publish_that_died_after_taking_the_key_is_done_again(store: RbdStore, pool: Pool):
    attempt = await written(store)
    taken_name(pool, "a", image_id(pool, place_of(attempt)))
    location = await store.publish(attempt)
    assert pool.names() == ["a"]
    assert await get(store, location) == some_bytes(MIB)
    await store.delete(location)


async def test_a_publish_that_died_at_its_end_has_an_object(store: RbdStore, pool: Pool):
    attempt = await written(store)
    name, image = place_of(attempt), image_id(pool, place_of(attempt))
    taken_name(pool, "a", image)
    renamed_entry(pool, name, "a", image)
    assert await begun_attempts(store) == []
    await store.discard(attempt)
    location = f"rbd://{pool.fsid}/{pool.name}/a/snap"
    assert await get(store, location) == some_bytes(MIB)
    await store.discard(attempt, published=True)
    with pytest.raises(NotFound):
        await get(store, location)


async def test_a_key_that_a_dead_publish_has_taken_late_is_free(store: RbdStore, pool: Pool):
    dead = await written(store)
    image = image_id(pool, place_of(dead))
    await store.discard(dead)
    taken_name(pool, "a", image)  # by a process that slept meanwhile
    with pytest.raises(AttemptLost):
        await store.publish(dead)
    location = await put(store, b"alive", key="a")
    assert await get(store, location) == b"alive"
    await store.delete(location)


async def test_a_key_that_another_is_about_to_publish_is_taken(store: RbdStore, pool: Pool):
    first, second = await written(store), await written(store)
    taken_name(pool, "a", image_id(pool, place_of(first)))
    with pytest.raises(AlreadyThere):
        await store.publish(second)
    location = await store.publish(first)
    await store.discard(second)
    await store.delete(location)


async def test_a_discard_that_died_is_found_and_finished(store: RbdStore, pool: Pool):
    attempt = await written(store)
    name = place_of(attempt)
    renamed_entry(pool, name, name.replace(".attempt.", ".discarded."), image_id(pool, name))
    with pytest.raises(AttemptLost):
        await store.publish(attempt)
    assert await begun_attempts(store) == [attempt]
    await store.discard(attempt)


async def test_an_image_that_was_half_made_is_found_and_removed(store: RbdStore, pool: Pool):
    attempt = await written(store)
    image = image_id(pool, place_of(attempt))
    with pool.image(place_of(attempt)) as opened_image:
        opened_image.unprotect_snap("snap")
        opened_image.remove_snap("snap")
    for one in list(pool.pool.list_objects()):
        if image in one.key:
            pool.pool.remove_object(one.key)
    assert await begun_attempts(store) == [attempt]
    assert [one async for one in store.attempts(older_than=timedelta(hours=1))] == []
    await store.discard(attempt)


async def test_an_attempt_discarded_while_another_process_writes_it_is_removed(
    ceph: Ceph, store: RbdStore, pool: Pool
):
    attempt, under_way, go_on = attempt_at("a"), asyncio.Event(), asyncio.Event()

    async def blocks() -> AsyncIterator[bytes]:
        yield some_bytes(5 * MIB)
        under_way.set()
        await go_on.wait()
        yield some_bytes(5 * MIB)

    async with opened(ceph, pool.name) as another:
        writing = asyncio.create_task(another.write(attempt, blocks(), size=None))
        await under_way.wait()
        await store.discard(attempt, published=True)
        assert await begun_attempts(store) == [attempt]  # it is open elsewhere
        go_on.set()
        with pytest.raises(AttemptLost):
            await writing
    assert pool.everything() == []


# What goes wrong.


async def test_who_may_only_read_is_refused_to_write(ceph: Ceph, store: RbdStore, pool: Pool):
    location = await put(store, b"bytes", key="a")
    async with opened(ceph, pool.name, rbd_store_user="reader") as reader:
        assert await get(reader, location) == b"bytes"
        with pytest.raises(WriteDenied):
            await put(reader, b"more")
        with pytest.raises(WriteDenied):
            await reader.delete(location)
    assert await get(store, location) == b"bytes"
    await store.delete(location)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"rbd_store_pool": "nowhere"}, "no pool nowhere"),
        ({"rbd_store_user": "nobody"}, "not let its user in"),
        ({"rbd_store_ceph_conf": "/nowhere/ceph.conf"}, "configuration file"),
    ],
)
async def test_what_is_configured_wrong_is_told(
    ceph: Ceph, ceph_pool: str, wrong: dict[str, str], word: str
):
    async with opened(ceph, ceph_pool, **wrong) as store:
        for call in (put(store, b"x"), get(store, "rbd://a"), store.delete("rbd://a")):
            with pytest.raises(StoreError, match=word) as raised:
                await call
            assert not isinstance(raised.value, NotFound)


async def test_a_pool_that_is_gone_is_no_missing_object(ceph: Ceph):
    name = f"passing-{uuid.uuid4()}"
    await asyncio.to_thread(ceph.make_pool, name)
    async with opened(ceph, name) as store:
        location = await put(store, b"x")
        attempt = await written(store)
        await asyncio.to_thread(
            ceph.command, *("osd", "pool", "delete", name, name, "--yes-i-really-really-mean-it")
        )
        for call in (get(store, location), store.delete(location), store.publish(attempt)):
            with pytest.raises(Unreachable):
                await call


async def test_a_pool_over_its_quota_is_full(ceph: Ceph):
    name = f"small-{uuid.uuid4()}"
    await asyncio.to_thread(ceph.make_pool, name)
    await asyncio.to_thread(ceph.command, "osd", "pool", "set-quota", name, "max_bytes", str(MIB))

    async def blocks() -> AsyncIterator[bytes]:
        # The cluster notices some seconds late.
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            yield some_bytes(MIB)
            await asyncio.sleep(0.2)

    pool = Pool(ceph, name)
    async with opened(ceph, name) as store:
        with pytest.raises(Full):
            await store.write(attempt_at(), blocks(), size=None)
    # What was written is removed all the same.
    assert pool.everything() == []
    pool.close()
    await asyncio.to_thread(
        ceph.command, *("osd", "pool", "delete", name, name, "--yes-i-really-really-mean-it")
    )


@pytest.fixture
def private_ceph(ceph_installed: None) -> Generator[Ceph]:
    """A cluster of the test's own, to be stopped."""
    ceph = servers.private_ceph(f"ceph-{uuid.uuid4()}")
    ceph.start()
    yield ceph
    for daemon in ceph.daemons:
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon.pid, signal.SIGCONT)
    ceph.stop()


async def test_a_cluster_that_hangs_is_unreachable_and_others_go_on(private_ceph: Ceph):
    other = MemoryStore("other")
    async with opened(
        private_ceph, "images", rbd_store_timeout=2, rbd_store_thread_pool_size=2
    ) as store:
        location = await put(store, some_bytes(20 * MIB))
        attempt = await written(store)
        writing = asyncio.Event()

        async def blocks() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield some_bytes(MIB)
                if not writing.is_set():
                    writing.set()
                    await stopped.wait()

        stopped = asyncio.Event()
        interrupted = asyncio.create_task(store.write(attempt_at(), blocks(), size=None))
        await writing.wait()
        for daemon in private_ceph.daemons:
            os.kill(daemon.pid, signal.SIGSTOP)
        stopped.set()
        began = time.monotonic()
        calls = [
            interrupted,
            *(asyncio.create_task(get(store, location)) for _ in range(4)),
            asyncio.create_task(store.delete(location)),
            asyncio.create_task(store.publish(attempt)),
            asyncio.create_task(store.free()),
        ]
        # The loop and another store don't notice.
        while not all(call.done() for call in calls):
            async with asyncio.timeout(5):
                one = await put(other, b"bytes")
                await other.delete(one)
                await asyncio.sleep(0.05)
            assert time.monotonic() - began < 60
        for call in calls:
            assert isinstance(call.exception(), Unreachable | type(None))
        assert isinstance(interrupted.exception(), Unreachable)
        assert isinstance(calls[1].exception(), Unreachable)

        for daemon in private_ceph.daemons:
            os.kill(daemon.pid, signal.SIGCONT)
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(Unreachable):
                    again = await put(store, b"again")
                    break
        assert await get(store, again) == b"again"


async def test_a_client_that_was_fenced_off_connects_anew(private_ceph: Ceph):
    attempt, pool = attempt_at(), Pool(private_ceph, "images")

    def fence_off() -> None:
        with pool.image(place_of(attempt)) as image:
            own = pool.client.get_instance_id()
            [writer] = [one for one in image.watchers_list() if one["id"] != own]
        private_ceph.command("osd", "blocklist", "add", writer["addr"])

    async def blocks() -> AsyncIterator[bytes]:
        yield some_bytes(MIB)
        await asyncio.to_thread(fence_off)
        for _ in range(20):
            yield some_bytes(MIB)

    async with opened(private_ceph, "images") as store:
        with pytest.raises(Unreachable):
            await store.write(attempt, blocks(), size=None)
        location = await put(store, b"again")
        assert await get(store, location) == b"again"
        await pool.until_closed()
        await store.discard(attempt, published=True)
        await store.delete(location)
    assert pool.everything() == []
    pool.close()
