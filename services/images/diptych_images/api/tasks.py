"""/v2/tasks, how data was imported before there were import methods; GET /v2/images/{id}/tasks."""

from typing import cast

from diptych_common.errors import BadRequest, MethodNotAllowed, NotFound
from diptych_common.identity import Identity
from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response

from diptych_images.api import creation
from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.importing import begin, sealed_token, signature_for
from diptych_images.api.resources import (
    NO_BODY,
    Res,
    Resources,
    Who,
    is_admin,
    json_body,
    not_found,
    refuse_anonymous,
    require,
)
from diptych_images.db import tasks
from diptych_images.db.tasks import TaskRow
from diptych_images.imports.web import check_uri
from diptych_images.wire import listing, parameters
from diptych_images.wire import task as wire
from diptych_images.wire.image import BASE_PROPERTIES

router = APIRouter(prefix="/v2", responses=ANY_ERROR)


@router.get("/images/{image_id}/tasks", dependencies=[NO_BODY])
async def of_image(image_id: str, res: Res, who: Who) -> Response:
    """How the imports into an image went and go: those of the caller's project."""
    async with res.db.read() as connection:
        found = await tasks.of_image(
            connection, image_id, project_id=who.project_id, is_admin=is_admin(res, who)
        )
    if found is None:
        raise not_found(image_id)
    row, its_tasks = found
    require(res, "get_image", who, row)
    shown = [wire.of_image(_readable(task, res, who)) for task in its_tasks]
    return json_response({"tasks": shown})


@router.get("/tasks", dependencies=[NO_BODY], openapi_extra=parameters.TASKS)
async def list_(request: Request, res: Res, who: Who) -> Response:
    """A page of the tasks that the caller sees."""
    _require_access(res, who, "get_tasks")
    items = listing.items(request.scope["query_string"])
    query = wire.query(
        items,
        default_limit=res.settings.default.limit_param_default,
        max_limit=res.settings.default.api_limit_max,
    )
    async with res.db.read() as connection:
        page = await tasks.page(
            connection, query, project_id=who.project_id, is_admin=is_admin(res, who)
        )
    if not page.rows and not page.marker_found:
        raise BadRequest(f"There is no task {query.marker} to begin after.")
    return json_response(wire.page(page.rows, items, limit=query.limit))


@router.post("/tasks", status_code=201, openapi_extra=wire.CREATE_OPENAPI)
async def create(request: Request, res: Res, who: Who) -> Response:
    """Make an image of data elsewhere; the image goes again if that fails."""
    refuse_anonymous(who)
    _require_access(res, who, "add_task")
    new = wire.parse(
        await json_body(request),
        has_swift="swift-local" in res.settings.import_methods,
        disk_formats=res.settings.image_format.disk_formats,
    )
    if new.source.uri is not None:
        check_uri(new.source.uri, res.settings)
    image = creation.checked(new.image, res, who)
    secret = sealed_token(request, new.source, res, who)
    signature = await signature_for(request, new.source, image.properties, res)
    quota = await res.quotas.of(image.owner)
    async with res.db.write() as connection:
        await quota.require(connection, images=1, uploading=1, size=0)
        row = await creation.insert(connection, image, quota)
        _, task = await begin(
            connection,
            res,
            who,
            new.source,
            image_id=row["id"],
            expected="queued",
            stores=(res.stores.default.name,),
            task_type="import",
            task_input=new.input,
            secret=secret,
            signature=signature,
            remove_image=True,
        )
    headers = {"Location": str(request.url_for("show_task", task_id=task["id"]))}
    return json_response(wire.document(_readable(task, res, who)), status=201, headers=headers)


@router.get("/tasks/{task_id}", dependencies=[NO_BODY], name="show_task")
async def show(task_id: str, res: Res, who: Who) -> Response:
    """One task."""
    _require_access(res, who, "get_task")
    async with res.db.read() as connection:
        task = await tasks.get(
            connection, task_id, project_id=who.project_id, is_admin=is_admin(res, who)
        )
    if task is None:
        raise NotFound(f"There is no task {task_id}.")
    return json_response(wire.document(_readable(task, res, who)))


@router.delete("/tasks/{task_id}")
async def delete(task_id: str, res: Res, who: Who) -> Response:
    """Never possible: a task is forgotten some time after its end."""
    _require_access(res, who)
    raise MethodNotAllowed("Tasks cannot be deleted; they expire.", headers={"Allow": "GET"})


def _readable(task: TaskRow, res: Resources, who: Identity) -> TaskRow:
    """The task, without what it was told of properties that the caller may not read."""
    given = task["input"].get("image_properties")
    if not isinstance(given, dict):
        return task
    properties = cast("dict[str, object]", given)
    hidden = res.protection.unreadable(who, properties.keys() - BASE_PROPERTIES)
    left = {name: value for name, value in properties.items() if name not in hidden}
    return {**task, "input": {**task["input"], "image_properties": left}}


def _require_access(res: Resources, who: Identity, *rules: str) -> None:
    for rule in ("tasks_api_access", *rules):
        res.policy.require(rule, who, {"project_id": who.project_id})
