"""/ and /versions: which versions of the API are spoken here. No token is needed."""

from diptych_common.responses import json_response
from starlette.types import ASGIApp, Receive, Scope, Send

_DOCUMENT = {
    "versions": [
        {
            "version": version,
            "status": status,
            "links": [
                {
                    "rel": "describedby",
                    "type": "text/html",
                    "href": "http://docs.openstack.org/",
                }
            ],
            "media-type": f"application/vnd.openstack.artifacts-{version}",
        }
        for version, status in (("1.0", "STABLE"), ("1.1", "EXPERIMENTAL"))
    ]
}


class Versions:
    """Answers for the versions with 300, by whatever verb they are asked for, as Glare does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the versions, or hand the request on."""
        if scope["type"] == "http" and scope["path"] in ("/", "/versions"):
            await json_response(_DOCUMENT, status=300)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
