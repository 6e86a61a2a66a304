"""Artifacts: what creation takes and refuses, in which order, and how artifacts are shown."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests import databases
from tests.artifacts.sending import (
    ACTIVATE,
    PUBLISH,
    REQUIRED,
    changed,
    events,
    path_of,
    put_blob,
    replace,
    shown,
)
from tests.artifacts.service import ADMIN, ALICE, BOB, CustomApi, Make, persona

SAMPLES = "/artifacts/sample_artifact"
ANONYMOUS = {"X-User-Id": "nobody", "X-Roles": "reader"}


async def post(
    api: httpx.AsyncClient, path: str, body: object, headers: dict[str, str] = ALICE
) -> httpx.Response:
    return await api.post(path, json=body, headers=headers)


async def test_a_new_artifact(api: httpx.AsyncClient, artifacts_database: str) -> None:
    answer = await post(api, SAMPLES, {"name": "x"})
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    assert "location" not in answer.headers
    created = answer.json()
    assert UUID(created["id"]).version == 4
    assert created["created_at"] == created["updated_at"]
    assert created == {
        "id": created["id"],
        "name": "x",
        "owner": "alpha",
        "status": "drafted",
        "created_at": created["created_at"],
        "updated_at": created["updated_at"],
        "activated_at": None,
        "description": "",
        "tags": [],
        "metadata": {},
        "visibility": "private",
        "version": "0.0.0",
        "display_type_name": "Sample Artifact",
        **dict.fromkeys(("blob", "small_blob", "link1", "link2", "dict_validators")),
        **dict.fromkeys(("int1", "int2", "float1", "float2", "str1", "int_validators")),
        **dict.fromkeys(("string_mutable", "string_regex", "string_required")),
        "string_validators": None,
        "bool1": False,
        "bool2": False,
        **{field: [] for field in ("list_of_str", "list_of_int", "list_of_links")},
        "list_validators": [],
        **{field: {} for field in ("dict_of_str", "dict_of_int", "dict_of_links")},
        "dict_of_blobs": {},
        "system_attribute": "default",
        "metadata_attribute": "default",
        "__some_meta_information__": "X",
    }
    assert [*created][:13] == [
        *("id", "name", "owner", "status", "created_at", "updated_at", "activated_at"),
        *("description", "tags", "metadata", "visibility", "version", "display_type_name"),
    ]
    assert await shown(api, path_of(created), ALICE) == created
    ((action, payload),) = await events(artifacts_database)
    assert action == "create"
    assert payload["id"] == created["id"]


async def test_what_is_given_is_shown(api: httpx.AsyncClient, make_artifact: Make) -> None:
    given = {
        "name": "имя ☺",
        "version": "1.2.3-rc.1+build.5",
        "description": "",
        "tags": ["z", "a", "ß"],
        "metadata": {"k": "v"},
        "bool1": True,
        "int1": -(2**63),
        "int2": 2**63 - 1,
        "float1": 1e300,
        "float2": -0.5,
        "str1": "",
        "list_of_str": ["b", "a", "b"],
        "list_of_int": [3, 1, 2],
        "dict_of_str": {"k.l": "v", "/": "w"},
        "dict_of_int": {"k": 0},
        "string_regex": "deadBEEF",
        "metadata_attribute": "default",
    }
    created = await make_artifact(**given)
    assert {name: created[name] for name in given} == given
    assert await shown(api, path_of(created)) == created


async def test_null_and_empty_are_the_default(make_artifact: Make) -> None:
    created = await make_artifact(
        description=None,
        tags=None,
        metadata=None,
        version=None,
        bool1=None,
        int1=None,
        list_of_str=None,
        dict_of_str={},
        dict_validators={},
        metadata_attribute=None,
    )
    assert created["description"] == ""
    assert created["tags"] == created["list_of_str"] == []
    assert created["metadata"] == created["dict_of_str"] == {}
    assert created["dict_validators"] is None
    assert created["version"] == "0.0.0"
    assert created["bool1"] is False
    assert created["metadata_attribute"] == "default"


# What is answered depends on what is found first.
REFUSED: list[tuple[str, object, dict[str, str], int]] = [
    (SAMPLES, [], ALICE, 400),
    (SAMPLES, [{"name": "x"}], ALICE, 400),
    (SAMPLES, "text", ALICE, 400),
    (SAMPLES, None, ALICE, 400),
    (SAMPLES, {"name": ""}, ANONYMOUS, 403),
    ("/artifacts/none", {"name": "x"}, ANONYMOUS, 403),
    (SAMPLES, {}, ALICE, 400),
    ("/artifacts/none", {}, ALICE, 400),
    ("/artifacts/none", {"name": "x", "status": "drafted"}, ALICE, 400),
    ("/artifacts/none", {"name": "x"}, ALICE, 404),
    ("/artifacts/secrets", {"name": "x"}, ALICE, 404),
    ("/artifacts/all", {"name": "x"}, ALICE, 403),
    (SAMPLES, {"name": None}, ALICE, 400),
    (SAMPLES, {"name": ""}, ALICE, 400),
    (SAMPLES, {"name": 0}, ALICE, 400),
    (SAMPLES, {"name": ["x"]}, ALICE, 400),
    (SAMPLES, {"name": {"x": "y"}}, ALICE, 400),
    (SAMPLES, {"name": "a" * 256}, ALICE, 400),
    (SAMPLES, {"name": "x", "visibility": "private"}, ALICE, 400),
    (SAMPLES, {"name": "x", "visibility": None}, ALICE, 400),
    (SAMPLES, {"name": "x", "status": "drafted"}, ADMIN, 400),
    (SAMPLES, {"name": "x", "display_type_name": "Sample Artifact"}, ALICE, 400),
    (SAMPLES, {"name": "x", "version": ""}, ALICE, 400),
    (SAMPLES, {"name": "x", "version": "t" * 256}, ALICE, 400),
    (SAMPLES, {"name": "x", "version": "dummy"}, ALICE, 400),
    (SAMPLES, {"name": "x", "version": []}, ALICE, 400),
    (SAMPLES, {"name": "x", "none": "y"}, ALICE, 400),
    (SAMPLES, {"name": "x", "type_name": "images"}, ALICE, 400),
    (SAMPLES, {"name": "x", "__some_meta_information__": "X"}, ALICE, 400),
    (SAMPLES, {"name": "x", "blob": "y"}, ALICE, 400),
    (SAMPLES, {"name": "x", "blob": None}, ALICE, 400),
    (SAMPLES, {"name": "x", "dict_of_blobs": {}}, ALICE, 400),
    (SAMPLES, {"name": "x", "id": str(uuid4())}, ALICE, 403),
    (SAMPLES, {"name": "x", "owner": "beta"}, ALICE, 403),
    (SAMPLES, {"name": "x", "owner": "alpha"}, ADMIN, 403),
    (SAMPLES, {"name": "x", "created_at": "2000-01-01T00:00:00Z"}, ALICE, 403),
    (SAMPLES, {"name": "x", "updated_at": "2000-01-01T00:00:00Z"}, ALICE, 403),
    (SAMPLES, {"name": "x", "activated_at": None}, ALICE, 403),
    (SAMPLES, {"name": "x", "system_attribute": "y"}, ALICE, 403),
    (SAMPLES, {"name": "x", "system_attribute": "y", "int1": "z"}, ALICE, 400),
    (SAMPLES, {"name": "x", "id": "y"}, ALICE, 400),
]


async def test_refusals(api: httpx.AsyncClient, artifacts_database: str) -> None:
    for path, body, headers, status in REFUSED:
        answer = await post(api, path, body, headers)
        assert answer.status_code == status, (path, body, answer.text)
        assert answer.json()["code"] == status
    async with databases.connection(artifacts_database) as server:
        assert await server.fetchval("SELECT count(*) FROM artifacts") == 0
    assert await events(artifacts_database) == []


async def test_the_content_type_comes_first(api: httpx.AsyncClient) -> None:
    for given, body, status in (
        ("text/plain", '{"name": "x"}', 415),
        ("application/json-patch+json", "nonsense", 415),
        ("application/json", "nonsense", 400),
        ("application/json", "", 400),
        ("application/json", '{"name": "x"}', 403),
    ):
        headers = {**ANONYMOUS, "Content-Type": given}
        answer = await api.post("/artifacts/none", content=body, headers=headers)
        assert answer.status_code == status
    assert (await api.post(SAMPLES, content="{}", headers=ALICE)).status_code == 400


async def test_fields_without_which_there_is_no_artifact(custom_api: CustomApi) -> None:
    api = await custom_api(DEFAULT__ENABLED_ARTIFACT_TYPES="non_nullable_fields_artifact")
    path = "/artifacts/non_nullable_fields_artifact"
    field = "int_not_nullable_without_default"
    for body, status in (
        ({}, 400),
        ({field: None}, 400),
        ({field: 5, "int_not_nullable_with_default": "x"}, 400),
        ({field: 0}, 201),
    ):
        answer = await post(api, path, {"name": "x", **body})
        assert answer.status_code == status, body
    assert answer.json()["int_not_nullable_with_default"] == 0
    headers = {**ALICE, "Content-Type": "application/json-patch+json"}
    for operation, status in (
        (replace(f"/{field}", None), 400),
        (replace("/int_not_nullable_with_default", None), 200),
    ):
        patched = await api.patch(
            f"{path}/{answer.json()['id']}", json=[operation], headers=headers
        )
        assert patched.status_code == status


async def test_a_name_and_version_are_taken_once_in_each_scope(
    api: httpx.AsyncClient, make_artifact: Make
) -> None:
    first = await make_artifact(name="n", **REQUIRED)
    for version, status in (
        (None, 409),
        ("0.0", 409),
        ("0.0.0", 409),
        ("00", 409),
        ("0.0.1", 201),
        ("0.0.0+b", 201),
        ("0+b", 409),
        ("0.0.0+c", 201),
        ("0.0.0-b", 201),
    ):
        body = {"name": "n"} if version is None else {"name": "n", "version": version}
        answer = await post(api, SAMPLES, body)
        assert answer.status_code == status, (version, answer.text)
    others = await make_artifact(name="n", headers=BOB, **REQUIRED)
    assert (await post(api, "/artifacts/images", {"name": "n"})).status_code == 201
    await changed(api, path_of(first), ACTIVATE, PUBLISH, headers=ADMIN)
    # The owner may have a private one beside the public one; nobody another public one.
    again = await make_artifact(name="n", **REQUIRED)
    for other in (others, again):
        await changed(api, path_of(other), ACTIVATE, headers=ADMIN)
        answer = await api.patch(
            path_of(other),
            json=[PUBLISH],
            headers={**ADMIN, "Content-Type": "application/json-patch+json"},
        )
        assert answer.status_code == 409
        assert (await shown(api, path_of(other)))["visibility"] == "private"
    await changed(api, path_of(again), replace("/status", "deactivated"), headers=ADMIN)
    assert (await api.delete(path_of(first), headers=ADMIN)).status_code == 204
    await changed(api, path_of(others), PUBLISH, headers=ADMIN)


@pytest.mark.parametrize("owners", ["one", "many"])
async def test_of_64_creators_of_one_name_and_version_one_succeeds(
    api: httpx.AsyncClient, owners: str
) -> None:
    projects = [f"p{number}" if owners == "many" else "p" for number in range(64)]
    answers = await asyncio.gather(
        *(post(api, SAMPLES, {"name": "n", "version": "1"}, persona(one)) for one in projects)
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == ([201] * 64 if owners == "many" else [201, *[409] * 63])


async def test_a_number_of_artifacts_is_not_exceeded(custom_api: CustomApi) -> None:
    api = await custom_api(DEFAULT__MAX_ARTIFACT_NUMBER="5")
    answers = await asyncio.gather(
        *(post(api, SAMPLES, {"name": f"n{number}"}) for number in range(20))
    )
    assert sorted(answer.status_code for answer in answers) == [*[201] * 5, *[403] * 15]
    created = next(answer.json() for answer in answers if answer.status_code == 201)
    # One that would be a duplicate is told so all the same.
    assert (await post(api, SAMPLES, {"name": created["name"]})).status_code == 409
    assert (await post(api, SAMPLES, {"name": "n"}, ADMIN)).status_code == 201
    assert (await api.delete(path_of(created), headers=ALICE)).status_code == 204
    assert (await post(api, SAMPLES, {"name": "n"})).status_code == 201
    assert (await post(api, SAMPLES, {"name": "m"})).status_code == 403


async def test_a_new_artifact_may_be_too_large(
    api: httpx.AsyncClient, custom_api: CustomApi, artifacts_database: str
) -> None:
    """What is longest in any one field of a type with no limits of its own is still taken."""
    link = f"http://example.org/{'x' * 2029}"
    links = {"dict_of_links": {f"{number:0255}": link for number in range(255)}}
    metadata = {"metadata": {f"{number:0>255}": "😀" * 255 for number in range(255)}}
    more = {"list_of_links": [link] * 255}
    for number, fields in enumerate((links, metadata, more)):
        assert (await post(api, SAMPLES, {"name": f"n{number}", **fields})).status_code == 201
    told = len(await events(artifacts_database))
    refused = await post(api, SAMPLES, {"name": "x", **links, **more})
    assert refused.status_code == 413
    assert refused.json()["error"]["type"] == "TooLarge"
    listed = await api.get(f"{SAMPLES}?limit=1", headers=ALICE)
    assert listed.json()["total_count"] == 3
    assert len(await events(artifacts_database)) == told
    without = await custom_api(DEFAULT__MAX_ARTIFACT_SIZE="0")
    assert (await post(without, SAMPLES, {"name": "x", **links, **more})).status_code == 201


async def test_a_rule_may_ask_what_is_to_be_created(custom_api: CustomApi, tmp_path: Any) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("artifact:create: \"'ok':%(name)s\"\n")
    api = await custom_api(OSLO_POLICY__POLICY_FILE=str(policy))
    assert (await post(api, SAMPLES, {"name": "ok"})).status_code == 201
    assert (await post(api, SAMPLES, {"name": "no"})).status_code == 403
    assert (await post(api, "/artifacts/none", {"name": "no"})).status_code == 403
    assert (await post(api, "/artifacts/none", {"name": "ok"})).status_code == 404
    assert (await post(api, SAMPLES, {"name": {"deep": ["x"]}})).status_code == 403


async def test_who_sees_what(api: httpx.AsyncClient, make_artifact: Make) -> None:
    private = path_of(await make_artifact())
    public = await make_artifact(**REQUIRED)
    await changed(api, path_of(public), ACTIVATE, PUBLISH, headers=ADMIN)
    for headers, of_private in ((ALICE, 200), (BOB, 404), (ADMIN, 200), (ANONYMOUS, 404)):
        assert (await api.get(private, headers=headers)).status_code == of_private
        assert (await api.get(path_of(public), headers=headers)).status_code == 200
    for path, status in (
        (private.replace("sample_artifact", "images"), 404),
        (private.replace("sample_artifact", "none"), 404),
        (private.upper().replace("/ARTIFACTS/SAMPLE_ARTIFACT", SAMPLES), 200),
        (f"{SAMPLES}/{uuid4()}", 404),
        (f"{SAMPLES}/x", 404),
    ):
        assert (await api.get(path, headers=ALICE)).status_code == status
    body = await api.request("GET", private, headers=ALICE, content=b"x")
    assert body.status_code == 400


async def test_all_shows_what_every_type_has(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    created = await make_artifact(name="x", str1="own")
    await put_blob(artifacts_database, created, "blob")
    through_all = await shown(api, path_of(created, kind="all"), ALICE)
    base = {name: created[name] for name in [*created][:13]}
    assert through_all == {
        **base,
        "type_name": "sample_artifact",
        "__some_meta_information__": "X",
    }
    assert (await api.get(path_of(created, kind="all"), headers=BOB)).status_code == 404


async def test_what_a_type_that_is_disabled_has_left(
    api: httpx.AsyncClient, make_artifact: Make, custom_api: CustomApi
) -> None:
    created = await make_artifact(name="x", str1="own")
    without = await custom_api(DEFAULT__ENABLED_ARTIFACT_TYPES="images")
    assert (await without.get(path_of(created), headers=ALICE)).status_code == 404
    through_all = await shown(without, path_of(created, kind="all"), ALICE)
    assert through_all["type_name"] == "sample_artifact"
    assert "str1" not in through_all


async def test_blobs_are_shown_without_where_they_are(
    api: httpx.AsyncClient, make_artifact: Make, artifacts_database: str
) -> None:
    created = await make_artifact()
    path = path_of(created)
    await put_blob(artifacts_database, created, "blob")
    await put_blob(artifacts_database, created, "blob", status="saving")
    await put_blob(artifacts_database, created, "small_blob", status="saving")
    key = f"a/b {'k' * 900}"
    await put_blob(artifacts_database, created, "dict_of_blobs", key, external=True)
    await put_blob(artifacts_database, created, "dict_of_blobs", "in/side")
    there = await shown(api, path)
    assert there["blob"] == {
        "url": f"{path}/blob",
        "status": "active",
        "size": 3,
        "md5": "sum",
        "sha1": None,
        "sha256": None,
        "external": False,
        "content_type": "text",
    }
    assert there["small_blob"]["status"] == "saving"
    assert there["dict_of_blobs"][key]["url"] == "http://files.example/x"
    assert there["dict_of_blobs"][key]["external"] is True
    assert there["dict_of_blobs"]["in/side"]["url"] == f"{path}/dict_of_blobs/in/side"
    assert set(there["dict_of_blobs"]) == {key, "in/side"}
