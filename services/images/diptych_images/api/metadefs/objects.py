"""/v2/metadefs/namespaces/{namespace}/objects: groups of properties."""

from diptych_common.errors import NotFound
from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response

from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.metadefs import access
from diptych_images.api.resources import NO_BODY, Res, Who, json_body
from diptych_images.db.metadefs import entries
from diptych_images.notifications import emit_metadefs, emit_namespace
from diptych_images.wire import listing, parameters
from diptych_images.wire import metadef as wire

router = APIRouter(prefix="/v2/metadefs/namespaces/{namespace}/objects", responses=ANY_ERROR)


@router.get("", openapi_extra=parameters.ENTRIES)
async def list_(namespace: str, request: Request, res: Res, who: Who) -> Response:
    """A page of the objects; all of them without a limit."""
    query = wire.entry_query(listing.items(request.scope["query_string"]), least=1)
    async with res.db.read() as connection:
        row = await access.visible(connection, namespace, res, who, "objects")
    access.require(res, "get_metadef_objects", who, row)
    may_get = res.policy.allows("get_metadef_object", who, access.target(row))
    page = wire.page_of(row["objects"], query) if may_get else []
    return json_response(wire.objects_document(row, page))


@router.post("", status_code=201, openapi_extra=wire.OBJECT_CREATE)
async def create(namespace: str, request: Request, res: Res, who: Who) -> Response:
    """Make an object."""
    new = wire.object_(await json_body(request))
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "add_metadef_object", who, row)
        (entry,) = await entries.add(connection, "objects", row["id"], [new])
        await emit_metadefs(connection, "create", row, "objects", [entry])
    return json_response(wire.object_document(row, entry), status=201)


@router.delete("", status_code=204, dependencies=[NO_BODY])
async def clear(namespace: str, res: Res, who: Who) -> Response:
    """Delete all objects of the namespace."""
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "delete_metadef_namespace", who, row)
        access.refuse_protected(row)
        await entries.clear(connection, "objects", row["id"])
        await emit_namespace(connection, "delete_objects", row)
    return Response(status_code=204)


@router.get("/{name}", dependencies=[NO_BODY])
async def show(namespace: str, name: str, res: Res, who: Who) -> Response:
    """One object."""
    async with res.db.read() as connection:
        row = await access.visible(connection, namespace, res, who, "objects")
    access.require(res, "get_metadef_object", who, row)
    entry = next((each for each in row["objects"] if each["name"] == name), None)
    if entry is None:
        raise _not_found(namespace, name)
    return json_response(wire.object_document(row, entry))


@router.put("/{name}", openapi_extra=wire.OBJECT_UPDATE)
async def update(namespace: str, name: str, request: Request, res: Res, who: Who) -> Response:
    """Replace an object, its name too."""
    new = wire.object_(await json_body(request))
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "modify_metadef_object", who, row)
        entry = await entries.update(connection, "objects", row["id"], name, new)
        if entry is None:
            raise _not_found(namespace, name)
        await emit_metadefs(connection, "update", row, "objects", [entry], old=name)
    return json_response(wire.object_document(row, entry))


@router.delete("/{name}", status_code=204, dependencies=[NO_BODY])
async def delete(namespace: str, name: str, res: Res, who: Who) -> Response:
    """Delete one object."""
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "delete_metadef_object", who, row)
        entry = await entries.remove(connection, "objects", row["id"], name)
        if entry is None:
            raise _not_found(namespace, name)
        access.refuse_protected(row)
        await emit_metadefs(connection, "delete", row, "objects", [entry])
    return Response(status_code=204)


def _not_found(namespace: str, name: str) -> NotFound:
    return NotFound(f"Namespace {namespace} has no object {name}.")
