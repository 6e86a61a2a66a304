"""All that a route may ask for: the service's open resources, the caller, and the request's body.

Also the few steps that every route shares: finding an artifact that the caller may see, and
checking a rule on it.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, cast

import orjson
from diptych_common.database import Connection, Database
from diptych_common.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    TooLarge,
    UnsupportedMediaType,
)
from diptych_common.handover import Handover
from diptych_common.identity import Identity
from diptych_common.metrics import Metrics
from diptych_common.policy import Policy
from diptych_common.responses import json_response
from diptych_store.ingest import BlockPool
from diptych_store.protocol import Store
from diptych_store.registry import Stores
from fastapi import Depends, Request, Response

from diptych_artifacts.db import artifacts, blobs
from diptych_artifacts.db.artifacts import ArtifactRow
from diptych_artifacts.quotas import Quotas
from diptych_artifacts.settings import ArtifactsSettings, TypeOptions
from diptych_artifacts.types.registry import ArtifactType, Types
from diptych_artifacts.wire import artifact as wire
from diptych_artifacts.wire.blob import Place
from diptych_artifacts.wrapping_keys import WrappingKeys

# The largest JSON document a client may send, in bytes, and how many values it may hold: to check
# millions of them takes a process half a minute, in which it answers nobody.
MAX_DOCUMENT = 10 * 1024 * 1024
MAX_VALUES = 20_000

# Each takes up to 20 MiB, and time of the one interpreter; others wait with their bytes on disk.
_UNPACKED_AT_ONCE = 4

_JSON = "application/json; charset=UTF-8"


@dataclass(frozen=True, slots=True)
class Resources:
    """What the lifespan opened for this process."""

    settings: ArtifactsSettings
    type_options: dict[str, TypeOptions]
    types: Types
    db: Database
    policy: Policy
    stores: Stores
    blocks: BlockPool
    metrics: Metrics
    quotas: Quotas
    wrapping_keys: WrappingKeys
    handover: Handover
    unpacking: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_UNPACKED_AT_ONCE)
    )

    def options_of(self, type_name: str) -> TypeOptions:
        """What the settings say of a type."""
        return self.type_options.get(type_name, TypeOptions())

    def delays_deletion_of(self, type_name: str) -> bool:
        """Whether artifacts of a type stay for a while after they were deleted."""
        delayed = self.options_of(type_name).delayed_delete
        return self.settings.default.delayed_delete if delayed is None else delayed

    def store_of(self, type_name: str) -> Store:
        """The store that new blobs of a type go to."""
        name = self.options_of(type_name).default_store
        return self.stores.default if name is None else self.stores[name]


# Dependencies are coroutines, for FastAPI sends plain functions through a thread.
async def _resources(request: Request) -> Resources:
    return cast(Resources, request.state.resources)


async def _who(request: Request) -> Identity:
    return cast(Identity, request.state.who)


Res = Annotated[Resources, Depends(_resources)]
Who = Annotated[Identity, Depends(_who)]


def is_admin(res: Resources, who: Identity) -> bool:
    """Whether the caller is an administrator of the service, in whatever project."""
    return res.policy.allows("context_is_admin", who, {})


def known_type(type_name: str, res: Resources) -> ArtifactType:
    """The type, or NotFound if it is not enabled."""
    if type_name not in res.types:
        raise NotFound(f"There is no type {type_name[:255]}.")
    return res.types[type_name]


def writable_type(type_name: str, res: Resources) -> ArtifactType:
    """The type of artifacts that are to be changed: `all` is to read only.

    Raises NotFound, Forbidden.
    """
    known = known_type(type_name, res)
    if known is res.types.all:
        raise Forbidden("The type all is for reading: artifacts are changed as of their own type.")
    return known


def sees_all(res: Resources, who: Identity) -> bool:
    """Whether the caller may see artifacts of all projects by their ids."""
    return is_admin(res, who) or res.policy.allows("artifact:get_any_artifact", who, {})


async def visible_artifact(
    connection: Connection,
    type_name: str,
    artifact_id: str,
    res: Resources,
    who: Identity,
    *,
    lock: bool = False,
    sees_any: bool = False,
) -> ArtifactRow:
    """The artifact, or NotFound if there is none of that type that the caller may see.

    With `lock` it is locked until the end of the transaction. With `sees_any` a rule has let the
    caller see those of all projects already. Of the type `all` are all.
    """
    known = known_type(type_name, res)
    row = await artifacts.get(
        connection,
        artifact_id,
        type_name=None if known is res.types.all else type_name,
        project_id=who.project_id,
        sees_all=sees_any or sees_all(res, who),
        lock=lock,
    )
    if row is None:
        raise not_found(artifact_id)
    return row


async def require_links(
    connection: Connection, artifact_ids: Collection[str], res: Resources, who: Identity
) -> None:
    """Raise BadRequest unless the caller sees all artifacts that links are to name.

    What links name on the web is never asked for.
    """
    if not artifact_ids:
        return
    seen = await artifacts.visible(
        connection, artifact_ids, project_id=who.project_id, sees_all=sees_all(res, who)
    )
    for missing in sorted({*artifact_ids} - seen)[:1]:
        raise BadRequest(f"A link names an artifact that does not exist: {missing}.")


def not_found(artifact_id: str) -> NotFound:
    """The one answer for an artifact that does not exist or must not be known to exist."""
    return NotFound(f"There is no artifact {artifact_id[:255]}.")


def target(row: ArtifactRow) -> dict[str, object]:
    """What policy rules may ask about an artifact."""
    return {
        **row["fields"],
        "id": row["id"],
        "name": row["name"],
        "type_name": row["type_name"],
        "version": row["version"],
        "status": row["status"],
        "visibility": row["visibility"],
        "owner": row["owner"],
        "project_id": row["owner"],
        "description": row["description"],
        "tags": row["tags"],
    }


def require(res: Resources, rule: str, who: Identity, row: ArtifactRow) -> None:
    """Check a rule on an artifact that the caller sees. Raises Forbidden."""
    res.policy.require(rule, who, target(row))


def project_of(who: Identity) -> str:
    """The caller's project. Raises Forbidden for callers without one: they only read."""
    if who.project_id is None:
        raise Forbidden("This needs a token of a project.")
    return who.project_id


def require_owner(res: Resources, who: Identity, row: ArtifactRow) -> None:
    """Raise Forbidden unless the caller may change artifacts of the owner at all."""
    if who.is_anonymous or (row["owner"] != who.project_id and not is_admin(res, who)):
        raise Forbidden(f"Artifact {row['id']} belongs to another project.")


def require_changeable(row: ArtifactRow, place: Place) -> None:
    """Raise Forbidden unless a client may change the blob in the artifact's status."""
    if row["status"] not in ("drafted", "active"):
        raise Forbidden(f"Artifact {row['id']} is {row['status']}.")
    if place.field.system:
        raise Forbidden(f"{place.name} is set by the service.")
    if row["status"] == "active" and not place.field.mutable:
        raise Forbidden(f"{place.name} cannot be changed in an active artifact.")


def require_free_key(place: Place, others: int) -> None:
    """Raise BadRequest where a folder has as many other keys as it takes."""
    if place.field.is_folder and others >= place.field.max_items:
        raise BadRequest(f"{place.name} takes {place.field.max_items} keys.")


async def without_uploads(
    connection: Connection, row: ArtifactRow, *, may_end: bool
) -> ArtifactRow:
    """An artifact that is locked, none of whose blobs is being saved.

    Uploads that are under way are ended with `may_end`, and else Conflict is raised: an owner who
    uploads without end must not keep an administrator from acting.
    """
    if not row["saving"]:
        return row
    if not may_end:
        raise Conflict(f"Data of artifact {row['id']} is being uploaded.")
    return await blobs.end_uploads(connection, row)


def taken(name: str, version: str) -> Conflict:
    """The answer where the name and version of an artifact are another one's."""
    return Conflict(f"There is an artifact {name} of version {version} already.")


def document(row: ArtifactRow, res: Resources, *, via_all: bool = False) -> dict[str, object]:
    """The artifact as clients see it; `via_all`: as the type `all` shows it."""
    return wire.document(row, res.types, via_all=via_all)


def answer(body: object, *, status: int = 200) -> Response:
    """An answer with a JSON document, of the content type that Glare's have."""
    return json_response(body, status=status, media_type=_JSON)


def has_body(request: Request) -> bool:
    """Whether the request announces a body."""
    if "transfer-encoding" in request.headers:
        return True
    length = request.headers.get("content-length", "0")
    return length.isdecimal() and int(length) > 0


async def refuse_body(request: Request) -> None:
    """Answer 400 to a body where the API has none; a route's dependency."""
    if has_body(request):
        raise BadRequest("A request of this kind has no body.")


NO_BODY = Depends(refuse_body)


async def json_body(request: Request, *, content_type: str = "application/json") -> object:
    """The request's JSON document, which is an object or an array.

    Raises BadRequest if there is none or it is not JSON, UnsupportedMediaType if it comes as
    another type than `content_type`, TooLarge beyond MAX_DOCUMENT and MAX_VALUES.
    """
    given = request.headers.get("content-type")
    if given is None:
        raise BadRequest(f"The request needs the header Content-Type: {content_type}.")
    if given.partition(";")[0].strip().lower() != content_type:
        raise UnsupportedMediaType(f"The content type must be {content_type}.")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_DOCUMENT:
            raise TooLarge(f"The document is larger than {MAX_DOCUMENT} bytes.")
    try:
        document = cast(object, orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not valid JSON: {error}") from error
    if not isinstance(document, dict | list):
        raise BadRequest("The body must be an object or an array.")
    if _has_too_many_values(cast(object, document)):
        raise TooLarge(f"The document holds more than {MAX_VALUES} values.")
    return cast(object, document)


def _has_too_many_values(document: object) -> bool:
    values = 0
    unseen = [document]
    while unseen and values <= MAX_VALUES:
        value = unseen.pop()
        if isinstance(value, dict):
            value = list(cast("dict[str, object]", value).values())
        if isinstance(value, list):
            within = cast("list[object]", value)
            values += len(within)
            unseen += within
    return values > MAX_VALUES
