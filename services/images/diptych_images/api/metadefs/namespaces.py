"""/v2/metadefs/namespaces: namespaces, alone or with what is in them."""

from urllib.parse import quote

from diptych_common.errors import NotFound
from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response

from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.metadefs import access
from diptych_images.api.resources import (
    NO_BODY,
    Res,
    Who,
    is_admin,
    json_body,
    refuse_anonymous,
)
from diptych_images.db.metadefs import entries, namespaces, resource_types
from diptych_images.db.metadefs.namespaces import Kind
from diptych_images.notifications import emit_metadefs, emit_namespace
from diptych_images.wire import listing, parameters
from diptych_images.wire import metadef as wire

router = APIRouter(prefix="/v2/metadefs/namespaces", responses=ANY_ERROR)

# What a namespace is created with needs the rules of what is nested in it.
_NESTED: dict[Kind, str] = {
    "resource_type_associations": "add_metadef_resource_type_association",
    "objects": "add_metadef_object",
    "properties": "add_metadef_property",
    "tags": "add_metadef_tag",
}


@router.get("", name="list_namespaces", openapi_extra=parameters.NAMESPACES)
async def list_(request: Request, res: Res, who: Who) -> Response:
    """A page of the namespaces that the caller sees."""
    for rule in ("get_metadef_namespaces", "list_metadef_resource_types"):
        res.policy.require(rule, who, {"project_id": who.project_id})
    items = listing.items(request.scope["query_string"])
    query = wire.query(
        items,
        default_limit=res.settings.default.limit_param_default,
        max_limit=res.settings.default.api_limit_max,
    )
    async with res.db.read() as connection:
        page = await namespaces.page(
            connection, query, project_id=who.project_id, is_admin=is_admin(res, who)
        )
    if not page.rows and not page.marker_found:
        raise NotFound(f"There is no namespace {query.marker} to begin after.")
    shown = [
        row
        for row in page.rows
        if res.policy.allows("get_metadef_namespace", who, access.target(row))
    ]
    is_full = shown and len(page.rows) == query.limit
    return json_response(
        wire.page(shown, items, next_marker=shown[-1]["namespace"] if is_full else None)
    )


@router.post("", status_code=201, openapi_extra=wire.NAMESPACE_CREATE)
async def create(request: Request, res: Res, who: Who) -> Response:
    """Make a namespace with what is nested in it: all of it or nothing."""
    refuse_anonymous(who)
    new = wire.namespace(await json_body(request), owner=who.project_id)
    nested = [rule for kind, rule in _NESTED.items() if new.held[kind]]
    for rule in ("add_metadef_namespace", *nested):
        res.policy.require(rule, who, {"project_id": who.project_id})
    async with res.db.write() as connection:
        row = await namespaces.insert(connection, new.values)
        await emit_namespace(connection, "create", row)
        for kind in namespaces.ALL:
            if not new.held[kind]:
                continue
            if kind == "resource_type_associations":
                await resource_types.ensure(connection, (each["name"] for each in new.held[kind]))
            row[kind] = await entries.add(connection, kind, row["id"], new.held[kind])
            await emit_metadefs(connection, "create", row, kind, row[kind])
    document = wire.document(row)
    return json_response(document, status=201, headers={"Location": _location(request, row)})


@router.get("/{namespace}", dependencies=[NO_BODY], openapi_extra=parameters.RESOURCE_TYPE)
async def show(namespace: str, request: Request, res: Res, who: Who) -> Response:
    """A namespace with all that is in it."""
    items = listing.items(request.scope["query_string"])
    resource_type = wire.resource_type_of(items)
    async with res.db.read() as connection:
        row = await access.visible(connection, namespace, res, who, *namespaces.ALL)
    for rule in (
        "get_metadef_namespace",
        "list_metadef_resource_types",
        "get_metadef_objects",
        "get_metadef_properties",
        "get_metadef_tags",
    ):
        access.require(res, rule, who, row)
    return json_response(wire.document(row, resource_type=resource_type))


@router.put("/{namespace}", openapi_extra=wire.NAMESPACE_UPDATE)
async def update(namespace: str, request: Request, res: Res, who: Who) -> Response:
    """Replace the namespace itself, its name too; what is in it stays."""
    new = wire.namespace(await json_body(request), owner=who.project_id)
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "modify_metadef_namespace", who, row)
        row = await namespaces.update(connection, row["id"], new.values)
        await emit_namespace(connection, "update", row, old=namespace)
    return json_response(wire.document(row))


@router.delete("/{namespace}", status_code=204, dependencies=[NO_BODY])
async def delete(namespace: str, res: Res, who: Who) -> Response:
    """Delete a namespace with all that is in it."""
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "delete_metadef_namespace", who, row)
        access.refuse_protected(row)
        await namespaces.remove(connection, row["id"])
        await emit_namespace(connection, "delete", row)
    return Response(status_code=204)


def _location(request: Request, row: namespaces.NamespaceRow) -> str:
    return f"{request.url_for('list_namespaces')}/{quote(row['namespace'], safe=':')}"
