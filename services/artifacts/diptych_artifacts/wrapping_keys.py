"""The keys that wrap the keys of encrypted blobs: from the settings, or from Barbican.

A key from Barbican is fetched with this service's own credentials when it is first needed, and
kept as long as the process lives: Barbican may be down from then on.
"""

import base64
import logging
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self

from diptych_common import keystone
from diptych_common.barbican import Barbican, CannotAsk, NoBarbican, Refused, TooLarge
from diptych_common.errors import ServiceUnavailable, Unauthorized

from diptych_artifacts import encryption
from diptych_artifacts.encryption import KEY_SIZE, BlobKey, Envelope
from diptych_artifacts.settings import ArtifactsSettings

log = logging.getLogger(__name__)

_OF_BARBICAN: Final = "barbican:"
_TRY_AGAIN: Final = {"Retry-After": "5"}


@dataclass(frozen=True, slots=True)
class _Fetched:
    secret_id: str


class WrappingKeys:
    """The keys that the settings name; an async context manager. Opening it contacts nobody.

    `names` are in the order of the settings: the first one wraps. A key from Barbican is named
    `barbican:` and the id of its secret. ValueError where [barbican] names a file of authorities
    that cannot be used.
    """

    def __init__(self, settings: ArtifactsSettings) -> None:
        self._keys: dict[str, bytes | _Fetched] = {}
        for entry in settings.secrets.keys:
            text = entry.get_secret_value()
            name, _, key = text.partition(":")
            if text.startswith(_OF_BARBICAN):
                self._keys[text] = _Fetched(key)
            else:
                self._keys[name] = base64.b64decode(key)
        self.names = tuple(self._keys)
        self._barbican = Barbican(
            settings.barbican, settings.keystone_authtoken, service_type="artifact"
        )

    async def __aenter__(self) -> Self:
        """Ready at once."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections to Barbican."""
        await self._barbican.__aexit__()

    async def new(self, blob_id: str) -> tuple[BlobKey, Envelope]:
        """A key for a new blob, and what to keep of it. Raises ServiceUnavailable.

        For a deployment that has wrapping keys, as one with an encrypted type has.
        """
        key = encryption.new_key(blob_id)
        return key, await self.wrap(key)

    async def wrap(self, key: BlobKey) -> Envelope:
        """The envelope of a blob's key, by the first of these keys. Raises ServiceUnavailable."""
        name = self.names[0]
        return key.wrap(name, await self._named(name))

    async def of_blob(self, blob_id: str, document: dict[str, Any]) -> BlobKey:
        """The key of a blob from what is kept of it.

        Raises ServiceUnavailable where the wrapping key is not at hand, Unreadable where it does
        not open the envelope.
        """
        envelope = encryption.read_envelope(document)
        return encryption.unwrap(envelope, blob_id, await self._named(envelope.key_id))

    async def ready(self) -> None:
        """Have all keys at hand, those from Barbican too. Raises ServiceUnavailable."""
        for name in self.names:
            await self._named(name)

    async def _named(self, name: str) -> bytes:
        key = self._keys.get(name)
        if key is None:
            log.error("A blob's key is wrapped by %r, which [secrets] keys does not have.", name)
            raise _unavailable()
        if isinstance(key, _Fetched):
            key = self._keys[name] = await self._fetched(key.secret_id)
        return key

    async def _fetched(self, secret_id: str) -> bytes:
        try:
            payload = await self._payload(secret_id)
        except (CannotAsk, keystone.CannotAsk, Refused, TooLarge) as error:
            log.error("The wrapping key %s cannot be had: %s", secret_id, error)
        except (NoBarbican, Unauthorized):
            log.error(
                "The wrapping key %s cannot be had: this service needs credentials in"
                " [keystone_authtoken], and Barbican in their catalog or in [barbican]"
                " barbican_endpoint.",
                secret_id,
            )
        else:
            if len(payload) == KEY_SIZE:
                return payload
            log.error("What Barbican has as %s is no key of %d bytes.", secret_id, KEY_SIZE)
        raise _unavailable()

    async def _payload(self, secret_id: str) -> bytes:
        token = await self._barbican.own_token()
        try:
            return await self._payload_with(token, secret_id)
        except Refused as error:
            if error.status != 401:
                raise
        # The token was revoked, as all are when the service's password is changed.
        return await self._payload_with(await self._barbican.own_token(refused=token), secret_id)

    async def _payload_with(self, token: str, secret_id: str) -> bytes:
        address = await self._barbican.address(token)
        url = f"{address}/secrets/{secret_id}/payload"
        return await self._barbican.get(url, token, accept="application/octet-stream")


def new_key(*, now: datetime) -> str:
    """A key for [secrets] keys, with a name of its own that begins with the day."""
    name = f"{now.astimezone(UTC):%Y-%m-%d}-{secrets.token_hex(2)}"
    return f"{name}:{base64.b64encode(secrets.token_bytes(KEY_SIZE)).decode()}"


def _unavailable() -> ServiceUnavailable:
    return ServiceUnavailable(
        "The key that the blob is encrypted under is not at hand.", headers=_TRY_AGAIN
    )
