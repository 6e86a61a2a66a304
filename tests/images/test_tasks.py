"""/v2/tasks by HTTP. No worker runs here: what becomes of a task is in the tests of imports."""

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import jsonschema
import pytest
from diptych_common.sealing import Sealed, new_key
from diptych_images.wire.schemas import TASK as SCHEMA

from tests import databases
from tests.images.service import ADMIN, ALICE, READER, persona

URI = "https://example.com/image"
KEY = new_key()
TASKS = "/v2/tasks"
UNKNOWN = "3b2c3d4e-1111-4111-8111-111111111111"


def importing(source: str = URI, **properties: object) -> dict[str, Any]:
    """A request as Glance takes it."""
    given = {"import_from": source, "import_from_format": "qcow2", "image_properties": properties}
    return {"type": "import", "input": given}


async def query(url: str, statement: str, *values: object) -> list[dict[str, Any]]:
    async with databases.connection(url) as connection:
        return [dict(row) for row in await connection.fetch(statement, *values)]


async def create(api: httpx.AsyncClient, body: Any, **headers: str) -> httpx.Response:
    return await api.post(TASKS, json=body, headers={**ADMIN, **headers})


async def nothing_was_begun(url: str) -> bool:
    counts = [await query(url, f"SELECT * FROM {table}") for table in ("images", "tasks", "jobs")]
    return counts == [[], [], []]


async def test_a_task_imports_an_image(api, images_database: str) -> None:
    body = importing(name="x", disk_format="raw", container_format="ovf", tags=["t"], mine="yes")
    created = await create(api, body)
    assert created.status_code == 201, created.text
    task = created.json()
    jsonschema.validate(task, {"type": "object", **SCHEMA})
    assert created.headers["location"].endswith(f"/v2/tasks/{task['id']}")
    assert task == {
        "id": task["id"],
        "type": "import",
        "status": "pending",
        "owner": "service",
        "input": body["input"],
        "result": None,
        "message": "",
        "image_id": task["image_id"],
        "request_id": created.headers["x-openstack-request-id"],
        "user_id": "admin-of-service",
        "created_at": task["created_at"],
        "updated_at": task["created_at"],
        "self": f"/v2/tasks/{task['id']}",
        "schema": "/v2/schemas/task",
    }
    assert (await api.get(task["self"], headers=ADMIN)).json() == task

    image = (await api.get(f"/v2/images/{task['image_id']}", headers=ADMIN)).json()
    assert (image["status"], image["owner"]) == ("importing", "service")
    assert (image["name"], image["disk_format"], image["container_format"]) == ("x", "raw", "ovf")
    assert (image["tags"], image["mine"]) == (["t"], "yes")
    assert image["os_glance_import_task"] == task["id"]
    (job,) = await query(images_database, "SELECT * FROM jobs")
    payload = json.loads(job["payload"])
    assert (job["kind"], payload["stores"], payload["remove_image"]) == ("import", ["fast"], True)
    assert (payload["request"]["method"], payload["request"]["uri"]) == ("web-download", URI)
    told = await query(images_database, "SELECT event_type FROM outbox ORDER BY id")
    assert [row["event_type"] for row in told] == [
        "image.create",
        "image.update",
        "task.create",
        "task.run",
    ]


@pytest.mark.parametrize(
    ("given", "disk_format"),
    [
        ({"import_from_format": "vhd"}, "vhd"),
        ({"import_from_format": "vhd", "image_properties": {"disk_format": "raw"}}, "raw"),
        ({"import_from_format": ""}, None),
        ({"import_from_format": None, "image_properties": {}}, None),
        ({}, None),
    ],
)
async def test_what_the_data_is_may_be_left_open(
    api, given: dict[str, object], disk_format: str | None
) -> None:
    task = (await create(api, {"type": "import", "input": {"import_from": URI, **given}})).json()
    image = (await api.get(f"/v2/images/{task['image_id']}", headers=ADMIN)).json()
    assert (image["disk_format"], image["container_format"]) == (disk_format, "bare")


async def test_openstacksdk_imports_objects_by_tasks(custom_api, images_database: str) -> None:
    api = await custom_api(DEFAULT__ENABLED_IMPORT_METHODS="[swift-local]", JOBS__SECRET_KEYS=KEY)
    given = {"import_from": "images/my image", "image_properties": {"name": "my image"}}
    body = {"type": "import", "input": given}
    created = await create(api, body, **{"X-Auth-Token": "a-token"})
    assert created.status_code == 201, created.text
    assert created.json()["input"] == given
    (job,) = await query(images_database, "SELECT * FROM jobs")
    request = json.loads(job["payload"])["request"]
    assert (request["method"], request["swift_location"]) == ("swift-local", "images/my image")
    assert Sealed([KEY]).open(job["secret"])["token"] == "a-token"
    # Without a token nobody could read the object.
    assert (await create(api, body)).status_code == 400


WEB: dict[str, Any] = {"import_from": URI, "import_from_format": "raw", "image_properties": {}}
WRONG: list[tuple[object, int]] = [
    (None, 400), ([], 400), ("import", 400), ({}, 400), ([importing()], 400),
    ({"type": "import"}, 400), ({"input": WEB}, 400), ({**importing(), "owner": "x"}, 400),
    *(
        ({"type": kind, "input": WEB}, 400)
        for kind in ("api_image_import", "location_import", "export", "", None, 1, ["import"], {})
    ),
    *(({"type": "import", "input": given}, 400) for given in (None, [], "x", 1, {})),
    ({"type": "import", "input": {**WEB, "image_id": UNKNOWN}}, 400),
    *(
        (importing(source), 400)
        for source in (
            "", "x", "file:///etc/passwd", "filesystem:///etc/passwd", "swift+http://a/b",
            "ftp://a/b", "http://", "http://user:word@example.com/", "http://example.com:22/",
            "http://a\0/", "container/object", "http://" + "x" * 20_000,
        )
    ),
    *(
        ({"type": "import", "input": {**WEB, "import_from": source}}, 400)
        for source in (None, 1, True, [], [URI], {})
    ),
    *(
        ({"type": "import", "input": {**WEB, "import_from_format": form}}, 400)
        for form in ("x", 1, True, [], ["raw"], {}, "raw\0")
    ),
    *(
        ({"type": "import", "input": {**WEB, "image_properties": properties}}, 400)
        for properties in (None, [], "x", 1, {"name": 1}, {"mine": 1}, {"a\0": "b"}, {"a": "b\0"})
    ),
    (importing(disk_format="x"), 400),
    (importing(disk_format=None, min_ram=-1), 400),
    (importing(status="active"), 403),
    (importing(os_glance_failed_import="x"), 403),
    (importing(locations=[]), 403),
    (importing(**{f"p{number}": "x" for number in range(129)}), 413),
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(WRONG)))
async def test_what_cannot_be_begun(api, images_database: str, at: int) -> None:
    body, status = WRONG[at]
    refused = await create(api, body)
    assert refused.status_code == status, refused.text
    assert await nothing_was_begun(images_database)


async def test_an_id_that_is_taken(api, make_image, images_database: str) -> None:
    image = await make_image()
    assert (await create(api, importing(id=image["id"]))).status_code == 409
    assert await query(images_database, "SELECT * FROM tasks") == []
    assert await query(images_database, "SELECT * FROM jobs") == []


async def test_access_comes_first(api) -> None:
    for headers in (ALICE, READER):
        assert (await create(api, [], **headers)).status_code == 403
        for path in (TASKS, f"{TASKS}?limit=x", f"{TASKS}/{UNKNOWN}"):
            assert (await api.get(path, headers=headers)).status_code == 403
        assert (await api.delete(f"{TASKS}/x", headers=headers)).status_code == 403
    assert (await api.post(TASKS, json=importing())).status_code == 401


async def test_members_use_tasks_where_policy_lets_them(custom_api, tmp_path) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text('"tasks_api_access": "role:member"\n"get_tasks": "!"\n')
    api = await custom_api(OSLO_POLICY__POLICY_FILE=str(rules))
    own = (await create(api, importing(), **ALICE)).json()
    assert own["owner"] == "alpha"
    other = (await create(api, importing(), **persona("beta"))).json()
    assert (await api.get(own["self"], headers=ALICE)).status_code == 200
    assert (await api.get(other["self"], headers=ALICE)).status_code == 404
    assert (await api.get(TASKS, headers=ALICE)).status_code == 403
    assert (await create(api, importing(), **READER)).status_code == 403
    # To make an image one must be allowed to make images.
    assert (await create(api, importing(visibility="public"), **ALICE)).status_code == 403


@pytest.mark.parametrize("task_id", ["no-uuid", UNKNOWN, "%00", "x" * 300])
async def test_a_task_that_is_not_there(api, task_id: str) -> None:
    assert (await api.get(f"{TASKS}/{task_id}", headers=ADMIN)).status_code == 404


async def test_a_task_is_never_deleted(api) -> None:
    task = (await create(api, importing())).json()
    refused = await api.delete(task["self"], headers=ADMIN)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
    assert "expire" in refused.json()["message"]
    assert (await api.get(task["self"], headers=ADMIN)).status_code == 200
    other = await api.put(task["self"], headers=ADMIN)
    assert (other.status_code, other.headers["allow"]) == (405, "GET, DELETE")


async def test_the_list_tells_less_of_each_task(api) -> None:
    task = (await create(api, importing())).json()
    page = (await api.get(TASKS, headers=ADMIN)).json()
    keys = ("id", "type", "status", "owner", "created_at", "updated_at", "self", "schema")
    assert page == {
        "tasks": [{key: task[key] for key in keys}],
        "first": "/v2/tasks",
        "schema": "/v2/schemas/tasks",
    }


async def test_the_list_goes_on_after_a_marker(api) -> None:
    made = [(await create(api, importing())).json()["id"] for _ in range(5)]
    listed: list[str] = []
    url: str | None = f"{TASKS}?limit=2&sort_dir=asc&type=import"
    while url is not None:
        page = (await api.get(url, headers=ADMIN)).json()
        listed += [task["id"] for task in page["tasks"]]
        assert page["first"] == "/v2/tasks?limit=2&sort_dir=asc&type=import"
        url = page.get("next")
        assert url is None or dict(parse_qsl(urlsplit(url).query))["marker"] == listed[-1]
    assert listed == made


async def test_the_list_is_filtered(api, images_database: str) -> None:
    first, second = [(await create(api, importing())).json()["id"] for _ in range(2)]
    async with databases.connection(images_database) as connection:
        await connection.execute(
            "UPDATE tasks SET status = 'success', expires_at = '2100-01-01' WHERE id = $1", first
        )

    async def listed(parameters: str) -> list[str]:
        page = await api.get(f"{TASKS}?sort_dir=asc&{parameters}", headers=ADMIN)
        assert page.status_code == 200, page.text
        return [task["id"] for task in page.json()["tasks"]]

    assert await listed("status=success") == [first]
    assert await listed("status=pending") == [second]
    assert await listed("status=pending&status=success") == [first]
    assert await listed("status=&type=") == [first, second]
    assert await listed("owner=service") == [first, second]
    assert await listed("owner=alpha") == []
    assert await listed("unknown=x&limit=1&sort_key=id&sort_dir=asc") == [min(first, second)]
    assert await listed("limit=0") == []
    ended = (await api.get(f"{TASKS}/{first}", headers=ADMIN)).json()
    assert ended["expires_at"] == "2100-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "parameters",
    [
        "status=queued", "type=api_image_import", "sort_key=input", "sort_key=x", "sort_key=",
        "sort_dir=up", "sort_dir=", "limit=x", "limit=-1", "marker=x", f"marker={UNKNOWN}",
        "owner=%00", "%ff", "status=%00",
    ],
)  # fmt: skip
async def test_what_cannot_be_listed(api, parameters: str) -> None:
    refused = await api.get(f"{TASKS}?{parameters}", headers=ADMIN)
    assert refused.status_code == 400, refused.text


async def test_only_a_request_to_create_has_a_body(api) -> None:
    for path in (TASKS, f"{TASKS}/{UNKNOWN}"):
        answer = await api.request("GET", path, content=b"{}", headers=ADMIN)
        assert answer.status_code == 400
    assert (await api.post(TASKS, headers=ADMIN)).status_code == 400
