"""Certificates of signed images, from Barbican, with the token of who brings the image.

Who may not read a certificate cannot have an image verified by it.

Source: the Key Manager API v1; castellan 5.8, key_manager/barbican_key_manager.py.
"""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Self

from diptych_common import barbican
from diptych_common.barbican import CannotAsk, NoBarbican, Refused, TooLarge
from diptych_common.errors import ApiError, BadRequest, ServiceUnavailable
from pydantic import BaseModel, Field, ValidationError

from diptych_images import signatures
from diptych_images.settings import ImagesSettings
from diptych_images.signatures import Signature

log = logging.getLogger(__name__)

_TRY_AGAIN: Final = {"Retry-After": "5"}


class _Description(BaseModel):
    kind: str = Field(alias="secret_type")
    content_types: dict[str, str] | None = None


class Barbican:
    """Asks for certificates; an async context manager. Opening it contacts nobody.

    ValueError where the settings name a file of authorities that cannot be used.
    """

    def __init__(self, settings: ImagesSettings) -> None:
        self._asked = barbican.Barbican(
            settings.barbican, settings.keystone_authtoken, service_type="image"
        )

    async def __aenter__(self) -> Self:
        """Ready at once."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._asked.__aexit__()

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
        try:
            address = await self._asked.address(token)
        except NoBarbican:
            raise _nowhere() from None
        secret_url = f"{address}/secrets/{certificate_id}"
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

    async def _got(self, url: str, certificate_id: str, token: str, *, accept: str) -> bytes:
        """The body of a good answer; otherwise raises as `signature`."""
        try:
            return await self._asked.get(url, token, accept=accept)
        except Refused as error:
            raise _refusal(error.status, certificate_id) from None
        except TooLarge:
            raise BadRequest(f"What Barbican has as {certificate_id} is too large.") from None
        except CannotAsk as error:
            log.error("%s", error)
            raise _unavailable() from None


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
