"""Folders: blobs by keys, as many and as large together as the folder takes."""

import asyncio
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests import databases
from tests.artifacts.sending import path_of
from tests.artifacts.service import ALICE, LOCATION, OCTETS, Make
from tests.artifacts.uploads import Paused, chunks, digests

UPLOAD = {**ALICE, **OCTETS}


async def put(
    api: httpx.AsyncClient, artifact: dict[str, Any], key: str, data: bytes, **more: Any
) -> httpx.Response:
    return await api.put(
        path_of(artifact, f"dict_of_blobs/{key}"), content=data, headers=UPLOAD, **more
    )


@pytest.mark.parametrize(
    "key",
    ["a", "folder1/bbb.txt", "a/b/", "ключ 図 🙂", "a.json", "%41?&=#", "x" * 900],
    ids=["plain", "path", "slashes", "letters", "suffix", "signs", "900"],
)
async def test_a_key_is_what_it_is(api: httpx.AsyncClient, make_artifact: Make, key: str) -> None:
    artifact = await make_artifact()
    path = quote(path_of(artifact, f"dict_of_blobs/{key}"))
    stored = await api.put(path, content=b"data", headers=UPLOAD)
    assert stored.status_code == 200, stored.text
    folder = stored.json()["dict_of_blobs"]
    assert list(folder) == [key]
    assert folder[key]["url"] == path_of(artifact, f"dict_of_blobs/{key}")
    assert folder[key]["sha1"] == digests(b"data")["sha1"]
    assert (await api.get(path, headers=ALICE)).content == b"data"


@pytest.mark.parametrize(
    "key",
    ["x" * 1001, "a\0b", "".join(chr(0x4E00 + number) for number in range(1000))],
    ids=["long", "nul", "many bytes"],
)
async def test_a_key_that_is_none(api: httpx.AsyncClient, make_artifact: Make, key: str) -> None:
    artifact = await make_artifact()
    path = quote(path_of(artifact, f"dict_of_blobs/{key}"))
    assert (await api.put(path, content=b"x", headers=UPLOAD)).status_code == 400
    assert (await api.get(path, headers=ALICE)).status_code in (400, 404)


async def test_all_of_a_folder_have_a_limit(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifact = await make_artifact()
    assert (await put(api, artifact, "a", bytes(1800))).status_code == 200
    # What is elsewhere takes no room.
    where = {"url": "http://example.com/large", "md5": None}
    located = await api.put(
        path_of(artifact, "dict_of_blobs/elsewhere"), json=where, headers={**ALICE, **LOCATION}
    )
    assert located.status_code == 200
    assert (await put(api, artifact, "b", bytes(199))).status_code == 200
    assert (await put(api, artifact, "c", bytes(1))).status_code == 200
    for data in (bytes(1), chunks(b"x")):
        assert (await put(api, artifact, "d", data)).status_code == 413  # type: ignore[arg-type]
    assert (await put(api, artifact, "d", b"")).status_code == 200
    shown = await api.get(f"/artifacts/sample_artifact/{artifact['id']}", headers=ALICE)
    assert sorted(shown.json()["dict_of_blobs"]) == ["a", "b", "c", "d", "elsewhere"]


async def test_an_upload_that_fails_leaves_no_key(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    artifact = await make_artifact()
    path = path_of(artifact, "dict_of_blobs/a")
    async with Paused(api, path, bytes(100)):
        shown = await api.get(f"/artifacts/sample_artifact/{artifact['id']}", headers=ALICE)
        assert shown.json()["dict_of_blobs"]["a"]["status"] == "saving"
    shown = await api.get(f"/artifacts/sample_artifact/{artifact['id']}", headers=ALICE)
    assert shown.json()["dict_of_blobs"] == {}


@pytest.mark.parametrize("is_announced", [True, False])
async def test_uploads_at_once_do_not_exceed_the_folder(
    api: httpx.AsyncClient, make_artifact: Make, is_announced: bool
) -> None:
    """Glare looks at what is there and writes afterwards."""
    artifact = await make_artifact()
    answers = await asyncio.gather(
        *(
            put(api, artifact, str(number), bytes(90) if is_announced else chunks(bytes(90), 30))  # type: ignore[arg-type]
            for number in range(40)
        )
    )
    shown = await api.get(f"/artifacts/sample_artifact/{artifact['id']}", headers=ALICE)
    sizes = [one["size"] for one in shown.json()["dict_of_blobs"].values()]
    assert sizes == [90] * [one.status_code for one in answers].count(200)
    assert {one.status_code for one in answers} == {200, 413}
    assert sum(sizes) <= 2000
    if is_announced:
        assert len(sizes) == 22


async def test_a_folder_takes_so_many_keys(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    artifact = await make_artifact(kind="heat_templates")
    where = {"url": "http://example.com/x", "md5": None}
    async with databases.connection(artifacts_database) as server:
        await server.execute(
            "INSERT INTO blobs (artifact_id, owner, type_name, field, key, status, external, url)"
            " SELECT $1, 'alpha', 'heat_templates', 'nested_templates', number, 'active', true, 'x'"
            " FROM generate_series(1, 255) AS number",
            artifact["id"],
        )
    path = path_of(artifact, "nested_templates/more", kind="heat_templates")
    assert (await api.put(path, content=b"x", headers=UPLOAD)).status_code == 400
    assert (await api.put(path, json=where, headers={**ALICE, **LOCATION})).status_code == 400
    again = path_of(artifact, "nested_templates/7", kind="heat_templates")
    assert (await api.put(again, content=b"x", headers=UPLOAD)).status_code == 200
    # Keys have 255 characters unless the type says otherwise.
    long = path_of(artifact, f"nested_templates/{'x' * 256}", kind="heat_templates")
    assert (await api.put(long, content=b"x", headers=UPLOAD)).status_code == 400
