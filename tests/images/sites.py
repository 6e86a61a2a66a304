"""The images service with several stores and one for staging, and what is left of its imports."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from diptych_images.imports.equipment import Equipment

from tests import databases
from tests.images.service import ADMIN, ALICE, OCTETS, client, configuration, opened
from tests.images.workers import working
from tests.waiting import until

STORES = ("fast", "cheap", "third")
DATA = b"some bytes of an image " * 10_000

# What remains to be done, by whomever: nothing when an import is over.
LEFT = """
    SELECT 'job ' || kind FROM jobs
        WHERE period IS NULL AND state IN ('waiting', 'running')
    UNION ALL SELECT 'location in ' || store || ' ' || status FROM image_locations
        WHERE status <> 'active' OR attempt IS NOT NULL OR staged IS NOT NULL
    UNION ALL SELECT 'lock of ' || import_task FROM images WHERE import_task IS NOT NULL
    UNION ALL SELECT 'task ' || status FROM tasks WHERE status IN ('pending', 'processing')
"""


@dataclass
class Site:
    """The service with three stores and one for staging, without a worker but for `work`."""

    database: str
    folder: Path
    environ: dict[str, str]
    api: httpx.AsyncClient

    async def make(self, **fields: Any) -> str:
        body = {"name": "i", "disk_format": "raw", "container_format": "bare", **fields}
        created = await self.api.post("/v2/images", json=body, headers=ALICE)
        assert created.status_code == 201, created.text
        return created.json()["id"]

    async def staged(self, data: bytes = DATA, **fields: Any) -> str:
        image = await self.make(**fields)
        answer = await self.api.put(
            f"/v2/images/{image}/stage", content=data, headers={**ALICE, **OCTETS}
        )
        assert answer.status_code == 204, answer.text
        return image

    async def active(self, data: bytes = DATA, *, store: str = "fast") -> str:
        image = await self.make()
        answer = await self.api.put(
            f"/v2/images/{image}/file",
            content=data,
            headers={**ALICE, **OCTETS, "X-Image-Meta-Store": store},
        )
        assert answer.status_code == 204, answer.text
        return image

    async def ask(
        self, image: str, method: str, *, headers: dict[str, str] = ALICE, **body: Any
    ) -> None:
        """Ask for an import; what is of the method itself is in `method_…`."""
        of_method = {
            name.removeprefix("method_"): body.pop(name)
            for name in list(body)
            if name.startswith("method_")
        }
        answer = await self.api.post(
            f"/v2/images/{image}/import",
            json={"method": {"name": method, **of_method}, **body},
            headers=headers,
        )
        assert answer.status_code == 202, answer.text

    async def show(self, image: str, headers: dict[str, str] = ALICE) -> dict[str, Any]:
        return (await self.api.get(f"/v2/images/{image}", headers=headers)).json()

    async def task(self, image: str) -> dict[str, Any]:
        (task,) = (await self.api.get(f"/v2/images/{image}/tasks", headers=ADMIN)).json()["tasks"]
        return task

    def files(self, *stores: str) -> list[str]:
        """All that is in the folders of stores, attempts too."""
        return [
            str(path.relative_to(self.folder))
            for store in stores or (*STORES, "staging")
            for path in sorted((self.folder / store).rglob("*"))
            if path.is_file() and path.name != ".mark"
        ]

    async def left(self) -> list[str]:
        async with databases.connection(self.database) as server:
            return [row[0] for row in await server.fetch(LEFT)]

    async def events(self) -> list[str]:
        async with databases.connection(self.database) as server:
            rows = await server.fetch("SELECT event_type FROM outbox ORDER BY id")
            return [row[0] for row in rows]

    async def hurry(self) -> None:
        """Let no job wait for its next try."""
        async with databases.connection(self.database) as server:
            await server.execute("UPDATE jobs SET run_after = now() WHERE state = 'waiting'")

    async def allow_attempts(self, count: int) -> None:
        """Let the import that was asked for be tried so often."""
        async with databases.connection(self.database) as server:
            await server.execute("UPDATE jobs SET max_attempts = $1 WHERE kind = 'import'", count)

    async def is_over(self) -> bool:
        """Whether nothing remains to be done."""
        await self.hurry()
        return not await self.left()

    async def work(self, **options: str) -> set[tuple[str, str]]:
        """Have a worker do all that there is to do; the stores that it called, and what for."""
        environ = self.environ | {f"DIPTYCH_IMAGES__{k}": v for k, v in options.items()}

        async with working(environ) as equipment:
            await until(self.is_over)
            return calls(equipment)


def calls(equipment: Equipment) -> set[tuple[str, str]]:
    """The stores that were called, and what for."""
    return {
        (sample.labels["store"], sample.labels["operation"])
        for metric in equipment.metrics.store_calls.collect()
        for sample in metric.samples
        if "operation" in sample.labels
    }


Make = Callable[..., Awaitable[Site]]


@asynccontextmanager
async def open_site(database: str, folder: Path, **options: str) -> AsyncGenerator[Site]:
    """The service with these settings besides."""
    for name in (*STORES, "staging"):
        (folder / name).mkdir(exist_ok=True)
    environ = configuration(
        database,
        folder,
        **{
            "DEFAULT__ENABLED_BACKENDS": "fast:file, cheap:file, third:file",
            "THIRD__FILESYSTEM_STORE_DATADIR": str(folder / "third"),
            "OS_GLANCE_STAGING_STORE__FILESYSTEM_STORE_DATADIR": str(folder / "staging"),
            "OUTBOUND__ALLOWED_NETWORKS": "127.0.0.0/8",
            "OUTBOUND__ALLOWED_PORTS": "",
            "IMPORT_FILTERING_OPTS__ALLOWED_PORTS": "[]",
            "JOBS__LEASE": "3",
            "JOBS__POLL_INTERVAL": "0.2",
            "TASK__WORK_DIR": str(folder / "scratch"),
            **options,
        },
    )
    async with opened(environ) as app, client(app) as api:
        yield Site(database, folder, environ, api)
