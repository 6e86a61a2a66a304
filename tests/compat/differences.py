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
    Difference("header accept-ranges", ABSENT, "bytes", "RFC 9110 wants ranges to be announced"),
    Difference("header content-range", ABSENT, "bytes */800", "RFC 9110: a 416 tells the size"),
    Difference(
        "header content-type",
        "text/html; charset=UTF-8",
        ABSENT,
        "an answer without a body has no type",
    ),
    Difference(
        "header openstack-image-store-ids",
        "fast,cheap,os_glance_staging_store,os_glance_tasks_store",
        "fast,cheap",
        "no image can be stored in the reserved stores",
    ),
)


def _status(theirs: int, ours: int, reason: str, *exchanges: str) -> Difference:
    return Difference("status", theirs, ours, reason, exchanges)


_DETAIL = tuple(f"stores in detail, nothing, by {by}" for by in ("service", "nova", "admin"))
_QUOTAS = ("create with too many tags", "create with too many properties")
_PLAIN = "was taken for an error that is plain text always; Glance answers JSON on request"

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
    Difference("body first line", ABSENT, "", "no words in an answer to HEAD", ("show with HEAD",)),
    Difference(
        "body.properties.*",
        ABSENT,
        ANY,
        "properties of Glance's stock schema-image.json, limits that hold, and descriptions",
        ("schema image", "schema images", "schema member", "schema members"),
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
    Difference("header content-type", ANY, ANY, _PLAIN, (*_QUOTAS, "upload into nowhere")),
    Difference("body*", ANY, ANY, _PLAIN, (*_QUOTAS, "upload into nowhere")),
    _status(
        *(500, 400, "what the client did wrong is no error of the server"),
        *("create from a list", "list size=x", "patch property name too long", "add number"),
        *("add long member", "import by a list", "import with method as text"),
        "import from a number",
    ),
    _status(500, 204, "an image without data has no ranges", "download a range of nothing"),
    Difference(
        "body.stores",
        ABSENT,
        "fast",
        "where a deactivated image's data is can be seen still; Glance empties its locations",
        ("show deactivated", "patch a deactivated image"),
    ),
    Difference(
        "body.stores",
        "fast,cheap",
        "cheap,fast",
        "stores of equal weight are in the order of their names",
        ("show in two stores",),
    ),
    Difference(
        "after: body.stores",
        "fast,cheap",
        "cheap,fast",
        "stores of equal weight are in the order of their names",
        ("import copy to all, nothing to do",),
    ),
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
    _status(200, 400, "as of other requests, a body is refused", "list with a body"),
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
    _status(
        *(404, 403, "a member may not remove another; that it exists was no secret to the owner"),
        "remove member, shared with two, by stranger",
        "remove member, shared with two, by nova",
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
    *(
        Difference(
            f"body.{name}",
            ANY,
            ANY,
            "the phrase of HTTP's standard",
            ("download bytes=800-", "download bytes=9-0", "download bytes=x"),
        )
        for name in ("code", "title")
    ),
    _status(400, 200, "the parameter is not known yet", "download, preferring nowhere"),
    _status(
        *(409, 400, "stores have to be a list of names"),
        *("import into stores as text", "import into no stores"),
    ),
    _status(400, 202, "openstacksdk names the store in both places", "import into some twice"),
    Difference("after: body.*", ANY, ANY, "it was accepted", ("import into some twice",)),
)
