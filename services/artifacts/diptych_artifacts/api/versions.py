"""Which version of the API a request is for, and / and /versions, which need no token.

The versions differ in nothing that is refused: Glare never held back what is new in 1.1 from
clients of 1.0, and its own client asks for no version.
"""

import re
from collections.abc import Sequence
from typing import Final

from diptych_common.errors import ApiError, BadRequest
from diptych_common.responses import RenderError, json_response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych_artifacts.api.errors import NotAcceptable

OLDEST: Final = (1, 0)
NEWEST: Final = (1, 1)

_STATUS: Final = {(1, 0): "STABLE", (1, 1): "EXPERIMENTAL"}
_MEDIA_TYPE: Final = "application/vnd.openstack.artifacts-"
_VERSION: Final = re.compile(r"([1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})", re.ASCII)


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


_DOCUMENT: Final = {
    "versions": [
        {
            "version": _text(version),
            "status": status,
            "links": [
                {
                    "rel": "describedby",
                    "type": "text/html",
                    "href": "http://docs.openstack.org/",
                }
            ],
            "media-type": f"{_MEDIA_TYPE}{_text(version)}",
        }
        for version, status in _STATUS.items()
    ]
}


class Versions:
    """ASGI middleware: answers for the versions, and holds every answer to one of them.

    The versions are 300 by whatever verb they are asked for, as with Glare.
    """

    def __init__(self, app: ASGIApp, *, render_error: RenderError) -> None:
        self._app = app
        self._render_error = render_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the versions, or hand the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] in ("/", "/versions"):
            await json_response(_DOCUMENT, status=300)(scope, receive, send)
        else:
            try:
                version = _text(asked(Headers(scope=scope)))
            except ApiError as error:
                await self._render_error(scope, error)(scope, receive, send)
            else:
                await self._app(scope, receive, _telling(version, send))


def asked(headers: Headers) -> tuple[int, int]:
    """The version that a request asks for. Raises BadRequest, NotAcceptable.

    Source: Glare 5.0.1, the middleware of version negotiation: `Accept` wins over the header of
    microversions.
    """
    accept = headers.get("accept", "")
    if accept.startswith(_MEDIA_TYPE):
        text = accept.removeprefix(_MEDIA_TYPE)
    else:
        text = _of_artifacts(headers.getlist("openstack-api-version"))
        if text is None:
            return OLDEST
    if text == "latest":
        return NEWEST
    match = _VERSION.fullmatch(text)
    if match is None:
        raise BadRequest(f"{text[:100]} is no version of the API: one is like 1.1, or latest.")
    version = int(match[1]), int(match[2])
    if not OLDEST <= version <= NEWEST:
        oldest, newest = _text(OLDEST), _text(NEWEST)
        raise NotAcceptable(
            f"Version {text} is not spoken here, but {oldest} to {newest}.",
            oldest=oldest,
            newest=newest,
        )
    return version


def _of_artifacts(values: Sequence[str]) -> str | None:
    """What the header says for this service; None if it speaks of others only."""
    for value in values:
        for one in value.split(","):
            service, _, version = one.strip().partition(" ")
            if service.lower() == "artifact" and version.strip():
                return version.strip()
    return None


def _telling(version: str, send: Send) -> Send:
    async def send_with_version(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["openstack-api-version"] = f"artifact {version}"
            headers.add_vary_header("openstack-api-version")
        await send(message)

    return send_with_version
