"""The errors that an API answers with, and which representation a client asked for.

    ApiError
    ├── BadRequest            400   the request itself is wrong
    ├── Unauthorized          401   no valid token
    ├── Forbidden             403   visible, but not allowed
    ├── NotFound              404   unknown, or not visible to the caller
    ├── MethodNotAllowed      405   known path, unknown verb
    ├── RequestTimeout        408   the client took too long to send
    ├── Conflict              409   the state does not allow it
    ├── Gone                  410   lost a race, or deleted meanwhile
    ├── TooLarge              413   a quota or a size limit
    ├── UnsupportedMediaType  415   wrong content type, or wrong content
    ├── RangeNotSatisfiable   416   no such bytes
    ├── TooManyRequests       429   a rate limit
    ├── HeaderTooLarge        431   a header beyond its limit
    ├── InternalError         500   a bug; says nothing about its cause
    ├── NotImplementedMethod  501   a verb that HTTP does not know
    └── ServiceUnavailable    503   a part this service needs is out of reach; try again

Bodies are each service's own (`api/errors.py`).
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar, Final, Literal

Representation = Literal["html", "json", "plain"]

# WebOb's words, which clients of Glance find in documents; Python's change with its release.
_PHRASES: Final = {413: "Request Entity Too Large", 416: "Request Range Not Satisfiable"}


class ApiError(Exception):
    """An answer that is not a success; the class gives the status, the message is for the client.

    `headers` are added to the answer (`Allow`, `Accept-Patch`, `Retry-After`, …).
    """

    status: ClassVar[int]

    def __init__(self, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers: Mapping[str, str] = headers or {}

    @property
    def title(self) -> str:
        """The reason phrase of the status, e.g. `Conflict`."""
        return _PHRASES.get(self.status) or HTTPStatus(self.status).phrase


class BadRequest(ApiError):
    """The request itself is wrong."""

    status = 400


class Unauthorized(ApiError):
    """No valid token."""

    status = 401


class Forbidden(ApiError):
    """Visible to the caller, but not allowed."""

    status = 403


class NotFound(ApiError):
    """Unknown, or not visible to the caller: the two are never told apart."""

    status = 404


class MethodNotAllowed(ApiError):
    """A known path with a verb it does not have; carries `Allow`."""

    status = 405


class RequestTimeout(ApiError):
    """The client sent nothing of the request's body for too long."""

    status = 408


class Conflict(ApiError):
    """The state of the resource does not allow it."""

    status = 409


class Gone(ApiError):
    """The caller lost a race, or the resource was deleted meanwhile."""

    status = 410


class TooLarge(ApiError):
    """A quota or a size limit."""

    status = 413


class UnsupportedMediaType(ApiError):
    """The content type, or the content, is not acceptable here."""

    status = 415


class RangeNotSatisfiable(ApiError):
    """The bytes asked for do not exist; carries `Content-Range: bytes */size`."""

    status = 416


class TooManyRequests(ApiError):
    """A rate limit; carries `Retry-After`."""

    status = 429


class HeaderTooLarge(ApiError):
    """A header beyond its limit."""

    status = 431


class InternalError(ApiError):
    """A bug in the service; its cause is in the log only."""

    status = 500


class NotImplementedMethod(ApiError):
    """A verb that this server does not know at all."""

    status = 501


class ServiceUnavailable(ApiError):
    """A part that the service needs is out of reach; a client may try again."""

    status = 503


def negotiate(accept: str | None) -> Representation:
    """The representation of an error for this `Accept` header.

    As WebOb negotiates between text/html and application/json, so that every existing client
    finds what it parses: absent or empty, or neither of the two accepted → plain text; `*/*`
    anywhere, or HTML at least as welcome as JSON → HTML; else JSON.

    Source: WebOb 1.8 `WSGIHTTPException.generate_response`, as Glance's clients see it.
    """
    if not accept or not accept.strip():
        return "plain"
    qualities = qualities_of(accept)
    everything = qualities.get("*/*", 0.0)
    html = qualities.get("text/html", qualities.get("text/*", everything))
    json = qualities.get("application/json", qualities.get("application/*", everything))
    # `*/*` beats a JSON preference of equal quality: clients that send `application/json, */*`
    # get HTML from Glance, and their parsers expect it.
    if html <= 0 and json <= 0:
        return "plain"
    return "html" if html >= json else "json"


def qualities_of(accept: str) -> dict[str, float]:
    """How welcome each media range of an `Accept` header is: 1 unless it says so, 0 for not at all.

    Names are lower-cased; of a range that comes twice the better one counts.
    """
    qualities: dict[str, float] = {}
    for item in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        qualities[media_range] = max(quality, qualities.get(media_range, 0.0))
    return qualities
