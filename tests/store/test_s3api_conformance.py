"""The S3 store on Swift, which speaks S3 too."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
from dev.seaweedfs import AccessKey
from dev.swift import ACCOUNTS, Swift
from diptych_store.drivers.s3 import S3Store
from diptych_store.errors import Unreachable
from diptych_store.protocol import Store

from tests.store import s3_bucket
from tests.store.conformance import (
    LENGTH,
    MIB,
    StoreConformance,
    WritableRig,
    attempt_at,
    bare_client,
    begun_attempts,
    get,
    some_bytes,
)
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

    @pytest.mark.parametrize("lengths", [[0], [1], [LENGTH], [5 * MIB, 5 * MIB, 1234]], ids=repr)
    async def test_urls_let_their_holder_write(self, store: Store, lengths: Sequence[int]):
        """As far as Swift goes: it takes a part again that an object is made of already.

        So a URL can break what was published with it until it expires, but not change it.
        """
        assert isinstance(store, S3Store)
        attempt = attempt_at()
        parts = [some_bytes(length, seed) for seed, length in enumerate(lengths)]
        async with bare_client() as client:
            urls = [
                await store.presign_put(attempt, part=number, expires=timedelta(minutes=5))
                for number in range(1, len(parts) + 1)
            ]
            for url, part in reversed(list(zip(urls, parts, strict=True))):
                assert (await client.put(url, content=part)).is_success
            assert await begun_attempts(store) == [attempt]
            location = await store.publish(attempt)
            assert await get(store, location) == b"".join(parts)
            assert (await client.put(urls[0], content=b"late")).is_success
        if sum(lengths):
            with pytest.raises(Unreachable):
                await get(store, location)
        else:
            assert await get(store, location) == b""
        await store.discard(attempt, published=True)
