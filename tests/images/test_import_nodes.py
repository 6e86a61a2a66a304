"""Two daemons on different hosts: what one has staged, the other imports and deletes.

They have nothing in common but the database and the buckets: each has folders and a port of its
own, and neither knows where the other is.
"""

import hashlib
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from dev.seaweedfs import Seaweedfs
from diptych_common import migrations

from tests.daemon import Daemon
from tests.images.service import ALICE, OCTETS, configuration
from tests.images.stores import Bucket
from tests.waiting import until

MIB = 1 << 20
# More than a part: the object is an upload of several of them.
DATA = os.urandom(12 * MIB)


@dataclass
class Site:
    """Two nodes, the bucket of the images, and where staged data is: there too, or apart."""

    first: Daemon
    second: Daemon
    images: Bucket
    staging: Bucket


@pytest.fixture(params=[pytest.param("apart", marks=pytest.mark.long), "default"])
async def site(
    request: pytest.FixtureRequest, s3: Seaweedfs, empty_database: str, tmp_path: Path
) -> AsyncGenerator[Site]:
    await migrations.upgrade(empty_database, "diptych_images.migrations")
    images = Bucket(s3)
    backends, options = {"remote": images}, {"DEFAULT__WORKERS": "1"}
    if request.param == "apart":
        backends["os_glance_staging_store"] = Bucket(s3)
    for store, bucket in backends.items():
        await bucket.make()
        options |= bucket.options(store)
    options |= {
        "DEFAULT__ENABLED_BACKENDS": ", ".join(f"{store}:s3" for store in backends),
        "GLANCE_STORE__DEFAULT_BACKEND": "remote",
        "JOBS__WITH_WORKER": "true",
        "JOBS__LEASE": "3",
        "JOBS__REAPER_INTERVAL": "1",
    }
    async with AsyncExitStack() as stack:
        nodes: dict[str, Daemon] = {}
        for host in ("one", "two"):
            folder = tmp_path / host
            node = Daemon(configuration(empty_database, folder, **options), folder / "log")
            stack.callback(node.stop)
            node.start()
            nodes[host] = node
        yield Site(
            nodes["one"], nodes["two"], images, backends.get("os_glance_staging_store", images)
        )
    for bucket in backends.values():
        await bucket.remove()


async def staged(node: Daemon) -> dict[str, Any]:
    """A new image whose data was staged there."""
    async with httpx.AsyncClient(base_url=node.url, headers=ALICE, timeout=60) as http:
        body = {"disk_format": "raw", "container_format": "bare"}
        image = (await http.post("/v2/images", json=body)).json()
        answer = await http.put(f"{image['self']}/stage", content=DATA, headers=OCTETS)
        assert answer.status_code == 204, answer.text
        image = (await http.get(image["self"])).json()
        assert (image["status"], image["size"]) == ("uploading", len(DATA))
        return image


async def test_what_a_node_staged_that_is_gone_is_imported_or_deleted_by_another(
    site: Site,
) -> None:
    image, unwanted = await staged(site.first), await staged(site.first)
    assert len(await site.staging.everything()) == 2
    site.first.kill()
    async with httpx.AsyncClient(base_url=site.second.url, headers=ALICE, timeout=60) as http:

        async def is_active() -> bool:
            shown = (await http.get(image["self"])).json()
            assert shown["status"] in ("importing", "active"), shown
            return shown["status"] == "active"

        async def is_all_that_is_left() -> bool:
            left = await site.images.everything()
            if site.staging != site.images:
                left += await site.staging.everything()
            return left == [image["id"]]

        body = {"method": {"name": "glance-direct"}}
        answer = await http.post(f"{image['self']}/import", json=body)
        assert answer.status_code == 202, answer.text
        assert (await http.delete(unwanted["self"])).status_code == 204
        await until(is_active)
        await until(is_all_that_is_left)
        shown = (await http.get(image["self"])).json()
        assert (shown["size"], shown["stores"]) == (len(DATA), "remote")
        assert shown["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
        assert (await http.get(image["file"])).content == DATA
