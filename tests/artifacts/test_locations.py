"""Locations: blobs whose data are on the web already, or in a store."""

from pathlib import Path

import httpx
import pytest

from tests.artifacts.sending import path_of
from tests.artifacts.service import (
    ADMIN,
    ALICE,
    BOB,
    LOCATION,
    OCTETS,
    PATCH,
    Make,
    client,
    configuration,
    opened,
)
from tests.artifacts.uploads import Paused, files, rows, settled

URL = "http://example.com/data?x=1"
EXTERNAL = {"url": URL, "md5": "fake", "sha1": "fake_sha", "sha256": "fake_sha256"}
UPLOAD = {**ALICE, **OCTETS}
LOCATE = {**ALICE, **LOCATION}


async def test_an_address_elsewhere(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifact = await make_artifact()
    path = path_of(artifact, "blob")
    located = await api.put(path, json=EXTERNAL, headers=LOCATE)
    assert located.status_code == 200, located.text
    assert located.json()["blob"] == {
        **EXTERNAL,
        "status": "active",
        "size": None,
        "external": True,
        "content_type": None,
    }
    for method in ("GET", "HEAD"):
        got = await api.request(method, path, headers=ALICE)
        assert (got.status_code, got.content) == (301, b"")
        assert got.headers["location"] == URL
        assert got.headers["cache-control"] == "no-store"
        assert got.headers["content-type"] == "application/json"
        assert got.headers["content-md5"] == "fake"
        assert got.headers["x-openstack-glare-content-sha1"] == "fake_sha"
        assert got.headers["x-openstack-glare-content-sha256"] == "fake_sha256"
    # Unlike data, an address takes the place of nothing.
    for body in (EXTERNAL, {"url": URL, "location_type": "internal"}):
        again = await api.put(path, json=body, headers={**ADMIN, **LOCATION})
        assert again.status_code == (409 if body is EXTERNAL else 400)

    removed = await api.delete(path, headers=ALICE)
    assert (removed.status_code, removed.json()["blob"]) == (200, None)
    assert (await api.get(path, headers=ALICE)).status_code == 404
    assert (await api.delete(path, headers=ALICE)).status_code == 404


async def test_data_take_the_place_of_an_address(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_folder: Path, artifacts_database: str
) -> None:
    """With Glare the blob stays external, and its download tells the object's location."""
    artifact = await make_artifact()
    path = path_of(artifact, "blob")
    await api.put(path, json=EXTERNAL, headers=LOCATE)
    stored = await api.put(path, content=b"data", headers=UPLOAD)
    assert stored.json()["blob"]["external"] is False
    assert stored.json()["blob"]["url"] == path
    got = await api.get(path, headers=ALICE)
    assert (got.status_code, got.content) == (200, b"data")
    await settled(artifacts_database, configuration(artifacts_database, artifacts_folder))
    assert await rows(artifacts_database) == [("active", 4)]
    # Data are removed with their artifact only.
    assert (await api.delete(path, headers=ALICE)).status_code == 403


async def test_the_digests_of_an_address_may_be_missing(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    artifact = await make_artifact()
    url = "https://example.com/ж ø".replace(" ", "%20")
    located = await api.put(
        path_of(artifact, "blob"), json={"url": url, "md5": None}, headers=LOCATE
    )
    assert located.json()["blob"]["url"] == url
    got = await api.get(path_of(artifact, "blob"), headers=ALICE)
    assert got.headers["location"] == "https://example.com/%D0%B6%20%C3%B8"
    assert "content-md5" not in got.headers


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no json", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"url": null, "md5": null}', 400),
        (b'{"url": 7, "md5": null}', 400),
        (b'{"url": "ftp://example.com/x", "md5": null}', 400),
        (b'{"url": "http", "md5": null}', 400),
        (b'{"url": "http://", "md5": null}', 400),
        (b'{"url": "http://[/x", "md5": null}', 400),
        (b'{"url": "http://example.com/x"}', 400),
        (b'{"url": "http://example.com/\\r\\nSet-Cookie: x", "md5": null}', 400),
        (b'{"url": "http://example.com/\\ud800", "md5": null}', 400),
        (b'{"url": "http://example.com/\\u0000", "md5": null}', 400),
        (b'{"url": "http://example.com/' + b"x" * 2048 + b'", "md5": null}', 400),
        (b'{"url": "http://example.com/x", "md5": "a\\r\\nX: y"}', 400),
        (b'{"url": "http://example.com/x", "md5": {}}', 400),
        (b'{"url": "http://example.com/x", "md5": null, "location_type": "other"}', 400),
        (b'{"url": "file:///etc/passwd", "location_type": "internal"}', 403),
        (b'{"url": "filesystem:///etc/passwd", "location_type": "internal"}', 403),
        (b'{"url": "swift+config://ref/c/o", "location_type": "internal"}', 403),
        (b'{"url": "sql://x", "location_type": "internal"}', 403),
        (b'{"url": "unknown://x", "location_type": "internal"}', 400),
        (b'{"url": "x", "location_type": "internal"}', 400),
    ],
)
async def test_what_is_no_location(
    api: httpx.AsyncClient, make_artifact: Make, body: bytes, status: int
) -> None:
    artifact = await make_artifact()
    refused = await api.put(path_of(artifact, "blob"), content=body, headers={**ADMIN, **LOCATION})
    assert refused.status_code == status, refused.text
    assert (await api.get(path_of(artifact, "blob"), headers=ALICE)).status_code == 404


async def test_who_may_give_a_location(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifact = await make_artifact()
    path = path_of(artifact, "blob")
    assert (await api.put(path, json=EXTERNAL, headers={**BOB, **LOCATION})).status_code == 404
    assert (await api.put(path, json=EXTERNAL, headers={**ADMIN, **LOCATION})).status_code == 200
    assert (await api.delete(path, headers=BOB)).status_code == 404
    assert (await api.delete(path, headers=ADMIN)).status_code == 200


async def test_not_while_data_come(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifact = await make_artifact()
    path = path_of(artifact, "blob")
    async with Paused(api, path, b"data") as upload:
        assert (await api.put(path, json=EXTERNAL, headers=LOCATE)).status_code == 409
        assert (await api.delete(path, headers=ALICE)).status_code == 403
        assert (await upload.answer()).status_code == 200


async def test_an_active_artifact_keeps_its_addresses(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    """Glare lets them be removed, though not be set."""
    artifact = await make_artifact(string_required="x")
    keys = [path_of(artifact, f"dict_of_blobs/{key}") for key in "ab"]
    await api.put(keys[0], json=EXTERNAL, headers=LOCATE)
    await api.put(path_of(artifact, "blob"), json=EXTERNAL, headers=LOCATE)
    await api.patch(
        f"/artifacts/sample_artifact/{artifact['id']}",
        json=[{"op": "add", "path": "/status", "value": "active"}],
        headers={**ALICE, **PATCH},
    )
    assert (await api.delete(keys[0], headers=ALICE)).status_code == 403
    assert (await api.put(keys[1], json=EXTERNAL, headers=LOCATE)).status_code == 403
    assert (await api.delete(path_of(artifact, "blob"), headers=ALICE)).status_code == 200


async def test_an_object_that_is_in_a_store_already(
    artifacts_database: str, tmp_path: Path
) -> None:
    environ = configuration(
        artifacts_database,
        tmp_path,
        DEFAULT__ENABLED_BACKENDS="fast:file, cheap:file, kept:memory",
    )
    async with opened(environ) as app, client(app) as api:
        created = await api.post("/artifacts/images", json={"name": "x"}, headers=ALICE)
        artifact = created.json()
        path = path_of(artifact, "image", kind="images")
        body = {"url": "memory://kept/object", "location_type": "internal", "sha256": "abc"}
        assert (await api.put(path, json=body, headers=LOCATE)).status_code == 403
        located = await api.put(path, json=body, headers={**ADMIN, **LOCATION})
        assert located.status_code == 200, located.text
        blob = located.json()["image"]
        # Where it is remains the service's secret.
        assert (blob["url"], blob["external"], blob["size"]) == (path, False, None)
        assert blob["sha256"] == "abc"
        missing = await api.get(path, headers=ALICE)  # nothing is there
        assert missing.status_code == 404
        assert not any(word in missing.text for word in ("memory", "kept", "object"))
        assert (await api.delete(path, headers=ALICE)).status_code == 403
        assert files(tmp_path) == set()
