"""What the S3 driver does beyond the contract, against SeaweedFS; see docs/drivers/s3.md."""

import asyncio
import contextlib
import io
import re
import ssl
import subprocess
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest
from dev.seaweedfs import AccessKey, Seaweedfs
from diptych_store.drivers.memory import MemoryStore
from diptych_store.drivers.s3 import S3Store
from diptych_store.drivers.s3.locations import S3Location, parse_location, same_host, written
from diptych_store.drivers.s3.parts import (
    LARGEST_OBJECT,
    LARGEST_PART,
    MIB,
    MOST_PARTS,
    Room,
    Sending,
    known_part_size,
    part_size,
)
from diptych_store.errors import (
    AlreadyThere,
    AttemptLost,
    BadLocation,
    Full,
    NotFound,
    RangeOutside,
    ReadDenied,
    StoreError,
    Unreachable,
    WriteDenied,
)
from diptych_store.options.s3 import S3Options
from diptych_store.protocol import ByteRange, Presigns
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.store import s3_bucket
from tests.store.conformance import (
    attempt_at,
    begun_attempts,
    get,
    in_blocks,
    put,
    some_bytes,
)

SOON = timedelta(minutes=5)


@pytest.fixture(scope="module")
async def bucket(s3: Seaweedfs) -> str:
    return await s3_bucket.make(s3)


@pytest.fixture
async def store(s3: Seaweedfs, bucket: str) -> AsyncIterator[S3Store]:
    store = s3_bucket.store_of(s3_bucket.settings(s3, bucket))
    yield store
    left = await s3_bucket.everything(s3, bucket)
    await store.aclose()
    await s3_bucket.empty(s3, bucket)
    assert left == []


@asynccontextmanager
async def opened(options: dict[str, object]) -> AsyncGenerator[S3Store]:
    store = s3_bucket.store_of(options)
    try:
        yield store
    finally:
        await store.aclose()


def browser() -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=60)


# Parts.


def test_parts_of_unknown_number_reach_the_largest_object():
    sizes = [part_size(number) for number in range(1, MOST_PARTS + 1)]
    assert sizes[0] == 8 * MIB
    assert sizes == sorted(sizes)
    assert sum(sizes) >= LARGEST_OBJECT
    assert sizes[-1] <= LARGEST_PART


def test_the_longest_part_is_a_small_share_of_what_was_sent():
    sent = 0
    for number in range(1, MOST_PARTS + 1):
        assert part_size(number) <= 8 * MIB + sent // 1000
        sent += part_size(number)


@given(size=st.integers(0, LARGEST_OBJECT), smallest=st.integers(5, 5120))
def test_parts_of_a_known_size_are_few_and_not_too_large(size: int, smallest: int):
    length = known_part_size(size, smallest=smallest * MIB)
    assert smallest * MIB <= length <= LARGEST_PART
    assert length * MOST_PARTS >= size
    assert length == smallest * MIB or (length - MIB) * MOST_PARTS < size


class Sent:
    """Where parts go; it notes how many are on their way at most, and waits to be let go."""

    def __init__(self) -> None:
        self.parts: dict[int, bytes] = {}
        self.under_way = 0
        self.most = 0
        self.fails_at: int | None = None

    async def send(self, number: int, part: io.BytesIO) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range(50):
                await asyncio.sleep(0)
            if number == self.fails_at:
                raise Unreachable("the part was not taken")
            self.parts[number] = part.getvalue()
        finally:
            self.under_way -= 1


def places_in(room: Room) -> int:
    taken = 0
    while room.take():
        taken += 1
    for _ in range(taken):
        room.give()
    return taken


@pytest.mark.parametrize(("places", "most"), [(0, 1), (1, 2), (4, 5), (100, 6)])
async def test_parts_of_a_known_size_are_sent_side_by_side_as_far_as_there_is_room(
    places: int, most: int
):
    data, sent, room = some_bytes(6 * MIB), Sent(), Room(places)
    sending = Sending(sent.send, size=len(data), smallest=MIB, room=room)
    assert await sending.all(in_blocks(data, MIB // 2)) == len(data)
    assert b"".join(sent.parts[number] for number in sorted(sent.parts)) == data
    # The upload's own place comes on top.
    assert sent.most == most
    assert places_in(room) == places


@pytest.mark.parametrize("places", [0, 1, 5])
async def test_of_unknown_size_one_part_is_on_its_way(places: int):
    data, sent, room = some_bytes(3 * part_size(1) + 1), Sent(), Room(places)
    sending = Sending(sent.send, size=None, smallest=MIB, room=room)
    assert await sending.all(in_blocks(data, MIB)) == len(data)
    assert b"".join(sent.parts[number] for number in sorted(sent.parts)) == data
    assert (sent.most, len(sent.parts)) == (1, 4)
    assert places_in(room) == places


async def test_a_part_that_fails_ends_the_others_and_gives_the_room_back():
    data, sent, room = some_bytes(6 * MIB), Sent(), Room(3)
    sent.fails_at = 2
    sending = Sending(sent.send, size=len(data), smallest=MIB, room=room)
    with pytest.raises(Unreachable):
        await sending.all(in_blocks(data, MIB // 2))
    assert sent.under_way == 0
    await asyncio.sleep(0)
    assert places_in(room) == 3


async def test_a_sending_cancelled_at_any_moment_gives_the_room_back():
    room = Room(3)
    for turns in range(60):
        sent = Sent()
        sending = Sending(sent.send, size=6 * MIB, smallest=MIB, room=room)
        task = asyncio.create_task(sending.all(in_blocks(some_bytes(6 * MIB), MIB // 2)))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert (sent.under_way, places_in(room)) == (0, 3)


@pytest.mark.parametrize("size", [None, 12 * MIB + 5])
@pytest.mark.parametrize("length", [10 * MIB, 12 * MIB + 5, 16 * MIB, 20 * MIB + 1])
async def test_objects_of_several_parts_are_read_as_they_were_written(
    store: S3Store, size: int | None, length: int
):
    data, attempt = some_bytes(length), attempt_at()
    assert await store.write(attempt, in_blocks(data, MIB), size=size) == length
    location = await store.publish(attempt)
    assert await get(store, location) == data
    await store.delete(location)


async def test_the_server_checks_what_it_gets(store: S3Store, s3: Seaweedfs, bucket: str):
    """What the MD5 of each part is sent for."""
    async with s3_bucket.client(s3, attempts=1) as client:
        upload = (await client.create_multipart_upload(Bucket=bucket, Key="a"))["UploadId"]
        with pytest.raises(client.exceptions.ClientError, match="BadDigest"):
            await client.upload_part(
                Bucket=bucket,
                Key="a",
                UploadId=upload,
                PartNumber=1,
                Body=b"other bytes",
                ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==",
            )
        await client.abort_multipart_upload(Bucket=bucket, Key="a", UploadId=upload)


# Locations.


@pytest.mark.parametrize(
    "location",
    [
        "s3://s3.example.org/images/8f3a",
        "s3+https://s3.example.org/images/8f3a",
        "s3+http://s3.example.org/images/8f3a",
        "s3://AKID:secret@s3.example.org/images/8f3a",
        "s3+https://AKID:se/cr/et@s3.example.org/images/8f3a",
        "s3+http://AKID:se@cr/et@s3.example.org/images/8f3a",
        "s3+https://AKID:a:b/c@d+e%2F%40=@s3.example.org/images/8f3a",
        "s3+https://AK%2BID:se%2Fcret@s3.example.org/images/8f3a",
        "s3://AKID:http:@s3.example.org/images/8f3a",
        "s3://AKID:/@s3.example.org/images/8f3a",
        "s3://AKID:bucket/key@s3.example.org/images/8f3a",
    ],
)
def test_every_form_that_was_ever_written_is_understood(location: str):
    assert parse_location(location) == S3Location("s3.example.org", "images", "8f3a")


@pytest.mark.parametrize(
    "location",
    [
        "",
        "s3:",
        "s3://",
        "s3://host",
        "s3://host/bucket",
        "s3://host/bucket/",
        "s3:///bucket/key",
        "s3:host/bucket/key",
        "S3://host/bucket/key",
        "s3+ftp://host/bucket/key",
        "s3://https://host/bucket/key",
        "s3://AKID:a://b@host/bucket/key",
        "s3://AKID@host/bucket/key",
        "s3://AKID:@host/bucket/key",
        "s3://:secret@host/bucket/key",
        "s3://host/../bucket/key",
        "s3://host/./bucket/key",
        "s3://host//bucket/key",
        "s3://host/../key",
        "s3://host/bucket/..",
        "s3://host/bucket/.attempts",
        "s3://host/.attempts/key",
        "s3://host/bucket?x/key",
        "s3://host?/bucket/key",
        "s3://host#/bucket/key",
        "s3://ho st/bucket/key",
        "s3://host/bucket/key\n",
        "\ns3://host/bucket/key",
        "https://host/bucket/key",
        "swift://host/bucket/key",
    ],
)
def test_what_no_store_can_have_written_is_refused(location: str):
    with pytest.raises(BadLocation):
        parse_location(location)


KEYS = st.text(
    st.characters(codec="utf-8", exclude_characters="/", exclude_categories=["C", "Z"]),
    min_size=1,
    max_size=50,
).filter(lambda key: not key.startswith(".") and key.isprintable())
HOSTS = st.from_regex(r"[a-z0-9.-]{1,30}(:[0-9]{1,5})?(/[a-z0-9]{1,5})?", fullmatch=True)
BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9.-]{2,30}", fullmatch=True)
SECRETS = st.text(st.characters(codec="utf-8"), min_size=1).filter(
    lambda secret: "://" not in f":{secret}@"
)


@given(scheme=st.sampled_from(["", "http://", "https://"]), host=HOSTS, bucket=BUCKETS, key=KEYS)
def test_what_is_written_is_understood(scheme: str, host: str, bucket: str, key: str):
    location = written(scheme + host, bucket, key)
    assert parse_location(location) == S3Location(host, bucket, key)


@given(
    access=st.from_regex(r"[^:/]+", fullmatch=True).filter(lambda access: access.isprintable()),
    secret=SECRETS,
    host=HOSTS,
    bucket=BUCKETS,
    key=KEYS,
)
def test_no_secret_hides_where_the_object_is(
    access: str, secret: str, host: str, bucket: str, key: str
):
    location = f"s3+https://{access}:{secret}@{host}/{bucket}/{key}"
    if location.count("://") == 1:
        assert parse_location(location) == S3Location(host, bucket, key)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("s3.example.org", "S3.Example.org", True),
        ("s3.example.org:443", "s3.example.org", True),
        ("s3.example.org:80", "s3.example.org:443", True),
        ("s3.example.org:8080", "s3.example.org", False),
        ("s3.example.org/a", "s3.example.org/A", False),
        ("s3.example.org", "s3.example.com", False),
    ],
)
def test_hosts_are_compared_as_names_are(one: str, other: str, same: bool):
    assert same_host(one, other) is same


@pytest.mark.parametrize(
    ("host", "location"),
    [
        ("s3.example.org", "s3://s3.example.org/images/8f3a"),
        ("http://s3.example.org:8080/", "s3://s3.example.org:8080/images/8f3a"),
        ("https://s3.example.org", "s3+https://s3.example.org/images/8f3a"),
    ],
)
def test_the_form_is_that_of_glance(host: str, location: str):
    # Source: glance_store 5.7, _drivers/s3.py, `configure_add` and `StoreLocation`.
    assert written(host, "images", "8f3a") == location


async def test_an_object_is_found_by_every_form_of_its_location(
    store: S3Store, s3: Seaweedfs, bucket: str
):
    attempt = attempt_at()
    location = await put(store, b"bytes", key=attempt.key)
    place = f"127.0.0.1:{s3.port}/{bucket}/{attempt.key}"
    assert location == f"s3://{place}"
    for form in (
        f"s3+http://{place}",
        f"s3+https://{place}",
        f"s3://old:se/cr@et@{place}",
        f"s3+https://old:{s3.full.secret}@{place}",
    ):
        assert store.recognises(form)
        assert await get(store, form) == b"bytes"
    for form in (f"s3://127.0.0.1:1/{bucket}/{attempt.key}", f"s3://{place}".replace("test-", "")):
        assert not store.recognises(form)
        with pytest.raises(BadLocation):
            await get(store, form)
    await store.delete(f"s3://old:se/cr@et@{place}")
    with pytest.raises(NotFound):
        await get(store, location)


# Publishing.


async def test_a_claim_that_a_dead_process_left_is_taken_over(
    store: S3Store, s3: Seaweedfs, bucket: str
):
    attempt = attempt_at()
    async with s3_bucket.client(s3) as client:
        await client.put_object(Bucket=bucket, Key=f".claims/{attempt.key}", Body=b"gone")
    await store.write(attempt, in_blocks(b"bytes"), size=5)
    location = await store.publish(attempt)
    assert await get(store, location) == b"bytes"
    await store.delete(location)


async def test_a_claim_of_an_attempt_that_may_go_on_is_respected(
    store: S3Store, s3: Seaweedfs, bucket: str
):
    first = attempt_at()
    second = attempt_at(first.key)
    for attempt in (first, second):
        await store.write(attempt, in_blocks(attempt.token.encode()), size=None)
    async with s3_bucket.client(s3) as client:
        await client.put_object(
            Bucket=bucket, Key=f".claims/{first.key}", Body=first.token.encode()
        )
    with pytest.raises(AlreadyThere):
        await store.publish(second)
    await store.discard(second)
    location = await store.publish(first)
    assert await get(store, location) == first.token.encode()
    await store.delete(location)


async def test_discarding_who_claims_makes_way(store: S3Store, s3: Seaweedfs, bucket: str):
    first = attempt_at()
    second = attempt_at(first.key)
    for attempt in (first, second):
        await store.write(attempt, in_blocks(attempt.token.encode()), size=None)
    async with s3_bucket.client(s3) as client:
        await client.put_object(
            Bucket=bucket, Key=f".claims/{first.key}", Body=first.token.encode()
        )
    await store.discard(first, published=True)
    location = await store.publish(second)
    assert await get(store, location) == second.token.encode()
    await store.delete(location)


async def test_an_object_of_another_program_is_neither_replaced_nor_removed(
    store: S3Store, s3: Seaweedfs, bucket: str
):
    attempt = attempt_at()
    await store.write(attempt, in_blocks(b"ours"), size=4)
    async with s3_bucket.client(s3) as client:
        await client.put_object(Bucket=bucket, Key=attempt.key, Body=b"theirs")
    with pytest.raises(AlreadyThere):
        await store.publish(attempt)
    await store.discard(attempt, published=True)
    location = f"s3://127.0.0.1:{s3.port}/{bucket}/{attempt.key}"
    assert await get(store, location) == b"theirs"
    await store.delete(location)


async def test_what_a_completed_upload_left_is_removed_when_it_is_published_again(
    store: S3Store, s3: Seaweedfs, bucket: str
):
    """The process died, or lost the answer, between the object and the end of `publish`."""
    attempt = attempt_at()
    await store.write(attempt, in_blocks(b"bytes"), size=5)
    async with s3_bucket.client(s3) as client:
        [upload] = (await client.list_multipart_uploads(Bucket=bucket))["Uploads"]
        parts = await client.list_parts(Bucket=bucket, Key=attempt.key, UploadId=upload["UploadId"])
        await client.complete_multipart_upload(
            Bucket=bucket,
            Key=attempt.key,
            UploadId=upload["UploadId"],
            MultipartUpload={
                "Parts": [
                    {"PartNumber": part["PartNumber"], "ETag": part["ETag"]}
                    for part in parts["Parts"]
                ]
            },
        )
    location = await store.publish(attempt)
    assert await get(store, location) == b"bytes"
    assert await begun_attempts(store) == []
    assert await store.publish(attempt) == location
    await store.delete(location)


async def test_an_attempt_is_as_old_as_its_last_part(store: S3Store):
    attempt = attempt_at()
    await store.write(attempt, in_blocks(b"bytes"), size=5)
    await asyncio.sleep(2.1)  # the server's times are in seconds
    await store.presign_put(attempt, part=2, expires=SOON)
    assert [one async for one in store.attempts(older_than=timedelta(seconds=1))] == [attempt]
    url = await store.presign_put(attempt, part=2, expires=SOON)
    async with browser() as client:
        (await client.put(url, content=b"more")).raise_for_status()
    assert [one async for one in store.attempts(older_than=timedelta(seconds=1.5))] == []
    await store.discard(attempt)


# Presigned URLs.


async def test_a_presigned_url_gets_the_object(store: S3Store):
    assert isinstance(store, Presigns)
    data = some_bytes(MIB)
    location = await put(store, data)
    url = await store.presign_get(location, expires=SOON)
    async with browser() as client:
        whole = await client.get(url)
        assert (whole.status_code, whole.content) == (200, data)
        assert whole.headers["content-disposition"] == "attachment"
        assert whole.headers["content-type"] == "application/octet-stream"
        part = await client.get(url, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, data[10:20])
        for method in ("PUT", "DELETE"):
            assert (await client.request(method, url)).status_code == 403
        other = url.replace(location.rpartition("/")[2], str(uuid.uuid4()))
        assert (await client.get(other)).status_code == 403
    await store.delete(location)


async def test_a_presigned_url_expires(store: S3Store):
    location = await put(store, b"bytes")
    url = await store.presign_get(location, expires=timedelta(seconds=1))
    await asyncio.sleep(2.1)
    async with browser() as client:
        assert (await client.get(url)).status_code == 403
    await store.delete(location)


async def test_parts_are_put_to_presigned_urls_and_published(store: S3Store):
    attempt = attempt_at()
    data = some_bytes(11 * MIB)
    pieces = {1: data[: 5 * MIB], 2: data[5 * MIB : 10 * MIB], 3: data[10 * MIB :]}
    # All at once: one of them begins the attempt.
    urls = await asyncio.gather(
        *(store.presign_put(attempt, part=number, expires=SOON) for number in pieces)
    )
    async with browser() as client:
        for number in (2, 3, 1):
            answer = await client.put(urls[number - 1], content=pieces[number])
            assert answer.status_code == 200
    location = await store.publish(attempt)
    assert await get(store, location) == data
    await store.delete(location)


async def test_an_attempt_without_a_part_is_not_published(store: S3Store):
    attempt = attempt_at()
    await store.presign_put(attempt, expires=SOON)
    with pytest.raises(AttemptLost):
        await store.publish(attempt)
    await store.discard(attempt)


async def test_short_parts_are_refused(store: S3Store):
    attempt = attempt_at()
    async with browser() as client:
        for number in (1, 2):
            url = await store.presign_put(attempt, part=number, expires=SOON)
            (await client.put(url, content=b"short")).raise_for_status()
    with pytest.raises(WriteDenied, match="too small"):
        await store.publish(attempt)
    await store.discard(attempt)


# Copies.


async def test_a_large_object_is_copied_in_parts(s3: Seaweedfs, bucket: str, store: S3Store):
    data = some_bytes(65 * MIB + 17)
    source = await put(store, data)
    attempt = attempt_at()
    assert await store.copy(attempt, store, source) == len(data)
    location = await store.publish(attempt)
    assert await get(store, location) == data
    for one in (source, location):
        await store.delete(one)


async def test_nothing_is_copied_from_another_server_or_kind(store: S3Store):
    async with opened(
        {**OPTIONS, "s3_store_host": "http://127.0.0.1:1", "s3_store_bucket": "images"}
    ) as elsewhere:
        location = f"s3://127.0.0.1:1/images/{uuid.uuid4()}"
        assert await store.copy(attempt_at(), elsewhere, location) is None
    memory = MemoryStore("memory")
    assert await store.copy(attempt_at(), memory, await put(memory, b"bytes")) is None


# Addresses, buckets, rights.

OPTIONS: dict[str, object] = {
    "s3_store_host": "https://s3.example.org",
    "s3_store_access_key": "AKID",
    "s3_store_secret_key": "secret",
    "s3_store_bucket": "images",
}


@pytest.mark.parametrize(
    ("host", "bucket", "style", "url"),
    [
        ("https://s3.example.org", "images", "auto", "https://s3.example.org/images/8f3a"),
        ("https://s3.example.org", "images", "path", "https://s3.example.org/images/8f3a"),
        ("https://s3.example.org", "images", "virtual", "https://images.s3.example.org/8f3a"),
        ("s3.example.org:81", "images", "virtual", "http://images.s3.example.org:81/8f3a"),
        ("https://s3.amazonaws.com", "images", "auto", "https://images.s3.amazonaws.com/8f3a"),
        (
            "https://s3.eu-west-1.amazonaws.com",
            "our.images",
            "auto",
            "https://s3.eu-west-1.amazonaws.com/our.images/8f3a",
        ),
        ("http://127.0.0.1:8333", "images", "auto", "http://127.0.0.1:8333/images/8f3a"),
    ],
)
async def test_the_bucket_is_in_the_path_or_in_the_host(
    host: str, bucket: str, style: str, url: str
):
    options = {
        **OPTIONS,
        "s3_store_host": host,
        "s3_store_bucket": bucket,
        "s3_store_bucket_url_format": style,
    }
    async with opened(options) as store:
        signed = await store.presign_get(written(host, bucket, "8f3a"), expires=SOON)
        assert signed.partition("?")[0] == url


@pytest.mark.parametrize(
    ("host", "configured", "region"),
    [
        ("https://s3.example.org", "", "us-east-1"),
        ("https://s3.example.org", "here", "here"),
        ("https://s3.amazonaws.com", "", "us-east-1"),
        ("https://s3.eu-west-1.amazonaws.com", "", "eu-west-1"),
        ("https://s3-ap-southeast-2.amazonaws.com", "", "ap-southeast-2"),
        ("https://s3.eu-west-1.amazonaws.com", "eu-west-3", "eu-west-3"),
    ],
)
async def test_the_region_is_that_of_the_option_or_of_the_host(
    host: str, configured: str, region: str
):
    options = {**OPTIONS, "s3_store_host": host, "s3_store_region_name": configured}
    async with opened(options) as store:
        url = await store.presign_get(written(host, "images", "8f3a"), expires=SOON)
        assert quote(f"/{region}/s3/", safe="") in url


async def test_a_server_understands_the_bucket_in_the_host(s3: Seaweedfs, bucket: str):
    """Its name leads nowhere here, so the request is taken there by hand."""
    host = f"http://{s3.DOMAIN}:{s3.port}"
    options = s3_bucket.settings(s3, bucket, s3_store_host=host)
    async with opened(s3_bucket.settings(s3, bucket)) as store:
        location = await put(store, b"bytes", key="8f3a")
        async with opened({**options, "s3_store_bucket_url_format": "virtual"}) as named:
            url = urlsplit(await named.presign_get(written(host, bucket, "8f3a"), expires=SOON))
        assert url.netloc == f"{bucket}.{s3.DOMAIN}:{s3.port}"
        async with browser() as client:
            answer = await client.get(
                f"{s3.url}{url.path}?{url.query}", headers={"Host": url.netloc}
            )
        assert (answer.status_code, answer.content) == (200, b"bytes")
        await store.delete(location)


async def test_a_missing_bucket_is_no_missing_object(s3: Seaweedfs):
    name = f"test-{uuid.uuid4()}"
    location = f"s3://127.0.0.1:{s3.port}/{name}/8f3a"
    async with opened(s3_bucket.settings(s3, name)) as store:
        for call in (
            get(store, location),
            get(store, location, ByteRange(0, 0)),
            store.delete(location),
            put(store, b"bytes"),
            store.publish(attempt_at()),
            store.discard(attempt_at(), published=True),
            begun_attempts(store),
        ):
            with pytest.raises(Unreachable, match=f"no bucket {name}"):
                await call


async def test_a_bucket_is_made_when_the_first_object_is_written(s3: Seaweedfs):
    name = f"test-{uuid.uuid4()}"
    options = s3_bucket.settings(s3, name, s3_store_create_bucket_on_put=True)
    async with opened(options) as store:
        # At once, as the first uploads may come.
        locations = await asyncio.gather(*(put(store, b"bytes") for _ in range(4)))
        for location in locations:
            assert await get(store, location) == b"bytes"
            await store.delete(location)
    assert await s3_bucket.everything(s3, name) == []


async def test_a_key_without_the_right_to_write_reads(store: S3Store, s3: Seaweedfs, bucket: str):
    location, attempt = await put(store, b"bytes"), attempt_at()
    await store.write(attempt, in_blocks(b"bytes"), size=5)
    async with opened(s3_bucket.settings(s3, bucket, key=s3.read_only)) as reader:
        assert await get(reader, location) == b"bytes"
        for call in (
            put(reader, b"bytes"),
            reader.publish(attempt),
            reader.discard(attempt),
            reader.delete(location),
            reader.presign_put(attempt_at(), expires=SOON),
            reader.copy(attempt_at(), store, location),
        ):
            with pytest.raises(WriteDenied):
                await call
    assert await get(store, location) == b"bytes"
    await store.discard(attempt)
    await store.delete(location)


@pytest.mark.parametrize(
    ("access", "words"),
    [("dev-full", "is the secret key right"), ("who-is-this", "does not know the access key")],
)
async def test_wrong_credentials_are_said_and_not_told(
    s3: Seaweedfs, bucket: str, access: str, words: str
):
    secret = "canary/of+the@secret"
    options = s3_bucket.settings(s3, bucket, key=AccessKey(access, secret))
    location = f"s3://127.0.0.1:{s3.port}/{bucket}/8f3a"
    async with opened(options) as store:
        with pytest.raises(ReadDenied, match=words) as reading:
            await get(store, location)
        with pytest.raises(WriteDenied, match=words) as writing:
            await put(store, b"bytes")
        assert secret not in repr(store)
    for error in (reading.value, writing.value):
        assert "canary" not in repr(error)
        assert error.__cause__ is None
    shown = repr(S3Options.model_validate(options))
    assert access not in shown
    assert "canary" not in shown


async def test_a_location_in_an_error_has_no_secret(store: S3Store):
    with pytest.raises(BadLocation) as error:
        await get(store, "s3://AKID:canary/can@ary@elsewhere/images/8f3a")
    assert "ary" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"s3_store_host": ""},
        {"s3_store_host": "https://"},
        {"s3_store_host": "https://user:password@host"},
        {"s3_store_host": "ftp://host"},
        {"s3_store_host": "host name"},
        {"s3_store_host": "http://host:99999"},
        {"s3_store_host": "http://[1:2]"},
        {"s3_store_host": 'http://ho%st"'},
        {"s3_store_host": "http://one..two"},
        {"s3_store_host": "http://-one"},
        {"s3_store_region_name": "eu west"},
        {"s3_store_region_name": "-eu"},
        {"s3_store_bucket": "../images"},
        {"s3_store_bucket": "a/b"},
        {"s3_store_access_key": ""},
        {"s3_store_secret_key": ""},
        {"s3_store_large_object_chunk_size": 4},
        {"s3_store_thread_pools": 0},
        {"s3_store_bucket_url_format": "subdomain"},
    ],
)
def test_options_that_cannot_work_are_refused(change: dict[str, object]):
    S3Options.model_validate(OPTIONS)
    with pytest.raises(ValidationError):
        S3Options.model_validate({**OPTIONS, **change})


async def test_the_environment_has_no_say(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    config = tmp_path / "config"
    config.write_text("[default]\nregion = nowhere\ns3 =\n  addressing_style = virtual\n")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "other",
        "AWS_SECRET_ACCESS_KEY": "other",
        "AWS_SESSION_TOKEN": "other",
        "AWS_PROFILE": "there-is-none",
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(config),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_CA_BUNDLE": "/nowhere",
        "AWS_MAX_ATTEMPTS": "none",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
    }.items():
        monkeypatch.setenv(name, value)
    location = await put(store, b"bytes")
    assert await get(store, location) == b"bytes"
    await store.delete(location)


@pytest.mark.parametrize("checksums", ["when_required", "when_supported"])
async def test_checksums_can_be_sent_and_compared(s3: Seaweedfs, bucket: str, checksums: str):
    options = s3_bucket.settings(
        s3,
        bucket,
        s3_store_enable_data_integrity_protection=True,
        s3_store_request_checksum_calculation=checksums,
        s3_store_response_checksum_validation=checksums,
    )
    data = some_bytes(11 * MIB)
    async with opened(options) as store:
        location = await put(store, data)
        assert await get(store, location) == data
        assert await get(store, location, ByteRange(5, 10)) == data[5:15]
        await store.delete(location)


# Errors, from a server that gives the answer it is told to.


@asynccontextmanager
async def answering(status: int, code: str) -> AsyncGenerator[str]:
    """A server that refuses everything; its address."""
    body = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>canary</Message></Error>".encode()
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if length and b"100-continue" not in head.lower():
            await reader.readexactly(int(length[1]))
        sent = b"" if head.startswith(b"HEAD") else body
        writer.write(
            f"HTTP/1.1 {status} Refused\r\nContent-Type: application/xml\r\n"
            f"Content-Length: {len(sent)}\r\nConnection: close\r\n\r\n".encode()
            + sent
        )
        with contextlib.suppress(ConnectionError):
            # To close with something unread would take the answer away from the client.
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("status", "code", "reading", "writing", "words"),
    [
        (403, "AccessDenied", ReadDenied, WriteDenied, "denies access to bucket images"),
        (403, "QuotaExceeded", Full, Full, "quota"),
        (507, "InsufficientStorage", Full, Full, "no room"),
        (413, "EntityTooLarge", Full, Full, "too large"),
        (403, "RequestTimeTooSkewed", Unreachable, Unreachable, "clock"),
        (400, "AuthorizationHeaderMalformed", Unreachable, Unreachable, "another region"),
        (301, "PermanentRedirect", Unreachable, Unreachable, "another region"),
        (404, "NoSuchBucket", Unreachable, Unreachable, "no bucket images"),
        (404, "NoSuchKey", NotFound, StoreError, "no object"),
        (501, "NotImplemented", Unreachable, Unreachable, "does not know"),
        (400, "InvalidRequest", Unreachable, Unreachable, "refuses the request"),
        (400, "canary words", Unreachable, Unreachable, r"refuses the request \(400\)"),
        (400, "<b>canary</b>", Unreachable, Unreachable, "none of S3"),
        (400, "<canary", Unreachable, Unreachable, "refuses the request"),
        (503, "SlowDown", Unreachable, Unreachable, "fewer requests"),
        (500, "InternalError", Unreachable, Unreachable, "failed"),
    ],
)
async def test_refusals_have_clear_words_and_none_of_the_servers(
    status: int, code: str, reading: type[StoreError], writing: type[StoreError], words: str
):
    async with answering(status, code) as url:
        options = {**OPTIONS, "s3_store_host": url, "s3_store_retries": 0}
        async with opened(options) as store:
            with pytest.raises(reading, match=words) as read:
                await get(store, written(url, "images", "8f3a"))
            with pytest.raises(writing, match=words) as wrote:
                await put(store, b"bytes")
    for error in (read.value, wrote.value):
        assert "canary" not in str(error)


async def test_an_answer_that_is_none_is_said():
    async with answering(200, "<canary") as url:
        options = {**OPTIONS, "s3_store_host": url, "s3_store_retries": 0}
        async with opened(options) as store:
            with pytest.raises(Unreachable, match="failed"):
                await begun_attempts(store)


async def test_a_range_beyond_the_end_tells_the_size(store: S3Store):
    for size in (0, 5):
        location = await put(store, b"bytes"[:size])
        with pytest.raises(RangeOutside) as error:
            await get(store, location, ByteRange(5, 1))
        assert error.value.size == size
        await store.delete(location)


async def test_nobody_there_is_said(s3: Seaweedfs):
    options = {**OPTIONS, "s3_store_host": "http://127.0.0.1:1", "s3_store_retries": 0}
    async with opened(options) as store:
        with pytest.raises(Unreachable, match="no connection"):
            await get(store, "s3://127.0.0.1:1/images/8f3a")


# TLS.


@pytest.fixture(scope="module")
def certificate(
    tmp_path_factory: pytest.TempPathFactory, debian: Callable[[str, str], str]
) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            debian("openssl", "openssl"),
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "certificate.pem", folder / "key.pem"


@asynccontextmanager
async def behind_tls(port: int, certificate: tuple[Path, Path]) -> AsyncGenerator[str]:
    """The server on `port`, reached by https."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, other_writer), pass_on(other_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_server_is_trusted_by_the_file_of_authorities(
    s3: Seaweedfs, bucket: str, certificate: tuple[Path, Path]
):
    data = some_bytes(6 * MIB)
    async with behind_tls(s3.port, certificate) as url:
        options = s3_bucket.settings(s3, bucket, s3_store_host=url, s3_store_retries=0)
        async with opened({**options, "s3_store_cacert": str(certificate[0])}) as store:
            location = await put(store, data)
            assert location.startswith("s3+https://127.0.0.1:")
            assert await get(store, location) == data
            await store.delete(location)
        async with opened(options) as store:
            with pytest.raises(Unreachable, match="certificate"):
                await get(store, location)
