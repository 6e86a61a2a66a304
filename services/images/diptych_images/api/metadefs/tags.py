"""/v2/metadefs/namespaces/{namespace}/tags: words that resources can be tagged with."""

from diptych_common.errors import NotFound
from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response
from oslo_utils import strutils

from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.metadefs import access
from diptych_images.api.resources import NO_BODY, Res, Who, json_body
from diptych_images.db.metadefs import entries
from diptych_images.notifications import emit_metadefs, emit_namespace
from diptych_images.wire import listing, parameters
from diptych_images.wire import metadef as wire

router = APIRouter(prefix="/v2/metadefs/namespaces/{namespace}/tags", responses=ANY_ERROR)


@router.get("", openapi_extra=parameters.ENTRIES)
async def list_(namespace: str, request: Request, res: Res, who: Who) -> Response:
    """A page of the tags; all of them without a limit."""
    query = wire.entry_query(listing.items(request.scope["query_string"]), least=0)
    async with res.db.read() as connection:
        row = await access.visible(connection, namespace, res, who, "tags")
    access.require(res, "get_metadef_tags", who, row)
    return json_response(wire.tags_document(wire.page_of(row["tags"], query)))


@router.post("", status_code=201, openapi_extra={**wire.TAGS_CREATE, **parameters.APPEND})
async def create_all(namespace: str, request: Request, res: Res, who: Who) -> Response:
    """Make several tags, in place of all that there are unless X-Openstack-Append is true."""
    new = wire.tags(await json_body(request))
    append = strutils.bool_from_string(request.headers.get("x-openstack-append", ""))
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "add_metadef_tags", who, row)
        # Nothing in place of what there is would be a deletion, which has a request of its own.
        if new and not append:
            await entries.clear(connection, "tags", row["id"])
        added = await entries.add(connection, "tags", row["id"], new)
        await emit_metadefs(connection, "create", row, "tags", added)
    return json_response(wire.tags_document(added), status=201)


@router.delete("", status_code=204, dependencies=[NO_BODY])
async def clear(namespace: str, res: Res, who: Who) -> Response:
    """Delete all tags of the namespace."""
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "delete_metadef_namespace", who, row)
        access.require(res, "delete_metadef_tags", who, row)
        access.refuse_protected(row)
        await entries.clear(connection, "tags", row["id"])
        await emit_namespace(connection, "delete_tags", row)
    return Response(status_code=204)


@router.get("/{name}", dependencies=[NO_BODY])
async def show(namespace: str, name: str, res: Res, who: Who) -> Response:
    """One tag."""
    async with res.db.read() as connection:
        row = await access.visible(connection, namespace, res, who, "tags")
    access.require(res, "get_metadef_tag", who, row)
    entry = next((each for each in row["tags"] if each["name"] == name), None)
    if entry is None:
        raise _not_found(namespace, name)
    return json_response(wire.one_tag_document(entry))


@router.post("/{name}", status_code=201, dependencies=[NO_BODY])
async def create(namespace: str, name: str, res: Res, who: Who) -> Response:
    """Make one tag."""
    new = wire.tag({"name": name})
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "add_metadef_tag", who, row)
        (entry,) = await entries.add(connection, "tags", row["id"], [new])
        await emit_metadefs(connection, "create", row, "tags", [entry])
    return json_response(wire.one_tag_document(entry), status=201)


@router.put("/{name}", openapi_extra=wire.TAG_UPDATE)
async def update(namespace: str, name: str, request: Request, res: Res, who: Who) -> Response:
    """Rename a tag."""
    new = wire.tag(await json_body(request))
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "modify_metadef_tag", who, row)
        entry = await entries.update(connection, "tags", row["id"], name, new)
        if entry is None:
            raise _not_found(namespace, name)
        await emit_metadefs(connection, "update", row, "tags", [entry], old=name)
    return json_response(wire.one_tag_document(entry))


@router.delete("/{name}", status_code=204, dependencies=[NO_BODY])
async def delete(namespace: str, name: str, res: Res, who: Who) -> Response:
    """Delete one tag."""
    async with res.db.write() as connection:
        row = await access.locked(connection, namespace, res, who)
        access.require(res, "delete_metadef_tag", who, row)
        entry = await entries.remove(connection, "tags", row["id"], name)
        if entry is None:
            raise _not_found(namespace, name)
        access.refuse_protected(row)
        await emit_metadefs(connection, "delete", row, "tags", [entry])
    return Response(status_code=204)


def _not_found(namespace: str, name: str) -> NotFound:
    return NotFound(f"Namespace {namespace} has no tag {name}.")
