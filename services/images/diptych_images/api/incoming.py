"""What requests that bring bytes have in common: how they announce them, and on whose behalf."""

from urllib.parse import unquote

from diptych_common.errors import BadRequest, UnsupportedMediaType
from fastapi import Request

_MANY_DIGITS = 30


def user_token(request: Request) -> str | None:
    """The caller's token as it came, for servers that act for users; never to be logged."""
    return request.headers.get("x-auth-token") or request.headers.get("x-storage-token")


def named_store(request: Request) -> str:
    """The store that `X-Image-Meta-Store` names, whether there is such a one or not; or ''."""
    # glanceclient quotes the values of its headers.
    return unquote(request.headers.get("x-image-meta-store", ""))


def require_octet_stream(request: Request) -> None:
    """Raise UnsupportedMediaType unless the body is told to be bytes."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/octet-stream":
        raise UnsupportedMediaType(
            f"Data is sent as application/octet-stream, not as {content_type or 'nothing'}."
        )


def announced_size(request: Request) -> int | None:
    """The number of bytes that the client announces, None if it does not; or BadRequest.

    `Content-Length: 0` announces nothing: Glance's clients send it for an empty image and for
    one of unknown size alike.
    """
    length = int(request.headers.get("content-length", "0")) or None
    announced = request.headers.get("x-openstack-image-size")
    if announced is None:
        return length
    # int() refuses thousands of digits with an error of its own; no size has as many as this.
    if not (announced.isascii() and announced.isdecimal() and len(announced) <= _MANY_DIGITS):
        raise BadRequest("x-openstack-image-size must be a number of bytes.")
    if length is not None and int(announced) != length:
        raise BadRequest(
            f"x-openstack-image-size announces {announced} bytes, Content-Length {length}."
        )
    return int(announced)
