"""The images service with a pool of a real Ceph as its store."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
from dev.ceph import Ceph

from tests.images.service import ALICE, OCTETS, client, configuration, opened
from tests.images.test_worker import working
from tests.store.conformance import MIB
from tests.store.pools import Pool
from tests.waiting import until

pytestmark = pytest.mark.conformance_all

RAW = {"disk_format": "raw", "container_format": "bare"}


async def test_an_image_lies_in_a_pool_as_nova_looks_for_it(
    images_database: str, tmp_path: Path, ceph: Ceph, ceph_pool: str
):
    environ = configuration(
        images_database,
        tmp_path,
        DEFAULT__ENABLED_BACKENDS="fast:file, pool:rbd",
        DEFAULT__SHOW_IMAGE_DIRECT_URL="true",
        POOL__RBD_STORE_CEPH_CONF=str(ceph.conf),
        POOL__RBD_STORE_USER="glance",
        POOL__RBD_STORE_POOL=ceph_pool,
    )
    data = os.urandom(9 * MIB + 1)
    async with opened(environ) as app, client(app) as http:
        image = (await http.post("/v2/images", json=RAW, headers=ALICE)).json()
        stored = await http.put(
            image["file"],
            content=data,
            headers={**ALICE, **OCTETS, "X-Image-Meta-Store": "pool"},
        )
        assert stored.status_code == 204, stored.text
        image = (await http.get(image["self"], headers=ALICE)).json()
        fsid = ceph.command("fsid").strip()
        assert image["direct_url"] == f"rbd://{fsid}/{ceph_pool}/{image['id']}/snap"
        assert image["stores"] == "pool"

        whole = await http.get(image["file"], headers=ALICE)
        assert whole.content == data
        for asked, part in {"0-0": data[:1], "-7": data[-7:], "8388607-8388608": None}.items():
            got = await http.get(image["file"], headers={**ALICE, "Range": f"bytes={asked}"})
            assert got.status_code == 206
            assert got.content == (data[8388607:8388609] if part is None else part)
        beyond = await http.get(image["file"], headers={**ALICE, "Range": f"bytes={len(data)}-"})
        assert beyond.status_code == 416

        assert (await http.delete(image["self"], headers=ALICE)).status_code == 204
    async with working(environ):
        with contextlib.closing(await asyncio.to_thread(Pool, ceph, ceph_pool)) as pool:

            async def is_empty() -> bool:
                return await asyncio.to_thread(pool.everything) == []

            await until(is_empty)
