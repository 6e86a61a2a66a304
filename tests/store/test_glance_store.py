"""Glance's own store library and ours over the same backends: each reads what the other wrote."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev import environments
from dev.keystone import PASSWORD, Keystone
from dev.seaweedfs import Seaweedfs
from dev.swift import Swift
from diptych_store.errors import NotFound
from diptych_store.protocol import ByteRange, Copies
from diptych_store.registry import Stores
from diptych_store.settings import StoresConfig

from tests.store import s3_bucket
from tests.store.conformance import MIB, attempt_at, get, put, some_bytes

Sections = Mapping[str, Mapping[str, object]]
PROCESS = Path(__file__).with_name("glance_store_process.py")
# Both libraries split what is larger than this (in S3, only the other one does not always).
LARGE = 12 * MIB + 300_000


@dataclass(frozen=True)
class GlanceStore:
    """The other library in a process of its own; see glance_store_process.py."""

    process: asyncio.subprocess.Process
    folder: Path
    tells_size: bool

    async def ask(self, **command: object) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        answer = json.loads(await self.process.stdout.readline())
        assert "error" not in answer, answer
        return answer

    async def add(self, backend: str, key: str, data: bytes) -> str:
        file = self.folder / "given"
        file.write_bytes(data)
        told = await self.ask(add=key, backend=backend, file=str(file), sized=self.tells_size)
        return str(told["location"])

    async def get(self, backend: str, location: str) -> bytes:
        file = self.folder / "had"
        await self.ask(get=location, backend=backend, file=str(file))
        return file.read_bytes()

    async def delete(self, backend: str, location: str) -> None:
        await self.ask(delete=location, backend=backend)


def ini(sections: Sections) -> str:
    return "\n".join(
        line
        for name, options in sections.items()
        for line in (f"[{name}]", *(f"{option} = {value}" for option, value in options.items()))
    )


@asynccontextmanager
async def both(
    sections: Sections,
    folder: Path,
    *,
    theirs: Mapping[str, object],
    tells_size: bool = True,
) -> AsyncGenerator[tuple[Stores, GlanceStore]]:
    """One file for both, but for options of `theirs` in each store's section."""
    ours = {name: {k: str(v) for k, v in options.items()} for name, options in sections.items()}
    stores = [name for name in sections if name not in ("DEFAULT", "glance_store")]
    file = folder / "glance.conf"
    file.write_text(
        ini({name: {**sections[name], **(theirs if name in stores else {})} for name in sections})
    )
    python = environments.ready("glance_store") / "python"
    with (folder / "glance_store.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(str(python), "-W", "ignore", str(PROCESS), str(file)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ready = await process.stdout.readline()
        assert ready == b'{"ready": true}\n', (folder / "glance_store.log").read_text()
        async with Stores.open(StoresConfig.from_sections(ours)) as opened:
            yield opened, GlanceStore(process, folder, tells_size)
    finally:
        process.stdin.close()
        await process.wait()


def sections(backends: Mapping[str, tuple[str, Mapping[str, object]]]) -> Sections:
    enabled = ", ".join(f"{name}:{kind}" for name, (kind, _) in backends.items())
    return {
        "DEFAULT": {"enabled_backends": enabled},
        "glance_store": {"default_backend": next(iter(backends))},
        **{name: options for name, (_, options) in backends.items()},
    }


@pytest.fixture(scope="module")
async def filesystem(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Stores, GlanceStore]]:
    folder = tmp_path_factory.mktemp("files")
    names = ("one", "two")
    for name in names:
        (folder / name).mkdir()
    told = sections({name: ("file", {"filesystem_store_datadir": folder / name}) for name in names})
    async with both(told, folder, theirs={}) as opened:
        yield opened
    left = [path for path in folder.glob("*/*") if path.is_file() and path.name[0] != "."]
    assert left == []


@pytest.fixture(scope="module")
async def buckets(
    s3: Seaweedfs, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Stores, GlanceStore]]:
    names = {"one": await s3_bucket.make(s3), "two": await s3_bucket.make(s3)}
    told = sections(
        {
            store: ("s3", s3_bucket.settings(s3, bucket, s3_store_bucket_url_format="path"))
            for store, bucket in names.items()
        }
    )
    large = {"s3_store_large_object_size": 8, "s3_store_large_object_chunk_size": 5}
    async with both(told, tmp_path_factory.mktemp("s3"), theirs=large) as opened:
        yield opened
    for bucket in names.values():
        assert await s3_bucket.everything(s3, bucket) == []


@pytest.fixture(scope="module")
async def containers(
    swift: Swift, keystone: Keystone, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Stores, GlanceStore]]:
    names = {store: f"glance-{uuid.uuid4()}" for store in ("one", "two")}
    told = sections(
        {
            store: (
                "swift",
                {
                    "swift_store_auth_version": 3,
                    "swift_store_auth_address": keystone.url,
                    "swift_store_user": "demo:demo",
                    "swift_store_key": PASSWORD,
                    "swift_store_container": container,
                    "swift_store_create_container_on_put": True,
                },
            )
            for store, container in names.items()
        }
    )
    large = {"swift_store_large_object_size": 4, "swift_store_large_object_chunk_size": 2}
    # Told a size, it announces more for the last segment than it sends, and Swift waits for that.
    folder = tmp_path_factory.mktemp("swift")
    async with both(told, folder, theirs=large, tells_size=False) as opened:
        yield opened
    token = keystone.token("demo", "demo")
    account = f"{swift.keystone_proxy_url}/v1/AUTH_{keystone.project_id('demo')}"
    async with httpx.AsyncClient(headers={"X-Auth-Token": token}, trust_env=False) as client:
        listings = [(await client.get(f"{account}/{name}")) for name in names.values()]
    assert [listing.text for listing in listings] == ["", ""]


@pytest.fixture(params=["filesystem", "buckets", "containers"])
def pair(request: pytest.FixtureRequest) -> tuple[Stores, GlanceStore]:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    ("backend", "size"),
    [("one", 1), ("two", 100_000), ("one", LARGE), ("two", LARGE)],
    ids=["byte", "small", "large", "large of the other"],
)
async def test_what_glance_wrote_is_read_in_ranges_copied_and_deleted_whole(
    pair: tuple[Stores, GlanceStore], backend: str, size: int
):
    stores, glance = pair
    data, key = some_bytes(size), str(uuid.uuid4())
    location = await glance.add(backend, key, data)
    store = stores.by_location(location)
    assert store.name == backend
    assert await get(store, location) == data
    assert await get(store, location, ByteRange(size - 1)) == data[-1:]
    assert await get(store, location, ByteRange(size // 2, 3)) == data[size // 2 : size // 2 + 3]
    assert isinstance(store, Copies)
    attempt = attempt_at()
    assert await store.copy(attempt, store, location) == size
    copied = await store.publish(attempt)
    await store.delete(location)
    with pytest.raises(NotFound):
        await get(store, location)
    assert await glance.get(backend, copied) == data
    await store.delete(copied)


@pytest.mark.parametrize("size", [1, 100_000, LARGE], ids=["byte", "small", "large"])
async def test_glance_reads_what_we_wrote(pair: tuple[Stores, GlanceStore], size: int):
    stores, glance = pair
    data = some_bytes(size)
    location = await put(stores["two"], data)
    assert await glance.get("two", location) == data
    await stores["two"].delete(location)


async def test_locations_are_written_alike_but_for_credentials(pair: tuple[Stores, GlanceStore]):
    stores, glance = pair
    key = str(uuid.uuid4())
    theirs = await glance.add("one", key, b"theirs")
    await stores["one"].delete(theirs)
    ours = await put(stores["one"], b"ours", key=key)
    await stores["one"].delete(ours)
    assert PASSWORD not in ours
    assert ours.rpartition("/")[2] == key
    if theirs.startswith("swift"):
        # Theirs names the user, ours the place in the configuration where the user stands.
        assert "@" in theirs
        assert "@" not in ours
    else:
        assert ours == re.sub(r"://.*@", "://", theirs)
