"""Stores by name: what is told of them, taking an image out of one, downloading from one."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import databases
from tests.images.service import ADMIN, ALICE, BOB, READER, client, configuration, opened
from tests.images.sites import DATA, Make, Site

IN_BOTH = "cheap,fast"


async def in_two(site: Site) -> str:
    """An image that is in `fast` and `cheap`."""
    image = await site.active()
    await site.ask(image, "copy-image", headers=ADMIN, stores=["cheap"])
    await site.work()
    return image


async def leave(
    site: Site, image: str, store: str, headers: dict[str, str] = ADMIN
) -> httpx.Response:
    return await site.api.delete(f"/v2/stores/{store}/{image}", headers=headers)


async def test_an_image_leaves_a_store(site: Make) -> None:
    here = await site()
    image = await in_two(here)
    assert (await here.show(image))["stores"] == IN_BOTH
    events = await here.events()
    answer = await leave(here, image, "fast")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await here.events())[len(events) :] == ["image.update"]
    assert (await here.show(image))["stores"] == "cheap"
    # The bytes go by a job, and nothing else does.
    assert here.files("fast") == [f"fast/{image}"]
    await here.work()
    assert here.files() == [f"cheap/{image}"]
    got = await here.api.get(f"/v2/images/{image}/file", headers=ALICE)
    assert got.content == DATA
    assert (await leave(here, image, "fast")).status_code == 404


async def test_the_last_copy_stays(site: Make) -> None:
    here = await site()
    image = await here.active()
    refused = await leave(here, image, "fast")
    assert (refused.status_code, refused.json()["title"]) == (403, "Forbidden")
    assert (await here.show(image))["stores"] == "fast"
    assert await here.left() == []


async def test_of_two_copies_that_leave_at_once_one_stays(site: Make) -> None:
    here = await site()
    image = await in_two(here)
    answers = await asyncio.gather(*(leave(here, image, store) for store in ("fast", "cheap")))
    assert sorted(answer.status_code for answer in answers) in ([204, 403], [204, 409])
    await here.work()
    got = await here.api.get(f"/v2/images/{image}/file", headers=ALICE)
    assert got.content == DATA


async def test_a_copy_that_an_import_may_take_back_is_none(site: Make) -> None:
    """As long as it does not keep what it has copied, the source must not go."""
    here = await site()
    image = await in_two(here)
    async with databases.connection(here.database) as server:
        await server.execute(
            "UPDATE image_locations SET attempt = gen_random_uuid(), import_task ="
            " gen_random_uuid() WHERE store = 'cheap'"
        )
    assert (await leave(here, image, "fast")).status_code == 409
    assert (await here.show(image))["stores"] == IN_BOTH


async def test_an_image_returns_to_a_store_when_its_old_bytes_are_gone(site: Make) -> None:
    """Else they would go with the new ones: objects have the same name."""
    here = await site()
    image = await in_two(here)
    assert (await leave(here, image, "cheap")).status_code == 204
    await here.ask(image, "copy-image", headers=ADMIN, stores=["cheap"])
    await here.work()
    shown = await here.show(image)
    # Whichever job was first.
    if shown["stores"] == "fast":
        assert shown["os_glance_failed_import"] == "cheap"
        await here.ask(image, "copy-image", headers=ADMIN, stores=["cheap"])
        await here.work()
    assert (await here.show(image))["stores"] == IN_BOTH
    assert here.files("cheap") == [f"cheap/{image}"]


@pytest.mark.parametrize("is_there", [True, False])
async def test_bytes_that_are_gone_already_keep_no_image_in_a_store(
    site: Make, is_there: bool
) -> None:
    here = await site()
    image = await in_two(here)
    if not is_there:
        (here.folder / "cheap" / image).unlink()
    assert (await leave(here, image, "cheap")).status_code == 204
    await here.work()
    assert here.files() == [f"fast/{image}"]


async def test_what_cannot_leave_is_refused(site: Make) -> None:
    here = await site()
    image = await in_two(here)
    unknown = "00000000-0000-0000-0000-000000000000"
    for path, headers, status in (
        (f"nope/{image}", ADMIN, 409),
        (f"os_glance_staging_store/{image}", ADMIN, 409),
        (f"third/{image}", ADMIN, 404),
        (f"fast/{unknown}", ADMIN, 404),
        ("fast/x", ADMIN, 404),
        (f"fast/{image}", ALICE, 403),
        (f"fast/{image}", READER, 403),
        (f"fast/{image}", BOB, 404),
        (f"fast/{image}", {}, 401),
    ):
        answer = await here.api.delete(f"/v2/stores/{path}", headers=headers)
        assert answer.status_code == status, (path, headers)
    refused = await here.api.request(
        "DELETE", f"/v2/stores/fast/{image}", headers=ADMIN, content=b"{}"
    )
    assert refused.status_code == 400
    for other in (await here.make(), await here.staged()):
        assert (await leave(here, other, "fast")).status_code == 409
    await here.api.post(f"/v2/images/{image}/actions/deactivate", headers=ADMIN)
    assert (await leave(here, image, "fast")).status_code == 409
    await here.api.post(f"/v2/images/{image}/actions/reactivate", headers=ADMIN)
    assert (await here.show(image))["stores"] == IN_BOTH


async def test_the_owner_takes_an_image_out_where_the_policy_says_so(
    site: Make, tmp_path: Path
) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text('"delete_image_location": "project_id:%(project_id)s"\n')
    here = await site(OSLO_POLICY__POLICY_FILE=str(rules))
    image = await in_two(here)
    assert (await leave(here, image, "fast", BOB)).status_code == 404
    assert (await leave(here, image, "fast", ALICE)).status_code == 204


async def test_an_image_stays_in_a_store_that_is_read_only(site: Make, tmp_path: Path) -> None:
    here = await site()
    image = await in_two(here)
    async with (
        opened({**here.environ, "DIPTYCH_IMAGES__CHEAP__READ_ONLY": "true"}) as app,
        client(app) as api,
    ):
        refused = await api.delete(f"/v2/stores/cheap/{image}", headers=ADMIN)
    assert refused.status_code == 409
    assert (await here.show(image))["stores"] == IN_BOTH


@pytest.mark.parametrize(
    ("prefer", "first"),
    [("cheap", "cheap"), ("fast", "fast"), ("third,cheap", "cheap"), ("cheap,fast", "cheap")],
)
async def test_a_preferred_store_is_read_first(site: Make, prefer: str, first: str) -> None:
    here = await site(FAST__WEIGHT="5")
    image = await in_two(here)
    for store in ("fast", "cheap"):
        (here.folder / store / image).write_bytes(store.encode().ljust(len(DATA)))
    got = await here.api.get(f"/v2/images/{image}/file?prefer={prefer}", headers=ALICE)
    assert (got.status_code, got.content.strip()) == (200, first.encode())
    # Of what prefers none the heaviest is, and what is missing does not matter.
    got = await here.api.get(f"/v2/images/{image}/file", headers=ALICE)
    assert got.content.strip() == b"fast"
    (here.folder / first / image).unlink()
    got = await here.api.get(f"/v2/images/{image}/file?prefer={prefer}", headers=ALICE)
    other = {"fast": b"cheap", "cheap": b"fast"}[first]
    assert (got.status_code, got.content.strip()) == (200, other)


async def test_a_preference_that_makes_no_sense_is_refused(site: Make, tmp_path: Path) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text('"download_from_store": "rule:context_is_admin"\n')
    here = await site(OSLO_POLICY__POLICY_FILE=str(rules))
    image = await here.active()
    path = f"/v2/images/{image}/file"
    for prefer in ("nope", "fast,nope", "os_glance_staging_store", ""):
        refused = await here.api.get(path, params={"prefer": prefer}, headers=ADMIN)
        assert refused.status_code == 400, prefer
    asked = {"prefer": "fast"}
    assert (await here.api.get(path, params=asked, headers=ADMIN)).status_code == 200
    assert (await here.api.get(path, params=asked, headers=ALICE)).status_code == 403
    assert (await here.api.get(path, params=asked, headers=BOB)).status_code == 404
    assert (await here.api.get(path, headers=ALICE)).status_code == 200
    queued = await here.make()
    got = await here.api.get(f"/v2/images/{queued}/file", params=asked, headers=ADMIN)
    assert got.status_code == 204


async def test_with_one_store_there_are_no_names(custom_api: Any, tmp_path: Path) -> None:
    api = await custom_api(
        DEFAULT__ENABLED_BACKENDS="",
        GLANCE_STORE__DEFAULT_BACKEND="",
        GLANCE_STORE__FILESYSTEM_STORE_DATADIR=str(tmp_path / "fast"),
    )
    body = {"disk_format": "raw", "container_format": "bare"}
    image = (await api.post("/v2/images", json=body, headers=ALICE)).json()
    for path in ("/v2/info/stores", "/v2/info/stores/detail"):
        assert (await api.get(path, headers=ADMIN)).status_code == 404
    answer = await api.delete(f"/v2/stores/file/{image['id']}", headers=ADMIN)
    assert answer.status_code == 404
    answer = await api.get(f"{image['file']}?prefer=file", headers=ALICE)
    assert answer.status_code == 400


async def test_stores_are_told_as_clients_know_them(images_database: str, tmp_path: Path) -> None:
    environ = configuration(
        images_database,
        tmp_path,
        DEFAULT__ENABLED_BACKENDS="fast:file, bucket:s3, objects:swift, web:http",
        FAST__STORE_DESCRIPTION="NVMe of this site",
        FAST__WEIGHT="7",
        BUCKET__S3_STORE_HOST="http://127.0.0.1:1",
        BUCKET__S3_STORE_ACCESS_KEY="access-sesame",
        BUCKET__S3_STORE_SECRET_KEY="sesame",
        BUCKET__S3_STORE_BUCKET="images",
        OBJECTS__SWIFT_STORE_AUTH_ADDRESS="http://127.0.0.1:1/auth/v1.0",
        OBJECTS__SWIFT_STORE_AUTH_VERSION="1",
        OBJECTS__SWIFT_STORE_USER="account:user",
        OBJECTS__SWIFT_STORE_KEY="sesame",
        OBJECTS__SWIFT_STORE_CONTAINER="glance",
    )
    fast = {"id": "fast", "description": "NVMe of this site", "default": "true"}
    web = {"id": "web", "read-only": "true"}
    async with opened(environ) as app, client(app) as api:
        plain = await api.get("/v2/info/stores", headers=READER)
        assert plain.json() == {"stores": [fast, {"id": "bucket"}, {"id": "objects"}, web]}
        detail = await api.get("/v2/info/stores/detail", headers=ADMIN)
        refused = await api.request("GET", "/v2/info/stores", headers=READER, content=b"{}")
        assert refused.status_code == 400
    assert "sesame" not in detail.text
    told = {store["id"]: store for store in detail.json()["stores"]}
    files = {"data_dir": str(tmp_path / "fast"), "chunk_size": 1 << 20, "thin_provisioning": False}
    assert told["fast"] == {**fast, "type": "file", "weight": 7, "properties": files}
    assert told["web"] == {**web, "type": "http", "weight": 0, "properties": {}}
    assert told["bucket"]["properties"].keys() == {
        "s3_store_large_object_size",
        "s3_store_large_object_chunk_size",
        "s3_store_thread_pools",
    }
    assert told["objects"]["properties"].keys() == {
        "container",
        "large_object_size",
        "large_object_chunk_size",
    }
