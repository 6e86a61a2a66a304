"""The S3 store on Swift, which speaks S3 too."""

from collections.abc import AsyncIterator

import pytest
from dev.seaweedfs import AccessKey
from dev.swift import ACCOUNTS, Swift

from tests.store import s3_bucket
from tests.store.conformance import StoreConformance, WritableRig
from tests.store.test_s3_conformance import BucketRig

pytestmark = pytest.mark.conformance_all

ACCOUNT, USER = "test", "tester"


@pytest.fixture(scope="module")
def s3api(swift: Swift) -> s3_bucket.Endpoint:
    secret, _ = ACCOUNTS[ACCOUNT][USER]
    return s3_bucket.Endpoint(swift.url, AccessKey(f"{ACCOUNT}:{USER}", secret))


@pytest.fixture(scope="module")
async def buckets(s3api: s3_bucket.Endpoint) -> list[str]:
    return [await s3_bucket.make(s3api), await s3_bucket.make(s3api)]


class TestS3OnSwiftConformance(StoreConformance):
    @pytest.fixture
    async def rig(
        self, s3api: s3_bucket.Endpoint, buckets: list[str]
    ) -> AsyncIterator[WritableRig]:
        for bucket in buckets:
            await s3_bucket.empty(s3api, bucket)
        rig = BucketRig(s3api, buckets[0], buckets[1], {})
        yield rig
        await rig.store.aclose()
