"""/v2/metadefs/namespaces/{namespace}/properties: single properties."""

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

router = APIRouter(prefix="/v2/metadefs/namespaces/{namespace}/properties", responses=ANY_ERROR)


@router.get("", dependencies=[NO_BODY])
async def list_(namespace: str, res: Res, who: Who) -> Response:
    """All properties, by name."""
    async with res.db.read() as connection:
        row = await access.visible(connection, namespace, res, who, "properties")
    access.require(res, "get_metadef_properties", who, row)
    return json_response(wire.properties_document(row["properties"]))


@router.post("", status_code=201, openapi_extra=wire.PROPERTY_CREATE)
async def create(namespace: str, request: Request, res: Res, who: Who) -> Response:
    """Make a property."""
    new = wire.property_(await json_body(request))
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "add_metadef_property", who, row)
        (entry,) = await entries.add(connection, "properties", row["id"], [new])
        await emit_metadefs(connection, "create", row, "properties", [entry])
    return json_response(wire.property_document(entry), status=201)


@router.delete("", status_code=204, dependencies=[NO_BODY])
async def clear(namespace: str, res: Res, who: Who) -> Response:
    """Delete all properties of the namespace; those of its objects stay."""
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "delete_metadef_namespace", who, row)
        access.refuse_protected(row)
        await entries.clear(connection, "properties", row["id"])
        await emit_namespace(connection, "delete_properties", row)
    return Response(status_code=204)


@router.get("/{name}", dependencies=[NO_BODY], openapi_extra=parameters.RESOURCE_TYPE)
async def show(namespace: str, name: str, request: Request, res: Res, who: Who) -> Response:
    """One property; with `resource_type`, its name is asked with that type's prefix."""
    items = listing.items(request.scope["query_string"])
    resource_type = wire.resource_type_of(items)
    async with res.db.read() as connection:
        row = await access.visible(
            connection, namespace, res, who, "properties", "resource_type_associations"
        )
    access.require(res, "get_metadef_property", who, row)
    bare = name
    if resource_type is not None:
        access.require(res, "get_metadef_resource_type", who, row)
        prefix = wire.prefix_of(row, resource_type)
        if not prefix or not name.startswith(prefix):
            raise _not_found(namespace, name)
        bare = name.removeprefix(prefix)
    entry = next((each for each in row["properties"] if each["name"] == bare), None)
    if entry is None:
        raise _not_found(namespace, name)
    return json_response(wire.property_document(entry))


@router.put("/{name}", openapi_extra=wire.PROPERTY_UPDATE)
async def update(namespace: str, name: str, request: Request, res: Res, who: Who) -> Response:
    """Replace a property, its name too."""
    new = wire.property_(await json_body(request))
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "modify_metadef_property", who, row)
        entry = await entries.update(connection, "properties", row["id"], name, new)
        if entry is None:
            raise _not_found(namespace, name)
        await emit_metadefs(connection, "update", row, "properties", [entry], old=name)
    return json_response(wire.property_document(entry))


@router.delete("/{name}", status_code=204, dependencies=[NO_BODY])
async def delete(namespace: str, name: str, res: Res, who: Who) -> Response:
    """Delete one property."""
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "remove_metadef_property", who, row)
        entry = await entries.remove(connection, "properties", row["id"], name)
        if entry is None:
            raise _not_found(namespace, name)
        access.refuse_protected(row)
        await emit_metadefs(connection, "delete", row, "properties", [entry])
    return Response(status_code=204)


def _not_found(namespace: str, name: str) -> NotFound:
    return NotFound(f"Namespace {namespace} has no property {name}.")
