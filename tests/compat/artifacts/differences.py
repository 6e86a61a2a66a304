"""Where our artifacts service answers otherwise than Glare on purpose, with the reasons.

What is not listed here is a fault; so is what is listed and does not occur.
"""

from typing import Final

from tests.compat.differences import ABSENT, ANY, Difference

EVERYWHERE: Final = (
    Difference(
        "*header x-openstack-request-id",
        ABSENT,
        ANY,
        "every answer has an id that can be found in the log",
    ),
    *(
        Difference(f"*header {name}", ABSENT, ANY, "errors tell the version as other answers do")
        for name in ("openstack-api-version", "vary")
    ),
    Difference(
        "*body.error.type", ANY, ANY, "clients go by the status; these are names of Glare's classes"
    ),
    Difference("header etag", ABSENT, ANY, "caches and conditional requests need it"),
    Difference("header accept-ranges", ABSENT, "bytes", "RFC 9110 wants ranges to be announced"),
    Difference("header cache-control", ABSENT, "no-store", "where an external blob is may change"),
    *(
        Difference(f"header {name}", "None", ABSENT, "a digest that nobody told is not one")
        for name in (
            *("content-md5", "x-openstack-glare-content-sha1"),
            "x-openstack-glare-content-sha256",
        )
    ),
    Difference("header content-length", "0", ABSENT, "RFC 9110: a 204 tells no length"),
)


def _status(theirs: int, ours: int, reason: str, *exchanges: str) -> Difference:
    return Difference("status", theirs, ours, reason, exchanges)


def _refused(reason: str, theirs: int, ours: int, *exchanges: str) -> tuple[Difference, ...]:
    """What one of us does and the other refuses, so that it is different afterwards, too."""
    return (
        _status(theirs, ours, reason, *exchanges),
        Difference("after: *", ANY, ANY, reason, exchanges),
    )


def _of_requests() -> tuple[Difference, ...]:
    verbs = ("/schemas", "/schemas/images", "/quotas", "/project-quotas", "/project-quotas/demo")
    sample = "/artifacts/sample_artifact"
    verbs = (*verbs, sample, f"{sample}/$absent", f"{sample}/$id/blob", "/artifacts/nothing")
    return (
        _status(200, 405, "it is no preflight", *(f"routes: OPTIONS {path}" for path in verbs)),
        _status(
            *(200, 501, "it is no preflight"),
            *(f"routes: OPTIONS {path}" for path in ("/nothing", "/artifacts", "/v1")),
        ),
        _status(405, 404, "HEAD is served, too", f"routes: HEAD {sample}/$id/blob"),
        Difference(
            "header allow",
            "DELETE, GET, PUT",
            "DELETE, GET, HEAD, PUT",
            "HEAD is served, too",
            tuple(f"routes: {verb} {sample}/$id/blob" for verb in ("POST", "PATCH")),
        ),
        _status(
            *(415, 400, "its server takes what says no type for text"),
            *("routes: PUT /quotas", f"routes: POST {sample}", "routes: POST /artifacts/nothing"),
            *(f"routes: PATCH {sample}/$absent", "create without a body", "create as None"),
            *("patch as None", "quotas: without a type"),
        ),
        _status(200, 400, "a body has a type", f"routes: PUT {sample}/$id/blob"),
        *_refused(
            *("a body has a type", 200, 400),
            *("upload without a type", "upload with an empty type", "upload nothing"),
        ),
        *(
            _status(415, ours, "names of media types have no case (RFC 9110)", exchange)
            for ours, exchange in (
                *((201, "create as APPLICATION/JSON"),),
                *((200, "patch as APPLICATION/JSON-PATCH+JSON"),),
            )
        ),
        Difference(
            "*body.blob*",
            ANY,
            ANY,
            "names of media types have no case (RFC 9110)",
            ("locate as APPLICATION/VND+OPENSTACK.GLARE-CUSTOM-LOCATION+JSON",),
        ),
    )


def _of_values() -> tuple[Difference, ...]:
    huge = ("65535.65535.65535", "32768.0.0")
    too_large = ("65536", "1.65536", "1.0.0-1000000", "9" * 30)
    link = "{'a': 'https://example.org'}"
    long = "'1.00000000000000000... of 304"
    return (
        _status(
            *(500, 400, "a number in a version has an end"),
            *(f"create version={version!r}" for version in too_large),
            *(f"patch version to {version!r}" for version in too_large),
            "list version=gt:65536",
        ),
        *_refused(
            *("these are sorted like others", 500, 201),
            *(f"create version={version!r}" for version in huge),
        ),
        *_refused(
            *("these are sorted like others", 500, 200),
            *(f"patch version to {version!r}" for version in huge),
        ),
        *(
            difference
            for status, pattern in (
                (201, "create {}={}"),
                (200, "patch {} to {}"),
            )
            for difference in (
                *_refused(
                    *("PostgreSQL keeps no U+0000", status, 400),
                    *(pattern.format("name", r"'a\x00b'"), pattern.format("str1", r"'\x00'")),
                ),
                *_refused(
                    *("JSON has finite numbers only", status, 400),
                    *(pattern.format("float1", value) for value in ("'nan'", "'inf'")),
                ),
                *_refused(
                    *("a version is no longer than other names", status, 400),
                    pattern.format("version", long),
                ),
                *_refused(
                    *("PostgreSQL keeps any character", 400, status),
                    pattern.format("name", r"'\U0001f600'"),
                ),
                *_refused(
                    *("links to the web are not followed by this service", 400, status),
                    pattern.format("dict_of_links", link),
                ),
                Difference(
                    "*body.description",
                    None,
                    "",
                    "null is the default, of this field as of others",
                    (pattern.format("description", "None"),),
                ),
            )
        ),
    )


def _of_patches() -> tuple[Difference, ...]:
    return (
        _status(
            *(500, 400, "what the client did wrong is no error of the server"),
            *("patch add ", "patch replace ", "patch replace /list_of_str/3"),
            *(
                f"patch move {source} to {target}"
                for source, target in (
                    *(("/str1", "/dict_of_str/new"), ("/str1", "/description"), ("/str1", "")),
                    *(("/metadata", "/dict_of_str"), ("/int1", "/int2"), ("/blob", "/str1")),
                    *(("/str1", "/str1"), ("/id", "/str1"), ("/name", "/str1")),
                    *(("/status", "/str1"), ("/system_attribute", "/str1")),
                )
            ),
            *("patch copy /str1 to ", "patch with no path"),
        ),
        _status(
            *(403, 400, "no field can be moved, whatever the other one is"),
            *("patch move /str1 to /id", "patch move /str1 to /system_attribute"),
        ),
        _status(200, 400, "an object is no list of operations", "patch with an object"),
        _status(
            *(404, 400, "an object is no list of operations"),
            "patch, not well-formed and nothing there",
        ),
        _status(400, 403, "nothing of the type `all` can be changed", "patch as of all"),
        Difference(
            "*body.str1",
            "text",
            "x",
            "a test that holds undoes nothing",
            ("patch test of what was replaced",),
        ),
        _status(
            *(409, 200, "only what the patch makes in the end is compared with others"),
            "rename to what there is and back",
        ),
        _status(
            *(400, 403, "400 is what comes of a mistake in the words of the refusal"),
            *(
                f"patch status 'drafted' of {given} by {by}"
                for given, by in (("active", "owner"), ("active", "admin"), ("public", "admin"))
            ),
        ),
    )


def _of_lists() -> tuple[Difference, ...]:
    latest = tuple(
        f"list version=latest&{rest}, many{by}"
        for rest in ("int1=or:0&int1=or:3", "version=gte:1", "version=lt:1", "version=latest")
        for by in ("", ", by admin", ", by other")
    )
    return (
        Difference(
            "body.first",
            ANY,
            ANY,
            "all parameters are kept; Glare drops all but the last of a name",
            (
                *latest,
                *(
                    f"list {query}"
                    for query in (
                        *("name=or:alpha&name=or:beta", "name=alpha&name=beta", "tags=a&tags=b"),
                        *("tags=or:a&tags=or:d", "tags=or:a&tags=or:b", "int1=gt:1&int1=lt:3"),
                        *("int1=or:1&int1=or:3", "list_of_str=x&list_of_str=y"),
                        *("dict_of_str=k&dict_of_str=l", "limit=1&int1=gt:0&int1=lt:3"),
                    )
                ),
            ),
        ),
        Difference(
            "body.next",
            ANY,
            ANY,
            "all parameters are kept; Glare drops all but the last of a name",
            ("list limit=1&int1=gt:0&int1=lt:3",),
        ),
        Difference(
            "body.artifacts*",
            ABSENT,
            ANY,
            "artifacts that lack what is sorted by come last; in Glare not at all",
            (
                *("list sort=int2:asc,name:desc&marker=$second", "list sort=int2:asc,name:asc"),
                *("list sort=float1:asc", "list sort=name:asc,int1:desc, many"),
            ),
        ),
        _status(
            *(500, 200, "an artifact that lacks what is sorted by can be a marker"),
            "list sort=float1:asc&limit=1&marker=$third",
        ),
        _status(500, 200, "links are values like others", "list by a link"),
        _status(
            *(400, 200, "links to the web are not followed by this service"),
            "list link1=eq:https://example.org/1",
        ),
        _status(500, 400, "integers have 64 bits", "list int1=99999999999999999999"),
        _status(200, 400, "JSON has finite numbers only", "list float1=nan"),
        _status(200, 400, "PostgreSQL keeps no U+0000", "list name=a%00b"),
        _status(200, 400, "no value is empty", "list metadata.k="),
        _status(200, 400, "what is uploaded cannot be filtered by", "list dict_of_blobs=x"),
        _status(404, 200, "an empty marker is none", "list marker="),
        _status(
            *(400, 200, "what is said once more is said anew"),
            *("list name=alpha&limit=1&limit=2", "list sort=name:asc&sort=int1:asc"),
            "list marker=$id&marker=$second",
        ),
        Difference("body.*", ANY, ANY, "in SQLite LIKE has no case", ("list name=like:AL%25",)),
        Difference(
            "body.*", ANY, ANY, "in SQLite LIKE has no escapes", ("list name=like:%25100%5C%25",)
        ),
        Difference("body.*", ANY, ANY, "an empty list is no filter", ("list tags-any=",)),
        Difference(
            "body.*",
            ANY,
            ANY,
            "a quote can be part of a value; in Glare its backslash is, too",
            ('list str1=in:"o\\"ne"',),
        ),
        Difference(
            "body.*",
            ANY,
            ANY,
            "a semicolon is part of a value (WHATWG, URL)",
            ("list name=alpha;int1=1",),
        ),
    )


def _of_blobs() -> tuple[Difference, ...]:
    others = ("other", "nobody", "without project")
    return (
        _status(
            *(403, 200, "what is public is so with its data"),
            *(f"download, public, by {by}" for by in others),
            *(f"opened: download by {by}" for by in (*others, "anonymous", "denied")),
        ),
        _status(
            *(403, 301, "what is public is so with its data"),
            *(f"download from elsewhere, public, by {by}" for by in others),
        ),
        _status(200, 206, "parts can be had", "download a part"),
        *(
            Difference(
                "*body.dict_of_blobs*",
                ANY,
                ANY,
                "it is UTF-8",
                (f"upload to 'dict_of_blobs/{key}'", f"locate to 'dict_of_blobs/{key}'"),
            )
            for key in ("%D1%8F", "%F0%9F%98%80")
        ),
        Difference(
            "*body.dict_of_blobs*",
            ANY,
            ANY,
            "two slashes are one",
            ("upload to 'dict_of_blobs/a//b'", "locate to 'dict_of_blobs/a//b'"),
        ),
        _status(404, 200, "two slashes are one", "download 'dict_of_blobs/a//b'"),
        _status(404, 403, "two slashes are one", "remove 'dict_of_blobs/a//b'"),
        *_refused(
            *("PostgreSQL keeps no U+0000", 200, 400),
            *("upload to 'dict_of_blobs/a%00'", "locate to 'dict_of_blobs/a%00'"),
        ),
        _status(
            *(404, 400, "PostgreSQL keeps no U+0000"),
            *("download 'dict_of_blobs/a%00'", "remove 'dict_of_blobs/a%00'"),
        ),
        Difference(
            "*body.blob.content_type",
            ANY,
            ANY,
            "parameters are a part of the type",
            ("upload as a/b;c=d", "upload as text/plain; charset=utf-8"),
        ),
        Difference(
            "*body.blob.*",
            ANY,
            ANY,
            "what is uploaded replaces all of what was there",
            ("upload again", "upload over a location"),
        ),
        Difference(
            "*body.blob.*",
            ANY,
            ANY,
            "data in chunks is data; Glare stores none",
            ("upload chunks",),
        ),
        _status(
            *(500, 400, "what the client did wrong is no error of the server"),
            *("upload what a hook refuses", "upload what a hook refuses over what was there"),
            *("locate url None", "locate url 7", "locate url []"),
        ),
        *_refused(
            *("a URL is one", 200, 400),
            *(f"locate url {url!r}" for url in ("http", "httpx://y", "http:///x", "http://a b/")),
        ),
        *_refused(
            "names of schemes have no case (RFC 3986)",
            400,
            200,
            "locate url 'HTTP://example.org/x'",
        ),
        Difference(
            "after: body.blob*",
            ANY,
            ANY,
            "what was refused leaves nothing",
            ("locate with numbers as digests",),
        ),
        *_refused(
            "an artifact that may not be changed keeps its locations",
            200,
            403,
            *(
                f"remove location, {given}, by {by}"
                for given, whose in (
                    ("deactivated", ("owner", "colleague", "admin")),
                    ("public deactivated", ("owner", "colleague", "admin")),
                )
                for by in whose
            ),
            "remove location in a folder of active",
        ),
        Difference(
            "after: *",
            ANY,
            ANY,
            "what is deleted once more goes for good",
            ("opened: delete deleted",),
        ),
        *_refused("a body is ignored where it has no meaning", 500, 200, "remove with a body"),
    )


def _of_quotas() -> tuple[Difference, ...]:
    without = "without limits of its own a project has those of the settings"
    return (
        _status(
            *(500, 200, without),
            *("routes: GET /project-quotas", "routes: GET /project-quotas/demo"),
            *("GET /project-quotas, by nobody", "opened: /project-quotas by admin"),
            *(
                f"quotas: /project-quotas{path}, by {by}"
                for path in ("", "/other")
                for by in ("other", "admin", "nobody")
            ),
        ),
        _status(
            *(500, 403, "who has no project has no quotas of one"),
            "GET /project-quotas, by without project",
            "quotas: /project-quotas, by without project",
            *(f"opened: /project-quotas by {by}" for by in ("anonymous", "denied")),
        ),
        _status(500, 400, "integers have 64 bits", "quotas: value 9223372036854775808"),
        *_refused(
            *("the limits are those of the owner", 200, 413),
            *("quotas: upload by admin", "quotas: upload to public"),
        ),
        Difference(
            "header content-type",
            ANY,
            "application/json; charset=UTF-8",
            "null is JSON",
            (
                *(
                    "quotas: set, by admin",
                    "quotas: nothing",
                    "quotas: value 0",
                    "quotas: value -1",
                ),
                *("quotas: value 2147483648", "quotas: name 'x'", "quotas: name 'a:b'"),
                *("quotas: name of 255", "quotas: project 'ppppppppppppppppppp... of 257"),
                *("quotas: more", "quotas: more of one", "quotas: one twice", "quotas: replace"),
                "quotas: remove",
            ),
        ),
    )


DIFFERENCES: Final = (
    *_of_requests(),
    *_of_values(),
    *_of_patches(),
    *_of_lists(),
    *_of_blobs(),
    *_of_quotas(),
)
