"""Archives whose files are in a folder once they are uploaded, or nothing is."""

import asyncio
from pathlib import Path

import httpx
import pytest

from tests import databases
from tests.artifacts.service import ALICE, OCTETS, CustomApi, configuration
from tests.artifacts.uploads import Paused, digests, files, rows, settled, zipped
from tests.waiting import until

UNPACKING = {"DEFAULT__ENABLED_ARTIFACT_TYPES": "unpacking_artifact"}

NARROW = """
name = "narrow"
display_name = "Narrow"
unpack.zip.into = "content"

[fields.zip]
kind = "Blob"

[fields.content]
kind = "Blob"
shape = "dict"
max_folder_size = 1000
validators = { MaxDictSize = 3 }
"""


@pytest.fixture
async def unpacking(custom_api: CustomApi) -> httpx.AsyncClient:
    return await custom_api(**UNPACKING)


async def made(api: httpx.AsyncClient) -> str:
    """The path of a new artifact."""
    created = await api.post("/artifacts/unpacking_artifact", json={"name": "a"}, headers=ALICE)
    assert created.status_code == 201, created.text
    return f"/artifacts/unpacking_artifact/{created.json()['id']}"


async def uploaded(api: httpx.AsyncClient, path: str, data: bytes) -> httpx.Response:
    return await api.put(f"{path}/zip", content=data, headers={**ALICE, **OCTETS})


async def test_the_files_of_an_archive_are_in_the_folder(unpacking: httpx.AsyncClient) -> None:
    members = {"aaa.txt": b"a", "folder1/bbb.txt": b"b" * 300_000, "folder1/folder2/c": b""}
    archive = zipped(members)
    path = await made(unpacking)
    answer = await uploaded(unpacking, path, archive)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert document["zip"]["sha256"] == digests(archive)["sha256"]
    assert document["content"].keys() == members.keys()
    for key, data in members.items():
        blob = document["content"][key]
        assert (blob["status"], blob["size"]) == ("active", len(data))
        assert {name: blob[name] for name in digests(data)} == digests(data)
        assert blob["url"] == f"{path}/content/{key}"
        assert (await unpacking.get(f"{path}/content/{key}", headers=ALICE)).content == data
    assert (await unpacking.get(f"{path}/zip", headers=ALICE)).content == archive
    assert (await unpacking.get(path, headers=ALICE)).json() == document


async def test_another_archive_replaces_the_files_of_the_first(
    unpacking: httpx.AsyncClient, artifacts_database: str, tmp_path: Path
) -> None:
    path = await made(unpacking)
    await uploaded(unpacking, path, zipped({"a": b"1", "b": b"1"}))
    answer = await uploaded(unpacking, path, zipped({"b": b"2", "c": b"2"}))
    assert answer.json()["content"].keys() == {"b", "c"}
    assert (await unpacking.get(f"{path}/content/b", headers=ALICE)).content == b"2"
    assert (await unpacking.get(f"{path}/content/a", headers=ALICE)).status_code == 404
    # Nothing is left of the first.
    await settled(artifacts_database, configuration(artifacts_database, tmp_path, **UNPACKING))
    assert len(files(tmp_path)) == 3
    assert [status for status, _ in await rows(artifacts_database)] == ["active"] * 3


@pytest.mark.parametrize(
    "archives",
    [
        pytest.param([{"a": b"1", "b": b"1"}, {"c": b"2", "d": b"2"}], id="keys"),
        pytest.param([{"a": bytes(900)}, {"b": bytes(500), "c": bytes(500)}], id="bytes"),
    ],
)
async def test_another_archive_has_the_whole_folder_to_itself(
    custom_api: CustomApi, tmp_path: Path, archives: list[dict[str, bytes]]
) -> None:
    (tmp_path / "types").mkdir()
    (tmp_path / "types/narrow.toml").write_text(NARROW)
    api = await custom_api(
        DEFAULT__ENABLED_ARTIFACT_TYPES="narrow",
        DEFAULT__ARTIFACT_TYPES_DIRECTORY=str(tmp_path / "types"),
    )
    created = await api.post("/artifacts/narrow", json={"name": "a"}, headers=ALICE)
    path = f"/artifacts/narrow/{created.json()['id']}"
    for members in archives:
        answer = await uploaded(api, path, zipped(members))
        assert answer.status_code == 200, answer.text
        assert answer.json()["content"].keys() == members.keys()
    # It has the room that the folder has, not more.
    for members, status in (
        ({str(number): b"" for number in range(4)}, 400),
        ({"a": bytes(500), "b": bytes(501)}, 413),
    ):
        assert (await uploaded(api, path, zipped(members))).status_code == status
    # What is uploaded beside it has what it leaves.
    for key, data in (("more", bytes(999)), ("less", b"")):
        answer = await api.put(f"{path}/content/{key}", content=data, headers={**ALICE, **OCTETS})
        assert answer.status_code == (413 if data else 200), answer.text


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"no archive", 400, id="no archive"),
        pytest.param(zipped({str(one): b"" for one in range(256)}), 400, id="256 files"),
        pytest.param(zipped({"good": b"1", "../bad": b"2"}), 400, id="a place outside"),
        pytest.param(zipped({"a": b"", "b": bytes(9_000_000)}), 413, id="a bomb"),
        pytest.param(zipped({"a": b"", "b": bytes(11_000_000)}), 413, id="a file too large"),
        pytest.param(bytes(100_001), 413, id="an archive too large"),
        pytest.param(zipped({"a": b"1" * 99, "b": b"2" * 99})[:-30], 400, id="cut off"),
    ],
)
async def test_an_archive_that_is_refused_leaves_nothing(
    unpacking: httpx.AsyncClient,
    artifacts_database: str,
    tmp_path: Path,
    data: bytes,
    status: int,
) -> None:
    path = await made(unpacking)
    before = (await uploaded(unpacking, path, zipped({"a": b"1"}))).json()
    there, known = files(tmp_path), await rows(artifacts_database)
    answer = await uploaded(unpacking, path, data)
    assert answer.status_code == status, answer.text
    assert (await unpacking.get(path, headers=ALICE)).json() == before
    assert (await unpacking.get(f"{path}/content/a", headers=ALICE)).content == b"1"
    assert files(tmp_path) == there
    assert await rows(artifacts_database) == known
    # It is free for the next.
    assert (await uploaded(unpacking, path, zipped({}))).json()["content"] == {}


async def test_files_count_for_the_quota(custom_api: CustomApi, tmp_path: Path) -> None:
    api = await custom_api(**UNPACKING, DEFAULT__MAX_UPLOADED_DATA="1000")
    path = await made(api)
    refused = await uploaded(api, path, zipped({"a": b"1", "b": b"2" * 999}))
    assert refused.status_code == 413, refused.text
    assert files(tmp_path) == set()
    assert (await uploaded(api, path, zipped({"a": b"1" * 500}))).status_code == 200
    # What is being replaced counts until it is.
    assert (await uploaded(api, path, zipped({"a": b"1" * 500}))).status_code == 413


async def test_the_folder_is_the_services(unpacking: httpx.AsyncClient) -> None:
    path = await made(unpacking)
    answer = await unpacking.put(f"{path}/content/a", content=b"1", headers={**ALICE, **OCTETS})
    assert answer.status_code == 403


async def test_archives_that_are_uploaded_at_once_do_not_mix(
    unpacking: httpx.AsyncClient,
) -> None:
    path = await made(unpacking)
    answers = await asyncio.gather(
        *(
            uploaded(unpacking, path, zipped({f"{number}-{one}": b"1" for one in range(5)}))
            for number in range(6)
        )
    )
    assert {one.status_code for one in answers} <= {200, 409}
    shown = (await unpacking.get(path, headers=ALICE)).json()
    assert shown in [one.json() for one in answers if one.status_code == 200]
    assert len(shown["content"]) == 5
    assert len({key.partition("-")[0] for key in shown["content"]}) == 1


async def test_an_archive_whose_artifact_goes_is_given_up(
    unpacking: httpx.AsyncClient, artifacts_database: str, tmp_path: Path
) -> None:
    """As it does when this process was frozen for longer than the uploads' leases."""
    path = await made(unpacking)
    artifact_id = path.rpartition("/")[2]
    async with (
        databases.connection(artifacts_database) as server,
        databases.connection(artifacts_database) as watching,
        Paused(unpacking, f"{path}/zip", zipped({"a": b"1", "b": b"2"})) as upload,
    ):

        async def is_waiting() -> bool:
            return bool(
                await watching.fetchval(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )

        async with server.transaction():
            await server.fetch("SELECT FROM artifacts WHERE id = $1 FOR UPDATE", artifact_id)
            upload.go_on.set()
            # The archive is there; it is the first file that needs the artifact.
            await until(is_waiting)
            await server.execute("DELETE FROM artifacts WHERE id = $1", artifact_id)
        answer = await upload.answer()
    assert answer.status_code == 503, answer.text
    assert "Try again" in answer.text
    assert files(tmp_path) == set()
