"""Images by HTTP: create, show, list, change, delete, tags, actions, discovery, errors."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import httpx
import jsonschema
import pytest

from tests import databases
from tests.images.service import ADMIN, ALICE, BOB, OCTETS, READER, persona

UNKNOWN = "7a3f52a4-5d3c-4c7e-9a0a-3f6b7a0f6d11"
V21 = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
V20 = {"Content-Type": "application/openstack-images-v2.0-json-patch"}


def ids(page: httpx.Response) -> list[str]:
    return [image["id"] for image in page.json()["images"]]


# ------------------------------------------------------------------------------------------------
# Create and show
# ------------------------------------------------------------------------------------------------


async def test_created_image_is_shown_as_it_was_created(api) -> None:
    body = {
        "name": "Büro 🚀",
        "tags": ["b", "a", "b"],
        "hw_disk_bus": "virtio",
        "owner_specified.openstack.md5": "",
        "min_disk": 1,
        "min_ram": 512,
        "protected": True,
        "disk_format": "qcow2",
        "container_format": "bare",
    }
    created = await api.post("/v2/images", json=body, headers=ALICE)
    assert created.status_code == 201
    image = created.json()
    assert created.headers["location"] == f"http://images.example/v2/images/{image['id']}"
    assert created.headers["openstack-image-store-ids"] == "fast,cheap"
    assert created.headers["x-openstack-request-id"].startswith("req-")
    assert image == (await api.get(image["self"], headers=ALICE)).json()
    assert {name: image[name] for name in body if name != "tags"} == {
        name: value for name, value in body.items() if name != "tags"
    }
    assert sorted(image["tags"]) == ["a", "b"]
    assert (image["status"], image["visibility"], image["owner"]) == ("queued", "shared", "alpha")
    schema = (await api.get("/v2/schemas/image", headers=ALICE)).json()
    jsonschema.validate(image, schema)


async def test_a_new_image_has_nothing_of_the_others(custom_api) -> None:
    api = await custom_api(
        DEFAULT__SHOW_MULTIPLE_LOCATIONS="true", DEFAULT__SHOW_IMAGE_DIRECT_URL="true"
    )
    body = {"disk_format": "raw", "container_format": "bare"}
    first = (await api.post("/v2/images", json=body, headers=ALICE)).json()
    filled = await api.put(first["file"], content=b"data", headers={**ALICE, **OCTETS})
    assert filled.status_code == 204
    second = (await api.post("/v2/images", json=body, headers=BOB)).json()
    assert second["locations"] == []
    assert second.keys().isdisjoint({"stores", "direct_url"})
    assert second == (await api.get(second["self"], headers=BOB)).json()


async def test_body_is_json_whatever_it_is_called(api) -> None:
    headers = {**ALICE, "Content-Type": "application/x-www-form-urlencoded"}
    assert (
        await api.post("/v2/images", content=b'{"name":"x"}', headers=headers)
    ).status_code == 201


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"x"', 400),
        (b"\xff", 400),
        (b'{"name": 5}', 400),
        (b'{"name": "' + b"x" * 256 + b'"}', 400),
        (b'{"name": "a\\u0000b"}', 400),
        (b'{"id": "no-uuid"}', 400),
        (b'{"disk_format": "floppy"}', 400),
        (b'{"min_disk": -1}', 400),
        (b'{"min_ram": 2147483648}', 400),
        (b'{"min_ram": 1e400}', 400),
        (b'{"custom": 1}', 400),
        (b'{"custom": {"a": 1}}', 400),
        (b'{"' + b"k" * 256 + b'": "x"}', 400),
        (b'{"tags": "x"}', 400),
        (b'{"tags": ["' + b"t" * 256 + b'"]}', 400),
        (b"[" * 100_000, 400),
        (b'{"status": "active"}', 403),
        (b'{"size": 1}', 403),
        (b'{"self": "x"}', 403),
        (b'{"stores": "x"}', 403),
        (b'{"locations": []}', 403),
        (b'{"deleted": "x"}', 403),
        (b'{"os_glance_import_task": "x"}', 403),
        (b'{"owner": "beta"}', 403),
        (b'{"visibility": "public"}', 403),
    ],
)
async def test_bad_create_is_refused(api, body: bytes, status: int) -> None:
    refused = await api.post("/v2/images", content=body, headers=ALICE)
    assert refused.status_code == status, refused.text
    assert refused.json()["code"].startswith(str(status))
    assert (await api.get("/v2/images", headers=ALICE)).json()["images"] == []


async def test_an_id_is_never_used_twice(api, make_image) -> None:
    chosen = str(uuid4())
    image = await make_image(id=chosen)
    assert image["id"] == chosen
    for caller in (ALICE, BOB, ADMIN):
        again = await api.post("/v2/images", json={"id": chosen}, headers=caller)
        assert again.status_code == 409
    assert (await api.delete(image["self"], headers=ALICE)).status_code == 204
    for caller in (ALICE, BOB, ADMIN):
        again = await api.post("/v2/images", json={"id": chosen}, headers=caller)
        assert again.status_code == 409


async def test_of_64_creators_of_one_id_one_succeeds(api) -> None:
    chosen = str(uuid4())
    creations = [api.post("/v2/images", json={"id": chosen}, headers=ALICE) for _ in range(64)]
    statuses = [answer.status_code for answer in await asyncio.gather(*creations)]
    assert sorted(statuses) == [201] + [409] * 63


async def test_administrator_creates_for_others_and_for_all(api) -> None:
    for_beta = await api.post(
        "/v2/images", json={"owner": "beta", "visibility": "public"}, headers=ADMIN
    )
    assert for_beta.status_code == 201
    assert (for_beta.json()["owner"], for_beta.json()["visibility"]) == ("beta", "public")
    assert ids(await api.get("/v2/images", headers=ALICE)) == [for_beta.json()["id"]]


@pytest.mark.parametrize(
    "path", ["nope", "a b", "x" * 300, "%00", UNKNOWN, "%ff", "None", str(UUID(int=0))]
)
async def test_unknown_ids_are_404(api, path: str) -> None:
    for method, suffix in (("GET", ""), ("DELETE", ""), ("GET", "/file"), ("GET", "/members")):
        answer = await api.request(method, f"/v2/images/{path}{suffix}", headers=ALICE)
        assert answer.status_code == 404, (method, suffix)


async def test_show_is_one_statement_and_a_page_is_one(api, make_image, images_database) -> None:
    image = await make_image(data=b"x")
    await api.get(image["self"], headers=ALICE)  # connections and their statements are prepared
    await api.get("/v2/images?limit=1", headers=ALICE)
    await api.get(f"/v2/images?limit=1&marker={image['id']}", headers=ALICE)
    for path in (
        image["self"],
        "/v2/images?limit=1",
        f"/v2/images?limit=1&marker={image['id']}",
    ):
        async with databases.statements(images_database) as seen:
            assert (await api.get(path, headers=ALICE)).status_code == 200
        assert len(seen.texts) == 1, seen.texts


# ------------------------------------------------------------------------------------------------
# Lists
# ------------------------------------------------------------------------------------------------


async def test_pages_visit_each_image_once_and_keep_every_filter(api, make_image) -> None:
    wanted = [(await make_image(tags=["x", "y"]))["id"] for _ in range(5)]
    await make_image(tags=["x"])
    seen: list[str] = []
    path: str | None = "/v2/images?limit=2&tag=x&tag=y&sort=created_at:asc"
    while path:
        page = await api.get(path, headers=ALICE)
        assert page.json()["schema"] == "/v2/schemas/images"
        assert page.json()["first"].startswith("/v2/images?")
        seen += ids(page)
        path = page.json().get("next")
    assert seen == wanted


async def test_marker_may_be_deleted_between_pages(api, make_image) -> None:
    created = [await make_image() for _ in range(4)]
    first = await api.get("/v2/images?limit=2", headers=ALICE)
    await api.delete(f"/v2/images/{ids(first)[-1]}", headers=ALICE)
    second = await api.get(first.json()["next"], headers=ALICE)
    assert ids(second) == [created[1]["id"], created[0]["id"]]


@pytest.mark.parametrize("marker", ["nope", UNKNOWN])
async def test_unknown_marker_is_400(api, marker: str) -> None:
    answer = await api.get("/v2/images", params={"marker": marker}, headers=ALICE)
    assert answer.status_code == 400


async def test_marker_of_another_project_is_not_told_apart_from_none(api, make_image) -> None:
    hidden = await make_image(visibility="private")
    answers = [
        await api.get("/v2/images", params={"marker": marker}, headers=BOB)
        for marker in (hidden["id"], str(uuid4()))
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    texts = {answer.text.replace(answer.url.params["marker"], "") for answer in answers}
    assert len(texts) == 1


@pytest.mark.parametrize(
    "query",
    [
        "limit=-1", "limit=x", "limit=1.5", "sort_key=nope", "sort_dir=up", "sort=name:up",
        "sort=name&sort_key=name", "sort_key=name&sort_dir=asc&sort_dir=desc&sort_dir=asc",
        "name=a:b", "name=in:%22a", "created_at=gt:yesterday", "created_at=like:2020-01-01",
        "size_min=x", "nonsense_min=5", "visibility=mine", "member_status=maybe",
        "os_hidden=perhaps", "protected=True", "changes-since=2020-01-01", "min_disk=x",
        "size=99999999999999999999999", "a%00=b", "name=%ff",
    ],
)  # fmt: skip
async def test_bad_queries_are_400(api, query: str) -> None:
    answer = await api.get(f"/v2/images?{query}", headers=ALICE)
    assert answer.status_code == 400, answer.text


async def test_filters(api, make_image) -> None:
    red = await make_image(name="red", tags=["warm"], colour="red", disk_format="qcow2")
    blue = await make_image(name="blue, dark", colour="blue", os_hidden=True)
    green = await make_image(name="a:b", data=b"12345", colour="green")
    for query, expected in {
        "name=red": [red],
        "name=eq:a:b": [green],
        'name=in:"a:b",red': [red, green],
        "tag=warm": [red],
        "colour=green": [green],
        "nonsense=x": [],
        "status=active": [green],
        "status=in:queued,active": [red, green],
        "size_min=5&size_max=5": [green],
        "size_min=6": [],
        "disk_format=qcow2": [red],
        "container_format=bare": [red, green],
        "visibility=shared": [red, green],
        "visibility=private": [],
        "os_hidden=true": [blue],
        f"id={blue['id']}": [],
        f"id={blue['id']}&os_hidden=True": [blue],
        "owner=alpha": [red, green],
        "owner=beta": [],
        "protected=false": [red, green],
        f"checksum={green['checksum']}": [green],
        f"created_at=gte:{red['created_at']}": [red, green],
        "updated_at=lt:2001-01-01T00:00:00Z": [],
        "limit=0": [],
    }.items():
        page = await api.get(f"/v2/images?{query}&sort=created_at:asc", headers=ALICE)
        assert ids(page) == [image["id"] for image in expected], query


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sort=name:asc", ["a", "b", "b", "c"]),
        ("sort=name:desc", ["c", "b", "b", "a"]),
        ("sort_key=name&sort_dir=asc", ["a", "b", "b", "c"]),
        ("sort=disk_format:desc,name:asc", ["b", "c", "a", "b"]),
        ("sort_key=disk_format&sort_key=name&sort_dir=desc&sort_dir=asc", ["b", "c", "a", "b"]),
        ("sort=name&limit=2", ["c", "b"]),
    ],
)
async def test_lists_are_sorted(api, make_image, query: str, expected: list[str]) -> None:
    for name, disk_format in (("b", "raw"), ("a", "iso"), ("c", "raw"), ("b", "iso")):
        await make_image(name=name, disk_format=disk_format)
    page = await api.get(f"/v2/images?{query}", headers=ALICE)
    assert [image["name"] for image in page.json()["images"]] == expected


async def test_who_lists_what(api, make_image) -> None:
    private = await make_image(visibility="private")
    community = await make_image(visibility="community")
    public = await make_image(visibility="public", headers=ADMIN)
    shared = await make_image(visibility="shared")
    everything = {image["id"] for image in (private, community, public, shared)}
    await api.post(f"{shared['self']}/members", json={"member": "beta"}, headers=ALICE)

    async def listed(query: str, caller: dict[str, str]) -> set[str]:
        return set(ids(await api.get(f"/v2/images?{query}", headers=caller)))

    assert await listed("", ALICE) == everything
    assert await listed("", BOB) == {public["id"]}
    assert await listed("visibility=community", BOB) == {community["id"]}
    assert await listed("visibility=all", BOB) == {public["id"], community["id"]}
    assert await listed("visibility=shared&member_status=pending", BOB) == {shared["id"]}
    assert await listed("member_status=all", BOB) == {public["id"], shared["id"]}
    assert await listed("", ADMIN) == everything - {community["id"]}
    assert await listed("visibility=all", ADMIN) == everything
    accept = {"status": "accepted"}
    await api.put(f"{shared['self']}/members/beta", json=accept, headers=BOB)
    assert await listed("", BOB) == {public["id"], shared["id"]}


# ------------------------------------------------------------------------------------------------
# Change
# ------------------------------------------------------------------------------------------------


async def patch(
    api: httpx.AsyncClient, image: dict[str, Any], body: Any, headers: dict[str, str]
) -> httpx.Response:
    return await api.patch(image["self"], json=body, headers=headers)


async def test_patch_in_both_dialects(api, make_image) -> None:
    image = await make_image()
    changed = await patch(
        api,
        image,
        [
            {"op": "replace", "path": "/name", "value": "new"},
            {"op": "add", "path": "/a~1b", "value": "x"},
            {"op": "add", "path": "/tags", "value": ["t"]},
        ],
        {**ALICE, **V21},
    )
    assert changed.status_code == 200
    assert changed.json()["name"] == "new"
    assert changed.json()["a/b"] == "x"
    assert changed.json()["tags"] == ["t"]
    old = await patch(api, image, [{"replace": "/name", "value": "old"}], {**ALICE, **V20})
    assert (old.status_code, old.json()["name"]) == (200, "old")
    there = await patch(api, image, [{"add": "/a~1b", "value": "y"}], {**ALICE, **V20})
    assert there.status_code == 409
    assert (await api.get(image["self"], headers=ALICE)).json()["a/b"] == "x"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ([5], 400),
        ([{"op": "move", "path": "/name", "from": "/x"}], 400),
        ([{"op": "add", "path": "/name"}], 400),
        ([{"op": "add", "path": "name", "value": "x"}], 400),
        ([{"op": "add", "path": "/tags/-", "value": "x"}], 400),
        ([{"op": "add", "path": "/a~b", "value": "x"}], 400),
        ([{"op": "replace", "path": "/name", "value": 5}], 400),
        ([{"op": "replace", "path": "/custom", "value": "x"}], 409),
        ([{"op": "remove", "path": "/custom"}], 409),
        ([{"op": "remove", "path": "/name"}], 403),
        ([{"op": "replace", "path": "/id", "value": UNKNOWN}], 403),
        ([{"op": "replace", "path": "/status", "value": "active"}], 403),
        ([{"op": "add", "path": "/stores", "value": "x"}], 403),
        ([{"op": "add", "path": "/os_glance_x", "value": "x"}], 403),
        ([{"op": "add", "path": "/owner", "value": "beta"}], 403),
        ([{"op": "replace", "path": "/visibility", "value": "public"}], 403),
        ([{"op": "add", "path": "/locations/-", "value": {"url": "x", "metadata": {}}}], 403),
        ([{"op": "add", "path": "/custom", "value": "x" * 65536}], 400),
    ],
)
async def test_bad_patch_changes_nothing(api, make_image, body: Any, status: int) -> None:
    image = await make_image()
    first = [{"op": "add", "path": "/would_be", "value": "x"}] if isinstance(body, list) else {}
    answer = await patch(api, image, [*first, *body] if first else body, {**ALICE, **V21})
    assert answer.status_code == status, answer.text
    assert (await api.get(image["self"], headers=ALICE)).json() == image


async def test_patch_of_another_type_names_those_there_are(api, make_image) -> None:
    image = await make_image()
    headers = {**ALICE, "Content-Type": "application/json-patch+json"}
    refused = await patch(api, image, [], headers)
    assert refused.status_code == 415
    assert "application/openstack-images-v2.1-json-patch" in refused.headers["accept-patch"]


async def test_empty_patch_changes_nothing(api, make_image) -> None:
    image = await make_image()
    unchanged = await patch(api, image, [], {**ALICE, **V21})
    assert (unchanged.status_code, unchanged.json()) == (200, image)


async def test_no_patch_of_many_at_once_is_lost(api, make_image) -> None:
    image = await make_image()
    patches = [
        patch(api, image, [{"op": "add", "path": f"/p{n}", "value": "x"}], {**ALICE, **V21})
        for n in range(20)
    ]
    assert {answer.status_code for answer in await asyncio.gather(*patches)} == {200}
    shown = (await api.get(image["self"], headers=ALICE)).json()
    assert {f"p{n}" for n in range(20)} <= shown.keys()


async def test_formats_are_fixed_once_there_is_data(api, make_image) -> None:
    image = await make_image(data=b"x")
    body = [{"op": "replace", "path": "/disk_format", "value": "qcow2"}]
    assert (await patch(api, image, body, {**ALICE, **V21})).status_code == 403


# ------------------------------------------------------------------------------------------------
# Delete, tags, quotas
# ------------------------------------------------------------------------------------------------


async def test_protected_image_is_not_deleted(api, make_image) -> None:
    image = await make_image(protected=True)
    assert (await api.delete(image["self"], headers=ALICE)).status_code == 403
    body = [{"op": "replace", "path": "/protected", "value": False}]
    assert (await patch(api, image, body, {**ALICE, **V21})).status_code == 200
    assert (await api.delete(f"{image['self']}?format=json", headers=ALICE)).status_code == 204
    assert (await api.delete(image["self"], headers=ALICE)).status_code == 404
    assert (await api.get(image["self"], headers=ADMIN)).status_code == 404


async def test_tags(api, make_image) -> None:
    image = await make_image()
    path = f"{image['self']}/tags"
    for tag in ("b", "a", "a", "with%20space", "slash%2Fed"):
        assert (await api.put(f"{path}/{tag}", headers=ALICE)).status_code == 204
    shown = (await api.get(image["self"], headers=ALICE)).json()
    assert sorted(shown["tags"]) == ["a", "b", "slash/ed", "with space"]
    assert (await api.delete(f"{path}/slash%2Fed", headers=ALICE)).status_code == 204
    assert (await api.delete(f"{path}/slash%2Fed", headers=ALICE)).status_code == 404
    assert (await api.put(f"{path}/{'t' * 256}", headers=ALICE)).status_code == 400
    assert (await api.put(f"{path}/%00", headers=ALICE)).status_code == 400
    assert (await api.delete(f"{path}/a%0a", headers=ALICE)).status_code == 400
    assert (await api.put(f"{path}/x", headers=READER)).status_code == 403
    assert (await api.put(f"{path}/x", headers=BOB)).status_code == 404


async def test_quotas(custom_api) -> None:
    api = await custom_api(
        DEFAULT__IMAGE_TAG_QUOTA="2",
        DEFAULT__IMAGE_PROPERTY_QUOTA="1",
        DEFAULT__IMAGE_MEMBER_QUOTA="1",
    )
    for body in ({"tags": ["a", "b", "c"]}, {"x": "1", "y": "2"}):
        assert (await api.post("/v2/images", json=body, headers=ALICE)).status_code == 413
    image = (await api.post("/v2/images", json={"tags": ["a", "b"]}, headers=ALICE)).json()
    assert (await api.put(f"{image['self']}/tags/c", headers=ALICE)).status_code == 413
    add = [{"op": "add", "path": f"/{name}", "value": "x"} for name in "xy"]
    assert (await patch(api, image, add, {**ALICE, **V21})).status_code == 413
    members = f"{image['self']}/members"
    offers = [api.post(members, json={"member": name}, headers=ALICE) for name in ("b", "c", "d")]
    statuses = [answer.status_code for answer in await asyncio.gather(*offers)]
    assert sorted(statuses) == [200, 413, 413]


# ------------------------------------------------------------------------------------------------
# Versions, discovery, errors
# ------------------------------------------------------------------------------------------------


async def test_versions_need_no_token(api) -> None:
    root, versions = await api.get("/"), await api.get("/versions")
    assert (root.status_code, versions.status_code) == (300, 200)
    assert root.json() == versions.json()
    current = [one["id"] for one in root.json()["versions"] if one["status"] == "CURRENT"]
    assert current == ["v2.17"]
    assert {link["href"] for one in root.json()["versions"] for link in one["links"]} == {
        "http://images.example/v2/"
    }
    assert (await api.get("/v1/images")).status_code == 300
    assert (await api.get("/v2.99/images")).status_code == 300
    assert (await api.get("/healthcheck")).status_code == 200


async def test_minor_versions_are_other_names_of_v2(api, make_image) -> None:
    image = await make_image()
    assert ids(await api.get("/v2.9/images", headers=ALICE)) == [image["id"]]
    accept = {"Accept": "application/vnd.openstack.images-v2.1"}
    assert ids(await api.get("/images", headers={**ALICE, **accept})) == [image["id"]]


async def test_discovery(api) -> None:
    stores = (await api.get("/v2/info/stores", headers=ALICE)).json()
    assert stores == {"stores": [{"id": "fast", "default": "true"}, {"id": "cheap"}]}
    assert (await api.get("/v2/info/stores/detail", headers=ALICE)).status_code == 403
    detail = (await api.get("/v2/info/stores/detail", headers=ADMIN)).json()
    assert [store["type"] for store in detail["stores"]] == ["file", "file"]
    assert (await api.get("/v2/info/import", headers=ALICE)).json()["import-methods"][
        "type"
    ] == "array"


async def test_single_store_has_no_names(custom_api, tmp_path) -> None:
    api = await custom_api(
        DEFAULT__ENABLED_BACKENDS="",
        GLANCE_STORE__DEFAULT_BACKEND="",
        GLANCE_STORE__FILESYSTEM_STORE_DATADIR=str(tmp_path / "fast"),
    )
    body = {"disk_format": "raw", "container_format": "bare"}
    created = await api.post("/v2/images", json=body, headers=ALICE)
    assert "openstack-image-store-ids" not in created.headers
    headers = {**ALICE, "Content-Type": "application/octet-stream", "X-Image-Meta-Store": "x"}
    path = created.json()["file"]
    assert (await api.put(path, content=b"x", headers=headers)).status_code == 204
    assert "stores" not in (await api.get(created.json()["self"], headers=ALICE)).json()
    assert (await api.get("/v2/info/stores", headers=ALICE)).status_code == 404


@pytest.mark.parametrize(
    "name",
    ["image", "images", "member", "members", "task", "tasks", "metadefs/namespace"],
)
async def test_schemas(api, name: str) -> None:
    schema = (await api.get(f"/v2/schemas/{name}", headers=ALICE)).json()
    jsonschema.Draft4Validator.check_schema(schema)
    assert (await api.get("/v2/schemas/nope", headers=ALICE)).status_code == 404


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/plain"),
        ("", "text/plain"),
        ("image/png", "text/plain"),
        ("*/*", "text/html"),
        ("application/json, */*", "text/html"),
        ("text/html", "text/html"),
        ("application/json", "application/json"),
    ],
)
async def test_errors_in_the_form_that_clients_parse(api, accept, content_type) -> None:
    headers = {**ALICE, "Accept": accept or ""}
    for method, path, status in (
        ("GET", f"/v2/images/{uuid4()}", 404),
        ("GET", "/v2/nowhere", 404),
        ("PUT", "/v2/images", 405),
        ("GET", "/v2/images?limit=x", 400),
    ):
        answer = await api.request(method, path, headers=headers)
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith(content_type)
    too_many = {"tags": [str(number) for number in range(129)]}
    answer = await api.post("/v2/images", json=too_many, headers=headers)
    assert answer.status_code == 413
    assert answer.headers["content-type"].startswith(content_type)


async def test_a_new_image_shows_nothing_of_others(custom_api) -> None:
    api = await custom_api(DEFAULT__SHOW_MULTIPLE_LOCATIONS="true")
    body = {"disk_format": "raw", "container_format": "bare"}
    path = (await api.post("/v2/images", json=body, headers=ALICE)).json()["file"]
    octets = {**ALICE, "Content-Type": "application/octet-stream"}
    assert (await api.put(path, content=b"x", headers=octets)).status_code == 204
    created = (await api.post("/v2/images", json=body, headers=BOB)).json()
    assert "stores" not in created
    assert created["locations"] == []


async def test_errors_have_the_words_that_webob_has(api) -> None:
    created = await api.post(
        "/v2/images", json={"disk_format": "raw", "container_format": "bare"}, headers=ALICE
    )
    path = created.json()["file"]
    octets = {**ALICE, "Content-Type": "application/octet-stream"}
    assert (await api.put(path, content=b"x", headers=octets)).status_code == 204
    beyond = await api.get(path, headers={**ALICE, "Range": "bytes=1-"})
    assert beyond.json()["code"] == "416 Request Range Not Satisfiable"
    many = await api.post("/v2/images", json={"tags": [f"{n}" for n in range(129)]}, headers=ALICE)
    assert many.json()["code"] == "413 Request Entity Too Large"


async def test_a_list_takes_no_notice_of_a_body(api) -> None:
    for path in ("/v2/images", "/v2/metadefs/namespaces"):
        answer = await api.request("GET", path, json={"limit": "x"}, headers=ALICE)
        assert answer.status_code == 200, path
        assert answer.headers["x-openstack-request-id"].startswith("req-")


async def test_what_a_client_sent_is_not_html_in_the_answer(api) -> None:
    headers = {**ALICE, "Accept": "*/*"}
    answer = await api.get("/v2/images?name=<script>:x", headers=headers)
    assert answer.status_code == 400
    assert "<script>" not in answer.text


async def test_405_names_the_verbs_there_are(api, make_image) -> None:
    image = await make_image()
    answer = await api.post(image["self"], headers=ALICE)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, PATCH, DELETE"
    assert (await api.request("BREW", "/v2/nowhere", headers=ALICE)).status_code == 501


async def test_bodies_where_none_is_allowed_are_400(api, make_image) -> None:
    image = await make_image()
    for method, path in (
        ("GET", image["self"]),
        ("DELETE", image["self"]),
        ("GET", image["file"]),
        ("GET", "/v2/schemas/image"),
        ("PUT", f"{image['self']}/tags/x"),
        ("POST", f"{image['self']}/actions/deactivate"),
    ):
        answer = await api.request(method, path, content=b"{}", headers=ALICE)
        assert answer.status_code == 400, (method, path)
    assert (await api.get("/v2/schemas/task", headers=ALICE)).status_code == 200


async def test_request_ids(api) -> None:
    given = await api.get("/v2/images", headers={**ALICE, "X-Openstack-Request-ID": "abc"})
    assert given.headers["x-openstack-request-id"] == "req-abc"
    long = await api.get("/v2/images", headers={**ALICE, "X-Openstack-Request-ID": "a" * 65})
    assert long.status_code == 431


async def test_anonymous_access_is_for_reading_and_needs_a_policy(custom_api) -> None:
    api = await custom_api(DEFAULT__ALLOW_ANONYMOUS_ACCESS="true")
    assert (await api.get("/v2/images")).status_code == 403
    assert (await api.post("/v2/images", json={})).status_code == 403
    assert (await api.get("/v2/schemas/image")).status_code == 200


async def test_system_scoped_tokens_are_refused(api, make_image) -> None:
    image = await make_image()
    system = {**persona(None, "admin"), "OpenStack-System-Scope": "all"}
    assert (await api.get("/v2/images", headers=system)).status_code == 403
    assert (await api.delete(image["self"], headers=system)).status_code in (403, 404)
    assert (await api.get(image["self"], headers=ALICE)).status_code == 200


async def test_readiness_asks_the_database_and_the_default_store(api) -> None:
    ready = await api.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"] == {"database": "ok", "default_store": "ok", "drain": "ok"}
