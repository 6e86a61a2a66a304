"""Requests that schemathesis makes of the OpenAPI document: none of them is the service's fault.

Right and wrong ones, about what exists and what does not, by callers with different rights, and
bodies that are right but for a place or two: see `tests/fuzzing.py`.
"""

import json
import random
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, cast

import httpx
import pytest
import requests
import schemathesis
from dev.routes import COSTS
from diptych_common.openapi import described
from diptych_images import app
from schemathesis import Case
from starlette.types import ASGIApp

from tests import web
from tests.fuzzing import IN_EVERY_RUN, WHEN_ASKED, Fuzzed, ask_much, weighted
from tests.images.definitions import COLOUR, SIZE, WHOLE
from tests.images.service import ADMIN, ALICE, BOB, READER, configuration, opened, persona
from tests.images.subjects import NEW, Subjects

HERE = "http://images.example"
OPERATIONS = sorted(COSTS["images"])

# Of these no request can succeed.
HOPELESS = {"DELETE /v2/tasks/{task_id}"}

# A caller, and how often it asks.
PERSONAS = (
    (ALICE, 35),
    (ADMIN, 35),
    (BOB, 8),
    (persona("gamma"), 4),
    (READER, 4),
    ({**ALICE, "X-Service-Roles": "service", "X-Service-User-Id": "nova"}, 10),
    ({}, 4),
)

ACCEPTS = (
    ("application/json", 6),
    ("*/*", 2),
    ("text/html", 1),
    ("text/plain", 1),
    ("application/xml;q=x, */*;q=0", 1),
)

PATCHES = [f"application/openstack-images-v2.{minor}-json-patch" for minor in (0, 1)]


@schemathesis.serializer(*PATCHES)
def _as_json(_: schemathesis.SerializationContext, value: object) -> bytes:
    return json.dumps(value).encode()


def patch(op: str, path: str, *value: object) -> dict[str, object]:
    return {"op": op, "path": path, **({"value": value[0]} if value else {})}


def bodies(url: str) -> dict[str, list[Any]]:
    """Right ones for the operations that take JSON."""
    digest = {"os_hash_algo": "sha256", "os_hash_value": "0" * 64}
    namespace = {"namespace": "Whole", "description": "new", "protected": False}
    task = {"import_from": url, "import_from_format": "raw", "image_properties": NEW}
    methods: list[dict[str, Any]] = [
        {"name": "web-download", "uri": url},
        {"name": "glance-direct"},
        {"name": "copy-image"},
        {"name": "web-download", "uri": url, "validation_data": digest},
    ]
    return {
        "POST /v2/images": [NEW, {"name": "n", "visibility": "community", "min_ram": 1}],
        "PATCH /v2/images/{image_id}": [
            [patch("replace", "/name", "n"), patch("add", "/k", "v"), patch("remove", "/mine")],
            [patch("add", "/tags", ["t"]), patch("replace", "/min_disk", 3)],
            [patch("replace", "/visibility", "private"), patch("replace", "/protected", False)],
            [patch("replace", "/locations", [{"url": url, "metadata": {"k": "v"}}])],
            [patch("add", "/locations/-", {"url": url, "metadata": {}, "validation_data": digest})],
            [patch("remove", "/locations/0")],
        ],
        "POST /v2/images/{image_id}/import": [
            *({"method": method} for method in methods),
            *({"method": method, "stores": ["fast", "cheap"]} for method in methods),
            *({"method": method, "all_stores": True} for method in methods),
        ],
        "POST /v2/images/{image_id}/locations": [
            {"url": url},
            {"url": url, "validation_data": digest},
            {"url": url, "validation_data": {**digest, "store": "web"}},
        ],
        "POST /v2/images/{image_id}/members": [{"member": "delta"}],
        "PUT /v2/images/{image_id}/members/{member}": [{"status": "rejected"}],
        "POST /v2/tasks": [{"type": "import", "input": task}],
        "POST /v2/metadefs/namespaces": [{**WHOLE, "namespace": f"N{at}"} for at in range(20)],
        "PUT /v2/metadefs/namespaces/{namespace}": [namespace],
        "POST /v2/metadefs/namespaces/{namespace}/resource_types": [
            {"name": "OS::Cinder::Volume", "prefix": "p_", "properties_target": "image"}
        ],
        "POST /v2/metadefs/namespaces/{namespace}/objects": [
            {"name": "New", "required": ["colour"], "properties": {"colour": COLOUR}}
        ],
        "PUT /v2/metadefs/namespaces/{namespace}/objects/{name}": [
            {"name": "Shape", "properties": {"size": SIZE}}
        ],
        "POST /v2/metadefs/namespaces/{namespace}/properties": [{"name": "colour", **COLOUR}],
        "PUT /v2/metadefs/namespaces/{namespace}/properties/{name}": [{"name": "size", **COLOUR}],
        "POST /v2/metadefs/namespaces/{namespace}/tags": [{"tags": [{"name": "three"}]}],
        "PUT /v2/metadefs/namespaces/{namespace}/tags/{name}": [{"name": "four"}],
    }


class Service:
    """The service on a database of its own, which nobody else fills while a test runs."""

    def __init__(self, app: ASGIApp, url: str) -> None:
        # What the server sees of an error is an answer, not an exception.
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.api = httpx.AsyncClient(transport=transport, base_url=HERE)
        self.url = url


@pytest.fixture(scope="module")
async def _service(
    _images_schema: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Service]:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "staging").mkdir()
    async with web.serving(web.answer(b"bytes")) as site:
        environ = configuration(
            _images_schema[0],
            folder,
            DEFAULT__ENABLED_BACKENDS="fast:file, cheap:file, web:http",
            DEFAULT__ALLOW_ANONYMOUS_ACCESS="true",
            DEFAULT__SHOW_IMAGE_DIRECT_URL="true",
            DEFAULT__SHOW_MULTIPLE_LOCATIONS="true",
            DEFAULT__IMAGE_CACHE_DIR=str(folder / "cache"),
            OS_GLANCE_STAGING_STORE__FILESYSTEM_STORE_DATADIR=str(folder / "staging"),
            # A test may open another service with other directories beside this one.
            FAST__FILESYSTEM_STORE_SHARED="false",
            CHEAP__FILESYSTEM_STORE_SHARED="false",
            OUTBOUND__ALLOWED_HOSTS=f"127.0.0.1:{site.port}",
            IMPORT_FILTERING_OPTS__ALLOWED_PORTS="",
        )
        async with opened(environ) as application:
            service = Service(application, f"{site.url}/disk.img")
            yield service
            await service.api.aclose()


@pytest.fixture
async def service(_service: Service, images_database: str) -> Service:
    """The service without images."""
    return _service


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return described(title="Images", routers=app.ROUTERS)


@pytest.fixture(scope="module")
def schema(document: dict[str, Any]) -> Any:
    """schemathesis' operations by path and method."""
    return schemathesis.openapi.from_dict(document)


async def request_of(
    subjects: Subjects, choose: random.Random, case: Case, body: object
) -> httpx.Request:
    """The case with what exists in place of what is made up; with this body if there is one."""
    path = await subjects.path_of(
        case.path, case.path_parameters, fitting=0.5 if body is None else 1
    )
    sent = case.as_transport_kwargs(base_url=HERE)
    headers = await subjects.headers(case.path, case.headers)
    if "Content-Type" in sent["headers"]:
        headers["Content-Type"] = sent["headers"]["Content-Type"]
    content: dict[str, Any] = {name: sent[name] for name in ("data", "json") if name in sent}
    if body is not None:
        headers["Content-Type"] = PATCHES[1] if case.method == "PATCH" else "application/json"
        content = {"data": json.dumps(body).encode()}
    params = await subjects.query(case.path, case.query)
    plain = requests.Request(case.method, HERE + path, params=params, headers=headers, **content)
    ready = plain.prepare()
    accept = weighted(choose, ACCEPTS)
    headers = {**ready.headers, "Accept": accept, **weighted(choose, PERSONAS)}
    # Values may hold what is not ASCII, which goes out as servers read it.
    raw = [(name.encode(), str(value).encode("latin-1")) for name, value in headers.items()]
    return httpx.Request(
        case.method, str(ready.url), headers=raw, content=cast("bytes | None", ready.body)
    )


def wrong_error(answer: httpx.Response) -> str | None:
    status = answer.status_code
    if answer.request.method == "HEAD":
        return "has a body" if answer.content else None
    match answer.headers.get("content-type", "").partition(";")[0]:
        case "application/json":
            document = answer.json()
            is_right = document.keys() == {"message", "code", "title"} and document[
                "code"
            ].startswith(f"{status} ")
        case "text/html":
            is_right = f"<title>{status} " in answer.text
        case "text/plain":
            is_right = answer.text.startswith(f"{status} ")
        case _:
            is_right = False
    return None if is_right else "is no error of the API"


def fuzzed(
    name: str, service: Service, document: dict[str, Any], schema: Any, choose: random.Random
) -> Fuzzed:
    subjects = Subjects(service.api, service.url, choose)
    return Fuzzed(
        name,
        service.api,
        document,
        schema,
        subjects,
        partial(request_of, subjects, choose),
        wrong_error,
        right_bodies=bodies(service.url).get(name, []),
        can_succeed=name not in HOPELESS,
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_requests_made_up_are_answered(
    service: Service,
    document: dict[str, Any],
    schema: Any,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    count = -(-IN_EVERY_RUN // len(OPERATIONS))
    choose = random.Random(name)
    asked = fuzzed(name, service, document, schema, choose)
    await ask_much(asked, choose, count=count, seed=name, always_same=True)
    unexpected = [record for record in caplog.records if record.exc_info]
    assert unexpected == [], caplog.text


@pytest.mark.fuzz
@pytest.mark.parametrize("name", OPERATIONS)
async def test_more_requests_made_up_are_answered(
    service: Service, document: dict[str, Any], schema: Any, name: str
) -> None:
    count = -(-WHEN_ASKED // len(OPERATIONS))
    seed = random.SystemRandom().getrandbits(32)
    choose = random.Random(f"{seed}")
    asked = fuzzed(name, service, document, schema, choose)
    await ask_much(asked, choose, count=count, seed=seed, always_same=False)
