"""Where our service answers otherwise than Glance on purpose: all of it, with the reasons.

What is not listed here is a fault; so is what is listed and does not occur.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

ANY: Final = "(any value)"
ABSENT: Final = "(absent)"


@dataclass(frozen=True)
class Difference:
    """One part of the answers to these exchanges, as both services have it.

    Parts are named as `comparing.answer` names them, and `*` is anything; those with "after: " in
    front are of the image after the exchange. Without exchanges it is allowed in all of them.
    """

    part: str
    theirs: Any
    ours: Any
    reason: str
    exchanges: tuple[str, ...] = ()

    def covers(self, part: str, theirs: Any, ours: Any) -> bool:
        """Whether it is this that was found."""
        return fnmatchcase(part, self.part) and all(
            expected in (ANY, found)
            for expected, found in ((self.theirs, theirs), (self.ours, ours))
        )


EVERYWHERE: Final = (
    Difference(
        "header x-openstack-request-id",
        ABSENT,
        ANY,
        "every answer has an id that can be found in the log; Glance's versions and 401s have none",
    ),
    Difference("header etag", ABSENT, ANY, "caches and conditional requests need it"),
    Difference("*header vary", ABSENT, "Origin", "what depends on the origin is not to be cached"),
    Difference("header accept-ranges", ABSENT, "bytes", "RFC 9110 wants ranges to be announced"),
    Difference("header content-range", ABSENT, "bytes */800", "RFC 9110: a 416 tells the size"),
    Difference(
        "header content-type",
        "text/html; charset=UTF-8",
        ABSENT,
        "an answer without a body has no type",
    ),
    *(
        Difference(
            "header openstack-image-store-ids",
            f"{stores},os_glance_staging_store,os_glance_tasks_store",
            stores,
            "no image can be stored in the reserved stores",
        )
        for stores in ("fast,cheap", "fast,cheap,web")
    ),
)


def _status(theirs: int, ours: int, reason: str, *exchanges: str) -> Difference:
    return Difference("status", theirs, ours, reason, exchanges)


_DETAIL = (
    *(f"stores in detail, nothing, by {by}" for by in ("service", "nova", "admin")),
    "stores with the web in detail",
)


def _of_metadefs() -> tuple[Difference, ...]:
    def names(*ends: str) -> tuple[str, ...]:
        return tuple(f"metadefs: {end}" for end in ends)

    empty = names(
        *("create with empty name", "associate with empty name", "add object with empty name"),
        *("change object with empty name", "add property with empty name"),
        *("change property with empty name", "rename tag with empty name"),
    )
    confidential = names("add property with limits", "change property with limits")
    kinds = ("namespace", "namespaces", "object", "objects", "property", "properties")
    schemas = tuple(f"schema metadefs/{kind}" for kind in kinds)
    lists = names(
        *(f"objects by {query}" for query in (*("limit=1", "marker=cpu", "limit=2&marker=net"),))
    )
    return (
        Difference(
            "body*",
            ABSENT,
            ANY,
            "limits that hold, descriptions, and a field that Glance's schema forgot",
            schemas,
        ),
        Difference(
            "body.definitions.stringArray.minItems",
            1,
            ABSENT,
            "an empty list of operators or values does no harm",
            schemas[-2:],
        ),
        Difference(
            "body.properties.properties.additionalProperties.name",
            "property",
            ABSENT,
            "schemas of fields have no names",
            schemas[-1:],
        ),
        _status(
            *(404, 403, "who may not ask at all is told so: no namespace is kept from them by it"),
            *names(
                *("create, nothing, by service", "list, three namespaces, by service"),
                "resource types, full namespace, by service",
            ),
        ),
        _status(
            *(500, 400, "what the client did wrong is no error of the server"),
            *names(
                *("create a list", "create with nameless type", "create with nameless object"),
                *("create with nameless tag", "create with long tag", "list limit=x"),
                *("list sort_key=x", "update with a list", "delete all objects with a body"),
                *("delete all properties with a body", "delete all tags with a body"),
                *("associate with a list", "add object with a list", "change object with a list"),
                *("add property with a list", "change property with a list"),
                *("tags by sort_key=x", "add tags with a list", "add tags with long name"),
                *("add tags with nothing called tags", "rename tag with a list"),
            ),
        ),
        Difference("after: status", 200, 404, "it was refused", names("create with long tag")),
        _status(500, 200, "an empty marker is none", *names("list marker=")),
        _status(500, 200, "unknown parameters are ignored", *names("property by size?x=y")),
        _status(500, 409, "the name is taken", *names("rename object to another's")),
        *(
            _status(theirs, 400, "no path leads to what has an empty name", *exchanges)
            for theirs, exchanges in (
                (201, (*empty[:3], empty[4])),
                (200, (empty[3], *empty[5:])),
            )
        ),
        Difference("after: *", ANY, ANY, "it was refused", empty[1:]),
        Difference(
            "body.*",
            ABSENT,
            ANY,
            "the answer to the request is what a GET shows; Glance leaves some of it out",
            names("create full"),
        ),
        Difference(
            "header location", ANY, ANY, "a path that leads there", names("create with slash")
        ),
        Difference(
            "body.namespaces*", ANY, ANY, "an empty filter is none", names("list visibility=")
        ),
        *(
            Difference("body.objects*", ANY, ANY, "what was asked; Glance lists all", (name,))
            for name in lists
        ),
        _status(
            *(200, 404, "there is no such object; Glance lists all"),
            *names("objects by marker=absent"),
        ),
        _status(
            *(200, 400, "there is no such key; Glance does not look"),
            *names("objects by sort_key=x"),
        ),
        *(
            _status(400, ours, "a field of Glance's own model, in its documentation too", name)
            for ours, name in zip((201, 200), confidential, strict=True)
        ),
        Difference("after: *", ANY, ANY, "it was accepted", confidential),
        Difference("body.name", "grÃ¼n", "grün", "it is UTF-8", names("add tag in UTF-8")),
        Difference("after: body.tags*", "grÃ¼n", "grün", "it is UTF-8", names("add tag in UTF-8")),
        Difference(
            "body.*",
            ABSENT,
            ANY,
            "as a GET shows it, with what it has none of",
            names(
                *(
                    "add object, full namespace, by admin",
                    "change object, full namespace, by admin",
                ),
                *("add object, private namespace, by admin", "add object with all"),
                *("add object with long description", "change object with long description"),
                *("add object with required what is not there", "change object with all"),
                "change object with required what is not there",
            ),
        ),
    )


def _of_locations() -> tuple[Difference, ...]:
    def patches(*ends: str) -> tuple[str, ...]:
        return tuple(f"patch locations: {end}" for end in ends)

    def remove(where: str, *by: str) -> tuple[str, ...]:
        return patches(*(f"remove {where} of located twice by {who}" for who in by))

    twice = patches("add to located", "add at /1", "add two", "replace none by two")
    twice = (*twice, *patches("add at /0", "replace in another order", "add at /2"))
    unchanged = (
        *patches("add to located twice"),
        *remove("/0", "owner"),
        *(name for where in ("/1", "/2", "/-", "all", "/x") for name in remove(where, "owner")),
        *(name for where in ("/2", "all", "/x") for name in remove(where, "admin")),
    )
    shown = "a store is named once"
    return (
        Difference("body.stores", "web,web", "web", shown, ("show location, located twice",)),
        Difference("*body.stores", "web,web", "web", shown, twice),
        Difference("after: body.stores", "web,web", "web", shown, unchanged),
        _status(400, 206, "parts of what is on the web can be had", "download a part from the web"),
        _status(
            *(403, 400, "nobody may name it, so that is what is told"),
            *(
                f"add location with {what}"
                for what in (
                    *("an empty url", "url file:///etc/passwd", "url filesystem:///etc/passwd"),
                    *("url swift+config://x/y/z", "url nonsense", "url HTTP://127.0.0.1:1/x"),
                )
            ),
        ),
        Difference(
            "header allow",
            "POST",
            "GET, POST",
            "they can be read, too",
            tuple(f"{method} locations" for method in ("PUT", "DELETE", "PATCH", "HEAD")),
        ),
        _status(500, 400, "a body is the client's error", "locations with a body"),
        Difference(
            "*body.locations*.colour",
            "red",
            ABSENT,
            "of a location only what has a meaning is kept",
            patches("add with more"),
        ),
        Difference(
            "body.locations*.validation_data*",
            ANY,
            ABSENT,
            "what was to be compared is no part of the location, nor does a GET show it",
            patches("add with its digests", "add with a digest"),
        ),
        _status(
            *(200, 403, "readers would get other bytes under the digest of those (OSSN-0065)"),
            *patches("add to active"),
        ),
        Difference("after: body.*", ANY, ANY, "it was refused", patches("add to active")),
        _status(
            *(409, 403, "who may not is told so, whatever the status"),
            *patches("add to deactivated"),
        ),
        _status(
            200, 401, "without a method it is no preflight", "origin: preflight without a method"
        ),
    )


def _of_the_front() -> tuple[Difference, ...]:
    def media(*versions: str) -> tuple[str, ...]:
        kind = "application/vnd.openstack.images"
        return tuple(f"media type {kind}-{one} of /v2/images?tag=none" for one in versions)

    algorithms = tuple(f"create with os_hash_algo {one}" for one in ("sha512", "sha256"))
    return (
        _status(401, 200, "a document for the version is of more use", "front: GET /v2/"),
        _status(
            *(401, 300, "which versions there are needs no token"),
            *("front: GET /v2.0/", "front: GET /v2.1"),
        ),
        _status(
            *(200, 300, "it is no path of ours, and no preflight"),
            *("front: OPTIONS /", "health below"),
        ),
        *(
            _status(theirs, 200, "the path has said the version", name)
            for theirs, name in zip(
                (404, 300, 300, 300), media("v2.3", "v2.99", "v3", "v1"), strict=True
            )
        ),
        _status(
            *(200, 405, "it is no preflight"),
            *(f"verb: OPTIONS /v2/{path}" for path in ("images", "images/$id", "schemas/image")),
        ),
        _status(200, 501, "it is no preflight", "verb: OPTIONS /v2/nothing"),
        _status(
            *(405, 400, "the server reads no verbs that HTTP does not have"),
            *(f"verb: FOO /v2/{path}" for path in ("images", "images/$id", "schemas/image")),
        ),
        _status(
            *(501, 400, "the server reads no verbs that HTTP does not have"),
            "verb: FOO /v2/nothing",
        ),
        _status(500, 431, "Glance means to", "request id long"),
        _status(500, 400, "a body is the client's error", "usage with a body"),
        _status(403, 404, "it is not there, however many others there are", "leave cheap, active"),
        _status(403, 409, "there is no such store", "leave os_glance_staging_store, active"),
        Difference(
            "*body.os_hash_algo", None, ANY, "clients choose what is hashed with", algorithms
        ),
        _status(201, 400, "there is no such digest", "create with os_hash_algo nonsense"),
        Difference(
            "after: status", 200, 404, "it was refused", ("create with os_hash_algo nonsense",)
        ),
        Difference(
            "body.tasks*.message",
            "Copied 0 MiB",
            "",
            "of what succeeded there is nothing to say",
            tuple(f"tasks of imported, imported, by {one}" for one in ("owner", "reader", "admin")),
        ),
    )


DIFFERENCES: Final = (
    _status(401, 200, "a document for the version is of more use", "version without slash"),
    Difference(
        "header allow",
        "GET, PUT",
        "GET, HEAD, PUT",
        "HEAD is served, too",
        ("POST /v2/images/$id/file", "DELETE /v2/images/$id/file"),
    ),
    _status(405, 200, "HEAD is served, too", "download with HEAD"),
    Difference(
        "body.properties.*",
        ABSENT,
        ANY,
        "properties of Glance's stock schema-image.json, limits that hold, and descriptions",
        (
            *("schema image", "schema images", "schema member", "schema members"),
            *(
                f"packed: GET /v2/schemas/image as {accepted}"
                for accepted in ("gzip", "deflate", "br, gzip;q=0.5", "*")
            ),
        ),
    ),
    Difference(
        "body.properties.*",
        ANY,
        ANY,
        "tells that a value may be null, which it may in Glance, too",
        ("schema task", "schema tasks"),
    ),
    Difference("body.stores*.data_dir", ANY, ANY, "each has its own directories", _DETAIL),
    Difference("body.stores*.chunk_size", 65536, 1048576, "blocks are larger", _DETAIL),
    _status(201, 400, "a name has to have a letter", "create with an empty property name"),
    Difference(
        "after: status", 200, 404, "it was refused", ("create with an empty property name",)
    ),
    _status(400, 201, "PostgreSQL keeps any character", "create with 4-byte UTF-8"),
    Difference("after: status", 404, 200, "it was created", ("create with 4-byte UTF-8",)),
    _status(
        *(500, 400, "what the client did wrong is no error of the server"),
        *("create from a list", "list size=x", "patch property name too long", "add number"),
        *("add long member", "import by a list", "import with method as text"),
        "import from a number",
    ),
    _status(500, 204, "an image without data has no ranges", "download a range of nothing"),
    _status(400, 200, "an empty marker is none", "list marker="),
    Difference(
        "body.first",
        ANY,
        ANY,
        "all parameters are kept; Glance drops all but the last of a name",
        (
            *("list sort_key=name&sort_key=id&sort_dir=asc", "list tag=x", "list tag=x&tag=$id"),
            *("list sort_key=name&sort_key=id&sort_dir=asc&sort_dir=desc", "list tag=nothing"),
        ),
    ),
    _status(200, 400, "a pointer with an empty part is refused", "patch two slashes"),
    Difference("after: body.colour", "x", "red", "it was refused", ("patch two slashes",)),
    _status(409, 400, "a property without a name is none", "patch root"),
    Difference(
        "after: body.owner",
        ANY,
        ANY,
        "add is held to the same rules as replace: only administrators give images away",
        ("patch owner by add",),
    ),
    _status(200, 403, "which stores have the data is not for clients to say", "patch stores"),
    Difference("after: body.tags*", "grÃ¼n", "grün", "it is UTF-8", ("add tag in UTF-8",)),
    _status(404, 204, "an encoded slash is part of the tag", "add tag with a slash"),
    Difference("after: body.tags*", ANY, ANY, "it was added", ("add tag with a slash",)),
    _status(
        *(403, 404, "who may not see an image does not learn that it is there"),
        *("list members, community, by service", "list members, public, by service"),
        "add member, public, by service",
    ),
    Difference(
        "after: body.virtual_size", None, 0, "an empty disk has a size", ("upload no bytes",)
    ),
    Difference(
        "after: body.*",
        ANY,
        ANY,
        "what was refused leaves nothing; Glance leaves the data and a location",
        ("upload qcow2 as raw",),
    ),
    _status(416, 200, "RFC 9110: an unknown unit is ignored", "download lines=0-9"),
    _status(206, 416, "RFC 9110: no bytes are no range", "download bytes=-0"),
    _status(409, 400, "stores have to be a list of names", "import into stores as text"),
    _status(400, 202, "openstacksdk names the store in both places", "import into some twice"),
    Difference("after: body.*", ANY, ANY, "it was accepted", ("import into some twice",)),
    *_of_metadefs(),
    *_of_locations(),
    *_of_the_front(),
)
