"""Images in each state, for requests to find; many at once.

One of each status is brought about by the API, or by SQL where the API cannot hold the state; the
others are copies of its rows.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import httpx

from tests.images.rbac.callers import MEMBERS
from tests.images.service import ALICE, OCTETS

STATUSES: Final = (
    *("queued", "saving", "uploading", "importing", "active", "deactivated"),
    *("killed", "pending_delete", "deleted"),
)

# How each state is reached from a queued image: method, path and what is sent.
_Step = tuple[str, str, dict[str, Any]]
_STAGE: Final[_Step] = ("PUT", "stage", {"content": b"bytes", "headers": {**ALICE, **OCTETS}})
_UPLOAD: Final[_Step] = ("PUT", "file", {"content": b"bytes", "headers": {**ALICE, **OCTETS}})
_IMPORT: Final[_Step] = (
    "POST",
    "import",
    {"json": {"method": {"name": "glance-direct"}}, "headers": ALICE},
)
_DEACTIVATE: Final[_Step] = ("POST", "actions/deactivate", {"headers": ALICE})
_DELETE: Final[_Step] = ("DELETE", "", {"headers": ALICE})

_REQUESTS: Final[Mapping[str, Sequence[_Step]]] = {
    "uploading": [_STAGE],
    "importing": [_STAGE, _IMPORT],
    "active": [_UPLOAD],
    "deactivated": [_UPLOAD, _DEACTIVATE],
    "pending_delete": [_UPLOAD],
    "deleted": [_UPLOAD, _DELETE],
}

# What the API holds for moments only, what needs other settings, and what no release sets any more.
_STATEMENTS: Final[Mapping[str, Sequence[str]]] = {
    "saving": [
        "UPDATE images SET status = 'saving' WHERE id = $1",
        "INSERT INTO image_locations (image_id, store, status, attempt, lease_until)"
        " VALUES ($1, 'fast', 'pending', gen_random_uuid(), now() + interval '1 hour')",
    ],
    "killed": ["UPDATE images SET status = 'killed' WHERE id = $1"],
    "pending_delete": [
        "UPDATE images SET status = 'pending_delete', deleted_at = now() WHERE id = $1"
    ],
}

# Without a worker nobody copies.
_COPY: Final = """
    INSERT INTO image_locations (image_id, store, url, metadata, status)
    SELECT image_id, 'cheap', replace(url, '/fast/', '/cheap/'), '{"store": "cheap"}', status
    FROM image_locations WHERE image_id = $1 AND store = 'fast' AND url IS NOT NULL
        AND status = 'active'
"""

_CLONES: Final = (
    """
    INSERT INTO images
    SELECT (jsonb_populate_record(found, jsonb_build_object(
        'id', made.id, 'visibility', made.visibility, 'os_hidden', made.hidden))).*
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::boolean[])
        AS made (id, template, visibility, hidden)
    JOIN images AS found ON found.id = made.template
    """,
    """
    INSERT INTO image_locations OVERRIDING SYSTEM VALUE
    SELECT (jsonb_populate_record(found, jsonb_build_object(
        'id', nextval(pg_get_serial_sequence('image_locations', 'id')),
        'image_id', made.id,
        'attempt', CASE WHEN found.attempt IS NOT NULL THEN gen_random_uuid() END))).*
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::boolean[])
        AS made (id, template, visibility, hidden)
    JOIN image_locations AS found ON found.image_id = made.template
    """,
)

# All of an image that a request could have changed.
_STATE: Final = """
    SELECT images.id, images::text,
        (SELECT array_agg(one::text ORDER BY one.member) FROM image_members AS one
            WHERE one.image_id = images.id),
        (SELECT array_agg(one::text ORDER BY one.id) FROM image_locations AS one
            WHERE one.image_id = images.id)
    FROM images WHERE images.id = ANY ($1::uuid[])
"""


@dataclass(frozen=True)
class Found:
    """The state in which an image is found."""

    status: str
    visibility: str
    hidden: bool = False


@dataclass(frozen=True)
class Stock:
    """Where images are made; `server` is connected to the database, `folder` is the stores'.

    `templates` has what was made by the API: clear it when the database is emptied.
    """

    api: httpx.AsyncClient
    server: asyncpg.Connection
    folder: Path
    templates: dict[str, str] = field(default_factory=dict[str, str])

    async def images(self, wanted: Sequence[Found]) -> list[str]:
        """Make these images of the project alpha, offered to all of MEMBERS; their ids."""
        for status in {found.status for found in wanted} - self.templates.keys():
            self.templates[status] = await self._template(status)
        ids = [str(uuid4()) for _ in wanted]
        clones = (
            ids,
            [self.templates[found.status] for found in wanted],
            [found.visibility for found in wanted],
            [found.hidden for found in wanted],
        )
        for statement in _CLONES:
            await self.server.execute(statement, *clones)
        await self.server.executemany(
            "INSERT INTO image_members (image_id, member, status) VALUES ($1, $2, $3)",
            [(image, member, said) for image in ids for member, said in MEMBERS.items()],
        )
        return ids

    async def states(self, ids: Iterable[str]) -> dict[str, object]:
        """What the images are now, to be compared with what they are later."""
        rows = await self.server.fetch(_STATE, list(ids))
        return {str(row[0]): tuple(row) for row in rows}

    async def _template(self, status: str) -> str:
        body = {"name": "web", "disk_format": "raw", "container_format": "bare", "tags": ["old"]}
        created = await self.api.post("/v2/images", json=body, headers=ALICE)
        created.raise_for_status()
        image = created.json()["id"]
        for method, path, arguments in _REQUESTS.get(status, ()):
            url = f"/v2/images/{image}/{path}".rstrip("/")
            (await self.api.request(method, url, **arguments)).raise_for_status()
        if (self.folder / "fast" / image).exists():
            shutil.copy(self.folder / "fast" / image, self.folder / "cheap" / image)
            await self.server.execute(_COPY, image)
        for statement in _STATEMENTS.get(status, ()):
            await self.server.execute(statement, image)
        return image
