"""docs/routes.md: every route of both services, where it is, whom it asks and what it costs.

What a route costs is told here and measured by `tests/structure/test_statements.py`, and by
`test_artifacts_statements.py` beside it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import diptych_artifacts.app
import diptych_artifacts.policies
import diptych_images.app
import diptych_images.policies
from fastapi.routing import APIRoute

ServiceName = Literal["images", "artifacts"]

_ROUTERS: Final = {
    "images": diptych_images.app.ROUTERS,
    "artifacts": diptych_artifacts.app.ROUTERS,
}
_RULES: Final = {
    "images": diptych_images.policies.RULES,
    "artifacts": diptych_artifacts.policies.RULES,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What PostgreSQL runs for a request: statements without BEGIN and COMMIT, and transactions.

    A statement outside of every transaction commits by itself.
    """

    statements: int
    transactions: int = 0


# By method and path. Each write records its event in the transaction of its change.
COSTS: Final[Mapping[ServiceName, Mapping[str, Cost]]] = {
    "images": {
        "GET /v2/images": Cost(1),
        "POST /v2/images": Cost(2, 1),
        "GET /v2/images/{image_id}": Cost(1),
        "DELETE /v2/images/{image_id}": Cost(5, 1),
        "PATCH /v2/images/{image_id}": Cost(3, 1),
        "PUT /v2/images/{image_id}/file": Cost(9, 3),
        "PUT /v2/images/{image_id}/stage": Cost(10, 3),
        "POST /v2/images/{image_id}/import": Cost(8, 1),
        "GET /v2/images/{image_id}/tasks": Cost(1),
        "GET /v2/images/{image_id}/file": Cost(2, 1),
        "HEAD /v2/images/{image_id}/file": Cost(1),
        "GET /v2/images/{image_id}/locations": Cost(1),
        "POST /v2/images/{image_id}/locations": Cost(9, 1),
        "GET /v2/images/{image_id}/members": Cost(1),
        "POST /v2/images/{image_id}/members": Cost(3, 1),
        "GET /v2/images/{image_id}/members/{member}": Cost(1),
        "PUT /v2/images/{image_id}/members/{member}": Cost(3, 1),
        "DELETE /v2/images/{image_id}/members/{member}": Cost(3, 1),
        "PUT /v2/images/{image_id}/tags/{tag}": Cost(3, 1),
        "DELETE /v2/images/{image_id}/tags/{tag}": Cost(3, 1),
        "POST /v2/images/{image_id}/actions/deactivate": Cost(3, 1),
        "POST /v2/images/{image_id}/actions/reactivate": Cost(3, 1),
        "DELETE /v2/stores/{store}/{image_id}": Cost(5, 1),
        "GET /v2/cache": Cost(0),
        "DELETE /v2/cache": Cost(0),
        "PUT /v2/cache/{image_id}": Cost(1),
        "DELETE /v2/cache/{image_id}": Cost(1),
        "GET /v2/cache/nodes/{image_id}": Cost(1),
        "POST /v2/cache/clean": Cost(0),
        "POST /v2/cache/prune": Cost(0),
        "GET /v2/cached_images": Cost(0),
        "DELETE /v2/cached_images": Cost(0),
        "DELETE /v2/cached_images/{image_id}": Cost(0),
        "GET /v2/queued_images": Cost(0),
        "DELETE /v2/queued_images": Cost(0),
        "PUT /v2/queued_images/{image_id}": Cost(0),
        "DELETE /v2/queued_images/{image_id}": Cost(0),
        "GET /v2/info/import": Cost(0),
        "GET /v2/info/stores": Cost(0),
        "GET /v2/info/stores/detail": Cost(0),
        "GET /v2/info/usage": Cost(0),
        "GET /v2/schemas/{name}": Cost(0),
        "GET /v2/tasks": Cost(1),
        "POST /v2/tasks": Cost(9, 1),
        "GET /v2/tasks/{task_id}": Cost(1),
        "DELETE /v2/tasks/{task_id}": Cost(0),
        "GET /v2/metadefs/namespaces": Cost(1),
        "POST /v2/metadefs/namespaces": Cost(2, 1),
        "GET /v2/metadefs/namespaces/{namespace}": Cost(1),
        "PUT /v2/metadefs/namespaces/{namespace}": Cost(3, 1),
        "DELETE /v2/metadefs/namespaces/{namespace}": Cost(3, 1),
        "GET /v2/metadefs/resource_types": Cost(1),
        "GET /v2/metadefs/namespaces/{namespace}/resource_types": Cost(1),
        "POST /v2/metadefs/namespaces/{namespace}/resource_types": Cost(4, 1),
        "DELETE /v2/metadefs/namespaces/{namespace}/resource_types/{name}": Cost(3, 1),
        "GET /v2/metadefs/namespaces/{namespace}/objects": Cost(1),
        "POST /v2/metadefs/namespaces/{namespace}/objects": Cost(3, 1),
        "DELETE /v2/metadefs/namespaces/{namespace}/objects": Cost(3, 1),
        "GET /v2/metadefs/namespaces/{namespace}/objects/{name}": Cost(1),
        "PUT /v2/metadefs/namespaces/{namespace}/objects/{name}": Cost(3, 1),
        "DELETE /v2/metadefs/namespaces/{namespace}/objects/{name}": Cost(3, 1),
        "GET /v2/metadefs/namespaces/{namespace}/properties": Cost(1),
        "POST /v2/metadefs/namespaces/{namespace}/properties": Cost(3, 1),
        "DELETE /v2/metadefs/namespaces/{namespace}/properties": Cost(3, 1),
        "GET /v2/metadefs/namespaces/{namespace}/properties/{name}": Cost(1),
        "PUT /v2/metadefs/namespaces/{namespace}/properties/{name}": Cost(3, 1),
        "DELETE /v2/metadefs/namespaces/{namespace}/properties/{name}": Cost(3, 1),
        "GET /v2/metadefs/namespaces/{namespace}/tags": Cost(1),
        "POST /v2/metadefs/namespaces/{namespace}/tags": Cost(4, 1),
        "DELETE /v2/metadefs/namespaces/{namespace}/tags": Cost(3, 1),
        "GET /v2/metadefs/namespaces/{namespace}/tags/{name}": Cost(1),
        "POST /v2/metadefs/namespaces/{namespace}/tags/{name}": Cost(3, 1),
        "PUT /v2/metadefs/namespaces/{namespace}/tags/{name}": Cost(3, 1),
        "DELETE /v2/metadefs/namespaces/{namespace}/tags/{name}": Cost(3, 1),
    },
    "artifacts": {
        "GET /artifacts/{type_name}": Cost(1),
        "POST /artifacts/{type_name}": Cost(3, 1),
        "GET /artifacts/{type_name}/{artifact_id}": Cost(1),
        "PATCH /artifacts/{type_name}/{artifact_id}": Cost(4, 1),
        "DELETE /artifacts/{type_name}/{artifact_id}": Cost(4, 1),
        "PUT /artifacts/{type_name}/{artifact_id}/{blob}": Cost(12, 3),
        "GET /artifacts/{type_name}/{artifact_id}/{blob}": Cost(1),
        "HEAD /artifacts/{type_name}/{artifact_id}/{blob}": Cost(1),
        "DELETE /artifacts/{type_name}/{artifact_id}/{blob}": Cost(5, 1),
        "GET /schemas": Cost(0),
        "GET /schemas/{type_name}": Cost(0),
        "PUT /quotas": Cost(4, 1),
        "GET /quotas": Cost(1),
        "GET /project-quotas": Cost(1),
        "GET /project-quotas/{project_id}": Cost(1),
    },
}


class Place(NamedTuple):
    """A route: `METHOD /path`, the function's module below the service's `api`, and its name."""

    service: ServiceName
    operation: str
    module: str
    function: str


def places(service: ServiceName) -> Iterator[Place]:
    """Every route of the service, in the order in which the router tries them."""
    for router in _ROUTERS[service]:
        for route in router.routes:
            if not isinstance(route, APIRoute):
                raise TypeError(f"{route} is no route of FastAPI's")
            for method in sorted(route.methods or ()):
                yield Place(
                    service,
                    f"{method} {route.path_format}",
                    route.endpoint.__module__.removeprefix(f"diptych_{service}.api."),
                    route.endpoint.__name__,
                )


def rules_of(place: Place) -> list[str]:
    """The names of the policy rules that a request of this kind may be asked about."""
    return [
        rule.name
        for rule in _RULES[place.service]
        if any(
            _bare(f"{each.method} {each.path}") == _bare(place.operation)
            for each in rule.operations
        )
    ]


def _bare(operation: str) -> str:
    """The operation without the names of its parameters and without its query; HEAD as GET."""
    return re.sub(r"\{[^}]*\}", "{}", operation.partition("?")[0]).replace("HEAD ", "GET ")


_HEAD: Final = """\
# Routes

The rules are those that [policy](operators/policy.md) names for the request; `context_is_admin` may
be asked anywhere. Statements are counted by PostgreSQL, without `BEGIN` and `COMMIT`, for an
ordinary request that succeeds; a transaction adds these two. While bytes flow no transaction is
open, and an upload renews its lease once in a third of `[jobs] lease`. Events are among them, a
statement each; without [notifications](operators/notifications.md) there are none. That of a
download of an image comes after its last byte, in a transaction of its own.

## The images service

`/v2/<family>…` is in `services/images/diptych_images/api/<family>.py`, `/v2/images/{id}/<sub>…` in
`api/<sub>.py`, `/v2/metadefs/…/<sub>` in `api/metadefs/<sub>.py`; the exceptions are listed
at the top of `app.py`. No token is needed for `/`,
`/versions` and `/v2`, which the middleware of `api/versions.py` answers, nor for `/healthcheck`,
`/livez` and `/readyz`, which that of `diptych_common.health` does, nor for `/openapi.json` and
`/docs` (`diptych_common.openapi`), where they are switched on. What else begins with `/v2.0`,
`/v2.1` and so on is the same under `/v2`.

"""

_ARTIFACTS: Final = """
## The artifacts service

What is below an artifact is in `services/artifacts/diptych_artifacts/api/blobs.py`, `PATCH` in
`patch.py`, `/<family>…` in `api/<family>.py`; see the top of `app.py`. No token is needed for `/`
and `/versions`, which the middleware of `api/versions.py` answers, nor for what is open on the
images service, too.

"""

_TABLE: Final = """\
| Method | Path | Function | Policy rules | Statements |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """docs/routes.md, without a note of where it comes from."""
    return _HEAD + _table("images") + _ARTIFACTS + _table("artifacts")


def _table(service: ServiceName) -> str:
    rows: list[str] = []
    for place in places(service):
        method, path = place.operation.split(" ")
        rules = ", ".join(f"`{rule}`" for rule in rules_of(place)) or "none"
        function = f"`{place.module.replace('.', '/')}.py: {place.function}`"
        cost = _words(COSTS[service][place.operation])
        rows.append(f"| {method} | `{path}` | {function} | {rules} | {cost} |\n")
    return _TABLE + "".join(rows)


def _words(cost: Cost) -> str:
    match cost.transactions:
        case 0:
            return str(cost.statements)
        case 1:
            return f"{cost.statements} in a transaction"
        case several:
            return f"{cost.statements}, {several} transactions"
