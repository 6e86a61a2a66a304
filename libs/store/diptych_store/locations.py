"""Location URIs and object keys: what may be in them, and how they are shown to people.

A location is stored and compared as it was written, never percent-decoded: Glance writes file
paths verbatim, and its rows must keep their meaning.
"""

import re

from diptych_store.errors import BadLocation
from diptych_store.protocol import Attempt

# Room for the token of an attempt beside it in a file name of at most 255 bytes.
LONGEST_KEY = 200

_FILE = re.compile(r"(?:file|filesystem)://(/.*)", re.DOTALL)
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
# Forms that have no place for credentials; `?` and `@` are part of names there.
_VERBATIM = frozenset({"file", "filesystem", "rbd", "cinder", "vsphere"})
_ENDS_PATH = re.compile(r"[?#]")
_ENDS_AUTHORITY = re.compile(r"[/?#]")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^:/?#@\[\]]*)(?::[0-9]*)?")
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


def check_attempt(attempt: Attempt) -> Attempt:
    """Return the attempt if its key and its token (a UUID, say) can be ones; raises BadLocation."""
    check_key(attempt.key)
    if _TOKEN.fullmatch(attempt.token) is None:
        raise BadLocation(f"{attempt.token!r} cannot be the token of an attempt.")
    return attempt


def attempt_name(attempt: Attempt) -> str:
    """`<token>.<key>`, which is short enough for a file; raises BadLocation as `check_attempt`."""
    check_attempt(attempt)
    return f"{attempt.token}.{attempt.key}"


def attempt_named(name: str) -> Attempt:
    """The attempt of which `attempt_name` makes this; raises BadLocation if there is none."""
    token, _, key = name.partition(".")
    return check_attempt(Attempt(key=key, token=token))


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

    Old S3 and Swift locations hold a secret that may contain slashes, colons and `@`, and whoever
    registered a URL may have forgotten to encode a password. So everything up to the last `@` is
    hidden once there is a colon in front of it, even if it was only a port, and everything at all
    where a query and such a password cannot be told apart.
    """
    match = _URI.fullmatch(location)
    if match is None:
        return "(not a location)"
    scheme, rest = match[1], match[2]
    if scheme.lower() in _VERBATIM:
        return location
    hidden, shown = _without_what_may_be_secret(rest)
    return f"{scheme}://{'***@' if hidden and shown else '***' if hidden else ''}{shown}"


def without_credentials(location: str) -> str:
    """The same location as an API may show it; empty where that cannot be told.

    What names the object is kept as it was written. User and password go, and of a URL the query
    and fragment too, because a signed URL is a credential itself.
    """
    match = _URI.fullmatch(location)
    if match is None:
        return ""
    scheme, rest = match[1], match[2]
    match scheme.lower():
        case kind if kind in _VERBATIM:
            return location
        case "http" | "https":
            # A path may have an `@` here, which ends no password: clients read URLs strictly.
            authority = _ENDS_AUTHORITY.split(rest, maxsplit=1)[0]
            _, _, host = authority.rpartition("@")
            if _HOST.fullmatch(host) is None:  # then it is part of a password with a slash
                return ""
            return f"{scheme}://{host}{_without_query(rest[len(authority) :])}"
        case _:
            _, shown = _without_what_may_be_secret(rest)
            return f"{scheme}://{shown}" if shown else ""


def _without_what_may_be_secret(rest: str) -> tuple[bool, str]:
    """Whether something was taken away in front, and what is left; nothing if that is safer."""
    before, at, after = rest.rpartition("@")
    if at and (":" in before or _ENDS_AUTHORITY.search(before) is None):
        return True, "" if _ENDS_PATH.search(before) else _without_query(after)
    return False, _without_query(rest)


def _without_query(text: str) -> str:
    return _ENDS_PATH.split(text, maxsplit=1)[0]
