"""The JSON schemas served under /v2/schemas, and the checks made with the image's own.

The image schema that clients download (glanceclient before nearly every call, Nova for the list of
disk formats) is the very one that request documents are checked against, property by property.

Source: Glance 33.0, api/v2 schemas, as its clients see them; Images API reference, "Image schemas".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, cast

from diptych_common.errors import BadRequest
from jsonschema import Draft4Validator
from jsonschema.exceptions import SchemaError, ValidationError

from diptych_images.db.images import MemberStatus, Status, Visibility

Schema = dict[str, Any]

DISK_FORMATS = (
    "ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop",
)  # fmt: skip
CONTAINER_FORMATS = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")

STATUSES: tuple[Status, ...] = (
    "queued", "saving", "active", "killed", "deleted", "uploading", "importing",
    "pending_delete", "deactivated",
)  # fmt: skip
VISIBILITIES: tuple[Visibility, ...] = ("community", "public", "private", "shared")
MEMBER_STATUSES: tuple[MemberStatus, ...] = ("pending", "accepted", "rejected")

# Glance keeps the two as 32-bit columns and answers 400 beyond them.
MAX_INT = 2**31 - 1
MAX_NAME = 255
# What a TEXT column of MySQL holds: an image's properties can move to a Glance and back.
MAX_PROPERTY_BYTES = 65_535

UUID_PATTERN = (
    "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
)


# What Glance's stock site schema declares beside the base properties.
STOCK_SITE_PROPERTIES: Mapping[str, Schema] = {
    "kernel_id": {
        "type": ["null", "string"],
        "pattern": UUID_PATTERN,
        "description": "The image that holds the kernel to boot this one with.",
    },
    "ramdisk_id": {
        "type": ["null", "string"],
        "pattern": UUID_PATTERN,
        "description": "The image that holds the initial ramdisk to boot this one with.",
    },
    "instance_uuid": {
        "type": "string",
        "description": "The server that this image was made from.",
    },
    "architecture": {
        "type": "string",
        "description": "The processor architecture that the image runs on.",
    },
    "os_distro": {
        "type": "string",
        "description": "The common short name of the operating system's distribution.",
    },
    "os_version": {
        "type": "string",
        "description": "The version of the operating system, as its distributor writes it.",
    },
    "description": {
        "type": "string",
        "description": "What the image is, for people.",
    },
    "cinder_encryption_key_id": {
        "type": "string",
        "description": "The key that the volume in this image is encrypted with.",
    },
    "cinder_encryption_key_deletion_policy": {
        "type": "string",
        "enum": ["on_image_deletion", "do_not_delete"],
        "description": "Whether that key is deleted together with the image.",
    },
}

_ANY_OTHER: Schema = {"type": "string"}

_VALIDATION_DATA: Schema = {
    "type": "object",
    "writeOnly": True,
    "description": "What the data at the location must hash to.",
    "additionalProperties": False,
    "required": ["os_hash_algo", "os_hash_value"],
    "properties": {
        "checksum": {"type": "string", "minLength": 32, "maxLength": 32},
        "os_hash_algo": {"type": "string", "maxLength": 64},
        "os_hash_value": {"type": "string", "maxLength": 128},
    },
}

_LOCATION: Schema = {
    "type": "object",
    "required": ["url", "metadata"],
    "properties": {
        "url": {"type": "string", "maxLength": 255},
        "metadata": {"type": "object"},
        "validation_data": _VALIDATION_DATA,
    },
}


def _base_properties(
    disk_formats: Sequence[str], container_formats: Sequence[str]
) -> dict[str, Schema]:
    def shown(kind: str | list[str], description: str, **more: object) -> Schema:
        return {"type": kind, "readOnly": True, "description": description, **more}

    return {
        "id": {
            "type": "string",
            "pattern": UUID_PATTERN,
            "description": "The image's identifier; can be chosen at creation, never changes.",
        },
        "name": {
            "type": ["null", "string"],
            "maxLength": MAX_NAME,
            "description": "A name for people; need not be unique.",
        },
        "status": shown("string", "Where the image is in its life.", enum=list(STATUSES)),
        "visibility": {
            "type": "string",
            "enum": list(VISIBILITIES),
            "description": "Who can see and use the image.",
        },
        "protected": {
            "type": "boolean",
            "description": "Whether the image is safe from deletion.",
        },
        "os_hidden": {
            "type": "boolean",
            "description": "Whether lists leave the image out unless asked for hidden ones.",
        },
        "checksum": shown(["null", "string"], "MD5 of the data, in hex.", maxLength=32),
        "os_hash_algo": shown(
            ["null", "string"],
            "The algorithm of os_hash_value; can be chosen at creation.",
            maxLength=64,
        ),
        "os_hash_value": shown(["null", "string"], "Digest of the data, in hex.", maxLength=128),
        "owner": {
            "type": ["null", "string"],
            "maxLength": 255,
            "description": "The project that the image belongs to.",
        },
        "size": shown(["null", "integer"], "Size of the data in bytes."),
        "virtual_size": shown(
            ["null", "integer"], "Size in bytes of the disk that the data describes."
        ),
        "container_format": {
            "type": ["null", "string"],
            "enum": [None, *container_formats],
            "description": "What the disk is wrapped in.",
        },
        "disk_format": {
            "type": ["null", "string"],
            "enum": [None, *disk_formats],
            "description": "The format of the disk.",
        },
        "created_at": shown("string", "When the image was created."),
        "updated_at": shown("string", "When the image was last changed."),
        "tags": {
            "type": "array",
            "items": {"type": "string", "maxLength": MAX_NAME},
            "description": "Words to find the image by.",
        },
        "direct_url": shown("string", "Where the data is in its store."),
        "min_ram": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_INT,
            "description": "Memory in MB that a server needs to boot the image.",
        },
        "min_disk": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_INT,
            "description": "Disk in GB that a server needs to boot the image.",
        },
        "self": shown("string", "Path of the image."),
        "file": shown("string", "Path of the image's data."),
        "schema": shown("string", "Path of the schema that describes the image."),
        "stores": shown("string", "The stores that hold the data, separated by commas."),
        "locations": {
            "type": "array",
            "items": _LOCATION,
            "description": "Where the data is, one entry for each copy.",
        },
    }


class _Validator(Protocol):
    """What is used of a jsonschema validator, whose own types say little."""

    def iter_errors(self, instance: Any) -> Iterator[ValidationError]:
        """All that is wrong with a value."""
        ...


def _compiled(declared: Schema) -> _Validator:
    return cast("_Validator", Draft4Validator(declared))


class SiteSchemaError(ValueError):
    """The operator's site schema cannot be used; the message says why."""


class ImageSchema:
    """The image schema of one deployment, compiled.

    `site_properties` are what the operator declares beyond the base properties, as JSON schemas
    of strings (null may be allowed); `required` names properties that an image must have from
    creation on. Raises SiteSchemaError for a declaration that clashes with a base property, is no
    JSON schema, or allows anything but strings, which is all that a property can hold, and for a
    required property that a client cannot set.
    """

    def __init__(
        self,
        *,
        disk_formats: Sequence[str] = DISK_FORMATS,
        container_formats: Sequence[str] = CONTAINER_FORMATS,
        site_properties: Mapping[str, Schema] = STOCK_SITE_PROPERTIES,
        required: Sequence[str] = (),
    ) -> None:
        base = _base_properties(disk_formats, container_formats)
        for name, declared in site_properties.items():
            _check_site_property(name, declared, base)
        site = {name: {**declared, "is_base": False} for name, declared in site_properties.items()}
        properties = {**base, **site}
        unknown = [name for name in required if name not in properties]
        if unknown:
            raise SiteSchemaError(f"required but not declared: {', '.join(unknown)}")
        unsettable = [name for name in required if not _can_be_given(name, base)]
        if unsettable:
            raise SiteSchemaError(f"required, but never a client's: {', '.join(unsettable)}")

        self.required = tuple(required)
        # Custom properties that may be null, hence are shown as null and not as "".
        self.nullable = frozenset(
            name for name, declared in site.items() if "null" in _types(declared)
        )
        self.document: Schema = {
            "name": "image",
            "properties": properties,
            "additionalProperties": _ANY_OTHER,
            "links": [
                {"rel": "self", "href": "{self}"},
                {"rel": "enclosure", "href": "{file}"},
                {"rel": "describedby", "href": "{schema}"},
            ],
        }
        if required:
            self.document["required"] = list(required)
        self._properties = properties
        self._validators = {name: _compiled(declared) for name, declared in properties.items()}
        self._any_other = _compiled(_ANY_OTHER)
        self._location = _compiled(_LOCATION)

    def check(self, name: str, value: object) -> None:
        """Check one property of a request document; BadRequest says what is wrong with it."""
        if not name or len(name) > MAX_NAME:
            raise BadRequest(f"A property's name has 1 to {MAX_NAME} characters: {name[:300]!r}.")
        _refuse_nul(name, name)
        declared = self._properties.get(name, _ANY_OTHER)
        _check(self._validators.get(name, self._any_other), declared, name, value)
        if isinstance(value, str) and len(value.encode()) > MAX_PROPERTY_BYTES:
            raise BadRequest(f"Property {name} is longer than {MAX_PROPERTY_BYTES} bytes.")

    def check_location(self, value: object) -> None:
        """Check one entry of `locations`."""
        _check(self._location, _LOCATION, "locations", value)


def site_schema(document: object) -> tuple[dict[str, Schema], tuple[str, ...]]:
    """The declared properties and the required names of an operator's schema-image.json.

    It is either an object of properties, or `{"properties": {…}, "required": […]}`; the second is
    recognised by its keys holding an object and a list. Raises SiteSchemaError.
    """
    whole = _object(document, "the document")
    required: object = []
    if isinstance(whole.get("properties"), dict) and whole.keys() <= {"properties", "required"}:
        required = whole.get("required", [])
        whole = _object(whole["properties"], "properties")
    names = cast("list[object]", required) if isinstance(required, list) else [None]
    if not all(isinstance(name, str) for name in names):
        raise SiteSchemaError("required is not a list of names")
    declared = {name: _object(part, f"property {name}") for name, part in whole.items()}
    return declared, tuple(cast("list[str]", names))


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SiteSchemaError(f"{what} is not a JSON object")
    return cast("dict[str, Any]", value)


def _check_site_property(name: str, declared: Schema, base: Mapping[str, Schema]) -> None:
    if name in base:
        raise SiteSchemaError(f"{name} is a base property and cannot be declared again")
    try:
        Draft4Validator.check_schema(declared)
    except SchemaError as error:
        raise SiteSchemaError(f"{name} is not a JSON schema: {error.message}") from error
    if not {"string"} <= set(_types(declared)) <= {"string", "null"}:
        raise SiteSchemaError(f"{name} must be of type string, null allowed beside it")


def _can_be_given(name: str, base: Mapping[str, Schema]) -> bool:
    """Whether a client can name the property when it creates an image."""
    return name != "locations" and not base.get(name, {}).get("readOnly", False)


def _types(declared: Schema) -> Sequence[str]:
    kind = declared.get("type", ())
    return (kind,) if isinstance(kind, str) else kind


def _check(validator: _Validator, declared: Schema, name: str, value: object) -> None:
    # Types first and by hand: jsonschema puts the offending value into its message, which a
    # deeply nested one turns into a RecursionError.
    _check_types(declared, name, value)
    error = next(validator.iter_errors(value), None)
    if error is not None:
        where = "".join(f"/{part}" for part in error.absolute_path)
        raise BadRequest(f"Property {name}{where} {_complaint(error)}.")
    _refuse_nul(name, value)


_IS_TYPE: Mapping[str, Callable[[object], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _check_types(declared: Schema, where: str, value: object) -> None:
    """Check the types that a schema of this module declares, no deeper than it declares them."""
    types = _types(declared)
    if types and not any(_IS_TYPE[kind](value) for kind in types):
        raise BadRequest(f"Property {where} must be of type {' or '.join(types)}.")
    if isinstance(value, list) and "items" in declared:
        for position, item in enumerate(cast("list[object]", value)):
            _check_types(declared["items"], f"{where}/{position}", item)
    elif isinstance(value, dict) and "properties" in declared:
        members = cast("dict[str, object]", value)
        for name, part in declared["properties"].items():
            if name in members:
                _check_types(part, f"{where}/{name}", members[name])


def _complaint(error: ValidationError) -> str:
    """What is wrong, in the client's terms; never the value itself, which may be huge."""
    expected: Any = error.validator_value
    match error.validator:
        case "enum":
            return f"must be one of {', '.join('null' if v is None else str(v) for v in expected)}"
        case "maxLength":
            return f"is longer than {expected} characters"
        case "minLength":
            return f"is shorter than {expected} characters"
        case "minimum":
            return f"must be {expected} or more"
        case "maximum":
            return f"must be {expected} or less"
        case "pattern":
            return "is not a UUID" if expected == UUID_PATTERN else f"must match {expected}"
        case "required":
            return f"must have {' and '.join(expected)}"
        case keyword:
            return f"does not satisfy {keyword} of its schema"


def _refuse_nul(name: str, value: object) -> None:
    # The one character that PostgreSQL's text cannot hold. A list of what is still to be looked
    # at, as a location's metadata may be nested deeper than Python's stack.
    pending: list[object] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\x00" in item:
                raise BadRequest(f"Property {name[:MAX_NAME]!r} holds the character U+0000.")
        elif isinstance(item, list):
            pending.extend(cast("list[object]", item))
        elif isinstance(item, dict):
            members = cast("dict[str, object]", item)
            pending.extend(members.keys())
            pending.extend(members.values())


# --- the other documents ------------------------------------------------------------------------

_TIME: Schema = {"type": "string", "format": "date-time", "readOnly": True}

MEMBER: Schema = {
    "name": "member",
    "properties": {
        "member_id": {"type": "string", "description": "The project that the image is offered to."},
        "image_id": {
            "type": "string",
            "pattern": UUID_PATTERN,
            "description": "The image that is offered.",
        },
        "status": {
            "type": "string",
            "enum": list(MEMBER_STATUSES),
            "description": "What the project answered to the offer.",
        },
        "created_at": {"type": "string", "description": "When the image was offered."},
        "updated_at": {"type": "string", "description": "When the entry was last changed."},
        "schema": {
            "type": "string",
            "readOnly": True,
            "description": "Path of the schema that describes the entry.",
        },
    },
}

TASK: Schema = {
    "name": "task",
    "properties": {
        "id": {"type": "string", "pattern": UUID_PATTERN, "description": "The task's identifier."},
        "type": {
            "type": "string",
            "enum": ["import", "api_image_import", "location_import"],
            "description": "What kind of work it is.",
        },
        "status": {
            "type": "string",
            "enum": ["pending", "processing", "success", "failure"],
            "description": "How far the work has come.",
        },
        "input": {"type": ["null", "object"], "description": "What the work was started with."},
        "result": {"type": ["null", "object"], "description": "What came out of it."},
        "owner": {"type": "string", "description": "The project that the task belongs to."},
        "message": {"type": ["null", "string"], "description": "What happened, for people."},
        "image_id": {"type": ["null", "string"], "description": "The image that is worked on."},
        "request_id": {
            "type": ["null", "string"],
            "description": "The request that started the task.",
        },
        "user_id": {"type": ["null", "string"], "description": "The user who started the task."},
        "expires_at": {
            "type": ["null", "string"],
            "description": "When a finished task will be forgotten.",
        },
        "created_at": {"type": "string", "description": "When the task was made."},
        "updated_at": {"type": "string", "description": "When the task last changed."},
        "self": {"type": "string", "readOnly": True, "description": "Path of the task."},
        "schema": {
            "type": "string",
            "readOnly": True,
            "description": "Path of the schema that describes the task.",
        },
    },
}


def _simple_collection(name: str, item: Schema) -> Schema:
    return {
        "name": name,
        "properties": {
            name: {"type": "array", "items": item},
            "schema": {"type": "string"},
        },
        "links": [{"rel": "describedby", "href": "{schema}"}],
    }


def _paged_collection(name: str, item: Schema) -> Schema:
    """A collection in pages; shared definitions of the item move to the top."""
    document: Schema = {
        "name": name,
        "properties": {
            name: {
                "type": "array",
                "items": {key: part for key, part in item.items() if key != "definitions"},
            },
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }
    if "definitions" in item:
        document["definitions"] = item["definitions"]
    return document


_METADEF_NAME: Schema = {"type": "string", "maxLength": 80}
_METADEF_SHOWN: dict[str, Schema] = {
    "self": {"type": "string", "readOnly": True},
    "schema": {"type": "string", "readOnly": True},
    "created_at": {**_TIME, "description": "When it was created."},
    "updated_at": {**_TIME, "description": "When it was last changed."},
}

# One property definition of the metadata catalogue: a restricted JSON schema of its own.
_METADEF_PROPERTY_KEYS: dict[str, Schema] = {
    "title": {"type": "string", "description": "A title for people."},
    "description": {"type": "string"},
    "operators": {
        "type": "array",
        "items": {"type": "string"},
        "description": "The comparisons that make sense for values.",
    },
    "type": {
        "type": "string",
        "enum": ["array", "boolean", "integer", "number", "object", "string", None],
    },
    "required": {"$ref": "#/definitions/stringArray"},
    "minimum": {"type": "number"},
    "maximum": {"type": "number"},
    "maxLength": {"$ref": "#/definitions/positiveInteger"},
    "minLength": {"$ref": "#/definitions/positiveIntegerDefault0"},
    "pattern": {"type": "string", "format": "regex"},
    "enum": {"type": "array"},
    "readonly": {"type": "boolean"},
    "confidential": {"type": "boolean", "description": "Whether values are secrets."},
    "default": {},
    "items": {
        "type": "object",
        "properties": {
            "type": {
                "type": "string",
                "enum": ["array", "boolean", "integer", "number", "object", "string", None],
            },
            "enum": {"type": "array"},
        },
    },
    "maxItems": {"$ref": "#/definitions/positiveInteger"},
    "minItems": {"$ref": "#/definitions/positiveIntegerDefault0"},
    "uniqueItems": {"type": "boolean", "default": False},
    "additionalItems": {"type": "boolean"},
}

_METADEF_DEFINITIONS: Schema = {
    "positiveInteger": {"type": "integer", "minimum": 0},
    "positiveIntegerDefault0": {
        "allOf": [{"$ref": "#/definitions/positiveInteger"}, {"default": 0}],
    },
    "stringArray": {
        "type": "array",
        "items": {"type": "string"},
        "uniqueItems": True,
    },
    "property": {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "required": ["title", "type"],
            "properties": {"name": {"type": "string", "maxLength": 80}, **_METADEF_PROPERTY_KEYS},
        },
    },
}

METADEF_TAG: Schema = {
    "name": "tag",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": _METADEF_NAME,
        "created_at": _METADEF_SHOWN["created_at"],
        "updated_at": _METADEF_SHOWN["updated_at"],
    },
}

METADEF_PROPERTY: Schema = {
    "name": "property",
    "additionalProperties": False,
    "required": ["name", "title", "type"],
    "properties": {"name": _METADEF_NAME, **_METADEF_PROPERTY_KEYS},
    "definitions": {
        name: part for name, part in _METADEF_DEFINITIONS.items() if name != "property"
    },
}

METADEF_PROPERTIES: Schema = {
    "name": "properties",
    "properties": {
        "properties": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["title", "type"],
                "properties": {"name": _METADEF_NAME, **_METADEF_PROPERTY_KEYS},
            },
        },
        "first": {"type": "string"},
        "next": {"type": "string"},
        "schema": {"type": "string"},
    },
    "links": [
        {"rel": "first", "href": "{first}"},
        {"rel": "next", "href": "{next}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
    "definitions": METADEF_PROPERTY["definitions"],
}

METADEF_OBJECT: Schema = {
    "name": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": _METADEF_NAME,
        "description": {"type": "string"},
        "required": {"$ref": "#/definitions/stringArray"},
        "properties": {"$ref": "#/definitions/property"},
        **_METADEF_SHOWN,
    },
    "definitions": _METADEF_DEFINITIONS,
}

METADEF_RESOURCE_TYPE: Schema = {
    "name": "resource_type_association",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {
            **_METADEF_NAME,
            "description": "The kind of resource, by its Heat name where there is one.",
        },
        "prefix": {
            **_METADEF_NAME,
            "description": "What property names begin with on resources of this kind.",
        },
        "properties_target": {
            **_METADEF_NAME,
            "description": "Which part of the resource the properties belong to.",
        },
        "created_at": _METADEF_SHOWN["created_at"],
        "updated_at": _METADEF_SHOWN["updated_at"],
    },
}

METADEF_NAMESPACE: Schema = {
    "name": "namespace",
    "additionalProperties": False,
    "required": ["namespace"],
    "properties": {
        "namespace": {**_METADEF_NAME, "description": "The unique name of the namespace."},
        "display_name": {**_METADEF_NAME, "description": "A name for people."},
        "description": {
            "type": "string",
            "maxLength": 500,
            "description": "What the definitions are for.",
        },
        "visibility": {
            "type": "string",
            "enum": ["public", "private"],
            "description": "Who can see the namespace.",
        },
        "protected": {
            "type": "boolean",
            "description": "Whether the namespace is safe from deletion.",
        },
        "owner": {
            "type": "string",
            "maxLength": 255,
            "description": "The project that the namespace belongs to.",
        },
        "resource_type_associations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": _METADEF_NAME,
                    "prefix": _METADEF_NAME,
                    "properties_target": _METADEF_NAME,
                },
            },
        },
        "properties": {"$ref": "#/definitions/property"},
        "objects": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": _METADEF_NAME,
                    "description": {"type": "string"},
                    "required": {"$ref": "#/definitions/stringArray"},
                    "properties": {"$ref": "#/definitions/property"},
                },
            },
        },
        "tags": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": _METADEF_NAME}},
        },
        **_METADEF_SHOWN,
    },
    "definitions": _METADEF_DEFINITIONS,
}


@cache
def documents(image: ImageSchema) -> dict[str, Schema]:
    """Every schema document by its path below /v2/schemas/."""
    return {
        "image": image.document,
        "images": _paged_collection("images", image.document),
        "member": MEMBER,
        "members": _simple_collection("members", MEMBER),
        "task": TASK,
        "tasks": _simple_collection("tasks", TASK),
        "metadefs/namespace": METADEF_NAMESPACE,
        "metadefs/namespaces": _paged_collection("namespaces", METADEF_NAMESPACE),
        "metadefs/resource_type": METADEF_RESOURCE_TYPE,
        "metadefs/resource_types": _paged_collection(
            "resource_type_associations", METADEF_RESOURCE_TYPE
        ),
        "metadefs/property": METADEF_PROPERTY,
        "metadefs/properties": METADEF_PROPERTIES,
        "metadefs/object": METADEF_OBJECT,
        "metadefs/objects": _paged_collection("objects", METADEF_OBJECT),
        "metadefs/tag": METADEF_TAG,
        "metadefs/tags": _paged_collection("tags", METADEF_TAG),
    }
