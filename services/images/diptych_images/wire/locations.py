"""Locations that clients name: what they send, what a PATCH of them comes to, what they see.

Source: Glance 33.0, api/v2/images.py and schema of add_location; Images API reference, "Locations".
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, cast

from diptych_common.errors import BadRequest, Conflict, Forbidden, TooLarge
from diptych_store.locations import without_credentials

from diptych_images.db.images import ImageRow, LocationRow
from diptych_images.wire import imports
from diptych_images.wire.image import too_many
from diptych_images.wire.patch import Operation

_LONGEST_URL: Final = 255
_LONGEST_NAME: Final = 255
# Of files of the host, and of credentials that the operator keeps in a file.
# Source: Glance 33.0, common/store_utils.py `RESTRICTED_URI_SCHEMAS`; CVE-2014-9493, CVE-2015-1195.
_NEVER: Final = frozenset({"file", "filesystem", "swift+config"})
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://[^\s\\]+")
_POSITION: Final = re.compile(r"[0-9]{1,9}")
_MD5: Final = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True, slots=True)
class NewLocation:
    """A request to register where a queued image's bytes are.

    `expected` is the algorithm and the digest, in lower case, that they must have. `store` is the
    name of a store, which Cinder sends in `validation_data`.
    """

    url: str
    expected: tuple[str, str] | None
    store: str | None


@dataclass(frozen=True, slots=True)
class LocationJob:
    """What the job is told that takes the digests of what is at a location.

    With `expected`, the image becomes active when the bytes have that digest; without, it is.
    `os_hash_algo` is what the image had before, the choice of its creation.
    """

    task_id: str
    image_id: str
    location_id: int
    algorithm: str
    expected: str | None
    size: int
    request_id: str | None
    os_hash_algo: str | None = None

    def payload(self) -> dict[str, object]:
        """The payload of the job in the database."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def read(cls, payload: Mapping[str, Any]) -> Self:
        """The job of such a payload."""
        return cls(**payload)


def parse(body: object) -> NewLocation:
    """Check what can be checked without the image; raises BadRequest."""
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    given = cast("dict[str, object]", body)
    url = given.get("url")
    if not isinstance(url, str) or not url:
        raise BadRequest("A location needs a url.")
    if len(url) > _LONGEST_URL:
        raise BadRequest(f"The url of a location has {_LONGEST_URL} characters at most.")
    data = given.get("validation_data", {})
    if not isinstance(data, dict):
        raise BadRequest("validation_data must be an object.")
    validation = dict(cast("dict[str, object]", data))
    store = validation.pop("store", None)
    if store is not None and (not isinstance(store, str) or len(store) > _LONGEST_NAME):
        raise BadRequest("The store in validation_data must be a name.")
    return NewLocation(
        url=url, expected=imports.digest_told(validation) if validation else None, store=store
    )


def scheme(url: str) -> str:
    """The scheme of a location that a client may name, in lower case; raises BadRequest.

    Written plainly: no white space, control character or backslash, which somebody who reads the
    URL later could see another scheme or host behind.
    """
    match = _URL.fullmatch(url)
    if match is None or not url.isascii() or not url.isprintable():
        raise invalid()
    kind = match[1].lower()
    if kind in _NEVER:
        raise invalid()
    return kind


def invalid() -> BadRequest:
    """The answer to a location that nobody may name here, whatever the reason."""
    return BadRequest("The location is invalid: no store takes locations of this kind.")


def too_many_locations(quota: int) -> TooLarge:
    """The answer to one location too many."""
    return too_many("locations", quota)


def document(locations: Sequence[LocationRow]) -> list[dict[str, object]]:
    """Locations as clients see them; one that cannot be told from its credential is left out."""
    return [
        {"url": url, "metadata": location["metadata"]}
        for location in locations
        if (url := without_credentials(location["url"]))
    ]


# --- PATCH ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What was found at a URL: its store, the URL as it is kept, the number of bytes.

    `is_removed` if the service deletes the bytes when the location goes. `told` is what clients
    see beside it whatever they said.
    """

    store: str
    url: str
    size: int
    is_removed: bool
    told: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Entry:
    """One location as it will be; `id` is None for a new one."""

    id: int | None
    store: str
    url: str
    metadata: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class LocationChanges:
    """What operations on locations come to.

    `described` have other metadata by their ids. Of `released` the bytes are to be removed, of
    `forgotten` another location has the same. `values` are the columns that the image gets.
    """

    added: tuple[Entry, ...] = ()
    described: Mapping[int, Mapping[str, object]] = field(default_factory=dict[int, Any])
    released: tuple[int, ...] = ()
    forgotten: tuple[int, ...] = ()
    values: Mapping[str, object] = field(default_factory=dict[str, object])


def new_urls(operations: Sequence[Operation], *, has_locations: bool) -> list[str]:
    """The URLs that the operations would add, each once."""
    return list(
        dict.fromkeys(
            cast(str, value["url"])
            for operation in operations
            if operation.op == "add" or (operation.op == "replace" and not has_locations)
            for value in _values(operation)
        )
    )


def apply(
    row: ImageRow,
    operations: Sequence[Operation],
    *,
    locations: Sequence[LocationRow],
    found: Mapping[str, Found],
    algorithm: str,
    quota: int,
) -> LocationChanges:
    """Work out, in order, what operations on locations do to the image.

    `locations` are the image's in the order in which clients see them, `found` what is at the URLs
    of `new_urls`. `algorithm` is the digest of this site's images. Raises Conflict for a status or
    a digest that stands against it, Forbidden for the last location, TooLarge beyond the quota and
    BadRequest for the rest.
    """
    entries = [
        Entry(one["id"], one["store"], one["url"], one["metadata"])
        for one in locations
        if without_credentials(one["url"])
    ]
    kept = [one["url"] for one in locations if not without_credentials(one["url"])]
    before = {entry.id: entry for entry in entries}
    status, size = row["status"], row["size"]
    told: list[dict[str, Any]] = []
    for operation in operations:
        if status not in (("active",) if operation.op == "remove" else ("queued", "active")):
            raise Conflict(f"The locations of an image that is {row['status']} cannot be changed.")
        if operation.op == "remove":
            if len(entries) + len(kept) == 1:
                # Without its last one it could be given other bytes: CVE-2016-0757.
                raise Forbidden("The last location of an image cannot be removed.")
            entries.pop(_position(operation.path[1], len(entries)))
            continue
        values = _values(operation)
        told += values
        if operation.op == "replace" and not values:
            raise Forbidden("The last location of an image cannot be removed.")
        if operation.op == "replace" and (entries or kept):
            entries = _described(entries, values)
            continue
        at = _position(operation.path[1], None) if operation.op == "add" else len(entries)
        for value in values:
            entry, size = _new(value, entries, found, size)
            entries.insert(at, entry)
            at += 1
        status = "active"
    count = len(entries) + len(kept)
    if count > len(locations) and 0 <= quota < count:
        raise too_many_locations(quota)
    columns = _digests(row, told, algorithm=algorithm)
    if status != row["status"]:
        columns |= {"status": status, "size": size}
    after = {entry.id: entry for entry in entries}
    gone = [entry for key, entry in before.items() if key not in after]
    shared = {entry.url for entry in entries}
    return LocationChanges(
        added=tuple(entry for entry in entries if entry.id is None),
        described={
            key: after[key].metadata
            for key, entry in before.items()
            if key is not None and key in after and after[key].metadata != entry.metadata
        },
        released=_ids(entry for entry in gone if entry.url not in shared),
        forgotten=_ids(entry for entry in gone if entry.url in shared),
        values=columns,
    )


def _ids(entries: Any) -> tuple[int, ...]:
    return tuple(entry.id for entry in entries)


def _values(operation: Operation) -> list[dict[str, Any]]:
    """The locations in an operation that has been checked against the schema."""
    match operation.op:
        case "add":
            return [operation.value]
        case "replace":
            return operation.value
        case "remove":
            return []


def _position(name: str, count: int | None) -> int:
    """The index that is named, `-` for the last one; any will do where `count` is None."""
    if name == "-":
        index = _BEHIND if count is None else count - 1
    elif _POSITION.fullmatch(name):
        index = int(name)
    else:
        raise BadRequest("The place of a location must be its number, from 0 on, or -.")
    if count is not None and index >= count:
        raise BadRequest(f"The image has no location {index}.")
    return index


_BEHIND: Final = 10**9


def _described(entries: list[Entry], values: Sequence[Mapping[str, Any]]) -> list[Entry]:
    """The same locations with other metadata."""
    shown = [without_credentials(entry.url) for entry in entries]
    named = [without_credentials(value["url"]) for value in values]
    if Counter(shown) != Counter(named):
        raise BadRequest("The locations of an image cannot be replaced by others.")
    changed: list[Entry] = []
    for value, url in zip(values, named, strict=True):
        at = shown.index(url)
        shown.pop(at)
        entry = entries.pop(at)
        # Which store it is is not the client's to say.
        store = {key: part for key, part in entry.metadata.items() if key == "store"}
        changed.append(replace(entry, metadata={**value["metadata"], **store}))
    return changed


def _new(
    value: Mapping[str, Any],
    entries: Sequence[Entry],
    found: Mapping[str, Found],
    size: int | None,
) -> tuple[Entry, int]:
    """The location that a client adds, and the image's size with it."""
    there = found.get(value["url"])
    if there is None:
        raise Conflict("The image was changed by another request.")
    metadata = {**value["metadata"], **there.told}
    for entry in entries:
        # To remove one of two that have the same bytes would take the other's.
        if entry.url == there.url and (there.is_removed or entry.metadata == metadata):
            raise BadRequest("The image has this location already.")
    if size is not None and there.size != size:
        # Not in Glance. Downloads would be of another length than the image says.
        raise BadRequest(f"There are {there.size} bytes at the location, the image has {size}.")
    return Entry(None, there.store, there.url, metadata), there.size


def _digests(
    row: ImageRow, values: Sequence[Mapping[str, Any]], *, algorithm: str
) -> dict[str, object]:
    """The columns that `validation_data` sets; raises Conflict."""
    told: dict[str, str] = {}
    for value in values:
        for name, given in cast("dict[str, str]", value.get("validation_data", {})).items():
            word = given.lower()
            if told.setdefault(name, word) != word:
                raise Conflict(f"The locations have different values of {name}.")
    has = cast("Mapping[str, object]", row)
    for name in told:
        if has[name] is not None and has[name] != told[name]:
            raise Conflict(f"The image has another {name}.")
    new = {name: given for name, given in told.items() if has[name] is None}
    if not new:
        return {}
    if row["status"] != "queued":
        raise Conflict("The digests of an image are set while it is queued.")
    if told["os_hash_algo"] != algorithm:
        raise Conflict(f"os_hash_algo must be {algorithm} here.")
    digits = hashlib.new(algorithm).digest_size * 2
    if re.fullmatch(rf"[0-9a-f]{{{digits}}}", told["os_hash_value"]) is None:
        raise Conflict(f"os_hash_value of {algorithm} must be {digits} hexadecimal digits.")
    if "checksum" in told and _MD5.fullmatch(told["checksum"]) is None:
        raise Conflict("checksum must be 32 hexadecimal digits.")
    return dict(new)


ADD_OPENAPI: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["url"],
                    "properties": {
                        "url": {"type": "string", "maxLength": _LONGEST_URL},
                        "validation_data": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {
                                "os_hash_algo": {
                                    "type": "string",
                                    "enum": ["sha1", "sha256", "sha512", "md5"],
                                },
                                "os_hash_value": {"type": "string", "maxLength": 128},
                                "store": {
                                    "type": "string",
                                    "description": "The store that the location is of; for other"
                                    " services.",
                                },
                            },
                        },
                    },
                }
            }
        },
    },
    "responses": {
        "202": {"description": "The image has the location, or will when it was checked."}
    },
}

LIST_OPENAPI: Final[dict[str, Any]] = {
    "responses": {
        "200": {
            "description": "The locations, those that are read first in front.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["url", "metadata"],
                            "properties": {
                                "url": {"type": "string"},
                                "metadata": {"type": "object"},
                            },
                        },
                    }
                }
            },
        }
    }
}
