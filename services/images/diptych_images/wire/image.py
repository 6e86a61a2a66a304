"""What a client sends to create an image, and the document that it sees of one."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast, get_args

from diptych_common.errors import BadRequest, Forbidden, TooLarge
from diptych_store.locations import without_credentials

from diptych_images.db.images import ImageRow, LocationRow, is_uuid
from diptych_images.db.imports import MESSAGE
from diptych_images.settings import HashAlgorithm
from diptych_images.wire.schemas import ImageSchema

# Names that a client can never set. Source: images API, as Glance 33.0 refuses them.
READ_ONLY = frozenset(
    {
        "checksum", "created_at", "direct_url", "file", "schema", "self", "size", "status",
        "stores", "updated_at", "virtual_size",
    }
)  # fmt: skip
RESERVED = frozenset({"deleted", "deleted_at", "location"})
RESERVED_PREFIX = "os_glance"
# Refused before anything is validated: any value of them is wrong.
_READ_ONLY_WHATEVER_IT_IS = frozenset({"direct_url", "file", "schema", "self", "stores"})

BASE_PROPERTIES = frozenset(
    {
        "checksum", "container_format", "created_at", "direct_url", "disk_format", "file", "id",
        "locations", "min_disk", "min_ram", "name", "os_hash_algo", "os_hash_value", "os_hidden",
        "owner", "protected", "schema", "self", "size", "status", "stores", "tags", "updated_at",
        "virtual_size", "visibility",
    }
)  # fmt: skip

_HASH_ALGORITHMS = get_args(HashAlgorithm)

# Bookkeeping of a Glance that this database may have come from; never shown.
_HIDDEN = ("os_glance_hash_op_host", "os_glance_stage_host")


@dataclass(frozen=True, slots=True)
class ImageCreate:
    """A checked request to create an image.

    `id` is None where the client left the choice to the server. `visibility` is None where it was
    not given: the image will be `shared`, while policy is asked about `private`, as in Glance.
    `owner` is the caller's project unless an administrator chose another, or none. `os_hash_algo`
    is None where the setting is to decide when there are bytes.
    """

    id: str | None
    owner: str | None
    visibility: str | None
    name: str | None
    protected: bool
    os_hidden: bool
    disk_format: str | None
    container_format: str | None
    min_disk: int
    min_ram: int
    os_hash_algo: str | None
    tags: tuple[str, ...]
    properties: Mapping[str, str | None]

    def values(self, image_id: str) -> dict[str, object]:
        """The columns of the new row."""
        return {
            "id": image_id,
            "name": self.name,
            "status": "queued",
            "visibility": self.visibility or "shared",
            "owner": self.owner,
            "disk_format": self.disk_format,
            "container_format": self.container_format,
            "min_disk": self.min_disk,
            "min_ram": self.min_ram,
            "os_hash_algo": self.os_hash_algo,
            "protected": self.protected,
            "os_hidden": self.os_hidden,
            "tags": list(self.tags),
            "properties": dict(self.properties),
        }


def parse_create(
    body: object, schema: ImageSchema, *, project_id: str | None, is_admin: bool
) -> ImageCreate:
    """Check a request document against the schema and the names that a client cannot set.

    Raises BadRequest for what the schema refuses and for an algorithm that there is not, Forbidden
    for read-only and reserved names and for another project's `owner` by anyone but an
    administrator. Quotas are the caller's to check (`check_quotas`), after policy.

    `os_hash_value` is checked and then ignored, as in Glance, which ignores `os_hash_algo` too:
    here it chooses what the image's bytes are hashed with.
    """
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.")
    given = cast("dict[str, Any]", body)
    for name in given:
        if name in _READ_ONLY_WHATEVER_IT_IS:
            raise read_only(name)
    for name, value in given.items():
        schema.check(name, value)
    missing = [name for name in schema.required if name not in given]
    if missing:
        raise BadRequest(f"An image must have the properties {', '.join(missing)}.")
    for name in given:
        if name in READ_ONLY:
            raise read_only(name)
        if name == "locations" or is_reserved(name):
            raise reserved(name)
    owner = given.get("owner", project_id)
    if owner != project_id and not is_admin:
        raise Forbidden("Only an administrator can create an image for another project.")

    image_id = given.get("id")
    # The schema's pattern lets a line feed follow.
    if image_id is not None and not is_uuid(image_id):
        raise BadRequest("Property id is not a UUID.")
    os_hash_algo = given.get("os_hash_algo")
    if os_hash_algo is not None and os_hash_algo not in _HASH_ALGORITHMS:
        raise BadRequest(f"Property os_hash_algo must be one of {', '.join(_HASH_ALGORITHMS)}.")
    return ImageCreate(
        id=None if image_id is None else image_id.lower(),
        owner=owner,
        visibility=given.get("visibility"),
        name=given.get("name"),
        protected=given.get("protected", False),
        os_hidden=given.get("os_hidden", False),
        disk_format=given.get("disk_format"),
        container_format=given.get("container_format"),
        min_disk=given.get("min_disk", 0),
        min_ram=given.get("min_ram", 0),
        os_hash_algo=os_hash_algo,
        tags=unique(given.get("tags", [])),
        properties={name: value for name, value in given.items() if name not in BASE_PROPERTIES},
    )


def unique(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags as a set, in the order they were first given."""
    return tuple(dict.fromkeys(tags))


def is_reserved(name: str) -> bool:
    """Whether the name belongs to the service and may hold nothing of a client's."""
    return name in RESERVED or name.startswith(RESERVED_PREFIX)


def read_only(name: str) -> Forbidden:
    """The answer to writing a property that only the service sets."""
    return Forbidden(f"Property {name} is read-only.")


def reserved(name: str) -> Forbidden:
    """The answer to writing a name that the service keeps for itself."""
    return Forbidden(f"Property {name} is reserved.")


def counted_properties(properties: Mapping[str, object]) -> int:
    """How many properties count against the quota: not those that the service itself keeps."""
    return sum(not name.startswith(RESERVED_PREFIX) for name in properties)


def check_quotas(
    properties: Mapping[str, object], tags: Sequence[str], *, property_quota: int, tag_quota: int
) -> None:
    """Raise TooLarge if a new image has more than the quotas allow; a negative quota is none."""
    if 0 <= property_quota < counted_properties(properties):
        raise too_many("properties", property_quota)
    if 0 <= tag_quota < len(tags):
        raise too_many("tags", tag_quota)


def too_many(what: str, quota: int) -> TooLarge:
    """The answer to one property or tag too many."""
    return TooLarge(f"An image can have {quota} {what}.")


def document(
    row: ImageRow,
    *,
    is_admin: bool = False,
    is_owner: bool = False,
    show_direct_url: bool = False,
    show_locations: bool = False,
    multi_store: bool = False,
    locations: Sequence[LocationRow] | None = None,
    nullable: frozenset[str] = frozenset(),
    hidden: Collection[str] = (),
) -> dict[str, object]:
    """The image as clients see it.

    `locations` are the row's in the order in which they are read (None: as they are in the row).
    A deactivated image shows none, and no stores, to anyone but an administrator. None shows a
    credential, whatever an old row holds; one that cannot be told from its credential is left out.
    `nullable` names the custom properties that the schema lets be null; a null in any other is
    shown as "".
    `hidden` names those that the caller may not read.

    Source: Glance 33.0, api/v2/images.py; images API reference, "Show image".
    """
    image_id = row["id"]
    shown: dict[str, object] = {
        name: "" if value is None and name not in nullable else value
        for name, value in row["properties"].items()
        # A reason says more than strangers need to know: of an address that is secret, perhaps.
        if name not in _HIDDEN and name not in hidden and (name != MESSAGE or is_owner or is_admin)
    }
    if row["import_task"] is not None:
        shown["os_glance_import_task"] = row["import_task"]
    shown.update(
        id=image_id,
        name=row["name"],
        status=row["status"],
        visibility=row["visibility"],
        protected=row["protected"],
        os_hidden=row["os_hidden"],
        checksum=row["checksum"],
        os_hash_algo=row["os_hash_algo"],
        os_hash_value=row["os_hash_value"],
        owner=row["owner"],
        size=row["size"],
        virtual_size=row["virtual_size"],
        container_format=row["container_format"],
        disk_format=row["disk_format"],
        min_disk=row["min_disk"],
        min_ram=row["min_ram"],
        tags=list(row["tags"]),
        created_at=timestamp(row["created_at"]),
        updated_at=timestamp(row["updated_at"]),
        self=f"/v2/images/{image_id}",
        file=f"/v2/images/{image_id}/file",
        schema="/v2/schemas/image",
    )
    if not (show_direct_url or show_locations or multi_store):
        return shown
    if locations is None:
        locations = row["locations"]
    if row["status"] == "deactivated" and not is_admin:
        locations = []
    if multi_store and locations:
        # A string, not a list: Nova splits it at the commas.
        shown["stores"] = ",".join(dict.fromkeys(location["store"] for location in locations))
    if not (show_direct_url or show_locations):
        return shown
    without_secrets = [
        {"url": url, "metadata": location["metadata"]}
        for location in locations
        if (url := without_credentials(location["url"]))
    ]
    if show_direct_url and without_secrets:
        shown["direct_url"] = without_secrets[0]["url"]
    if show_locations:
        shown["locations"] = without_secrets
    return shown


def timestamp(moment: datetime) -> str:
    """Time as every document has it: UTC, whole seconds, cut off rather than rounded."""
    # Seven times as fast as strftime, which a list of 1000 calls 2000 times.
    return f"{moment.astimezone(UTC).isoformat()[:19]}Z"


CREATE_OPENAPI: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ImageSchema().document}},
    },
    "responses": {
        "201": {
            "description": "The new image.",
            "content": {"application/json": {"schema": ImageSchema().document}},
        }
    },
}
