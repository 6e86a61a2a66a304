"""/, /versions and /v2: which versions of the API are spoken here. No token is needed.

A middleware and not routes: any first segment that is no version is answered here, and
`/v2.N/…` is the same resource as `/v2/…`.
"""

import re

from diptych_common.responses import json_response
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from diptych_images.wire import versions

_VENDOR = re.compile(r"application/vnd\.openstack\.images-(v[0-9]+(?:\.[0-9]+)?)")


class VersionNegotiation:
    """Answers for the versions, and hands requests for a version on as requests for /v2.

    `public_endpoint` is where clients reach the service; None takes it from the request.
    """

    def __init__(
        self, app: ASGIApp, *, public_endpoint: str | None, cache: bool, multi_store: bool
    ) -> None:
        self._app = app
        self._public_endpoint = public_endpoint
        self._cache = cache
        self._multi_store = multi_store
        self._spoken = {"v2", *versions.supported(cache=cache, multi_store=multi_store)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the versions, or call the application with a path under /v2."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        first, _, rest = scope["path"].removeprefix("/").partition("/")
        if first == "v2" and rest:
            await self._app(scope, receive, send)
            return
        asked = _VENDOR.match(request.headers.get("accept", ""))
        if first in self._spoken and rest:
            _move_under_v2(scope, f"/{first}/")
            await self._app(scope, receive, send)
        elif first == "v2":
            # Glance redirects to a 404 here; a document is of more use.
            document = versions.single(self._base(request), cache=self._cache)
            await json_response(document)(scope, receive, send)
        elif asked is not None and asked[1] in self._spoken and not re.match(r"v[0-9]", first):
            _move_under_v2(scope, "/")
            await self._app(scope, receive, send)
        else:
            document = versions.document(
                self._base(request), cache=self._cache, multi_store=self._multi_store
            )
            # keystoneauth and tempest expect the choice as 300, glanceclient as 200 at /versions.
            status = 200 if first == "versions" else 300
            await json_response(document, status=status)(scope, receive, send)

    def _base(self, request: Request) -> str:
        return self._public_endpoint or str(request.base_url)


def _move_under_v2(scope: Scope, beginning: str) -> None:
    # In place, so that the log and the metrics further out see the route that is met.
    scope["path"] = "/v2/" + scope["path"].removeprefix(beginning)
    # A slash of a name is %2F here, and must stay so.
    scope["raw_path"] = b"/v2/" + scope["raw_path"].removeprefix(beginning.encode())
