"""The requests about blobs and folders of artifacts."""

from typing import Any, Final

from tests.compat.artifacts.exchanges import (
    ACTIVATE,
    DRAFTED,
    GIVEN,
    by_all,
    delete,
    get,
    show,
)
from tests.compat.artifacts.form import (
    EVERYBODY,
    LOCATION,
    OCTETS,
    SAMPLE,
    Exchange,
    Step,
    exchange,
    locate,
    make,
    put,
    told,
)

_PLACES: Final = (
    *("blob", "small_blob", "dict_of_blobs", "dict_of_blobs/a", "dict_of_blobs/a/b", "blob/x"),
    *("nothing", "str1", "str1/x", "name", "dict_of_str", "dict_of_str/k", "", "blob/", "Blob"),
    *("dict_of_blobs/", "dict_of_blobs/%20", "dict_of_blobs/%D1%8F", "dict_of_blobs/a%2Fb"),
    *("dict_of_blobs/a.json", "blob.json", "dict_of_blobs/" + "k" * 255, "dict_of_blobs/a?x=y"),
    *("dict_of_blobs/" + "k" * 900, "dict_of_blobs/a//b"),
    *("dict_of_blobs/a%00", "dict_of_blobs/%F0%9F%98%80"),
    *("dict_of_blobs/a+b", "dict_of_blobs/a%2Bb", "list_of_links", "id", "metadata/x"),
)
_LOADED: Final = (
    *DRAFTED,
    put("blob", b"some data", "text/plain"),
    put("dict_of_blobs/a", b"first"),
    put("dict_of_blobs/a/b", b"", "text/x"),
    locate("small_blob", md5="m", sha1="s", sha256="t"),
    locate("dict_of_blobs/elsewhere"),
)


def uploading(name: str, step: Step, *given: Step) -> Exchange:
    return exchange(f"upload {name}", step, *(given or DRAFTED))


def locating(name: str, body: Any, place: str = "blob", by: str = "owner") -> Exchange:
    step = Step(
        request=f"PUT {SAMPLE}/$id/{place}", by=by, body=body, headers={"Content-Type": LOCATION}
    )
    return exchange(f"locate {name}", step, *DRAFTED)


BLOBS: Final = (
    *(uploading(f"to {told(place)}", put(place)) for place in _PLACES),
    *(
        uploading(f"as {media}", put("blob", media=media))
        for media in (
            *(
                "text/plain",
                "application/json",
                "application/json-patch+json",
                "nonsense",
                "a/b;c=d",
            ),
            *("text/plain; charset=utf-8", "application/x-" + "m" * 300, "TEXT/HTML"),
        )
    ),
    *(
        uploading(name, Step(request=f"PUT {SAMPLE}/$id/blob", body=body, headers=headers))
        for name, body, headers in (
            ("without a type", b"data", {"Content-Type": None}),
            ("with an empty type", b"data", {"Content-Type": ""}),
            ("no bytes", b"", {"Content-Type": OCTETS}),
            ("JSON", {"a": 1}, {}),
            ("with what is no length", b"data", {"Content-Length": "x"}),
        )
        if headers.get("Content-Length") is None
    ),
    uploading("nothing", Step(request=f"PUT {SAMPLE}/$id/blob")),
    uploading(
        "chunks",
        Step(
            request=f"PUT {SAMPLE}/$id/blob",
            chunks=(b"some ", b"data"),
            headers={"Content-Type": "text/plain"},
        ),
    ),
    uploading("10 bytes to a small one", put("small_blob", b"x" * 10)),
    uploading("11 bytes to a small one", put("small_blob", b"x" * 11)),
    uploading(
        "too much over what was there", put("small_blob", b"x" * 11), *DRAFTED, put("small_blob")
    ),
    uploading("what a hook refuses", put("blob", b"invalid_data")),
    uploading(
        "what a hook refuses over what was there",
        put("blob", b"invalid_data"),
        *DRAFTED,
        put("blob"),
    ),
    uploading("again", put("blob", b"other", "text/x"), *DRAFTED, put("blob")),
    uploading(
        "again to a folder", put("dict_of_blobs/a", b"other"), *DRAFTED, put("dict_of_blobs/a")
    ),
    uploading("over a location", put("blob"), *DRAFTED, locate("blob")),
    uploading("2000 bytes to a folder", put("dict_of_blobs/a", b"x" * 2000)),
    uploading("2001 bytes to a folder", put("dict_of_blobs/a", b"x" * 2001)),
    uploading(
        "to the last of a folder",
        put("dict_of_blobs/b", b"x" * 200),
        *DRAFTED,
        put("dict_of_blobs/a", b"x" * 1800),
    ),
    uploading(
        "to more than a folder has",
        put("dict_of_blobs/b", b"x" * 201),
        *DRAFTED,
        put("dict_of_blobs/a", b"x" * 1800),
    ),
    uploading(
        "the same again to a full folder",
        put("dict_of_blobs/a", b"x" * 2000),
        *DRAFTED,
        put("dict_of_blobs/a", b"x" * 1999),
    ),
    uploading(
        "to a folder of locations",
        put("dict_of_blobs/b", b"x" * 2000),
        *DRAFTED,
        locate("dict_of_blobs/a"),
    ),
    *by_all("upload", *GIVEN, request=f"PUT {SAMPLE}/$id/blob", body=b"data"),
    *by_all(
        "upload to a folder",
        "drafted",
        "active",
        request=f"PUT {SAMPLE}/$id/dict_of_blobs/a",
        body=b"x",
    ),
    exchange("upload to no artifact", Step(request=f"PUT {SAMPLE}/$absent/blob", body=b"x")),
    exchange("upload as of all", Step(request="PUT /artifacts/all/$id/blob", body=b"x"), *DRAFTED),
    exchange(
        "upload as of images", Step(request="PUT /artifacts/images/$id/image", body=b"x"), *DRAFTED
    ),
    exchange("upload of nothing", Step(request="PUT /artifacts/x/$id/blob", body=b"x"), *DRAFTED),
    exchange("upload to deleted", put("blob"), *DRAFTED, delete()),
    *(
        exchange(
            f"upload to {place} of {type_name}",
            Step(
                request=f"PUT /artifacts/{type_name}/$id/{place}",
                body=b"x",
                headers={"Content-Type": "a/b"},
            ),
            make("id", of=type_name),
        )
        for type_name, place in (
            *(("images", "image"), ("heat_templates", "template"), ("tosca_templates", "template")),
            *(
                ("heat_templates", "nested_templates/x/y.yaml"),
                ("heat_environments", "environment"),
            ),
            ("murano_packages", "package"),
        )
    ),
    # Locations.
    *(
        locating(f"to {told(place)}", {"url": "http://x/y", "md5": None}, place)
        for place in _PLACES
    ),
    *(
        locating(name, body)
        for name, body in (
            *(("nothing", {}), ("a list", []), ("a text", "x"), ("broken JSON", b"{")),
            *(("no md5", {"url": "http://x"}), ("no url", {"md5": "x"}), ("no bytes", b"")),
            *(
                (f"url {told(url)}", {"url": url, "md5": "x"})
                for url in (
                    *(None, "", 7, "http://example.org/x", "https://example.org/x", "ftp://x/y"),
                    *("http", "httpx://y", "http:///x", "HTTP://example.org/x", "http://a b/"),
                    *("http://x/" + "y" * 2039, "http://a:b@c/d", []),
                )
            ),
            *(
                (f"internal {url}", {"url": url, "location_type": "internal"})
                for url in (
                    *("file:///etc/passwd", "filesystem:///x", "swift+config://a/b", "sql://x"),
                    *("http://x/y", "rbd://a/b/c/d", "nonsense", "x://y", "", "cinder://x"),
                )
            ),
            ("of unknown type", {"url": "http://x", "md5": "x", "location_type": "x"}),
            ("external", {"url": "http://x", "md5": "x", "location_type": "external"}),
            ("of null type", {"url": "http://x", "md5": "x", "location_type": None}),
            ("with all digests", {"url": "http://x", "md5": "m", "sha1": "s", "sha256": "t"}),
            ("with numbers as digests", {"url": "http://x", "md5": 7}),
            ("with long digests", {"url": "http://x", "md5": "m" * 33}),
            ("with more", {"url": "http://x", "md5": "m", "size": 7, "content_type": "a/b"}),
        )
    ),
    *(
        locating(f"internal {url}, by admin", {"url": url, "location_type": "internal"}, by="admin")
        for url in ("file:///etc/passwd", "sql://x", "x://y")
    ),
    *(
        exchange(f"locate over {name}", locate("blob"), *DRAFTED, before)
        for name, before in (("data", put("blob")), ("a location", locate("blob")))
    ),
    *by_all(
        "locate",
        *GIVEN,
        request=f"PUT {SAMPLE}/$id/blob",
        body={"url": "http://x/y", "md5": "m"},
        headers={"Content-Type": LOCATION},
    ),
    *by_all(
        "locate in a folder",
        *("drafted", "active"),
        request=f"PUT {SAMPLE}/$id/dict_of_blobs/a",
        body={"url": "http://x/y", "md5": "m"},
        headers={"Content-Type": LOCATION},
    ),
    *(
        exchange(
            f"locate as {media}",
            Step(
                request=f"PUT {SAMPLE}/$id/blob",
                body={"url": "http://x/y", "md5": "m"},
                headers={"Content-Type": media},
            ),
            *DRAFTED,
        )
        for media in (f"{LOCATION}; charset=utf-8", LOCATION.upper(), LOCATION.replace("+", "."))
    ),
    # Documents and downloads.
    exchange("show with blobs", show(), *_LOADED),
    exchange("show with blobs as of all", get("/artifacts/all/$id"), *_LOADED),
    exchange("list with blobs", get(SAMPLE), *_LOADED),
    *(
        exchange(f"download {told(place)}", get(f"{SAMPLE}/$id/{place}"), *_LOADED)
        for place in (*_PLACES, "dict_of_blobs/nothing", "dict_of_blobs/elsewhere")
    ),
    *(
        exchange(
            f"download, {state}, by {by}",
            get(f"{SAMPLE}/$id/blob", by),
            *DRAFTED,
            put("blob"),
            *GIVEN[state][1:],
        )
        for state in GIVEN
        for by in EVERYBODY
    ),
    *(
        exchange(
            f"download from elsewhere, {state}, by {by}",
            get(f"{SAMPLE}/$id/blob", by),
            *DRAFTED,
            locate("blob"),
            *GIVEN[state][1:],
        )
        for state in ("drafted", "public", "deactivated")
        for by in EVERYBODY
    ),
    exchange(
        "download again", get(f"{SAMPLE}/$id/blob"), *DRAFTED, put("blob"), put("blob", b"new")
    ),
    exchange("download from nothing", get(f"{SAMPLE}/$absent/blob")),
    exchange("download as of all", get("/artifacts/all/$id/blob"), *_LOADED),
    exchange("download as of images", get("/artifacts/images/$id/image"), *_LOADED),
    exchange("download with a body", get(f"{SAMPLE}/$id/blob", body={}), *_LOADED),
    exchange(
        "download a part", get(f"{SAMPLE}/$id/blob", headers={"Range": "bytes=1-2"}), *_LOADED
    ),
    exchange("download after activation", get(f"{SAMPLE}/$id/dict_of_blobs/a"), *_LOADED, ACTIVATE),
    # Locations are removed; data is not.
    *(
        exchange(f"remove {told(place)}", delete(f"{SAMPLE}/$id/{place}"), *_LOADED)
        for place in (*_PLACES, "dict_of_blobs/nothing", "dict_of_blobs/elsewhere")
    ),
    *(
        exchange(
            f"remove location, {state}, by {by}",
            delete(f"{SAMPLE}/$id/blob", by),
            *DRAFTED,
            locate("blob"),
            *GIVEN[state][1:],
        )
        for state in GIVEN
        for by in EVERYBODY
    ),
    exchange(
        "remove location twice",
        delete(f"{SAMPLE}/$id/small_blob"),
        *_LOADED,
        delete(f"{SAMPLE}/$id/small_blob"),
    ),
    exchange(
        "remove location and put data",
        put("blob"),
        *DRAFTED,
        locate("blob"),
        delete(f"{SAMPLE}/$id/blob"),
    ),
    exchange(
        "remove location in a folder of active",
        delete(f"{SAMPLE}/$id/dict_of_blobs/elsewhere"),
        *_LOADED,
        ACTIVATE,
    ),
    exchange("remove as of all", delete("/artifacts/all/$id/small_blob"), *_LOADED),
    exchange("remove with a body", delete(f"{SAMPLE}/$id/small_blob", body={}), *_LOADED),
)
