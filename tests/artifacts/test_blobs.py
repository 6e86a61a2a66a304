"""The data of blobs: what is uploaded is what is downloaded, or the blob is as it was before."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from diptych_artifacts.api.errors import from_store
from diptych_store import errors as store_errors

from tests import databases
from tests.artifacts.minding_types import meanwhile
from tests.artifacts.sending import path_of
from tests.artifacts.service import (
    ADMIN,
    ALICE,
    BOB,
    OCTETS,
    PATCH,
    CustomApi,
    Make,
    client,
    configuration,
    opened,
    persona,
)
from tests.artifacts.uploads import (
    Paused,
    broken_off,
    chunks,
    digests,
    files,
    rows,
    settled,
    working,
)
from tests.waiting import until
from tests.web import Asked, head, serving

DATA = b"the bytes of a blob" * 1000
OTHER = b"other bytes" * 777
TEXT = {"Content-Type": "text/plain"}
UPLOAD = {**ALICE, **OCTETS}


async def change(api: httpx.AsyncClient, artifact: dict[str, Any], field: str, value: str) -> None:
    """As an administrator, who may do everything to an artifact."""
    kind = artifact.get("kind", "sample_artifact")
    done = await api.patch(
        f"/artifacts/{kind}/{artifact['id']}",
        json=[{"op": "add", "path": f"/{field}", "value": value}],
        headers={**ADMIN, **PATCH},
    )
    assert done.status_code == 200, done.text


async def events(url: str) -> list[str]:
    async with databases.connection(url) as server:
        found = await server.fetch("SELECT event_type FROM outbox ORDER BY id")
    return [row["event_type"].removeprefix("artifact.artifact:") for row in found]


@pytest.mark.parametrize("data", [b"", b"x", DATA, bytes(range(256)) * 9000], ids=len)
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_what_was_uploaded_is_downloaded(
    api: httpx.AsyncClient, make_artifact: Make, data: bytes, is_chunked: bool
) -> None:
    artifact = await make_artifact()
    assert artifact["blob"] is None
    content = chunks(data) if is_chunked else data
    stored = await api.put(path_of(artifact, "blob"), content=content, headers={**ALICE, **TEXT})
    assert stored.status_code == 200, stored.text
    blob = stored.json()["blob"]
    assert blob == {
        "url": path_of(artifact, "blob"),
        "status": "active",
        "size": len(data),
        "external": False,
        "content_type": "text/plain",
        **digests(data),
    }
    shown = (await api.get(f"/artifacts/sample_artifact/{artifact['id']}", headers=ALICE)).json()
    assert shown == stored.json()

    got = await api.get(path_of(artifact, "blob"), headers=ALICE)
    assert got.status_code == 200
    assert got.content == data
    assert got.headers["content-type"] == "text/plain"
    assert got.headers["content-length"] == str(len(data))
    assert got.headers["content-md5"] == blob["md5"]
    assert got.headers["x-openstack-glare-content-sha1"] == blob["sha1"]
    assert got.headers["x-openstack-glare-content-sha256"] == blob["sha256"]
    assert got.headers["etag"] == f'"sha256:{blob["sha256"]}"'
    assert got.headers["accept-ranges"] == "bytes"


async def test_json_is_data_too(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifact = await make_artifact()
    headers = {**ALICE, "Content-Type": "application/json"}
    path = path_of(artifact, "blob")
    assert (await api.put(path, content=b"{not", headers=headers)).status_code == 200
    got = await api.get(path, headers=ALICE)
    assert (got.content, got.headers["content-type"]) == (b"{not", "application/json")


async def test_a_head_and_parts(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifact = await make_artifact()
    path = path_of(artifact, "blob")
    await api.put(path, content=DATA, headers=UPLOAD)

    head = await api.head(path, headers=ALICE)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(DATA))
    etag = head.headers["etag"]

    async def asked(**headers: str) -> httpx.Response:
        return await api.get(path, headers={**ALICE, **headers})

    part = await asked(Range="bytes=500-1499")
    assert (part.status_code, part.content) == (206, DATA[500:1500])
    assert part.headers["content-range"] == f"bytes 500-1499/{len(DATA)}"
    assert part.headers["content-md5"] == digests(DATA)["md5"]
    assert (await asked(Range="bytes=-500")).content == DATA[-500:]
    beyond = await asked(Range="bytes=50000-")
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{len(DATA)}"
    current = await asked(**{"If-None-Match": etag})
    assert (current.status_code, current.content, current.headers["etag"]) == (304, b"", etag)
    assert (await asked(**{"If-None-Match": '"sha256:0"'})).status_code == 200
    changed = await asked(**{"Range": "bytes=0-1", "If-Range": '"sha256:0"'})
    assert (changed.status_code, changed.content) == (200, DATA)


async def test_data_replace_data(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_folder: Path, artifacts_database: str
) -> None:
    """Glare keeps the old content type, and the old object for ever."""
    before = files(artifacts_folder)
    artifact = await make_artifact()
    path = path_of(artifact, "blob")
    await api.put(path, content=DATA, headers={**ALICE, **TEXT})
    (old,) = files(artifacts_folder) - before
    replaced = await api.put(path, content=OTHER, headers=UPLOAD)
    assert replaced.status_code == 200
    blob = replaced.json()["blob"]
    assert (blob["size"], blob["content_type"]) == (len(OTHER), "application/octet-stream")
    assert blob["md5"] == digests(OTHER)["md5"]
    assert (await api.get(path, headers=ALICE)).content == OTHER
    await settled(artifacts_database, configuration(artifacts_database, artifacts_folder))
    assert old not in files(artifacts_folder)
    assert len(files(artifacts_folder) - before) == 1
    assert (await api.get(path, headers=ALICE)).content == OTHER
    assert [status for status, _ in await rows(artifacts_database)] == ["active"]
    assert await events(artifacts_database) == ["create", "upload", "upload"]


async def test_one_uploads_at_a_time(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_folder: Path
) -> None:
    artifact = await make_artifact()
    path = path_of(artifact, "blob")
    before = files(artifacts_folder)
    async with Paused(api, path, DATA) as upload:
        shown = await api.get(f"/artifacts/sample_artifact/{artifact['id']}", headers=ALICE)
        blob = shown.json()["blob"]
        assert (blob["status"], blob["size"], blob["md5"]) == ("saving", len(DATA), None)
        assert (await api.get(path, headers=ALICE)).status_code == 409
        second = await api.put(path, content=OTHER, headers=UPLOAD)
        assert second.status_code == 409
        # Another blob of the artifact is nobody's business.
        small = await api.put(path_of(artifact, "small_blob"), content=b"x", headers=UPLOAD)
        assert small.status_code == 200
        assert (await upload.answer()).status_code == 200
    assert (await api.get(path, headers=ALICE)).content == DATA
    assert len(files(artifacts_folder) - before) == 2


async def test_what_is_being_replaced_is_still_there(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    artifact = await make_artifact()
    path = path_of(artifact, "blob")
    await api.put(path, content=OTHER, headers=UPLOAD)
    async with Paused(api, path, DATA, is_announced=False) as upload:
        got = await api.get(path, headers=ALICE)
        assert (got.status_code, got.content) == (200, OTHER)
        shown = await api.get(f"/artifacts/sample_artifact/{artifact['id']}", headers=ALICE)
        assert shown.json()["blob"]["status"] == "active"
        assert (await api.put(path, content=b"third", headers=UPLOAD)).status_code == 409
        assert (await upload.answer()).status_code == 200
    assert (await api.get(path, headers=ALICE)).content == DATA


@pytest.mark.parametrize("old", [None, OTHER], ids=["first", "again"])
@pytest.mark.parametrize(
    ("pieces", "headers", "status"),
    [
        ([DATA], {"Content-Length": str(len(DATA) + 1)}, 400),
        ([DATA, b"more"], {"Content-Length": str(len(DATA))}, 400),
        ([b"invalid_data"], {}, 400),
        ([bytes(1 << 20)] * 11, {}, 413),
        ([DATA], {"Content-Length": "10485761"}, 413),
    ],
    ids=["shorter", "longer", "refused by a hook", "too large", "announced too large"],
)
async def test_a_failure_changes_nothing(
    api: httpx.AsyncClient,
    make_artifact: Make,
    artifacts_folder: Path,
    artifacts_database: str,
    old: bytes | None,
    pieces: list[bytes],
    headers: dict[str, str],
    status: int,
) -> None:
    artifact = await make_artifact()
    path = path_of(artifact, "blob")
    if old is not None:
        await api.put(path, content=old, headers={**ALICE, **TEXT})
    there, before = files(artifacts_folder), await rows(artifacts_database)
    shown = (await api.get(f"/artifacts/sample_artifact/{artifact['id']}", headers=ALICE)).json()

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    failed = await api.put(path, content=body(), headers={**UPLOAD, **headers})
    assert failed.status_code == status, failed.text
    assert failed.json()["code"] == status
    assert files(artifacts_folder) == there
    assert await rows(artifacts_database) == before
    again = await api.get(f"/artifacts/sample_artifact/{artifact['id']}", headers=ALICE)
    assert again.json() == shown
    got = await api.get(path, headers=ALICE)
    assert (got.status_code, got.content) == (200, old) if old else got.status_code == 404
    # And nothing is in the way of the next.
    assert (await api.put(path, content=DATA, headers=UPLOAD)).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "1000000"}], ids=["chunked", "length"])
async def test_a_client_that_goes_away_leaves_nothing(
    artifacts_database: str, tmp_path: Path, headers: dict[str, str]
) -> None:
    environ = configuration(artifacts_database, tmp_path)
    async with opened(environ) as app, client(app) as api:
        created = await api.post("/artifacts/images", json={"name": "x"}, headers=ALICE)
        path = path_of(created.json(), "image", kind="images")
        await broken_off(app, path, [DATA, DATA], headers)
        assert files(tmp_path) == set()
        assert await rows(artifacts_database) == []
        assert (await api.get(path, headers=ALICE)).status_code == 404


async def test_a_request_that_is_cancelled_leaves_nothing(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_folder: Path, artifacts_database: str
) -> None:
    artifact = await make_artifact()
    there = files(artifacts_folder)
    async with Paused(api, path_of(artifact, "blob"), bytes(3 << 20)):
        assert [status for status, _ in await rows(artifacts_database)] == ["saving"]
    assert files(artifacts_folder) == there
    assert await rows(artifacts_database) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (ALICE, 400),  # no type
        ({**ALICE, **OCTETS, "Content-Length": "-1"}, 400),
        ({**ALICE, **OCTETS, "Content-Length": "ten"}, 400),
        ({**ALICE, **OCTETS, "Content-Length": "9" * 5000}, 400),
    ],
    ids=["no type", "negative", "no number", "many digits"],
)
async def test_what_is_no_upload(
    api: httpx.AsyncClient, make_artifact: Make, headers: dict[str, str], status: int
) -> None:
    artifact = await make_artifact()
    answered = await api.put(path_of(artifact, "blob"), content=chunks(b"x"), headers=headers)
    assert answered.status_code == status


@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE"])
@pytest.mark.parametrize(
    "blob", ["", "nothing", "name", "str1", "blob/key", "dict_of_blobs", "dict_of_blobs/"]
)
async def test_what_is_no_blob(
    api: httpx.AsyncClient, make_artifact: Make, method: str, blob: str
) -> None:
    artifact = await make_artifact()
    path = f"{path_of(artifact)}/{blob}"
    answered = await api.request(method, path, headers={**ALICE, **OCTETS})
    assert answered.status_code == 400


async def test_what_is_not_there(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifact = await make_artifact()
    nobody = {"id": "00000000-0000-4000-8000-000000000000"}
    for path in (
        path_of(artifact, "blob"),
        path_of(artifact, "dict_of_blobs/x"),
        path_of(nobody, "blob"),
        path_of({"id": "x"}, "blob"),
        path_of(artifact, "image", kind="images"),
        path_of(artifact, "blob", kind="unknown"),
    ):
        assert (await api.get(path, headers=ALICE)).status_code == 404, path
    for path in (
        path_of(nobody, "blob"),
        path_of({"id": "x"}, "blob"),
        path_of(artifact, "blob", kind="unknown"),
    ):
        assert (await api.put(path, content=b"x", headers=UPLOAD)).status_code == 404
    # Of `all`, no type has blobs.
    assert (await api.get(path_of(artifact, "blob", kind="all"), headers=ALICE)).status_code == 400
    refused = await api.put(path_of(artifact, "blob", kind="all"), content=b"x", headers=UPLOAD)
    assert refused.status_code == 400


async def test_other_verbs_and_bodies(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifact = await make_artifact()
    posted = await api.post(path_of(artifact, "blob"), headers=ALICE)
    assert posted.status_code == 405
    assert {"GET", "PUT", "DELETE"} <= set(posted.headers["allow"].split(", "))
    asked = await api.request("GET", path_of(artifact, "blob"), content=b"x", headers=ALICE)
    assert asked.status_code == 400


async def test_who_may_upload_and_download(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifact = await make_artifact(string_required="x")
    path = path_of(artifact, "blob")
    assert (await api.put(path, content=DATA, headers=UPLOAD)).status_code == 200
    for who in (BOB, persona(None)):
        assert (await api.get(path, headers=who)).status_code == 404
        assert (await api.put(path, content=b"x", headers={**who, **OCTETS})).status_code == 404
    assert (await api.get(path, headers=ADMIN)).content == DATA
    assert (await api.put(path, content=OTHER, headers={**ADMIN, **OCTETS})).status_code == 200

    await change(api, artifact, "status", "active")
    await change(api, artifact, "visibility", "public")
    # Glare's own default keeps the data of public artifacts from everybody else.
    assert (await api.get(path, headers=BOB)).content == OTHER
    assert (await api.put(path, content=b"x", headers={**BOB, **OCTETS})).status_code == 403
    assert (await api.put(path, content=DATA, headers=UPLOAD)).status_code == 200

    await change(api, artifact, "status", "deactivated")
    assert (await api.get(path, headers=ALICE)).status_code == 403
    assert (await api.get(path, headers=ADMIN)).content == DATA
    assert (await api.put(path, content=b"x", headers=UPLOAD)).status_code == 403


async def test_an_active_artifact_keeps_what_is_not_mutable(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    artifact = await make_artifact(kind="images", disk_format="raw", container_format="bare")
    path = path_of(artifact, "image", kind="images")
    assert (await api.put(path, content=DATA, headers=UPLOAD)).status_code == 200
    await change(api, {**artifact, "kind": "images"}, "status", "active")
    assert (await api.put(path, content=OTHER, headers=UPLOAD)).status_code == 403
    assert (await api.get(path, headers=ALICE)).content == DATA


async def test_the_first_thing_that_is_wrong_is_answered(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    artifact = await make_artifact(string_required="x")
    path = path_of(artifact, "blob")
    huge = {"Content-Length": "99999999999"}
    async with Paused(api, path, DATA) as upload:
        # That it is being saved comes before that it is too large.
        assert (await api.put(path, headers={**UPLOAD, **huge})).status_code == 409
        # And who asks before that.
        assert (await api.put(path, headers={**BOB, **OCTETS, **huge})).status_code == 404
        await upload.answer()
    await change(api, artifact, "status", "active")
    folder = path_of(artifact, "dict_of_blobs/x")
    assert (await api.put(folder, headers={**UPLOAD, **huge})).status_code == 403
    assert (await api.put(path, headers={**UPLOAD, **huge})).status_code == 413
    assert (await api.put(path_of(artifact, "blob/x"), headers=UPLOAD)).status_code == 400


async def test_nobody_changes_the_status_of_what_is_being_saved(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    artifact = await make_artifact(string_required="x")
    where = f"/artifacts/sample_artifact/{artifact['id']}"
    activation = [{"op": "add", "path": "/status", "value": "active"}]
    async with Paused(api, path_of(artifact, "blob"), DATA) as upload:
        patched = await api.patch(where, json=activation, headers={**ALICE, **PATCH})
        assert patched.status_code == 409
        assert (await api.delete(where, headers=ALICE)).status_code == 409
        assert (await upload.answer()).status_code == 200
    patched = await api.patch(where, json=activation, headers={**ALICE, **PATCH})
    assert patched.status_code == 200


async def test_bytes_go_with_their_artifact(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_folder: Path, artifacts_database: str
) -> None:
    artifact = await make_artifact()
    there = files(artifacts_folder)
    for blob in ("blob", "small_blob", "dict_of_blobs/a", "dict_of_blobs/b/c"):
        stored = await api.put(path_of(artifact, blob), content=b"x", headers=UPLOAD)
        assert stored.status_code == 200
    assert len(files(artifacts_folder) - there) == 4
    gone = await api.delete(f"/artifacts/sample_artifact/{artifact['id']}", headers=ALICE)
    assert gone.status_code == 204
    assert {status for status, _ in await rows(artifacts_database)} == {"deleted"}
    await settled(artifacts_database, configuration(artifacts_database, artifacts_folder))
    assert files(artifacts_folder) == there
    assert await rows(artifacts_database) == []


def place_of(folder: Path, name: str) -> list[Path]:
    return list(folder.rglob(name))


async def test_a_lost_object_is_told(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_folder: Path
) -> None:
    artifact = await make_artifact()
    there = files(artifacts_folder)
    await api.put(path_of(artifact, "blob"), content=DATA, headers=UPLOAD)
    (name,) = files(artifacts_folder) - there
    (file,) = place_of(artifacts_folder, name)
    file.write_bytes(DATA[:-1])
    assert (await api.get(path_of(artifact, "blob"), headers=ALICE)).status_code == 503
    file.unlink()
    assert (await api.get(path_of(artifact, "blob"), headers=ALICE)).status_code == 404


async def test_what_was_replaced_meanwhile_is_read_in_its_place(
    artifacts_database: str, tmp_path: Path
) -> None:
    environ = configuration(
        artifacts_database,
        tmp_path,
        DEFAULT__ENABLED_ARTIFACT_TYPES="awaiting",
        DEFAULT__CUSTOM_ARTIFACT_TYPES_MODULES="tests.artifacts.minding_types",
    )
    async with opened(environ) as app, client(app) as api:
        created = await api.post("/artifacts/awaiting", json={"name": "x"}, headers=ALICE)
        path = path_of(created.json(), "blob", kind="awaiting")
        assert (await api.put(path, content=DATA, headers=UPLOAD)).status_code == 200

        async def replace() -> None:
            assert (await api.put(path, content=OTHER, headers=UPLOAD)).status_code == 200
            await settled(artifacts_database, environ)

        meanwhile.append(replace)
        got = await api.get(path, headers=ALICE)
        assert (got.status_code, got.content) == (200, OTHER)
        assert got.headers["content-md5"] == digests(OTHER)["md5"]

        async def delete() -> None:
            gone = await api.delete(path.removesuffix("/blob"), headers=ALICE)
            assert gone.status_code == 204
            await settled(artifacts_database, environ)

        meanwhile.append(delete)
        assert (await api.get(path, headers=ALICE)).status_code == 404


SECRETIVE = [
    store_errors.NotFound,
    store_errors.AlreadyThere,
    store_errors.AttemptLost,
    store_errors.WriteDenied,
    store_errors.ReadDenied,
    store_errors.BadLocation,
    store_errors.InUse,
    store_errors.Unreachable,
]


@pytest.mark.parametrize("kind", SECRETIVE)
def test_where_data_are_is_for_the_log(
    kind: type[store_errors.StoreError], caplog: pytest.LogCaptureFixture
) -> None:
    answered = from_store(kind("Store web: http://10.0.0.5/x was answered with 404."))
    assert "web" not in answered.message
    assert "10.0.0.5" not in answered.message
    assert "http://10.0.0.5/x" in caplog.text


async def test_the_store_gets_no_token_that_keystone_did_not_make(
    artifacts_database: str, tmp_path: Path
) -> None:
    async def handle(asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.target.endswith("/auth/tokens"):
            times = {"issued_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T01:00:00Z"}
            body = json.dumps({"token": {**times, "project": {"id": "own"}}}).encode()
            writer.write(head(201, X_Subject_Token="own-token", Content_Length=len(body)) + body)
        else:
            writer.write(head(403, Content_Length=0))
        await writer.drain()

    async with serving(handle) as web:
        environ = configuration(
            artifacts_database,
            tmp_path,
            DEFAULT__ENABLED_BACKENDS="fast:swift",
            FAST__SWIFT_STORE_AUTH_ADDRESS=f"{web.url}/v3",
            FAST__SWIFT_STORE_USER="service:glare",
            FAST__SWIFT_STORE_KEY="secret",
            FAST__SWIFT_STORE_ENDPOINT=f"{web.url}/v1/AUTH_own",
            FAST__SWIFT_STORE_MULTI_TENANT="true",
            FAST__SWIFT_STORE_CREATE_CONTAINER_ON_PUT="true",
        )
        environ = {name: one for name, one in environ.items() if "FILESYSTEM" not in name}
        async with opened(environ) as app, client(app) as api:
            created = await api.post("/artifacts/images", json={"name": "x"}, headers=ALICE)
            path = path_of(created.json(), "image", kind="images")
            refused = await api.put(
                path, content=DATA, headers={**UPLOAD, "X-Auth-Token": "callers-token"}
            )
            assert refused.status_code == 503, refused.text
            tokens = {asked.headers.get("x-auth-token") for asked in web.asked}
            assert "own-token" in tokens
            assert "callers-token" not in tokens


# Uploads that never end.


@pytest.mark.parametrize("old", [None, OTHER], ids=["first", "again"])
async def test_an_upload_that_falls_silent_leaves_nothing(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path, old: bytes | None
) -> None:
    api = await custom_api(DEFAULT__UPLOAD_IDLE_TIMEOUT="0.3")
    created = await api.post("/artifacts/images", json={"name": "x"}, headers=ALICE)
    path = path_of(created.json(), "image", kind="images")
    if old is not None:
        assert (await api.put(path, content=old, headers=UPLOAD)).status_code == 200
    there, before = files(tmp_path), await rows(artifacts_database)

    async def body() -> AsyncIterator[bytes]:
        yield DATA
        await asyncio.Event().wait()

    failed = await api.put(path, content=body(), headers=UPLOAD)
    assert (failed.status_code, failed.json()["code"]) == (408, 408)
    assert files(tmp_path) == there
    assert await rows(artifacts_database) == before
    got = await api.get(path, headers=ALICE)
    assert (got.status_code, got.content) == (200, old) if old else got.status_code == 404


@pytest.mark.parametrize("old", [None, OTHER], ids=["first", "again"])
async def test_an_administrator_deactivates_what_is_being_uploaded(
    api: httpx.AsyncClient,
    make_artifact: Make,
    artifacts_folder: Path,
    artifacts_database: str,
    old: bytes | None,
) -> None:
    artifact = await make_artifact(string_required="x")
    await change(api, artifact, "status", "active")
    path = path_of(artifact, "blob")
    if old is not None:
        assert (await api.put(path, content=old, headers=UPLOAD)).status_code == 200
    there, before = files(artifacts_folder), await rows(artifacts_database)
    async with Paused(api, path, DATA) as upload:
        deactivated = await api.patch(
            f"/artifacts/sample_artifact/{artifact['id']}",
            json=[{"op": "add", "path": "/status", "value": "deactivated"}],
            headers={**ADMIN, **PATCH},
        )
        assert deactivated.status_code == 200, deactivated.text
        assert deactivated.json()["status"] == "deactivated"
        blob = deactivated.json()["blob"]
        assert blob is None if old is None else blob["sha256"] == digests(OTHER)["sha256"]
        failed = await upload.answer()
        assert failed.status_code == 503
    assert files(artifacts_folder) == there
    assert await rows(artifacts_database) == before


async def test_an_administrator_deletes_what_is_being_uploaded(
    artifacts_database: str, tmp_path: Path
) -> None:
    environ = configuration(artifacts_database, tmp_path)
    async with opened(environ) as app, client(app) as api:
        created = await api.post("/artifacts/images", json={"name": "x"}, headers=ALICE)
        where = f"/artifacts/images/{created.json()['id']}"
        async with Paused(api, f"{where}/image", DATA) as upload:
            assert (await api.delete(where, headers=ALICE)).status_code == 409
            assert (await api.delete(where, headers=ADMIN)).status_code == 204
            # Of an upload whose process died meanwhile the reaper finds the rest.
            await expire(artifacts_database)

            async def is_reaped() -> bool:
                return not await rows(artifacts_database)

            async with working(environ):
                await until(is_reaped)
            assert (await upload.answer()).status_code == 503
        assert files(tmp_path) == set()
        assert await rows(artifacts_database) == []


# Leases.


async def test_the_lease_of_a_slow_upload_is_renewed(
    artifacts_database: str, tmp_path: Path
) -> None:
    environ = configuration(artifacts_database, tmp_path, JOBS__LEASE="1")
    async with opened(environ) as app, client(app) as api:
        created = await api.post("/artifacts/images", json={"name": "x"}, headers=ALICE)
        path = path_of(created.json(), "image", kind="images")
        async with Paused(api, path, DATA) as upload:
            first = await lease(artifacts_database)

            async def is_renewed() -> bool:
                return await lease(artifacts_database) > first

            await until(is_renewed)
            assert (await upload.answer()).status_code == 200
        assert (await api.get(path, headers=ALICE)).content == DATA


async def lease(url: str) -> Any:
    async with databases.connection(url) as server:
        return await server.fetchval("SELECT lease_until FROM blobs WHERE status = 'saving'")


async def expire(url: str) -> None:
    async with databases.connection(url) as server:
        await server.execute("UPDATE blobs SET lease_until = now() WHERE status = 'saving'")


async def test_an_upload_that_was_taken_for_dead_comes_to_nothing(
    artifacts_database: str, tmp_path: Path
) -> None:
    environ = configuration(artifacts_database, tmp_path)
    async with opened(environ) as app, client(app) as api:
        created = await api.post("/artifacts/images", json={"name": "x"}, headers=ALICE)
        path = path_of(created.json(), "image", kind="images")
        await api.put(path, content=OTHER, headers=UPLOAD)
        there = files(tmp_path)
        async with Paused(api, path, DATA) as upload:
            await expire(artifacts_database)

            async def is_reaped() -> bool:
                return len(await rows(artifacts_database)) == 1

            async with working(environ):
                await until(is_reaped)
            # Its place is free at once.
            assert (await api.put(path, content=DATA, headers=UPLOAD)).status_code == 200
            failed = await upload.answer()
            assert failed.status_code == 503
        assert (await api.get(path, headers=ALICE)).content == DATA
        await settled(artifacts_database, environ)
        assert len(files(tmp_path)) == 1
        assert files(tmp_path).isdisjoint(there)
        assert await rows(artifacts_database) == [("active", len(DATA))]


async def test_the_sweep_finds_what_jobs_have_left(artifacts_database: str, tmp_path: Path) -> None:
    environ = configuration(artifacts_database, tmp_path)
    async with opened(environ) as app, client(app) as api:
        created = await api.post("/artifacts/images", json={"name": "x"}, headers=ALICE)
        path = path_of(created.json(), "image", kind="images")
        await api.put(path, content=OTHER, headers=UPLOAD)
        await api.put(path, content=DATA, headers=UPLOAD)
    async with databases.connection(artifacts_database) as server:
        assert await server.execute("DELETE FROM jobs WHERE kind = 'remove_bytes'") == "DELETE 1"
    async with working(environ):
        await until(lambda: len(files(tmp_path)) == 1)


async def test_many_uploads_at_once(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifacts = [await make_artifact() for _ in range(8)]
    stored = await asyncio.gather(
        *(
            api.put(path_of(one, blob), content=chunks(blob.encode()), headers=UPLOAD)
            for one in artifacts
            for blob in ("blob", "small_blob", "dict_of_blobs/a", "dict_of_blobs/b")
        )
    )
    assert {one.status_code for one in stored} == {200}
    got = await api.get(path_of(artifacts[3], "dict_of_blobs/b"), headers=ALICE)
    assert got.content == b"dict_of_blobs/b"
