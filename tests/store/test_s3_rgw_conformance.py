"""The S3 store on Ceph's gateway."""

from collections.abc import AsyncIterator

import pytest
from dev.ceph import Ceph
from dev.seaweedfs import AccessKey

from tests.store import s3_bucket
from tests.store.conformance import StoreConformance, WritableRig
from tests.store.test_s3_conformance import BucketRig

pytestmark = pytest.mark.conformance_all


@pytest.fixture(scope="module")
def gateway(ceph_gateway: Ceph) -> s3_bucket.Endpoint:
    key = AccessKey(ceph_gateway.access, ceph_gateway.secret)
    return s3_bucket.Endpoint(ceph_gateway.gateway_url, key)


@pytest.fixture(scope="module")
async def buckets(gateway: s3_bucket.Endpoint) -> list[str]:
    return [await s3_bucket.make(gateway), await s3_bucket.make(gateway)]


class TestS3OnRgwConformance(StoreConformance):
    @pytest.fixture
    async def rig(
        self, gateway: s3_bucket.Endpoint, buckets: list[str]
    ) -> AsyncIterator[WritableRig]:
        for bucket in buckets:
            await s3_bucket.empty(gateway, bucket)
        rig = BucketRig(gateway, buckets[0], buckets[1], {})
        yield rig
        await rig.store.aclose()
