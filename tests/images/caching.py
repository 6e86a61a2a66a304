"""Nodes with a cache, and a place on the web that counts what is fetched from it."""

import asyncio
import fcntl
import hashlib
import random
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from tests import databases, web
from tests.images.service import configuration

BLOCK = 1 << 16


def data(blocks: float, *, seed: int = 0) -> bytes:
    """That many blocks of bytes that look like nothing else."""
    return random.Random(seed).randbytes(int(blocks * BLOCK))


@dataclass
class Origin:
    """Where images come from; `allowed` bytes of each may be had until `let_go`."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    parts: list[tuple[str, int, int]] = field(default_factory=list)
    sent: int = 0
    allowed: int = 1 << 60
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def let_go(self) -> None:
        self.allowed = 1 << 60
        self.changed.set()

    async def answer(self, asked: web.Asked, writer: asyncio.StreamWriter) -> None:
        name = asked.target.strip("/")
        body = self.objects.get(name)
        if body is None:
            writer.write(web.head(404, content_length=0))
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("range", ""))
        start, end = 0, len(body)
        about: dict[str, object] = {"etag": f'"{hashlib.md5(body).hexdigest()}"'}
        if found is not None:
            start = int(found[1])
            end = min(int(found[2]) + 1, end) if found[2] else end
            about["content_range"] = f"bytes {start}-{end - 1}/{len(body)}"
        status = 200 if found is None else 206
        writer.write(web.head(status, content_length=end - start, **about))
        self.parts.append((name, start, end))
        for position in range(start, end, BLOCK // 4):
            if position >= self.allowed:
                await self.changed.wait()
            piece = body[position : min(position + BLOCK // 4, end)]
            writer.write(piece)
            self.sent += len(piece)
            await writer.drain()


@dataclass
class Node:
    """What tests with a cache need: `environ` is of a node whose cache is in `folder`."""

    database: str
    origin: Origin
    environ: dict[str, str]
    folder: Path

    async def image(self, content: bytes, *, told: bytes | None = None) -> str:
        """The path of an active image of Alice's at the origin; its digest is that of `told`."""
        image = str(uuid4())
        self.origin.objects[image] = content
        digested = content if told is None else told
        async with databases.connection(self.database) as server:
            await server.execute(
                "INSERT INTO images (id, status, owner, size, disk_format, container_format,"
                " checksum, os_hash_algo, os_hash_value, visibility)"
                " VALUES ($1, 'active', 'alpha', $2, 'raw', 'bare', $3, 'sha512', $4, 'shared')",
                image,
                len(content),
                hashlib.md5(digested).hexdigest(),
                hashlib.sha512(digested).hexdigest(),
            )
            await server.execute(
                "INSERT INTO image_locations (image_id, store, url, metadata, status)"
                " VALUES ($1, 'web', $2, '{}', 'active')",
                image,
                f"{self.origin.url}/{image}",
            )
        return f"/v2/images/{image}"

    def stored(self) -> int:
        """The bytes that the blocks in the cache take, none of them counted twice."""
        with (self.folder / "usage").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)  # or what goes and what comes would both be seen
            sizes = [
                path.stat().st_blocks * 512
                for path in self.folder.glob("images/*/*")
                if path.name.removesuffix(".part").isdigit()
            ]
        return sum(sizes)


@asynccontextmanager
async def a_node(database: str, folder: Path, **options: str) -> AsyncGenerator[Node]:
    """A node whose cache takes 32 blocks, if the options do not say else."""
    origin = Origin()
    async with web.serving(origin.answer) as server:
        origin.url = server.url
        cached = folder / "cache"
        environ = configuration(
            database,
            folder,
            DEFAULT__ENABLED_BACKENDS="fast:file, web:http",
            OUTBOUND__ALLOWED_HOSTS=f"127.0.0.1:{server.port}",
            **{
                "DEFAULT__IMAGE_CACHE_DIR": str(cached),
                "DEFAULT__IMAGE_CACHE_MAX_SIZE": str(32 * BLOCK),
                "DEFAULT__IMAGE_CACHE_BLOCK_SIZE": str(BLOCK),
                "DEFAULT__WORKER_SELF_REFERENCE_URL": "http://node-1.example:9292",
                **options,
            },
        )
        yield Node(database, origin, environ, cached)
        origin.let_go()
