"""Location URIs and object keys: what may be in them, and how they are shown to people.

A location is stored and compared as it was written, never percent-decoded: Glance writes file
paths verbatim, and its rows must keep their meaning.
"""

import re

from diptych_store.errors import BadLocation

# Room for the token of an attempt beside it in a file name of at most 255 bytes.
LONGEST_KEY = 200

_FILE = re.compile(r"(?:file|filesystem)://(/.*)", re.DOTALL)
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_TOKEN = re.compile(r"[0-9A-Za-z-]{1,50}")


def check_key(key: str) -> str:
    """Return the key of an object if it can be one, in every store alike.

    1 to 200 bytes of UTF-8; no slash, no control character, no leading dot. Raises BadLocation.
    """
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise BadLocation("The key of an object has to be valid Unicode.") from None
    if not 0 < length <= LONGEST_KEY:
        raise BadLocation(f"The key of an object has 1 to {LONGEST_KEY} bytes, not {length}.")
    if key.startswith(".") or "/" in key or not key.isprintable():
        raise BadLocation(f"{key!r} cannot be the key of an object.")
    return key


def check_token(token: str) -> str:
    """Return the token of an attempt if it can be one (a UUID can); raises BadLocation."""
    if _TOKEN.fullmatch(token) is None:
        raise BadLocation(f"{token!r} cannot be the token of an attempt.")
    return token


def file_location(directory: str, key: str) -> str:
    """The location of a file, as Glance writes it: the path verbatim after `file://`."""
    return f"file://{directory}/{key}"


def split_file_location(location: str) -> tuple[str, str]:
    """Directory and key of a `file://` or `filesystem://` location; raises BadLocation.

    The directory is compared by the caller with its own; it is not normalised, so that no spelling
    of another place can pass for it.
    """
    match = _FILE.fullmatch(location)
    if match is None:
        raise BadLocation(f"{for_display(location)} is not the location of a file.")
    directory, _, key = match[1].rpartition("/")
    return directory, check_key(key)


def for_display(location: str) -> str:
    """The location without credentials, query and fragment: for logs, messages and people.

    Old S3 and Swift locations hold a secret that may contain a slash, so in those everything up to
    the last `@` is hidden once there is a colon in front of it, even if it was only a port.
    """
    match = _URI.fullmatch(location)
    if match is None:
        return "(not a location)"
    scheme, rest = match[1], match[2]
    rest = re.split(r"[?#]", rest, maxsplit=1)[0] if scheme not in ("file", "filesystem") else rest
    if scheme.startswith(("s3", "swift")):
        secret, at, shown = rest.rpartition("@")
        if at and ":" in secret:
            return f"{scheme}://***@{shown}"
    authority, slash, path = rest.partition("/")
    _, at, host = authority.rpartition("@")
    return f"{scheme}://{'***@' if at else ''}{host}{slash}{path}"
