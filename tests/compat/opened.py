"""The requests to services that are more open: they show locations, have a store of web servers,
let another site's pages call them, and have small quotas (see `conftest`).

`$web` and `$web2` are the addresses of DATA on a web server.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from tests.compat.form import EVERYBODY, Exchange, Until, by_all, one
from tests.compat.states import DATA, DIGEST, MOST, V2_0, V2_1

SETTINGS: Final = {
    "show_image_direct_url": "true",
    "show_multiple_locations": "true",
    "enabled_backends": "fast:file, cheap:file, web:http",
    "http_retries": "0",
    # Glance goes on counting what is on the web when its image is deleted.
    "user_storage_quota": "400000",
    "image_size_cap": "350000",
    "image_member_quota": "1",
    "image_tag_quota": "3",
    "image_property_quota": "3",
    "image_location_quota": "2",
}
ORIGIN: Final = "http://horizon.example"

_WHERE: Final = "/v2/images/$id/locations"
_HASHED: Final = (Until("os_hash_value", DIGEST), Until("os_glance_import_task", None))


def _adding(
    name: str, body: Any, given: str = "queued", by: str = "owner", then: Sequence[Until] = ()
) -> Exchange:
    return Exchange(
        name=f"add location {name}",
        request=f"POST {_WHERE}",
        body=body,
        given=given,
        by=by,
        then=then,
    )


def _checked(**data: Any) -> dict[str, Any]:
    return {"url": "$web", "validation_data": data}


SHOW: Final = (
    *by_all("show location", "GET /v2/images/$id", "located and shared"),
    *chain.from_iterable(
        one(f"show location, {given}", "GET /v2/images/$id", given)
        for given in ("queued", "active", "deactivated", "located twice", "uploading")
    ),
    *one("show location, deactivated, by admin", "GET /v2/images/$id", "deactivated", by="admin"),
    *one("list with locations", "GET /v2/images?id=$id", "located"),
    *one("download from the web", "GET /v2/images/$id/file", "located"),
    *one(
        "download a part from the web",
        "GET /v2/images/$id/file",
        "located",
        headers={"Range": "bytes=0-9"},
    ),
    *one("delete what is on the web", "DELETE /v2/images/$id", "located"),
    *one("stores with the web", "GET /v2/info/stores"),
    *one("stores with the web in detail", "GET /v2/info/stores/detail", by="admin"),
    *one(
        "upload into the web",
        "PUT /v2/images/$id/file",
        "queued",
        body=DATA,
        headers={"X-Image-Meta-Store": "web"},
    ),
    *one("create and be told the stores", "POST /v2/images", body={"id": "$id"}),
)

LOCATIONS: Final = (
    *by_all("locations", f"GET {_WHERE}", "located and shared"),
    *one("locations of two", f"GET {_WHERE}", "located twice", by="nova"),
    *by_all(
        "add location",
        f"POST {_WHERE}",
        "queued shared",
        personas=tuple(name for name in EVERYBODY if name not in ("owner", "admin")),
        body={"url": "$web"},
    ),
    *(
        _adding(f"{given} by {by}", {"url": "$web"}, given, by, then=_HASHED)
        for given, by in (
            *(("queued", "owner"), ("queued", "manager"), ("queued private", "admin")),
        )
    ),
    *(
        _adding(f"to what is {given}", {"url": "$web"}, given)
        for given in (*("active", "deactivated", "uploading", "deleted", "nothing", "located"),)
    ),
    *(
        _adding(f"with {name}", body)
        for name, body in (
            *(("no body", None), ("broken JSON", b"{"), ("a list", []), ("a text", "x")),
            *(("no url", {}), ("a number", {"url": 7}), ("null", {"url": None})),
            ("an empty url", {"url": ""}),
            *(
                (f"url {url}", {"url": url})
                for url in (
                    *("file:///etc/passwd", "filesystem:///etc/passwd", "swift+config://x/y/z"),
                    *("swift://x/y/z", "rbd://x/y/z/w", "nonsense", "http://127.0.0.1:1/x"),
                    *("ftp://example.org/x", "HTTP://127.0.0.1:1/x", "http:///x"),
                )
            ),
            ("a digest of unknown kind", _checked(os_hash_algo="x", os_hash_value="0" * 128)),
            ("a digest of no kind", _checked(os_hash_value="0" * 128)),
            ("a kind without a digest", _checked(os_hash_algo="sha512")),
            ("a short digest", _checked(os_hash_algo="sha512", os_hash_value="0" * 64)),
            ("no digest", _checked(os_hash_algo="sha512", os_hash_value="x" * 128)),
            ("more than a digest", _checked(os_hash_algo="md5", os_hash_value="0" * 32, x="y")),
            ("a text as validation_data", {"url": "$web", "validation_data": "x"}),
        )
    ),
    *(
        _adding(f"with {name}", body, then=_HASHED)
        for name, body in (
            ("its digest", _checked(os_hash_algo="sha512", os_hash_value=DIGEST)),
            ("empty validation_data", _checked()),
            ("metadata", {"url": "$web", "metadata": {"a": "b"}}),
        )
    ),
    *(
        Exchange(name=f"{method} locations", request=f"{method} {_WHERE}", given="queued")
        for method in ("PUT", "DELETE", "PATCH", "HEAD")
    ),
    *one("locations with a body", f"GET {_WHERE}", "located", by="nova", body={}),
)

_WEB: Final = {"url": "$web", "metadata": {}}
_WEB2: Final = {"url": "$web2", "metadata": {}}
_WEB3: Final = {"url": "$web/third", "metadata": {}}


def _patch(
    name: str, *operations: Any, given: str = "queued", by: str = "owner", media: str = V2_1
) -> Exchange:
    body = [
        one if isinstance(one, dict) else dict(zip(("op", "path", "value"), one, strict=False))
        for one in operations
    ]
    return Exchange(
        name=f"patch locations: {name}",
        request="PATCH /v2/images/$id",
        body=body,
        given=given,
        by=by,
        headers={"Content-Type": media},
    )


PATCHES: Final = (
    *by_all(
        "patch locations",
        "PATCH /v2/images/$id",
        *("queued shared", "queued public"),
        body=[{"op": "add", "path": "/locations/-", "value": _WEB}],
    ),
    *(
        _patch(f"add to {given}", ("add", "/locations/-", _WEB3), given=given)
        for given in ("located", "located twice", "active", "deactivated", "uploading", "formless")
    ),
    *(
        _patch(f"add at {where}", ("add", f"/locations{where}", _WEB2), given="located")
        for where in ("/0", "/1", "/2", "/-1", "/x", "/", "", "/0/url")
    ),
    *(
        _patch(f"add {name}", ("add", "/locations/-", value))
        for name, value in (
            *(("a text", "$web"), ("null", None), ("a list", [_WEB]), ("nothing", {})),
            ("without metadata", {"url": "$web"}),
            ("without url", {"metadata": {}}),
            ("with text as metadata", {"url": "$web", "metadata": "x"}),
            ("with metadata", {"url": "$web", "metadata": {"a": "b"}}),
            ("with a long url", {"url": "$web/" + "x" * 255, "metadata": {}}),
            ("with more", {**_WEB, "colour": "red"}),
            *(
                (url, {"url": url, "metadata": {}})
                for url in (
                    *("file:///etc/passwd", "filesystem:///etc/passwd", "swift+config://x/y/z"),
                    *("nonsense", "ftp://example.org/x", "http://127.0.0.1:1/x", "rbd://a/b/c/d"),
                )
            ),
            *(
                (f"with {what}", {**_WEB, "validation_data": data})
                for what, data in (
                    (
                        "its digests",
                        {
                            "os_hash_algo": "sha512",
                            "os_hash_value": DIGEST,
                            "checksum": "0" * 32,
                        },
                    ),
                    ("a digest", {"os_hash_algo": "sha512", "os_hash_value": DIGEST}),
                    ("another kind", {"os_hash_algo": "sha256", "os_hash_value": "0" * 64}),
                    ("a short digest", {"os_hash_algo": "sha512", "os_hash_value": "0" * 64}),
                    ("no digest", {"os_hash_algo": "sha512", "os_hash_value": "x" * 128}),
                    ("a checksum only", {"checksum": "0" * 32}),
                    (
                        "more than digests",
                        {"os_hash_algo": "sha512", "os_hash_value": DIGEST, "x": "y"},
                    ),
                )
            ),
        )
    ),
    _patch("add twice", ("add", "/locations/-", _WEB), ("add", "/locations/-", _WEB)),
    _patch("add two", ("add", "/locations/-", _WEB), ("add", "/locations/-", _WEB2)),
    _patch("add what there is", ("add", "/locations/-", _WEB), given="located"),
    _patch(
        "add a wrong digest to active",
        (
            *("add", "/locations/-"),
            {
                **_WEB2,
                "validation_data": {"os_hash_algo": "sha512", "os_hash_value": "0" * 128},
            },
        ),
        given="located",
    ),
    _patch("and a name", ("add", "/locations/-", _WEB), ("replace", "/name", "new")),
    _patch("and a wrong name", ("add", "/locations/-", _WEB), ("replace", "/name", 7)),
    *(
        _patch(f"replace {name} by {what}", ("replace", "/locations", value), given=given)
        for name, given in (("none", "queued"), ("one", "located"), ("a file", "active"))
        for what, value in (
            *(("nothing", []), ("one", [_WEB]), ("two", [_WEB, _WEB2]), ("text", "x")),
            *(("another", [_WEB2]), ("metadata", [{"url": "$web", "metadata": {"a": "b"}}])),
        )
    ),
    _patch(
        "replace in another order", ("replace", "/locations", [_WEB2, _WEB]), given="located twice"
    ),
    _patch("replace by path", ("replace", "/locations/0", _WEB), given="located"),
    *(
        _patch(
            f"remove {where or 'all'} of {given} by {by}",
            ("remove", f"/locations{where}"),
            given=given,
            by=by,
        )
        for by in ("owner", "admin")
        for given, where in (
            *(("queued", "/0"), ("located", "/0"), ("located twice", "/0"), ("active", "/0")),
            *(("located twice", "/1"), ("located twice", "/2"), ("located twice", "/-")),
            *(("located twice", ""), ("located twice", "/x"), ("deactivated", "/0")),
        )
    ),
    _patch("old form", {"add": "/locations/-", "value": _WEB}, media=V2_0),
    _patch("old form of replace", {"replace": "/locations", "value": [_WEB]}, media=V2_0),
    _patch(
        "old form of remove",
        {"remove": "/locations/0"},
        given="located twice",
        by="admin",
        media=V2_0,
    ),
)

_LARGE: Final = b"x" * 350_001

QUOTAS: Final = (
    *(
        Exchange(
            name=f"{what} beyond {quota}",
            request=f"PUT /v2/images/$id/{path}",
            given=given,
            by=by,
            body=body,
            headers=headers,
        )
        for what, path in (("upload", "file"), ("stage", "stage"))
        for quota, given, by, body, headers in (
            ("the storage quota", "nearly full", "stranger", MOST, {}),
            (
                *("the storage quota, announced", "nearly full", "stranger", MOST),
                {"X-OpenStack-Image-Size": str(len(MOST))},
            ),
            ("the size cap", "queued", "owner", _LARGE, {}),
        )
    ),
    *one(
        "upload up to the storage quota",
        "PUT /v2/images/$id/file",
        "nearly full",
        by="stranger",
        body=MOST[:100_000],
    ),
    *(
        Exchange(
            name=f"create with {name}", request="POST /v2/images", body={"id": "$id", **fields}
        )
        for name, fields in (
            ("as many tags as may be", {"tags": ["a", "b", "c"]}),
            ("one tag too many", {"tags": ["a", "b", "c", "d"]}),
            ("as many properties as may be", {"p": "x", "q": "x", "r": "x"}),
            ("one property too many", {"p": "x", "q": "x", "r": "x", "s": "x"}),
        )
    ),
    *(
        _patch(name, *operations, given="at its limits")
        for name, operations in (
            ("one tag too many", [("replace", "/tags", ["a", "b", "c", "d"])]),
            ("other tags", [("replace", "/tags", ["d", "e", "f"])]),
            ("one property too many", [("add", "/s", "x")]),
            ("another property", [("remove", "/p"), ("add", "/s", "x")]),
            ("a property for another", [("add", "/s", "x"), ("remove", "/p")]),
            ("a property that is there", [("add", "/p", "y")]),
        )
    ),
    *one("add one tag too many", "PUT /v2/images/$id/tags/d", "at its limits"),
    *one("add a tag that is there", "PUT /v2/images/$id/tags/a", "at its limits"),
    *one(
        "add one member too many",
        "POST /v2/images/$id/members",
        "at its limits",
        body={"member": "$stranger"},
    ),
    *one(
        "add a member that is there",
        "POST /v2/images/$id/members",
        "at its limits",
        body={"member": "$member"},
    ),
    *one("usage where Keystone has no limits", "GET /v2/info/usage"),
)

_PREFLIGHT: Final = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}

ORIGINS: Final = (
    *(
        Exchange(name=f"origin: {name}", request=request, by="anonymous", headers=headers)
        for name, request, headers in (
            ("preflight", "OPTIONS /v2/images", _PREFLIGHT),
            ("preflight below", "OPTIONS /v2/images/$id/file", _PREFLIGHT),
            ("preflight of nothing", "OPTIONS /v2/nothing", _PREFLIGHT),
            ("preflight of root", "OPTIONS /", _PREFLIGHT),
            (
                "preflight with headers",
                "OPTIONS /v2/images",
                {**_PREFLIGHT, "Access-Control-Request-Headers": "X-Auth-Token, content-md5"},
            ),
            (
                "preflight with a usual header",
                "OPTIONS /v2/images",
                {**_PREFLIGHT, "Access-Control-Request-Headers": "Content-Type"},
            ),
            (
                "preflight with an unknown header",
                "OPTIONS /v2/images",
                {**_PREFLIGHT, "Access-Control-Request-Headers": "X-Unknown"},
            ),
            (
                "preflight of an unknown method",
                "OPTIONS /v2/images",
                {"Origin": ORIGIN, "Access-Control-Request-Method": "TRACE"},
            ),
            ("preflight without a method", "OPTIONS /v2/images", {"Origin": ORIGIN}),
            (
                "preflight of another",
                "OPTIONS /v2/images",
                {**_PREFLIGHT, "Origin": "http://evil.example"},
            ),
            ("versions", "GET /versions", {"Origin": ORIGIN}),
            ("versions for another", "GET /versions", {"Origin": "http://evil.example"}),
            ("no token", "GET /v2/images", {"Origin": ORIGIN}),
        )
    ),
    *(
        Exchange(
            name=f"origin: {name}", request=request, given="active", headers={"Origin": origin}
        )
        for name, request, origin in (
            ("show", "GET /v2/images/$id", ORIGIN),
            ("show for another", "GET /v2/images/$id", "http://evil.example"),
            ("show for null", "GET /v2/images/$id", "null"),
            ("download", "GET /v2/images/$id/file", ORIGIN),
            ("error", "GET /v2/images/$absent", ORIGIN),
            ("delete", "DELETE /v2/images/$id", ORIGIN),
        )
    ),
)

OPENED: Final = (*SHOW, *LOCATIONS, *PATCHES, *QUOTAS, *ORIGINS)
