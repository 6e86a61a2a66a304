"""Blobs that a real nginx sends by itself."""

import base64
import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.artifacts.service import ALICE, BOB, configuration, opened
from tests.artifacts.uploads import digests
from tests.nginx import PREFIX, front, serving

DATA = os.urandom(300_000)
TEXT = {"Content-Type": "text/plain; charset=utf-8"}
OFFER = {"X-Sendfile-Type": "X-Accel-Redirect"}


def told_of(answer: httpx.Response) -> dict[str, str]:
    """What an answer says of the data; nginx does not add to a part that there are parts."""
    untold = {"date", "server", "connection", "x-openstack-request-id", "accept-ranges"}
    return {name: value for name, value in answer.headers.items() if name not in untold}


@pytest.mark.parametrize(
    ("kind", "field"),
    [("sample_artifact", "blob"), ("secrets", "payload")],
    ids=["plain", "sealed"],
)
async def test_nginx_sends_the_file_unless_it_is_encrypted(
    artifacts_database: str,
    tmp_path: Path,
    debian: Callable[[str, str], str],
    kind: str,
    field: str,
) -> None:
    nginx = debian("nginx-light", "nginx")
    folder = tmp_path / "a b"
    environ = configuration(
        artifacts_database,
        folder,
        DEFAULT__X_ACCEL_REDIRECT=PREFIX,
        DEFAULT__ENABLED_ARTIFACT_TYPES="sample_artifact,secrets",
        SECRETS__KEYS="one:" + base64.b64encode(bytes(32)).decode(),
    )
    folders = [folder / "fast"]
    async with opened(environ) as app, serving(app) as port:
        with front(nginx, tmp_path / "nginx", upstream=port, folders=folders) as url:
            async with (
                httpx.AsyncClient(base_url=url) as behind,
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as direct,
            ):
                named = {"name": "x"}
                made = await behind.post(f"/artifacts/{kind}", json=named, headers=ALICE)
                assert made.status_code == 201, made.text
                path = f"/artifacts/{kind}/{made.json()['id']}/{field}"
                stored = await behind.put(path, content=DATA, headers={**ALICE, **TEXT})
                assert stored.status_code == 200, stored.text

                told = await direct.get(path, headers={**ALICE, **OFFER})
                assert ("x-accel-redirect" in told.headers) is (kind == "sample_artifact")
                for asked in ({}, {"Range": "bytes=100-299999"}, {"Range": "bytes=300000-"}):
                    got = await behind.get(path, headers={**ALICE, **asked})
                    own = await direct.get(path, headers={**ALICE, **asked})
                    assert got.status_code == own.status_code
                    assert got.content == own.content
                    assert told_of(got) == told_of(own)
                got = await behind.get(path, headers=ALICE)
                assert got.content == DATA
                assert got.headers["content-md5"] == digests(DATA)["md5"]
                assert got.headers["content-type"] == TEXT["Content-Type"]
                assert (await behind.get(path, headers=BOB)).status_code == 404
