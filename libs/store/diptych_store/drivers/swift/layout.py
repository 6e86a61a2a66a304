"""Names: containers and objects, and the location URIs that lead to them.

An object lies under its key, as Glance lays it out, since Ironic makes TempURLs for that name by
itself. What belongs to attempts has names that no key can be (a key begins with no dot):

    .attempts/<key>/<token>            there is such an attempt, and it isn't published
    .attempts/<key>/<token>/discarding somebody is removing it
    .segments/<key>/<token>/<number>   its bytes, which the object's manifest will name
    .parts/<key>/<token>/<number>      its bytes as they came by presigned URLs

So unpublished attempts are listed without a look at any object. A number has eight digits: names
are listed in the order of their bytes.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from diptych_store.errors import BadLocation
from diptych_store.locations import check_attempt, check_key, for_display
from diptych_store.protocol import Attempt

ATTEMPTS = ".attempts/"
SEGMENTS = ".segments/"
PARTS = ".parts/"

_URI = re.compile(r"swift(\+http|\+https|\+config)?://([^?#\s\0]+)")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]+)?")
_REFERENCE = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Location:
    """What a location URI says, a secret left out.

    Either `reference` names credentials, or `url` is the address of an authority (`user` is then
    mostly there, `project:user`) or the storage URL of an account; which one, it doesn't say.
    """

    container: str
    key: str
    reference: str = ""
    url: str = ""
    user: str = ""


def parse_location(location: str) -> Location:
    """Read any form that Glance has written; raises BadLocation.

    Sources: glance_store 5.7, `_drivers/swift/store.py` StoreLocation; images-api 4.2.
    """
    match = _URI.fullmatch(location)
    if match is None:
        raise _bad(location)
    scheme, rest = match[1], match[2]
    # A password may hold a slash, which Glance does not encode; names have no bare `@`.
    credentials, at, rest = rest.rpartition("@")
    place, _, key_part = rest.rpartition("/")
    place, _, container_part = place.rpartition("/")
    container, key = unquote(container_part), unquote(key_part)
    if not place or not container or container_part not in (container, _quoted(container)):
        raise _bad(location)
    # One spelling of each key: what was not made here must not pass for it.
    if "/" in container or key_part != _quoted(key):
        raise _bad(location)
    check_key(key)
    if scheme == "+config":
        if at or _REFERENCE.fullmatch(place) is None:
            raise _bad(location)
        return Location(container=container, key=key, reference=place)
    host, *path = place.split("/")
    # Swift takes a path apart when it is decoded: an encoded slash would lead elsewhere.
    steps = [unquote(part) for part in path]
    if _HOST.fullmatch(host) is None or any(
        step in ("", ".", "..") or "/" in step for step in steps
    ):
        raise _bad(location)
    user, colon, _ = credentials.rpartition(":")
    if at and not colon:
        raise _bad(location)
    return Location(
        container=container,
        key=key,
        url=f"{'http' if scheme == '+http' else 'https'}://{place}",
        user=unquote(user),
    )


def reference_location(reference: str, container: str, key: str) -> str:
    """The location by a reference: glance_store reads it without a file of references too."""
    return f"swift+config://{reference}/{_quoted(container)}/{_quoted(key)}"


def storage_location(storage_url: str, container: str, key: str) -> str:
    """The location in an account of its own, as a multi-tenant glance_store writes it."""
    return f"swift+{storage_url}/{_quoted(container)}/{_quoted(key)}"


def path_of(container: str, name: str | None = None) -> str:
    """The percent-encoded path of a container or of an object in it, below the storage URL."""
    path = f"/{_quoted(container)}"
    return path if name is None else f"{path}/{quote(name, safe='/')}"


def seeded_container(base: str, key: str, seed: int) -> str:
    """The container of a key by `swift_store_multiple_containers_seed`.

    So many characters of the id, dashes not counted but kept. Source: glance_store 5.7,
    SingleTenantStore.get_container_name; Ironic computes the same.
    """
    if not seed:
        return base
    lowered = key.lower()
    return f"{base}_{lowered[: seed + lowered[:seed].count('-')]}"


def is_container_of(container: str, base: str, key: str) -> bool:
    """Whether a single-tenant store has ever kept the key there, whatever the seed was then."""
    return any(container == seeded_container(base, key, seed) for seed in range(33))


def user_container(base: str, key: str) -> str:
    """The container of a key in the account of its project: each image has one of its own."""
    return f"{base}_{key}"


def marker(attempt: Attempt) -> str:
    """The name of the object that says that the attempt is there."""
    return f"{ATTEMPTS}{attempt.key}/{attempt.token}"


def discarding(attempt: Attempt) -> str:
    """The name of the object that says that the attempt is being discarded."""
    return f"{marker(attempt)}/discarding"


def segments(attempt: Attempt) -> str:
    """What the names of an attempt's segments begin with."""
    return f"{SEGMENTS}{attempt.key}/{attempt.token}/"


def parts(attempt: Attempt) -> str:
    """What the names of an attempt's parts by URL begin with."""
    return f"{PARTS}{attempt.key}/{attempt.token}/"


def numbered(prefix: str, number: int) -> str:
    """The name of the segment or part of that number, from 1 on."""
    return f"{prefix}{number:08}"


def number_of(name: str) -> int | None:
    """The number in such a name; None for a name that is no such."""
    digits = name.rpartition("/")[2]
    return int(digits) if len(digits) == 8 and digits.isdecimal() else None


def attempt_of(name: str) -> Attempt | None:
    """The attempt that a marker or a part is of; None for what others have put there."""
    pieces = name.split("/")
    if len(pieces) < 3:
        return None
    try:
        return check_attempt(Attempt(key=pieces[1], token=pieces[2]))
    except BadLocation:
        return None


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _bad(location: str) -> BadLocation:
    return BadLocation(f"{for_display(location)} is not the location of an object in Swift.")
