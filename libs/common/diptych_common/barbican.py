"""What Barbican keeps, asked for with somebody's token; who may have it, Barbican decides.

The token goes to the endpoint that the settings or the token's own catalog name, and nowhere else:
redirects are not followed.

Source: the Key Manager API v1; castellan 5.8, key_manager/barbican_key_manager.py.
"""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, Self

import httpx

from diptych_common import settings
from diptych_common.keystone import Endpoint, Keystone
from diptych_common.settings import KeystoneAuthtoken

# Barbican itself keeps nothing beyond 20 kB, unless it is told to.
_MOST_BYTES: Final = 64 * 1024


class CannotAsk(Exception):
    """Barbican gave no answer that says anything about the question; the message is for the log."""


class NoBarbican(Exception):
    """Neither the settings nor the catalog tell where Barbican is."""


class Refused(Exception):
    """Barbican answered, and not with what was asked for."""

    def __init__(self, status: int) -> None:
        super().__init__(f"Barbican answered {status}")
        self.status = status


class TooLarge(Exception):
    """What Barbican answered with is larger than anything that it keeps."""


class Barbican:
    """Asks Barbican; an async context manager. Opening it contacts nobody.

    `service_type` is this service's in the catalog. ValueError where the settings name a file of
    authorities that cannot be used.
    """

    def __init__(
        self, barbican: settings.Barbican, authtoken: KeystoneAuthtoken, *, service_type: str
    ) -> None:
        self._settings = barbican
        self._authtoken = authtoken
        self._service_type = service_type
        if barbican.verify_ssl and barbican.verify_ssl_path is not None:
            try:
                ssl.create_default_context(cafile=barbican.verify_ssl_path)
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

    async def own_token(self, *, refused: str | None = None) -> str:
        """A token of this service itself, which is not the one that was refused.

        Raises NoBarbican where the settings have no credentials, and Keystone's CannotAsk.
        """
        return await (await self._asked_keystone()).own_token(refused=refused)

    async def address(self, token: str) -> str:
        """Where Barbican's API is for the owner of a token, without a slash at the end.

        Keystone is asked where the settings do not say it. Raises NoBarbican, and as
        `Keystone.endpoints`.
        """
        base = self._settings.barbican_endpoint
        if base is None:
            keystone = await self._asked_keystone()
            base = self._of_catalog(await keystone.endpoints(token, "key-manager"))
        return f"{base.rstrip('/').removesuffix('/v1')}/v1"

    async def get(self, url: str, token: str, *, accept: str) -> bytes:
        """The body of a good answer, of 64 KiB at most.

        Raises Refused, TooLarge, CannotAsk.
        """
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
                    raise Refused(answer.status_code)
                async for piece in answer.aiter_raw():
                    body += piece
                    if len(body) > _MOST_BYTES:
                        raise TooLarge(f"Barbican answered with over {_MOST_BYTES} bytes")
        # The catalog may hold what is no URL.
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise CannotAsk(f"Barbican cannot be asked at {url}: {error!r}") from None
        return bytes(body)

    def _of_catalog(self, endpoints: Sequence[Endpoint]) -> str:
        region = self._settings.barbican_region_name or self._authtoken.region_name
        for endpoint in endpoints:
            if endpoint.interface != self._settings.barbican_endpoint_type:
                continue
            if region is None or region in (endpoint.region, endpoint.region_id):
                return endpoint.url
        raise NoBarbican

    async def _asked_keystone(self) -> Keystone:
        async with self._opening:
            if self._keystone is None:
                try:
                    keystone = Keystone(self._authtoken, service_type=self._service_type)
                except ValueError:
                    raise NoBarbican from None
                self._keystone = await self._opened.enter_async_context(keystone)
        return self._keystone

    async def _trusted(self) -> ssl.SSLContext | bool:
        if not self._settings.verify_ssl:
            return False
        if self._tls is None:
            cafile = self._settings.verify_ssl_path or self._authtoken.cafile
            # In a thread: the system's authorities take 30 ms to be read.
            self._tls = await asyncio.to_thread(ssl.create_default_context, cafile=cafile)
        return self._tls
