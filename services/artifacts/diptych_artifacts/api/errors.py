"""Errors in the shape that Glare's clients expect.

Glare had two shapes, its own and WebOb's; clients rely on the status only, so there is one here.
"""

import logging
from typing import Any, Final

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
)
from diptych_common.responses import json_response
from diptych_store import errors as store_errors
from starlette.responses import Response
from starlette.types import Scope

log = logging.getLogger(__name__)

_UNREADABLE: Final = "The data cannot be read at the moment."
_UNWRITABLE: Final = "The data cannot be stored at the moment."
_FAILING: Final = "The store does not answer as it should at the moment."

# Where the message of the error is not for clients: it may name the object's address.
_SENTENCES: Final[dict[type[Exception], str]] = {
    store_errors.NotFound: "The data are not there.",
    store_errors.AlreadyThere: _UNWRITABLE,
    store_errors.AttemptLost: "The upload was given up.",
    store_errors.WriteDenied: _UNWRITABLE,
    store_errors.ReadDenied: _UNREADABLE,
    store_errors.BadLocation: _UNREADABLE,
    store_errors.InUse: "The data are in use.",
    store_errors.Unreachable: _FAILING,
}

# StoreError → the answer.
STORE_ANSWERS: Final[dict[type[Exception], type[ApiError]]] = {
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
ANY_ERROR: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "An error.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["code", "title", "explanation", "error"],
                    "properties": {
                        "code": {"type": "integer"},
                        "title": {"type": "string"},
                        "explanation": {"type": "string"},
                        "error": {
                            "type": "object",
                            "required": ["message", "type"],
                            "properties": {
                                "message": {"type": "string"},
                                "type": {"type": "string"},
                            },
                        },
                    },
                }
            }
        },
    }
}


class NotAcceptable(ApiError):
    """A version of the API that is not spoken here."""

    status = 406

    def __init__(self, message: str, *, oldest: str, newest: str) -> None:
        super().__init__(message)
        self.oldest = oldest
        self.newest = newest


def from_store(error: Exception) -> ApiError:
    """The answer to an error of the store library; InternalError for one that has no row.

    A driver may raise errors of its own: they are answered like the one that they are a case of.
    """
    kind = next((kind for kind in type(error).__mro__ if kind in STORE_ANSWERS), None)
    if kind is None:
        log.error("A store failed: %s", error)
        return InternalError("The store failed.")
    answer = STORE_ANSWERS[kind]
    message = _SENTENCES.get(kind)
    if message is None:
        message = str(error)
    else:
        log.warning("A store failed: %s", error)
    may_pass = issubclass(answer, ServiceUnavailable)
    return answer(message, headers=_TRY_AGAIN if may_pass else None)


def from_unreadable(error: Exception) -> ApiError:
    """The answer where the bytes of an encrypted blob, or its key, are not what was stored."""
    log.error("A blob cannot be decrypted: %s", error)
    return InternalError("The blob cannot be decrypted: it is not what was stored.")


def render(scope: Scope, error: ApiError) -> Response:
    """The fault document of an error."""
    if scope["method"] == "HEAD":
        return Response(status_code=error.status, headers=dict(error.headers))
    versions = (
        {"min_version": error.oldest, "max_version": error.newest}
        if isinstance(error, NotAcceptable)
        else {}
    )
    return json_response(
        {
            "code": error.status,
            "title": error.title,
            "explanation": (type(error).__doc__ or error.title).splitlines()[0],
            "error": {"message": error.message, "type": type(error).__name__},
            **versions,
        },
        status=error.status,
        headers=error.headers,
    )
