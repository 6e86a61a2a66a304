"""/quotas and /project-quotas."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests import databases
from tests.artifacts.service import ADMIN, ALICE, BOB, CustomApi, persona

SAMPLES = "/artifacts/sample_artifact"
CONFIGURED = {"max_artifact_number": -1, "max_uploaded_data": -1}


def quotas(**projects: dict[str, int]) -> list[dict[str, Any]]:
    """As documents have them."""
    return [
        {
            "project_id": project,
            "project_quotas": [
                {"quota_name": name, "quota_value": value} for name, value in values.items()
            ],
        }
        for project, values in projects.items()
    ]


async def put(api: httpx.AsyncClient, body: object) -> httpx.Response:
    return await api.put("/quotas", json=body, headers=ADMIN)


async def of_project(api: httpx.AsyncClient, path: str, headers: dict[str, str]) -> dict[str, int]:
    answer = await api.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    (project,) = answer.json()
    return {one["quota_name"]: one["quota_value"] for one in project["project_quotas"]}


async def test_quotas_are_set_and_shown(api: httpx.AsyncClient) -> None:
    empty = await api.get("/quotas", headers=ADMIN)
    assert empty.json() == {"quotas": [], "global_quotas": CONFIGURED}
    answer = await put(
        api,
        quotas(
            beta={"max_artifact_number": 10},
            alpha={"max_uploaded_data:images": 0, "max_artifact_number": -1, "ünknown": 5},
        ),
    )
    assert (answer.status_code, answer.text) == (200, "null")
    shown = await api.get("/quotas", headers=ADMIN)
    assert shown.json()["quotas"] == quotas(
        alpha={"max_artifact_number": -1, "max_uploaded_data:images": 0, "ünknown": 5},
        beta={"max_artifact_number": 10},
    )


async def test_those_of_a_project_are_replaced_together(api: httpx.AsyncClient) -> None:
    await put(api, quotas(alpha={"max_artifact_number": 1, "x": 1}, beta={"x": 1}, gamma={"x": 1}))
    await put(api, quotas(alpha={"x": 2}, gamma={}))
    shown = await api.get("/quotas", headers=ADMIN)
    assert shown.json()["quotas"] == quotas(alpha={"x": 2}, beta={"x": 1})
    # Of what is named twice the last counts.
    twice = [*quotas(alpha={"x": 3, "y": 3}), *quotas(alpha={"x": 4})]
    twice[1]["project_quotas"] *= 2
    assert (await put(api, twice)).status_code == 200
    assert (await put(api, [])).status_code == 200
    shown = await api.get("/quotas", headers=ADMIN)
    assert shown.json()["quotas"] == quotas(alpha={"x": 4}, beta={"x": 1})


async def test_a_project_sees_its_limits(custom_api: CustomApi) -> None:
    api = await custom_api(
        DEFAULT__MAX_ARTIFACT_NUMBER="100", **{"ARTIFACT_TYPE:IMAGES__MAX_UPLOADED_DATA": "7"}
    )
    configured = {"max_artifact_number": 100, "max_uploaded_data": -1}
    everybody = await api.get("/quotas", headers=ADMIN)
    assert everybody.json()["global_quotas"] == {**configured, "max_uploaded_data:images": 7}
    # Glare fails where none were set for the project.
    limits = {**configured, "max_uploaded_data:images": 7}
    assert await of_project(api, "/project-quotas", ALICE) == limits
    await put(api, quotas(alpha={"max_artifact_number": 3, "max_uploaded_data:images": -1, "x": 1}))
    limits |= {"max_artifact_number": 3, "max_uploaded_data:images": -1, "x": 1}
    assert await of_project(api, "/project-quotas", ALICE) == limits
    assert await of_project(api, "/project-quotas/alpha", ALICE) == limits
    assert await of_project(api, "/project-quotas/alpha", ADMIN) == limits
    answer = await api.get("/project-quotas/alpha", headers=ADMIN)
    assert [one["project_id"] for one in answer.json()] == ["alpha"]


async def test_who_may(api: httpx.AsyncClient) -> None:
    body = quotas(alpha={"x": 1})
    assert (await api.put("/quotas", json=body, headers=ALICE)).status_code == 403
    assert (await api.get("/quotas", headers=ALICE)).status_code == 403
    assert (await api.get("/project-quotas/alpha", headers=BOB)).status_code == 403
    assert (await api.get("/project-quotas", headers=persona(None))).status_code == 403
    assert (await api.get("/project-quotas/alpha", headers=persona(None))).status_code == 403
    assert (await api.get("/quotas", headers=ADMIN)).json()["quotas"] == []


ONE = {"quota_name": "x", "quota_value": 1}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"alpha": {"x": 1}},
        [1],
        [None],
        [[]],
        [{}],
        [{"project_id": "alpha"}],
        [{"project_quotas": [ONE]}],
        [{"project_id": "", "project_quotas": []}],
        [{"project_id": "a" * 256, "project_quotas": []}],
        [{"project_id": "a\x00", "project_quotas": []}],
        [{"project_id": 5, "project_quotas": []}],
        [{"project_id": "alpha", "project_quotas": {}}],
        [{"project_id": "alpha", "project_quotas": None}],
        *(
            [{"project_id": "alpha", "project_quotas": [quota]}]
            for quota in (
                1,
                {},
                {"quota_name": "x"},
                {"quota_value": 1},
                {"quota_name": "", "quota_value": 1},
                {"quota_name": "x" * 256, "quota_value": 1},
                {"quota_name": "a:b:c", "quota_value": 1},
                {"quota_name": "x\x00", "quota_value": 1},
                {"quota_name": None, "quota_value": 1},
                {"quota_name": "x", "quota_value": -2},
                {"quota_name": "x", "quota_value": "1"},
                {"quota_name": "x", "quota_value": 1.5},
                {"quota_name": "x", "quota_value": True},
                {"quota_name": "x", "quota_value": None},
                {"quota_name": "x", "quota_value": 2**63},
            )
        ),
    ],
    ids=lambda body: json.dumps(body)[:60],
)
async def test_what_cannot_be_set(api: httpx.AsyncClient, body: object) -> None:
    assert (await put(api, body)).status_code == 400
    assert (await api.get("/quotas", headers=ADMIN)).json()["quotas"] == []


async def test_bodies_that_are_no_json(api: httpx.AsyncClient) -> None:
    for headers, status in (
        ({}, 400),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json"}, 400),
    ):
        answer = await api.put("/quotas", content=b"[", headers={**ADMIN, **headers})
        assert answer.status_code == status


async def test_longest_names_and_largest_values(api: httpx.AsyncClient) -> None:
    every = quotas(**{"p" * 255: {"n" * 127 + ":" + "t" * 127: 2**63 - 1}})
    assert (await put(api, every)).status_code == 200
    assert (await api.get("/quotas", headers=ADMIN)).json()["quotas"] == every


async def test_quotas_limit_what_is_created(custom_api: CustomApi) -> None:
    api = await custom_api(
        DEFAULT__MAX_ARTIFACT_NUMBER="2",
        **{"ARTIFACT_TYPE:SAMPLE_ARTIFACT__MAX_ARTIFACT_NUMBER": "1"},
    )

    async def create(name: str, headers: dict[str, str], path: str = SAMPLES) -> int:
        return (await api.post(path, json={"name": name}, headers=headers)).status_code

    assert [await create(name, ALICE) for name in "ab"] == [201, 403]
    assert [await create(name, ALICE, "/artifacts/images") for name in "cd"] == [201, 403]
    await put(api, quotas(alpha={"max_artifact_number:sample_artifact": -1}))
    assert await create("e", ALICE) == 403  # two of all types are as many as there may be
    await put(
        api,
        quotas(alpha={"max_artifact_number": 4, "max_artifact_number:sample_artifact": -1}),
    )
    assert [await create(name, ALICE) for name in "fgh"] == [201, 201, 403]
    # Others have what the settings say, and administrators are no exception.
    assert [await create(name, ADMIN) for name in "ab"] == [201, 403]
    await put(api, quotas(alpha={}))
    assert await create("i", ALICE) == 403


async def test_what_is_created_at_a_time_is_counted_one_by_one(api: httpx.AsyncClient) -> None:
    await put(api, quotas(alpha={"max_artifact_number": 5}))
    answers = await asyncio.gather(
        *(api.post(SAMPLES, json={"name": f"x{at}"}, headers=ALICE) for at in range(12))
    )
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [403] * 7
    assert (await api.get(SAMPLES, headers=ALICE)).json()["total_count"] == 5


async def test_those_who_set_at_a_time_do_so_one_by_one(api: httpx.AsyncClient) -> None:
    bodies = [
        quotas(alpha={f"a{at}": at, "x": at}, beta={f"b{at}": at, "x": at}) for at in range(10)
    ]
    answers = await asyncio.gather(
        *(put(api, body[:: 1 - at % 2 * 2]) for at, body in enumerate(bodies))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert (await api.get("/quotas", headers=ADMIN)).json()["quotas"] in bodies


async def test_the_event_says_what_was_set(api: httpx.AsyncClient, artifacts_database: str) -> None:
    body = quotas(alpha={"x": 1})
    answer = await put(api, body)
    async with databases.connection(artifacts_database) as server:
        (event,) = await server.fetch("SELECT event_type, payload, request_id FROM outbox")
    assert event["event_type"] == "artifact.artifact:set_quotas"
    assert json.loads(event["payload"]) == {"quotas": body}
    assert event["request_id"] == answer.headers["x-openstack-request-id"]
