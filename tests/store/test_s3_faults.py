from collections.abc import AsyncIterator

import pytest
from dev.seaweedfs import Seaweedfs
from diptych_store.protocol import Store

from tests.store import s3_bucket
from tests.store.fault_suite import FaultRig, StoreFaults
from tests.store.faults import Wire


class BucketBehindWire(FaultRig):
    def __init__(self, server: Seaweedfs, bucket: str) -> None:
        self.server = ("127.0.0.1", server.port)
        self._seaweedfs = server
        self._bucket = bucket

    async def open_through(self, wire: Wire, *, timeout_s: float) -> Store:
        options = s3_bucket.settings(self._seaweedfs, self._bucket)
        return s3_bucket.store_of(
            {
                **options,
                "s3_store_host": f"http://127.0.0.1:{wire.port}",
                "s3_store_bucket_url_format": "path",
                "s3_store_connect_timeout": timeout_s,
                "s3_store_read_timeout": timeout_s,
                "s3_store_retries": 2,
            }
        )

    async def everything(self) -> list[str]:
        return await s3_bucket.everything(self._seaweedfs, self._bucket)


class TestS3Faults(StoreFaults):
    @pytest.fixture
    async def rig(self, s3: Seaweedfs) -> AsyncIterator[FaultRig]:
        bucket = await s3_bucket.make(s3)
        yield BucketBehindWire(s3, bucket)
        await s3_bucket.empty(s3, bucket)
