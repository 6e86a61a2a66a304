"""Locations of objects in S3: every form that Glance has written, and the one that is written now.

`s3://host/bucket/key` and `s3+https://host/bucket/key`; before 2026 with `access:secret@` in front
of the host, verbatim, so that a slash or an `@` of the secret is in there too. `s3+http://` was
never written by Glance, which reads it all the same.

Source: glance_store 5.7 and 4.6, _drivers/s3.py, StoreLocation.
"""

import re
from dataclasses import dataclass

from diptych_store.errors import BadLocation
from diptych_store.locations import check_key, for_display

_URI = re.compile(r"(?:s3|s3\+http|s3\+https)://(.+)/([^/]+)/([^/]+)", re.DOTALL)
_CREDENTIALS = re.compile(r"[^:/]+:.+", re.DOTALL)
# A server may be behind a path; an empty step or `..` in one is nobody's.
_HOST = re.compile(r"[^\s/@?#\\]+(?:/(?!\.{1,2}(?:/|$))[^\s/@?#\\]+)*")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class S3Location:
    """An object of a bucket of a server; `host` may have a port and a path, and has no scheme."""

    host: str
    bucket: str
    key: str


def parse_location(location: str) -> S3Location:
    """Host, bucket and key, verbatim; credentials are dropped unread. Raises BadLocation."""
    match = _URI.fullmatch(location)
    # Glance refuses a second scheme as well: somebody has put a URL into `s3_store_host`.
    if match is None or location.count("://") != 1:
        raise _bad(location)
    place, bucket, key = match.groups()
    # A host has no `@`, so the last one ends the secret, whatever that is made of. One in the key
    # is none of these: the key was cut off before.
    credentials, at, host = place.rpartition("@")
    if at and _CREDENTIALS.fullmatch(credentials) is None:
        raise _bad(location)
    if _HOST.fullmatch(host) is None or _BUCKET.fullmatch(bucket) is None:
        raise _bad(location)
    return S3Location(host=host, bucket=bucket, key=check_key(key))


def written(endpoint: str, bucket: str, key: str) -> str:
    """The location as glance_store 5.7 writes it: a host that is not https is simply `s3`."""
    scheme = "s3+https" if endpoint.startswith("https://") else "s3"
    return f"{scheme}://{host_of(endpoint)}/{bucket}/{key}"


def host_of(endpoint: str) -> str:
    """The server's URL, or what an operator wrote for it, without scheme and outer slashes."""
    return endpoint.removeprefix("https://").removeprefix("http://").strip("/")


def same_host(one: str, other: str) -> bool:
    """Whether two names of a server are the same: a default port may be left out."""
    return _plain(one) == _plain(other)


def _plain(host: str) -> str:
    authority, slash, path = host.partition("/")
    return re.sub(r":(?:80|443)$", "", authority.lower()) + slash + path


def _bad(location: str) -> BadLocation:
    return BadLocation(f"{for_display(location)} is not the location of an object in S3.")
