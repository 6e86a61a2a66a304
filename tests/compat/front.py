"""The requests about what is before the routes: versions, verbs, headers; and about stores."""

from itertools import chain
from typing import Final

from tests.compat.form import Exchange, by_all, one

VERSIONS: Final = (
    *chain.from_iterable(
        one(f"alias v2.{minor}", f"GET /v2.{minor}/images?tag=none") for minor in range(20)
    ),
    *chain.from_iterable(
        one(f"front: {request}", request, by="anonymous")
        for request in (
            *("GET /v2/", "GET /v2.0/", "GET /v2.1", "GET /v3/", "GET /v2.x/images", "GET /v1/"),
            *("POST /", "PUT /", "DELETE /", "HEAD /", "OPTIONS /", "POST /versions", "GET //"),
            *("HEAD /versions", "GET /versions/", "GET /images", "GET /v2/schemas", "GET /v2/info"),
            *("GET /v20/images", "GET /V2/images", "GET /v2//images", "GET /v2.99"),
        )
    ),
    *(
        Exchange(
            name=f"media type {accepted} of {path}",
            request=f"GET {path}",
            headers={"Accept": accepted},
        )
        for path in ("/images?tag=none", "/v2/images?tag=none")
        for accepted in (
            *("application/vnd.openstack.images-v2.3", "application/vnd.openstack.images-v2.99"),
            *("application/vnd.openstack.images-v3", "application/vnd.openstack.images-v1"),
            "application/vnd.openstack.images",
        )
    ),
)

VERBS: Final = tuple(
    Exchange(name=f"verb: {method} {path}", request=f"{method} {path}", given="queued")
    for path in ("/v2/images", "/v2/images/$id", "/v2/schemas/image", "/v2/nothing")
    for method in ("HEAD", "OPTIONS", "TRACE", "FOO")
)

HEADERS: Final = (
    *(
        Exchange(
            name=f"packed: {request} as {accepted}",
            request=request,
            headers={"Accept-Encoding": accepted},
            given="active",
        )
        for accepted in ("gzip", "deflate", "br, gzip;q=0.5", "*")
        for request in ("GET /v2/schemas/image", "GET /v2/images/$id/file", "GET /versions")
    ),
    *(
        Exchange(
            name=f"request id {what}",
            request="GET /v2/images?tag=none",
            headers={"X-Openstack-Request-Id": value},
        )
        for what, value in (
            ("of its own", "req-11111111-1111-4111-8111-111111111111"),
            *(("without req", "mine"), ("empty", ""), ("long", "req-" + "x" * 61)),
            ("as long as can be", "req-" + "x" * 60),
        )
    ),
    *(
        Exchange(name=f"behind a proxy: {request}", request=request, headers=headers)
        for request in ("GET /versions", "POST /v2/images")
        for headers in ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "cloud.example"},)
    ),
    *(
        Exchange(
            name=f"token {what}", request="GET /v2/images?tag=none", headers={"X-Auth-Token": value}
        )
        for what, value in (("empty", ""), ("with spaces", "a b"), ("long", "x" * 2000))
    ),
    *(
        Exchange(
            name=f"health as {accepted}",
            request="GET /healthcheck",
            by="anonymous",
            headers={"Accept": accepted},
        )
        for accepted in ("*/*", "text/html", "text/plain", "image/png")
    ),
    *one("health with HEAD", "HEAD /healthcheck", by="anonymous"),
    *one("health below", "GET /healthcheck/x", by="anonymous"),
)

STORES: Final = (
    *by_all("usage", "GET /v2/info/usage", "nothing"),
    *one("usage with a body", "GET /v2/info/usage", body={}),
    *one("stores with a body", "GET /v2/info/stores", body={}),
    *one("stores in detail with a body", "GET /v2/info/stores/detail", by="admin", body={}),
    *by_all(
        "leave cheap",
        "DELETE /v2/stores/cheap/$id",
        "in two stores",
        personas=("owner", "reader", "stranger", "admin", "anonymous"),
    ),
    *by_all("leave fast", "DELETE /v2/stores/fast/$id", "private", "shared", "public"),
    *(
        Exchange(
            name=f"leave {store}, {given}",
            request=f"DELETE /v2/stores/{store}/$id",
            given=given,
            by="admin",
        )
        for store, given in (
            *(("cheap", "active"), ("nowhere", "active"), ("fast", "queued")),
            *(("fast", "deactivated"), ("fast", "deleted"), ("fast", "nothing")),
            *(("fast", "uploading"), ("nowhere", "in two stores"), ("fast", "in two stores")),
            ("os_glance_staging_store", "active"),
        )
    ),
    *one("leave with a body", "DELETE /v2/stores/cheap/$id", "in two stores", by="admin", body={}),
    *(
        Exchange(name=f"{method} /v2/stores/fast", request=f"{method} /v2/stores/fast/$id")
        for method in ("GET", "PUT", "POST", "PATCH")
    ),
    *one("DELETE /v2/stores/fast", "DELETE /v2/stores/fast"),
    *(
        Exchange(
            name=f"create with os_hash_algo {algorithm}",
            request="POST /v2/images",
            body={"id": "$id", "os_hash_algo": algorithm},
        )
        for algorithm in ("sha512", "sha256", "nonsense", 7, None)
    ),
    *by_all(
        "tasks of imported",
        "GET /v2/images/$id/tasks",
        "imported",
        personas=("owner", "reader", "admin", "stranger"),
    ),
    *one("tasks with a body", "GET /v2/images/$id/tasks", "active", body={}),
    *(
        Exchange(
            name=f"locations hidden: {name}",
            request="PATCH /v2/images/$id",
            body=[body],
            given=given,
        )
        for given in ("queued", "active")
        for name, body in (
            (
                f"add to {given}",
                {
                    "op": "add",
                    "path": "/locations/-",
                    "value": {"url": "http://example.org/x", "metadata": {}},
                },
            ),
            (f"replace {given}", {"op": "replace", "path": "/locations", "value": []}),
            (f"remove from {given}", {"op": "remove", "path": "/locations/0"}),
        )
    ),
    *by_all("locations", "GET /v2/images/$id/locations", "queued shared", "shared", "public"),
    *by_all(
        "add location without a store",
        "POST /v2/images/$id/locations",
        *("queued shared", "queued public"),
        personas=("owner", "reader", "member", "stranger", "anonymous"),
        body={"url": "http://example.org/x"},
    ),
)

FRONT: Final = (*VERSIONS, *VERBS, *HEADERS, *STORES)
