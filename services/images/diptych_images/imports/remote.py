"""glance-download and swift-local: data that the caller may read by their own token.

Where the services are is said by the catalog of the token, which Keystone vouches for: so they may
be asked wherever they are, at exactly that port. The token goes nowhere else.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from diptych_common.errors import ServiceUnavailable, Unauthorized
from diptych_common.jobs import GiveUp
from diptych_common.keystone import Endpoint, Keystone
from diptych_common.outbound import Outbound, Refused
from diptych_store.retries import Retries
from pydantic import BaseModel, ConfigDict, ValidationError

from diptych_images.imports.sources import (
    RETRIES,
    Request,
    Source,
    SourceFailed,
    download,
    plain,
)
from diptych_images.imports.web import import_filter
from diptych_images.settings import ImagesSettings
from diptych_images.wire.image import BASE_PROPERTIES, is_reserved

_MOST_OF_A_DOCUMENT: Final = 4 * 1024 * 1024


def token_of(secret: Mapping[str, str] | None) -> str:
    """The token in the secret of a job: `token`, and `expires_at` in ISO 8601 if it is known.

    GiveUp if there is none, or not any more.
    """
    if not secret or not secret.get("token"):
        raise GiveUp("Your token was not kept; start the import again.")
    expires_at = secret.get("expires_at")
    if expires_at and datetime.fromisoformat(expires_at) <= datetime.now(UTC):
        raise GiveUp("Your token expired before the data was there; start the import again.")
    return secret["token"]


# --- glance-download --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """An active image of another region.

    `properties` are those that are to be copied. `digests` are hexadecimal, by algorithm; there
    may be none. `size` is in bytes. `service` and `data` are what to call the image service, and
    the URL of the data.
    """

    disk_format: str | None
    container_format: str | None
    size: int
    properties: Mapping[str, str]
    digests: Mapping[str, str]
    service: str
    data: str


class _Document(BaseModel):
    model_config = ConfigDict(extra="allow")

    status: str
    size: int | None = None
    disk_format: str | None = None
    container_format: str | None = None
    checksum: str | None = None
    os_hash_algo: str | None = None
    os_hash_value: str | None = None


async def remote_image(
    outbound: Outbound,
    *,
    region: str,
    image_id: str,
    interface: str,
    token: str,
    settings: ImagesSettings,
) -> RemoteImage:
    """The image as its region knows it, if it can be downloaded; raises GiveUp and SourceFailed.

    Region names are compared without regard to case. The filters of imports count for the image
    service, too.

    Source: Glance 33.0, glance/async_/flows/api_image_import.py `_ImportMetadata`.
    """
    service = f"The image service of region {region}"
    endpoints = [
        endpoint.url
        for endpoint in await _endpoints("image", token=token, settings=settings)
        if _is_in(endpoint, region) and endpoint.interface == interface
    ]
    if not endpoints:
        raise GiveUp(f"Your catalog has no {interface} image service in region {region}.")
    base = endpoints[0].rstrip("/").removesuffix("/v2")
    url = f"{base}/v2/images/{quote(image_id, safe='')}"
    opening = _download(
        outbound,
        Request(url, service, filter=import_filter(settings)),
        token=token,
        limit=_MOST_OF_A_DOCUMENT,
        settings=settings,
    )
    async with opening as source:
        body = b"".join([block async for block in source.blocks])
    try:
        image = _Document.model_validate_json(body)
    except ValidationError:
        # Not the error itself: it quotes the document.
        raise SourceFailed(f"{service} answered with what is no image.") from None
    if image.status != "active":
        raise GiveUp(f"Image {image_id} of region {region} is {plain(image.status)}, not active.")
    if image.size is None:
        raise GiveUp(f"{service} does not tell the size of image {image_id}.")
    digests = {"md5": image.checksum, image.os_hash_algo or "": image.os_hash_value}
    return RemoteImage(
        disk_format=image.disk_format,
        container_format=image.container_format,
        size=image.size,
        properties={
            name: value
            for name, value in (image.model_extra or {}).items()
            if name.startswith(settings.glance_download_properties.extra_properties)
            if isinstance(value, str) and name not in BASE_PROPERTIES and not is_reserved(name)
            if "\0" not in name + value  # PostgreSQL keeps none
        },
        digests={name: value.lower() for name, value in digests.items() if name and value},
        service=service,
        data=f"{url}/file",
    )


@asynccontextmanager
async def glance_download(
    outbound: Outbound,
    image: RemoteImage,
    *,
    token: str,
    settings: ImagesSettings,
    retries: Retries = RETRIES,
) -> AsyncGenerator[Source]:
    """The data of such an image, see `download`."""
    opening = _download(
        outbound,
        Request(
            image.data,
            image.service,
            filter=import_filter(settings),
            # Glance gives its data no validator. An image that was active has no other data ever.
            condition=lambda _: {},
        ),
        token=token,
        limit=settings.default.image_size_cap,
        settings=settings,
        retries=retries,
    )
    async with opening as source:
        if source.size not in (None, image.size):
            raise GiveUp(
                f"{image.service} has {source.size} bytes for an image of {image.size} bytes."
            )
        yield Source(image.size, source.blocks)


# --- swift-local ------------------------------------------------------------------------------


@asynccontextmanager
async def swift_local(
    outbound: Outbound,
    *,
    container: str,
    name: str,
    token: str,
    settings: ImagesSettings,
    retries: Retries = RETRIES,
) -> AsyncGenerator[Source]:
    """An object of the account of the token's project, see `download`.

    The object store is that of this service's region, or the only one of the catalog.
    """
    if {".", ".."} & {container, *name.split("/")}:
        # What is between us and Swift may take them for steps, out of the account.
        raise GiveUp("An object with . or .. for a part of its name cannot be imported.")
    base = _object_store(await _endpoints("object-store", token=token, settings=settings), settings)
    url = f"{base.rstrip('/')}/{quote(container, safe='')}/{quote(name, safe='/')}"
    opening = _download(
        outbound,
        Request(url, "The object store", condition=_by_swifts_etag),
        token=token,
        limit=settings.default.image_size_cap,
        settings=settings,
        retries=retries,
    )
    async with opening as source:
        yield source


def _object_store(endpoints: Sequence[Endpoint], settings: ImagesSettings) -> str:
    region = settings.keystone_authtoken.region_name
    if region is not None:
        endpoints = [one for one in endpoints if _is_in(one, region)]
    elif len({one.region_id or one.region for one in endpoints}) > 1:
        raise GiveUp("Your catalog has object stores in several regions, and none of them is ours.")
    own = settings.keystone_authtoken.interface.removesuffix("URL")
    for interface in (own, "public"):
        for endpoint in endpoints:
            if endpoint.interface == interface:
                return endpoint.url
    raise GiveUp("Your catalog has no object store here.")


def _by_swifts_etag(headers: Mapping[str, str]) -> Mapping[str, str] | None:
    """Swift gives ETags without quotes, and knows If-Match but not If-Range."""
    etag = headers.get("etag", "").strip('"')
    # That of a dynamic large object says nothing about its data.
    return {"if-match": f'"{etag}"'} if etag and "x-object-manifest" not in headers else None


# --- Both -------------------------------------------------------------------------------------


async def _endpoints(
    service_type: str, *, token: str, settings: ImagesSettings
) -> Sequence[Endpoint]:
    try:
        keystone = Keystone(settings.keystone_authtoken, service_type="image")
    except ValueError as error:
        raise GiveUp("This service has no Keystone to ask for your catalog.") from error
    async with keystone:
        try:
            return await keystone.endpoints(token, service_type)
        except Unauthorized:
            raise GiveUp("Your token is not valid any more; start the import again.") from None
        except ServiceUnavailable as error:
            raise SourceFailed(error.message) from error


def _download(
    outbound: Outbound,
    request: Request,
    *,
    token: str,
    limit: int,
    settings: ImagesSettings,
    retries: Retries = RETRIES,
) -> AbstractAsyncContextManager[Source]:
    """The answer to a request with the token to a service of the catalog."""
    try:
        outbound = outbound.trusting(request.url)
    except (Refused, ValueError) as error:
        raise GiveUp(f"{request.who} has no address in your catalog that can be used.") from error
    return download(
        outbound,
        replace(
            request,
            headers={"x-auth-token": token},
            # The cloud's services have their certificates from whom Keystone has its own.
            cafile=settings.keystone_authtoken.cafile,
        ),
        limit=limit,
        timeout_s=settings.import_sources.timeout,
        retries=retries,
    )


def _is_in(endpoint: Endpoint, region: str) -> bool:
    names = (endpoint.region, endpoint.region_id)
    return region.lower() in [name.lower() for name in names if name is not None]
