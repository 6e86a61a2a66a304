"""What a client sends of a task, and the documents that it sees of one.

Source: Glance 33.0, api/v2/tasks.py and async_/flows/base_import.py; Images API, "Tasks".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast, get_args

from diptych_common import paging
from diptych_common.errors import BadRequest
from diptych_store.locations import without_credentials

from diptych_images.db.tasks import FilterKey, SortKey, TaskQuery, TaskRow, TaskStub
from diptych_images.wire.image import timestamp
from diptych_images.wire.imports import ImportRequest, swift_object
from diptych_images.wire.schemas import TASK

_STATUSES: Final = ("pending", "processing", "success", "failure")
_FILTERS: Final[tuple[str, ...]] = get_args(FilterKey)
_SORT_KEYS: Final[tuple[str, ...]] = get_args(SortKey)

_LONGEST_SOURCE: Final = 16_384
_INPUTS: Final = frozenset({"import_from", "import_from_format", "image_properties"})


@dataclass(frozen=True, slots=True)
class NewTask:
    """A checked request to make an image of what is somewhere else.

    `image` is what the image is made with, as a client would send it: its `disk_format` is missing
    where the client does not know it. `input` is the task's, without credentials.
    """

    source: ImportRequest
    image: Mapping[str, object]
    input: dict[str, object]


def parse(body: object, *, has_swift: bool, disk_formats: Sequence[str]) -> NewTask:
    """Check a request for a task; raises BadRequest. A URI is not looked at.

    Glance takes HTTP only and needs `import_from_format`. `container/object` without a format, as
    clouds with Swift behind their tasks had it, is what openstacksdk sends (`image_api_use_tasks`);
    `has_swift` allows it.
    """
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    document = cast("dict[str, Any]", body)
    for name in ("type", "input"):
        if name not in document:
            raise BadRequest(f"A task needs {name}.")
    if document["type"] != "import":
        raise BadRequest("Tasks of the type import can be created, no others.")
    if unknown := document.keys() - {"type", "input"}:
        raise BadRequest(f"A task has no {min(unknown)[:100]}.")
    if not isinstance(document["input"], dict):
        raise BadRequest("The input of a task must be an object.")
    given = cast("dict[str, Any]", document["input"])
    if unknown := given.keys() - _INPUTS:
        raise BadRequest(f"The input of an import has no {min(unknown)[:100]}.")
    properties = given.get("image_properties", {})
    if not isinstance(properties, dict):
        raise BadRequest("image_properties must be an object.")

    source = given.get("import_from")
    if (not isinstance(source, str) or not source or "\0" in source) or len(
        source
    ) > _LONGEST_SOURCE:
        raise BadRequest("import_from must name where the data is.")
    declared = given.get("import_from_format")
    if declared not in (None, "", *disk_formats):
        raise BadRequest(f"import_from_format must be one of {', '.join(disk_formats)}.")
    image = {"container_format": "bare", **cast("dict[str, object]", properties)}
    if declared:
        image.setdefault("disk_format", declared)
    is_url = "://" in source
    return NewTask(
        source=_web(source) if is_url else _swift(source, has_swift=has_swift),
        image=image,
        input={**given, "import_from": without_credentials(source) if is_url else source},
    )


def _web(source: str) -> ImportRequest:
    return ImportRequest("web-download", uri=source)


def _swift(source: str, *, has_swift: bool) -> ImportRequest:
    if not has_swift:
        raise BadRequest("import_from must be an HTTP address.")
    swift_object(source)
    return ImportRequest("swift-local", swift_location=source)


def query(items: Sequence[tuple[str, str]], *, default_limit: int, max_limit: int) -> TaskQuery:
    """What a client asks of the list; raises BadRequest. Of a repeated parameter the last counts.

    As in Glance, `type` can be asked for only as `import`, and what is no property of a task is
    ignored.
    """
    if any("\0" in part for item in items for part in item):
        raise BadRequest("The query string holds the character U+0000.")
    last = dict(items)
    if last.get("status", "") not in ("", *_STATUSES):
        raise BadRequest(f"status must be one of {', '.join(_STATUSES)}.")
    if last.get("type", "") not in ("", "import"):
        raise BadRequest("Tasks can be listed by the type import, no others.")
    key, direction = last.get("sort_key", "created_at"), last.get("sort_dir", "desc")
    if key not in _SORT_KEYS:
        raise BadRequest(f"sort_key must be one of {', '.join(_SORT_KEYS)}.")
    if direction not in ("asc", "desc"):
        raise BadRequest("sort_dir must be asc or desc.")
    return TaskQuery(
        limit=paging.limit_of(items, default=default_limit, cap=max_limit),
        filters={cast(FilterKey, name): last[name] for name in _FILTERS if last.get(name)},
        sort_key=cast(SortKey, key),
        sort_dir=direction,
        marker=paging.marker_of(items),
    )


def document(task: TaskRow) -> dict[str, object]:
    """One task."""
    shown = stub(task)
    shown |= {"input": task["input"], "result": task["result"], "message": task["message"]}
    for name in ("image_id", "request_id", "user_id"):
        if task[name] is not None:
            shown[name] = task[name]
    return shown


def stub(task: TaskStub) -> dict[str, object]:
    """A task in a list."""
    shown: dict[str, object] = {
        "id": task["id"],
        "type": task["type"],
        "status": task["status"],
        "owner": task["owner"],
        "created_at": timestamp(task["created_at"]),
        "updated_at": timestamp(task["updated_at"]),
        "self": f"/v2/tasks/{task['id']}",
        "schema": "/v2/schemas/task",
    }
    if task["expires_at"] is not None:
        shown["expires_at"] = timestamp(task["expires_at"])
    return shown


def page(
    tasks: Sequence[TaskStub], items: Sequence[tuple[str, str]], *, limit: int
) -> dict[str, object]:
    """A page of the list; a full one has a `next`, even if it is the last."""
    marker = tasks[-1]["id"] if tasks and len(tasks) == limit else None
    return {
        "tasks": [stub(task) for task in tasks],
        "schema": "/v2/schemas/tasks",
        **paging.links("/v2/tasks", items, next_marker=marker),
    }


def of_image(task: TaskRow) -> dict[str, object]:
    """A task in the list of an image's, where times are to the microsecond and have no zone."""
    return {
        "id": task["id"],
        "type": task["type"],
        "status": task["status"],
        "owner": task["owner"],
        "input": task["input"],
        "result": task["result"],
        "message": task["message"],
        "image_id": task["image_id"],
        "request_id": task["request_id"],
        "user_id": task["user_id"],
        "created_at": _raw(task["created_at"]),
        "updated_at": _raw(task["updated_at"]),
        "expires_at": None if task["expires_at"] is None else _raw(task["expires_at"]),
        "deleted": False,
        "deleted_at": None,
    }


def _raw(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


CREATE_OPENAPI: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["type", "input"],
                    "additionalProperties": False,
                    "properties": {
                        "type": {"type": "string", "enum": ["import"]},
                        "input": {
                            "type": "object",
                            "required": ["import_from"],
                            "additionalProperties": False,
                            "properties": {
                                "import_from": {
                                    "type": "string",
                                    "maxLength": _LONGEST_SOURCE,
                                    "description": "An HTTP address; with the method swift-local,"
                                    " container/object too.",
                                },
                                "import_from_format": {
                                    "type": ["string", "null"],
                                    "description": "The disk_format, where the properties have"
                                    " none. Without either, it is found in the data.",
                                },
                                "image_properties": {
                                    "type": "object",
                                    "description": "The image, as for POST /v2/images.",
                                },
                            },
                        },
                    },
                }
            }
        },
    },
    "responses": {
        "201": {
            "description": "The task; its result will have the image_id.",
            "content": {"application/json": {"schema": TASK}},
        }
    },
}
