"""PUT and GET /v2/images/{id}/file: the bytes of an image."""

from contextlib import AsyncExitStack
from functools import partial
from uuid import uuid4

from diptych_common.errors import (
    BadRequest,
    Forbidden,
    Gone,
)
from diptych_common.ranges import has_current, requested_part
from diptych_common.responses import BlobResponse
from diptych_store.digests import Digests
from diptych_store.protocol import Attempt, ByteRange, Store
from fastapi import APIRouter, Request, Response

from diptych_images import readers
from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.incoming import (
    announced_size,
    failure_told,
    hash_algorithm,
    named_store,
    octets_openapi,
    received,
    require_octet_stream,
    require_room,
    user_token,
)
from diptych_images.api.resources import (
    NO_BODY,
    Res,
    Resources,
    Who,
    is_admin,
    refuse_anonymous,
    require,
    require_change,
    visible_image,
)
from diptych_images.attempts import Held, in_account, told_beside
from diptych_images.cache.directory import Image
from diptych_images.cache.reading import Cache
from diptych_images.cache.upkeep import image_of, source_of
from diptych_images.db import images
from diptych_images.db.images import ImageRow
from diptych_images.formats import judge
from diptych_images.notifications import Sending, emit
from diptych_images.opening import file_of
from diptych_images.quotas import Room
from diptych_images.wire import parameters

router = APIRouter(prefix="/v2/images/{image_id}/file", responses=ANY_ERROR)

_UPLOAD_OPENAPI = {
    **octets_openapi("The image has its data and is active."),
    **parameters.UPLOAD,
}


@router.put("", status_code=204, openapi_extra=_UPLOAD_OPENAPI)
async def upload(image_id: str, request: Request, res: Res, who: Who) -> Response:
    """Give a queued image its bytes; on any failure it is queued again and nothing is left."""
    refuse_anonymous(who)
    require_octet_stream(request)
    size = announced_size(request)
    store = in_account(_chosen_store(request, res), who.project_id, token=user_token(request))
    async with res.db.read() as connection:
        row = await visible_image(connection, image_id, res, who)
    require_change(res, "upload_image", who, row)
    require_room(row, size, res)

    attempt = Attempt(key=row["id"], token=str(uuid4()))
    lease_s = res.settings.jobs.lease
    quota = await res.quotas.of(row["owner"])
    async with res.db.write() as connection:
        await quota.require(connection, size=size or 0, uploading=1)
        saving = await images.start_upload(
            connection,
            row["id"],
            store=store.name,
            attempt=attempt.token,
            lease_s=lease_s,
            project_id=who.project_id,
            reserved=size or 0,
        )
        if saving is None:
            raise Gone(f"Image {image_id} was deleted or is being uploaded by another request.")
        # As they are from here on: until now a PATCH could change what the data is judged by.
        disk_format, container_format = saving["disk_format"], saving["container_format"]
        if disk_format is None or container_format is None:
            raise BadRequest(
                "disk_format and container_format must be set before data is uploaded."
            )
        await emit(connection, "image.update", saving)
        await emit(connection, "image.prepare", saving, store=store.name)

    room = Room(res.db, quota, "size", [attempt.token], taken=size or 0)
    async with (
        Held(res.db, store, attempt, lease_s=lease_s) as held,
        failure_told(res.db, row["id"]),
    ):
        # Before any byte, and with the properties that the image has by now, as in Glance.
        signature = await held.while_held(
            res.barbican.signature(saving["properties"], token=user_token(request))
        )
        algorithm = hash_algorithm(saving, res)
        signed_digest = () if signature is None else (signature.digest,)
        digests = Digests(("md5", algorithm, *signed_digest))
        stored, findings = await received(request, res, held, room, size=size, digests=digests)
        if signature is not None:
            signature.check(stored.digests)
        virtual_size = judge(
            findings,
            disk_format=disk_format,
            container_format=container_format,
            rules=res.settings.image_format,
        )
        location = await held.publish()
        async with res.db.write() as connection:
            active = await images.finish_upload(
                connection,
                row["id"],
                attempt=attempt.token,
                url=location,
                metadata=told_beside(location, store, is_multiple=res.stores.is_multiple),
                size=stored.size,
                virtual_size=virtual_size,
                checksum=stored.digests["md5"],
                os_hash_algo=algorithm,
                os_hash_value=stored.digests[algorithm],
            )
            if active is None:
                raise Gone(f"Image {image_id} was deleted while its data was uploaded.")
            await emit(connection, "image.upload", active, store=store.name)
            await emit(connection, "image.activate", active)
            await emit(connection, "image.update", active)
            await readers.changed(connection, res.stores, active)
    return Response(status_code=204)


@router.get("", dependencies=[NO_BODY], response_class=Response, openapi_extra=parameters.DOWNLOAD)
@router.head("", dependencies=[NO_BODY], response_class=Response, openapi_extra=parameters.DOWNLOAD)
async def download(image_id: str, request: Request, res: Res, who: Who) -> Response:
    """The bytes of an image, or a part of them; 204 while it has none."""
    async with res.db.read() as connection:
        row = await visible_image(connection, image_id, res, who)
    require(res, "download_image", who, row)
    if row["status"] == "deactivated" and not is_admin(res, who):
        raise Forbidden(f"Image {image_id} is deactivated.")
    preferred = _preferred(request, res)
    if preferred:
        require(res, "download_from_store", who, row)
    size = row["size"]
    if size is None or not row["locations"]:
        return Response(status_code=204)

    headers = {"Accept-Ranges": "bytes"}
    etag = None
    if row["os_hash_value"] is not None:
        etag = headers["ETag"] = f'"{row["os_hash_value"]}"'
        if has_current(request.headers, etag):
            return Response(status_code=304, headers=headers)
    if row["checksum"] is not None:
        # Hexadecimal and of the whole image whatever the range, as glanceclient compares it.
        headers["Content-MD5"] = row["checksum"]
    # RFC 9110 has ranges for GET only.
    part = None
    if request.method == "GET":
        part = requested_part(request.headers, size=size, etag=etag)
    if part is not None:
        headers["Content-Range"] = part.content_range(size)

    asked = ByteRange() if part is None else ByteRange(part.start, part.length)
    acting = partial(in_account, project_id=who.project_id, token=user_token(request))
    source = source_of(res.stores, row, acting, preferred)
    cached = _cached(request, res, row)
    if cached is None and res.handover.is_wanted(request):
        found = await file_of(res.stores, row, size, preferred)
        if found is not None:
            store, file = found
            length = size if part is None else part.length
            count = res.metrics.store_bytes.labels(store.name, "out").inc
            sending = Sending(res.db, row, who, expected=length, on_sent=count)
            # Whether the client stays to the end is known to nginx alone.
            sending.sent(length)
            await sending.ended()
            return res.handover.answer(file, headers)
    async with AsyncExitStack() as stack:
        count = None
        if cached is not None:
            cache, image = cached
            reading = await stack.enter_async_context(cache.open(image, asked, source))
        else:
            opened = await stack.enter_async_context(source(asked))
            if opened is None:
                return Response(status_code=204)
            store, reading = opened
            # What the cache fetches, it counts itself.
            count = res.metrics.store_bytes.labels(store.name, "out").inc
        if reading is None:
            return Response(status_code=204)
        stack.enter_context(res.metrics.transferring("out"))
        sending = Sending(res.db, row, who, expected=reading.length, on_sent=count)
        if request.method == "GET":
            stack.push_async_callback(sending.ended)
        # From here on the response closes what was opened.
        return BlobResponse(
            reading.blocks,
            length=reading.length,
            close=stack.pop_all().aclose,
            status=200 if part is None else 206,
            headers=headers,
            on_sent=sending.sent,
            pass_to=reading.pass_to,
        )


def _cached(request: Request, res: Resources, row: ImageRow) -> tuple[Cache, Image] | None:
    """The cache that the image is read through, and what it is to that; None if through none."""
    image = image_of(row)
    if res.caching is None or image is None or request.method != "GET":
        return None
    cache = res.caching.cache
    return (cache, image) if cache.can_have(image) else None


def _preferred(request: Request, res: Resources) -> tuple[str, ...]:
    """The stores that a download names, in its order; none where it does not ask for any."""
    asked = request.query_params.get("prefer")
    if asked is None:
        return ()
    if not res.stores.is_multiple:
        raise BadRequest("Several stores are not configured here: none can be preferred.")
    names = tuple(dict.fromkeys(name.strip() for name in asked.split(",")))
    for name in names:
        if name not in res.stores.names:
            raise BadRequest(f"There is no store {name[:100]}.")
    return names


def _chosen_store(request: Request, res: Resources) -> Store:
    name = named_store(request)
    if not name or not res.stores.is_multiple:
        store = res.stores.default
    elif name in res.stores.names:
        store = res.stores[name]
    else:
        raise BadRequest(f"There is no store {name}.")
    if res.stores.info[store.name].read_only:
        # Glance answers 410 here.
        raise Gone(f"Store {store.name} is read-only.")
    return store
