"""Resource types, and the associations of namespaces with them."""

from diptych_common.errors import NotFound
from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response

from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.metadefs import access
from diptych_images.api.resources import NO_BODY, Res, Who, json_body
from diptych_images.db.metadefs import entries, resource_types
from diptych_images.notifications import emit_metadefs
from diptych_images.wire import metadef as wire

router = APIRouter(prefix="/v2/metadefs", responses=ANY_ERROR)

_OF_NAMESPACE = "/namespaces/{namespace}/resource_types"


@router.get("/resource_types", dependencies=[NO_BODY])
async def list_(res: Res, who: Who) -> Response:
    """Every resource type that some namespace was ever for."""
    res.policy.require("list_metadef_resource_types", who, {"project_id": who.project_id})
    async with res.db.read() as connection:
        rows = await resource_types.everything(connection)
    return json_response(wire.resource_types_document(rows))


@router.get(_OF_NAMESPACE, dependencies=[NO_BODY])
async def of_namespace(namespace: str, res: Res, who: Who) -> Response:
    """The resource types that a namespace is for."""
    async with res.db.read() as connection:
        row = await access.visible(connection, namespace, res, who, "resource_type_associations")
    access.require(res, "list_metadef_resource_types", who, row)
    may_get = res.policy.allows("get_metadef_resource_type", who, access.target(row))
    found = row["resource_type_associations"] if may_get else []
    return json_response(wire.associations_document(found))


@router.post(_OF_NAMESPACE, status_code=201, openapi_extra=wire.ASSOCIATION_CREATE)
async def associate(namespace: str, request: Request, res: Res, who: Who) -> Response:
    """Say that a namespace is for a resource type, which need not be known yet."""
    new = wire.association(await json_body(request))
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "add_metadef_resource_type_association", who, row)
        await resource_types.ensure(connection, [new["name"]])
        added = await entries.add(connection, "resource_type_associations", row["id"], [new])
        await emit_metadefs(connection, "create", row, "resource_type_associations", added)
    return json_response(wire.association_document(added[0]), status=201)


@router.delete(_OF_NAMESPACE + "/{name}", status_code=204, dependencies=[NO_BODY])
async def dissociate(namespace: str, name: str, res: Res, who: Who) -> Response:
    """Say that a namespace is not for a resource type any more."""
    kind = "resource_type_associations"
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "remove_metadef_resource_type_association", who, row)
        entry = await entries.remove(connection, kind, row["id"], name)
        if entry is None:
            raise NotFound(f"Namespace {namespace} is not for resource type {name}.")
        access.refuse_protected(row)
        await emit_metadefs(connection, "delete", row, kind, [entry])
    return Response(status_code=204)
