"""/quotas and /project-quotas: the limits of projects."""

from diptych_common.errors import Forbidden
from fastapi import APIRouter, Request, Response

from diptych_artifacts.api.errors import ANY_ERROR
from diptych_artifacts.api.resources import NO_BODY, Res, Who, answer, json_body
from diptych_artifacts.db import quotas
from diptych_artifacts.notifications import emit_quotas
from diptych_artifacts.wire import quota

router = APIRouter(responses=ANY_ERROR)


@router.put("/quotas", openapi_extra=quota.SET_OPENAPI)
async def set_(request: Request, res: Res, who: Who) -> Response:
    """Replace the quotas of the projects that are named; those of others stay."""
    body = await json_body(request)
    res.policy.require("artifact:set_quotas", who, {})
    values = quota.parse(body)
    async with res.db.write() as connection:
        await quotas.replace(connection, values)
        await emit_quotas(connection, quota.document(values))
    return answer(None)


@router.get("/quotas", dependencies=[NO_BODY])
async def list_(res: Res, who: Who) -> Response:
    """The quotas that were set, by project, and the limits of everybody else."""
    res.policy.require("artifact:list_all_quotas", who, {})
    async with res.db.read() as connection:
        of_projects = await quotas.of_all(connection)
    return answer({"quotas": quota.document(of_projects), "global_quotas": res.quotas.configured()})


@router.get("/project-quotas", dependencies=[NO_BODY])
async def show_own(res: Res, who: Who) -> Response:
    """The limits of the caller's project."""
    if who.project_id is None:
        raise Forbidden("This needs a token of a project, or the project's id.")
    return await show(who.project_id, res, who)


@router.get("/project-quotas/{project_id}", dependencies=[NO_BODY])
async def show(project_id: str, res: Res, who: Who) -> Response:
    """The limits of a project: those of the settings, where none were set for it."""
    res.policy.require("artifact:list_project_quotas", who, {"project_id": project_id})
    async with res.db.read() as connection:
        own = await quotas.of_project(connection, project_id)
    return answer(quota.document({project_id: {**res.quotas.configured(), **own}}))
