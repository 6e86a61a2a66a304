"""PATCH /artifacts/{type}/{id}."""

from collections.abc import Mapping
from typing import Any, cast

from fastapi import APIRouter, Request, Response

from diptych_artifacts.api.errors import ANY_ERROR
from diptych_artifacts.api.resources import (
    Res,
    Who,
    answer,
    document,
    is_admin,
    json_body,
    require,
    require_links,
    require_owner,
    taken,
    target,
    visible_artifact,
    without_uploads,
    writable_type,
)
from diptych_artifacts.db import artifacts
from diptych_artifacts.db.artifacts import Duplicate
from diptych_artifacts.notifications import emit
from diptych_artifacts.types import hooks
from diptych_artifacts.types.hooks import Before, Call, Notice
from diptych_artifacts.wire import artifact as wire
from diptych_artifacts.wire import patch

router = APIRouter(prefix="/artifacts/{type_name}", responses=ANY_ERROR)


@router.patch("/{artifact_id}", openapi_extra=patch.OPENAPI)
async def update(
    type_name: str, artifact_id: str, request: Request, res: Res, who: Who
) -> Response:
    """Apply all operations in their order, or none; others that change the artifact wait."""
    body = await json_body(request, content_type=patch.CONTENT_TYPE)
    operations = patch.parse(body)
    sent = tuple(cast("list[Mapping[str, Any]]", body))
    async with res.db.write() as connection:
        row = await visible_artifact(connection, type_name, artifact_id, res, who, lock=True)
        known = writable_type(type_name, res)
        require_owner(res, who, row)
        require(res, "artifact:update", who, row)
        draft = before = patch.begin(row, known)
        if operations:
            call = Call(who, type_name, draft.values, patch=sent)
            draft = patch.setting(draft, await hooks.changes(known.hooks.pre_update, call))
        done = ["update"]
        for operation in operations:
            step = patch.apply(draft, operation)
            if step.transition is not None:
                asked = {**target(row), **step.draft.values}
                res.policy.require(f"artifact:{step.transition}", who, asked)
                hook = cast(Before | None, getattr(known.hooks, f"pre_{step.transition}"))
                call = Call(who, type_name, draft.values, patch=sent)
                draft = patch.setting(step.draft, await hooks.changes(hook, call))
                # One that finds the state so already is no news.
                if step.is_effective:
                    done.append(step.transition)
            else:
                draft = step.draft
        if draft.values == before.values and done == ["update"]:
            return answer(document(row, res))
        status = draft.values["status"]
        if status != row["status"]:
            may_end = status == "deactivated" and is_admin(res, who)
            row = await without_uploads(connection, row, may_end=may_end)
        new = patch.content(draft)
        most = res.settings.default.max_artifact_size
        wire.require_size(new, most=most, before=patch.content(before))
        await require_links(connection, patch.new_links(before, draft), res, who)
        try:
            row = await artifacts.update(
                connection,
                row,
                new,
                status=status,
                visibility=draft.values["visibility"],
                activated="activate" in done or "reactivate" in done,
            )
        except Duplicate as error:
            raise taken(draft.values["name"], draft.values["version"]) from error
        for action in done:
            await emit(connection, action, row)
    shown = document(row, res)
    for action in done:
        hook = cast(Notice | None, getattr(known.hooks, f"post_{action}"))
        await hooks.notify(hook, Call(who, type_name, shown, patch=sent))
    return answer(shown)
