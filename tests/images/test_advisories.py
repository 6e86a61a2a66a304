"""What advisories about image services warn of and no other test is about: see docs/security.md."""

import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from dev.routes import places

from tests import databases, web
from tests.images.service import (
    ADMIN,
    ALICE,
    BOB,
    OCTETS,
    PATCH,
    client,
    configuration,
    opened,
)
from tests.images.sites import DATA, Make

Custom = Callable[..., Awaitable[httpx.AsyncClient]]

FORMATS = {"disk_format": "raw", "container_format": "bare"}
V20 = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
CANARY = "canary-5b1f"


# ------------------------------------------------------------------------------------------------
# What an image is made of stays
# ------------------------------------------------------------------------------------------------

OTHER = DATA.swapcase()  # as long
SERVICE = {**ALICE, "X-Service-Roles": "service", "X-Service-User-Id": "nova"}


def _patch(op: str, path: str, value: object = None) -> dict[str, Any]:
    return {"json": [{"op": op, "path": path, "value": value}], "headers": PATCH}


ATTEMPTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PUT", "/file", {"content": OTHER, "headers": OCTETS}),
    ("PUT", "/file", {"content": OTHER, "headers": {**OCTETS, "X-Image-Meta-Status": "queued"}}),
    ("PUT", "/file", {"content": OTHER, "headers": {**OCTETS, "X-Image-Meta-Store": "cheap"}}),
    ("PUT", "/stage", {"content": OTHER, "headers": OCTETS}),
    (
        "PUT",
        "",
        {"headers": {"X-Image-Meta-Status": "queued", "X-Glance-Registry-Purge-Props": ""}},
    ),
    ("PATCH", "", {"json": [], "headers": {**PATCH, "X-Image-Meta-Status": "queued"}}),
    ("PATCH", "", _patch("replace", "/status", "queued")),
    ("PATCH", "", _patch("replace", "/size", 1)),
    ("PATCH", "", _patch("replace", "/checksum", "0" * 32)),
    ("PATCH", "", _patch("replace", "/os_hash_algo", "sha1")),
    ("PATCH", "", _patch("replace", "/os_hash_value", "0" * 128)),
    ("PATCH", "", _patch("replace", "/disk_format", "qcow2")),
    ("PATCH", "", _patch("remove", "/locations/0")),
    ("PATCH", "", _patch("replace", "/locations", [])),
    ("PATCH", "", _patch("replace", "/locations", [{"url": "{other}", "metadata": {}}])),
    ("POST", "/locations", {"json": {"url": "{other}"}}),
    ("POST", "/locations", {"json": {"url": "{web}"}}),
    ("POST", "/import", {"json": {"method": {"name": "glance-direct"}}}),
    ("POST", "/import", {"json": {"method": {"name": "web-download", "uri": "{web}"}}}),
    (
        "POST",
        "/import",
        {"json": {"method": {"name": "copy-image"}, "all_stores": True}},
    ),
    ("POST", "/actions/deactivate", {}),
    ("POST", "/actions/reactivate", {}),
    ("DELETE", "/locations/0", {}),
    ("DELETE", "/file", {}),
)
# Whom the operator trusts with every store may add what is in one.
OF_USERS = tuple(
    ("PATCH", "", _patch("add", "/locations/-", {"url": url, "metadata": {}}))
    for url in ("{web}", "{other}")
)


def _filled(value: Any, **words: str) -> Any:
    match value:
        case str():
            for name, word in words.items():
                value = value.replace(f"{{{name}}}", word)
            return value
        case list():
            return [_filled(each, **words) for each in value]
        case dict():
            return {name: _filled(each, **words) for name, each in value.items()}
        case _:
            return value


@pytest.mark.parametrize("walk", range(3))
async def test_no_requests_change_the_bytes_of_an_active_image(site: Make, walk: int) -> None:
    """OSSA-2015-019 (CVE-2015-5251), OSSA-2016-006 (CVE-2016-0757), OSSN-0065, OSSN-0090."""
    here = await site(
        DEFAULT__SHOW_MULTIPLE_LOCATIONS="true",
        DEFAULT__ENABLED_BACKENDS="fast:file, cheap:file, third:file, web:http",
        WEB__WEIGHT="9",
    )
    image, other = await here.active(), await here.active(OTHER)
    [location] = (await here.show(other, ADMIN))["locations"]
    made_of = ("size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "disk_format")
    before = await here.show(image, ADMIN)
    # One sequence of many, the same in every run.
    chosen = random.Random(walk)
    steps = [(attempt, who) for attempt in ATTEMPTS for who in (ALICE, ADMIN, SERVICE)]
    steps += [(attempt, ALICE) for attempt in OF_USERS] * 3
    async with web.serving(web.answer(OTHER)) as elsewhere:
        for (method, below, arguments), who in chosen.sample(steps, k=40):
            sent = _filled(arguments, other=location["url"], web=f"{elsewhere.url}/x")
            path, headers = f"/v2/images/{image}{below}", {**who, **sent.pop("headers", {})}
            answer = await here.api.request(method, path, headers=headers, **sent)
            assert answer.status_code < 500, answer.text
            if (method, below, arguments) in OF_USERS:
                assert answer.status_code in (400, 403, 409)
            shown = await here.show(image, ADMIN)
            assert shown["status"] in ("active", "deactivated"), (method, below)
            assert [shown[name] for name in made_of] == [before[name] for name in made_of]
        await here.work()
    for store in ("fast", "cheap", "third"):
        path = f"/v2/images/{image}/file?prefer={store}"
        assert (await here.api.get(path, headers=ADMIN)).content == DATA
    shown = await here.show(image, ADMIN)
    assert [shown[name] for name in made_of] == [before[name] for name in made_of]


# ------------------------------------------------------------------------------------------------
# Who may not have the bytes has them in no way
# ------------------------------------------------------------------------------------------------

WAYS: dict[str, tuple[str, str, dict[str, str]]] = {
    "whole": ("GET", "/v2/images/{id}/file", {}),
    "head": ("HEAD", "/v2/images/{id}/file", {}),
    "range": ("GET", "/v2/images/{id}/file", {"Range": "bytes=0-1"}),
    "content-range": ("GET", "/v2/images/{id}/file", {"Content-Range": "bytes 0-1/5"}),
    "unchanged": ("GET", "/v2/images/{id}/file", {"If-None-Match": "{etag}"}),
    "any": ("GET", "/v2/images/{id}/file", {"If-None-Match": "*"}),
    "prefer": ("GET", "/v2/images/{id}/file?prefer=fast", {}),
    "older version": ("GET", "/v2.3/images/{id}/file", {}),
    "locations": ("GET", "/v2/images/{id}/locations", {}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("by", ["policy", "deactivation"])
async def test_who_may_not_download_has_no_way(
    custom_api: Custom, tmp_path: Path, way: str, by: str
) -> None:
    """OSSA-2013-027 (CVE-2013-4428)."""
    rules = tmp_path / "policy.yaml"
    denies = "role:member and not 'secret':%(kind)s"
    rules.write_text(f'"download_image": "{denies}"\n' if by == "policy" else "{}")
    api = await custom_api(OSLO_POLICY__POLICY_FILE=str(rules))
    image = (await api.post("/v2/images", json=FORMATS, headers=ALICE)).json()
    await api.put(image["file"], content=b"bytes", headers={**ALICE, **OCTETS})
    etag = (await api.get(image["file"], headers=ALICE)).headers["etag"]
    if by == "policy":
        secret = [{"op": "add", "path": "/kind", "value": "secret"}]
        done = await api.patch(image["self"], json=secret, headers={**ALICE, **PATCH})
    else:
        done = await api.post(f"{image['self']}/actions/deactivate", headers=ALICE)
    assert done.is_success
    method, path, headers = _filled(list(WAYS[way]), id=image["id"], etag=etag)
    refused = await api.request(method, path, headers={**ALICE, **headers})
    assert refused.status_code == 403
    assert not {"etag", "content-md5"} & refused.headers.keys()


# ------------------------------------------------------------------------------------------------
# What one may not see is not there
# ------------------------------------------------------------------------------------------------

MEMBER = {"member": "beta"}
BODIES: dict[str, dict[str, Any]] = {
    "PATCH /v2/images/{image_id}": {"json": [], "headers": PATCH},
    "PUT /v2/images/{image_id}/file": {"content": b"x", "headers": OCTETS},
    "PUT /v2/images/{image_id}/stage": {"content": b"x", "headers": OCTETS},
    "POST /v2/images/{image_id}/import": {
        "json": {"method": {"name": "web-download", "uri": "https://example.com/x"}}
    },
    "POST /v2/images/{image_id}/locations": {"json": {"url": "https://example.com/x"}},
    "POST /v2/images/{image_id}/members": {"json": MEMBER},
    "PUT /v2/images/{image_id}/members/{member}": {"json": {"status": "accepted"}},
    "PUT /v2/metadefs/namespaces/{namespace}": {"json": {"namespace": "{namespace}"}},
    "POST /v2/metadefs/namespaces/{namespace}/resource_types": {"json": {"name": "x"}},
    "POST /v2/metadefs/namespaces/{namespace}/objects": {"json": {"name": "x"}},
    "PUT /v2/metadefs/namespaces/{namespace}/objects/{name}": {"json": {"name": "x"}},
    "POST /v2/metadefs/namespaces/{namespace}/properties": {
        "json": {"name": "x", "title": "x", "type": "string"}
    },
    "PUT /v2/metadefs/namespaces/{namespace}/properties/{name}": {
        "json": {"name": "x", "title": "x", "type": "string"}
    },
    "POST /v2/metadefs/namespaces/{namespace}/tags": {"json": {"tags": [{"name": "x"}]}},
    "PUT /v2/metadefs/namespaces/{namespace}/tags/{name}": {"json": {"name": "x"}},
}
OF_ONE = [
    place.operation
    for place in places("images")
    if "{image_id}" in place.operation or "{namespace}" in place.operation
]


@pytest.mark.parametrize("operation", OF_ONE)
async def test_what_is_not_seen_is_answered_as_what_is_not_there(
    api: httpx.AsyncClient, images_database: str, operation: str
) -> None:
    """In the same words, with the same headers, and by asking the database as often."""
    image = (await api.post("/v2/images", json={"visibility": "private"}, headers=ALICE)).json()[
        "id"
    ]
    space = {"namespace": "hidden-1", "visibility": "private", "owner": "alpha"}
    assert (await api.post("/v2/metadefs/namespaces", json=space, headers=ADMIN)).is_success
    method, _, template = operation.partition(" ")
    others = {"member": "beta", "store": "fast"}

    async def ask(image_id: str, namespace: str) -> tuple[int, dict[str, str], str, int]:
        words = {"image_id": image_id, "namespace": namespace, **others}
        sent = _filled(BODIES.get(operation, {}), **words)
        headers = {**BOB, **sent.pop("headers", {})}
        async with databases.statements(images_database) as seen:
            path = template.format_map(defaultdict(lambda: "x", words))
        answer = await api.request(method, path, headers=headers, **sent)
        told = dict(answer.headers)
        assert told.pop("x-openstack-request-id")
        text = answer.text.replace(image_id, "ID").replace(namespace, "NAME")
        return answer.status_code, told, text, len(seen.texts)

    await ask(image, "hidden-1")  # connections and their statements are prepared
    absent = str(uuid4())
    hidden = await ask(image, "hidden-1")
    assert hidden == await ask(absent, "hidden-2")
    # What is for administrators alone may say so, whatever it is asked about.
    is_for_users = template.split("/")[2] in ("images", "stores", "metadefs")
    assert hidden[0] == 404 or (hidden[0] == 403 and not is_for_users)


async def test_a_task_that_is_not_seen_is_answered_as_one_that_is_not_there(
    custom_api: Custom, tmp_path: Path
) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text('"tasks_api_access": "role:member"\n')
    api = await custom_api(OSLO_POLICY__POLICY_FILE=str(rules))
    given = {"type": "import", "input": {"import_from": "https://example.com/x"}}
    task = (await api.post("/v2/tasks", json=given, headers=ALICE)).json()["id"]
    absent = str(uuid4())
    for method in ("GET", "DELETE"):
        one, none = [
            await api.request(method, f"/v2/tasks/{each}", headers=BOB) for each in (task, absent)
        ]
        assert one.status_code == none.status_code
        assert one.status_code in (404, 405)
        assert one.text.replace(task, absent) == none.text


# ------------------------------------------------------------------------------------------------
# Names that are the service's own
# ------------------------------------------------------------------------------------------------

OWN_NAMES = (
    "status", "size", "virtual_size", "checksum", "created_at", "updated_at", "direct_url",
    "self", "file", "schema", "stores", "location", "deleted", "deleted_at", "os_glance_x",
    "os_glance_import_task", "os_glance_importing_to_stores", "os_glance_failed_import",
)  # fmt: skip


@pytest.mark.parametrize("name", OWN_NAMES)
async def test_no_way_of_writing_sets_what_is_the_services_own(
    api: httpx.AsyncClient,
    make_image: Callable[..., Awaitable[dict[str, Any]]],
    images_database: str,
    name: str,
) -> None:
    image = await make_image(data=b"bytes", mine="x")
    for who in (ALICE, ADMIN):
        for value in ("x", 1, [], None):
            created = await api.post("/v2/images", json={name: value}, headers=who)
            assert created.status_code in (400, 403), value
        for path in (f"/{name}", f"/ {name}", f"/{name} ", f"/\t{name}"):
            for op in ("add", "replace", "remove"):
                new = [
                    {"op": "add", "path": "/mine", "value": "y"},
                    {"op": op, "path": path, "value": "x"},
                ]
                old = [{"replace": "/mine", "value": "y"}, {op: path, "value": "x"}]
                for body, dialect in ((new, PATCH), (old, V20)):
                    answer = await api.patch(image["self"], json=body, headers={**who, **dialect})
                    assert answer.status_code in (400, 403), (op, path, answer.text)
    properties = {**FORMATS, name: "x"}
    given = {"import_from": "https://example.com/x", "image_properties": properties}
    task = await api.post("/v2/tasks", json={"type": "import", "input": given}, headers=ADMIN)
    assert task.status_code in (400, 403)
    assert (await api.get(image["self"], headers=ALICE)).json() == image
    async with databases.connection(images_database) as database:
        assert await database.fetchval("SELECT count(*) FROM images") == 1


@pytest.mark.parametrize("name", ["\u017ftatus", "status\u200b", "Status", "sta~0tus", "%73tatus"])
async def test_what_only_looks_like_such_a_name_is_another(
    api: httpx.AsyncClient,
    make_image: Callable[..., Awaitable[dict[str, Any]]],
    name: str,
) -> None:
    image = await make_image(data=b"bytes")
    body = [{"op": "add", "path": f"/{name}", "value": "queued"}]
    answer = await api.patch(image["self"], json=body, headers={**ALICE, **PATCH})
    assert answer.status_code == 200
    shown = answer.json()
    assert shown.pop(name.replace("~0", "~")) == "queued"
    assert shown | {"updated_at": ""} == image | {"updated_at": ""}


async def test_headers_of_the_first_api_mean_nothing(api: httpx.AsyncClient) -> None:
    """OSSN-0078 (CVE-2017-7200): there a header had the service fetch any address."""
    old = {
        "X-Glance-Api-Copy-From": "http://169.254.169.254/latest/meta-data",
        "X-Image-Meta-Location": "file:///etc/passwd",
        "X-Image-Meta-Status": "active",
        "X-Image-Meta-Is_public": "True",
        "X-Image-Meta-Owner": "beta",
    }
    created = (await api.post("/v2/images", json=FORMATS, headers={**ALICE, **old})).json()
    assert (created["status"], created["visibility"], created["owner"]) == (
        "queued",
        "shared",
        "alpha",
    )
    assert (await api.get(created["file"], headers=ALICE)).status_code == 204
    for method, path in (("POST", "/v1/images"), ("PUT", f"/v1/images/{created['id']}")):
        answer = await api.request(method, path, headers={**ADMIN, **old})
        assert (answer.status_code, "versions" in answer.json()) == (300, True)


# ------------------------------------------------------------------------------------------------
# Who asks
# ------------------------------------------------------------------------------------------------


async def test_only_a_token_says_who_asks(images_database: str, tmp_path: Path) -> None:
    """OSSA-2026-001 (CVE-2026-22797), CVE-2025-65073: neither headers nor signatures do."""
    spoofed = {
        **ADMIN,
        "X-Identity-Status": "Confirmed",
        "X-Role": "admin",
        "X-Tenant": "alpha",
        "X-Is-Admin-Project": "True",
        "X-Service-Roles": "service",
        "X-Service-Identity-Status": "Confirmed",
        "OpenStack-System-Scope": "all",
    }
    signature = f"Credential={CANARY}/20260101/RegionOne/s3/aws4_request, Signature={'0' * 64}"
    async with web.serving(web.answer(b"{}", 500)) as keystone:
        environ = configuration(
            images_database,
            tmp_path,
            PASTE_DEPLOY__FLAVOR="keystone",
            KEYSTONE_AUTHTOKEN__AUTH_URL=keystone.url,
            KEYSTONE_AUTHTOKEN__USERNAME="images",
            KEYSTONE_AUTHTOKEN__PASSWORD="secret",
            KEYSTONE_AUTHTOKEN__PROJECT_NAME="service",
        )
        async with opened(environ) as app, client(app) as api:
            for headers in (
                spoofed,
                {**spoofed, "Authorization": f"AWS4-HMAC-SHA256 {signature}"},
                {"Authorization": f"AWS {CANARY}:c2lnbmF0dXJl", "Date": "Thu, 01 Jan 2026"},
                {"Authorization": "Basic YWRtaW46YWRtaW4="},
                {"Authorization": f"Bearer {CANARY}"},
            ):
                for path in (
                    "/v2/images",
                    f"/v2/images?X-Amz-Credential={CANARY}&X-Amz-Signature=0",
                ):
                    answer = await api.get(path, headers=headers)
                    assert answer.status_code == 401
                    assert answer.headers["www-authenticate"].startswith("Keystone uri=")
        assert keystone.asked == []


async def test_a_failure_inside_tells_no_token(
    images_database: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """OSSA-2017-001 (CVE-2017-2592): a request that failed was logged with its token."""
    secret = {
        "X-Auth-Token": f"{CANARY}-token",
        "X-Service-Token": f"{CANARY}-service",
        "X-Storage-Token": f"{CANARY}-storage",
        "Cookie": f"session={CANARY}",
        "Authorization": f"Bearer {CANARY}",
    }
    alone = {"BACKEND_DEFAULTS__FILESYSTEM_STORE_SHARED": "false", "DEFAULT__DEBUG": "true"}
    caplog.set_level("DEBUG")
    async with (
        databases.connection(images_database) as database,
        opened(configuration(images_database, tmp_path, **alone)) as app,
        client(app) as api,
    ):
        await database.execute("ALTER TABLE images RENAME COLUMN min_ram TO elsewhere")
        try:
            answers = [
                await api.get("/v2/images", headers={**ALICE, **secret}),
                await api.post("/v2/images", json=FORMATS, headers={**ALICE, **secret}),
            ]
        finally:
            await database.execute("ALTER TABLE images RENAME COLUMN elsewhere TO min_ram")
    assert [answer.status_code for answer in answers] == [500, 500]
    assert "Traceback" in caplog.text
    told = [caplog.text, *(f"{answer.headers} {answer.text}" for answer in answers)]
    assert [text for text in told if CANARY in text] == []


# ------------------------------------------------------------------------------------------------
# Addresses that users name
# ------------------------------------------------------------------------------------------------

HERE = (
    "http://127.0.0.1:{port}/x", "http://127.1:{port}/x", "http://2130706433:{port}/x",
    "http://0x7f.1:{port}/x", "http://0177.0.0.1:{port}/x", "http://localhost:{port}/x",
    "http://[::ffff:127.0.0.1]:{port}/x", "http://[64:ff9b::7f00:1]:{port}/x",
    "http://0.0.0.0:{port}/x", "http://example.com@127.0.0.1:{port}/x",
)  # fmt: skip


@pytest.mark.parametrize("way", ["web-download", "task", "POST of a location", "PATCH"])
async def test_no_way_in_leads_to_the_services_own_network(site: Make, way: str) -> None:
    """OSSA-2026-004 (CVE-2026-34881), OSSN-0105: a way that some filter did not know of."""
    here = await site(
        OUTBOUND__ALLOWED_NETWORKS="",
        DEFAULT__ENABLED_BACKENDS="fast:file, cheap:file, third:file, web:http",
        DEFAULT__SHOW_MULTIPLE_LOCATIONS="true",
    )

    async def ask(url: str) -> httpx.Response:
        if way == "task":
            given = {"import_from": url, "import_from_format": "raw", "image_properties": {}}
            body = {"type": "import", "input": given}
            return await here.api.post("/v2/tasks", json=body, headers=ADMIN)
        image = f"/v2/images/{await here.make()}"
        if way == "PATCH":
            operation = _patch("add", "/locations/-", {"url": url, "metadata": {}})
            headers = {**ALICE, **operation.pop("headers")}
            return await here.api.patch(image, **operation, headers=headers)
        if way == "web-download":
            body = {"method": {"name": way, "uri": url}}
            return await here.api.post(f"{image}/import", json=body, headers=ALICE)
        return await here.api.post(f"{image}/locations", json={"url": url}, headers=ALICE)

    async with web.serving(web.answer(DATA)) as own:
        for url in HERE:
            answer = await ask(url.format(port=own.port))
            # Where a job asks, it is the job that finds out.
            assert answer.status_code == 400 or way in ("web-download", "task"), url
            assert answer.status_code < 500
        await here.work()
        assert (own.asked, own.connections) == ([], 0)
    async with databases.connection(here.database) as database:
        states = await database.fetch("SELECT DISTINCT status FROM images")
    assert {row[0] for row in states} <= {"queued", "deleted"}
