"""/artifacts/{type}/{id}/{field}[/{key}]: the data of blobs, and where they are elsewhere."""

from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing

from diptych_common.errors import BadRequest, Conflict, Forbidden, NotFound
from diptych_common.ranges import has_current, requested_part
from diptych_common.responses import BlobResponse
from diptych_store import errors as store_errors
from diptych_store.errors import BadLocation, Unreachable
from diptych_store.files import local_file
from diptych_store.protocol import ByteRange, Reading, Store
from fastapi import APIRouter, Request, Response

from diptych_artifacts import encryption, removal
from diptych_artifacts.api.errors import ANY_ERROR
from diptych_artifacts.api.incoming import (
    begin,
    new_blob,
    receive,
    receive_archive,
)
from diptych_artifacts.api.resources import (
    NO_BODY,
    Res,
    Resources,
    Who,
    answer,
    document,
    json_body,
    known_type,
    require,
    require_changeable,
    require_free_key,
    require_owner,
    visible_artifact,
)
from diptych_artifacts.attempts import Held, in_account
from diptych_artifacts.db import blobs
from diptych_artifacts.db.artifacts import ArtifactRow, BlobRow
from diptych_artifacts.notifications import emit
from diptych_artifacts.types import hooks
from diptych_artifacts.types.hooks import Call
from diptych_artifacts.wire import blob as wire
from diptych_artifacts.wire.blob import Place

router = APIRouter(prefix="/artifacts/{type_name}/{artifact_id}", responses=ANY_ERROR)


@router.put("/{blob:path}", openapi_extra=wire.PUT_OPENAPI)
async def put(
    type_name: str, artifact_id: str, blob: str, request: Request, res: Res, who: Who
) -> Response:
    """Give a blob data, or the address of data that are there already."""
    content_type = request.headers.get("content-type")
    if not content_type:
        raise BadRequest("The request needs a Content-Type.")
    if content_type.partition(";")[0].strip().lower() == wire.LOCATION:
        return await _add_location(type_name, artifact_id, blob, request, res, who)
    return await _upload(type_name, artifact_id, blob, request, res, who, content_type)


async def _upload(
    type_name: str,
    artifact_id: str,
    path: str,
    request: Request,
    res: Resources,
    who: Who,
    content_type: str,
) -> Response:
    """Give a blob its data, in place of what it had; on any failure it keeps that."""
    size = wire.announced_size(request.headers.get("content-length"))
    known = known_type(type_name, res)
    new = await new_blob(known, res)
    async with res.db.write() as connection:
        row = await visible_artifact(connection, type_name, artifact_id, res, who, lock=True)
        require_owner(res, who, row)
        require(res, "artifact:upload", who, row)
        place = wire.parse_place(path, known)
        wire.require_key(place)
        store = in_account(
            res.store_of(type_name), row["owner"], token=_token(request, res, who, row["owner"])
        )
        begun = await begin(
            connection, row, place, new, res, size=size, content_type=content_type, store=store
        )

    call = _call(row, res, who, place, content_type=content_type)
    hook = known.hooks.pre_upload
    # A hook may make another number of bytes of them.
    expected = size if hook is None else None
    action = known.unpack.get(place.name)
    idle_s = res.settings.default.upload_idle_timeout
    async with (
        Held(res.db, lease_s=res.settings.jobs.lease) as held,
        aclosing(wire.whole(request.stream(), size, idle_s=idle_s)) as sent,
        aclosing(hooks.uploaded(hook, call, sent)) as data,
    ):
        held.add(store, new.id)
        with res.metrics.transferring("in"):
            if action is None:
                receiving = receive(data, begun, held, res, size=expected)
                uploads = [await held.while_held(receiving)]
            else:
                unpacking = receive_archive(
                    data, begun, held, res, row, known, action, size=expected
                )
                uploads = await held.while_held(unpacking)
        async with res.db.write() as connection:
            emptied = None if action is None else action.into
            row, replaced = await blobs.finish(connection, row["id"], uploads, emptied=emptied)
            await removal.later(connection, replaced)
            await emit(connection, "upload", row)
    call = _call(row, res, who, place, content_type=content_type)
    await hooks.notify_of_blob(known.hooks.post_upload, call)
    return answer(document(row, res))


async def _add_location(
    type_name: str, artifact_id: str, path: str, request: Request, res: Resources, who: Who
) -> Response:
    """Say where the data of a blob that has none are: on the web, or in a store."""
    location = wire.parse_location(await json_body(request, content_type=wire.LOCATION))
    known = known_type(type_name, res)
    async with res.db.write() as connection:
        row = await visible_artifact(connection, type_name, artifact_id, res, who, lock=True)
        require_owner(res, who, row)
        if location.is_external:
            store = None
            action = "set_location"
        else:
            wire.refuse_forbidden_scheme(location)
            store = _store_with(location.url, res)
            action = "set_internal_location"
        require(res, f"artifact:{action}", who, row)
        if known.encrypted:
            raise Forbidden(f"Blobs of {type_name} are encrypted here: none can lie elsewhere.")
        place = wire.parse_place(path, known)
        wire.require_key(place)
        if wire.find(row, place) is not None:
            raise Conflict(f"{place} has data or a location already.")
        require_changeable(row, place)
        there = await blobs.in_field(connection, row["id"], place.name, place.key)
        require_free_key(place, there.others)
        call = _call(row, res, who, place, url=location.url)
        await hooks.notify_of_blob(known.hooks.pre_add_location, call)
        row = await blobs.add_location(
            connection,
            row,
            field=place.name,
            key=place.key,
            url=location.url,
            store=None if store is None else store.name,
            digests=location.digests,
        )
        await emit(connection, action, row)
    call = _call(row, res, who, place, url=location.url)
    await hooks.notify_of_blob(known.hooks.post_add_location, call)
    return answer(document(row, res))


@router.get(
    "/{blob:path}",
    dependencies=[NO_BODY],
    response_class=Response,
    openapi_extra=wire.DOWNLOAD_OPENAPI,
)
@router.head(
    "/{blob:path}",
    dependencies=[NO_BODY],
    response_class=Response,
    openapi_extra=wire.DOWNLOAD_OPENAPI,
)
async def download(
    type_name: str, artifact_id: str, blob: str, request: Request, res: Res, who: Who
) -> Response:
    """The data of a blob, or a part of them; 301 to where they are if that is elsewhere."""
    row, place, one = await _readable(type_name, artifact_id, blob, res, who)
    call = _call(row, res, who, place, url=_address(one))
    await hooks.notify_of_blob(known_type(type_name, res).hooks.pre_download, call)
    try:
        return await _data(request, row, place, one, res, who)
    except store_errors.NotFound:
        # Bytes that others replaced since the row was read may be gone; those others are there.
        row, place, newer = await _readable(type_name, artifact_id, blob, res, who)
        if newer["id"] == one["id"]:
            raise
        return await _data(request, row, place, newer, res, who)


async def _readable(
    type_name: str, artifact_id: str, path: str, res: Resources, who: Who
) -> tuple[ArtifactRow, Place, BlobRow]:
    """The blob, of which the caller may have the data. Raises NotFound, Forbidden, Conflict."""
    sees_any = res.policy.allows("artifact:download_from_any_artifact", who, {})
    known = known_type(type_name, res)
    async with res.db.read() as connection:
        row = await visible_artifact(
            connection, type_name, artifact_id, res, who, sees_any=sees_any
        )
    if not sees_any:
        require(res, "artifact:download", who, row)
    if row["status"] == "deleted":
        raise Forbidden(f"Artifact {artifact_id} is deleted.")
    place = wire.parse_place(path, known)
    one = wire.find(row, place)
    if one is None:
        raise NotFound(f"{place} has no data.")
    if one["status"] != "active":
        raise Conflict(f"{place} is being uploaded.")
    return row, place, one


async def _data(
    request: Request, row: ArtifactRow, place: Place, one: BlobRow, res: Resources, who: Who
) -> Response:
    """The answer with a blob's data, or where they are. Raises StoreError."""
    url = one["url"] or ""
    call = _call(row, res, who, place, url=_address(one))
    post_download = res.types[row["type_name"]].hooks.post_download
    headers = wire.checksum_headers(one)
    if one["external"]:
        await hooks.notify_of_blob(post_download, call)
        headers |= {
            "Location": wire.location_header(url),
            "Cache-Control": "no-store",
            "Content-Type": "application/json",
        }
        return Response(status_code=301, headers=headers)

    headers["Accept-Ranges"] = "bytes"
    etag = None
    if one["sha256"]:
        etag = headers["ETag"] = f'"sha256:{one["sha256"]}"'
        if has_current(request.headers, etag):
            return Response(status_code=304, headers=headers)
    headers["Content-Type"] = one["content_type"] or "application/octet-stream"
    # By the URL where the store was renamed meanwhile.
    store = res.stores.by_location(url, {"store": one["store"]})
    size = await _size_of(one, store, url)
    # RFC 9110 has ranges for GET only.
    part = None
    if request.method == "GET":
        part = requested_part(request.headers, size=size, etag=etag)
    if part is not None:
        headers["Content-Range"] = part.content_range(size)
    asked = ByteRange() if part is None else ByteRange(part.start, part.length)
    count = res.metrics.store_bytes.labels(store.name, "out").inc
    if one["encryption"] is None and res.handover.is_wanted(request):
        file = await local_file(store, url, size=size)
        if file is not None:
            await hooks.notify_of_blob(post_download, call)
            # Whether the client stays to the end is known to nginx alone.
            count(size if part is None else part.length)
            return res.handover.answer(file, headers, media_type=headers["Content-Type"])
    async with AsyncExitStack() as stack:
        opening = await _opening(one, store, url, asked, size, res)
        reading = await stack.enter_async_context(opening)
        if reading.size != size:
            # Never bytes of another length than the blob's: the client would take them for it.
            raise Unreachable(f"{place} is damaged in store {store.name}.")
        await hooks.notify_of_blob(post_download, call)
        stack.enter_context(res.metrics.transferring("out"))
        # From here on the response closes what was opened.
        return BlobResponse(
            reading.blocks,
            length=reading.length,
            close=stack.pop_all().aclose,
            status=200 if part is None else 206,
            headers=headers,
            on_sent=count,
            pass_to=reading.pass_to,
        )


@router.delete("/{blob:path}")
async def remove_location(
    type_name: str, artifact_id: str, blob: str, res: Res, who: Who
) -> Response:
    """Take the address elsewhere away from a blob."""
    known = known_type(type_name, res)
    async with res.db.write() as connection:
        row = await visible_artifact(connection, type_name, artifact_id, res, who, lock=True)
        require_owner(res, who, row)
        require(res, "artifact:delete_blob", who, row)
        place = wire.parse_place(blob, known)
        one = wire.find(row, place)
        if one is None:
            raise NotFound(f"{place} has no data.")
        if not one["external"]:
            raise Forbidden(f"{place} has data of its own: only locations elsewhere are removed.")
        require_changeable(row, place)
        row = await blobs.remove_external(connection, row["id"], one["id"])
        await emit(connection, "delete_blob", row)
    return answer(document(row, res))


async def _opening(
    one: BlobRow, store: Store, url: str, part: ByteRange, size: int, res: Resources
) -> AbstractAsyncContextManager[Reading]:
    """What opens part of a blob for reading, encrypted or not. Raises ServiceUnavailable."""
    if one["encryption"] is None:
        return store.open(url, part)
    key = await res.wrapping_keys.of_blob(one["id"], one["encryption"])
    return encryption.opened(store, url, key, part=part, size=size, threads=res.blocks.threads)


def _call(
    row: ArtifactRow,
    res: Resources,
    who: Who,
    place: Place,
    *,
    content_type: str | None = None,
    url: str | None = None,
) -> Call:
    return Call(
        who=who,
        type_name=row["type_name"],
        artifact=document(row, res),
        field=place.name,
        key=place.key,
        content_type=content_type,
        url=url,
    )


def _address(one: BlobRow) -> str | None:
    """Where a blob is that is elsewhere; of others that is the service's secret."""
    return one["url"] or "" if one["external"] else None


def _token(request: Request, res: Resources, who: Who, owner: str) -> str | None:
    """The caller's token of Keystone, for stores that keep objects in the accounts of users.

    Only where the account is the caller's: objects are in that of the artifact's project. Tokens
    that Keystone did not make are no store's business.
    """
    is_keystones = res.settings.paste_deploy.flavor == "keystone"
    is_owner = who.project_id == owner
    return request.headers.get("x-auth-token") if is_keystones and is_owner else None


def _store_with(url: str, res: Resources) -> Store:
    """The store that has this location. Raises BadRequest."""
    try:
        return res.stores.by_location(url)
    except BadLocation as error:
        raise BadRequest(str(error)) from error


async def _size_of(one: BlobRow, store: Store, url: str) -> int:
    """The size of a blob; that of an object which was only named is the store's to tell."""
    if one["size"] is not None:
        return one["size"]
    async with store.open(url) as reading:
        return reading.size
