"""Downloads that nginx sends by itself: it is told which file, and this process reads nothing.

That is nginx's `X-Accel-Redirect`. Which blob is in a file, and in which, is not known here.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from diptych_common.proxies import Networks, is_within, peer, trusted_networks
from diptych_common.settings import ServiceSettings

# By which a proxy says that it knows `X-Accel-Redirect`. The convention is Rack's (Rack::Sendfile).
_OFFER: Final = "x-sendfile-type"
_OFFERED: Final = "x-accel-redirect"

# The ranges that nginx understands as `ranges.requested_part` does: not those with blanks, empty
# items or more digits than nginx counts with.
_PLAIN_RANGE: Final = re.compile(r"bytes=(?:[0-9]{1,18}-[0-9]{0,18}|-[0-9]{1,18})")

# Conditions that nginx would hold against what it knows of the file, and old clients' way to ask
# for a part, of which it knows nothing.
_NOT_NGINXS: Final = ("if-match", "if-unmodified-since", "content-range")

# nginx writes these.
_OF_NGINX: Final = {"accept-ranges", "content-range", "content-length"}


@dataclass(frozen=True, slots=True)
class Handover:
    """Whether downloads are handed over to the proxy; below `prefix` it has the host's files."""

    prefix: str
    trusted: Networks

    @classmethod
    def configured(cls, settings: ServiceSettings) -> "Handover":
        """As `[DEFAULT] x_accel_redirect` says; without it nothing is handed over."""
        trusted = trusted_networks(settings.oslo_middleware.trusted_proxies)
        return cls(settings.default.x_accel_redirect, trusted)

    def is_wanted(self, request: Request) -> bool:
        """Whether whoever sends this request sends the file himself, as we would.

        The proxy has to be one of `[oslo_middleware] trusted_proxies`, and to say so: behind
        another one the client would get an answer without a body. What the request asks for has to
        be checked before: its range is nginx's to answer, all other conditions are the route's.
        """
        if not self.prefix or request.method != "GET":
            return False
        headers = request.headers
        if headers.get(_OFFER, "").strip().lower() != _OFFERED:
            return False
        address = peer(request.scope)
        if address is None or not is_within(address, self.trusted):
            return False
        if any(name in headers for name in _NOT_NGINXS):
            return False
        return all(_PLAIN_RANGE.fullmatch(range_) for range_ in headers.getlist("range"))

    def answer(
        self,
        file: Path,
        headers: Mapping[str, str],
        *,
        media_type: str = "application/octet-stream",
    ) -> Response:
        """Tell the proxy to answer with this file, an absolute path, and with these headers.

        Of them nginx keeps the Content-Type; deploy/proxy/stored-files.conf has it keep the others.
        """
        kept = {name: value for name, value in headers.items() if name.lower() not in _OF_NGINX}
        # nginx decodes it, and takes what follows a `?` for a query.
        kept["X-Accel-Redirect"] = self.prefix + quote(os.fsencode(file))
        return Response(headers=kept, media_type=media_type)
