"""PUT /v2/images/{id}/stage by HTTP, and what a second request sees afterwards."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests import databases
from tests.images.service import ADMIN, ALICE, BOB, OCTETS, READER

STAGE = {**ALICE, **OCTETS}
DATA = b"some bytes" * 5000


def objects(folder: Path) -> dict[str, bytes]:
    """All files of all stores, attempts included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".mark"
    }


async def pieces(data: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def rows(url: str, table: str, image_id: str) -> list[dict[str, Any]]:
    async with databases.connection(url) as connection:
        found = await connection.fetch(
            f"SELECT * FROM {table} WHERE image_id = $1 ORDER BY id",
            image_id,
        )
    return [dict(row) for row in found]


async def test_staged_bytes_wait_in_their_store(
    api, make_image, images_database: str, images_folder: Path
) -> None:
    before = objects(images_folder)
    image = await make_image()
    path = f"{image['self']}/stage"
    staged = await api.put(path, content=pieces(DATA), headers=STAGE)
    assert (staged.status_code, staged.content) == (204, b"")
    shown = (await api.get(image["self"], headers=ALICE)).json()
    assert (shown["status"], shown["size"], shown["checksum"]) == ("uploading", len(DATA), None)
    assert "stores" not in shown
    assert (await api.get(image["file"], headers=ALICE)).status_code == 204

    (location,) = await rows(images_database, "image_locations", image["id"])
    assert (location["status"], location["store"], location["attempt"]) == ("staged", "fast", None)
    about = json.loads(location["staged"])
    assert about["digests"] == {
        "md5": hashlib.md5(DATA).hexdigest(),
        "sha512": hashlib.sha512(DATA).hexdigest(),
    }
    assert about["findings"]["size"] == len(DATA)
    added = {name: data for name, data in objects(images_folder).items() if name not in before}
    assert added == {location["url"].removeprefix(f"file://{images_folder}/"): DATA}


async def test_an_image_without_formats_can_be_staged(api, make_image) -> None:
    image = await make_image(disk_format=None, container_format=None)
    path = f"{image['self']}/stage"
    assert (await api.put(path, content=b"x", headers=STAGE)).status_code == 204


async def test_an_empty_body_is_staged(api, make_image) -> None:
    image = await make_image()
    assert (await api.put(f"{image['self']}/stage", headers=STAGE)).status_code == 204
    shown = (await api.get(image["self"], headers=ALICE)).json()
    assert (shown["status"], shown["size"]) == ("uploading", 0)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**ALICE, "Content-Type": "application/json"}, 415),
        (ALICE, 415),
        ({**BOB, **OCTETS}, 404),
        ({**READER, **OCTETS}, 403),
        ({**STAGE, "x-openstack-image-size": "five"}, 400),
        ({**STAGE, "x-openstack-image-size": "4"}, 400),
        ({**STAGE, "x-openstack-image-size": "6"}, 400),
        ({**STAGE, "x-openstack-image-size": "1099511627777"}, 413),
        # In this order.
        ({**BOB, "x-openstack-image-size": "five"}, 415),
        ({**BOB, **OCTETS, "x-openstack-image-size": "five"}, 400),
        ({**BOB, **OCTETS, "x-openstack-image-size": "1099511627777"}, 404),
    ],
)
async def test_what_is_refused_leaves_a_queued_image_and_nothing_else(
    api, make_image, images_folder: Path, headers: dict[str, str], status: int
) -> None:
    before = objects(images_folder)
    image = await make_image()
    path = f"{image['self']}/stage"
    refused = await api.put(path, content=pieces(b"12345"), headers=headers)
    assert refused.status_code == status, refused.text
    shown = (await api.get(image["self"], headers=ALICE)).json()
    assert (shown["status"], shown["size"]) == ("queued", None)
    assert objects(images_folder) == before
    assert (await api.put(path, content=b"12345", headers=STAGE)).status_code == 204


async def test_only_queued_images_are_staged(api, make_image) -> None:
    staged = await make_image()
    stage, file = f"{staged['self']}/stage", staged["file"]
    assert (await api.put(stage, content=b"first", headers=STAGE)).status_code == 204
    active = await make_image(data=b"x")
    for path in (stage, file, f"{active['self']}/stage"):
        refused = await api.put(path, content=b"second", headers=STAGE)
        assert refused.status_code == 409, path
    assert (await api.get(staged["self"], headers=ALICE)).json()["size"] == 5


async def test_of_two_at_once_one_is_staged(api, make_image, images_folder: Path) -> None:
    before = objects(images_folder)
    image = await make_image()
    path = f"{image['self']}/stage"
    both = await asyncio.gather(
        *(api.put(path, content=pieces(body * 90_000), headers=STAGE) for body in (b"a", b"b"))
    )
    assert sorted(answer.status_code for answer in both) == [204, 409]
    winner = b"a" if both[0].status_code == 204 else b"b"
    added = [data for name, data in objects(images_folder).items() if name not in before]
    assert added == [winner * 90_000]


async def test_staging_and_an_upload_at_once(api, make_image) -> None:
    image = await make_image()
    staged, uploaded = await asyncio.gather(
        api.put(f"{image['self']}/stage", content=pieces(DATA), headers=STAGE),
        api.put(image["file"], content=pieces(DATA), headers=STAGE),
    )
    shown = (await api.get(image["self"], headers=ALICE)).json()
    if staged.status_code == 204:
        assert uploaded.status_code in (409, 410)
        assert shown["status"] == "uploading"
    else:
        assert (staged.status_code, uploaded.status_code) == (409, 204)
        assert shown["status"] == "active"


async def test_an_image_deleted_while_it_is_staged_ends_410_with_nothing_left(
    api, make_image, images_database: str, images_folder: Path
) -> None:
    before = objects(images_folder)
    image = await make_image()

    async def deleting() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        assert (await api.delete(image["self"], headers=ALICE)).status_code == 204
        yield b"y" * 100_000

    answer = await api.put(f"{image['self']}/stage", content=deleting(), headers=STAGE)
    assert answer.status_code == 410
    assert objects(images_folder) == before
    assert await rows(images_database, "image_locations", image["id"]) == []


async def test_a_client_that_goes_away_leaves_a_queued_image(
    api, make_image, images_folder: Path
) -> None:
    before = objects(images_folder)
    image = await make_image()
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        begun.set()
        await asyncio.Event().wait()

    staging = asyncio.create_task(
        api.put(f"{image['self']}/stage", content=endless(), headers=STAGE)
    )
    await begun.wait()
    assert (await api.get(image["self"], headers=ALICE)).json()["status"] == "uploading"
    staging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await staging
    assert (await api.get(image["self"], headers=ALICE)).json()["status"] == "queued"
    assert objects(images_folder) == before


async def test_deleting_a_staged_image_has_its_bytes_removed(
    api, make_image, images_database: str
) -> None:
    image = await make_image()
    await api.put(f"{image['self']}/stage", content=b"x", headers=STAGE)
    assert (await api.delete(image["self"], headers=ALICE)).status_code == 204
    (location,) = await rows(images_database, "image_locations", image["id"])
    assert location["status"] == "deleted"
    async with databases.connection(images_database) as connection:
        payload = await connection.fetchval(
            "SELECT payload FROM jobs WHERE kind = 'remove_bytes' AND state = 'waiting'"
        )
    assert json.loads(payload or "null") == {"image_id": image["id"]}


async def test_what_is_staged_never_exceeds_the_cap(custom_api, tmp_path: Path) -> None:
    api = await custom_api(DEFAULT__IMAGE_SIZE_CAP="10")
    created = await api.post("/v2/images", json={}, headers=ALICE)
    path = f"{created.json()['self']}/stage"
    for content in (b"x" * 11, pieces(b"x" * 11, 4)):
        assert (await api.put(path, content=content, headers=STAGE)).status_code == 413
    assert objects(tmp_path) == {}
    assert (await api.put(path, content=pieces(b"x" * 10, 4), headers=STAGE)).status_code == 204


async def test_without_the_method_there_is_no_staging(custom_api) -> None:
    api = await custom_api(DEFAULT__ENABLED_IMPORT_METHODS="[web-download]")
    created = await api.post("/v2/images", json={}, headers=ALICE)
    path = f"{created.json()['self']}/stage"
    # Before anything else is looked at.
    assert (await api.put(path, content=b"x", headers=ALICE)).status_code == 404


async def test_a_staging_store_of_its_own(custom_api, tmp_path: Path) -> None:
    folder = tmp_path / "staging"
    folder.mkdir()
    api = await custom_api(OS_GLANCE_STAGING_STORE__FILESYSTEM_STORE_DATADIR=str(folder))
    image = (await api.post("/v2/images", json={}, headers=ALICE)).json()
    staged = await api.put(f"{image['self']}/stage", content=b"x", headers=STAGE)
    assert staged.status_code == 204
    (name,) = objects(tmp_path)
    assert name.startswith(f"staging/{image['id']}")
    # Nobody can choose it.
    stores = (await api.get("/v2/info/stores/detail", headers=ADMIN)).json()["stores"]
    assert [store["id"] for store in stores] == ["fast", "cheap"]


async def test_each_change_is_told(api, make_image, images_database: str) -> None:
    image = await make_image()
    await api.put(f"{image['self']}/stage", content=b"xyz", headers=STAGE)
    async with databases.connection(images_database) as connection:
        told = await connection.fetch(
            "SELECT event_type, payload ->> 'status' AS status, payload ->> 'size' AS size"
            " FROM outbox WHERE payload ->> 'id' = $1 ORDER BY id",
            image["id"],
        )
    assert [tuple(row) for row in told] == [
        ("image.create", "queued", None),
        ("image.update", "uploading", None),
        ("image.update", "uploading", "3"),
    ]
