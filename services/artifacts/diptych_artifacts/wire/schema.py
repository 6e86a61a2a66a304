"""The JSON schema of a type, as it is served under /schemas.

Flags are there only where they are not what most fields have; `filter_ops` always is. Answers have
more than the schema of blobs says (`url`, a null `content_type`): clients know it in this form.

Source: Glare 5.0.1, objects/base.py `_schema_field`.
"""

from typing import Any, Final

from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.fields import Field, Kind

Schema = dict[str, Any]

_JSON_TYPES: Final[dict[Kind, str]] = {
    "String": "string",
    "Integer": "integer",
    "Float": "number",
    "Boolean": "boolean",
    "DateTime": "string",
    "Version": "string",
    "Link": "string",
    "Blob": "object",
}


def schema(artifact_type: ArtifactType) -> Schema:
    """The schema of a type, valid by draft 4 of JSON Schema; a new document."""
    name, version = artifact_type.name, artifact_type.version
    return {
        "name": name,
        "version": version,
        "title": f"Artifact type {name} of version {version}",
        "type": "object",
        "display_name": artifact_type.display_name,
        "required": ["name"],
        "properties": {key: _property(field) for key, field in artifact_type.fields.items()},
    }


def _property(field: Field) -> Schema:
    return {
        **_value(field),
        **({"mutable": True} if field.mutable else {}),
        **({"sortable": True} if field.sortable else {}),
        **({"readOnly": True} if field.system else {}),
        **({} if field.required_on_activate else {"required_on_activate": False}),
        **({} if field.default is None else {"default": field.default}),
        **({"description": field.description} if field.description else {}),
        **({} if field.metadata is None else {"metadata": dict(field.metadata)}),
        "filter_ops": list(field.filter_ops),
    }


def _value(field: Field) -> Schema:
    """What a value of the field is, without its flags."""
    conditions: Schema = {}
    for check in field.checks:
        conditions |= check.schema()
    match field.shape:
        case "one":
            described: Schema = _one(field)
        case "list":
            described = {"type": "array", "glareType": f"{_glare_type(field)}List"}
            described["items"] = _element(field)
        case "dict":
            described = {"type": "object", "glareType": f"{_glare_type(field)}Dict"}
            described |= _entries(field, conditions)
    described |= conditions
    if field.nullable and not field.is_blob:
        described["type"] = [described["type"], "null"]
    return described


def _one(field: Field) -> Schema:
    described: Schema = {"type": _JSON_TYPES[field.kind], "glareType": _glare_type(field)}
    if field.kind == "DateTime":
        described["format"] = "date-time"
    return described | _blob() if field.is_blob else described


def _glare_type(field: Field) -> str:
    # A version is a string to clients.
    return "String" if field.kind == "Version" else field.kind


def _element(field: Field) -> Schema:
    described: Schema = {"type": _JSON_TYPES[field.kind]}
    for check in field.element_checks:
        described |= check.schema()
    return described


def _entries(field: Field, conditions: Schema) -> Schema:
    """What the values of a dict are; takes the keys that are allowed out of its conditions."""
    if field.is_folder:
        return {"additionalProperties": _blob()}
    element = _element(field)
    allowed = conditions.pop("properties", None)
    if allowed is None:
        return {"additionalProperties": element}
    required = conditions.pop("required", ())
    return {
        "properties": {
            key: {
                **element,
                "type": element["type"] if key in required else [element["type"], "null"],
            }
            for key in allowed
        },
        "additionalProperties": False,
    }


def _blob() -> Schema:
    described: Schema = {
        "size": {"type": ["number", "null"]},
        "md5": {"type": ["string", "null"]},
        "sha1": {"type": ["string", "null"]},
        "sha256": {"type": ["string", "null"]},
        "external": {"type": "boolean"},
        "status": {"type": "string", "enum": ["saving", "active"]},
        "content_type": {"type": "string"},
    }
    return {
        "type": ["object", "null"],
        "properties": described,
        "required": list(described),
        "additionalProperties": False,
    }
