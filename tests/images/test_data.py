"""Upload and download by HTTP, and what a second request sees afterwards."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from diptych_images.api.errors import STORE_ANSWERS, from_store
from diptych_store import errors
from diptych_store.errors import StoreError

from tests.images.service import ADMIN, ALICE, BOB, OCTETS, READER, persona

UPLOAD = {**ALICE, **OCTETS}
QCOW2 = (
    b"QFI\xfb"
    + (2).to_bytes(4, "big")
    + bytes(12)  # no backing file
    + (16).to_bytes(4, "big")
    + (1 << 20).to_bytes(8, "big")
    + bytes(65536)
)
QCOW2_WITH_BACKING_FILE = (
    b"QFI\xfb"
    + (3).to_bytes(4, "big")
    + (512).to_bytes(8, "big")  # a backing file's name at 512
    + (4).to_bytes(4, "big")
    + (16).to_bytes(4, "big")
    + (1 << 20).to_bytes(8, "big")
    + bytes(512 - 32)
    + b"/etc"
    + bytes(65536)
)


def objects(folder: Path) -> list[str]:
    """All files of all stores, attempts included."""
    return sorted(
        path.name for path in folder.rglob("*") if path.is_file() and path.name != ".mark"
    )


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_uploaded_bytes_come_back(api, make_image) -> None:
    data = b"seven!!" * 300_000
    image = await make_image()
    stored = await api.put(image["file"], content=pieces(data, 65536), headers=UPLOAD)
    assert (stored.status_code, stored.content) == (204, b"")

    shown = (await api.get(image["self"], headers=ALICE)).json()
    assert shown["status"] == "active"
    assert shown["size"] == shown["virtual_size"] == len(data)
    assert shown["checksum"] == hashlib.md5(data).hexdigest()
    assert shown["os_hash_algo"] == "sha512"
    assert shown["os_hash_value"] == hashlib.sha512(data).hexdigest()
    assert shown["stores"] == "fast"

    got = await api.get(image["file"], headers=ALICE)
    assert got.status_code == 200
    assert got.content == data
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-md5"] == shown["checksum"]
    assert got.headers["etag"] == f'"{shown["os_hash_value"]}"'


async def test_an_empty_image_is_active_with_size_0(api, make_image) -> None:
    image = await make_image(data=b"")
    assert (image["status"], image["size"]) == ("active", 0)
    got = await api.get(image["file"], headers=ALICE)
    assert (got.status_code, got.content, got.headers["content-length"]) == (200, b"", "0")


async def test_named_store_takes_the_bytes(api, make_image, images_folder: Path) -> None:
    image = await make_image()
    headers = {**UPLOAD, "X-Image-Meta-Store": "cheap"}
    assert (await api.put(image["file"], content=b"x", headers=headers)).status_code == 204
    assert (await api.get(image["self"], headers=ALICE)).json()["stores"] == "cheap"
    assert (images_folder / "cheap" / image["id"]).read_bytes() == b"x"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**ALICE, "Content-Type": "application/json"}, 415),
        (ALICE, 415),
        ({**BOB, **OCTETS}, 404),
        ({**READER, **OCTETS}, 403),
        ({**UPLOAD, "X-Image-Meta-Store": "nowhere"}, 400),
        ({**UPLOAD, "x-openstack-image-size": "five"}, 400),
        ({**UPLOAD, "x-openstack-image-size": "-5"}, 400),
        ({**UPLOAD, "x-openstack-image-size": "4"}, 400),
        ({**UPLOAD, "x-openstack-image-size": "6"}, 400),
    ],
)
async def test_refused_upload_leaves_a_queued_image_and_nothing_else(
    api, make_image, images_folder: Path, headers: dict[str, str], status: int
) -> None:
    before = objects(images_folder)
    image = await make_image()
    refused = await api.put(image["file"], content=pieces(b"12345"), headers=headers)
    assert refused.status_code == status, refused.text
    assert (await api.get(image["self"], headers=ALICE)).json()["status"] == "queued"
    assert objects(images_folder) == before
    assert (await api.put(image["file"], content=b"12345", headers=UPLOAD)).status_code == 204


async def test_formats_must_be_set_before_data(api, make_image) -> None:
    image = await make_image(disk_format=None)
    refused = await api.put(image["file"], content=b"x", headers=UPLOAD)
    assert refused.status_code == 400
    assert (await api.get(image["self"], headers=ALICE)).json()["status"] == "queued"


async def test_second_upload_is_refused(api, make_image) -> None:
    image = await make_image(data=b"first")
    refused = await api.put(image["file"], content=b"second", headers=UPLOAD)
    assert refused.status_code == 409
    assert (await api.get(image["file"], headers=ALICE)).content == b"first"


async def test_of_two_uploads_at_once_one_wins(api, make_image) -> None:
    image = await make_image()
    both = await asyncio.gather(
        *(
            api.put(image["file"], content=pieces(body * 9000), headers=UPLOAD)
            for body in (b"a", b"b")
        )
    )
    statuses = sorted(answer.status_code for answer in both)
    assert statuses[0] == 204
    assert statuses[1] in (409, 410)
    winner = b"a" if both[0].status_code == 204 else b"b"
    assert (await api.get(image["file"], headers=ALICE)).content == winner * 9000


async def test_content_of_another_format_is_refused_without_residue(
    api, make_image, images_folder: Path
) -> None:
    before = objects(images_folder)
    image = await make_image(disk_format="qcow2")
    refused = await api.put(image["file"], content=b"no qcow2" * 1000, headers=UPLOAD)
    assert refused.status_code == 415
    shown = (await api.get(image["self"], headers=ALICE)).json()
    assert shown["status"] == "queued"
    assert [shown[name] for name in ("size", "virtual_size", "checksum", "os_hash_value")] == [
        None
    ] * 4
    assert "stores" not in shown
    assert objects(images_folder) == before
    assert (await api.get(image["file"], headers=ALICE)).status_code == 204
    assert (await api.put(image["file"], content=QCOW2, headers=UPLOAD)).status_code == 204
    assert (await api.get(image["file"], headers=ALICE)).content == QCOW2


async def test_backing_file_is_refused_whatever_is_declared(api, make_image) -> None:
    for disk_format in ("qcow2", "raw"):
        image = await make_image(disk_format=disk_format)
        refused = await api.put(image["file"], content=QCOW2_WITH_BACKING_FILE, headers=UPLOAD)
        assert refused.status_code == 415, disk_format


async def test_unsafe_content_is_refused_where_formats_need_not_match(custom_api) -> None:
    api = await custom_api(IMAGE_FORMAT__REQUIRE_IMAGE_FORMAT_MATCH="false")
    body = {"disk_format": "vmdk", "container_format": "bare"}
    image = (await api.post("/v2/images", json=body, headers=ALICE)).json()
    refused = await api.put(image["file"], content=QCOW2_WITH_BACKING_FILE, headers=UPLOAD)
    assert refused.status_code == 415


@pytest.mark.parametrize("announced", [True, False])
async def test_no_image_grows_beyond_the_cap(custom_api, tmp_path: Path, announced: bool) -> None:
    api = await custom_api(DEFAULT__IMAGE_SIZE_CAP="100000")
    body = {"disk_format": "raw", "container_format": "bare"}
    image = (await api.post("/v2/images", json=body, headers=ALICE)).json()
    data = b"x" * 100_001
    refused = await api.put(
        image["file"], content=data if announced else pieces(data), headers=UPLOAD
    )
    assert refused.status_code == 413
    assert (await api.get(image["self"], headers=ALICE)).json()["status"] == "queued"
    assert objects(tmp_path) == []
    exact = await api.put(image["file"], content=pieces(data[:-1]), headers=UPLOAD)
    assert exact.status_code == 204


async def test_image_deleted_during_its_upload_ends_410_with_nothing_left(
    api, make_image, images_folder: Path
) -> None:
    before = objects(images_folder)
    image = await make_image()

    async def deleting() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        assert (await api.delete(image["self"], headers=ALICE)).status_code == 204
        yield b"y" * 100_000

    answer = await api.put(image["file"], content=deleting(), headers=UPLOAD)
    assert answer.status_code == 410
    assert objects(images_folder) == before
    assert (await api.get(image["self"], headers=ALICE)).status_code == 404


async def test_read_only_store_answers_410(custom_api) -> None:
    api = await custom_api(CHEAP__READ_ONLY="true")
    body = {"disk_format": "raw", "container_format": "bare"}
    image = (await api.post("/v2/images", json=body, headers=ALICE)).json()
    headers = {**UPLOAD, "X-Image-Meta-Store": "cheap"}
    assert (await api.put(image["file"], content=b"x", headers=headers)).status_code == 410
    assert (await api.get(image["self"], headers=ALICE)).json()["status"] == "queued"


DATA = bytes(range(256)) * 4


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        ("bytes=0-4", 206, DATA[:5], "bytes 0-4/1024"),
        ("bytes=1000-", 206, DATA[1000:], "bytes 1000-1023/1024"),
        ("bytes=-2", 206, DATA[-2:], "bytes 1022-1023/1024"),
        ("bytes=-5000", 206, DATA, "bytes 0-1023/1024"),
        ("bytes=1000-5000", 206, DATA[1000:], "bytes 1000-1023/1024"),
        ("bytes=1024-", 416, None, "bytes */1024"),
        ("bytes=5-4", 416, None, "bytes */1024"),
        ("bytes=x", 416, None, "bytes */1024"),
        ("bytes=0-1,3-4", 400, None, None),
    ],
)
async def test_ranges(api, make_image, asked, status, content, content_range) -> None:
    image = await make_image(data=DATA)
    got = await api.get(image["file"], headers={**ALICE, "Range": asked})
    assert got.status_code == status
    assert got.headers.get("content-range") == content_range
    if content is not None:
        assert got.content == content
        assert got.headers["content-length"] == str(len(content))
        assert got.headers["content-md5"] == image["checksum"]


async def test_range_by_request_content_range(api, make_image) -> None:
    image = await make_image(data=DATA)
    got = await api.get(image["file"], headers={**ALICE, "Content-Range": "bytes 3-5/1024"})
    assert (got.status_code, got.content) == (206, DATA[3:6])


async def test_unchanged_image_is_not_sent_again(api, make_image) -> None:
    image = await make_image(data=DATA)
    etag = (await api.get(image["file"], headers=ALICE)).headers["etag"]
    again = await api.get(image["file"], headers={**ALICE, "If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)


async def test_head_has_the_headers_only(api, make_image) -> None:
    image = await make_image(data=DATA)
    got = await api.head(image["file"], headers=ALICE)
    assert (got.status_code, got.content) == (200, b"")
    assert got.headers["content-length"] == "1024"


async def test_image_without_data_answers_204(api, make_image) -> None:
    image = await make_image()
    for headers in (ALICE, {**ALICE, "Range": "bytes=0-4"}):
        got = await api.get(image["file"], headers=headers)
        assert (got.status_code, got.content) == (204, b"")


async def test_missing_object_answers_204(api, make_image, images_folder: Path) -> None:
    image = await make_image(data=DATA)
    (images_folder / "fast" / image["id"]).unlink()
    assert (await api.get(image["file"], headers=ALICE)).status_code == 204


async def test_damaged_object_is_never_served(api, make_image, images_folder: Path) -> None:
    image = await make_image(data=DATA)
    path = images_folder / "fast" / image["id"]
    path.write_bytes(DATA[:-1])
    for asked in ({}, {"Range": "bytes=1023-"}):
        refused = await api.get(image["file"], headers={**ALICE, **asked})
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
    path.unlink()


@pytest.mark.parametrize(
    ("caller", "visibility", "status"),
    [
        (BOB, "private", 404),
        (BOB, "shared", 404),
        (BOB, "community", 200),
        (persona("beta", "reader"), "community", 403),
        (READER, "private", 403),
        (persona("service", "service"), "private", 404),
        (ADMIN, "private", 200),
        ({}, "community", 401),
    ],
)
async def test_who_may_download(api, make_image, caller, visibility: str, status: int) -> None:
    image = await make_image(data=DATA, visibility=visibility)
    assert (await api.get(image["file"], headers=caller)).status_code == status


async def test_deactivated_image_is_for_administrators_only(api, make_image) -> None:
    image = await make_image(data=DATA)
    path = f"{image['self']}/actions/deactivate"
    assert (await api.post(path, headers=ALICE)).status_code == 204
    assert (await api.post(path, headers=ALICE)).status_code == 204
    assert (await api.get(image["file"], headers=ALICE)).status_code == 403
    assert (await api.get(image["file"], headers=ADMIN)).content == DATA
    path = f"{image['self']}/actions/reactivate"
    assert (await api.post(path, headers=ALICE)).status_code == 204
    assert (await api.post(path, headers=ALICE)).status_code == 204
    assert (await api.get(image["file"], headers=ALICE)).content == DATA
    queued = await make_image()
    for action in ("deactivate", "reactivate"):
        refused = await api.post(f"{queued['self']}/actions/{action}", headers=ALICE)
        assert refused.status_code == 403


async def test_tokenless_upload_is_refused_before_its_body_is_read(api, make_image) -> None:
    image = await make_image()
    was_read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal was_read
        was_read = True
        yield b"x"

    refused = await api.put(image["file"], content=body(), headers=OCTETS)
    assert refused.status_code == 401
    assert not was_read


def test_the_table_of_store_errors_is_complete() -> None:
    # Without those that a driver raises, by itself or as cases of one of these.
    contract = {kind for kind in StoreError.__subclasses__() if kind.__module__ == errors.__name__}
    assert set(STORE_ANSWERS) == contract


def test_a_case_of_a_store_error_is_answered_like_it() -> None:
    class NoBucket(errors.Unreachable):
        pass

    class Strange(StoreError):
        pass

    answer = from_store(NoBucket("there is no bucket"))
    assert (answer.status, answer.message) == (503, "there is no bucket")
    assert "Retry-After" in answer.headers
    unknown = from_store(Strange("said by nobody knows whom"))
    assert (unknown.status, unknown.message) == (500, "The store failed.")


async def test_what_a_store_says_of_its_mount_is_beside_the_location(
    custom_api, tmp_path: Path
) -> None:
    mount = {"id": "nfs-1", "mountpoint": str(tmp_path / "fast"), "type": "nfs"}
    (tmp_path / "metadata.json").write_text(json.dumps(mount))
    api = await custom_api(
        FAST__FILESYSTEM_STORE_METADATA_FILE=str(tmp_path / "metadata.json"),
        DEFAULT__SHOW_MULTIPLE_LOCATIONS="true",
    )
    body = {"disk_format": "raw", "container_format": "bare"}
    image = (await api.post("/v2/images", json=body, headers=ALICE)).json()
    assert (await api.put(image["file"], content=b"x", headers=UPLOAD)).status_code == 204
    (location,) = (await api.get(image["self"], headers=ALICE)).json()["locations"]
    assert location["metadata"] == {**mount, "store": "fast"}
