"""The requests about images that are sent to Glance and to our service, as data: see `form`."""

from itertools import chain
from typing import Any, Final

from tests.compat.form import EVERYBODY, Exchange, by_all, one
from tests.compat.front import FRONT
from tests.compat.metadefs import METADEFS
from tests.compat.states import DATA, DETAILS, V2_0, V2_1


def _creating(how: str, /, **fields: Any) -> Exchange:
    return Exchange(name=f"create {how}", request="POST /v2/images", body={"id": "$id", **fields})


def _sent(
    name: str,
    body: Any,
    given: str = "detailed",
    by: str = "owner",
    media: str | None = V2_1,
) -> Exchange:
    return Exchange(
        name=f"patch {name}",
        request="PATCH /v2/images/$id",
        body=body,
        given=given,
        by=by,
        headers={"Content-Type": media},
    )


def _changing(name: str, *operations: Any, given: str = "detailed", by: str = "owner") -> Exchange:
    return _sent(name, [_operation(one) for one in operations], given=given, by=by)


def _operation(said: Any) -> Any:
    """`("add", "/name", value)` as the document has it."""
    if not isinstance(said, tuple):
        return said
    return dict(zip(("op", "path", "value"), said, strict=False))


def _listing(query: str, by: str = "owner") -> Exchange:
    """A list of the three images of the state, or what is wrong with the question."""
    return Exchange(
        name=f"list {query}" + ("" if by == "owner" else f" by {by}"),
        request=f"GET /v2/images?tag=$id&{query}" if query else "GET /v2/images?tag=$id",
        given="three",
        by=by,
    )


VERSIONS: Final = (
    *one("root", "GET /", by="anonymous"),
    *one("versions", "GET /versions", by="anonymous"),
    *one("versions below", "GET /versions/v2", by="anonymous"),
    *one("unknown first segment", "GET /v1/images", by="anonymous"),
    *one("version without slash", "GET /v2", by="anonymous"),
    *one("minor version as alias", "GET /v2.0/images?tag=none"),
    *one("minor version not offered", "GET /v2.99/images"),
    *one(
        "version by media type",
        "GET /images?tag=none",
        headers={"Accept": "application/vnd.openstack.images-v2"},
    ),
    *one("health", "GET /healthcheck", by="anonymous"),
    *one("unknown path", "GET /v2/nothing"),
    *one("unknown path below an image", "GET /v2/images/$id/nothing", "queued"),
    *one("images with a slash", "GET /v2/images/"),
)

METHODS_NOT_ALLOWED: Final = tuple(
    Exchange(name=f"{method} {path}", request=f"{method} {path}", given="queued")
    for method, path in (
        ("PUT", "/v2/images"),
        ("DELETE", "/v2/images"),
        ("PATCH", "/v2/images"),
        ("POST", "/v2/images/$id"),
        ("PUT", "/v2/images/$id"),
        ("POST", "/v2/images/$id/file"),
        ("DELETE", "/v2/images/$id/file"),
        ("GET", "/v2/images/$id/stage"),
        ("GET", "/v2/images/$id/import"),
        ("GET", "/v2/images/$id/actions/deactivate"),
        ("PUT", "/v2/images/$id/members"),
        ("POST", "/v2/images/$id/members/$member"),
        ("GET", "/v2/images/$id/tags/a"),
        ("POST", "/v2/schemas/image"),
        ("POST", "/v2/info/import"),
        ("DELETE", "/v2/info/stores"),
        ("DELETE", "/v2/tasks/$absent"),
        ("PUT", "/v2/tasks"),
    )
)

SCHEMAS: Final = tuple(
    chain.from_iterable(
        one(f"schema {name}", f"GET /v2/schemas/{name}")
        for name in (
            *("image", "images", "member", "members", "task", "tasks", "import", "nothing"),
        )
    )
)

INFO: Final = (
    *by_all("import methods", "GET /v2/info/import", "nothing"),
    *by_all("stores", "GET /v2/info/stores", "nothing"),
    *by_all("stores in detail", "GET /v2/info/stores/detail", "nothing"),
    *one("import methods with a body", "GET /v2/info/import", body={}),
)

ERROR_FORMS: Final = tuple(
    Exchange(
        name=f"{name} as {accepted or 'nothing'}",
        request=request,
        headers={"Accept": accepted},
        by=by,
        given=given,
        body=body,
    )
    for accepted in (
        *(None, "*/*", "text/html", "application/json", "application/json, */*", "image/png"),
        "text/html;q=0.5, application/json",
    )
    for name, request, given, by, body in (
        ("404", "GET /v2/images/$absent", "nothing", "owner", None),
        ("401", "GET /v2/images", "nothing", "anonymous", None),
        ("400", "POST /v2/images", "nothing", "owner", {"disk_format": "nonsense"}),
        ("405", "PUT /v2/images", "nothing", "owner", None),
        ("409", "POST /v2/images", "queued", "owner", {"id": "$id"}),
    )
)

CREATE: Final = (
    _creating("bare"),
    _creating("with everything", name="n", **DETAILS, disk_format="qcow2", os_hidden=True),
    _creating("private", visibility="private"),
    _creating("community", visibility="community"),
    _creating("public", visibility="public"),
    _creating("of unknown visibility", visibility="secret"),
    _creating("of its own project", owner="$owner"),
    _creating("of another project", owner="$member"),
    _creating("with an empty name", name=""),
    _creating("with a null name", name=None),
    _creating("with a long name", name="n" * 256),
    _creating("with a number as name", name=7),
    _creating("with unknown disk format", disk_format="nonsense"),
    _creating("with unknown container format", container_format="nonsense"),
    _creating("with a null format", disk_format=None),
    _creating("with negative min_disk", min_disk=-1),
    _creating("with a text as min_disk", min_disk="1"),
    _creating("with huge min_ram", min_ram=2**31),
    _creating("with the largest min_ram", min_ram=2**31 - 1),
    _creating("with a boolean as min_ram", min_ram=True),
    _creating("with a number as property", colour=7),
    _creating("with a null property", colour=None),
    _creating("with a list as property", colour=["red"]),
    _creating("with a long property name", **{"n" * 256: "red"}),
    _creating("with an empty property name", **{"": "red"}),
    _creating("with an empty property", colour=""),
    _creating("with UTF-8", name="Zürich", colour="weiß", tags=["grün"]),
    _creating("with 4-byte UTF-8", name="\U0001f600"),
    _creating("with tags twice", tags=["a", "a"]),
    _creating("with a long tag", tags=["t" * 256]),
    _creating("with a number as tag", tags=[7]),
    _creating("with tags as text", tags="a"),
    _creating("with too many tags", tags=[str(number) for number in range(129)]),
    _creating("with too many properties", **{f"p{number}": "" for number in range(129)}),
    _creating("with protected as text", protected="true"),
    _creating("with a hash value", os_hash_value="0" * 128),
    *(
        _creating(f"with {name}", **{name: value})
        for name, value in (
            *(("status", "active"), ("checksum", "0" * 32), ("size", 7), ("virtual_size", 7)),
            *(("created_at", "2020-01-01T00:00:00Z"), ("updated_at", "2020-01-01T00:00:00Z")),
            *(("direct_url", "file:///x"), ("self", "/x"), ("file", "/x"), ("schema", "/x")),
            *(("stores", "fast"), ("location", "x"), ("deleted", "x"), ("deleted_at", "x")),
            *(("os_glance_x", "x"), ("locations", [])),
        )
    ),
    *one("create with another id", "POST /v2/images", body={"id": "nonsense"}),
    *one("create with an id in use", "POST /v2/images", "queued", body={"id": "$id"}),
    *one("create with a deleted id", "POST /v2/images", "deleted", body={"id": "$id"}),
    *one("create from nothing", "POST /v2/images"),
    *one("create from broken JSON", "POST /v2/images", body=b"{"),
    *one("create from a text", "POST /v2/images", body="x"),
    *one("create from a list", "POST /v2/images", body=[]),
    *one(
        "create without a type",
        "POST /v2/images",
        body=b'{"id": "$id"}',
        headers={"Content-Type": None},
    ),
    *by_all("create", "POST /v2/images", "nothing", body={"id": "$id", "name": "n"}),
    *by_all(
        "create public", "POST /v2/images", "nothing", body={"id": "$id", "visibility": "public"}
    ),
)

SHOW: Final = (
    *by_all("show", "GET /v2/images/$id", "private", "shared", "community", "public"),
    *by_all("show", "GET /v2/images/$id", "active", personas=("owner", "manager", "forger")),
    *chain.from_iterable(
        one(f"show {given}", "GET /v2/images/$id", given)
        for given in (
            *("queued", "nameless", "formless", "detailed", "protected", "hidden", "deactivated"),
            *("uploading", "imported", "in two stores", "deleted", "nothing"),
        )
    ),
    *one("show what is no id", "GET /v2/images/nonsense"),
    *one("show what is too long for an id", f"GET /v2/images/{'0' * 40}"),
    *one("show with a body", "GET /v2/images/$id", "queued", body={}),
    *one("show with HEAD", "HEAD /v2/images/$id", "queued"),
)

LIST: Final = (
    *(
        _listing(query)
        for query in (
            *("", "limit=2", "limit=0", "limit=-1", "limit=x", "limit=3", "limit=1&marker=$third"),
            *("marker=$second", "marker=$absent", "marker=nonsense", "marker="),
            *(
                "sort=name",
                "sort=name:asc",
                "sort=name:asc,id:desc",
                "sort=name:up",
                "sort=nothing",
            ),
            *("sort=name,name", "sort=", "sort=name:asc&sort_key=id"),
            *("sort_key=name", "sort_key=name&sort_dir=asc", "sort_dir=up", "sort_key=nothing"),
            *("sort_key=name&sort_key=id&sort_dir=asc", "sort_dir=asc&sort_dir=desc"),
            *("sort_key=name&sort_key=id&sort_dir=asc&sort_dir=desc", "sort_key=min_disk"),
            *("name=b", "name=eq:b", "name=in:a,b", 'name=in:"a",c', 'name=in:"a', "name=gt:a"),
            *("name=a:b", "id=$second", "id=in:$id,$third", "status=active", "status=queued"),
            *("status=in:active,queued", "status=nonsense", "status=deleted", "disk_format=iso"),
            *("container_format=bare", "visibility=shared", "visibility=all", "visibility=x"),
            *("visibility=private", "member_status=all", "member_status=x", "owner=$owner"),
            *("owner=$member", "os_hidden=true", "os_hidden=False", "os_hidden=x"),
            *("protected=true", "protected=false", "protected=x", "protected=True"),
            *("size_min=1", "size_max=1", "size_min=x", "size=800", "size=x", "min_disk=1"),
            *("min_ram=0", "min_disk_min=2", "colour=red", "colour=", "nothing=x", "tag=x"),
            *("tag=x&tag=$id", "tag=nothing", "changes-since=2020-01-01T00:00:00Z"),
            *("created_at=gt:2020-01-01T00:00:00Z", "created_at=lt:2020-01-01T00:00:00Z"),
            *("updated_at=gte:2020-01-01T00:00:00%2B01:00", "created_at=x", "created_at=in:x"),
            *("created_at=neq:2020-01-01T00:00:00Z", "checksum=x"),
            *("limit=1&name=in:a,b&sort=name:asc", "is_public=true", "virtual_size=1"),
        )
    ),
    *(_listing("", by=by) for by in EVERYBODY if by != "owner"),
    *by_all("list", "GET /v2/images?id=$id", "shared", "accepted", "community", "public"),
    *by_all(
        "list all",
        "GET /v2/images?visibility=all&id=$id",
        *("private", "community"),
        personas=("owner", "stranger", "admin"),
    ),
    *by_all(
        "list pending",
        "GET /v2/images?visibility=shared&member_status=pending&id=$id",
        *("shared", "accepted"),
        personas=("owner", "member", "stranger", "admin"),
    ),
    *one("list with a body", "GET /v2/images?tag=none", body={}),
)

PATCHES: Final = (
    _changing("nothing"),
    _changing("name", ("replace", "/name", "new")),
    _changing("name to null", ("replace", "/name", None)),
    _changing("name by add", ("add", "/name", "new")),
    _changing("name away", ("remove", "/name")),
    _changing("name to a number", ("replace", "/name", 7)),
    _changing("new property", ("add", "/size_of_shoe", "43")),
    _changing("property there", ("add", "/colour", "blue")),
    _changing("property", ("replace", "/colour", "blue")),
    _changing("absent property", ("replace", "/taste", "sweet")),
    _changing("property away", ("remove", "/colour")),
    _changing("absent property away", ("remove", "/taste")),
    _changing("property to a number", ("replace", "/colour", 7)),
    _changing("property to null", ("replace", "/colour", None)),
    _changing("property name too long", ("add", "/" + "n" * 256, "x")),
    _changing("escaped names", ("add", "/a~1b~0c", "x")),
    _changing("bad escape", ("add", "/a~2", "x")),
    _changing("two levels", ("add", "/colour/x", "x")),
    _changing("no slash", ("add", "colour", "x")),
    _changing("slash at the end", ("add", "/colour/", "x")),
    _changing("two slashes", ("add", "//colour", "x")),
    _changing("root", ("replace", "/", "x")),
    _changing("tags", ("replace", "/tags", ["c"])),
    _changing("tags by add", ("add", "/tags", ["c"])),
    _changing("one tag", ("add", "/tags/-", "c")),
    _changing("tags away", ("remove", "/tags")),
    _changing("tags twice the same", ("replace", "/tags", ["c", "c"])),
    _changing("min_disk", ("replace", "/min_disk", 3)),
    _changing("min_disk below 0", ("replace", "/min_disk", -3)),
    _changing("min_disk too large", ("replace", "/min_disk", 2**31)),
    _changing("protected", ("replace", "/protected", True)),
    _changing("protected to a text", ("replace", "/protected", "true")),
    _changing("hidden", ("replace", "/os_hidden", True)),
    _changing("format", ("replace", "/disk_format", "qcow2")),
    _changing("format of an active image", ("replace", "/disk_format", "qcow2"), given="active"),
    _changing("format to nonsense", ("replace", "/disk_format", "nonsense")),
    _changing("owner", ("replace", "/owner", "$member")),
    _changing("owner by add", ("add", "/owner", "$member")),
    _changing("owner by admin", ("replace", "/owner", "$member"), by="admin"),
    _changing("several", ("replace", "/name", "x"), ("remove", "/colour"), ("add", "/new", "x")),
    _changing("one of several wrong", ("replace", "/name", "x"), ("remove", "/taste")),
    _changing("added and removed", ("add", "/new", "x"), ("remove", "/new")),
    _changing("unknown operation", ("move", "/name", "x")),
    _changing("test operation", ("test", "/name", "web")),
    _changing("without path", {"op": "add", "value": "x"}),
    _changing("without value", {"op": "add", "path": "/name"}),
    _changing("without operation", {"path": "/name", "value": "x"}),
    _changing("by something else", "x"),
    _changing("stores", ("add", "/stores", "cheap"), given="active"),
    _changing("locations", ("add", "/locations/-", {"url": "http://x/y", "metadata": {}})),
    _changing("locations replaced", ("replace", "/locations", []), given="active"),
    _changing("locations away", ("remove", "/locations/0"), given="active"),
    *(
        _changing(f"{operation} {name}", (operation, f"/{name}", "x"))
        for name in (
            *("id", "status", "checksum", "size", "virtual_size", "created_at", "updated_at"),
            *("direct_url", "self", "file", "schema", "os_hash_algo", "os_hash_value"),
            *("location", "deleted", "deleted_at", "os_glance_x"),
        )
        for operation in ("add", "replace")
    ),
    *(
        _changing(f"remove {name}", ("remove", f"/{name}"))
        for name in ("visibility", "id", "owner", "min_ram", "checksum", "container_format")
    ),
    *(
        _changing(f"visibility to {value} by {by}", ("replace", "/visibility", value), by=by)
        for value in ("public", "community", "private", "nonsense")
        for by in ("owner", "admin")
    ),
    _changing("shared to private", ("replace", "/visibility", "private"), given="accepted"),
    _changing("an absent image", ("replace", "/name", "x"), given="nothing"),
    _changing("a deleted image", ("replace", "/name", "x"), given="deleted"),
    _changing("a deactivated image", ("replace", "/name", "x"), given="deactivated"),
    _changing("a staged image", ("replace", "/name", "x"), given="uploading"),
    *(
        Exchange(
            name=f"patch, {given}, by {by}",
            request="PATCH /v2/images/$id",
            body=[{"op": "replace", "path": "/name", "value": "new"}],
            given=given,
            by=by,
        )
        for given in ("private", "shared", "public")
        for by in EVERYBODY
    ),
    _sent("old: replace", [{"replace": "/name", "value": "x"}], media=V2_0),
    _sent("old: add", [{"add": "/new", "value": "x"}], media=V2_0),
    _sent("old: add what is there", [{"add": "/colour", "value": "x"}], media=V2_0),
    _sent("old: add a name", [{"add": "/name", "value": "x"}], media=V2_0),
    _sent("old: remove", [{"remove": "/colour"}], media=V2_0),
    _sent("old: two in one", [{"remove": "/colour", "add": "/x", "value": "x"}], media=V2_0),
    _sent("old: new form", [{"op": "add", "path": "/x", "value": "x"}], media=V2_0),
    _sent("new: old form", [{"replace": "/name", "value": "x"}]),
    _sent("as application/json", [], media="application/json"),
    _sent("as json-patch", [], media="application/json-patch+json"),
    _sent("as no type", b"[]", media=None),
    _sent("as a type with a charset", [], media=f"{V2_1}; charset=utf-8"),
    _sent("by an object", {}),
    _sent("by broken JSON", b"["),
    _sent("by no body", None),
)

DELETE: Final = (
    *by_all("delete", "DELETE /v2/images/$id", "private", "shared", "community", "public"),
    *chain.from_iterable(
        one(f"delete {given}", "DELETE /v2/images/$id", given)
        for given in (
            *("queued", "protected", "deactivated", "uploading", "imported", "in two stores"),
            *("deleted", "nothing"),
        )
    ),
    *one("delete protected by admin", "DELETE /v2/images/$id", "protected", by="admin"),
    *one("delete with a body", "DELETE /v2/images/$id", "queued", body={}),
)

ACTIONS: Final = tuple(
    chain.from_iterable(
        (
            *by_all(action, f"POST /v2/images/$id/actions/{action}", *("shared", "public")),
            *chain.from_iterable(
                one(f"{action} {given}", f"POST /v2/images/$id/actions/{action}", given)
                for given in ("queued", "deactivated", "uploading", "deleted")
            ),
        )
        for action in ("deactivate", "reactivate")
    )
)

TAGS: Final = (
    *by_all("add tag", "PUT /v2/images/$id/tags/new", "private", "shared", "public"),
    *by_all("remove tag", "DELETE /v2/images/$id/tags/a", "detailed"),
    *one("add tag that is there", "PUT /v2/images/$id/tags/a", "detailed"),
    *one("add long tag", f"PUT /v2/images/$id/tags/{'t' * 256}", "queued"),
    *one("add tag in UTF-8", "PUT /v2/images/$id/tags/gr%C3%BCn", "queued"),
    *one("add tag with a space", "PUT /v2/images/$id/tags/a%20b", "queued"),
    *one("add tag with a slash", "PUT /v2/images/$id/tags/a%2Fb", "queued"),
    *one("add tag with a body", "PUT /v2/images/$id/tags/new", "queued", body={}),
    *one("remove absent tag", "DELETE /v2/images/$id/tags/absent", "detailed"),
    *one("add tag to an absent image", "PUT /v2/images/$id/tags/new"),
)

_ALL_VISIBILITIES: Final = ("private", "shared", "community", "public")

MEMBERS: Final = (
    *by_all("list members", "GET /v2/images/$id/members", *_ALL_VISIBILITIES),
    *by_all("list two members", "GET /v2/images/$id/members", "shared with two"),
    *by_all("show member", "GET /v2/images/$id/members/$member", "shared with two"),
    *by_all("show member", "GET /v2/images/$id/members/$member", "public"),
    *by_all(
        "add member",
        "POST /v2/images/$id/members",
        "shared",
        "public",
        body={"member": "$stranger"},
    ),
    *by_all("remove member", "DELETE /v2/images/$id/members/$member", "shared with two"),
    *by_all(
        "accept",
        "PUT /v2/images/$id/members/$member",
        "shared with two",
        body={"status": "accepted"},
    ),
    *one("add member again", "POST /v2/images/$id/members", "shared", body={"member": "$member"}),
    *one("add member to private", "POST /v2/images/$id/members", "private", body={"member": "x"}),
    *one("add itself", "POST /v2/images/$id/members", "active", body={"member": "$owner"}),
    *one("add empty member", "POST /v2/images/$id/members", "active", body={"member": ""}),
    *one("add number", "POST /v2/images/$id/members", "active", body={"member": 7}),
    *one("add long member", "POST /v2/images/$id/members", "active", body={"member": "m" * 256}),
    *one("add no member", "POST /v2/images/$id/members", "active", body={}),
    *one("add list of members", "POST /v2/images/$id/members", "active", body=["x"]),
    *one(
        "add member with more",
        "POST /v2/images/$id/members",
        "active",
        body={"member": "x", "y": 1},
    ),
    *one("add member without a body", "POST /v2/images/$id/members", "active"),
    *one("add member by broken JSON", "POST /v2/images/$id/members", "active", body=b"{"),
    *one("remove absent member", "DELETE /v2/images/$id/members/absent", "shared"),
    *one("show absent member", "GET /v2/images/$id/members/absent", "shared"),
    *(
        Exchange(
            name=f"answer with {name}",
            request="PUT /v2/images/$id/members/$member",
            by="member",
            given="shared",
            body=body,
        )
        for name, body in (
            *(("rejected", {"status": "rejected"}), ("pending", {"status": "pending"})),
            *(("nonsense", {"status": "x"}), ("nothing", {}), ("a list", []), ("no body", None)),
            *(("null", {"status": None}), ("broken JSON", b"{")),
        )
    ),
    *one("members of an absent image", "GET /v2/images/$id/members"),
)

_OCTETS: Final = {"Content-Type": "application/octet-stream"}

UPLOAD: Final = (
    *by_all(
        "upload",
        "PUT /v2/images/$id/file",
        *("queued private", "queued shared", "queued public", "queued community"),
        body=DATA,
    ),
    *by_all("stage", "PUT /v2/images/$id/stage", "queued shared", body=DATA),
    *chain.from_iterable(
        (
            *one(f"upload {given}", "PUT /v2/images/$id/file", given, body=DATA),
            *one(f"stage {given}", "PUT /v2/images/$id/stage", given, body=DATA),
        )
        for given in ("formless", "active", "deactivated", "uploading", "deleted", "nothing")
    ),
    *chain.from_iterable(
        one(
            f"{what} {name}",
            f"PUT /v2/images/$id/{path}",
            "queued",
            body=body,
            headers={**_OCTETS, **headers},
        )
        for what, path in (("upload", "file"), ("stage", "stage"))
        for name, body, headers in (
            ("as JSON", DATA, {"Content-Type": "application/json"}),
            ("as no type", DATA, {"Content-Type": None}),
            ("as a type with more", DATA, {"Content-Type": "application/octet-stream; x=y"}),
            ("no bytes", b"", {}),
            ("into cheap", DATA, {"X-Image-Meta-Store": "cheap"}),
            ("into nowhere", DATA, {"X-Image-Meta-Store": "nowhere"}),
            ("with its size", DATA, {"x-openstack-image-size": str(len(DATA))}),
            ("with another size", DATA, {"x-openstack-image-size": "7"}),
            ("with a wrong size", DATA, {"x-openstack-image-size": "x"}),
            ("qcow2 as raw", b"QFI\xfb" + b"\x00" * 600, {}),
        )
    ),
)

DOWNLOAD: Final = (
    *by_all("download", "GET /v2/images/$id/file", *_ALL_VISIBILITIES, "deactivated"),
    *chain.from_iterable(
        one(f"download {given}", "GET /v2/images/$id/file", given)
        for given in ("queued", "uploading", "imported", "in two stores", "deleted", "nothing")
    ),
    *(
        Exchange(
            name=f"download {ranges}",
            request="GET /v2/images/$id/file",
            given="active",
            headers={"Range": ranges},
        )
        for ranges in (
            *("bytes=0-9", "bytes=10-", "bytes=-10", "bytes=790-900", "bytes=-900", "bytes=800-"),
            *("bytes=9-0", "bytes=0-1,5-6", "bytes=x", "lines=0-9", "bytes=0-0", "bytes=-0"),
        )
    ),
    *one(
        "download a range of nothing",
        "GET /v2/images/$id/file",
        "queued",
        headers={"Range": "bytes=0-9"},
    ),
    *one(
        "download by Content-Range",
        "GET /v2/images/$id/file",
        "active",
        headers={"Content-Range": "bytes 0-9/*"},
    ),
    *one("download, preferring cheap", "GET /v2/images/$id/file?prefer=cheap", "in two stores"),
    *one("download, preferring nowhere", "GET /v2/images/$id/file?prefer=nowhere", "active"),
    *one("download with a body", "GET /v2/images/$id/file", "active", body={}),
    *one("download with HEAD", "HEAD /v2/images/$id/file", "active"),
)

_DIRECT = {"method": {"name": "glance-direct"}}


def _importing(name: str, body: Any, given: str = "uploading", **rest: Any) -> Exchange:
    return Exchange(
        name=f"import {name}",
        request="POST /v2/images/$id/import",
        body=body,
        given=given,
        **rest,
    )


def _download(uri: Any) -> dict[str, Any]:
    return {"method": {"name": "web-download", "uri": uri}}


IMPORT: Final = (
    *by_all(
        "copy",
        "POST /v2/images/$id/import",
        *("shared", "public"),
        personas=tuple(name for name in EVERYBODY if name != "admin"),
        body={"method": {"name": "copy-image"}, "stores": ["cheap"]},
    ),
    *(_importing(f"staged, {given}", _DIRECT, given) for given in ("queued", "active", "deleted")),
    _importing("by reader", _DIRECT, by="reader"),
    _importing("by stranger", _DIRECT, by="stranger"),
    _importing("by anonymous", _DIRECT, by="anonymous"),
    _importing("without a body", None),
    _importing("by broken JSON", b"{"),
    _importing("by a list", []),
    _importing("without method", {}),
    _importing("without name", {"method": {}}),
    _importing("with method as text", {"method": "glance-direct"}),
    _importing("by unknown method", {"method": {"name": "nothing"}}),
    _importing("by disabled method", {"method": {"name": "glance-download"}}),
    _importing("into nowhere", {**_DIRECT, "stores": ["nowhere"]}),
    _importing("into stores as text", {**_DIRECT, "stores": "fast"}),
    _importing("into no stores", {**_DIRECT, "stores": []}, "queued"),
    _importing("into all and some", {**_DIRECT, "all_stores": True, "stores": ["fast"]}),
    _importing("into all as text", {**_DIRECT, "all_stores": "true"}),
    _importing("where all must as text", {**_DIRECT, "all_stores_must_succeed": "x"}),
    _importing(
        "into some twice", {**_DIRECT, "stores": ["fast"]}, headers={"X-Image-Meta-Store": "fast"}
    ),
    _importing("from the web without uri", {"method": {"name": "web-download"}}, "queued"),
    _importing("from a file", _download("file:///etc/passwd"), "queued"),
    _importing("from another port", _download("http://example.org:22/x"), "queued"),
    _importing("from nonsense", _download("nonsense"), "queued"),
    _importing("from a number", _download(7), "queued"),
    _importing("from the web, staged", _download("http://example.org/x"), "uploading"),
    _importing("from the web, formless", _download("http://example.org/x"), "formless"),
    _importing("from the web, active", _download("http://example.org/x"), "active"),
    _importing(
        "copy of queued",
        {"method": {"name": "copy-image"}, "stores": ["cheap"]},
        "queued",
        by="admin",
    ),
    _importing(
        "copy to where it is",
        {"method": {"name": "copy-image"}, "stores": ["fast"]},
        "active",
        by="admin",
    ),
    _importing(
        "copy to nowhere",
        {"method": {"name": "copy-image"}, "stores": ["nowhere"]},
        "active",
        by="admin",
    ),
    _importing(
        "copy to all, nothing to do",
        {"method": {"name": "copy-image"}, "all_stores": True},
        "in two stores",
        by="admin",
    ),
)

TASKS: Final = (
    *by_all("list tasks", "GET /v2/tasks?limit=0", "nothing"),
    *by_all("tasks of image", "GET /v2/images/$id/tasks", "private", "shared", "public"),
    *one("tasks of an absent image", "GET /v2/images/$id/tasks"),
    *(
        Exchange(name=f"tasks by {query}", request=f"GET /v2/tasks?{query}", by="admin")
        for query in (
            *("status=nonsense", "type=nonsense", "limit=x", "limit=-1", "marker=x", "sort_key=x"),
            *("sort_dir=x", "marker=$absent"),
        )
    ),
    *one("show absent task", "GET /v2/tasks/$absent", by="admin"),
    *one("show task by owner", "GET /v2/tasks/$absent"),
    *(
        Exchange(name=f"create task {name}", request="POST /v2/tasks", by=by, body=body)
        for name, by, body in (
            ("by owner", "owner", {"type": "import", "input": {}}),
            ("without type", "admin", {"input": {}}),
            ("without input", "admin", {"type": "import"}),
            ("of unknown type", "admin", {"type": "x", "input": {}}),
            ("with more", "admin", {"type": "import", "input": {}, "x": 1}),
            ("with empty input", "admin", {"type": "import", "input": {}}),
            ("without a body", "admin", None),
            (
                "from a file",
                "admin",
                {
                    "type": "import",
                    "input": {
                        "import_from": "file:///etc/passwd",
                        "import_from_format": "raw",
                        "image_properties": {},
                    },
                },
            ),
        )
    ),
)

EXCHANGES: Final[tuple[Exchange, ...]] = (
    *VERSIONS,
    *METHODS_NOT_ALLOWED,
    *SCHEMAS,
    *INFO,
    *ERROR_FORMS,
    *CREATE,
    *SHOW,
    *LIST,
    *PATCHES,
    *DELETE,
    *ACTIONS,
    *TAGS,
    *MEMBERS,
    *UPLOAD,
    *DOWNLOAD,
    *IMPORT,
    *TASKS,
    *FRONT,
    *METADEFS,
)
