"""Temporary URLs: what Swift's tempurl middleware lets whoever holds one do.

Source: Swift 2.38, common/middleware/tempurl.py.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from urllib.parse import quote, unquote, urlsplit

# Best first. SHA-1 is for clusters that know no other; new ones refuse it.
_DIGESTS = ("sha256", "sha512", "sha1")


def key_in(headers: Mapping[str, str], *, level: str) -> str:
    """The key in the metadata of an account or a container (`level`); empty if none is set."""
    for name in (f"X-{level}-Meta-Temp-Url-Key", f"X-{level}-Meta-Temp-Url-Key-2"):
        if headers.get(name):
            return headers[name]
    return ""


def digest_of(allowed: Sequence[str]) -> str:
    """The digest to sign with, of those that the cluster allows (empty: it doesn't say)."""
    return next((name for name in _DIGESTS if name in allowed), _DIGESTS[0])


def sign(
    storage_url: str, path: str, *, method: str, key: str, digest: str, expires: timedelta
) -> str:
    """The URL of an object for a method (GET is good for HEAD too).

    `path` is the percent-encoded one below the storage URL. The signature is of the decoded path.
    """
    parts = urlsplit(storage_url + path)
    until = int(time.time() + expires.total_seconds())
    signed = f"{method}\n{until}\n{unquote(parts.path)}".encode()
    signature = hmac.new(key.encode(), signed, getattr(hashlib, digest)).hexdigest()
    return f"{storage_url}{path}?temp_url_sig={quote(signature)}&temp_url_expires={until}"
