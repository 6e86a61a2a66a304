"""The payloads of notifications, as Glance's consumers (Ceilometer, billing) read them."""

from datetime import datetime
from typing import Any, Final

from diptych_images.db.deletion import STATUS_BEFORE
from diptych_images.db.images import ImageRow
from diptych_images.db.imports import FAILED, IMPORTING, MESSAGE, names_of
from diptych_images.db.members import MemberRow
from diptych_images.db.metadefs.namespaces import Entry, NamespaceRow
from diptych_images.db.tasks import TaskRow
from diptych_images.wire.image import timestamp


def image(row: ImageRow) -> dict[str, object]:
    """The payload of an `image.*` event.

    Neither locations nor the multihash are in it: the first would carry backend addresses, the
    second Glance never had; nor is what only the owner is told of a failed import.

    Source: Glance 33.0, notifications of images.
    """
    return {
        "id": row["id"],
        "name": row["name"],
        "status": row["status"],
        "created_at": timestamp(row["created_at"]),
        "updated_at": timestamp(row["updated_at"]),
        "min_disk": row["min_disk"],
        "min_ram": row["min_ram"],
        "protected": row["protected"],
        "checksum": row["checksum"],
        "owner": row["owner"],
        "disk_format": row["disk_format"],
        "container_format": row["container_format"],
        "size": row["size"],
        "virtual_size": row["virtual_size"],
        "is_public": row["visibility"] == "public",
        "visibility": row["visibility"],
        "properties": {
            name: value
            for name, value in row["properties"].items()
            if name not in (MESSAGE, STATUS_BEFORE)
        },
        "tags": row["tags"],
        "deleted": row["deleted_at"] is not None,
        "deleted_at": None if row["deleted_at"] is None else timestamp(row["deleted_at"]),
    }


def imported(row: ImageRow, *, store: str) -> dict[str, object]:
    """The payload of an event about an image and one of the stores that it is imported into."""
    lists = {name: sorted(names_of(row, name)) for name in (IMPORTING, FAILED)}
    return {**image(row), **lists, "backend": store}


def sent(
    row: ImageRow, *, bytes_sent: int, project_id: str | None, user_id: str | None
) -> dict[str, object]:
    """The payload of `image.send`; the receiver is who asked.

    Source: Glance 33.0, notifier.py `_format_image_send`.
    """
    return {
        "bytes_sent": bytes_sent,
        "image_id": row["id"],
        "owner_id": row["owner"],
        "receiver_tenant_id": project_id,
        "receiver_user_id": user_id,
    }


def task(row: TaskRow) -> dict[str, object]:
    """The payload of a `task.*` event; what the task was given and says stays out, as in Glance."""
    return {
        "id": row["id"],
        "type": row["type"],
        "status": row["status"],
        "result": None,
        "owner": row["owner"],
        "message": None,
        "expires_at": None if row["expires_at"] is None else timestamp(row["expires_at"]),
        "created_at": timestamp(row["created_at"]),
        "updated_at": timestamp(row["updated_at"]),
        "deleted": False,
        "deleted_at": None,
    }


def member(row: MemberRow, *, deleted: bool) -> dict[str, object]:
    """The payload of an `image.member.*` event."""
    return {
        "image_id": row["image_id"],
        "member_id": row["member"],
        "status": row["status"],
        "created_at": timestamp(row["created_at"]),
        "updated_at": timestamp(row["updated_at"]),
        "deleted": deleted,
        "deleted_at": timestamp(row["updated_at"]) if deleted else None,
    }


def namespace(
    row: NamespaceRow, *, old: str | None = None, deleted_at: datetime | None = None
) -> dict[str, object]:
    """The payload of a `metadef_namespace.*` event; `old` is the name before a change."""
    return {
        "namespace": row["namespace"],
        "namespace_old": old or row["namespace"],
        "display_name": row["display_name"],
        "protected": row["protected"],
        "visibility": row["visibility"],
        "owner": row["owner"],
        "description": row["description"],
        **_metadef_times(row["created_at"], row["updated_at"], deleted_at),
    }


# What consumers are told of a property; the rest of its schema Glance keeps to itself.
_PROPERTY_KEYS: Final = (
    "type", "title", "description", "default", "minimum", "maximum", "enum", "pattern",
    "minLength", "maxLength", "confidential", "items", "uniqueItems", "minItems", "maxItems",
    "additionalItems",
)  # fmt: skip


def metadef(
    kind: str,
    row: NamespaceRow,
    entry: Entry,
    *,
    old: str | None = None,
    deleted_at: datetime | None = None,
) -> dict[str, object]:
    """The payload of a `metadef_{kind}.*` event of something in a namespace."""
    payload: dict[str, object] = {
        "namespace": row["namespace"],
        "name": entry["name"],
        "name_old": old or entry["name"],
    }
    match kind:
        case "object":
            payload["description"] = entry["description"]
            payload["required"] = entry["required"]
            properties: dict[str, dict[str, Any]] = entry["properties"] or {}
            payload["properties"] = [
                {"name": name, **_property(schema)} for name, schema in properties.items()
            ]
        case "property":
            # Without the times of the others, as in Glance.
            return {**payload, **_property(entry["schema"]), **_deletion(deleted_at)}
        case "resource_type":
            payload["prefix"] = entry["prefix"]
            payload["properties_target"] = entry["properties_target"]
        case _:
            pass
    return payload | _metadef_times(entry["created_at"], entry["updated_at"], deleted_at)


def _property(schema: dict[str, Any]) -> dict[str, object]:
    return {key: schema.get(key) for key in _PROPERTY_KEYS}


def _metadef_times(
    created_at: datetime, updated_at: datetime, deleted_at: datetime | None
) -> dict[str, object]:
    return {
        "created_at": timestamp(created_at),
        "updated_at": timestamp(updated_at),
        **_deletion(deleted_at),
    }


def _deletion(deleted_at: datetime | None) -> dict[str, object]:
    return {
        "deleted": deleted_at is not None,
        "deleted_at": None if deleted_at is None else timestamp(deleted_at),
    }
