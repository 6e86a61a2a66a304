"""/schemas: the types of artifacts, as JSON schemas."""

from diptych_common.responses import json_response
from fastapi import APIRouter, Response

from diptych_artifacts.api.errors import ANY_ERROR
from diptych_artifacts.api.resources import NO_BODY, Res, Who, known_type
from diptych_artifacts.wire import schema

router = APIRouter(prefix="/schemas", responses=ANY_ERROR)

_JSON_SCHEMA = "application/schema+json; charset=UTF-8"


@router.get("", dependencies=[NO_BODY])
async def list_(res: Res, who: Who) -> Response:
    """The schemas of all types."""
    res.policy.require("artifact:type_list", who, {})
    schemas = {name: schema.schema(known) for name, known in res.types.items()}
    return json_response({"schemas": schemas}, media_type=_JSON_SCHEMA)


@router.get("/{type_name}", dependencies=[NO_BODY])
async def show(type_name: str, res: Res, who: Who) -> Response:
    """The schema of one type."""
    res.policy.require("artifact:type_list", who, {})
    known = known_type(type_name, res)
    return json_response({"schemas": {known.name: schema.schema(known)}}, media_type=_JSON_SCHEMA)
