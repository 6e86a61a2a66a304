import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from dev.seaweedfs import Seaweedfs
from diptych_store.drivers.s3 import S3Store

from tests.store import s3_bucket
from tests.store.conformance import CALLS, MIB, Calls, StoreConformance, WritableRig


class BucketRig(WritableRig):
    # Three parts at least, whether the length is known or not.
    several_parts = 17 * MIB + 4321
    # Of a part of 8 MiB in a buffer that grows by an eighth, or of one of 10 MiB; and ten such that
    # all share.
    held_writing = 10 * MIB + MIB // 2
    held_together = 100 * MIB
    # What aiohttp gathers, and twice a block while it is made.
    held_reading = 3 * MIB
    transferred = 20 * MIB

    def __init__(
        self, server: s3_bucket.Server, bucket: str, elsewhere: str, more: dict[str, Any]
    ) -> None:
        self.calls = Calls()
        self._server = server
        self._bucket = bucket
        self._elsewhere = elsewhere
        self._more = more
        self._options = s3_bucket.settings(server, bucket, **more)
        self.store = s3_bucket.store_of(self._options, on_call=self.calls)
        self.crash = (
            f"{s3_bucket.__name__}:{s3_bucket.open_there.__name__}",
            json.dumps(self._options),
            CALLS,
        )

    async def open_read_only(self) -> S3Store:
        return s3_bucket.store_of(self._options, read_only=True)

    async def open_another(self) -> S3Store:
        return s3_bucket.store_of(self._options)

    async def open_elsewhere(self) -> S3Store:
        return s3_bucket.store_of(s3_bucket.settings(self._server, self._elsewhere, **self._more))

    async def everything(self) -> list[str]:
        return [
            *await s3_bucket.everything(self._server, self._bucket),
            *await s3_bucket.everything(self._server, self._elsewhere),
        ]


@pytest.fixture(scope="module")
async def buckets(s3: Seaweedfs) -> list[str]:
    return [await s3_bucket.make(s3), await s3_bucket.make(s3)]


class TestS3Conformance(StoreConformance):
    settings: ClassVar[dict[str, Any]] = {}
    # Files are copied, and who copies them is killed, in every run.
    slow = ("test_killed_while_copying",)

    @pytest.fixture
    async def rig(self, s3: Seaweedfs, buckets: list[str]) -> AsyncIterator[WritableRig]:
        for bucket in buckets:
            await s3_bucket.empty(s3, bucket)
        rig = BucketRig(s3, buckets[0], buckets[1], self.settings)
        yield rig
        await rig.store.aclose()
