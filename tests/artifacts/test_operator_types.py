"""Types that are not built in, by HTTP: one whose hooks leave marks, and one from a file."""

from pathlib import Path

import httpx
import pytest
from diptych_artifacts_sample.hooks import FOLDER

from tests.artifacts.service import ADMIN, ALICE, OCTETS, PATCH, CustomApi


async def changed(
    api: httpx.AsyncClient, path: str, *changes: tuple[str, object], headers: dict[str, str] = ADMIN
) -> httpx.Response:
    patch = [{"op": "replace", "path": name, "value": value} for name, value in changes]
    return await api.patch(path, json=patch, headers={**headers, **PATCH})


@pytest.fixture
async def hooked(
    custom_api: CustomApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> httpx.AsyncClient:
    """The service with the type whose hooks leave marks in `tmp_path`/marks."""
    (tmp_path / "marks").mkdir()
    monkeypatch.setenv(FOLDER, str(tmp_path / "marks"))
    return await custom_api(DEFAULT__ENABLED_ARTIFACT_TYPES="hooks_artifact")


def marks_in(folder: Path) -> dict[str, list[str]]:
    return {one.name: one.read_text().splitlines() for one in (folder / "marks").iterdir()}


async def test_hooks_are_called_before_and_after(hooked: httpx.AsyncClient, tmp_path: Path) -> None:
    created = await hooked.post("/artifacts/hooks_artifact", json={"name": "a"}, headers=ALICE)
    assert created.status_code == 201, created.text
    # What a hook sets is there.
    assert created.json()["temp_file_path_create"] == str(tmp_path / "marks/create")
    path = f"/artifacts/hooks_artifact/{created.json()['id']}"

    changes = [
        ("/description", "for people"),
        ("/status", "active"),
        ("/status", "deactivated"),
        ("/status", "active"),
        ("/visibility", "public"),
    ]
    answer = await changed(hooked, path, *changes)
    assert answer.status_code == 200, answer.text
    for moment in ("update", "activate", "deactivate", "reactivate", "publish"):
        assert answer.json()[f"temp_file_path_{moment}"] == str(tmp_path / "marks" / moment)

    assert (
        await hooked.put(f"{path}/blob", content=b"1", headers={**ADMIN, **OCTETS})
    ).status_code == 200
    assert (await hooked.get(f"{path}/blob", headers=ADMIN)).content == b"1"
    assert (await hooked.delete(path, headers=ADMIN)).status_code == 204
    assert marks_in(tmp_path) == {
        moment: [f"pre_{moment}_hook was called", f"post_{moment}_hook was called"]
        for moment in (
            *("create", "update", "activate", "deactivate", "reactivate", "publish"),
            *("upload", "download", "delete"),
        )
    }


async def test_hooks_of_a_change_that_changes_nothing_are_not_told_of_it(
    custom_api: CustomApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await custom_api(DEFAULT__ENABLED_ARTIFACT_TYPES="hooks_artifact")
    created = await api.post("/artifacts/hooks_artifact", json={"name": "a"}, headers=ALICE)
    path = f"/artifacts/hooks_artifact/{created.json()['id']}"
    (tmp_path / "marks").mkdir()
    monkeypatch.setenv(FOLDER, str(tmp_path / "marks"))
    # The first sets the field that the hook of the second sets again.
    for value in ("a", "a"):
        answer = await changed(api, path, ("/description", value), headers=ALICE)
        assert answer.status_code == 200, answer.text
    assert marks_in(tmp_path)["update"] == [
        "pre_update_hook was called",
        "post_update_hook was called",
        "pre_update_hook was called",
    ]


async def test_a_type_from_a_file(custom_api: CustomApi, tmp_path: Path) -> None:
    types = tmp_path / "types"
    types.mkdir()
    (types / "charts.toml").write_text(
        """
        name = "charts"
        display_name = "Charts"

        [fields.chart]
        kind = "Blob"

        [fields.maturity]
        kind = "String"
        mutable = true
        default = "experimental"
        validators = { AllowedValues = ["experimental", "stable"] }
        """
    )
    api = await custom_api(
        DEFAULT__ENABLED_ARTIFACT_TYPES="charts", DEFAULT__ARTIFACT_TYPES_DIRECTORY=str(types)
    )
    created = await api.post("/artifacts/charts", json={"name": "nginx"}, headers=ALICE)
    assert created.status_code == 201, created.text
    assert created.json()["maturity"] == "experimental"
    assert created.json()["display_type_name"] == "Charts"
    path = f"/artifacts/charts/{created.json()['id']}"
    assert (await changed(api, path, ("/status", "active"))).status_code == 403  # no chart yet
    put = await api.put(f"{path}/chart", content=b"chart", headers={**ALICE, **OCTETS})
    assert put.status_code == 200
    assert (await changed(api, path, ("/status", "active"))).status_code == 200
    assert (await changed(api, path, ("/maturity", "stable"))).json()["maturity"] == "stable"
    assert (await changed(api, path, ("/maturity", "old"))).status_code == 400
