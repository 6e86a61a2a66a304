"""The images service for these tables: its stores, a site on the web, and what is in it."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import uuid4

import httpx

from tests import databases, web
from tests.images.rbac.asking import CONTENT, Request, send
from tests.images.rbac.callers import CALLERS, OWNER
from tests.images.rbac.stock import Stock
from tests.images.service import ADMIN, client, configuration, opened

_STORES: Final = ("FAST", "CHEAP", "THIRD")


@dataclass(frozen=True)
class Place:
    """The open service, which knows callers without a token, too; `stock` makes what is in it."""

    api: httpx.AsyncClient
    stock: Stock
    site: str
    environ: dict[str, str]

    async def ask(self, request: Request, caller: str, **names: str) -> httpx.Response:
        """Send the request in the name of the caller."""
        return await send(
            *(self.api, request, CALLERS[caller].headers),
            **{"web": self.site, "new": f"new-{uuid4().hex[:8]}", **names},
        )

    async def namespace(self, visibility: str) -> str:
        """Make a namespace of the project alpha with one of each kind in it; its name."""
        name = f"namespace-{uuid4().hex[:8]}"
        body = {
            "namespace": name,
            "owner": OWNER,
            "visibility": "public" if visibility == "guarded" else visibility,
            "protected": visibility == "guarded",
            **CONTENT,
        }
        made = await self.stock.api.post("/v2/metadefs/namespaces", json=body, headers=ADMIN)
        made.raise_for_status()
        return name

    async def namespaces(self) -> object:
        """All namespaces with all that they hold, to be compared."""
        page = await self.stock.api.get("/v2/metadefs/namespaces?limit=1000", headers=ADMIN)
        paths = [one["self"] for one in page.json()["namespaces"]]
        return [(await self.stock.api.get(path, headers=ADMIN)).json() for path in paths]

    async def count(self) -> list[object]:
        """How many images, tasks, jobs and namespaces there are."""
        return [
            await self.stock.server.fetchval(f'SELECT count(*) FROM "{table}"')
            for table in ("images", "tasks", "jobs", "metadef_namespaces")
        ]

    @asynccontextmanager
    async def under(self, rules: Mapping[str, str]) -> AsyncGenerator["Place"]:
        """The same place behind another service, whose policy file has these rules."""
        file = self.stock.folder / "policy.yaml"
        file.write_text(json.dumps(rules))
        options = {"DIPTYCH_IMAGES__OSLO_POLICY__POLICY_FILE": str(file)}
        async with opened({**self.environ, **options}) as app, client(app) as api:
            yield replace(self, api=api)


@asynccontextmanager
async def open_place(database: str, folder: Path, **options: str) -> AsyncGenerator[Place]:
    """The service with these settings besides."""
    for name in ("third", "staging"):
        (folder / name).mkdir(exist_ok=True)
    async with web.serving(web.answer(b"bytes")) as site:
        environ = configuration(
            database,
            folder,
            **{
                "DEFAULT__ALLOW_ANONYMOUS_ACCESS": "true",
                "DEFAULT__IMAGE_CACHE_DIR": str(folder / "cache"),
                "DEFAULT__ENABLED_BACKENDS": "fast:file, cheap:file, third:file, web:http",
                "THIRD__FILESYSTEM_STORE_DATADIR": str(folder / "third"),
                "OS_GLANCE_STAGING_STORE__FILESYSTEM_STORE_DATADIR": str(folder / "staging"),
                "OUTBOUND__ALLOWED_HOSTS": f"127.0.0.1:{site.port}",
                "IMPORT_FILTERING_OPTS__ALLOWED_PORTS": "[]",
                # A test may open another service with other directories beside this one.
                **{f"{name}__FILESYSTEM_STORE_SHARED": "false" for name in _STORES},
                **options,
            },
        )
        async with (
            opened(environ) as app,
            client(app) as api,
            databases.connection(database) as server,
        ):
            yield Place(api, Stock(api, server, folder), f"{site.url}/image", environ)
