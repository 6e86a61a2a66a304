"""Errors in the shape that Glare's clients expect.

Glare had two shapes, its own and WebOb's; clients rely on the status only, so there is one here.
"""

from diptych_common.errors import ApiError
from diptych_common.responses import json_response
from starlette.responses import Response
from starlette.types import Scope


def render(scope: Scope, error: ApiError) -> Response:
    """The fault document of an error."""
    if scope["method"] == "HEAD":
        return Response(status_code=error.status, headers=dict(error.headers))
    return json_response(
        {
            "code": error.status,
            "title": error.title,
            "explanation": (type(error).__doc__ or error.title).splitlines()[0],
            "error": {"message": error.message, "type": type(error).__name__},
        },
        status=error.status,
        headers=error.headers,
    )
