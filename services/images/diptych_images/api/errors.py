"""Errors as Glance's clients expect to find them, and the table from store errors to answers.

glanceclient strips the tags of HTML, openstacksdk reads a flat JSON object, and both break on
FastAPI's `{"detail": …}`; the three forms and the choice between them are WebOb's.
Source: WebOb 1.8 `WSGIHTTPException`; glanceclient `exc.from_response`; openstacksdk
`exceptions.raise_from_response`.
"""

import logging
from html import escape
from typing import Any

from diptych_common.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    InternalError,
    NotFound,
    RangeNotSatisfiable,
    ServiceUnavailable,
    TooLarge,
    negotiate,
)
from diptych_common.responses import json_response
from diptych_store import errors as store_errors
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import Scope

log = logging.getLogger(__name__)

# StoreError → the answer. NotFound is what is left when no location opens; a route answers a
# missing object by itself (204 on download).
STORE_ANSWERS: dict[type[Exception], type[ApiError]] = {
    store_errors.NotFound: NotFound,
    store_errors.AlreadyThere: Conflict,
    store_errors.AttemptLost: Gone,
    store_errors.Full: TooLarge,
    store_errors.WriteDenied: ServiceUnavailable,
    store_errors.ReadDenied: Forbidden,
    store_errors.RangeOutside: RangeNotSatisfiable,
    store_errors.BadLocation: ServiceUnavailable,
    store_errors.InUse: Conflict,
    store_errors.Unreachable: ServiceUnavailable,
    store_errors.SizeLimitExceeded: TooLarge,
    store_errors.SizeMismatch: BadRequest,
}

_TRY_AGAIN = {"Retry-After": "5"}

# What the OpenAPI document says of every route, in place of FastAPI's 422, which no client gets.
ANY_ERROR: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "An error, in the form that `Accept` asks for.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["message", "code", "title"],
                    "properties": {
                        "message": {"type": "string"},
                        "code": {"type": "string", "description": "The status line."},
                        "title": {"type": "string"},
                    },
                }
            },
            "text/html": {"schema": {"type": "string"}},
            "text/plain": {"schema": {"type": "string"}},
        },
    }
}


def from_store(error: Exception) -> ApiError:
    """The answer to an error of the store library; InternalError for one that has no row.

    A driver may raise errors of its own: they are answered like the one that they are a case of.
    """
    kinds = type(error).__mro__
    answer = next((STORE_ANSWERS[kind] for kind in kinds if kind in STORE_ANSWERS), None)
    if answer is None:
        log.error("A store failed: %s", error)
        return InternalError("The store failed.")
    may_pass = issubclass(answer, ServiceUnavailable)
    return answer(str(error), headers=_TRY_AGAIN if may_pass else None)


def render(scope: Scope, error: ApiError) -> Response:
    """The body of an error in the form that the request's `Accept` asks for."""
    status_line = f"{error.status} {error.title}"
    headers = dict(error.headers)
    if scope["method"] == "HEAD":
        return Response(status_code=error.status, headers=headers)
    match negotiate(Headers(scope=scope).get("accept")):
        case "json":
            document = {
                # The breaks are WebOb's, and part of what clients were written against.
                "message": f"{error.message}<br /><br />\n\n\n",
                "code": status_line,
                "title": error.title,
            }
            return json_response(document, status=error.status, headers=headers)
        case "html":
            page = (
                f"<html>\n <head>\n  <title>{status_line}</title>\n </head>\n"
                f" <body>\n  <h1>{status_line}</h1>\n"
                f"  {escape(error.message, quote=False)}<br /><br />\n\n\n\n </body>\n</html>"
            )
            return HTMLResponse(page, status_code=error.status, headers=headers)
        case "plain":
            text = f"{status_line}\n\n{error.message}\n"
            return PlainTextResponse(text, status_code=error.status, headers=headers)
