"""/v2/metadefs/namespaces by HTTP."""

import asyncio
import json
from typing import Any

import httpx
import jsonschema
import pytest
from diptych_images.wire.schemas import METADEF_NAMESPACE as SCHEMA

from tests import databases
from tests.images.definitions import COLOUR, NAMESPACES, SIZE, WHOLE, without_times
from tests.images.service import ADMIN, ALICE, BOB, READER, persona


async def create(api: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    created = await api.post(NAMESPACES, json=fields, headers=ADMIN)
    assert created.status_code == 201, created.text
    return created.json()


async def names(api: httpx.AsyncClient, query: str = "", who: Any = ADMIN) -> list[str]:
    answer = await api.get(f"{NAMESPACES}{query}", headers=who)
    assert answer.status_code == 200, answer.text
    return [row["namespace"] for row in answer.json()["namespaces"]]


async def test_a_namespace_is_created_with_what_is_nested_in_it(api) -> None:
    created = await api.post(NAMESPACES, json=WHOLE, headers=ADMIN)
    assert created.status_code == 201, created.text
    assert created.headers["location"].endswith(f"{NAMESPACES}/Whole")
    document = created.json()
    jsonschema.validate(document, {"type": "object", **SCHEMA})
    assert without_times(document) == WHOLE
    assert document["self"] == f"{NAMESPACES}/Whole"
    assert document["schema"] == "/v2/schemas/metadefs/namespace"
    assert document["objects"][0]["self"] == f"{NAMESPACES}/Whole/objects/Shape"
    assert (await api.get(document["self"], headers=BOB)).json() == document
    # The list has the resource types and nothing else of what is in it.
    (listed,) = (await api.get(NAMESPACES, headers=ALICE)).json()["namespaces"]
    nested = ("objects", "properties", "tags")
    assert listed == {key: part for key, part in document.items() if key not in nested}


async def test_what_is_not_given_is_left_out(api) -> None:
    document = await create(api, namespace="Bare")
    assert without_times(document) == {
        "namespace": "Bare",
        "visibility": "private",
        "protected": False,
        "owner": "service",
    }


async def test_a_creation_that_fails_leaves_nothing(api, images_database: str) -> None:
    twice = {**WHOLE, "tags": [{"name": "same"}, {"name": "same"}]}
    refused = await api.post(NAMESPACES, json=twice, headers=ADMIN)
    assert refused.status_code == 409
    async with databases.connection(images_database) as connection:
        for table in ("metadef_namespaces", "metadef_resource_types", "outbox"):
            assert await connection.fetch(f"SELECT * FROM {table}") == []


async def test_of_creations_at_the_same_time_one_wins(api) -> None:
    body = {"namespace": "Contested"}
    answers = await asyncio.gather(
        *(api.post(NAMESPACES, json=body, headers=ADMIN) for _ in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (None, 400),
        ([], 400),
        ("x", 400),
        ({}, 400),
        ({"namespace": ""}, 400),
        ({"namespace": "x" * 81}, 400),
        ({"namespace": 1}, 400),
        ({"namespace": "x", "mine": "y"}, 400),
        ({"namespace": "x\0"}, 400),
        ({"namespace": "x", "description": "\0"}, 400),
        ({"namespace": "x", "description": "x" * 501}, 400),
        ({"namespace": "x", "display_name": None}, 400),
        ({"namespace": "x", "visibility": "shared"}, 400),
        ({"namespace": "x", "protected": "true"}, 400),
        ({"namespace": "x", "owner": "x" * 256}, 400),
        ({"namespace": "x", "tags": [{}]}, 400),
        ({"namespace": "x", "tags": ["x"]}, 400),
        ({"namespace": "x", "tags": [{"name": "x" * 81}]}, 400),
        ({"namespace": "x", "objects": [{"name": "x", "properties": {"p": {}}}]}, 400),
        ({"namespace": "x", "objects": [{"name": "x", "required": ["a", "a"]}]}, 400),
        ({"namespace": "x", "properties": {"p": {"title": "P", "type": "text"}}}, 400),
        ({"namespace": "x", "properties": {"p": {"title": "P"}}}, 400),
        ({"namespace": "x", "properties": {"x" * 81: SIZE}}, 400),
        ({"namespace": "x", "resource_type_associations": [{"prefix": "x"}]}, 400),
        *(({"namespace": "x", name: "y"}, 403) for name in ("self", "schema", "created_at")),
    ],
    ids=lambda value: json.dumps(value)[:60] if not isinstance(value, int) else str(value),
)
async def test_what_cannot_be_is_refused(api, body: Any, status: int) -> None:
    await create(api, namespace="There")
    for method, path in (("POST", NAMESPACES), ("PUT", f"{NAMESPACES}/There")):
        answer = await api.request(method, path, json=body, headers=ADMIN)
        assert answer.status_code == status, answer.text
    assert await names(api) == ["There"]


async def test_depth_is_limited(api) -> None:
    deep = '{"namespace": "x", "tags": ' + "[" * 500 + "]" * 500 + "}"
    for body in (deep, deep.replace("tags", "description")):
        answer = await api.post(NAMESPACES, content=body, headers=ADMIN)
        assert answer.status_code == 400
        assert "deeper" in answer.json()["message"]


async def test_a_replacement_forgets_what_it_does_not_name(api) -> None:
    document = await create(api, **WHOLE)
    answer = await api.put(document["self"], json={"namespace": "Renamed"}, headers=ADMIN)
    assert answer.status_code == 200
    assert without_times(answer.json()) == {
        "namespace": "Renamed",
        "visibility": "private",
        "protected": False,
        "owner": "service",
    }
    assert (await api.get(document["self"], headers=ADMIN)).status_code == 404
    # What is in it stays.
    renamed = (await api.get(f"{NAMESPACES}/Renamed", headers=ADMIN)).json()
    for kind in ("resource_type_associations", "properties", "objects", "tags"):
        assert without_times(renamed[kind]) == WHOLE[kind]


async def test_a_name_is_taken_once(api) -> None:
    await create(api, namespace="One", visibility="private", owner="alpha")
    other = await create(api, namespace="Two")
    again = await api.post(NAMESPACES, json={"namespace": "One"}, headers=ADMIN)
    renamed = await api.put(other["self"], json={"namespace": "One"}, headers=ADMIN)
    assert (again.status_code, renamed.status_code) == (409, 409)
    assert sorted(await names(api)) == ["One", "Two"]


async def test_deletion_takes_everything_along(api, images_database: str) -> None:
    document = await create(api, **WHOLE)
    assert (await api.delete(document["self"], headers=ADMIN)).status_code == 204
    assert (await api.delete(document["self"], headers=ADMIN)).status_code == 404
    async with databases.connection(images_database) as connection:
        for table in ("associations", "objects", "properties", "tags"):
            assert await connection.fetch(f"SELECT * FROM metadef_{table}") == []
    # The resource types are known further on.
    types = (await api.get("/v2/metadefs/resource_types", headers=ALICE)).json()
    known = [row["name"] for row in types["resource_types"]]
    assert known == ["OS::Glance::Image", "OS::Nova::Flavor"]


async def test_nothing_is_deleted_from_a_protected_namespace(api) -> None:
    path = (await create(api, **{**WHOLE, "protected": True}))["self"]
    for what in (
        "", "/objects", "/properties", "/tags", "/objects/Shape", "/properties/size", "/tags/one",
        "/resource_types/OS::Nova::Flavor",
    ):  # fmt: skip
        answer = await api.delete(path + what, headers=ADMIN)
        assert answer.status_code == 403, what
    left = without_times((await api.get(path, headers=ADMIN)).json())
    assert left == {**WHOLE, "protected": True}


async def test_all_of_a_kind_is_deleted_at_once(api) -> None:
    path = (await create(api, **WHOLE))["self"]
    left = dict(WHOLE)
    for kind in ("objects", "properties", "tags"):
        assert (await api.delete(f"{path}/{kind}", headers=ADMIN)).status_code == 204
        del left[kind]
        assert without_times((await api.get(path, headers=ADMIN)).json()) == left


async def test_a_namespace_is_seen_by_its_project_or_by_all(api) -> None:
    for owner in ("alpha", "beta"):
        for visibility in ("public", "private"):
            await create(api, namespace=f"{owner}-{visibility}", owner=owner, visibility=visibility)
    seen = {"alpha-public", "beta-public", "alpha-private"}
    assert set(await names(api, who=READER)) == seen
    assert set(await names(api, "?visibility=private", ALICE)) == {"alpha-private"}
    assert len(await names(api)) == 4
    for path in ("", "/objects", "/properties", "/tags", "/resource_types"):
        hidden = f"{NAMESPACES}/beta-private{path}"
        assert (await api.get(hidden, headers=ALICE)).status_code == 404
        assert (await api.get(hidden, headers=BOB)).status_code == 200
    nobody = persona("alpha", "service")
    assert (await api.get(NAMESPACES, headers=nobody)).status_code == 403
    assert (await api.get(f"{NAMESPACES}/alpha-public", headers=nobody)).status_code == 404


WRITES = [
    ("PUT", "", {"namespace": "x"}),
    ("DELETE", "", None),
    *(("DELETE", f"/{kind}", None) for kind in ("objects", "properties", "tags")),
    ("POST", "/objects", {"name": "x"}),
    ("PUT", "/objects/Shape", {"name": "x"}),
    ("DELETE", "/objects/Shape", None),
    ("POST", "/properties", {"name": "x", **SIZE}),
    ("PUT", "/properties/size", {"name": "x", **SIZE}),
    ("DELETE", "/properties/size", None),
    ("POST", "/tags", {"tags": []}),
    ("POST", "/tags/x", None),
    ("PUT", "/tags/one", {"name": "x"}),
    ("DELETE", "/tags/one", None),
    ("POST", "/resource_types", {"name": "x"}),
    ("DELETE", "/resource_types/OS::Nova::Flavor", None),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
async def test_only_administrators_change_definitions(
    api, method: str, path: str, body: object
) -> None:
    await create(api, **WHOLE)
    await create(api, **{**WHOLE, "namespace": "Hidden", "visibility": "private"})

    async def status(namespace: str, who: dict[str, str]) -> int:
        url = f"{NAMESPACES}/{namespace}{path}"
        return (await api.request(method, url, json=body, headers=who)).status_code

    assert await status("Whole", ALICE) == 403
    assert await status("Whole", BOB) == 403
    assert await status("Hidden", ALICE) == 403
    assert await status("Hidden", BOB) == 404
    assert await status("Missing", ADMIN) == 404
    assert await status("%00", ADMIN) == 404
    assert await status("Hidden", ADMIN) in (200, 201, 204)
    assert (await api.post(NAMESPACES, json=WHOLE, headers=ALICE)).status_code == 403


async def test_the_list_is_paged_by_names(api) -> None:
    for name in ("b", "c", "a", "ü/x"):
        await create(api, namespace=name, display_name=f"of {name}")
    assert await names(api) == ["ü/x", "a", "c", "b"]
    by_name = "?sort_key=namespace&sort_dir=asc"
    assert (await names(api, by_name))[:3] == ["a", "b", "c"]
    seen: list[str] = []
    path: str | None = f"{NAMESPACES}{by_name}&limit=1"
    while path is not None:
        page = (await api.get(path, headers=ADMIN)).json()
        assert page["schema"] == "/v2/schemas/metadefs/namespaces"
        assert page["first"] == f"{NAMESPACES}{by_name}&limit=1"
        seen += [row["namespace"] for row in page["namespaces"]]
        path = page.get("next")
    assert seen == ["a", "b", "c", "ü/x"]
    for key in ("display_name", "visibility", "protected", "owner", "updated_at"):
        assert len(await names(api, f"?sort_key={key}&marker=b&sort_dir=asc")) < 4


async def test_the_list_is_filtered(api) -> None:
    for name, types in (("a", ["X", "Y"]), ("b", ["Y"]), ("c", [])):
        associations = [{"name": kind} for kind in types]
        await create(api, namespace=name, resource_type_associations=associations)
    assert sorted(await names(api, "?resource_types=Y")) == ["a", "b"]
    assert await names(api, "?resource_types=X,Z") == ["a"]
    assert await names(api, "?resource_types=Z") == []
    assert len(await names(api, "?visibility=&unknown=x")) == 3
    assert await names(api, "?limit=0") == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("visibility=shared", 400),
        ("sort_key=id", 400),
        ("sort_dir=up", 400),
        ("limit=x", 400),
        ("limit=-1", 400),
        ("visibility=%00", 400),
        ("resource_types=%ff", 400),
        ("marker=missing", 404),
        ("marker=hidden", 404),
    ],
)
async def test_what_cannot_be_asked_is_refused(api, query: str, status: int) -> None:
    await create(api, namespace="hidden", owner="beta")
    answer = await api.get(f"{NAMESPACES}?{query}", headers=ALICE)
    assert answer.status_code == status


async def test_properties_are_named_as_on_a_resource(api) -> None:
    path = (await create(api, **WHOLE))["self"]

    async def shown(query: str) -> dict[str, Any]:
        return without_times((await api.get(f"{path}?{query}", headers=ALICE)).json())

    prefixed = await shown("resource_type=OS::Glance::Image")
    assert prefixed["properties"] == {"hw_size": SIZE}
    assert prefixed["objects"][0]["properties"] == {"hw_colour": COLOUR}
    assert prefixed["objects"][0]["required"] == ["hw_colour"]
    for query in ("resource_type=OS::Nova::Flavor", "resource_type=X", "other=1"):
        assert await shown(query) == WHOLE


async def test_every_change_is_told(api, images_database: str) -> None:
    path = (await create(api, **WHOLE))["self"]
    await api.put(path, json={"namespace": "New"}, headers=ADMIN)
    for kind in ("/objects", "/properties", "/tags", ""):
        await api.delete(f"{NAMESPACES}/New{kind}", headers=ADMIN)
    async with databases.connection(images_database) as connection:
        told = await connection.fetch("SELECT event_type, payload FROM outbox ORDER BY id")
    assert [row["event_type"] for row in told] == [
        "metadef_namespace.create",
        "metadef_resource_type.create",
        "metadef_resource_type.create",
        "metadef_property.create",
        "metadef_object.create",
        "metadef_object.create",
        "metadef_tag.create",
        "metadef_tag.create",
        "metadef_namespace.update",
        "metadef_namespace.delete_objects",
        "metadef_namespace.delete_properties",
        "metadef_namespace.delete_tags",
        "metadef_namespace.delete",
    ]
    payloads = [json.loads(row["payload"]) for row in told]
    assert payloads[8]["namespace"] == "New"
    assert payloads[8]["namespace_old"] == "Whole"
    assert payloads[3]["type"] == "integer"
    assert payloads[4]["properties"][0]["name"] == "colour"
    assert payloads[12]["deleted"] is True
    assert payloads[12]["deleted_at"] is not None
