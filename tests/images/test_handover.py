"""Downloads that a real nginx sends by itself."""

import hashlib
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import databases
from tests.images.service import ADMIN, ALICE, BOB, OCTETS, configuration, opened
from tests.nginx import PREFIX, front, serving

DATA = os.urandom(3_000_000)
OFFER = {"X-Sendfile-Type": "X-Accel-Redirect"}
NEW = {"name": "disk", "disk_format": "raw", "container_format": "bare"}


class Site:
    """The service and the nginx in front of it, each with a client; `folder` has the stores."""

    def __init__(self, behind: httpx.AsyncClient, direct: httpx.AsyncClient, folder: Path) -> None:
        self.behind = behind
        self.direct = direct
        self.folder = folder

    async def image(self, data: bytes = DATA) -> dict[str, Any]:
        """An active image of Alice's."""
        created = await self.behind.post("/v2/images", json=NEW, headers=ALICE)
        assert created.status_code == 201, created.text
        path = created.json()["self"]
        stored = await self.behind.put(f"{path}/file", content=data, headers={**ALICE, **OCTETS})
        assert stored.status_code == 204, stored.text
        return (await self.behind.get(path, headers=ALICE)).json()


MakeSite = Callable[..., Any]


@pytest.fixture
def site(
    images_database: str, tmp_path: Path, debian: Callable[[str, str], str]
) -> Callable[..., Any]:
    nginx = debian("nginx-light", "nginx")
    # What has a meaning in URLs, and what is not ASCII.
    folder = tmp_path / "odd %41 ?é#"

    @asynccontextmanager
    async def make(**options: str) -> AsyncGenerator[Site]:
        environ = configuration(
            images_database, folder, **{"DEFAULT__X_ACCEL_REDIRECT": f"{PREFIX}/"} | options
        )
        async with opened(environ) as app, serving(app) as port:
            root = tmp_path / "nginx"
            folders = [folder / "fast", folder / "cheap"]
            with front(nginx, root, upstream=port, folders=folders) as url:
                async with (
                    httpx.AsyncClient(base_url=url) as behind,
                    httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as direct,
                ):
                    yield Site(behind, direct, folder)

    return make


async def sent(database: str) -> list[tuple[int, str]]:
    """The bytes that events of downloads tell of, and their priorities."""
    async with databases.connection(database) as server:
        found = await server.fetch(
            "SELECT payload ->> 'bytes_sent' AS sent, priority FROM outbox"
            " WHERE event_type = 'image.send' ORDER BY id"
        )
    return [(int(row["sent"]), row["priority"]) for row in found]


async def test_nginx_sends_the_file(site: MakeSite, images_database: str) -> None:
    async with site() as here:
        image = await here.image()
        # Of the answer that is nginx's to send nothing but the file comes from it.
        told = await here.direct.get(image["file"], headers={**ALICE, **OFFER})
        assert (told.status_code, told.content) == (200, b"")
        assert told.headers["x-accel-redirect"].startswith(f"{PREFIX}/")
        assert "%2541" in told.headers["x-accel-redirect"]

        got = await here.behind.get(image["file"], headers=ALICE)
        assert got.status_code == 200
        assert got.content == DATA
        assert got.headers["etag"] == f'"{hashlib.sha512(DATA).hexdigest()}"'
        assert got.headers["content-md5"] == hashlib.md5(DATA).hexdigest()
        assert got.headers["content-type"] == "application/octet-stream"
        assert got.headers["content-length"] == str(len(DATA))
        assert got.headers["accept-ranges"] == "bytes"
        assert got.headers["x-openstack-request-id"].startswith("req-")
        assert {"last-modified", "x-accel-redirect"}.isdisjoint(got.headers)
        assert got.headers.get_list("etag") == [got.headers["etag"]]

        # The same headers as from the service itself.
        own = await here.direct.get(image["file"], headers=ALICE)
        assert own.content == DATA
        differing = {"date", "server", "connection", "x-openstack-request-id"}
        assert {name: value for name, value in got.headers.items() if name not in differing} == {
            name: value for name, value in own.headers.items() if name not in differing
        }
        assert await sent(images_database) == [(len(DATA), "INFO")] * 3


async def test_ranges_are_as_without_nginx(site: MakeSite) -> None:
    size = len(DATA)
    cases = [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=1000-2499999", 206, 1000, 2_500_000),
        ("bytes=2999990-", 206, 2_999_990, size),
        ("bytes=2999990-9999999", 206, 2_999_990, size),
        ("bytes=-7", 206, 2_999_993, size),
        ("bytes=-9999999", 206, 0, size),
        ("bytes=3000000-", 416, 0, 0),
        ("bytes=5-4", 416, 0, 0),
        ("bytes=0-1,4-5", 400, 0, 0),
        ("lines=1-2", 200, 0, size),
        # Not handed over: nginx would understand them in another way, or not at all.
        ("bytes=,0-9", 206, 0, 10),
        ("bytes=0-99999999999999999999999", 206, 0, size),
    ]
    async with site() as here:
        image = await here.image()
        for asked, status, first, end in cases:
            headers = {**ALICE, "Range": asked}
            behind = await here.behind.get(image["file"], headers=headers)
            direct = await here.direct.get(image["file"], headers=headers)
            assert behind.status_code == direct.status_code == status, asked
            assert behind.headers.get("content-range") == direct.headers.get("content-range")
            if status < 300:
                assert behind.content == direct.content == DATA[first:end], asked
                assert behind.headers["etag"] == direct.headers["etag"]


async def test_conditions_are_as_without_nginx(site: MakeSite) -> None:
    async with site() as here:
        image = await here.image()
        etag = f'"{image["os_hash_value"]}"'
        long_ago = "Thu, 01 Jan 2015 00:00:00 GMT"
        part = {"Range": "bytes=0-9"}
        cases = [
            ({"If-None-Match": etag}, 304),
            ({"If-None-Match": "*"}, 304),
            ({"If-None-Match": '"other"'}, 200),
            ({"If-Modified-Since": "Thu, 01 Jan 2099 00:00:00 GMT"}, 200),
            ({"If-Unmodified-Since": long_ago}, 200),
            ({"If-Match": '"other"'}, 200),
            ({**part, "If-Range": etag}, 206),
            ({**part, "If-Range": '"other"'}, 200),
            ({**part, "If-Range": f"W/{etag}"}, 200),
            ({**part, "If-Range": long_ago}, 200),
            ({"Content-Range": "bytes 0-9/*"}, 206),
        ]
        for headers, status in cases:
            for client in (here.behind, here.direct):
                got = await client.get(image["file"], headers={**ALICE, **headers})
                assert got.status_code == status, headers
                if status != 304:
                    assert got.content == (DATA if status == 200 else DATA[:10])
                assert got.headers["etag"] == etag


async def test_a_head_has_the_length(site: MakeSite) -> None:
    async with site() as here:
        image = await here.image()
        for client in (here.behind, here.direct):
            got = await client.head(image["file"], headers=ALICE)
            assert (got.status_code, got.content) == (200, b"")
            assert got.headers["content-length"] == str(len(DATA))


async def test_nobody_gets_at_a_file_who_may_not(site: MakeSite) -> None:
    async with site() as here:
        image = await here.image()
        told = await here.direct.get(image["file"], headers={**ALICE, **OFFER})
        assert (await here.behind.get(told.headers["x-accel-redirect"])).status_code == 404
        assert (await here.behind.get(image["file"], headers=BOB)).status_code == 404
        off = await here.behind.post(f"{image['self']}/actions/deactivate", headers=ADMIN)
        assert off.status_code == 204
        assert (await here.behind.get(image["file"], headers=ALICE)).status_code == 403
        assert (await here.behind.get(image["file"], headers=ADMIN)).content == DATA


async def test_what_is_no_whole_file_is_not_handed_over(
    site: MakeSite, images_database: str
) -> None:
    async with site() as here:
        asked = {**ALICE, **OFFER}
        empty = await here.image(b"")
        assert (
            "x-accel-redirect" not in (await here.direct.get(empty["file"], headers=asked)).headers
        )
        assert (await here.behind.get(empty["file"], headers=ALICE)).content == b""
        image = await here.image()
        file = here.folder / "fast" / image["id"]
        file.write_bytes(b"short")
        assert (await here.behind.get(image["file"], headers=ALICE)).status_code == 503
        file.unlink()
        assert (await here.behind.get(image["file"], headers=ALICE)).status_code == 204


async def test_the_cache_of_a_node_comes_first(site: MakeSite, tmp_path: Path) -> None:
    async with site(DEFAULT__IMAGE_CACHE_DIR=str(tmp_path / "cache")) as here:
        image = await here.image()
        told = await here.direct.get(image["file"], headers={**ALICE, **OFFER})
        assert "x-accel-redirect" not in told.headers
        assert told.content == DATA
