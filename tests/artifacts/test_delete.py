"""Deletions: at once and after a while, what is left of them, and what goes with them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests import databases
from tests.artifacts.sending import (
    ACTIVATE,
    REQUIRED,
    add,
    changed,
    events,
    patch,
    path_of,
    put_blob,
    replace,
    shown,
)
from tests.artifacts.service import (
    ADMIN,
    ALICE,
    BOB,
    OCTETS,
    CustomApi,
    Make,
    client,
    configuration,
    opened,
)
from tests.waiting import until

COMMAND = Path(sys.executable).parent / "diptych-artifacts"


async def make(api: httpx.AsyncClient, kind: str = "sample_artifact") -> dict[str, Any]:
    created = await api.post(f"/artifacts/{kind}", json={"name": "x"}, headers=ALICE)
    assert created.status_code == 201, created.text
    return created.json()


async def upload(api: httpx.AsyncClient, path: str, data: bytes = b"data") -> None:
    put = await api.put(path, content=data, headers={**ALICE, **OCTETS})
    assert put.status_code == 200, put.text


async def deleted(api: httpx.AsyncClient, path: str, headers: dict[str, str] = ALICE) -> None:
    answer = await api.delete(path, headers=headers)
    assert (answer.status_code, answer.content) == (204, b"")
    # Glare's own tests fail without it.
    assert "json" not in answer.headers["content-type"]


@asynccontextmanager
async def rows(database: str) -> AsyncGenerator[Callable[[str], Awaitable[list[asyncpg.Record]]]]:
    async with databases.connection(database) as server:

        async def fetched(query: str) -> list[asyncpg.Record]:
            return await server.fetch(query)

        yield fetched


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


async def test_nothing_is_left_but_bytes_to_remove(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    artifact = await make_artifact(name="x", tags=["t"], dict_of_str={"k": "v"})
    path = path_of(artifact)
    inside = {
        await put_blob(artifacts_database, artifact, "blob"),
        await put_blob(artifacts_database, artifact, "dict_of_blobs", "k"),
    }
    await put_blob(artifacts_database, artifact, "small_blob", external=True)
    await put_blob(artifacts_database, artifact, "dict_of_blobs", "e", external=True)
    kept = await make_artifact(name="y")
    await put_blob(artifacts_database, kept, "blob")
    await deleted(api, path)
    for answer in (await api.get(path, headers=ADMIN), await api.delete(path, headers=ADMIN)):
        assert answer.status_code == 404
    assert (await patch(api, path, add("/tags/-", "x"))).status_code == 404
    async with rows(artifacts_database) as fetched:
        blobs = await fetched("SELECT id::text, artifact_id::text, status, external FROM blobs")
        assert [row["id"] for row in await fetched("SELECT id::text FROM artifacts")] == [
            kept["id"]
        ]
    gone = [row for row in blobs if row["artifact_id"] is None]
    assert {row["id"] for row in gone} == inside
    assert {row["status"] for row in gone} == {"deleted"}
    assert [row["status"] for row in blobs if row["artifact_id"] == kept["id"]] == ["active"]
    assert [action for action, _ in await events(artifacts_database)][-1] == "delete"
    # Name and version are free again.
    await make_artifact(name="x")


async def test_the_bytes_go_by_a_job(
    artifacts_database: str, tmp_path: Path, custom_api: CustomApi
) -> None:
    environ = configuration(
        artifacts_database, tmp_path, JOBS__WITH_WORKER="true", JOBS__POLL_INTERVAL="0.2"
    )
    async with opened(environ) as app, client(app) as api:
        path = path_of(await make(api))
        await upload(api, f"{path}/blob")
        await upload(api, f"{path}/dict_of_blobs/k")
        assert len(files(tmp_path / "fast")) == 2
        await deleted(api, path)
        await until(lambda: not files(tmp_path / "fast"))

        async def is_forgotten() -> bool:
            async with rows(artifacts_database) as fetched:
                return not await fetched("SELECT id FROM blobs")

        await until(is_forgotten)


async def test_data_that_is_being_uploaded_stays(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    artifact = await make_artifact()
    blob_id = await put_blob(artifacts_database, artifact, "blob", status="saving")
    assert (await api.delete(path_of(artifact), headers=ALICE)).status_code == 409
    assert (await shown(api, path_of(artifact)))["blob"]["status"] == "saving"
    async with databases.connection(artifacts_database) as server:
        await server.execute("DELETE FROM blobs WHERE id = $1", blob_id)
    await deleted(api, path_of(artifact))


async def test_who_may_delete(api: httpx.AsyncClient, make_artifact: Make) -> None:
    path = path_of(await make_artifact())
    anonymous = {"X-User-Id": "nobody", "X-Roles": "reader"}
    for headers, of, status in (
        (BOB, path, 404),
        (anonymous, path, 404),
        (ALICE, path.replace("sample_artifact", "images"), 404),
        (ALICE, path.replace("sample_artifact", "none"), 404),
        (ALICE, path.replace("sample_artifact", "all"), 403),
        (ALICE, "/artifacts/sample_artifact/x", 404),
    ):
        assert (await api.delete(of, headers=headers)).status_code == status
    with_body = await api.request("DELETE", path, headers=ALICE, content=b"x")
    assert with_body.status_code == 400
    await deleted(api, path)


async def test_of_many_deletions_one_succeeds(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    path = path_of(await make_artifact())
    answers = await asyncio.gather(*(api.delete(path, headers=ALICE) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [204, *[404] * 7]
    assert [action for action, _ in await events(artifacts_database)] == ["create", "delete"]


async def test_an_artifact_that_is_deleted_later(
    custom_api: CustomApi, artifacts_database: str
) -> None:
    api = await custom_api(DEFAULT__DELAYED_DELETE="true")
    artifact = await make(api)
    path = path_of(artifact)
    await upload(api, f"{path}/blob")
    before = await shown(api, path)
    await deleted(api, path)
    after = await shown(api, path, ALICE)
    assert after["status"] == "deleted"
    assert after == {**before, "status": "deleted", "updated_at": after["updated_at"]}
    for listed in ("sample_artifact", "sample_artifact?status=deleted", "all"):
        answer = await api.get(f"/artifacts/{listed}", headers=ADMIN)
        assert answer.json()["total_count"] == 0, listed
    # Nothing can be done with it.
    assert (await api.get(path, headers=BOB)).status_code == 404
    for operation in (
        replace("/name", "new"),
        replace("/description", "new"),
        replace("/status", "drafted"),
        replace("/status", "active"),
        replace("/visibility", "private"),
        add("/tags/-", "x"),
    ):
        assert (await patch(api, path, operation)).status_code == 403
    assert (await api.get(f"{path}/blob", headers=ALICE)).status_code == 403
    put = await api.put(f"{path}/small_blob", content=b"x", headers={**ALICE, **OCTETS})
    assert put.status_code == 403
    # Its name and version are free.
    await make(api)
    async with rows(artifacts_database) as fetched:
        assert [row["status"] for row in await fetched("SELECT status FROM blobs")] == ["active"]
    # To delete it again is to have it done, which nobody is told twice.
    await deleted(api, path)
    assert (await api.get(path, headers=ADMIN)).status_code == 404
    async with rows(artifacts_database) as fetched:
        assert [row["status"] for row in await fetched("SELECT status FROM blobs")] == ["deleted"]
        assert len(await fetched("SELECT id FROM jobs WHERE kind = 'remove_bytes'")) == 1
    told = [action for action, _ in await events(artifacts_database)]
    assert told.count("delete") == 1


@pytest.mark.parametrize(("everywhere", "of_type"), [("true", "false"), ("false", "true")])
async def test_a_type_may_differ(custom_api: CustomApi, everywhere: str, of_type: str) -> None:
    api = await custom_api(
        DEFAULT__DELAYED_DELETE=everywhere,
        **{"ARTIFACT_TYPE:SAMPLE_ARTIFACT__DELAYED_DELETE": of_type},
    )
    for kind, delayed in (("sample_artifact", of_type), ("images", everywhere)):
        path = path_of(await make(api, kind), kind=kind)
        await deleted(api, path)
        after = await api.get(path, headers=ALICE)
        assert after.status_code == (200 if delayed == "true" else 404)


async def test_those_that_are_deleted_count(custom_api: CustomApi) -> None:
    api = await custom_api(DEFAULT__DELAYED_DELETE="true", DEFAULT__MAX_ARTIFACT_NUMBER="1")
    path = path_of(await make(api))
    await deleted(api, path)
    for status in (403, 201):
        another = await api.post("/artifacts/sample_artifact", json={"name": "y"}, headers=ALICE)
        assert another.status_code == status
        if status == 403:
            await deleted(api, path)


async def scrub(environ: dict[str, str]) -> str:
    def run() -> str:
        environment = {**os.environ, **environ}
        done = subprocess.run(
            [COMMAND, "scrub"], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return await asyncio.to_thread(run)


async def test_scrubbing(artifacts_database: str, tmp_path: Path) -> None:
    options = {"DEFAULT__DELAYED_DELETE": "true", "SCRUBBER__SCRUB_TIME": "3600"}
    environ = configuration(artifacts_database, tmp_path, **options)
    async with opened(environ) as app, client(app) as api:
        old, young, kept = [
            path_of((await api.post("/artifacts/sample_artifact", json=body, headers=ALICE)).json())
            for body in ({"name": "old"}, {"name": "young"}, {"name": "kept", **REQUIRED})
        ]
        await changed(api, kept, ACTIVATE)
        for path in (old, young, kept):
            await upload(api, f"{path}/blob")
        for path in (old, young):
            await deleted(api, path)
        async with databases.connection(artifacts_database) as server:
            await server.execute(
                "UPDATE artifacts SET deleted_at = deleted_at - interval '2 hours'"
                " WHERE name = 'old'"
            )
        assert await scrub(environ) == "Artifacts removed: 1.\n"
        assert [
            (await api.get(path, headers=ALICE)).status_code for path in (old, young, kept)
        ] == [*(404, 200, 200)]
        async with rows(artifacts_database) as fetched:
            blobs = await fetched("SELECT status FROM blobs ORDER BY status")
            assert [row["status"] for row in blobs] == ["active", "active", "deleted"]
            assert len(await fetched("SELECT id FROM jobs WHERE kind = 'remove_bytes'")) == 1


async def test_workers_scrub_by_themselves(artifacts_database: str, tmp_path: Path) -> None:
    environ = configuration(
        artifacts_database,
        tmp_path,
        DEFAULT__DELAYED_DELETE="true",
        SCRUBBER__WAKEUP_TIME="1",
        JOBS__WITH_WORKER="true",
        JOBS__POLL_INTERVAL="0.2",
    )
    async with opened(environ) as app, client(app) as api:
        paths = [
            path_of(await make(api, kind), kind=kind) for kind in ("sample_artifact", "images")
        ]
        await upload(api, f"{paths[0]}/blob")
        for path in paths:
            await deleted(api, path)

        async def are_gone() -> bool:
            answers = [await api.get(path, headers=ALICE) for path in paths]
            return [answer.status_code for answer in answers] == [404, 404]

        await until(are_gone)
        await until(lambda: not files(tmp_path / "fast"))
