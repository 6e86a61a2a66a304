"""What each route costs, counted by the server; docs/routes.md tells these numbers."""

import fcntl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from dev.routes import COSTS, Cost, places

from tests import databases, web
from tests.images.service import ADMIN, ALICE, BOB, OCTETS, PATCH, client, configuration, opened

Make = Callable[..., Awaitable[str]]
Request = tuple[str, dict[str, Any]]

URI = "https://example.com/image"
TASK = {"type": "import", "input": {"import_from": URI, "import_from_format": "raw"}}

# What is there to be refused.
NEVER = {"DELETE /v2/tasks/{task_id}"}


@pytest.fixture
async def site() -> AsyncGenerator[web.Web]:
    async with web.serving(web.answer(b"bytes")) as serving:
        yield serving


@pytest.fixture
async def api(
    images_database: str, tmp_path: Path, site: web.Web
) -> AsyncGenerator[httpx.AsyncClient]:
    environ = configuration(
        images_database,
        tmp_path,
        DEFAULT__ENABLED_BACKENDS="fast:file, cheap:file, web:http",
        OUTBOUND__ALLOWED_HOSTS=f"127.0.0.1:{site.port}",
        IMPORT_FILTERING_OPTS__ALLOWED_PORTS="",
        DEFAULT__IMAGE_CACHE_DIR=str(tmp_path / "cache"),
        # Nothing is tidied up, and reported, while statements are counted.
        DEFAULT__IMAGE_CACHE_TIDY_INTERVAL="3600",
        METRICS__ENABLED="false",
    )
    async with opened(environ) as app, client(app) as opened_client:
        yield opened_client


@pytest.fixture
def make(
    api: httpx.AsyncClient, images_database: str, site: web.Web, tmp_path: Path
) -> Generator[Make]:
    """`await make(data=b"…")`: the path of an image of Alice's, active if it has data.

    `as_task` makes a task instead, `as_namespace` a namespace of definitions, `as_url` something
    on the web; `copied` lets the image be in the store `cheap` as well. With `queued` it is to be
    cached, and as if another process did so.
    """
    held = ExitStack()

    async def make_image(
        *,
        data: bytes | None = None,
        member: str | None = None,
        deactivated: bool = False,
        as_task: bool = False,
        copied: bool = False,
        as_namespace: bool = False,
        as_url: bool = False,
        queued: bool = False,
    ) -> str:
        if as_namespace:
            whole = {
                "namespace": uuid4().hex,
                "resource_type_associations": [{"name": "old"}],
                "objects": [{"name": "old"}],
                "properties": {"old": {"title": "Old", "type": "string"}},
                "tags": [{"name": "old"}],
            }
            return (await api.post(SPACES, json=whole, headers=ADMIN)).json()["self"]
        if as_url:
            return f"{site.url}/image"
        if as_task:
            return (await api.post("/v2/tasks", json=TASK, headers=ADMIN)).json()["self"]
        body = {"disk_format": "raw", "container_format": "bare", "tags": ["old"]}
        path = (await api.post("/v2/images", json=body, headers=ALICE)).json()["self"]
        if data is not None:
            await api.put(f"{path}/file", content=data, headers={**ALICE, **OCTETS})
        if member is not None:
            await api.post(f"{path}/members", json={"member": member}, headers=ALICE)
        if deactivated:
            await api.post(f"{path}/actions/deactivate", headers=ALICE)
        if queued:
            path_queued = tmp_path / "cache" / "queue" / path.rpartition("/")[2]
            fcntl.flock(held.enter_context(path_queued.open("w")), fcntl.LOCK_EX)
        if copied:
            async with databases.connection(images_database) as server:
                await server.execute(
                    "INSERT INTO image_locations (image_id, store, url, status)"
                    " VALUES ($1, 'cheap', 'file:///cheap/x', 'active')",
                    path.rpartition("/")[2],
                )
        return path

    with held:
        yield make_image


async def list_images(make: Make) -> Request:
    await make()
    return "/v2/images", {}


async def create(make: Make) -> Request:
    return "/v2/images", {"json": {"name": "x", "tags": ["a"], "property": "value"}}


async def image(make: Make) -> Request:
    return await make(data=b"x"), {}


async def patch(make: Make) -> Request:
    operations = [{"op": "replace", "path": "/name", "value": "new"}]
    return await make(), {"json": operations, "headers": {**ALICE, **PATCH}}


async def upload(make: Make) -> Request:
    return f"{await make()}/file", {"content": b"bytes", "headers": {**ALICE, **OCTETS}}


async def stage(make: Make) -> Request:
    return f"{await make()}/stage", {"content": b"bytes", "headers": {**ALICE, **OCTETS}}


async def import_(make: Make) -> Request:
    return f"{await make()}/import", {"json": {"method": {"name": "web-download", "uri": URI}}}


async def tasks_of_image(make: Make) -> Request:
    return f"{await make()}/tasks", {}


async def create_task(make: Make) -> Request:
    return "/v2/tasks", {"json": TASK, "headers": ADMIN}


async def task(make: Make) -> Request:
    return await make(as_task=True), {"headers": ADMIN}


async def download(make: Make) -> Request:
    return f"{await make(data=b'bytes')}/file", {}


async def locations(make: Make) -> Request:
    return f"{await make(data=b'bytes')}/locations", {"headers": ADMIN}


async def add_location(make: Make) -> Request:
    return f"{await make()}/locations", {"json": {"url": await make(as_url=True)}}


async def list_members(make: Make) -> Request:
    return f"{await make(member='beta')}/members", {}


async def add_member(make: Make) -> Request:
    return f"{await make()}/members", {"json": {"member": "beta"}}


async def member(make: Make) -> Request:
    return f"{await make(member='beta')}/members/beta", {}


async def accept(make: Make) -> Request:
    path = f"{await make(member='beta')}/members/beta"
    return path, {"json": {"status": "accepted"}, "headers": BOB}


async def add_tag(make: Make) -> Request:
    return f"{await make()}/tags/new", {}


async def remove_tag(make: Make) -> Request:
    return f"{await make()}/tags/old", {}


async def deactivate(make: Make) -> Request:
    return f"{await make(data=b'x')}/actions/deactivate", {}


async def reactivate(make: Make) -> Request:
    return f"{await make(data=b'x', deactivated=True)}/actions/reactivate", {}


async def leave_store(make: Make) -> Request:
    path = await make(data=b"x", copied=True)
    return f"/v2/stores/cheap/{path.rpartition('/')[2]}", {"headers": ADMIN}


def cached(family: str = "cache") -> Callable[[Make], Awaitable[Request]]:
    async def request(make: Make) -> Request:
        image = (await make(data=b"x", queued=True)).rpartition("/")[2]
        return f"/v2/{family}/{image}", {"headers": ADMIN}

    return request


def fixed(path: str, headers: dict[str, str] = ALICE) -> Callable[[Make], Awaitable[Request]]:
    async def request(make: Make) -> Request:
        return path, {"headers": headers}

    return request


SPACES = "/v2/metadefs/namespaces"
SPACE = SPACES + "/{namespace}"
NAMED = {"name": "a"}
PROPERTY = {"name": "a", "title": "A", "type": "string"}


def definition(
    path: str = "", body: object = None, headers: dict[str, str] = ADMIN
) -> Callable[[Make], Awaitable[Request]]:
    """A request below a namespace that has one of each kind, named `old`."""

    async def request(make: Make) -> Request:
        return await make(as_namespace=True) + path, {"json": body, "headers": headers}

    return request


async def create_namespace(make: Make) -> Request:
    return SPACES, {"json": {"namespace": uuid4().hex}, "headers": ADMIN}


async def rename_namespace(make: Make) -> Request:
    body = {"namespace": uuid4().hex}
    return await make(as_namespace=True), {"json": body, "headers": ADMIN}


REQUESTS: dict[str, Callable[[Make], Awaitable[Request]]] = {
    "GET /v2/images": list_images,
    "POST /v2/images": create,
    "GET /v2/images/{image_id}": image,
    "DELETE /v2/images/{image_id}": image,
    "PATCH /v2/images/{image_id}": patch,
    "PUT /v2/images/{image_id}/file": upload,
    "PUT /v2/images/{image_id}/stage": stage,
    "POST /v2/images/{image_id}/import": import_,
    "GET /v2/images/{image_id}/tasks": tasks_of_image,
    "GET /v2/images/{image_id}/file": download,
    "HEAD /v2/images/{image_id}/file": download,
    "GET /v2/images/{image_id}/locations": locations,
    "POST /v2/images/{image_id}/locations": add_location,
    "GET /v2/images/{image_id}/members": list_members,
    "POST /v2/images/{image_id}/members": add_member,
    "GET /v2/images/{image_id}/members/{member}": member,
    "PUT /v2/images/{image_id}/members/{member}": accept,
    "DELETE /v2/images/{image_id}/members/{member}": member,
    "PUT /v2/images/{image_id}/tags/{tag}": add_tag,
    "DELETE /v2/images/{image_id}/tags/{tag}": remove_tag,
    "POST /v2/images/{image_id}/actions/deactivate": deactivate,
    "POST /v2/images/{image_id}/actions/reactivate": reactivate,
    "DELETE /v2/stores/{store}/{image_id}": leave_store,
    "GET /v2/cache": fixed("/v2/cache", ADMIN),
    "DELETE /v2/cache": fixed("/v2/cache", ADMIN),
    "PUT /v2/cache/{image_id}": cached(),
    "DELETE /v2/cache/{image_id}": cached(),
    "GET /v2/cache/nodes/{image_id}": cached("cache/nodes"),
    "POST /v2/cache/clean": fixed("/v2/cache/clean", ADMIN),
    "POST /v2/cache/prune": fixed("/v2/cache/prune", ADMIN),
    "GET /v2/cached_images": fixed("/v2/cached_images", ADMIN),
    "DELETE /v2/cached_images": fixed("/v2/cached_images", ADMIN),
    "DELETE /v2/cached_images/{image_id}": cached("cached_images"),
    "GET /v2/queued_images": fixed("/v2/queued_images", ADMIN),
    "DELETE /v2/queued_images": fixed("/v2/queued_images", ADMIN),
    "PUT /v2/queued_images/{image_id}": cached("queued_images"),
    "DELETE /v2/queued_images/{image_id}": cached("queued_images"),
    "GET /v2/info/import": fixed("/v2/info/import"),
    "GET /v2/info/stores": fixed("/v2/info/stores"),
    "GET /v2/info/stores/detail": fixed("/v2/info/stores/detail", ADMIN),
    "GET /v2/info/usage": fixed("/v2/info/usage"),
    "GET /v2/schemas/{name}": fixed("/v2/schemas/image"),
    "GET /v2/tasks": fixed("/v2/tasks", ADMIN),
    "POST /v2/tasks": create_task,
    "GET /v2/tasks/{task_id}": task,
    "DELETE /v2/tasks/{task_id}": fixed("/v2/tasks/any", ADMIN),
    "GET /v2/metadefs/namespaces": fixed(SPACES),
    "POST /v2/metadefs/namespaces": create_namespace,
    "GET /v2/metadefs/namespaces/{namespace}": definition(),
    "PUT /v2/metadefs/namespaces/{namespace}": rename_namespace,
    "DELETE /v2/metadefs/namespaces/{namespace}": definition(),
    "GET /v2/metadefs/resource_types": fixed("/v2/metadefs/resource_types"),
    f"GET {SPACE}/resource_types": definition("/resource_types"),
    f"POST {SPACE}/resource_types": definition("/resource_types", NAMED),
    f"DELETE {SPACE}/resource_types/{{name}}": definition("/resource_types/old"),
    f"GET {SPACE}/objects": definition("/objects"),
    f"POST {SPACE}/objects": definition("/objects", NAMED),
    f"DELETE {SPACE}/objects/{{name}}": definition("/objects/old"),
    f"DELETE {SPACE}/objects": definition("/objects"),
    f"GET {SPACE}/objects/{{name}}": definition("/objects/old"),
    f"PUT {SPACE}/objects/{{name}}": definition("/objects/old", NAMED),
    f"GET {SPACE}/properties": definition("/properties"),
    f"POST {SPACE}/properties": definition("/properties", PROPERTY),
    f"DELETE {SPACE}/properties/{{name}}": definition("/properties/old"),
    f"DELETE {SPACE}/properties": definition("/properties"),
    f"GET {SPACE}/properties/{{name}}": definition("/properties/old"),
    f"PUT {SPACE}/properties/{{name}}": definition("/properties/old", PROPERTY),
    f"GET {SPACE}/tags": definition("/tags"),
    f"POST {SPACE}/tags": definition("/tags", {"tags": [NAMED]}),
    f"DELETE {SPACE}/tags/{{name}}": definition("/tags/old"),
    f"DELETE {SPACE}/tags": definition("/tags"),
    f"GET {SPACE}/tags/{{name}}": definition("/tags/old"),
    f"PUT {SPACE}/tags/{{name}}": definition("/tags/old", NAMED),
    f"POST {SPACE}/tags/{{name}}": definition("/tags/a"),
}


def test_every_route_has_a_known_cost() -> None:
    assert {place.operation for place in places("images")} == COSTS["images"].keys()


@pytest.mark.parametrize("operation", COSTS["images"])
async def test_a_request_costs_what_is_told(
    api: httpx.AsyncClient, make: Make, images_database: str, operation: str
) -> None:
    method = operation.partition(" ")[0]

    async def send(path: str, arguments: dict[str, Any]) -> None:
        arguments = {"headers": ALICE, **arguments}
        answer = await api.request(method, path, **arguments)
        assert answer.is_success is (operation not in NEVER), answer.text

    # Once to make the connection ready, once to be counted.
    await send(*await REQUESTS[operation](make))
    path, arguments = await REQUESTS[operation](make)
    async with databases.statements(images_database) as seen:
        await send(path, arguments)
    transactions = [text for text in seen.texts if text.startswith("COMMIT")]
    statements = [
        text for text in seen.texts if not text.startswith(("BEGIN", "COMMIT", "ROLLBACK"))
    ]
    assert Cost(len(statements), len(transactions)) == COSTS["images"][operation], seen.texts


@pytest.mark.parametrize(
    "operation",
    [place.operation for place in places("images") if place.operation.startswith(("GET", "HEAD"))],
)
def test_reading_takes_one_statement_at_most(operation: str) -> None:
    cost = COSTS["images"][operation]
    if operation == "GET /v2/images/{image_id}/file":
        # The event image.send, after the last byte.
        cost = Cost(cost.statements - 1, cost.transactions - 1)
    assert cost in (Cost(0), Cost(1))
