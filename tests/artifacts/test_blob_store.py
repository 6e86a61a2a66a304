"""Stores of types: each type keeps its blobs where the settings say, in the database too."""

from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from dev.seaweedfs import Seaweedfs
from diptych_artifacts.api.resources import Resources
from diptych_artifacts.app import create_app
from diptych_artifacts.settings import load
from diptych_common.settings import SettingsError
from starlette.types import Receive, Scope, Send

from tests import databases
from tests.artifacts.sending import path_of
from tests.artifacts.service import (
    ADMIN,
    ALICE,
    LOCATION,
    OCTETS,
    CustomApi,
    client,
    configuration,
    types_file,
)
from tests.artifacts.uploads import Paused, chunks, digests, files, rows, settled
from tests.store import s3_bucket
from tests.store.conformance import put

UPLOAD = {**ALICE, **OCTETS}
# Several pieces and a rest.
DATA = bytes(range(256)) * 3333


async def new(api: httpx.AsyncClient, kind: str) -> dict[str, Any]:
    return (await api.post(f"/artifacts/{kind}", json={"name": "x"}, headers=ALICE)).json()


async def objects(url: str) -> list[tuple[int, int]]:
    """Size and number of pieces of all that the database keeps."""
    async with databases.connection(url) as server:
        found = await server.fetch(
            "SELECT size, (SELECT count(*) FROM blob_data AS d WHERE d.id = o.id) AS pieces"
            " FROM blob_objects AS o"
        )
    return [tuple(row) for row in found]


async def test_types_have_stores(custom_api: CustomApi, tmp_path: Path) -> None:
    api = await custom_api(types={"images": {"default_store": "cheap"}})
    image, template = await new(api, "images"), await new(api, "heat_templates")
    for path in (
        path_of(image, "image", kind="images"),
        path_of(template, "template", kind="heat_templates"),
    ):
        assert (await api.put(path, content=DATA, headers=UPLOAD)).status_code == 200
        assert (await api.get(path, headers=ALICE)).content == DATA
    assert len(files(tmp_path / "cheap")) == 1
    assert len(files(tmp_path / "fast")) == 1


async def test_blobs_in_the_database(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path
) -> None:
    api = await custom_api(types={"heat_templates": {"default_store": "database"}})
    template = await new(api, "heat_templates")
    path = path_of(template, "template", kind="heat_templates")
    stored = await api.put(path, content=chunks(DATA, 70_000), headers=UPLOAD)
    assert stored.status_code == 200, stored.text
    assert stored.json()["template"]["sha256"] == digests(DATA)["sha256"]
    assert await objects(artifacts_database) == [(len(DATA), 4)]
    assert files(tmp_path) == set()
    assert (await api.get(path, headers=ALICE)).content == DATA
    part = await api.get(path, headers={**ALICE, "Range": "bytes=262100-600000"})
    assert (part.status_code, part.content) == (206, DATA[262_100:600_001])

    # A failure leaves nothing, and what was replaced goes.
    async with Paused(api, path, bytes(2 << 20)):
        pass
    assert await objects(artifacts_database) == [(len(DATA), 4)]
    assert (await api.put(path, content=b"new", headers=UPLOAD)).status_code == 200
    await settled(artifacts_database, configuration(artifacts_database, tmp_path))
    assert await objects(artifacts_database) == [(3, 1)]


@pytest.mark.parametrize("store", ["nowhere", ""])
def test_a_store_that_is_none(tmp_path: Path, store: str) -> None:
    environ = configuration("postgresql://nowhere/x", tmp_path)
    file = types_file(tmp_path, {"images": {"default_store": store}})
    loaded = load(environ=environ, config_files=[file])
    if store:
        with pytest.raises(SettingsError, match="default_store"):
            create_app(loaded)
    else:
        create_app(loaded)


def test_the_name_of_the_database_is_taken(tmp_path: Path) -> None:
    environ = configuration(
        "postgresql://nowhere/x", tmp_path, DEFAULT__ENABLED_BACKENDS="fast:file, database:file"
    )
    with pytest.raises(SettingsError, match="other names of stores"):
        create_app(load(environ=environ))


def in_bucket(s3: Seaweedfs, bucket: str) -> dict[str, str]:
    """Settings with a store in this bucket."""
    options = s3_bucket.settings(s3, bucket)
    return {
        "DEFAULT__ENABLED_BACKENDS": "fast:file, s3:s3",
        **{f"S3__{name.upper()}": str(value) for name, value in options.items()},
    }


async def test_blobs_in_s3(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path, s3: Seaweedfs
) -> None:
    bucket = await s3_bucket.make(s3)
    settings = in_bucket(s3, bucket)
    api = await custom_api(types={"images": {"default_store": "s3"}}, **settings)
    image = await new(api, "images")
    path = path_of(image, "image", kind="images")
    large = DATA * 15  # more than a part
    for data in (DATA, large):
        stored = await api.put(path, content=chunks(data, 1 << 20), headers=UPLOAD)
        assert stored.status_code == 200, stored.text
        assert (await api.get(path, headers=ALICE)).content == data
    part = await api.get(path, headers={**ALICE, "Range": "bytes=10000000-"})
    assert part.content == large[10_000_000:]
    async with Paused(api, path, large):
        pass
    environ = configuration(artifacts_database, tmp_path, **settings)
    await settled(artifacts_database, environ)
    assert len(await s3_bucket.everything(s3, bucket)) == 1
    assert await rows(artifacts_database) == [("active", len(large))]
    gone = await api.delete(f"/artifacts/images/{image['id']}", headers=ALICE)
    assert gone.status_code == 204
    await settled(artifacts_database, environ)
    assert await s3_bucket.everything(s3, bucket) == []


async def test_an_object_that_was_there_before(
    custom_api: CustomApi, artifacts_database: str, tmp_path: Path, s3: Seaweedfs
) -> None:
    bucket = await s3_bucket.make(s3)
    settings = in_bucket(s3, bucket)
    store = s3_bucket.store_of(s3_bucket.settings(s3, bucket), name="s3")
    async with aclosing(store):
        url = await put(store, DATA, key="by-hand")
    api = await custom_api(**settings)
    image = await new(api, "images")
    path = path_of(image, "image", kind="images")
    body = {"url": url, "location_type": "internal", "md5": digests(DATA)["md5"]}
    located = await api.put(path, json=body, headers={**ADMIN, **LOCATION})
    assert located.status_code == 200, located.text
    # Neither its size nor where it is.
    assert (located.json()["image"]["size"], located.json()["image"]["url"]) == (None, path)
    got = await api.get(path, headers=ALICE)
    assert (got.status_code, got.content) == (200, DATA)
    assert got.headers["content-md5"] == digests(DATA)["md5"]
    assert "etag" not in got.headers
    part = await api.get(path, headers={**ALICE, "Range": "bytes=-100"})
    assert (part.status_code, part.content) == (206, DATA[-100:])
    # It is the artifact's from now on, and goes with it.
    await api.delete(f"/artifacts/images/{image['id']}", headers=ALICE)
    await settled(artifacts_database, configuration(artifacts_database, tmp_path, **settings))
    assert await s3_bucket.everything(s3, bucket) == []


async def test_transfers_are_counted(artifacts_database: str, tmp_path: Path) -> None:
    application = create_app(load(environ=configuration(artifacts_database, tmp_path)))
    async with application.api.router.lifespan_context(application.api) as state:
        assert state is not None

        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            await application({**scope, "state": dict(state)}, receive, send)

        counted = cast(Resources, state["resources"]).metrics
        async with client(call) as api:
            path = path_of(await new(api, "images"), "image", kind="images")
            async with Paused(api, path, DATA) as upload:
                assert b'diptych_transfers{direction="in"} 1.0' in counted.render()
                assert (await upload.answer()).status_code == 200
            await api.get(path, headers={**ALICE, "Range": "bytes=0-99"})
        told = counted.render().decode()
        assert 'diptych_transfers{direction="in"} 0.0' in told
        assert 'diptych_transfers{direction="out"} 0.0' in told
        for line in (
            f'diptych_store_bytes_total{{direction="in",store="fast"}} {float(len(DATA))}',
            'diptych_store_bytes_total{direction="out",store="fast"} 100.0',
        ):
            assert line in told
