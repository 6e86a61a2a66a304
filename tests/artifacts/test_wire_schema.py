"""The schemas of types, as clients of Glare know them."""

from typing import Any

import pytest
from diptych_artifacts.types import validators
from diptych_artifacts.types.artifact_type import ArtifactType
from diptych_artifacts.types.base import FIELDS
from diptych_artifacts.types.fields import Field
from diptych_artifacts.types.registry import BUILT_IN, Types
from diptych_artifacts.wire.schema import schema
from jsonschema import Draft4Validator

_TYPES = Types(list(BUILT_IN.values()))

_BLOB: dict[str, Any] = {
    "type": ["object", "null"],
    "additionalProperties": False,
    "properties": {
        "size": {"type": ["number", "null"]},
        "md5": {"type": ["string", "null"]},
        "sha1": {"type": ["string", "null"]},
        "sha256": {"type": ["string", "null"]},
        "external": {"type": "boolean"},
        "status": {"type": "string", "enum": ["saving", "active"]},
        "content_type": {"type": "string"},
    },
    "required": ["size", "md5", "sha1", "sha256", "external", "status", "content_type"],
}
_EVERY_OP = ["eq", "neq", "in", "gt", "gte", "lt", "lte"]
_LINKS_IN_ORDER = {"type": ["array", "null"], "glareType": "LinkList", "items": {"type": "string"}}

# Without the descriptions, which are in our words.
_BASE: dict[str, dict[str, Any]] = {
    "id": {
        "type": "string",
        "glareType": "String",
        "readOnly": True,
        "sortable": True,
        "pattern": "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}"
        "-([0-9a-fA-F]){12}$",
        "maxLength": 255,
        "filter_ops": ["eq", "neq", "in"],
    },
    "name": {
        "type": "string",
        "glareType": "String",
        "required_on_activate": False,
        "sortable": True,
        "minLength": 1,
        "maxLength": 255,
        "filter_ops": ["like", "eq", "neq", "in"],
    },
    "owner": {
        "type": "string",
        "glareType": "String",
        "readOnly": True,
        "required_on_activate": False,
        "sortable": True,
        "maxLength": 255,
        "filter_ops": ["eq", "neq", "in"],
    },
    "status": {
        "type": "string",
        "glareType": "String",
        "mutable": True,
        "sortable": True,
        "enum": ["drafted", "active", "deactivated", "deleted"],
        "default": "drafted",
        "filter_ops": ["eq", "neq", "in"],
    },
    "created_at": {
        "type": "string",
        "glareType": "DateTime",
        "format": "date-time",
        "readOnly": True,
        "sortable": True,
        "filter_ops": ["lt", "gt"],
    },
    "updated_at": {
        "type": "string",
        "glareType": "DateTime",
        "format": "date-time",
        "readOnly": True,
        "mutable": True,
        "sortable": True,
        "filter_ops": ["lt", "gt"],
    },
    "activated_at": {
        "type": ["string", "null"],
        "glareType": "DateTime",
        "format": "date-time",
        "readOnly": True,
        "required_on_activate": False,
        "sortable": True,
        "filter_ops": ["lt", "gt"],
    },
    "description": {
        "type": ["string", "null"],
        "glareType": "String",
        "mutable": True,
        "required_on_activate": False,
        "maxLength": 4096,
        "default": "",
        "filter_ops": [],
    },
    "tags": {
        "type": ["array", "null"],
        "glareType": "StringList",
        "mutable": True,
        "required_on_activate": False,
        "maxItems": 255,
        "uniqueItems": True,
        "items": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[^,/]+$"},
        "default": [],
        "filter_ops": [],
    },
    "metadata": {
        "type": ["object", "null"],
        "glareType": "StringDict",
        "required_on_activate": False,
        "maxProperties": 255,
        "additionalProperties": {"type": "string", "minLength": 1, "maxLength": 255},
        "default": {},
        "filter_ops": ["eq", "neq", "in"],
    },
    "visibility": {
        "type": "string",
        "glareType": "String",
        "mutable": True,
        "sortable": True,
        "enum": ["private", "public"],
        "default": "private",
        "filter_ops": ["eq", "neq", "in"],
    },
    "version": {
        "type": "string",
        "glareType": "String",
        "required_on_activate": False,
        "sortable": True,
        "pattern": r"/^([0-9]+)\.([0-9]+)\.([0-9]+)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
        r"(?:\+[0-9A-Za-z-]+)?$/",
        "default": "0.0.0",
        "filter_ops": _EVERY_OP,
    },
    "display_type_name": {
        "type": ["string", "null"],
        "glareType": "String",
        "readOnly": True,
        "sortable": True,
        "maxLength": 255,
        "filter_ops": ["like", "eq", "neq", "in"],
    },
}

_STRING: dict[str, Any] = {
    "type": ["string", "null"],
    "glareType": "String",
    "filter_ops": ["eq", "neq", "in"],
}
_SOME_STRING = {**_STRING, "maxLength": 255}
_SOME_STRINGS: dict[str, Any] = {
    "type": ["array", "null"],
    "glareType": "StringList",
    "items": {"type": "string", "maxLength": 255},
    "maxItems": 255,
    "default": [],
    "filter_ops": ["eq", "neq", "in"],
}
_STRINGS_BY_KEY: dict[str, Any] = {
    "type": ["object", "null"],
    "glareType": "StringDict",
    "additionalProperties": {"type": "string", "maxLength": 255},
    "maxProperties": 255,
    "default": {},
    "filter_ops": ["eq", "neq", "in"],
}
_A_BLOB = {**_BLOB, "glareType": "Blob", "filter_ops": []}
_OPTIONAL = {"required_on_activate": False}
_UUID = {key: _BASE["id"][key] for key in ("pattern", "maxLength")}

_OWN: dict[str, dict[str, Any]] = {
    "images": {
        "container_format": {
            **_STRING,
            "enum": ["ami", "ari", "aki", "bare", "ovf", "ova", "docker"],
        },
        "disk_format": {
            **_STRING,
            "enum": ["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso"],
        },
        **{
            name: {
                "type": ["integer", "null"],
                "glareType": "Integer",
                "minimum": 0,
                "filter_ops": _EVERY_OP,
                **_OPTIONAL,
            }
            for name in ("min_ram", "min_disk")
        },
        "image": {**_A_BLOB, **_OPTIONAL},
        "kernel_id": {**_STRING, **_UUID, **_OPTIONAL},
        "ramdisk_id": {**_STRING, **_UUID, **_OPTIONAL},
        **{
            name: {**_SOME_STRING, **_OPTIONAL}
            for name in ("instance_uuid", "architecture", "os_distro", "os_version")
        },
    },
    "heat_templates": {
        "environments": {
            **_STRINGS_BY_KEY,
            "glareType": "LinkDict",
            "additionalProperties": {"type": "string"},
            "mutable": True,
            "filter_ops": ["eq", "neq"],
        },
        "template": _A_BLOB,
        "nested_templates": {
            "type": ["object", "null"],
            "glareType": "BlobDict",
            "additionalProperties": _BLOB,
            "maxProperties": 255,
            "default": {},
            "filter_ops": [],
        },
        "default_envs": {**_STRINGS_BY_KEY, "mutable": True},
    },
    "heat_environments": {"environment": _A_BLOB},
    "tosca_templates": {"template_format": _SOME_STRING, "template": _A_BLOB},
    "murano_packages": {
        "package": {**_A_BLOB, **_OPTIONAL},
        "type": {**_STRING, "enum": ["Application", "Library"], "default": "Application"},
        "display_name": {**_SOME_STRING, "mutable": True},
        "categories": {**_SOME_STRINGS, "mutable": True},
        "class_definitions": {**_SOME_STRINGS, "uniqueItems": True},
        "inherits": _STRINGS_BY_KEY,
        "keywords": {**_SOME_STRINGS, "mutable": True},
        "dependencies": {
            **_LINKS_IN_ORDER,
            "maxItems": 255,
            "default": [],
            "filter_ops": ["eq", "neq"],
            **_OPTIONAL,
        },
    },
    "secrets": {
        "payload": _A_BLOB,
        "payload_content_encoding": {
            **_STRING,
            "enum": ["base64"],
            "default": "base64",
            "filter_ops": [],
            **_OPTIONAL,
        },
        "secret_type": {
            **_STRING,
            "enum": ["symmetric", "public", "private", "passphrase", "certificate", "opaque"],
            "default": "opaque",
            "sortable": True,
            "filter_ops": ["eq"],
            **_OPTIONAL,
        },
        "algorithm": {**_SOME_STRING, "filter_ops": ["eq"], **_OPTIONAL},
        "bit_length": {
            "type": ["integer", "null"],
            "glareType": "Integer",
            "minimum": 1,
            "sortable": True,
            "filter_ops": _EVERY_OP,
            **_OPTIONAL,
        },
        "mode": {**_SOME_STRING, "filter_ops": ["eq"], **_OPTIONAL},
    },
    "all": {
        "type_name": {
            **_SOME_STRING,
            "sortable": True,
            "filter_ops": ["like", "eq", "neq", "in"],
        }
    },
}


@pytest.mark.parametrize("name", list(_OWN))
def test_schemas_of_built_in_types(name: str) -> None:
    served = schema(_TYPES[name])
    Draft4Validator.check_schema(served)
    properties = {
        key: {word: value for word, value in one.items() if word != "description"}
        for key, one in served.pop("properties").items()
    }
    assert properties == _BASE | _OWN[name]
    assert list(properties) == [*_BASE, *_OWN[name]]
    assert served == {
        "name": name,
        "version": "1.0",
        "title": f"Artifact type {name} of version 1.0",
        "type": "object",
        "display_name": _TYPES[name].display_name,
        "required": ["name"],
    }


def test_what_validators_add() -> None:
    declared = ArtifactType(
        "declared",
        "Declared",
        {
            "string": Field(
                "String",
                nullable=False,
                metadata={"group": "text"},
                validators=[
                    validators.MinStrLen(2),
                    validators.MaxStrLen(20),
                    validators.ForbiddenChars(["]", "^", "-", "\\", "a"]),
                ],
            ),
            "pattern": Field("String", validators=[validators.Regex("^a+$")]),
            "number": Field(
                "Float", validators=[validators.MinNumberSize(0.5), validators.MaxNumberSize(2)]
            ),
            "list": Field(
                "Integer",
                "list",
                default=[1],
                validators=[validators.MinListSize(1), validators.MaxListSize(2)],
                element_validators=[validators.AllowedValues([1, 2])],
            ),
            "open": Field(
                "Boolean", "dict", default=None, validators=[validators.RequiredDictKeys(["a"])]
            ),
            "closed": Field(
                "String",
                "dict",
                validators=[
                    validators.AllowedDictKeys(["a", "b"]),
                    validators.RequiredDictKeys(["a"]),
                    validators.MaxDictSize(2),
                    validators.MinDictSize(1),
                ],
            ),
        },
        version="2.1",
    )
    served = schema(declared)
    Draft4Validator.check_schema(served)
    assert served["title"] == "Artifact type declared of version 2.1"
    properties = served["properties"]
    assert {name: properties[name] for name in declared.fields if name not in FIELDS} == {
        "string": {
            "type": "string",
            "glareType": "String",
            "minLength": 2,
            "maxLength": 20,
            "pattern": r"^[^\]\^\-\\a]+$",
            "metadata": {"group": "text"},
            "filter_ops": ["eq", "neq", "in"],
        },
        "pattern": {**_SOME_STRING, "pattern": "^a+$"},
        "number": {
            "type": ["number", "null"],
            "glareType": "Float",
            "minimum": 0.5,
            "maximum": 2,
            "filter_ops": _EVERY_OP,
        },
        "list": {
            "type": ["array", "null"],
            "glareType": "IntegerList",
            "items": {"type": "integer", "enum": [1, 2]},
            "minItems": 1,
            "maxItems": 2,
            "default": [1],
            "filter_ops": _EVERY_OP,
        },
        "open": {
            "type": ["object", "null"],
            "glareType": "BooleanDict",
            "additionalProperties": {"type": "boolean"},
            "required": ["a"],
            "maxProperties": 255,
            "filter_ops": ["eq", "neq"],
        },
        "closed": {
            "type": ["object", "null"],
            "glareType": "StringDict",
            "properties": {
                "a": {"type": "string", "maxLength": 255},
                "b": {"type": ["string", "null"], "maxLength": 255},
            },
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 2,
            "default": {},
            "filter_ops": ["eq", "neq", "in"],
        },
    }
