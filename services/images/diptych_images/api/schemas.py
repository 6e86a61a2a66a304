"""GET /v2/schemas/*: the JSON schemas that glanceclient reads before nearly every call."""

from diptych_common.errors import NotFound
from diptych_common.responses import json_response
from fastapi import APIRouter, Request, Response

from diptych_images.api.errors import ANY_ERROR
from diptych_images.api.resources import Res, Who, refuse_body
from diptych_images.wire import schemas

router = APIRouter(prefix="/v2/schemas", responses=ANY_ERROR)

# Glance reads past a body here, and only here.
_TOLERANT = frozenset({"task", "tasks"})


@router.get("/{name:path}")
async def show(name: str, request: Request, res: Res, who: Who) -> Response:
    """One schema; what it describes is in its name."""
    document = schemas.documents(res.schema).get(name)
    if document is None:
        raise NotFound(f"There is no schema {name}.")
    if name not in _TOLERANT:
        await refuse_body(request)
    return json_response(document)
