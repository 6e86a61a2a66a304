"""What a client sends to import data into an image, and what of it the job is given."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, cast
from uuid import UUID

from diptych_common.errors import BadRequest
from diptych_store.locations import without_credentials

# Of the locations API, whose rules for `validation_data` hold here too: algorithm, hex digits.
# Source: Glance 33.0, schema of add_location.
_DIGITS: Final = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
_HEX: Final = re.compile(r"[0-9a-fA-F]*")

# Presigned addresses are long; these are the longest that anybody has been seen to need, doubled.
_LONGEST_URI: Final = 16_384
_LONGEST_NAME: Final = 2_048

_TEXT_OF_METHOD: Final = (
    "uri", "glance_region", "glance_image_id", "glance_service_interface", "swift-location",
)  # fmt: skip
_TEXT_OF_BODY: Final = ("source_disk_format", "source_container_format", "os_type")
_FLAGS: Final = ("all_stores", "all_stores_must_succeed")


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """A request to import, well formed; whether its method has all it needs is `check_source`'s.

    `expected` is the algorithm and the digest, in lower case, that the source's bytes must have.
    `swift_location` is a container and an object. `stores` is None where the body names none;
    `all_stores` is never true beside it. `given` is what of the body has a meaning, without
    credentials: the `import_req` of the task.
    """

    method: str
    uri: str | None = None
    expected: tuple[str, str] | None = None
    glance_region: str | None = None
    glance_image_id: str | None = None
    glance_service_interface: str = "public"
    swift_location: str | None = None
    source_disk_format: str | None = None
    source_container_format: str | None = None
    os_type: str | None = None
    stores: tuple[str, ...] | None = None
    all_stores: bool = False
    all_stores_must_succeed: bool = True
    given: Mapping[str, object] | None = None

    def check_source(self) -> None:
        """Raise BadRequest if what the method reads from is not named; a URI is not looked at."""
        if self.method == "glance-download":
            for name, value in (
                ("glance_region", self.glance_region),
                ("glance_image_id", self.glance_image_id),
            ):
                if not value:
                    raise BadRequest(f"The method glance-download needs {name}.")
            try:
                UUID(self.glance_image_id)
            except ValueError:
                raise BadRequest("The remote image id does not look like a UUID.") from None
        if self.method == "swift-local":
            swift_object(self.swift_location)

    def payload(self) -> dict[str, object]:
        """The request for a job's payload; `read` makes it a request again."""
        document: dict[str, object] = {
            name: getattr(self, name) for name in self.__slots__ if name != "given"
        }
        for name in ("expected", "stores"):
            value = cast("tuple[str, ...] | None", document[name])
            document[name] = None if value is None else list(value)
        return document

    @classmethod
    def read(cls, payload: Mapping[str, Any]) -> Self:
        """The request of such a payload, without `given`."""
        values = dict(payload)
        for name in ("expected", "stores"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class ImportJob:
    """What the job of an import is told.

    `stores` are the names of those to import into, at least one. `roles` and `project_id` are the
    caller's, `request_id` is the id of the request. With `remove_image` the image was made for
    this import, and goes if it fails. `os_hash_algo` is what the image had before. `signature` is
    the document of the one that the bytes must bear out, None if the image was not signed.
    """

    task_id: str
    image_id: str
    request: ImportRequest
    stores: tuple[str, ...]
    roles: tuple[str, ...]
    project_id: str | None
    request_id: str | None
    remove_image: bool = False
    os_hash_algo: str | None = None
    signature: Mapping[str, str] | None = None

    def payload(self) -> dict[str, object]:
        """The payload of the job in the database."""
        return {
            "task_id": self.task_id,
            "image_id": self.image_id,
            "request": self.request.payload(),
            "stores": list(self.stores),
            "roles": list(self.roles),
            "project_id": self.project_id,
            "request_id": self.request_id,
            "remove_image": self.remove_image,
            "os_hash_algo": self.os_hash_algo,
            "signature": self.signature,
        }

    @classmethod
    def read(cls, payload: Mapping[str, Any]) -> Self:
        """The job of such a payload."""
        return cls(
            task_id=payload["task_id"],
            image_id=payload["image_id"],
            request=ImportRequest.read(payload["request"]),
            stores=tuple(payload["stores"]),
            roles=tuple(payload["roles"]),
            project_id=payload["project_id"],
            request_id=payload["request_id"],
            remove_image=payload["remove_image"],
            # Jobs of an older release have none.
            os_hash_algo=payload.get("os_hash_algo"),
            signature=payload.get("signature"),
        )


def swift_object(location: str | None) -> tuple[str, str]:
    """The container and the object that `container/object` names; BadRequest if it names none."""
    container, _, name = (location or "").partition("/")
    if not container or not name:
        raise BadRequest("An object in Swift is named as container/object.")
    return container, name


def parse(body: object, *, enabled: Collection[str]) -> ImportRequest:
    """Check what can be checked without the image; raises BadRequest.

    What a known key holds must be of its type, whatever the method; keys that mean nothing to
    this service are ignored, as in Glance.
    """
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    document = cast("dict[str, Any]", body)
    if "method" not in document:
        raise BadRequest("An import needs a method.")
    method = document["method"]
    if not isinstance(method, dict) or "name" not in method:
        raise BadRequest("The method of an import needs a name.")
    method = cast("dict[str, Any]", method)
    name = method["name"]
    if not isinstance(name, str) or name not in enabled:
        raise BadRequest(f"There is no import method {str(name)[:100]} here.")
    for flag in _FLAGS:
        if not isinstance(document.get(flag, False), bool):
            raise BadRequest(f"{flag} must be true or false.")

    kept: dict[str, object] = {"name": name}
    kept |= {key: _text(key, method[key]) for key in _TEXT_OF_METHOD if key in method}
    expected = None
    if "validation_data" in method:
        expected = digest_told(method["validation_data"])
        if name != "web-download":
            # Ignoring it would let the client believe that its digest was compared.
            raise BadRequest("validation_data is for the method web-download.")
        kept["validation_data"] = {"os_hash_algo": expected[0], "os_hash_value": expected[1]}
    # An empty list names none, as in Glance.
    stores = _stores(document["stores"]) if document.get("stores", []) != [] else None

    given: dict[str, object] = {"method": kept}
    if "stores" in document:
        given["stores"] = list(stores or ())
    given |= {key: document[key] for key in _FLAGS if key in document}
    given |= {key: _text(key, document[key]) for key in _TEXT_OF_BODY if key in document}
    uri = method.get("uri")
    if uri is not None:
        # The task is shown to everybody in the project.
        kept["uri"] = without_credentials(uri)
    return ImportRequest(
        method=name,
        uri=uri,
        expected=expected,
        glance_region=method.get("glance_region"),
        glance_image_id=method.get("glance_image_id"),
        glance_service_interface=method.get("glance_service_interface") or "public",
        swift_location=method.get("swift-location"),
        source_disk_format=document.get("source_disk_format"),
        source_container_format=document.get("source_container_format"),
        os_type=document.get("os_type"),
        stores=stores,
        all_stores=document.get("all_stores", False),
        all_stores_must_succeed=document.get("all_stores_must_succeed", True),
        given=given,
    )


def _text(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or "\0" in value:
        raise BadRequest(f"{name} must be a string.")
    limit = _LONGEST_URI if name == "uri" else _LONGEST_NAME
    if len(value) > limit:
        raise BadRequest(f"{name} can have {limit} characters.")
    return value


def digest_told(data: object) -> tuple[str, str]:
    """The algorithm and the digest of `validation_data`, in lower case; raises BadRequest."""
    if not isinstance(data, dict):
        raise BadRequest("validation_data must be an object.")
    given = cast("dict[str, object]", data)
    if given.keys() != {"os_hash_algo", "os_hash_value"}:
        raise BadRequest("validation_data has os_hash_algo and os_hash_value.")
    algorithm, value = given["os_hash_algo"], given["os_hash_value"]
    if not isinstance(algorithm, str) or algorithm not in _DIGITS:
        raise BadRequest(f"os_hash_algo must be one of {', '.join(_DIGITS)}.")
    digits = _DIGITS[algorithm]
    if not isinstance(value, str) or len(value) != digits or not _HEX.fullmatch(value):
        raise BadRequest(f"os_hash_value of {algorithm} must be {digits} hexadecimal digits.")
    return algorithm, value.lower()


def _stores(value: object) -> tuple[str, ...]:
    """The named stores, each once."""
    if not isinstance(value, list):
        raise BadRequest("stores must be a list of stores.")
    names = cast("list[object]", value)
    for name in names:
        if not isinstance(name, str) or "\0" in name or len(name) > _LONGEST_NAME:
            raise BadRequest("stores must be a list of names.")
    return tuple(dict.fromkeys(cast("list[str]", names)))


IMPORT_OPENAPI: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["method"],
                    "properties": {
                        "method": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {
                                "name": {
                                    "type": "string",
                                    "description": "One of the methods of /v2/info/import.",
                                },
                                "uri": {
                                    "type": "string",
                                    "maxLength": _LONGEST_URI,
                                    "description": "web-download: where the data is.",
                                },
                                "validation_data": {
                                    "type": "object",
                                    "required": ["os_hash_algo", "os_hash_value"],
                                    "additionalProperties": False,
                                    "properties": {
                                        "os_hash_algo": {"type": "string", "enum": list(_DIGITS)},
                                        "os_hash_value": {
                                            "type": "string",
                                            "pattern": "^[0-9a-fA-F]+$",
                                        },
                                    },
                                    "description": "web-download: the digest the data must have.",
                                },
                                "glance_region": {
                                    "type": "string",
                                    "description": "glance-download: the region to ask.",
                                },
                                "glance_image_id": {
                                    "type": "string",
                                    "description": "glance-download: the image there.",
                                },
                                "glance_service_interface": {
                                    "type": "string",
                                    "default": "public",
                                    "description": "glance-download: which of its endpoints.",
                                },
                                "swift-location": {
                                    "type": "string",
                                    "description": "swift-local: container/object.",
                                },
                            },
                        },
                        "stores": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "The stores to import into; unset: the default one.",
                        },
                        "all_stores": {"type": "boolean", "default": False},
                        "all_stores_must_succeed": {"type": "boolean", "default": True},
                        "source_disk_format": {
                            "type": "string",
                            "description": "swift-local: for an image without disk_format.",
                        },
                        "source_container_format": {
                            "type": "string",
                            "description": "swift-local: for an image without container_format.",
                        },
                        "os_type": {
                            "type": "string",
                            "description": "swift-local: the image's property of this name.",
                        },
                    },
                }
            }
        },
    },
    "responses": {"202": {"description": "The import has begun, or there is nothing to do."}},
}
