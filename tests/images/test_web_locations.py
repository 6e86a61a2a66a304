"""Images whose bytes are somewhere on the web, as a Glance before this service registered them."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests import databases, web
from tests.images.service import ALICE, OCTETS, client, configuration, opened
from tests.images.workers import working
from tests.waiting import until

DATA = bytes(range(256)) * 40
SECRET = "canary-in-a-url"

Migrate = Callable[..., Awaitable[str]]


@pytest.fixture
async def server() -> AsyncGenerator[web.Web]:
    async with web.serving(web.answer(DATA)) as serving:
        yield serving


@pytest.fixture
def environ(images_database: str, tmp_path: Path, server: web.Web) -> dict[str, str]:
    return configuration(
        images_database,
        tmp_path,
        DEFAULT__ENABLED_BACKENDS="fast:file, web:http",
        DEFAULT__SHOW_IMAGE_DIRECT_URL="true",
        OUTBOUND__ALLOWED_HOSTS=f"127.0.0.1:{server.port}",
    )


@pytest.fixture
async def api(environ: dict[str, str]) -> AsyncGenerator[httpx.AsyncClient]:
    async with opened(environ) as app, client(app) as opened_client:
        yield opened_client


@pytest.fixture
def migrated(images_database: str) -> Migrate:
    """`await migrated(url)`: the path of an active image of Alice's with its bytes there."""

    async def migrate(url: str, *, store: str = "web") -> str:
        image = str(uuid4())
        async with databases.connection(images_database) as server:
            await server.execute(
                "INSERT INTO images (id, status, owner, size, disk_format, container_format)"
                " VALUES ($1, 'active', 'alpha', $2, 'raw', 'bare')",
                image,
                len(DATA),
            )
            await server.execute(
                "INSERT INTO image_locations (image_id, store, url, metadata, status)"
                " VALUES ($1, $2, $3, $4, 'active')",
                image,
                store,
                url,
                f'{{"store": "{store}"}}',
            )
        return f"/v2/images/{image}"

    return migrate


async def test_it_is_downloaded_whole_and_in_parts(
    api: httpx.AsyncClient, migrated: Migrate, server: web.Web
) -> None:
    path = await migrated(f"{server.url}/disk.img")
    whole = await api.get(f"{path}/file", headers=ALICE)
    assert (whole.status_code, whole.content) == (200, DATA)
    part = await api.get(f"{path}/file", headers={**ALICE, "Range": "bytes=-5"})
    assert (part.status_code, part.content) == (206, DATA[-5:])
    beyond = await api.get(f"{path}/file", headers={**ALICE, "Range": f"bytes={len(DATA)}-"})
    assert beyond.status_code == 416
    assert (await api.head(f"{path}/file", headers=ALICE)).status_code == 200


async def test_a_store_that_had_another_name_is_found_by_the_url(
    api: httpx.AsyncClient, migrated: Migrate, server: web.Web
) -> None:
    path = await migrated(f"{server.url}/disk.img", store="http")
    assert (await api.get(f"{path}/file", headers=ALICE)).content == DATA


async def test_its_document_shows_no_credential(
    api: httpx.AsyncClient, migrated: Migrate, server: web.Web
) -> None:
    path = await migrated(f"http://user:{SECRET}@127.0.0.1:{server.port}/disk.img?key={SECRET}")
    shown = await api.get(path, headers=ALICE)
    assert shown.json()["direct_url"] == f"{server.url}/disk.img"
    assert SECRET not in shown.text


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://127.0.0.1:{port}/gone", 204),
        ("http://127.0.0.1:{port}/forbidden", 403),
        ("http://127.0.0.1:{port}/broken", 503),
        ("http://127.0.0.2:{port}/disk.img", 403),
        ("http://169.254.169.254/latest/meta-data", 403),
        ("http://user@evil:80:80/", 503),
    ],
)
async def test_what_cannot_be_had(
    environ: dict[str, str], migrated: Migrate, url: str, status: int
) -> None:
    answers = {"/gone": 404, "/forbidden": 403, "/broken": 500}

    async def handle(asked: web.Asked, writer: object) -> object:
        return await web.answer(DATA, answers[asked.target])(asked, writer)  # pyright: ignore

    async with web.serving(handle) as server:
        environ |= {"DIPTYCH_IMAGES__OUTBOUND__ALLOWED_HOSTS": f"127.0.0.1:{server.port}"}
        path = await migrated(url.format(port=server.port))
        async with opened(environ) as app, client(app) as api:
            assert (await api.get(f"{path}/file", headers=ALICE)).status_code == status


async def test_nothing_is_written_there(api: httpx.AsyncClient) -> None:
    (store,) = [
        store
        for store in (await api.get("/v2/info/stores", headers=ALICE)).json()["stores"]
        if store["id"] == "web"
    ]
    assert store["read-only"] == "true"
    body = {"disk_format": "raw", "container_format": "bare"}
    image = (await api.post("/v2/images", json=body, headers=ALICE)).json()
    headers = {**ALICE, **OCTETS, "X-Image-Meta-Store": "web"}
    refused = await api.put(image["file"], content=b"x", headers=headers)
    assert refused.status_code == 410


async def test_deleting_the_image_forgets_where_the_bytes_are(
    api: httpx.AsyncClient,
    environ: dict[str, str],
    images_database: str,
    migrated: Migrate,
    server: web.Web,
) -> None:
    path = await migrated(f"{server.url}/disk.img")
    assert (await api.delete(path, headers=ALICE)).status_code == 204
    async with databases.connection(images_database) as database:

        async def is_done() -> bool:
            return (
                await database.fetchval("SELECT state FROM jobs WHERE kind = 'remove_bytes'")
                == "succeeded"
            )

        async with working(environ):
            await until(is_done)
        assert await database.fetchval("SELECT count(*) FROM image_locations") == 0
    assert server.asked == []
