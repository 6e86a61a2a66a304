"""Certificates of signed images, from Barbican, with the token of who brings the image.

Who may not read a certificate cannot have an image verified by it. The token goes to the endpoint
that the settings or the token's own catalog name, and nowhere else: redirects are not followed.

Source: the Key Manager API v1; castellan 5.8, key_manager/barbican_key_manager.py.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Final, Self

import httpx
from diptych_common.errors import ApiError, BadRequest, ServiceUnavailable
from diptych_common.keystone import Endpoint, Keystone
from pydantic import BaseModel, Field, ValidationError

from diptych_images import signatures
from diptych_images.settings import ImagesSettings
from diptych_images.signatures import Signature

log = logging.getLogger(__name__)

# Barbican itself keeps nothing beyond 20 kB, unless it is told to.
_MOST_BYTES: Final = 64 * 1024
_TRY_AGAIN: Final = {"Retry-After": "5"}


class _Description(BaseModel):
    kind: str = Field(alias="secret_type")
    content_types: dict[str, str] | None = None


class Barbican:
    """Asks for certificates; an async context manager. Opening it contacts nobody.

    ValueError where the settings name a file of authorities that cannot be used.
    """

    def __init__(self, settings: ImagesSettings) -> None:
        self._settings = settings.barbican
        self._authtoken = settings.keystone_authtoken
        self._cafile = settings.barbican.verify_ssl_path
        if self._settings.verify_ssl and self._cafile is not None:
            try:
                ssl.create_default_context(cafile=self._cafile)
            except OSError as error:
                raise ValueError(
                    f"[barbican] verify_ssl_path: {error.strerror or 'not a CA file'}"
                ) from error
        self._opened = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._tls: ssl.SSLContext | None = None
        self._keystone: Keystone | None = None

    async def __aenter__(self) -> Self:
        """Ready at once."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._opened.aclose()

    async def signature(
        self, properties: Mapping[str, str | None], *, token: str | None
    ) -> Signature | None:
        """The signature that an image with these properties must bear; None if it is not signed.

        For a signed image Barbican is asked twice, and Keystone once where the settings do not say
        where Barbican is. Raises BadRequest for what the image says or for the certificate it
        names, Unauthorized if the token is not valid any more, ServiceUnavailable for what may
        pass.
        """
        claim = signatures.claimed(properties)
        if claim is None:
            return None
        # A token that no header can have would be quoted by the error, and so by the log.
        if token is None or not (token.isascii() and token.isprintable()):
            raise BadRequest("The certificate of a signed image is read with your token.")
        certificate = await self._certificate(claim.certificate_id, token)
        return signatures.signed(claim, certificate, now=datetime.now(UTC))

    async def _certificate(self, certificate_id: str, token: str) -> bytes:
        secret_url = f"{await self._base(token)}/secrets/{certificate_id}"
        document = await self._got(secret_url, certificate_id, token, accept="application/json")
        try:
            found = _Description.model_validate_json(document)
        except ValidationError:
            # Not the error itself: it quotes the document.
            log.error("Barbican answered with what is no description of a secret.")
            raise _unavailable() from None
        if found.kind != "certificate" or not found.content_types:
            raise BadRequest(f"What Barbican has as {certificate_id} is no certificate.")
        content_type = found.content_types.get("default", "application/octet-stream")
        if not content_type.isascii():
            log.error("Barbican names the content type %r.", content_type)
            raise _unavailable()
        return await self._got(f"{secret_url}/payload", certificate_id, token, accept=content_type)

    async def _base(self, token: str) -> str:
        base = self._settings.barbican_endpoint
        if base is None:
            keystone = await self._asked_keystone()
            base = self._of_catalog(await keystone.endpoints(token, "key-manager"))
        return f"{base.rstrip('/').removesuffix('/v1')}/v1"

    def _of_catalog(self, endpoints: Sequence[Endpoint]) -> str:
        region = self._settings.barbican_region_name or self._authtoken.region_name
        for endpoint in endpoints:
            if endpoint.interface != self._settings.barbican_endpoint_type:
                continue
            if region is None or region in (endpoint.region, endpoint.region_id):
                return endpoint.url
        raise _nowhere()

    async def _asked_keystone(self) -> Keystone:
        async with self._opening:
            if self._keystone is None:
                try:
                    keystone = Keystone(self._authtoken, service_type="image")
                except ValueError:
                    raise _nowhere() from None
                self._keystone = await self._opened.enter_async_context(keystone)
        return self._keystone

    async def _trusted(self) -> ssl.SSLContext | bool:
        if not self._settings.verify_ssl:
            return False
        if self._tls is None:
            cafile = self._cafile or self._authtoken.cafile
            # In a thread: the system's authorities take 30 ms to be read.
            self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=cafile)
        return self._tls

    async def _got(self, url: str, certificate_id: str, token: str, *, accept: str) -> bytes:
        """The body of a good answer; otherwise raises as `signature`."""
        headers = {"X-Auth-Token": token, "Accept": accept, "Accept-Encoding": "identity"}
        body = bytearray()
        try:
            tls = await self._trusted()
            async with (
                asyncio.timeout(self._settings.timeout),
                # One for each question, so that nothing that one user is answered, such as a
                # cookie, goes along with what the next one asks. A proxy named by the environment
                # would see every token.
                httpx.AsyncClient(
                    verify=tls, timeout=self._settings.timeout, trust_env=False
                ) as client,
                client.stream("GET", url, headers=headers) as answer,
            ):
                if answer.status_code != 200:
                    raise _refusal(answer.status_code, certificate_id)
                async for piece in answer.aiter_raw():
                    body += piece
                    if len(body) > _MOST_BYTES:
                        raise BadRequest(f"What Barbican has as {certificate_id} is too large.")
        # The catalog may hold what is no URL.
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            log.error("Barbican cannot be asked at %s: %r", url, error)
            raise _unavailable() from None
        return bytes(body)


def _refusal(status: int, certificate_id: str) -> ApiError:
    match status:
        case 404 | 410:
            return BadRequest(f"Barbican has no certificate {certificate_id}.")
        case 401 | 403:
            return BadRequest(f"Barbican does not let you read certificate {certificate_id}.")
        case _:
            log.error("Barbican answered %d for certificate %s.", status, certificate_id)
            return _unavailable()


def _unavailable() -> ServiceUnavailable:
    return ServiceUnavailable(
        "Barbican, which has the certificate of the image's signature, cannot be asked.",
        headers=_TRY_AGAIN,
    )


def _nowhere() -> BadRequest:
    return BadRequest(
        "The image is signed, and this cloud has no Barbican to read its certificate from."
    )
