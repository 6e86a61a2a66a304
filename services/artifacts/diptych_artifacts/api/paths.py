"""What is made of paths before they are looked up."""

import re
from typing import Final

from diptych_common.errors import BadRequest
from diptych_common.responses import RenderError
from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES: Final = re.compile("//+")


class Paths:
    """ASGI middleware: takes slashes in a row for one, and refuses U+0000, which nothing has.

    Clients of Glare that glue `http://host:9494/` and `/artifacts` together rely on the former.
    """

    def __init__(self, app: ASGIApp, *, render_error: RenderError) -> None:
        self._app = app
        self._render_error = render_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, unless its path cannot be one."""
        if scope["type"] == "http":
            path: str = scope["path"]
            if "\x00" in path:
                error = BadRequest("The path holds the character U+0000.")
                await self._render_error(scope, error)(scope, receive, send)
                return
            if "//" in path:
                scope = {**scope, "path": _SLASHES.sub("/", path)}
        await self._app(scope, receive, send)
