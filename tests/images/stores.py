"""Stores at real servers: their settings, and what lies in them beside the service."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import uuid4

import httpx
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from dev.seaweedfs import AccessKey, Seaweedfs
from dev.swift import Swift


def _unique(prefix: str) -> str:
    return f"{prefix}-{uuid4().hex[:12]}"


@dataclass(frozen=True)
class Bucket:
    """A bucket of one test's own; a store gets to it at `url` with `key`."""

    server: Seaweedfs
    name: str = field(default_factory=lambda: _unique("images"))
    key: AccessKey = Seaweedfs.full
    kind: ClassVar[str] = "s3"
    url: str | None = None

    def options(self, store: str, **more: str) -> dict[str, str]:
        """What `service.configuration` takes to have this bucket as a store of that name."""
        options = {
            "s3_store_host": self.url or self.server.url,
            "s3_store_access_key": self.key.access,
            "s3_store_secret_key": self.key.secret,
            "s3_store_bucket": self.name,
            "s3_store_bucket_url_format": "path",
            "s3_store_region_name": "us-east-1",
            "s3_store_retries": "1",
            **more,
        }
        return {f"{store}__{name}".upper(): value for name, value in options.items()}

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Any]:
        """A client with all rights."""
        async with get_session().create_client(
            "s3",
            endpoint_url=self.server.url,
            region_name="us-east-1",
            aws_access_key_id=self.server.full.access,
            aws_secret_access_key=self.server.full.secret,
            config=AioConfig(s3={"addressing_style": "path"}),
        ) as client:
            yield client

    async def everything(self) -> list[str]:
        """The keys of all objects, and of all multipart uploads that nobody has ended."""
        async with self.client() as client:
            objects = await client.list_objects_v2(Bucket=self.name)
            uploads = await client.list_multipart_uploads(Bucket=self.name)
        found = [*objects.get("Contents", ()), *uploads.get("Uploads", ())]
        return sorted(one["Key"] for one in found)

    async def make(self) -> None:
        async with self.client() as client:
            await client.create_bucket(Bucket=self.name)

    async def remove(self) -> None:
        """Remove it, which no server does with something in it."""
        async with self.client() as client:
            objects = await client.list_objects_v2(Bucket=self.name)
            for one in objects.get("Contents", ()):
                await client.delete_object(Bucket=self.name, Key=one["Key"])
            uploads = await client.list_multipart_uploads(Bucket=self.name)
            for one in uploads.get("Uploads", ()):
                await client.abort_multipart_upload(
                    Bucket=self.name, Key=one["Key"], UploadId=one["UploadId"]
                )
            await client.delete_bucket(Bucket=self.name)


@dataclass(frozen=True)
class Container:
    """A container of one test's own, and that of its segments; the store makes them."""

    server: Swift
    name: str = field(default_factory=lambda: _unique("images"))
    user: str = "test:tester"
    key: str = "testing"
    auth_url: str | None = None
    kind: ClassVar[str] = "swift"

    def options(self, store: str, **more: str) -> dict[str, str]:
        """As Bucket.options."""
        options = {
            "swift_store_auth_version": "1",
            "swift_store_auth_address": self.auth_url or self.server.auth_url,
            "swift_store_user": self.user,
            "swift_store_key": self.key,
            "default_swift_reference": store,
            "swift_store_container": self.name,
            "swift_store_create_container_on_put": "true",
            # Segments of 4 MiB from 8 MiB on.
            "swift_store_large_object_size": "8",
            "swift_store_large_object_chunk_size": "4",
            **more,
        }
        return {f"{store}__{name}".upper(): value for name, value in options.items()}

    async def everything(self) -> list[str]:
        """All objects of the account whose container has this name or begins with it."""
        return [name for names in (await self._listing()).values() for name in names]

    async def remove(self) -> None:
        """Remove its containers and all in them."""
        async with self._client() as http:
            for container, names in (await self._listing()).items():
                for name in names:
                    await http.delete(f"/{container}/{name}")
                await http.delete(f"/{container}")

    async def _listing(self) -> dict[str, list[str]]:
        async with self._client() as http:
            found = await http.get("", params={"format": "json", "prefix": self.name})
            containers = [one["name"] for one in found.raise_for_status().json()]
            listings = {name: await http.get(f"/{name}?format=json") for name in containers}
        return {
            name: [one["name"] for one in listing.json()]
            for name, listing in listings.items()
            if listing.status_code != 404  # it went meanwhile
        }

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[httpx.AsyncClient]:
        headers = {"X-Auth-User": self.user, "X-Auth-Key": self.key}
        async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
            granted = (await http.get(self.server.auth_url, headers=headers)).raise_for_status()
            http.headers["X-Auth-Token"] = granted.headers["x-auth-token"]
            http.base_url = granted.headers["x-storage-url"]
            yield http
