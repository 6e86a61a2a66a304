"""Paths and methods that there are not, for all routes of the artifacts service."""

import re

import httpx
import pytest
from dev.routes import places

from tests.artifacts.service import ADMIN, ALICE, Make

AN_ID = "0b6c9bd1-6d27-4b04-a4ce-9c4fd86f7d1f"
VALUES = {
    "type_name": "images",
    "artifact_id": AN_ID,
    "blob": "image",
    "project_id": "alpha",
}
VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def methods_by_path() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for place in places("artifacts"):
        method, path = place.operation.split(" ")
        path = re.sub(r"\{(\w+)(:\w+)?\}", lambda part: VALUES[part[1]], path)
        found.setdefault(path, set()).add(method)
    return found


PATHS = methods_by_path()


@pytest.mark.parametrize("path", PATHS)
async def test_methods_that_a_path_has_not(api: httpx.AsyncClient, path: str) -> None:
    for method in (*VERBS, "OPTIONS"):
        if method in PATHS[path]:
            continue
        answer = await api.request(method, path, headers=ADMIN)
        assert answer.status_code == 405
        assert answer.headers["allow"].split(", ") == [
            verb for verb in VERBS if verb in PATHS[path]
        ]
        assert not answer.content if method == "HEAD" else answer.json()["code"] == 405


def test_only_blobs_are_asked_for_by_head() -> None:
    with_head = [path for path in PATHS if "HEAD" in PATHS[path]]
    assert with_head == [f"/artifacts/images/{AN_ID}/image"]


@pytest.mark.parametrize(
    "path",
    [
        "/schemas/",
        "/schemas/images/",
        "/artifacts",
        "/artifacts/",
        "/artifacts/images/",
        "/quotas/",
        "/quotas/alpha",
        "/project-quotas/",
        "/project-quotas/alpha/beta",
        "/v1/artifacts/images",
        "/artifacts.json",
        "/schemas.json",
    ],
)
async def test_paths_that_are_not_there(api: httpx.AsyncClient, path: str) -> None:
    for method in VERBS:
        answer = await api.request(method, path, headers=ADMIN)
        assert answer.status_code == 404, method
    assert (await api.request("BREW", path, headers=ADMIN)).status_code == 501


async def test_a_suffix_is_part_of_the_name(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifact = await make_artifact()
    path = f"/artifacts/sample_artifact/{artifact['id']}"
    assert (await api.get(path, headers=ALICE)).status_code == 200
    assert (await api.get(f"{path}.json", headers=ALICE)).status_code == 404
    assert (await api.get("/artifacts/sample_artifact.json", headers=ALICE)).status_code == 404


async def test_slashes_in_a_row_are_one(api: httpx.AsyncClient, make_artifact: Make) -> None:
    artifact = await make_artifact()
    path = f"/artifacts//sample_artifact///{artifact['id']}"
    for many in (f"http://artifacts.example/{path}", path):
        answer = await api.get(many, headers=ALICE)
        assert answer.status_code == 200
        assert answer.json() == artifact
    assert (await api.get("http://artifacts.example//schemas//", headers=ALICE)).status_code == 404
    # A slash at the end names a blob, which has no name then.
    assert (await api.get(f"{path}//", headers=ALICE)).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/schemas/%00",
        "/artifacts/%00",
        "/artifacts/images/%00",
        f"/artifacts/images/{AN_ID}/image/%00",
        "/project-quotas/%00",
    ],
)
async def test_a_path_without_meaning_is_refused(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(path, headers=ADMIN)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "The path holds the character U+0000."


@pytest.mark.parametrize(
    "path",
    [
        "/artifacts/%FF",
        "/artifacts/images/%FF",
        "/schemas/%ED%A0%80",
        "/project-quotas/%FF",
        f"/project-quotas/{'x' * 3000}",
        f"/artifacts/images/{'0' * 3000}",
    ],
)
async def test_odd_paths_are_answered(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(path, headers=ADMIN)
    assert answer.status_code == (200 if "project-quotas" in path else 404)


async def test_a_body_where_none_is_taken(api: httpx.AsyncClient) -> None:
    bodyless = [
        (method, path)
        for path, methods in PATHS.items()
        for method in methods & {"GET", "DELETE"}
        # As in Glare: to delete a blob, what comes with it is not looked at.
        if (method, path) != ("DELETE", f"/artifacts/images/{AN_ID}/image")
    ]
    for method, path in bodyless:
        answer = await api.request(method, path, content=b"{}", headers=ADMIN)
        assert answer.status_code == 400, (method, path)
