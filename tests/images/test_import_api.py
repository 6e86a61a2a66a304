"""POST /v2/images/{id}/import by HTTP: what is refused and in which order, and what is begun.

No worker runs here: what a job does with an import is in the tests of imports.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
from diptych_common.sealing import Sealed, new_key
from starlette.types import ASGIApp

from tests import databases
from tests.images.service import (
    ADMIN,
    ALICE,
    BOB,
    OCTETS,
    READER,
    client,
    configuration,
    opened,
    persona,
)
from tests.images.test_races import changing

URI = "https://example.com/image"
ID = "1b2c3d4e-1111-4111-8111-111111111111"
TASK = "2b2c3d4e-1111-4111-8111-111111111111"
TOKEN = {"X-Auth-Token": "a-token"}
KEY = new_key()
ALL_METHODS = {
    "DEFAULT__ENABLED_IMPORT_METHODS": (
        "[glance-direct,web-download,copy-image,glance-download,swift-local]"
    ),
    "JOBS__SECRET_KEYS": KEY,
}
WEB = {"method": {"name": "web-download", "uri": URI}}
DIRECT = {"method": {"name": "glance-direct"}}
COPY = {"method": {"name": "copy-image"}}


@pytest.fixture(scope="module")
async def _everything(
    _images_schema: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[ASGIApp]:
    # Beside the service that other tests share.
    alone = {"BACKEND_DEFAULTS__FILESYSTEM_STORE_SHARED": "false"}
    folder = tmp_path_factory.mktemp("stores")
    environ = configuration(_images_schema[0], folder, **ALL_METHODS, **alone)
    async with opened(environ) as app:
        yield app


@pytest.fixture
async def api(_everything: ASGIApp, images_database: str) -> AsyncGenerator[httpx.AsyncClient]:
    """The service with two stores and every import method."""
    async with client(_everything) as opened_client:
        yield opened_client


async def columns_set(url: str, image: Mapping[str, Any], **columns: object) -> None:
    async with databases.connection(url) as connection:
        for name, value in columns.items():
            await connection.execute(
                f"UPDATE images SET {name} = $2 WHERE id = $1", image["id"], value
            )


async def query(url: str, statement: str, *values: object) -> list[dict[str, Any]]:
    async with databases.connection(url) as connection:
        return [dict(row) for row in await connection.fetch(statement, *values)]


async def begin(
    api: httpx.AsyncClient, image: Mapping[str, Any], body: Any, **headers: str
) -> httpx.Response:
    return await api.post(f"{image['self']}/import", json=body, headers={**ALICE, **headers})


async def shown(api: httpx.AsyncClient, image: Mapping[str, Any]) -> dict[str, Any]:
    return (await api.get(image["self"], headers=ADMIN)).json()


async def tasks_of(api: httpx.AsyncClient, image: Mapping[str, Any]) -> list[dict[str, Any]]:
    return (await api.get(f"{image['self']}/tasks", headers=ADMIN)).json()["tasks"]


# ------------------------------------------------------------------------------------------------
# What is refused, in Glance's order
# ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Something wrong with a request or its image, and what it is answered with."""

    status: int
    says: str
    method: Mapping[str, object] = field(default_factory=dict[str, object])
    body: Mapping[str, object] = field(default_factory=dict[str, object])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    columns: Mapping[str, object] = field(default_factory=dict[str, object])

    def touches(self) -> set[str]:
        parts = (self.method, self.body, self.headers, self.columns)
        return {name for part in parts for name in part}


BODY = {
    "all_stores is no boolean": Fault(400, "all_stores must be", body={"all_stores": "yes"}),
}
LOOKUP = {"unknown": Fault(404, "There is no image", headers=BOB)}
FORMATS = {
    "no container_format": Fault(409, "container_format", columns={"container_format": None}),
    "no disk_format": Fault(409, "disk_format", columns={"disk_format": None}),
}
POLICY = {"not allowed": Fault(403, "", headers=READER)}
LOCK = {"held": Fault(409, f"by task {TASK}", columns={"import_task": TASK})}
STORES = {
    "stores twice": Fault(
        400, "X-Image-Meta-Store", headers={"X-Image-Meta-Store": "cheap"}, body={"stores": ["a"]}
    ),
    "unknown store": Fault(409, "no store nowhere", body={"stores": ["nowhere"]}),
}
AN_ADMIN = {"X-Roles": "admin,member,reader"}

# By method: a good request's body, the columns of an image that it suits, and what can be wrong.
METHODS: dict[str, tuple[dict[str, Any], dict[str, str], dict[str, Fault]]] = {
    "web-download": (
        {"uri": URI},
        {"status": "queued"},
        {
            **BODY,
            **LOOKUP,
            "active": Fault(409, "is active", columns={"status": "active"}),
            "staged": Fault(409, "is uploading", columns={"status": "uploading"}),
            **FORMATS,
            **POLICY,
            **LOCK,
            **STORES,
            "no uri": Fault(400, "URI", method={"uri": None}),
            "local uri": Fault(400, "URI", method={"uri": "file:///etc/passwd"}),
            "filtered uri": Fault(400, "URI", method={"uri": "http://example.com:22/"}),
        },
    ),
    "glance-download": (
        {"glance_region": "north", "glance_image_id": ID},
        {"status": "queued"},
        {
            **BODY,
            **LOOKUP,
            "active": Fault(409, "is active", columns={"status": "active"}),
            "importing": Fault(409, "is importing", columns={"status": "importing"}),
            **FORMATS,
            "no region": Fault(400, "glance_region", method={"glance_region": None}),
            "no image": Fault(400, "glance_image_id", method={"glance_image_id": None}),
            "no id": Fault(400, "UUID", method={"glance_image_id": "x"}),
            **POLICY,
            **LOCK,
            **STORES,
            "no token": Fault(400, "token", headers={"X-Auth-Token": ""}),
        },
    ),
    "swift-local": (
        {"swift-location": "box/image"},
        {"status": "queued"},
        {
            **BODY,
            **LOOKUP,
            "active": Fault(409, "is active", columns={"status": "active"}),
            "no such format": Fault(
                400, "disk_format", body={"source_disk_format": "x"}, columns={"disk_format": "raw"}
            ),
            "other format": Fault(
                400, "has the", body={"source_disk_format": "vhd"}, columns={"disk_format": "raw"}
            ),
            **FORMATS,
            "no object": Fault(400, "container/object", method={"swift-location": "box"}),
            **POLICY,
            **LOCK,
            **STORES,
            "no token": Fault(400, "token", headers={"X-Auth-Token": ""}),
        },
    ),
    "glance-direct": (
        {},
        {"status": "uploading"},
        {
            **BODY,
            **LOOKUP,
            "active": Fault(409, "is active", columns={"status": "active"}),
            "queued": Fault(409, "is queued", columns={"status": "queued"}),
            **FORMATS,
            **POLICY,
            **LOCK,
            **STORES,
        },
    ),
    "copy-image": (
        {},
        {"status": "active"},
        {
            **BODY,
            **LOOKUP,
            "queued": Fault(409, "is queued", columns={"status": "queued"}),
            "deactivated": Fault(409, "is deactivated", columns={"status": "deactivated"}),
            **FORMATS,
            "not allowed": Fault(403, "", headers=ALICE),
            **LOCK,
            **STORES,
        },
    ),
}


@pytest.mark.parametrize(
    ("method", "fault"),
    [(method, fault) for method, (_, _, faults) in METHODS.items() for fault in faults],
)
async def test_the_first_fault_is_the_one_that_is_told(
    api, make_image, images_database: str, method: str, fault: str
) -> None:
    given, columns, faults = METHODS[method]
    image = await make_image()
    default = {**ALICE, **TOKEN, **(AN_ADMIN if method == "copy-image" else {})}
    first = faults[fault]
    later = [second for name, second in pairs(faults) if name == fault]
    for second in [Fault(0, ""), *later]:
        has = {**columns, "disk_format": "raw", "container_format": "bare", "import_task": None}
        has = {**has, **second.columns, **first.columns}
        await columns_set(images_database, image, **has)
        before = await shown(api, image)
        refused = await api.post(
            f"{image['self']}/import",
            json={
                "method": {"name": method, **given, **second.method, **first.method},
                **second.body,
                **first.body,
            },
            headers={**default, **second.headers, **first.headers},
        )
        assert refused.status_code == first.status, (second, refused.text)
        assert first.says in refused.json()["message"], (second, refused.text)
        assert await shown(api, image) == before
    assert await tasks_of(api, image) == []
    assert await query(images_database, "SELECT * FROM jobs") == []


def pairs(faults: Mapping[str, Fault]) -> list[tuple[str, Fault]]:
    """Each fault's name with every later fault that can be there together with it."""
    return [
        (first, faults[second])
        for first, second in combinations(faults, 2)
        if not faults[first].touches() & faults[second].touches()
    ]


# ------------------------------------------------------------------------------------------------
# What is begun
# ------------------------------------------------------------------------------------------------


async def make_staged(api: httpx.AsyncClient, make_image: Any) -> dict[str, Any]:
    image = await make_image()
    path = f"{image['self']}/stage"
    staged = await api.put(path, content=b"bytes", headers={**ALICE, **OCTETS})
    assert staged.status_code == 204, staged.text
    return image


async def test_an_import_is_begun(api, make_image, images_database: str) -> None:
    image = await make_image()
    begun = await begin(api, image, {**WEB, "stores": ["fast", "cheap"]})
    assert (begun.status_code, begun.content) == (202, b"")
    (task,) = await tasks_of(api, image)
    now = await shown(api, image)
    assert now["status"] == "importing"
    assert now["os_glance_import_task"] == task["id"]
    assert now["os_glance_importing_to_stores"] == "cheap,fast"
    assert now["os_glance_failed_import"] == ""
    assert task == {
        "id": task["id"],
        "type": "api_image_import",
        "status": "pending",
        "owner": "alpha",
        "input": {
            "image_id": image["id"],
            "import_req": {**WEB, "stores": ["fast", "cheap"]},
            "backend": ["fast", "cheap"],
        },
        "result": None,
        "message": "",
        "image_id": image["id"],
        "request_id": begun.headers["x-openstack-request-id"],
        "user_id": "member-of-alpha",
        "created_at": task["created_at"],
        "updated_at": task["created_at"],
        "expires_at": None,
        "deleted": False,
        "deleted_at": None,
    }
    (job,) = await query(images_database, "SELECT * FROM jobs")
    assert (job["kind"], job["dedup_key"], job["state"]) == ("import", task["id"], "waiting")
    assert job["secret"] is None
    payload = json.loads(job["payload"])
    assert payload["request"]["uri"] == URI
    del payload["request"]
    assert payload == {
        "task_id": task["id"],
        "image_id": image["id"],
        "stores": ["fast", "cheap"],
        "roles": ["member", "reader"],
        "project_id": "alpha",
        "request_id": begun.headers["x-openstack-request-id"],
        "remove_image": False,
        "os_hash_algo": None,
        "signature": None,
    }
    told = await query(
        images_database,
        "SELECT event_type, payload ->> 'id' AS subject, payload ->> 'status' AS status"
        " FROM outbox ORDER BY id DESC LIMIT 3",
    )
    assert [tuple(event.values()) for event in told] == [
        ("task.run", task["id"], "pending"),
        ("task.create", task["id"], "pending"),
        ("image.update", image["id"], "importing"),
    ]


@pytest.mark.parametrize("headers", [{}, {"X-Openstack-Request-Id": "req-mine"}])
async def test_the_task_has_the_id_of_the_request(api, make_image, headers) -> None:
    image = await make_image()
    begun = await begin(api, image, WEB, **headers)
    (task,) = await tasks_of(api, image)
    assert task["request_id"] == begun.headers["x-openstack-request-id"]


async def test_nothing_else_is_done_with_an_image_that_is_imported(api, make_image) -> None:
    image = await make_image()
    assert (await begin(api, image, WEB)).status_code == 202
    headers = {**ALICE, **OCTETS}
    for path in (image["file"], f"{image['self']}/stage"):
        assert (await api.put(path, content=b"x", headers=headers)).status_code == 409
    for body in (WEB, DIRECT, COPY):
        assert (await begin(api, image, body)).status_code == 409
    assert len(await tasks_of(api, image)) == 1


async def test_what_an_earlier_import_left_is_cleared(
    api, make_image, images_database: str
) -> None:
    image = await make_image()
    left = {
        "os_glance_failed_import": "cheap,fast",
        "os_glance_import_message": "It failed.",
        "mine": "stays",
    }
    await columns_set(images_database, image, properties=json.dumps(left))
    assert (await begin(api, image, {**WEB, "stores": ["fast"]})).status_code == 202
    now = await shown(api, image)
    assert now["os_glance_failed_import"] == "cheap"
    assert "os_glance_import_message" not in now
    assert now["mine"] == "stays"


async def test_two_simultaneous_imports_of_one_image(api, make_image) -> None:
    async def twice(image: dict[str, Any], first: Any, second: Any, **headers: str) -> list[int]:
        both = await asyncio.gather(
            begin(api, image, first, **headers), begin(api, image, second, **headers)
        )
        assert len(await tasks_of(api, image)) == 1
        return sorted(answer.status_code for answer in both)

    assert await twice(await make_image(), WEB, WEB) == [202, 409]
    assert await twice(await make_staged(api, make_image), DIRECT, DIRECT) == [202, 409]
    active = await make_image(data=b"x")
    copy = {**COPY, "stores": ["cheap"]}
    assert await twice(active, copy, copy, **AN_ADMIN) == [202, 400]
    assert (await begin(api, active, {**COPY, "all_stores": True}, **AN_ADMIN)).status_code == 409


async def test_many_at_once_begin_one(api, make_image, images_database: str) -> None:
    image = await make_image()
    answers = await asyncio.gather(*(begin(api, image, WEB) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [202, *[409] * 7]
    assert len(await query(images_database, "SELECT * FROM jobs")) == 1


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ("disk_format = NULL", 409, "disk_format"),
        ("status = 'saving'", 409, "is saving"),
        ("deleted_at = now()", 404, "There is no image"),
        (f"import_task = '{TASK}'", 409, f"by task {TASK}"),
    ],
    ids=lambda value: str(value).partition(" ")[0],
)
async def test_a_change_between_look_and_lock(
    api, make_image, images_database: str, change: str, status: int, says: str
) -> None:
    image = await make_image()
    async with changing(images_database, image, change):
        importing = asyncio.create_task(begin(api, image, WEB))
    refused = await importing
    assert refused.status_code == status
    assert says in refused.json()["message"]
    assert await query(images_database, "SELECT * FROM tasks") == []
    assert await query(images_database, "SELECT * FROM jobs") == []


async def test_data_that_still_comes_in_is_not_imported(api, make_image) -> None:
    image = await make_image()

    async def importing() -> AsyncGenerator[bytes]:
        yield b"x" * 100_000
        refused = await begin(api, image, DIRECT)
        assert (refused.status_code, await tasks_of(api, image)) == (409, [])
        assert "still being staged" in refused.json()["message"]

    path = f"{image['self']}/stage"
    staged = await api.put(path, content=importing(), headers={**ALICE, **OCTETS})
    assert staged.status_code == 204
    assert (await begin(api, image, DIRECT)).status_code == 202
    assert (await shown(api, image))["status"] == "importing"


# ------------------------------------------------------------------------------------------------
# Stores
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "header", "stores"),
    [
        ({}, None, "fast"),
        ({}, "cheap", "cheap"),
        ({"stores": []}, None, "fast"),
        ({}, "%63heap", "cheap"),
        ({"stores": ["cheap"]}, None, "cheap"),
        ({"stores": ["fast", "cheap", "fast"]}, None, "cheap,fast"),
        # As openstacksdk names a store.
        ({"stores": ["cheap"]}, "cheap", "cheap"),
        ({"all_stores": True}, None, "cheap,fast"),
        ({"all_stores": False, "stores": ["fast"]}, None, "fast"),
        ({"all_stores": True, "stores": ["fast"]}, None, 400),
        ({"all_stores": True}, "fast", 400),
        ({"stores": ["fast", "cheap"]}, "cheap", 400),
        ({"stores": ["fast"]}, "cheap", 400),
        ({"stores": ["os_glance_staging_store"]}, None, 409),
        ({}, "nowhere", 409),
    ],
)
async def test_where_data_is_imported_to(
    api, make_image, body: dict[str, Any], header: str | None, stores: str | int
) -> None:
    image = await make_image()
    headers = {} if header is None else {"X-Image-Meta-Store": header}
    begun = await begin(api, image, {**WEB, **body}, **headers)
    if isinstance(stores, int):
        assert begun.status_code == stores, begun.text
        return
    assert begun.status_code == 202, begun.text
    assert (await shown(api, image))["os_glance_importing_to_stores"] == stores
    (task,) = await tasks_of(api, image)
    assert ",".join(sorted(task["input"]["backend"])) == stores


async def test_read_only_stores_are_not_imported_to(custom_api) -> None:
    api = await custom_api(CHEAP__READ_ONLY="true")
    image = await new_image(api)
    assert (await begin(api, image, {**WEB, "stores": ["cheap"]})).status_code == 409
    assert (await begin(api, image, {**WEB, "all_stores": True})).status_code == 202
    assert (await shown(api, image))["os_glance_importing_to_stores"] == "fast"

    # In all that can be written it is already: nothing to do, and no task.
    active = await new_image(api)
    await api.put(active["file"], content=b"x", headers={**ALICE, **OCTETS})
    begun = await begin(api, active, {**COPY, "all_stores": True}, **AN_ADMIN)
    assert (begun.status_code, begun.content) == (202, b"")
    assert await tasks_of(api, active) == []
    assert "os_glance_importing_to_stores" not in await shown(api, active)


async def new_image(api: httpx.AsyncClient, **fields: object) -> dict[str, Any]:
    body = {"disk_format": "raw", "container_format": "bare", **fields}
    created = await api.post("/v2/images", json=body, headers=ALICE)
    assert created.status_code == 201, created.text
    return created.json()


async def test_a_copy_goes_where_the_image_is_not(api, make_image) -> None:
    image = await make_image(data=b"x")

    async def copy(body: dict[str, Any]) -> httpx.Response:
        return await begin(api, image, {**COPY, **body}, **AN_ADMIN)

    for body in ({}, {"stores": ["fast"]}, {"stores": ["cheap", "fast"]}):
        refused = await copy(body)
        assert refused.status_code == 400, body
        assert "in store fast already" in refused.json()["message"]
    assert (await copy({"all_stores": True})).status_code == 202
    now = await shown(api, image)
    assert (now["status"], now["stores"]) == ("active", "fast")
    assert now["os_glance_importing_to_stores"] == "cheap"
    # Nova goes on polling after a 400, and gives up after a 409.
    assert (await copy({"stores": ["cheap"]})).status_code == 400
    assert (await copy({"all_stores": True})).status_code == 409


async def test_where_there_is_one_store_nobody_sees_its_name(custom_api, tmp_path: Path) -> None:
    api = await custom_api(
        DEFAULT__ENABLED_BACKENDS="",
        GLANCE_STORE__DEFAULT_BACKEND="",
        GLANCE_STORE__FILESYSTEM_STORE_DATADIR=str(tmp_path / "fast"),
    )
    image = await new_image(api)
    partial = {**WEB, "all_stores_must_succeed": False}
    assert (await begin(api, image, partial)).status_code == 400
    # Who names stores all the same is not listened to, as in Glance.
    body = {**WEB, "stores": ["nowhere"], "all_stores": True}
    assert (await begin(api, image, body, **{"X-Image-Meta-Store": "no"})).status_code == 202
    now = await shown(api, image)
    assert now["os_glance_importing_to_stores"] == ""
    assert now["os_glance_failed_import"] == ""
    (task,) = await tasks_of(api, image)
    assert task["input"]["backend"] == [None]

    active = await new_image(api)
    await api.put(active["file"], content=b"x", headers={**ALICE, **OCTETS})
    assert (await begin(api, active, COPY, **AN_ADMIN)).status_code == 400
    everywhere = {**COPY, "all_stores": True}
    assert (await begin(api, active, everywhere, **AN_ADMIN)).status_code == 202
    assert await tasks_of(api, active) == []


# ------------------------------------------------------------------------------------------------
# Methods
# ------------------------------------------------------------------------------------------------

FIVE = ("glance-direct", "web-download", "copy-image", "glance-download", "swift-local")


@pytest.mark.parametrize(
    ("option", "key", "methods"),
    [
        (None, None, FIVE[:3]),
        ("[copy-image, glance-direct]", None, ("copy-image", "glance-direct")),
        (",".join(FIVE), None, FIVE[:3]),
        (",".join(FIVE), KEY, FIVE),
        ("web-download,of-a-plug-in,web-download", None, ("web-download",)),
        ("", None, ()),
    ],
    ids=["unset", "brackets", "all", "all-with-a-key", "unknown", "none"],
)
async def test_clients_are_told_of_what_works(
    custom_api, option: str | None, key: str | None, methods: tuple[str, ...]
) -> None:
    options: dict[str, str] = {}
    if option is not None:
        options["DEFAULT__ENABLED_IMPORT_METHODS"] = option
    if key is not None:
        options["JOBS__SECRET_KEYS"] = key
    api = await custom_api(**options)
    told = await api.get("/v2/info/import", headers=ALICE)
    assert told.json()["import-methods"]["value"] == list(methods)
    created = await api.post("/v2/images", json={}, headers=ALICE)
    header = created.headers.get("openstack-image-import-methods")
    assert header == (",".join(methods) or None)
    refused = set[str]()
    for name in (*FIVE, "of-a-plug-in"):
        answer = await begin(api, created.json(), {"method": {"name": name}})
        if answer.status_code == 400 and "no import method" in answer.json()["message"]:
            refused.add(name)
    assert refused == {*FIVE, "of-a-plug-in"} - {*methods}


@pytest.mark.parametrize(
    "method",
    [
        {"name": "glance-download", "glance_region": "north", "glance_image_id": ID},
        {"name": "swift-local", "swift-location": "box/image"},
    ],
    ids=lambda method: method["name"],
)
async def test_a_users_token_is_kept_sealed(
    api, make_image, images_database: str, method: dict[str, str]
) -> None:
    image = await make_image()
    assert (await begin(api, image, {"method": method}, **TOKEN)).status_code == 202
    (job,) = await query(images_database, "SELECT * FROM jobs")
    assert Sealed([KEY]).open(job["secret"]) == {"token": "a-token", "expires_at": ""}
    for table in ("jobs", "tasks", "outbox", "images"):
        for row in await query(images_database, f"SELECT * FROM {table}"):
            assert "a-token" not in str(row), table


async def test_what_swift_local_says_of_its_source(api, make_image) -> None:
    image = await make_image(disk_format=None, container_format=None)
    body = {
        "method": {"name": "swift-local", "swift-location": "box/image"},
        "source_disk_format": "vhd",
        "source_container_format": "bare",
        "os_type": "linux",
    }
    assert (await begin(api, image, body, **TOKEN)).status_code == 202
    now = await shown(api, image)
    assert (now["disk_format"], now["container_format"]) == ("vhd", "bare")
    assert (now["os_type"], now["status"]) == ("linux", "importing")

    # Of no meaning for another method.
    other = await make_image(disk_format=None)
    assert (await begin(api, other, {**body, **WEB})).status_code == 409


async def test_a_property_too_many_is_refused(custom_api) -> None:
    api = await custom_api(**ALL_METHODS, DEFAULT__IMAGE_PROPERTY_QUOTA="1")
    image = await new_image(api, mine="x")
    body = {"method": {"name": "swift-local", "swift-location": "a/b"}, "os_type": "linux"}
    assert (await begin(api, image, body, **TOKEN)).status_code == 413
    assert (await shown(api, image))["status"] == "queued"


async def test_a_source_does_not_say_what_its_user_may_not(custom_api, tmp_path: Path) -> None:
    rules = tmp_path / "protections"
    free = "create = @\nread = @\nupdate = @\ndelete = @\n"
    rules.write_text(f"[^os_type$]\n{free.replace('@', 'admin')}\n[.*]\n{free}")
    api = await custom_api(**ALL_METHODS, DEFAULT__PROPERTY_PROTECTION_FILE=str(rules))
    image = await new_image(api)
    body = {"method": {"name": "swift-local", "swift-location": "a/b"}, "os_type": "linux"}
    assert (await begin(api, image, body, **TOKEN)).status_code == 403
    assert (await shown(api, image))["status"] == "queued"


async def test_what_a_source_is_has_no_meaning_for_another_method(api, make_image) -> None:
    image = await make_image()
    assert (await begin(api, image, {**WEB, "os_type": "linux"})).status_code == 202
    assert "os_type" not in await shown(api, image)


async def test_an_expected_digest_goes_to_the_job(api, make_image, images_database: str) -> None:
    image = await make_image()
    expected = {"os_hash_algo": "md5", "os_hash_value": "AB" * 16}
    body = {"method": {**WEB["method"], "validation_data": expected}}
    assert (await begin(api, image, body)).status_code == 202
    (job,) = await query(images_database, "SELECT payload FROM jobs")
    assert json.loads(job["payload"])["request"]["expected"] == ["md5", "ab" * 16]


async def test_a_signed_address_is_in_no_task(api, make_image, images_database: str) -> None:
    image = await make_image()
    uri = "https://example.com/image?key=secret"
    assert (await begin(api, image, {"method": {**WEB["method"], "uri": uri}})).status_code == 202
    for table in ("tasks", "outbox", "images"):
        for row in await query(images_database, f"SELECT * FROM {table}"):
            assert "secret" not in str(row), table
    (job,) = await query(images_database, "SELECT payload FROM jobs")
    assert json.loads(job["payload"])["request"]["uri"] == uri


# ------------------------------------------------------------------------------------------------
# The end of it
# ------------------------------------------------------------------------------------------------


async def test_deleting_the_image_stops_its_import(api, make_image, images_database: str) -> None:
    image, other = await make_image(), await make_image()
    for each in (image, other):
        assert (await begin(api, each, WEB)).status_code == 202
    (task,) = await tasks_of(api, image)
    assert (await api.delete(image["self"], headers=ALICE)).status_code == 204
    jobs = await query(images_database, "SELECT dedup_key, cancelled FROM jobs ORDER BY id")
    assert [job["cancelled"] for job in jobs] == [True, False]
    assert jobs[0]["dedup_key"] == task["id"]
    assert (await api.get(f"{image['self']}/tasks", headers=ALICE)).status_code == 404


async def test_why_it_failed_is_told_to_the_owner(api, make_image, images_database: str) -> None:
    image = await make_image(visibility="community")
    left = {"os_glance_failed_import": "fast", "os_glance_import_message": "Nobody is there."}
    await columns_set(images_database, image, properties=json.dumps(left))
    for headers, is_told in ((ALICE, True), (READER, True), (ADMIN, True), (BOB, False)):
        one = (await api.get(image["self"], headers=headers)).json()
        page = await api.get("/v2/images?visibility=community", headers=headers)
        (listed,) = page.json()["images"]
        for seen in (one, listed):
            assert ("os_glance_import_message" in seen) is is_told
            assert seen["os_glance_failed_import"] == "fast"


# ------------------------------------------------------------------------------------------------
# Bad input
# ------------------------------------------------------------------------------------------------

CONTENTS: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "no JSON": (b"{", 400),
    "an array": (b"[]", 400),
    "an array of bodies": (json.dumps([WEB]).encode(), 400),
    "null": (b"null", 400),
    "not UTF-8": (b'{"method": "\xff"}', 400),
    "a surrogate": (b'{"method": {"name": "\\ud800"}}', 400),
    "U+0000": (b'{"method": {"name": "web-download", "uri": "http://a/\\u0000"}}', 400),
    "U+0000 unknown": (
        b'{"method": {"name": "web-download", "uri": "https://a.example/", "\\u0000": "\\u0000"}}',
        202,
    ),
    "deep": (b'{"method":' * 2000 + b"1" + b"}" * 2000, 400),
    "many values": (b"[" + b"1," * 30_000 + b"1]", 413),
    "huge": (b'{"a": "' + b"x" * (10 << 20) + b'"}', 413),
    "a huge number": (b'{"method": {"name": ' + b"9" * 5000 + b"}}", 400),
    "a long name": (b'{"method": {"name": "' + b"x" * 100_000 + b'"}}', 400),
    "a long uri": (
        b'{"method": {"name": "web-download", "uri": "http://' + b"x" * 100_000 + b'"}}',
        400,
    ),
    "many stores": (
        json.dumps({**WEB, "stores": [str(number) for number in range(9000)]}).encode(),
        409,
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
async def test_bad_input_is_the_clients_fault(api, make_image, name: str) -> None:
    content, status = CONTENTS[name]
    image = await make_image()
    # As curl sends it: the content type does not matter.
    headers = {**ALICE, "Content-Type": "application/x-www-form-urlencoded"}
    answer = await api.post(f"{image['self']}/import", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert len(answer.content) < 2000


@pytest.mark.parametrize("image_id", ["no-uuid", "x" * 300, "%00", "..%2f", ID])
async def test_an_image_that_is_not_there(api, image_id: str) -> None:
    for method, path in (("POST", "import"), ("GET", "tasks"), ("PUT", "stage")):
        arguments: dict[str, Any] = {"json": WEB} if method == "POST" else {}
        if method == "PUT":
            arguments = {"content": b"x"}
        url = f"/v2/images/{image_id}/{path}"
        answer = await api.request(method, url, headers={**ALICE, **OCTETS}, **arguments)
        assert answer.status_code == 404, (method, answer.text)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/html"),
        ("application/json", "application/json"),
        ("", "text/plain"),
    ],
)
async def test_errors_come_as_clients_want_them(api, make_image, accept, content_type) -> None:
    image = await make_image()
    for path, body in (("import", DIRECT), ("import", {}), ("tasks", {})):
        headers = {**ALICE, "Accept": accept}
        answer = await api.post(f"{image['self']}/{path}", json=body, headers=headers)
        assert answer.is_client_error
        assert answer.headers["content-type"].startswith(content_type)


async def test_a_request_for_tasks_has_no_body(api, make_image) -> None:
    image = await make_image()
    answer = await api.request("GET", f"{image['self']}/tasks", content=b"{}", headers=ALICE)
    assert answer.status_code == 400


async def test_tasks_of_other_projects_are_for_administrators(api, make_image) -> None:
    image = await make_image(data=b"x", visibility="community")
    copied = await begin(api, image, {**COPY, "stores": ["cheap"]}, **persona("beta", "admin"))
    assert copied.status_code == 202

    async def seen(headers: dict[str, str]) -> list[str]:
        tasks = (await api.get(f"{image['self']}/tasks", headers=headers)).json()["tasks"]
        return [task["owner"] for task in tasks]

    assert await seen(ALICE) == []
    assert await seen(BOB) == ["beta"]
    assert await seen(ADMIN) == ["beta"]
