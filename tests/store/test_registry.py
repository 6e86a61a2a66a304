import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from diptych_store.errors import (
    BadLocation,
    NotFound,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.options.filesystem import FilesystemOptions
from diptych_store.registry import Stores, check_host, open_store
from diptych_store.settings import (
    DRIVERS,
    STAGING,
    StoreConfig,
    StoresConfig,
    StoreSettingsError,
)

from tests.store.conformance import attempt_at, get, in_blocks, put


def directory_store(path: Path, name: str, **others: object) -> StoreConfig:
    options = FilesystemOptions(filesystem_store_datadir=str(path / name))
    return StoreConfig(name=name, type="file", options=options, **others)  # type: ignore[arg-type]


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    (tmp_path / "archive").mkdir()
    config = StoresConfig(
        stores=(
            directory_store(tmp_path, "slow", weight=-5, description="disks"),
            directory_store(tmp_path, "fast", weight=200),
            directory_store(tmp_path, "other"),
            directory_store(tmp_path, "archive", read_only=True),
        ),
        default="other",
    )
    async with Stores.open(config) as stores:
        yield stores


async def test_stores_are_had_by_name(stores: Stores):
    assert stores.names == ("slow", "fast", "other", "archive")
    assert stores["fast"].name == "fast"
    assert stores.default.name == "other"
    assert "fast" in stores
    assert "nowhere" not in stores
    with pytest.raises(KeyError):
        stores["nowhere"]


async def test_what_is_told_of_a_store(stores: Stores, tmp_path: Path):
    slow = stores.info["slow"]
    assert (slow.type, slow.description, slow.weight) == ("file", "disks", -5)
    assert (slow.read_only, slow.is_default) == (False, False)
    assert slow.properties == {
        "data_dir": str(tmp_path / "slow"),
        "chunk_size": 1024 * 1024,
        "thin_provisioning": False,
    }
    assert [one.name for one in stores.info.values() if one.is_default] == ["other"]
    assert [one.name for one in stores.info.values() if one.read_only] == ["archive"]


async def test_a_location_is_read_in_the_store_that_wrote_it(stores: Stores):
    location = await put(stores["fast"], b"bytes")
    assert stores.by_location(location).name == "fast"
    assert stores.by_location(location, {"store": "fast"}).name == "fast"
    assert await get(stores.by_location(location), location) == b"bytes"


async def test_a_renamed_store_is_found_by_the_location(stores: Stores, tmp_path: Path):
    location = f"file://{tmp_path}/slow/a"
    assert stores.by_location(location, {"store": "its old name"}).name == "slow"
    assert stores.by_location(location.replace("file:", "filesystem:"), {}).name == "slow"


@pytest.mark.parametrize("location", ["", "file:///etc/passwd", "rbd://a/b/c/snap", "https://a/b"])
async def test_a_location_of_no_store_is_refused(stores: Stores, location: str):
    with pytest.raises(BadLocation):
        stores.by_location(location)


async def test_a_refused_location_is_told_without_its_credentials(stores: Stores):
    with pytest.raises(BadLocation) as raised:
        stores.by_location("swift+https://user:hunter2@auth/v3/container/object")
    assert "hunter2" not in str(raised.value)


async def test_a_name_that_another_store_has_now_does_not_lead_there(stores: Stores):
    location = await put(stores["fast"], b"bytes")
    assert stores.by_location(location, {"store": "slow"}).name == "fast"
    with pytest.raises(BadLocation):
        await get(stores["slow"], location)


async def test_the_heaviest_store_is_read_first_and_equal_ones_by_name(stores: Stores):
    rows = [
        {"id": number, "store": store}
        for number, store in enumerate(
            ["slow", "other", "gone", "fast", "archive", "fast", "slow", None]
        )
    ]
    assert [row["id"] for row in stores.in_read_order(rows)] == [3, 5, 4, 1, 0, 6, 7, 2]


async def test_a_read_only_store_denies_writing(stores: Stores, tmp_path: Path):
    with pytest.raises(WriteDenied):
        await stores["archive"].write(attempt_at(), in_blocks(b"x"), size=1)
    with pytest.raises(NotFound):
        await get(stores["archive"], f"file://{tmp_path}/archive/a")
    assert list((tmp_path / "archive").iterdir()) == []


async def test_a_store_that_cannot_be_opened_stops_the_start(tmp_path: Path):
    config = StoresConfig(
        stores=(
            directory_store(tmp_path, "fine"),
            directory_store(tmp_path, "missing", read_only=True),
        ),
        default="fine",
    )
    with pytest.raises(Unreachable, match="missing"):
        await Stores.open(config).__aenter__()


def with_staging(tmp_path: Path) -> StoresConfig:
    staging = directory_store(tmp_path, STAGING)
    return StoresConfig((directory_store(tmp_path, "fast"),), "fast", staging=staging)


async def test_the_staging_store_is_open_and_no_store_of_users(tmp_path: Path):
    calls: list[str] = []

    def told(store: str, operation: str, seconds: float, error: StoreError | None, /) -> None:
        calls.append(store)

    config = with_staging(tmp_path)
    async with Stores.open(config, on_call=told) as stores:
        assert stores.names == ("fast",)
        assert [one.name for one in stores.every] == ["fast", STAGING]
        assert stores.default.name == "fast"
        assert stores.staging is stores[STAGING]
        assert not stores.info[STAGING].is_default
        location = await put(stores.staging, b"staged")
        assert STAGING in calls
        assert stores.by_location(location, {"store": STAGING}) is stores.staging
        with pytest.raises(BadLocation):
            stores.by_location(location)
        staging = stores.staging
    with pytest.raises(RuntimeError, match="closed"):
        await get(staging, location)


async def test_without_one_of_its_own_staging_is_the_default_store(stores: Stores):
    assert stores.staging is stores.default
    assert len(stores.every) == len(stores.names)
    assert STAGING not in stores


async def test_stores_are_closed_in_the_end(tmp_path: Path):
    config = StoresConfig(stores=(directory_store(tmp_path, "fine"),), default="fine")
    async with Stores.open(config) as stores:
        store = stores["fine"]
        location = await put(store, b"x")
    with pytest.raises(RuntimeError, match="closed"):
        await get(store, location)


async def test_a_store_in_memory_is_opened_too():
    config = StoresConfig.from_sections(
        {
            "DEFAULT": {"enabled_backends": "ram:memory"},
            "glance_store": {"default_backend": "ram"},
        }
    )
    async with Stores.open(config) as stores:
        location = await put(stores.default, b"x")
        assert stores.by_location(location).name == "ram"


def far_away(*, read_only: bool) -> StoresConfig:
    """Stores whose servers are not there, beside one that is."""
    own = {"read_only": str(read_only).lower()}
    return StoresConfig.from_sections(
        {
            "DEFAULT": {"enabled_backends": "ram:memory, bucket:s3, container:swift, web:http"},
            "glance_store": {"default_backend": "ram"},
            "bucket": {
                "s3_store_host": "http://127.0.0.1:9",
                "s3_store_access_key": "key",
                "s3_store_secret_key": "canary",
                "s3_store_bucket": "images",
                "s3_store_retries": "0",
                **own,
            },
            "container": {
                "swift_store_auth_address": "http://127.0.0.1:9/v3",
                "swift_store_user": "service:glance",
                "swift_store_key": "canary",
                **own,
            },
        }
    )


async def test_stores_whose_servers_are_down_are_opened_all_the_same():
    calls: list[tuple[str, str]] = []

    def told(store: str, operation: str, seconds: float, error: StoreError | None, /) -> None:
        assert seconds >= 0
        assert isinstance(error, Unreachable)
        calls.append((store, operation))

    async with Stores.open(far_away(read_only=False), on_call=told) as stores:
        assert calls == []
        assert stores.names == ("ram", "bucket", "container", "web")
        assert "canary" not in repr(stores.info)
        with pytest.raises(Unreachable) as raised:
            await put(stores["bucket"], b"x")
        assert "canary" not in str(raised.value)
        assert {store for store, _ in calls} == {"bucket"}


async def test_what_is_not_to_be_written_is_refused_without_asking_the_server():
    async with Stores.open(far_away(read_only=True)) as stores:
        assert [one.read_only for one in stores.info.values()] == [False, True, True, True]
        for name in ("bucket", "container", "web"):
            with pytest.raises(WriteDenied):
                await put(stores[name], b"x")


WITHOUT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
from diptych_store.registry import check_host
from diptych_store.settings import StoreConfig, StoresConfig, DRIVERS
stores = [
    StoreConfig(name=f"my-{{kind}}", type=kind, options=DRIVERS[kind].model_construct())
    for kind in ("file", "http", "memory", "s3", "swift", "rbd")
]
try:
    check_host(StoresConfig(stores=tuple(stores), default="my-file", is_multiple={several}))
except ValueError as error:
    print(error)
"""


def missing_clients(missing: list[str], *, several: bool) -> list[str]:
    """What is told where these cannot be imported."""
    code = WITHOUT.format(missing=missing, several=several)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip().split("; ")


def test_a_client_that_is_not_installed_is_named():
    told = missing_clients(["aiobotocore", "httpx", "rados"], several=True)
    assert [one.partition(":")[0] for one in told] == ["[DEFAULT] enabled_backends"] * 3
    for line, store, needed in zip(
        told,
        ("my-s3 of type s3", "my-swift of type swift", "my-rbd of type rbd"),
        ("diptych-store[s3]", "diptych-store[swift]", "python3-rados and python3-rbd"),
        strict=True,
    ):
        assert store in line
        assert needed in line
    told = missing_clients(["aiobotocore", "rados"], several=False)
    assert [one.partition(":")[0] for one in told] == ["[glance_store] stores"] * 2


@pytest.mark.parametrize("several", [True, False])
async def test_a_file_of_certificates_that_is_none_is_named(tmp_path: Path, several: bool):
    no_certificates = tmp_path / "authorities.pem"
    no_certificates.write_text("canary")
    stores = {
        "web": ("http", {"https_ca_certificates_file": str(tmp_path / "missing")}),
        "bucket": (
            "s3",
            {
                "s3_store_host": "https://127.0.0.1:9",
                "s3_store_access_key": "key",
                "s3_store_secret_key": "canary",
                "s3_store_bucket": "images",
                "s3_store_cacert": str(no_certificates),
            },
        ),
        "container": (
            "swift",
            {
                "swift_store_auth_address": "https://127.0.0.1:9/v3",
                "swift_store_user": "service:glance",
                "swift_store_key": "canary",
                "swift_store_cacert": str(tmp_path),
            },
        ),
    }
    made = [
        StoreConfig(name, kind, DRIVERS[kind].model_validate(options))
        for name, (kind, options) in stores.items()
    ]
    config = StoresConfig(tuple(made), default="bucket", is_multiple=several)
    with pytest.raises(StoreSettingsError) as raised:
        check_host(config)
    sections = [*stores] if several else ["glance_store"] * 3
    options = ["https_ca_certificates_file", "s3_store_cacert", "swift_store_cacert"]
    found = raised.value.problems
    assert [(one.section, one.option) for one in found] == [*zip(sections, options, strict=True)]
    assert "canary" not in str(raised.value)
    for one, option in zip(made, options, strict=True):
        with pytest.raises(StoreError, match=f"{one.name}: {option}"):
            await open_store(one)


async def test_a_file_of_certificates_does_not_matter_where_none_are_checked():
    options = DRIVERS["swift"].model_validate(
        {
            "swift_store_auth_address": "https://127.0.0.1:9/v3",
            "swift_store_user": "service:glance",
            "swift_store_key": "canary",
            "swift_store_cacert": "/nowhere",
            "swift_store_auth_insecure": "true",
        }
    )
    store = await open_store(StoreConfig("container", "swift", options))
    await store.aclose()
