"""What stands between a client and the routes: proxies, browsers, compression, the create limit."""

import gzip

import httpx
import pytest

from tests.images.service import ADMIN, ALICE, BOB, OCTETS, READER

HORIZON = "https://horizon.example"
BEHIND = {
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "cloud.example",
    "X-Forwarded-Prefix": "/image",
}
NEW = {"disk_format": "raw", "container_format": "bare"}


def links(answer: httpx.Response) -> set[str]:
    return {link["href"] for one in answer.json()["versions"] for link in one["links"]}


async def test_links_lead_back_through_the_proxy(custom_api, caplog) -> None:
    api = await custom_api(OSLO_MIDDLEWARE__ENABLE_PROXY_HEADERS_PARSING="true")
    caplog.set_level("INFO", "diptych.access")

    created = await api.post("/v2/images", json=NEW, headers={**ALICE, **BEHIND})
    assert created.status_code == 201
    image = created.json()
    assert created.headers["location"] == f"https://cloud.example/image/v2/images/{image['id']}"
    # Clients append what is in bodies to the endpoint, which has the prefix.
    assert image["self"] == f"/v2/images/{image['id']}"
    page = await api.get("/v2/images?limit=1", headers={**ALICE, **BEHIND})
    assert page.json()["next"].startswith("/v2/images?")
    assert page.json()["first"].startswith("/v2/images?")

    for path in ("/", "/versions"):
        assert links(await api.get(path, headers=BEHIND)) == {"https://cloud.example/image/v2/"}
    (link,) = (await api.get("/v2", headers=BEHIND)).json()["version"]["links"]
    assert link["href"] == "https://cloud.example/image/v2/"
    # Without the headers it is as it was.
    assert links(await api.get("/")) == {"http://images.example/v2/"}

    assert caplog.messages[0].startswith("192.0.2.7 POST /v2/images ")
    assert caplog.messages[-1].startswith("127.0.0.1 GET / ")


async def test_headers_of_proxies_do_not_count_unless_switched_on(api) -> None:
    created = await api.post("/v2/images", json=NEW, headers={**ALICE, **BEHIND})
    assert created.headers["location"].startswith("http://images.example/v2/images/")
    assert links(await api.get("/", headers=BEHIND)) == {"http://images.example/v2/"}


async def test_a_task_is_found_behind_the_prefix(custom_api) -> None:
    api = await custom_api(OSLO_MIDDLEWARE__ENABLE_PROXY_HEADERS_PARSING="true")
    task = {
        "type": "import",
        "input": {
            "import_from": "https://example.com/image",
            "import_from_format": "raw",
            "image_properties": NEW,
        },
    }
    answer = await api.post("/v2/tasks", json=task, headers={**ADMIN, **BEHIND})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"].startswith("https://cloud.example/image/v2/tasks/")


async def test_whoever_the_client_is_said_to_be_the_proxy_says_who_asks(custom_api) -> None:
    """Identity headers are believed by the address of the peer."""
    api = await custom_api(
        OSLO_MIDDLEWARE__ENABLE_PROXY_HEADERS_PARSING="true",
        OSLO_MIDDLEWARE__TRUSTED_PROXIES="127.0.0.1",
    )
    assert (await api.get("/v2/images", headers={**ALICE, **BEHIND})).status_code == 200


async def test_the_public_endpoint_wins(custom_api) -> None:
    api = await custom_api(
        OSLO_MIDDLEWARE__ENABLE_PROXY_HEADERS_PARSING="true",
        DEFAULT__PUBLIC_ENDPOINT="https://public.example/images",
    )
    assert links(await api.get("/", headers=BEHIND)) == {"https://public.example/images/v2/"}


async def test_horizon_uploads_from_a_browser(custom_api) -> None:
    api = await custom_api(CORS__ALLOWED_ORIGIN=HORIZON)
    created = await api.post("/v2/images", json=NEW, headers=ALICE)
    path = created.json()["file"]
    asked = {
        "Origin": HORIZON,
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "content-type,x-auth-token",
    }
    preflight = await api.options(path, headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == HORIZON
    assert preflight.headers["access-control-allow-methods"] == "PUT"
    assert preflight.headers["access-control-allow-headers"] == "content-type,x-auth-token"

    stored = await api.put(path, content=b"x", headers={**ALICE, **OCTETS, "Origin": HORIZON})
    assert stored.status_code == 204
    assert stored.headers["access-control-allow-origin"] == HORIZON
    assert "X-OpenStack-Request-ID" in stored.headers["access-control-expose-headers"].split(",")
    # The page must be able to read why it was refused, also without a token.
    for headers, status in ((ALICE, 409), ({}, 401)):
        refused = await api.put(
            path, content=b"x", headers={**headers, **OCTETS, "Origin": HORIZON}
        )
        assert refused.status_code == status
        assert refused.headers["access-control-allow-origin"] == HORIZON

    other = await api.options(path, headers={**asked, "Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


async def test_without_the_setting_no_page_may_call(api) -> None:
    answer = await api.get("/v2/images", headers={**ALICE, "Origin": HORIZON})
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_documents_are_compressed_where_it_is_switched_on(custom_api) -> None:
    api = await custom_api(HTTP__COMPRESS="true")
    accepts = {"Accept-Encoding": "gzip"}
    async with api.stream("GET", "/v2/schemas/image", headers={**ALICE, **accepts}) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert b'"name":"image"' in gzip.decompress(raw)

    path = (await api.post("/v2/images", json=NEW, headers=ALICE)).json()["file"]
    data = bytes(100_000)
    await api.put(path, content=data, headers={**ALICE, **OCTETS})
    whole = await api.get(path, headers={**ALICE, **accepts})
    part = await api.get(path, headers={**ALICE, **accepts, "Range": "bytes=10-4999"})
    for got, length in ((whole, 100_000), (part, 4990)):
        assert "content-encoding" not in got.headers
        assert got.headers["content-length"] == str(length)
        assert got.content == data[:length]


async def test_documents_are_plain_by_default(api) -> None:
    answer = await api.get("/v2/schemas/image", headers={**ALICE, "Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers


async def test_the_description_is_there_for_everyone_when_switched_on(custom_api) -> None:
    api = await custom_api(
        HTTP__OPENAPI="true", OSLO_MIDDLEWARE__ENABLE_PROXY_HEADERS_PARSING="true"
    )
    document = (await api.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    assert document["servers"] == [{"url": "/"}]
    assert "/v2/images/{image_id}/file" in document["paths"]
    behind = (await api.get("/openapi.json", headers=BEHIND)).json()
    assert behind["servers"] == [{"url": "/image"}]

    page = await api.get("/docs", headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    for path, operations in document["paths"].items():
        assert path in page.text
        for operation in operations.values():
            assert operation["summary"].partition("'")[0] in page.text
    for told in ("member_status", "The bytes that are to come.", "application/json", "min_disk"):
        assert told in page.text
    # Nothing of it comes from elsewhere, and nothing runs.
    assert "<script" not in page.text
    assert "//" not in page.text.partition("<details>")[0]
    assert page.headers["content-security-policy"].startswith("default-src 'none'")

    assert (await api.post("/docs")).status_code == 405


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
async def test_the_description_is_off_by_default(api, path: str) -> None:
    assert (await api.get(path)).status_code == 300


async def test_a_project_that_creates_too_fast_is_told_when_to_come_back(custom_api) -> None:
    api = await custom_api(CREATE_LIMIT__PER_MINUTE="0.1", CREATE_LIMIT__BURST="2")
    refused = await api.post("/v2/images", json={"disk_format": "none"}, headers=ALICE)
    assert refused.status_code == 400
    assert (await api.post("/v2/images", json=NEW, headers=READER)).status_code == 403
    for _ in range(2):
        assert (await api.post("/v2/images", json=NEW, headers=ALICE)).status_code == 201

    limited = await api.post("/v2/images", json=NEW, headers=ALICE)
    assert limited.status_code == 429
    assert 0 < int(limited.headers["retry-after"]) <= 600
    assert limited.json()["title"] == "Too Many Requests"
    assert len((await api.get("/v2/images", headers=ALICE)).json()["images"]) == 2
    # Others, and everything else, go on.
    assert (await api.post("/v2/images", json=NEW, headers=BOB)).status_code == 201


async def test_creating_is_not_limited_by_default(api) -> None:
    for _ in range(30):
        assert (await api.post("/v2/images", json=NEW, headers=ALICE)).status_code == 201


async def test_a_request_id_is_as_long_as_the_settings_say(custom_api) -> None:
    api = await custom_api(DEFAULT__MAX_REQUEST_ID_LENGTH="10")
    for length, status in ((10, 200), (11, 431)):
        headers = {**ALICE, "X-OpenStack-Request-ID": "x" * length}
        assert (await api.get("/v2/images", headers=headers)).status_code == status


@pytest.mark.parametrize("version", ["v2.0", "v2.8", "v2.13", "v2.15", "v2.17"])
async def test_each_listed_version_is_another_name(api, make_image, version: str) -> None:
    image = await make_image(tags=["x"])
    root = f"/{version}/images/{image['id']}"
    assert (await api.get(root, headers=ALICE)).json()["self"] == image["self"]
    assert (await api.delete(f"{root}/tags/x", headers=ALICE)).status_code == 204


async def test_what_is_not_listed_is_no_name(custom_api, tmp_path) -> None:
    api = await custom_api(
        DEFAULT__ENABLED_BACKENDS="",
        GLANCE_STORE__DEFAULT_BACKEND="",
        GLANCE_STORE__FILESYSTEM_STORE_DATADIR=str(tmp_path / "fast"),
    )
    listed = {one["id"] for one in (await api.get("/versions")).json()["versions"]}
    for minor in range(20):
        answer = await api.get(f"/v2.{minor}/images", headers=ALICE)
        assert answer.status_code == (200 if f"v2.{minor}" in listed else 300)


async def test_a_name_in_an_aliased_path_is_decoded_once(api, make_image) -> None:
    image = await make_image(tags=["50%25", "ä b"])
    path = f"/v2.9/images/{image['id']}/tags"
    assert (await api.delete(f"{path}/50%2525", headers=ALICE)).status_code == 204
    assert (await api.delete(f"{path}/%C3%A4%20b", headers=ALICE)).status_code == 204
    assert (await api.get(image["self"], headers=ALICE)).json()["tags"] == []


async def test_the_checks_are_for_whom_the_settings_say(api, custom_api) -> None:
    assert (await api.get("/healthcheck", headers=BEHIND)).status_code == 200
    near = await custom_api(HEALTHCHECK__ALLOWED_SOURCE_RANGES="10.0.0.0/8")
    for path in ("/healthcheck", "/readyz"):
        assert (await near.get(path)).status_code == 404

    direct = await custom_api(HEALTHCHECK__IGNORE_PROXIED_REQUESTS="true")
    assert (await direct.get("/healthcheck")).status_code == 200
    assert (await direct.get("/healthcheck", headers=BEHIND)).status_code == 404
