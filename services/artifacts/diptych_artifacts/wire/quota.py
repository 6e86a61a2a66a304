"""Quotas as administrators set them, and as they are shown."""

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from diptych_common.errors import BadRequest

from diptych_artifacts.settings import LARGEST_INTEGER

ByProject = Mapping[str, Mapping[str, int]]

_LONGEST: Final = 255
# One of a type is `name:type`.
_NAME: Final = re.compile("[^:]*:?[^:]*", re.DOTALL)

_VALUES: Final[dict[str, Any]] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["quota_name", "quota_value"],
        "properties": {
            "quota_name": {
                "type": "string",
                "description": f"Up to {_LONGEST} characters, with one colon at most.",
            },
            "quota_value": {"type": "integer", "minimum": -1, "maximum": LARGEST_INTEGER},
        },
    },
}
_PROJECTS: Final[dict[str, Any]] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["project_id", "project_quotas"],
        "properties": {
            "project_id": {"type": "string", "description": f"Up to {_LONGEST} characters."},
            "project_quotas": _VALUES,
        },
    },
}
SET_OPENAPI: Final[dict[str, Any]] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _PROJECTS}}},
    "responses": {
        "200": {
            "description": "The quotas are set.",
            "content": {"application/json": {"schema": {"type": "null"}}},
        }
    },
}


def parse(body: object) -> dict[str, dict[str, int]]:
    """The quotas to set, by project and name; of what is named twice the last counts.

    Raises BadRequest. Names are not looked up: one that means nothing limits nothing.
    """
    quotas: dict[str, dict[str, int]] = {}
    for each in _list(body, "The body"):
        project = _object(each, "A project")
        project_id = _text(project, "project_id")
        quotas[project_id] = {}
        for item in _list(project.get("project_quotas"), "project_quotas"):
            quota = _object(item, "A quota")
            name = _text(quota, "quota_name")
            if _NAME.fullmatch(name) is None:
                raise BadRequest("A quota_name has one colon at most.")
            quotas[project_id][name] = _value(quota)
    return quotas


def document(quotas: ByProject) -> list[dict[str, object]]:
    """The quotas of projects as clients see them."""
    return [
        {
            "project_id": project_id,
            "project_quotas": [
                {"quota_name": name, "quota_value": value} for name, value in values.items()
            ],
        }
        for project_id, values in quotas.items()
    ]


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        raise BadRequest(f"{what} must be an array.")
    return cast("list[object]", value)


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BadRequest(f"{what} must be an object.")
    return cast("dict[str, object]", value)


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= _LONGEST or "\x00" in value:
        raise BadRequest(f"{name} must be a string of 1 to {_LONGEST} characters.")
    return value


def _value(document: Mapping[str, object]) -> int:
    value = document.get("quota_value")
    if type(value) is not int or not -1 <= value <= LARGEST_INTEGER:
        raise BadRequest(f"quota_value must be an integer from -1 to {LARGEST_INTEGER}.")
    return value
