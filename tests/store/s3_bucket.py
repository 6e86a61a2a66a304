"""Buckets of the test run's S3 server, and what lies in them behind the store's back."""

import functools
import json
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from dev.seaweedfs import AccessKey
from diptych_store.calls import OnCall, tell_nobody
from diptych_store.drivers.s3 import S3Store
from diptych_store.options.s3 import S3Options


class Server(Protocol):
    """Where S3 is spoken, and the key of one who may do everything there."""

    @property
    def url(self) -> str: ...

    @property
    def full(self) -> AccessKey: ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that speaks S3 beside what else it does."""

    url: str
    full: AccessKey


def settings(
    server: Server, bucket: str, *, key: AccessKey | None = None, **more: object
) -> dict[str, object]:
    """Options of a store, as an operator writes them: quick to give up, with small parts."""
    key = key or server.full
    return {
        "s3_store_host": server.url,
        "s3_store_access_key": key.access,
        "s3_store_secret_key": key.secret,
        "s3_store_bucket": bucket,
        "s3_store_large_object_chunk_size": 5,
        **more,
    }


def store_of(
    options: Mapping[str, object],
    *,
    name: str = "cheap",
    read_only: bool = False,
    on_call: OnCall = tell_nobody,
) -> S3Store:
    """The store with these options."""
    return S3Store(name, S3Options.model_validate(options), read_only=read_only, on_call=on_call)


async def open_there(argument: str, on_call: OnCall = tell_nobody) -> S3Store:
    """The store for a process of its own: `argument` are the options as JSON."""
    return store_of(json.loads(argument), on_call=on_call)


@functools.cache
def _session() -> Any:
    return AioSession()


@asynccontextmanager
async def client(
    server: Server, key: AccessKey | None = None, *, attempts: int | None = None
) -> AsyncGenerator[Any]:
    """A client that is not the driver's."""
    key = key or server.full
    async with _session().create_client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=key.access,
        aws_secret_access_key=key.secret,
        config=AioConfig(
            s3={"addressing_style": "path"},
            proxies={},
            retries={"total_max_attempts": attempts} if attempts else None,
        ),
    ) as s3:
        yield s3


async def make(server: Server) -> str:
    """A new bucket."""
    name = f"test-{uuid.uuid4()}"
    async with client(server) as s3:
        await s3.create_bucket(Bucket=name)
    return name


async def everything(server: Server, bucket: str) -> list[str]:
    """The keys of all objects and of all uploads."""
    async with client(server) as s3:
        uploads = await s3.list_multipart_uploads(Bucket=bucket)
        objects = await s3.list_objects_v2(Bucket=bucket)
    return [
        *(f"upload {one['Key']}" for one in uploads.get("Uploads", [])),
        *(one["Key"] for one in objects.get("Contents", [])),
    ]


async def empty(server: Server, bucket: str) -> None:
    """Remove all objects and uploads."""
    async with client(server) as s3:
        uploads = await s3.list_multipart_uploads(Bucket=bucket)
        for one in uploads.get("Uploads", []):
            await s3.abort_multipart_upload(Bucket=bucket, Key=one["Key"], UploadId=one["UploadId"])
        objects = await s3.list_objects_v2(Bucket=bucket)
        for one in objects.get("Contents", []):
            await s3.delete_object(Bucket=bucket, Key=one["Key"])
