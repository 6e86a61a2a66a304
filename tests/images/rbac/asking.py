"""What is asked, in the tables of `rbac/tables.py`: the rows.

Each route of the service is here at least once; `operation` is its name in docs/routes.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.images.rbac.callers import MEMBERS
from tests.images.service import OCTETS, PATCH

OLD_PATCH: Final = {"Content-Type": "application/openstack-images-v2.0-json-patch"}
ABSENT: Final = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, kw_only=True)
class Request:
    """A row: a request, what answers it if it succeeds, and the status its image has to have.

    `names` are the values of the path's parameters; those of the image and the namespace are
    known when it is sent. A body of bytes is sent as it is, another one as JSON; in its texts,
    `{web}` is the address of a site that anybody may read, and `{new}` a name nobody has taken.
    """

    operation: str
    answers: int = 200
    finds: str = "active"
    query: str = ""
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    names: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def changes(self) -> bool:
        """Whether it changes something if it is let through."""
        return not self.operation.startswith(("GET ", "HEAD "))


async def send(
    client: httpx.AsyncClient, request: Request, headers: Mapping[str, str], **names: str
) -> httpx.Response:
    """Ask in the name of the caller with these headers; `names` are what was not known before."""
    known = {**request.names, **names}
    method, path = (_filled(part, known) for part in request.operation.split(" "))
    return await client.request(
        method,
        path + ("?" + request.query if request.query else ""),
        headers={"Accept": "application/json", **request.headers, **headers},
        content=_content(request.body, known),
    )


def words(request: Request, answer: httpx.Response) -> str:
    """The answer as the tables have it."""
    if answer.status_code != request.answers:
        return str(answer.status_code)
    if request.operation != "GET /v2/images/{image_id}/members":
        return "ok"
    seen = [entry["member_id"] for entry in answer.json()["members"]]
    if sorted(seen) == sorted(MEMBERS):
        return "all"
    return "own" if len(seen) == 1 else repr(seen)


def _content(body: Any, names: Mapping[str, str]) -> bytes | None:
    if body is None or isinstance(body, bytes):
        return body
    return _filled(json.dumps(body), names).encode()


def _filled(text: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _ask(operation: str, answers: int = 200, **rest: Any) -> Request:
    return Request(operation=operation, answers=answers, **rest)


def _patch(path: str, value: object, *, op: str = "replace") -> Request:
    operation = {"op": op, "path": path, "value": value}
    return _ask("PATCH /v2/images/{image_id}", body=[operation], headers=PATCH)


def _member(method: str, member: str, answers: int = 200, **rest: Any) -> Request:
    operation = f"{method} /v2/images/{{image_id}}/members/{{member}}"
    return _ask(operation, answers, names={"member": member}, **rest)


def _put(path: str) -> Request:
    operation = f"PUT /v2/images/{{image_id}}/{path}"
    return _ask(operation, 204, finds="queued", body=b"bytes", headers=OCTETS)


def _import(name: str, finds: str, *, uri: str | None = None, **rest: Any) -> Request:
    method = {"name": name} if uri is None else {"name": name, "uri": uri}
    body = {"method": method, **rest}
    return _ask("POST /v2/images/{image_id}/import", 202, finds=finds, body=body)


_LOCATIONS: Final = "/v2/images/{image_id}/locations"

ON_IMAGES: Final[Mapping[str, Request]] = {
    "show": _ask("GET /v2/images/{image_id}"),
    "delete": _ask("DELETE /v2/images/{image_id}", 204),
    "modify": _patch("/name", "new"),
    "modify old dialect": _ask(
        "PATCH /v2/images/{image_id}",
        body=[{"replace": "/name", "value": "new"}],
        headers=OLD_PATCH,
    ),
    "set property": _patch("/colour", "red", op="add"),
    "make public": _patch("/visibility", "public"),
    "make community": _patch("/visibility", "community"),
    "make shared": _patch("/visibility", "shared"),
    "make private": _patch("/visibility", "private"),
    "hide": _patch("/os_hidden", value=True),
    "protect": _patch("/protected", value=True),
    "give away": _patch("/owner", "delta"),
    "add tag": _ask("PUT /v2/images/{image_id}/tags/{tag}", 204, names={"tag": "new"}),
    "remove tag": _ask("DELETE /v2/images/{image_id}/tags/{tag}", 204, names={"tag": "old"}),
    "download": _ask("GET /v2/images/{image_id}/file"),
    "download head": _ask("HEAD /v2/images/{image_id}/file"),
    "download from": _ask("GET /v2/images/{image_id}/file", query="prefer=cheap"),
    "upload": _put("file"),
    "stage": _put("stage"),
    "import staged": _import("glance-direct", "uploading"),
    "import from web": _import("web-download", "queued", uri="{web}"),
    "copy": _import("copy-image", "active", stores=["third"]),
    "tasks": _ask("GET /v2/images/{image_id}/tasks"),
    "deactivate": _ask("POST /v2/images/{image_id}/actions/deactivate", 204),
    "reactivate": _ask("POST /v2/images/{image_id}/actions/reactivate", 204, finds="deactivated"),
    "list members": _ask("GET /v2/images/{image_id}/members"),
    "add member": _ask("POST /v2/images/{image_id}/members", body={"member": "delta"}),
    "show accept": _member("GET", "accept"),
    "show pend": _member("GET", "pend"),
    "accept for accept": _member("PUT", "accept", body={"status": "accepted"}),
    "accept for pend": _member("PUT", "pend", body={"status": "accepted"}),
    "remove accept": _member("DELETE", "accept", 204),
    "see locations": _ask(f"GET {_LOCATIONS}"),
    "add web location": _ask(f"POST {_LOCATIONS}", 202, finds="queued", body={"url": "{web}"}),
    "add store location": _ask(
        f"POST {_LOCATIONS}", 202, finds="queued", body={"url": "rbd://cluster/pool/image/snap"}
    ),
    "cache": _ask("PUT /v2/cache/{image_id}", 202),
    "uncache": _ask("DELETE /v2/cache/{image_id}", 204),
    "leave store": _ask("DELETE /v2/stores/{store}/{image_id}", 204, names={"store": "cheap"}),
}

_TASK: Final = {
    "type": "import",
    "input": {"import_from": "{web}", "import_from_format": "raw", "image_properties": {}},
}

ON_THE_SERVICE: Final[Mapping[str, Request]] = {
    "list": _ask("GET /v2/images"),
    "create": _ask("POST /v2/images", 201, body={"name": "x"}),
    "create public": _ask("POST /v2/images", 201, body={"visibility": "public"}),
    "create community": _ask("POST /v2/images", 201, body={"visibility": "community"}),
    "create private": _ask("POST /v2/images", 201, body={"visibility": "private"}),
    "create for another": _ask("POST /v2/images", 201, body={"owner": "delta"}),
    "import methods": _ask("GET /v2/info/import"),
    "stores": _ask("GET /v2/info/stores"),
    "stores in detail": _ask("GET /v2/info/stores/detail"),
    "usage": _ask("GET /v2/info/usage"),
    "schema": _ask("GET /v2/schemas/{name}", names={"name": "image"}),
    "list tasks": _ask("GET /v2/tasks"),
    "create task": _ask("POST /v2/tasks", 201, body=_TASK),
    "show task": _ask("GET /v2/tasks/{task_id}", 404, names={"task_id": ABSENT}),
    "delete task": _ask("DELETE /v2/tasks/{task_id}", 405, names={"task_id": ABSENT}),
    "list cache": _ask("GET /v2/cache"),
    "clear cache": _ask("DELETE /v2/cache", 204),
    "clean cache": _ask("POST /v2/cache/clean"),
    "prune cache": _ask("POST /v2/cache/prune"),
    "who has cached": _ask("GET /v2/cache/nodes/{image_id}", 404, names={"image_id": ABSENT}),
    "list cached": _ask("GET /v2/cached_images"),
    "clear cached": _ask("DELETE /v2/cached_images"),
    "drop cached": _ask("DELETE /v2/cached_images/{image_id}", names={"image_id": ABSENT}),
    "list queued": _ask("GET /v2/queued_images"),
    "clear queued": _ask("DELETE /v2/queued_images"),
    "queue": _ask("PUT /v2/queued_images/{image_id}", names={"image_id": ABSENT}),
    "drop queued": _ask("DELETE /v2/queued_images/{image_id}", names={"image_id": ABSENT}),
    "list namespaces": _ask("GET /v2/metadefs/namespaces"),
    "create namespace": _ask("POST /v2/metadefs/namespaces", 201, body={"namespace": "{new}"}),
    "list all types": _ask("GET /v2/metadefs/resource_types"),
}

_NAMESPACE: Final = "/v2/metadefs/namespaces/{namespace}"
_PROPERTY: Final = {"title": "t", "type": "string"}


def _inside(kind: str, **changed: Any) -> dict[str, Request]:
    """What is asked of one kind of what a namespace holds."""
    kinds = "properties" if kind == "property" else f"{kind}s"
    path, one = f"{_NAMESPACE}/{kinds}", {"name": kind}
    return {
        f"list {kinds}": _ask(f"GET {path}"),
        f"create {kind}": _ask(f"POST {path}", 201, body={"name": "new", **changed}),
        f"clear {kinds}": _ask(f"DELETE {path}", 204),
        f"show {kind}": _ask(f"GET {path}/{{name}}", names=one),
        f"update {kind}": _ask(f"PUT {path}/{{name}}", names=one, body={**one, **changed}),
        f"delete {kind}": _ask(f"DELETE {path}/{{name}}", 204, names=one),
    }


# A namespace holds one of each kind, whose name is the kind.
CONTENT: Final = {
    "resource_type_associations": [{"name": "type"}],
    "objects": [{"name": "object"}],
    "properties": {"property": _PROPERTY},
    "tags": [{"name": "tag"}],
}

ON_NAMESPACES: Final[Mapping[str, Request]] = {
    "show namespace": _ask(f"GET {_NAMESPACE}"),
    "update namespace": _ask(
        f"PUT {_NAMESPACE}", body={"namespace": "{namespace}", "description": "new"}
    ),
    "delete namespace": _ask(f"DELETE {_NAMESPACE}", 204),
    "list types": _ask(f"GET {_NAMESPACE}/resource_types"),
    "associate type": _ask(f"POST {_NAMESPACE}/resource_types", 201, body={"name": "new"}),
    "dissociate type": _ask(
        f"DELETE {_NAMESPACE}/resource_types/{{name}}", 204, names={"name": "type"}
    ),
    **_inside("object"),
    **_inside("property", **_PROPERTY),
    **_inside("tag"),
    "create tags": _ask(f"POST {_NAMESPACE}/tags", 201, body={"tags": [{"name": "new"}]}),
    "create tag": _ask(f"POST {_NAMESPACE}/tags/{{name}}", 201, names={"name": "new"}),
}

REQUESTS: Final[Mapping[str, Request]] = {**ON_IMAGES, **ON_THE_SERVICE, **ON_NAMESPACES}
