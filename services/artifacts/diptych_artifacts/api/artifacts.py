"""/artifacts/{type}: list, create, show, delete."""

from fastapi import APIRouter, Request, Response

from diptych_artifacts import deletion
from diptych_artifacts.api.errors import ANY_ERROR
from diptych_artifacts.api.resources import (
    NO_BODY,
    Res,
    Who,
    answer,
    document,
    is_admin,
    json_body,
    known_type,
    not_found,
    project_of,
    require,
    require_links,
    require_owner,
    taken,
    visible_artifact,
    without_uploads,
    writable_type,
)
from diptych_artifacts.db import artifact_list, artifacts
from diptych_artifacts.db.artifacts import Duplicate
from diptych_artifacts.notifications import emit
from diptych_artifacts.types import hooks
from diptych_artifacts.types.hooks import Call
from diptych_artifacts.wire import artifact as wire
from diptych_artifacts.wire import listing

router = APIRouter(prefix="/artifacts/{type_name}", responses=ANY_ERROR)


@router.get("", dependencies=[NO_BODY], openapi_extra=listing.OPENAPI)
async def list_(type_name: str, request: Request, res: Res, who: Who) -> Response:
    """A page of the artifacts of a type, or of all types."""
    res.policy.require("artifact:list", who, {})
    known = known_type(type_name, res)
    asked = listing.items(request.scope["query_string"])
    query = listing.parse(
        asked,
        known,
        default_limit=res.settings.default.default_api_limit,
        max_limit=res.settings.default.max_api_limit,
    )
    sees_all = is_admin(res, who) or res.policy.allows("artifact:list_all_artifacts", who, {})
    async with res.db.read() as connection:
        page = await artifact_list.page(
            connection, query, project_id=who.project_id, sees_all=sees_all
        )
    if not page.marker_found:
        raise not_found(query.marker or "")
    documents = [document(row, res, via_all=known is res.types.all) for row in page.rows]
    return answer(
        listing.document(documents, asked, type_name=type_name, total=page.total, limit=query.limit)
    )


@router.post("", status_code=201, openapi_extra=wire.CREATE_OPENAPI)
async def create(type_name: str, request: Request, res: Res, who: Who) -> Response:
    """A new artifact without blobs, drafted and private."""
    body = await json_body(request)
    owner = project_of(who)
    values = wire.require_plausible(body)
    res.policy.require("artifact:create", who, values)
    known = writable_type(type_name, res)
    given = wire.parse_create(values, known)
    async with res.db.write() as connection:
        await require_links(connection, wire.linked_artifacts(given, known), res, who)
        call = Call(who, type_name, wire.planned(given, known))
        given |= wire.of_hook(await hooks.changes(known.hooks.pre_create, call), known)
        new = wire.content(given, wire.stored(given))
        wire.require_size(new, most=res.settings.default.max_artifact_size)
        try:
            row = await artifacts.insert(
                connection,
                new,
                type_name=type_name,
                display_type_name=known.display_name,
                owner=owner,
            )
        except Duplicate as error:
            raise taken(new.name, new.version) from error
        # After it: of a duplicate beyond the quota Glare says that it is a duplicate.
        await res.quotas.require_number(connection, owner, type_name)
        await emit(connection, "create", row)
    shown = document(row, res)
    await hooks.notify(known.hooks.post_create, Call(who, type_name, shown))
    return answer(shown, status=201)


@router.get("/{artifact_id}", dependencies=[NO_BODY], openapi_extra=wire.SHOW_OPENAPI)
async def show(type_name: str, artifact_id: str, res: Res, who: Who) -> Response:
    """One artifact."""
    res.policy.require("artifact:get", who, {})
    async with res.db.read() as connection:
        row = await visible_artifact(connection, type_name, artifact_id, res, who)
    return answer(document(row, res, via_all=type_name == res.types.all.name))


@router.delete("/{artifact_id}", status_code=204, dependencies=[NO_BODY])
async def delete(type_name: str, artifact_id: str, res: Res, who: Who) -> Response:
    """Delete an artifact and its blobs, or have that done later; again: have it done now."""
    async with res.db.write() as connection:
        row = await visible_artifact(connection, type_name, artifact_id, res, who, lock=True)
        known = writable_type(type_name, res)
        require_owner(res, who, row)
        require(res, "artifact:delete", who, row)
        row = await without_uploads(connection, row, may_end=is_admin(res, who))
        call = Call(who, type_name, document(row, res))
        await hooks.notify(known.hooks.pre_delete, call)
        await deletion.delete(connection, row, delayed=res.delays_deletion_of(type_name))
    await hooks.notify(known.hooks.post_delete, call)
    # Glare's own tests look at the type of every answer, be there a body or not.
    return Response(status_code=204, media_type="text/html")
