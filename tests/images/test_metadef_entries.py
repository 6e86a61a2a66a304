"""What is in a namespace by HTTP: objects, properties, tags, resource types."""

import json
from typing import Any

import httpx
import pytest

from tests import databases
from tests.images.service import ADMIN, ALICE

NAMESPACES = "/v2/metadefs/namespaces"
SPACE = f"{NAMESPACES}/Space"
SIZE = {"title": "Size", "type": "integer"}


@pytest.fixture(autouse=True)
async def space(api: httpx.AsyncClient) -> None:
    body = {"namespace": "Space", "visibility": "public"}
    assert (await api.post(NAMESPACES, json=body, headers=ADMIN)).status_code == 201


async def send(api: httpx.AsyncClient, method: str, path: str, body: object = None) -> Any:
    """The document of an administrator's request that succeeds."""
    answer = await api.request(method, f"{SPACE}{path}", json=body, headers=ADMIN)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def events(url: str) -> list[tuple[str, dict[str, Any]]]:
    """What was told since the namespace was made."""
    async with databases.connection(url) as connection:
        rows = await connection.fetch("SELECT event_type, payload FROM outbox ORDER BY id")
    return [(row["event_type"], json.loads(row["payload"])) for row in rows][1:]


async def test_an_object_lives(api, images_database: str) -> None:
    body = {
        "name": "Shape",
        "description": "How it looks.",
        "required": ["size"],
        "properties": {"size": SIZE},
    }
    created = await send(api, "POST", "/objects", body)
    assert created == {
        **body,
        "self": f"{SPACE}/objects/Shape",
        "schema": "/v2/schemas/metadefs/object",
        "created_at": created["created_at"],
        "updated_at": created["created_at"],
    }
    assert (await api.get(f"{SPACE}/objects/Shape", headers=ALICE)).json() == created
    listed = (await api.get(f"{SPACE}/objects", headers=ALICE)).json()
    assert listed == {"objects": [created], "schema": "v2/schemas/metadefs/objects"}
    changed = await send(api, "PUT", "/objects/Shape", {"name": "Form"})
    assert changed.keys() == created.keys() - {"description"}
    # There for clients that go through them.
    assert (changed["required"], changed["properties"]) == ([], {})
    assert (await api.get(f"{SPACE}/objects/Shape", headers=ADMIN)).status_code == 404
    await send(api, "DELETE", "/objects/Form")
    assert (await api.get(f"{SPACE}/objects", headers=ADMIN)).json()["objects"] == []
    told = await events(images_database)
    assert [(kind, each["name_old"], each["name"], each["deleted"]) for kind, each in told] == [
        ("metadef_object.create", "Shape", "Shape", False),
        ("metadef_object.update", "Shape", "Form", False),
        ("metadef_object.delete", "Form", "Form", True),
    ]


async def test_a_property_lives(api, images_database: str) -> None:
    body = {"name": "size", **SIZE, "minimum": 0, "items": {"type": "string"}, "default": None}
    assert await send(api, "POST", "/properties", body) == body
    assert (await api.get(f"{SPACE}/properties/size", headers=ALICE)).json() == body
    listed = (await api.get(f"{SPACE}/properties", headers=ALICE)).json()
    assert listed == {"properties": {"size": body}}
    changed = {"name": "weight", **SIZE}
    assert await send(api, "PUT", "/properties/size", changed) == changed
    assert (await api.get(f"{SPACE}/properties/size", headers=ADMIN)).status_code == 404
    await send(api, "DELETE", "/properties/weight")
    assert (await send(api, "GET", "/properties")) == {"properties": {}}
    told = await events(images_database)
    assert [(kind, each["name_old"], each["name"], each["minimum"]) for kind, each in told] == [
        ("metadef_property.create", "size", "size", 0),
        ("metadef_property.update", "size", "weight", None),
        ("metadef_property.delete", "weight", "weight", None),
    ]


async def test_a_tag_lives(api, images_database: str) -> None:
    created = await send(api, "POST", "/tags/one")
    assert created.keys() == {"name", "created_at", "updated_at"}
    assert (await api.get(f"{SPACE}/tags/one", headers=ALICE)).json() == created
    assert (await send(api, "PUT", "/tags/one", {"name": "two"}))["name"] == "two"
    assert (await api.get(f"{SPACE}/tags/one", headers=ADMIN)).status_code == 404
    assert await send(api, "GET", "/tags") == {"tags": [{"name": "two"}]}
    await send(api, "DELETE", "/tags/two")
    assert await send(api, "GET", "/tags") == {"tags": []}
    told = await events(images_database)
    assert [(kind, each["name_old"], each["name"], each["deleted"]) for kind, each in told] == [
        ("metadef_tag.create", "one", "one", False),
        ("metadef_tag.update", "one", "two", False),
        ("metadef_tag.delete", "two", "two", True),
    ]


async def test_an_association_lives(api, images_database: str) -> None:
    body = {"name": "OS::Nova::Flavor", "prefix": "hw:", "properties_target": "server"}
    created = await send(api, "POST", "/resource_types", body)
    times = {name: created[name] for name in ("created_at", "updated_at")}
    assert created == {**body, **times}
    listed = (await api.get(f"{SPACE}/resource_types", headers=ALICE)).json()
    assert listed == {"resource_type_associations": [created]}
    (known,) = (await api.get("/v2/metadefs/resource_types", headers=ALICE)).json()[
        "resource_types"
    ]
    assert known.keys() == {"name", "created_at", "updated_at"}
    await send(api, "DELETE", "/resource_types/OS::Nova::Flavor")
    assert await send(api, "GET", "/resource_types") == {"resource_type_associations": []}
    told = await events(images_database)
    assert [(kind, each["name"], each["prefix"]) for kind, each in told] == [
        ("metadef_resource_type.create", "OS::Nova::Flavor", "hw:"),
        ("metadef_resource_type.delete", "OS::Nova::Flavor", "hw:"),
    ]


async def test_several_tags_replace_all_unless_appended(api) -> None:
    async def post(*names: str, append: str | None = None) -> httpx.Response:
        headers = ADMIN if append is None else {**ADMIN, "X-Openstack-Append": append}
        body = {"tags": [{"name": name} for name in names]}
        return await api.post(f"{SPACE}/tags", json=body, headers=headers)

    async def tags() -> set[str]:
        return {tag["name"] for tag in (await send(api, "GET", "/tags"))["tags"]}

    first = await post("a", "b")
    assert (first.status_code, first.json()) == (201, {"tags": [{"name": "a"}, {"name": "b"}]})
    assert (await post("c", append="True")).json() == {"tags": [{"name": "c"}]}
    assert await tags() == {"a", "b", "c"}
    assert (await post("d", "a", append="true")).status_code == 409
    assert (await post("x", "x")).status_code == 409
    assert await tags() == {"a", "b", "c"}
    await post("a", append="False")
    assert await tags() == {"a"}
    # To replace all with nothing is asked for by DELETE.
    assert (await post()).json() == {"tags": []}
    assert await tags() == {"a"}


@pytest.mark.parametrize("kind", ["objects", "properties", "tags", "resource_types"])
async def test_what_is_there_is_not_made_again(api, kind: str) -> None:
    def body(name: str) -> dict[str, Any]:
        return {"name": name, **(SIZE if kind == "properties" else {})}

    async def post(name: str) -> int:
        path = f"{SPACE}/tags/{name}" if kind == "tags" else f"{SPACE}/{kind}"
        content = None if kind == "tags" else body(name)
        return (await api.post(path, json=content, headers=ADMIN)).status_code

    assert [await post("a"), await post("a"), await post("b")] == [201, 409, 201]
    if kind != "resource_types":
        for name, status in (("a", 409), ("b", 200), ("missing", 404)):
            path = f"{SPACE}/{kind}/b" if name != "missing" else f"{SPACE}/{kind}/missing"
            answer = await api.put(path, json=body(name), headers=ADMIN)
            assert answer.status_code == status
        assert (await api.get(f"{SPACE}/{kind}/missing", headers=ADMIN)).status_code == 404
    assert (await api.delete(f"{SPACE}/{kind}/missing", headers=ADMIN)).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/objects", {}, 400),
        ("/objects", {"name": ""}, 400),
        ("/objects", {"name": "x", "mine": 1}, 400),
        ("/objects", {"name": "x", "required": "x"}, 400),
        ("/objects", {"name": "x", "properties": {"p": {"title": "\0", "type": "string"}}}, 400),
        ("/objects", {"name": "x", "self": "x"}, 403),
        ("/properties", {"name": "x"}, 400),
        ("/properties", {"name": "x", "title": "X", "type": "x"}, 400),
        ("/properties", {"name": "x", "title": "X", "type": "string", "mine": 1}, 400),
        ("/properties", {"name": "x", "title": "X", "type": "array", "minItems": -1}, 400),
        ("/properties", {"name": "x", **SIZE, "created_at": "x"}, 403),
        ("/tags", [], 400),
        ("/tags", {}, 400),
        ("/tags", {"tags": [{"name": "x", "mine": 1}]}, 400),
        ("/tags/" + "x" * 81, None, 400),
        ("/tags/x", {"name": "x"}, 400),
        ("/resource_types", {"prefix": "x"}, 400),
        ("/resource_types", {"name": "x", "prefix": "x" * 81}, 400),
        ("/resource_types", {"name": "x", "updated_at": "x"}, 403),
    ],
)
async def test_what_cannot_be_is_refused(api, path: str, body: object, status: int) -> None:
    answer = await api.post(f"{SPACE}{path}", json=body, headers=ADMIN)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("kind", ["objects", "tags"])
async def test_lists_are_paged_by_names(api, kind: str) -> None:
    for name in ("b", "c", "a"):
        path, body = (f"/tags/{name}", None) if kind == "tags" else ("/objects", {"name": name})
        await send(api, "POST", path, body)

    async def names(query: str) -> list[str]:
        return [each["name"] for each in (await send(api, "GET", f"/{kind}?{query}"))[kind]]

    assert await names("") == ["a", "c", "b"]
    assert await names("sort_key=name&sort_dir=asc&limit=2") == ["a", "b"]
    assert await names("sort_key=name&sort_dir=asc&limit=2&marker=b") == ["c"]
    for query, status in (
        ("limit=0", 200 if kind == "tags" else 400),
        ("limit=x", 400),
        ("sort_key=x", 400),
        ("sort_dir=x", 400),
        ("marker=x", 404),
        ("marker=%00", 400),
    ):
        answer = await api.get(f"{SPACE}/{kind}?{query}", headers=ADMIN)
        assert answer.status_code == status, query


async def test_a_property_is_asked_by_the_name_that_it_has_on_a_resource(api) -> None:
    await send(api, "POST", "/properties", {"name": "size", **SIZE})
    await send(api, "POST", "/resource_types", {"name": "Flavor", "prefix": "hw:"})
    await send(api, "POST", "/resource_types", {"name": "Bare"})

    async def ask(name: str, resource_type: str) -> httpx.Response:
        params = {"resource_type": resource_type}
        return await api.get(f"{SPACE}/properties/{name}", params=params, headers=ALICE)

    found = await ask("hw:size", "Flavor")
    assert (found.status_code, found.json()["name"]) == (200, "size")
    for name, resource_type in (("size", "Flavor"), ("size", "Bare"), ("hw:size", "Unknown")):
        assert (await ask(name, resource_type)).status_code == 404
