"""Requests that schemathesis makes of the OpenAPI document: none of them is the service's fault.

Right and wrong ones, about what exists and what does not, by callers with different rights, and
bodies that are right but for a place or two. Their number is for all operations together:
5,000 in every run, nearly always the same; 20,000 in `make fuzz`, always others.
"""

import copy
import json
import random
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from typing import Any, cast

import httpx
import jsonschema
import pytest
import requests
import schemathesis
from dev.routes import COSTS
from diptych_common.openapi import described
from diptych_images import app
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from starlette.types import ASGIApp

from tests import web
from tests.images.definitions import COLOUR, SIZE, WHOLE
from tests.images.service import ADMIN, ALICE, BOB, READER, configuration, opened, persona
from tests.images.subjects import NEW, Subjects

IN_EVERY_RUN = 5_000
WHEN_ASKED = 20_000

HERE = "http://images.example"
OPERATIONS = sorted(COSTS)

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

# Values of every kind that a body may hold, to stand where another one is expected.
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, float("inf"),
    float("nan"), "", " ", "\0", "\ud800", "a\nb", "é" * 256, "x" * 70_000, "../..", "%00", "1e400",
    [], {}, [[]], {"": ""}, {"\0": "\0"}, [None], "file:///etc/passwd", "http://127.0.0.1:1/",
    "9999-12-31T23:59:59Z", "self", "__class__", "$ref",
)  # fmt: skip

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


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """What is within the document: what holds it, and the key or index."""
    for key in list(document if isinstance(document, dict) else range(len(document))):
        yield document, key
        if isinstance(document[key], dict | list):
            yield from places(document[key])


def mutated(document: Any, choose: random.Random) -> Any:
    """The document with no, one or two places changed."""
    document = copy.deepcopy(document)
    for _ in range(choose.choice((0, 0, 0, 1, 2))):
        found = list(places(document))
        if not found:
            break
        holder, key = choose.choice(found)
        match choose.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[choose.choice(("", "\0", "x" * 300, "self", "id"))] = holder[key]
            case 2 if isinstance(holder, list):
                holder.append(holder[key])
            case 3:
                holder[key] = [holder[key]]
            case _:
                holder[key] = choose.choice(NASTY)
    return document


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


def made_up(operation: Any, mode: GenerationMode, count: int, *, always_same: bool) -> list[Case]:
    """So many cases; they repeat where there are not as many."""
    cases: list[Case] = []

    # Made at once, for what a strategy is built of costs more than what is drawn from it.
    @settings(
        max_examples=count,
        derandomize=always_same,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.filter_too_much,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    @given(case=operation.as_strategy(mode))
    def collect(case: Case) -> None:
        cases.append(case)

    collect()
    return [cases[at % len(cases)] for at in range(count)]


def is_refusable(operation: dict[str, Any]) -> bool:
    """Whether there is something in a request that can be wrong: any text is right in a path."""
    beyond = [one for one in operation.get("parameters", []) if one["in"] != "path"]
    return bool(beyond) or "requestBody" in operation


def weighted(choose: random.Random, choices: Iterable[tuple[Any, int]]) -> Any:
    values, weights = zip(*choices, strict=True)
    return choose.choices(values, weights)[0]


async def request_of(
    case: Case, subjects: Subjects, choose: random.Random, body: object = None
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


def fault(answer: httpx.Response, documented: Mapping[str, Any]) -> str | None:
    """What is wrong with an answer."""
    if answer.status_code >= 500:
        return "is the service's fault"
    if "x-openstack-request-id" not in answer.headers:
        return "has no request id"
    if b"Traceback" in answer.content:
        return "holds a traceback"
    if answer.is_error:
        return wrong_error(answer)
    promised = documented.get(str(answer.status_code))
    if promised is None:
        return "is not in the document"
    for content in promised.get("content", {}).values():
        if content["schema"] and content["schema"].get("format") != "binary":
            errors = jsonschema.Draft202012Validator(content["schema"]).iter_errors(answer.json())
            if error := next(errors, None):
                return f"is not as the document says: {error.message[:200]}"
    return None


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


async def ask_much(
    name: str,
    service: Service,
    document: dict[str, Any],
    schema: Any,
    *,
    count: int,
    seed: object,
    always_same: bool,
) -> None:
    """Send an operation `count` requests of schemathesis', and as many with bodies of our own."""
    choose = random.Random(f"{seed}")
    subjects = Subjects(service.api, service.url, choose)
    method, _, path = name.partition(" ")
    operation = document["paths"][path][method.lower()]
    wrong = count // 2 if is_refusable(operation) else 0
    sent: Counter[int] = Counter()
    faults: list[str] = []

    cases = made_up(
        schema[path][method], GenerationMode.POSITIVE, count - wrong, always_same=always_same
    )
    right_bodies = bodies(service.url).get(name, [])
    # So many that some succeed whatever is drawn, which is not the same in every set of tests.
    own = [
        (cases[at % len(cases)], mutated(choose.choice(right_bodies), choose))
        for at in range(count if right_bodies else 0)
    ]
    if wrong:
        cases += made_up(
            schema[path][method], GenerationMode.NEGATIVE, wrong, always_same=always_same
        )
    for case, body in [*((case, None) for case in cases), *own]:
        request = await request_of(case, subjects, choose, body)
        answer = await service.api.send(request)
        sent[answer.status_code] += 1
        if found := fault(answer, operation["responses"]):
            faults.append(
                f"{answer.status_code} {answer.text[:300]!r} {found}: {method} {request.url}"
                f" {request.headers} {request.content[:1000]!r}"
            )
        if answer.is_success and method not in ("GET", "HEAD"):
            subjects.changed()
        else:
            subjects.unchanged()

    assert faults == [], "\n".join([f"seed {seed}: {len(faults)} of {sent.total()}", *faults[:20]])
    assert sent.total() >= count
    succeeded = sum(times for status, times in sent.items() if 200 <= status < 300)
    assert bool(succeeded) is (name not in HOPELESS), sent


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
    await ask_much(name, service, document, schema, count=count, seed=name, always_same=True)
    unexpected = [record for record in caplog.records if record.exc_info]
    assert unexpected == [], caplog.text


@pytest.mark.fuzz
@pytest.mark.parametrize("name", OPERATIONS)
async def test_more_requests_made_up_are_answered(
    service: Service, document: dict[str, Any], schema: Any, name: str
) -> None:
    count = -(-WHEN_ASKED // len(OPERATIONS))
    seed = random.SystemRandom().getrandbits(32)
    await ask_much(name, service, document, schema, count=count, seed=seed, always_same=False)
