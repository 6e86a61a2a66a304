"""PATCH of an image's locations, where `show_multiple_locations` allows it."""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import databases, web
from tests.images.service import (
    ADMIN,
    ALICE,
    BOB,
    OCTETS,
    PATCH,
    READER,
    client,
    configuration,
    opened,
)
from tests.waiting import until

DATA = bytes(range(256)) * 40
SHA512 = hashlib.sha512(DATA).hexdigest()
MD5 = hashlib.md5(DATA, usedforsecurity=False).hexdigest()
V20 = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
SERVICE = {**ALICE, "X-Service-Roles": "service", "X-Service-User-Id": "nova"}

Create = Callable[..., Awaitable[str]]
Operation = dict[str, Any]


async def handle(asked: web.Asked, writer: Any) -> None:
    match asked.target.partition("?")[0]:
        case "/gone":
            answer = web.answer(b"", 404)
        case "/empty":
            answer = web.answer(b"")
        case "/shorter":
            answer = web.answer(DATA[1:])
        case _:
            answer = web.answer(DATA)
    await answer(asked, writer)


@pytest.fixture
async def site() -> AsyncGenerator[web.Web]:
    async with web.serving(handle) as serving:
        yield serving


@pytest.fixture
def environ(images_database: str, tmp_path: Path, site: web.Web) -> dict[str, str]:
    return configuration(
        images_database,
        tmp_path,
        DEFAULT__ENABLED_BACKENDS="fast:memory, cheap:file, web:http",
        DEFAULT__SHOW_MULTIPLE_LOCATIONS="true",
        DEFAULT__IMAGE_LOCATION_QUOTA="3",
        OUTBOUND__ALLOWED_HOSTS=f"127.0.0.1:{site.port}",
        IMPORT_FILTERING_OPTS__ALLOWED_PORTS="",
    )


@pytest.fixture
async def api(environ: dict[str, str]) -> AsyncGenerator[httpx.AsyncClient]:
    async with opened(environ) as app, client(app) as opened_client:
        yield opened_client


@pytest.fixture
def create(api: httpx.AsyncClient) -> Create:
    """`await create()`: the path of a queued image of Alice's, active if it has data."""

    async def create_image(*, data: bytes | None = None, **fields: object) -> str:
        body = {"disk_format": "raw", "container_format": "bare", **fields}
        path = (await api.post("/v2/images", json=body, headers=ALICE)).json()["self"]
        if data is not None:
            await api.put(f"{path}/file", content=data, headers={**ALICE, **OCTETS})
        return path

    return create_image


def add(url: str, at: str = "-", **more: object) -> Operation:
    value = {"url": url, "metadata": {}, **more}
    return {"op": "add", "path": f"/locations/{at}", "value": value}


def replace(*locations: object) -> Operation:
    return {"op": "replace", "path": "/locations", "value": list(locations)}


def remove(at: str) -> Operation:
    return {"op": "remove", "path": f"/locations/{at}"}


def told(**more: object) -> Operation:
    return {"os_hash_algo": "sha512", "os_hash_value": SHA512, **more}


async def patch(
    api: httpx.AsyncClient,
    path: str,
    *operations: object,
    headers: dict[str, str] = ALICE,
    kind: dict[str, str] = PATCH,
) -> httpx.Response:
    return await api.patch(path, json=list(operations), headers={**headers, **kind})


async def test_a_queued_image_becomes_active_by_its_first_location(
    api: httpx.AsyncClient, create: Create, site: web.Web
) -> None:
    path = await create()
    url = f"{site.url}/disk.img?key=canary"
    changed = await patch(api, path, add(url, metadata={"speed": "88"}, validation_data=told()))
    assert changed.status_code == 200, changed.text
    image = changed.json()
    assert (image["status"], image["size"], image["stores"]) == ("active", len(DATA), "web")
    assert image["locations"] == [
        {"url": f"{site.url}/disk.img", "metadata": {"speed": "88", "store": "web"}}
    ]
    assert (image["os_hash_algo"], image["os_hash_value"]) == ("sha512", SHA512)
    assert (await api.get(path, headers=ALICE)).json() == image
    assert (await api.get(f"{path}/file", headers=ALICE)).content == DATA


async def test_the_older_dialect_adds_too(
    api: httpx.AsyncClient, create: Create, site: web.Web
) -> None:
    path = await create()
    operation = {"add": "/locations/0", "value": {"url": f"{site.url}/a", "metadata": {}}}
    assert (await patch(api, path, operation, kind=V20)).json()["status"] == "active"


async def test_locations_are_given_together_and_described_anew(
    api: httpx.AsyncClient, create: Create, site: web.Web
) -> None:
    path = await create()
    given = [{"url": f"{site.url}/{name}", "metadata": {"name": name}} for name in "ab"]
    image = (await patch(api, path, replace(*given))).json()
    shown = image["locations"]
    assert [one["metadata"]["name"] for one in shown] == ["a", "b"]

    assert (await patch(api, path, replace(*shown))).json()["locations"] == shown
    changed = [shown[1] | {"metadata": {"name": "new", "store": "cheap"}}, shown[0]]
    after = (await patch(api, path, replace(*changed))).json()["locations"]
    assert after[1] == {"url": f"{site.url}/b", "metadata": {"name": "new", "store": "web"}}
    assert after[0] == shown[0]

    for others in ([shown[0]], [*shown, shown[0]], [shown[0], {**shown[1], "url": "http://x/"}]):
        assert (await patch(api, path, replace(*others))).status_code == 400
    assert (await patch(api, path, replace())).status_code == 403
    assert (await api.get(path, headers=ALICE)).json()["locations"] == after


async def test_locations_stay_while_the_image_is_copied(
    api: httpx.AsyncClient, create: Create, site: web.Web, images_database: str
) -> None:
    path = await create()
    await patch(api, path, add(f"{site.url}/a"), add(f"{site.url}/b"))
    async with databases.connection(images_database) as server:
        # A copy that has landed in one of its stores looks like this.
        await server.execute("UPDATE images SET import_task = gen_random_uuid()")
    refused = await patch(api, path, remove("0"), headers=ADMIN)
    assert refused.status_code == 409, refused.text
    assert len((await api.get(path, headers=ALICE)).json()["locations"]) == 2


async def test_the_last_location_stays(
    api: httpx.AsyncClient, create: Create, site: web.Web
) -> None:
    # CVE-2016-0757: an image that loses its bytes could be given others.
    path = await create(data=DATA)
    for operation in (remove("0"), remove("-"), replace()):
        assert (await patch(api, path, operation, headers=ADMIN)).status_code == 403
    both = (add(f"{site.url}/a"), remove("0"), remove("0"))
    assert (await patch(api, path, *both, headers=ADMIN)).status_code == 403
    image = (await api.get(path, headers=ALICE)).json()
    assert (image["status"], len(image["locations"])) == ("active", 1)


async def test_bytes_go_with_their_location_and_after_the_commit(
    environ: dict[str, str], site: web.Web, images_database: str
) -> None:
    environ["DIPTYCH_IMAGES__JOBS__WITH_WORKER"] = "true"
    async with opened(environ) as app, client(app) as api:
        body = {"disk_format": "raw", "container_format": "bare"}
        path = (await api.post("/v2/images", json=body, headers=ALICE)).json()["self"]
        await api.put(f"{path}/file", content=DATA, headers={**ALICE, **OCTETS})
        added = await patch(api, path, add(f"{site.url}/a"), headers=SERVICE)
        assert added.status_code == 200
        [first, _] = (await api.get(path, headers=ALICE)).json()["locations"]
        assert first["url"].startswith("memory://fast/")

        assert (await patch(api, path, remove("0"))).status_code == 403
        for at in ("2", "x", "-1", "0x0", "\u0660"):
            assert (await patch(api, path, remove(at), headers=ADMIN)).status_code == 400, at
        removed = await patch(api, path, remove("0"), headers=ADMIN)
        assert [one["url"] for one in removed.json()["locations"]] == [f"{site.url}/a"]
        assert (await api.get(f"{path}/file", headers=ALICE)).content == DATA
        async with databases.connection(images_database) as database:

            async def is_forgotten() -> bool:
                return await database.fetchval("SELECT count(*) FROM image_locations") == 1

            await until(is_forgotten)
        # The object is gone: nobody can register it any more.
        again = await patch(api, path, add(first["url"]), headers=SERVICE)
        assert again.status_code == 400


async def test_a_location_is_there_once(
    api: httpx.AsyncClient, create: Create, site: web.Web
) -> None:
    path = await create(data=DATA)
    [own] = (await api.get(path, headers=ALICE)).json()["locations"]
    # What is removed with one of them would be missing at the other.
    operation = add(own["url"], metadata={"other": "x"})
    assert (await patch(api, path, operation, headers=SERVICE)).status_code == 400
    operation = add(f"{site.url}/a", metadata={"name": "a"})
    assert (await patch(api, path, operation, headers=SERVICE)).status_code == 200
    assert (await patch(api, path, operation, headers=SERVICE)).status_code == 400
    again = await patch(api, path, add(f"{site.url}/a"), headers=SERVICE)
    assert again.status_code == 200
    more = await patch(api, path, add(f"{site.url}/b"), headers=SERVICE)
    assert more.status_code == 413


@pytest.mark.parametrize("store", ["fast", "cheap"])
async def test_a_user_adds_no_other_bytes_to_those_of_an_upload(
    api: httpx.AsyncClient, create: Create, site: web.Web, store: str
) -> None:
    # OSSN-0065: readers would get them under the digest of those.
    path = await create()
    into = {**ALICE, **OCTETS, "X-Image-Meta-Store": store}
    stored = await api.put(f"{path}/file", content=bytes(len(DATA)), headers=into)
    assert stored.status_code == 204
    before = (await api.get(path, headers=ALICE)).json()
    for operation in (add(f"{site.url}/a"), add(f"{site.url}/a", validation_data=told())):
        assert (await patch(api, path, operation)).status_code == 403
    assert (await api.get(path, headers=ALICE)).json() == before
    assert (await patch(api, path, add(f"{site.url}/a"), headers=ADMIN)).status_code == 200


async def test_more_than_the_quota_are_not_even_looked_at(
    api: httpx.AsyncClient, create: Create, site: web.Web
) -> None:
    path = await create()
    operations = [add(f"{site.url}/{number}") for number in range(4)]
    assert (await patch(api, path, *operations)).status_code == 413
    assert site.asked == []


async def test_who_may_change_locations(
    api: httpx.AsyncClient, create: Create, site: web.Web
) -> None:
    path = await create()
    for headers, status in ((READER, 403), (BOB, 404)):
        answer = await patch(api, path, add(f"{site.url}/a"), headers=headers)
        assert answer.status_code == status
    assert site.asked == []


async def test_a_user_names_places_on_the_web_only(api: httpx.AsyncClient, create: Create) -> None:
    # OSSN-0065, OSSN-0090: the object is another project's, and would be read with our rights.
    theirs = (await api.post("/v2/images", json={"visibility": "private"}, headers=BOB)).json()
    formats = [
        {"op": "add", "path": f"/{name}", "value": value}
        for name, value in (("disk_format", "raw"), ("container_format", "bare"))
    ]
    await patch(api, theirs["self"], *formats, headers=BOB)
    await api.put(theirs["file"], content=DATA, headers={**BOB, **OCTETS})
    [location] = (await api.get(theirs["self"], headers=BOB)).json()["locations"]
    path = await create()
    assert (await patch(api, path, add(location["url"]))).status_code == 403
    assert (await patch(api, path, replace(location))).status_code == 403
    assert (await api.get(f"{path}/file", headers=ALICE)).status_code == 204
    added = await patch(api, path, add(location["url"]), headers=SERVICE)
    assert added.json()["stores"] == "fast"


REFUSED = (
    "file:///etc/passwd", "FILE:///etc/passwd", " file:///etc/passwd", "filesystem:///etc/passwd",
    "FileSystem:///etc/passwd", "fi%6ce:///etc/passwd", "swift+config://ref1/box/key",
    "SWIFT+config://ref1/box/key", "cinder://volume", "nowhere", "http://169.254.169.254/x",
    "http://127.0.0.2/", "{site}/gone", "{site}/empty", "http://a:b@127.0.0.1:{port}/",
)  # fmt: skip


async def test_places_that_nobody_may_name(
    api: httpx.AsyncClient, create: Create, site: web.Web, tmp_path: Path
) -> None:
    # CVE-2014-9493, CVE-2015-1195
    path = await create()
    own = f"file://{tmp_path}/cheap/x"
    for url in (*REFUSED, own, own.upper()):
        url = url.format(site=site.url, port=site.port)
        for operation in (
            add(url, metadata={"store": "cheap"}),
            replace({"url": url, "metadata": {}}),
        ):
            for headers in (ADMIN, ALICE):
                answer = await patch(api, path, operation, headers=headers)
                assert answer.status_code == 400, (url, answer.text)
    assert (await api.get(path, headers=ALICE)).json()["locations"] == []


async def test_statuses_and_formats_stand_against_it(
    api: httpx.AsyncClient, create: Create, site: web.Web, images_database: str
) -> None:
    path = await create(disk_format=None)
    operation = add(f"{site.url}/a")
    assert (await patch(api, path, operation)).status_code == 400
    declared = {"op": "add", "path": "/disk_format", "value": "raw"}
    assert (await patch(api, path, operation, declared)).status_code == 200
    async with databases.connection(images_database) as database:
        for status in ("saving", "uploading", "importing", "deactivated"):
            await database.execute("UPDATE images SET status = $1", status)
            for each in (operation, replace(), remove("0")):
                answer = await patch(api, path, each, headers=ADMIN)
                assert answer.status_code == 409, (status, each)
        await database.execute("UPDATE images SET status = 'queued'")
        assert (await patch(api, path, remove("0"), headers=ADMIN)).status_code == 409


async def test_digests_that_contradict(
    api: httpx.AsyncClient, create: Create, site: web.Web
) -> None:
    path = await create()
    url = f"{site.url}/a"
    other = told(os_hash_value="0" * 128)
    for operations in (
        [add(url, validation_data=told()), add(f"{url}b", validation_data=other)],
        [add(url, validation_data={"os_hash_algo": "sha256", "os_hash_value": "0" * 64})],
        [add(url, validation_data=told(os_hash_value="0" * 127))],
        [add(url, validation_data=told(os_hash_value="x" * 128))],
        [add(url, validation_data=told(checksum="x" * 32))],
    ):
        assert (await patch(api, path, *operations)).status_code == 409, operations
    good = add(url, validation_data=told(checksum=MD5))
    assert (await patch(api, path, good)).json()["checksum"] == MD5
    same = add(f"{url}b", validation_data=told())
    assert (await patch(api, path, same)).status_code == 200
    against = add(f"{url}c", validation_data=other)
    assert (await patch(api, path, against)).status_code == 409

    path = await create()
    await patch(api, path, add(url))
    late = add(f"{url}b", validation_data=told())
    assert (await patch(api, path, late)).status_code == 409


async def test_all_copies_have_one_length(
    api: httpx.AsyncClient, create: Create, site: web.Web
) -> None:
    path = await create()
    together = [add(f"{site.url}/a"), add(f"{site.url}/shorter")]
    assert (await patch(api, path, *together)).status_code == 400
    assert (await api.get(path, headers=ALICE)).json()["status"] == "queued"
    assert (await patch(api, path, together[0])).status_code == 200
    assert (await patch(api, path, together[1])).status_code == 400


async def test_while_they_are_not_shown_they_are_not_changed(
    images_database: str, tmp_path: Path
) -> None:
    async with opened(configuration(images_database, tmp_path)) as app, client(app) as api:
        body = {"disk_format": "raw", "container_format": "bare"}
        path = (await api.post("/v2/images", json=body, headers=ALICE)).json()["self"]
        for operation in (add("https://example.com/x"), replace(), remove("0")):
            assert (await patch(api, path, operation, headers=ADMIN)).status_code == 403
