"""What hooks of a type do to the requests around which they run."""

from pathlib import Path

import httpx
import pytest

from tests.artifacts.sending import (
    ACTIVATE,
    DEACTIVATE,
    PUBLISH,
    changed,
    events,
    patch,
    path_of,
    replace,
    shown,
)
from tests.artifacts.service import ADMIN, ALICE, CustomApi

MINDING = "/artifacts/minding"


@pytest.fixture
async def api(custom_api: CustomApi) -> httpx.AsyncClient:
    return await custom_api(
        DEFAULT__ENABLED_ARTIFACT_TYPES="minding,hooks_artifact",
        DEFAULT__CUSTOM_ARTIFACT_TYPES_MODULES="tests.artifacts.minding_types",
    )


async def make(api: httpx.AsyncClient, **fields: str) -> httpx.Response:
    return await api.post(MINDING, json={"name": "x", **fields}, headers=ALICE)


async def test_a_hook_may_refuse(api: httpx.AsyncClient, artifacts_database: str) -> None:
    assert (await make(api, mind="refuse")).status_code == 403
    assert (await make(api, mind="break")).status_code == 400
    assert await events(artifacts_database) == []
    path = path_of((await make(api)).json(), kind="minding")
    for mind, status in (("refuse", 403), ("break", 400)):
        before = await changed(api, path, replace("/mind", mind))
        assert (await patch(api, path, replace("/mind", None))).status_code == status
        # Without operations there is nothing to mind.
        assert (await patch(api, path)).status_code == 200
        assert await shown(api, path) == before
        if mind == "refuse":
            assert (await api.delete(path, headers=ALICE)).status_code == 403
            path = path_of((await make(api, version="2")).json(), kind="minding")
    assert [action for action, _ in await events(artifacts_database)] == [
        *("create", "update", "create", "update")
    ]


async def test_a_hook_may_set_what_clients_cannot(api: httpx.AsyncClient) -> None:
    created = (await make(api)).json()
    assert (created["number"], created["stamp"]) == (0, "X")
    path = path_of(created, kind="minding")
    after = await changed(api, path, replace("/description", "x"), replace("/name", "y"))
    # It ran before the operations.
    assert (after["number"], after["stamp"]) == (2, "X")
    after = await changed(api, path, replace("/description", "x"))
    assert (after["number"], after["stamp"]) == (1, "Y")


async def test_what_a_hook_says_afterwards_undoes_nothing(
    api: httpx.AsyncClient, artifacts_database: str
) -> None:
    assert (await make(api, mind="complain")).status_code == 409
    ((_, payload),) = await events(artifacts_database)
    path = f"{MINDING}/{payload['id']}"
    assert (await patch(api, path, replace("/description", "new"))).status_code == 409
    assert (await shown(api, path))["description"] == "new"
    assert (await api.delete(path, headers=ALICE)).status_code == 409
    assert (await api.get(path, headers=ALICE)).status_code == 404


async def test_they_run_around_each_change(
    api: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("DIPTYCH_ARTIFACTS_SAMPLE_MARKS", str(marks))
    created = await api.post("/artifacts/hooks_artifact", json={"name": "x"}, headers=ALICE)
    assert created.json()["temp_file_path_create"] == str(marks / "create")
    path = path_of(created.json(), kind="hooks_artifact")
    assert (marks / "create").read_text().splitlines() == [
        "pre_create_hook was called",
        "post_create_hook was called",
    ]
    (marks / "create").unlink()
    refused = [replace("/description", "x"), ACTIVATE, replace("/status", "drafted")]
    assert (await patch(api, path, *refused, headers=ADMIN)).status_code == 403
    assert {mark.name for mark in marks.iterdir()} == {"update", "activate"}
    for mark in marks.iterdir():
        assert "post" not in mark.read_text()
        mark.unlink()
    after = await changed(
        api,
        path,
        *(replace("/description", "x"), ACTIVATE, DEACTIVATE, ACTIVATE, PUBLISH),
        headers=ADMIN,
    )
    moments = ("update", "activate", "deactivate", "reactivate", "publish")
    for moment in moments:
        # What the hook before a change returns is part of the change.
        assert after[f"temp_file_path_{moment}"] == str(marks / moment)
        assert (marks / moment).read_text().splitlines() == [
            f"pre_{moment}_hook was called",
            f"post_{moment}_hook was called",
        ]
    assert {mark.name for mark in marks.iterdir()} == {*moments}
    # A transition to where it is has a hook before it, and is none.
    await changed(api, path, ACTIVATE, headers=ADMIN)
    assert (marks / "activate").read_text().count("pre_activate_hook") == 2
    assert (marks / "activate").read_text().count("post_activate_hook") == 1
    assert (await api.delete(path, headers=ADMIN)).status_code == 204
    assert (marks / "delete").read_text().splitlines() == [
        "pre_delete_hook was called",
        "post_delete_hook was called",
    ]
