"""Tables, indexes and constraints of the images service.

A deleted image stays as a row with `deleted_at`: its id can never be used again. Every index that
serves a list is partial, so that deleted images cost the living ones nothing.
"""

from typing import Any

from diptych_common.database import METADATA_NAMING
from diptych_common.events import outbox_table
from diptych_common.jobs import jobs_table
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(naming_convention=METADATA_NAMING)

jobs = jobs_table(metadata)
outbox = outbox_table(metadata)

# `statement_timestamp()` and not `now()`: a transaction that waited for a row would otherwise
# date its change before the one it waited for.
_NOW = func.statement_timestamp()

images = Table(
    "images",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True, server_default=func.gen_random_uuid()),
    Column("name", String(255)),
    Column("status", String(30), nullable=False, server_default="queued"),
    Column("visibility", String(9), nullable=False, server_default="shared"),
    Column("owner", String(255)),
    Column("disk_format", String(20)),
    Column("container_format", String(20)),
    Column("min_disk", Integer, nullable=False, server_default=text("0")),
    Column("min_ram", Integer, nullable=False, server_default=text("0")),
    Column("size", BigInteger),
    Column("virtual_size", BigInteger),
    Column("checksum", String(32)),
    Column("os_hash_algo", String(64)),
    Column("os_hash_value", String(128)),
    Column("protected", Boolean, nullable=False, server_default=text("false")),
    Column("os_hidden", Boolean, nullable=False, server_default=text("false")),
    Column("tags", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    # An object whose values are strings or null.
    Column("properties", JSONB, nullable=False, server_default=text("'{}'")),
    # The import that holds the image: its task. No other import may begin meanwhile.
    Column("import_task", Uuid(as_uuid=False)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("deleted_at", DateTime(timezone=True)),
    CheckConstraint(
        "status IN ('queued', 'saving', 'uploading', 'importing', 'active', 'deactivated',"
        " 'killed', 'pending_delete', 'deleted')",
        name="status",
    ),
    CheckConstraint(
        "visibility IN ('public', 'community', 'shared', 'private')", name="visibility"
    ),
    CheckConstraint("size >= 0", name="size"),
    CheckConstraint("virtual_size >= 0", name="virtual_size"),
    CheckConstraint("min_disk >= 0", name="min_disk"),
    CheckConstraint("min_ram >= 0", name="min_ram"),
    CheckConstraint("jsonb_typeof(properties) = 'object'", name="properties"),
)

# What the lists of db/image_list.py walk: one visibility of one owner, and one visibility of
# everybody, in the order of creation and in that of names. Names sort and compare as in
# image_list.SORT_KEYS; a NULL name is an empty one there.
_LIVING = images.c.deleted_at.is_(None)
_NAME = func.coalesce(images.c.name, text("''"))
Index(
    "ix_images_owner_created",
    images.c.owner,
    images.c.visibility,
    images.c.os_hidden,
    images.c.created_at,
    images.c.id,
    postgresql_where=_LIVING,
)
Index(
    "ix_images_owner_name",
    images.c.owner,
    images.c.visibility,
    images.c.os_hidden,
    _NAME,
    images.c.created_at,
    images.c.id,
    postgresql_where=_LIVING,
)
Index(
    "ix_images_visibility_created",
    images.c.visibility,
    images.c.os_hidden,
    images.c.created_at,
    images.c.id,
    postgresql_where=_LIVING,
)
Index(
    "ix_images_visibility_name",
    images.c.visibility,
    images.c.os_hidden,
    _NAME,
    images.c.created_at,
    images.c.id,
    postgresql_where=_LIVING,
)
# What selective filters use instead. Images change rarely and are looked for often, so entries
# go straight into the tree (fastupdate off): a list of pending ones is read by every search.
Index(
    "ix_images_tags",
    images.c.tags,
    postgresql_using="gin",
    postgresql_where=_LIVING,
    postgresql_with={"fastupdate": "off"},
)
Index(
    "ix_images_properties",
    images.c.properties,
    postgresql_using="gin",
    postgresql_ops={"properties": "jsonb_path_ops"},
    postgresql_where=_LIVING,
    postgresql_with={"fastupdate": "off"},
)
Index("ix_images_checksum", images.c.checksum, postgresql_where=_LIVING)
Index("ix_images_os_hash_value", images.c.os_hash_value, postgresql_where=_LIVING)

image_members = Table(
    "image_members",
    metadata,
    Column("image_id", Uuid(as_uuid=False), ForeignKey(images.c.id), primary_key=True),
    Column("member", String(255), primary_key=True),
    Column("status", String(20), nullable=False, server_default="pending"),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint("status IN ('pending', 'accepted', 'rejected')", name="status"),
    Index("ix_image_members_member", "member", "status", "image_id"),
)

# Where the bytes of an image are, or may be. A row is written before its bytes:
#   pending     an upload is under way; its attempt holds the row while the lease lasts
#   discarding  the attempt is being removed; whoever does it holds the row while the lease lasts
#   staged      the bytes are there and wait to be imported
#   active      the bytes are there and are the image's
#   deleted     the bytes are to go
# What an import that is not over has put there keeps its attempt: if the import fails, its own
# object is removed, and never one that somebody has put under the same key since.
image_locations = Table(
    "image_locations",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("image_id", Uuid(as_uuid=False), ForeignKey(images.c.id), nullable=False, index=True),
    Column("store", Text, nullable=False),
    Column("url", Text),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("status", String(10), nullable=False),
    Column("attempt", Uuid(as_uuid=False), unique=True),
    Column("lease_until", DateTime(timezone=True)),
    # What the attempt's object is named in its store; NULL: by the image's id.
    Column("key", Text),
    # The import that made the row, NULL for uploads and staged data.
    Column("import_task", Uuid(as_uuid=False)),
    # What was found out about staged bytes on their way in: digests, format. Of what an
    # import has put there: the columns that its image gets when it becomes active.
    Column("staged", JSONB),
    # For whom an attempt writes: in some stores its place is in the account of that project.
    Column("project_id", String(255)),
    # The image was queued again before the bytes of this attempt, never published, were gone.
    Column("released", Boolean, nullable=False, server_default=text("false")),
    # The bytes for which an attempt, and what it has staged, has taken room in its project's
    # quota; they count while the row is held, until it is released. Other rows count by the image.
    Column("reserved", BigInteger),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint(
        "status IN ('pending', 'discarding', 'staged', 'active', 'deleted')", name="status"
    ),
    CheckConstraint("reserved >= 0", name="reserved"),
    CheckConstraint("(staged IS NOT NULL) OR (status <> 'staged')", name="staged_is_described"),
    CheckConstraint(
        "CASE WHEN status IN ('pending', 'discarding')"
        " THEN attempt IS NOT NULL AND lease_until IS NOT NULL"
        " ELSE url IS NOT NULL AND lease_until IS NULL"
        " AND (attempt IS NULL OR import_task IS NOT NULL) END",
        name="held_or_landed",
    ),
    # Two attempts at one object in one store: what one discards could be the other's.
    Index(
        "uq_image_locations_attempts",
        "image_id",
        "store",
        unique=True,
        postgresql_where=text(
            "status IN ('pending', 'discarding') AND NOT released AND key IS NULL"
        ),
    ),
    Index(
        "ix_image_locations_lease_until",
        "lease_until",
        postgresql_where=text("lease_until IS NOT NULL"),
    ),
)

# What users see of work that goes on without them; the jobs that do it are the service's own.
# `input` and `result` are documents of the API, without secrets.
tasks = Table(
    "tasks",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("type", String(30), nullable=False),
    Column("status", String(10), nullable=False, server_default="pending"),
    Column("owner", String(255)),
    Column("image_id", Uuid(as_uuid=False)),
    Column("user_id", String(255)),
    Column("request_id", Text),
    Column("input", JSONB, nullable=False),
    Column("result", JSONB),
    Column("message", Text, nullable=False, server_default=""),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    # Set when the task has ended: it is not shown any more from then on, and removed.
    Column("expires_at", DateTime(timezone=True)),
    CheckConstraint("status IN ('pending', 'processing', 'success', 'failure')", name="status"),
    Index("ix_tasks_image_id", "image_id", "created_at"),
    Index("ix_tasks_owner", "owner", "created_at", "id"),
    Index("ix_tasks_created_at", "created_at", "id"),
    Index("ix_tasks_expires_at", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
)

# Which place each store is: its marks (diptych_store.protocol.Marks) in order, and who noted them.
store_marks = Table(
    "store_marks",
    metadata,
    Column("store", Text, primary_key=True),
    Column("marks", ARRAY(Text), nullable=False),
    Column("node", Text, nullable=False),
    Column("noted_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)

# Metadata definitions: what properties mean, for people and their tools. Nothing is checked against
# them. Changes inside a namespace are made while its row is locked.
metadef_namespaces = Table(
    "metadef_namespaces",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("namespace", String(80), nullable=False, unique=True),
    Column("display_name", String(80)),
    Column("description", Text),
    Column("visibility", String(7), nullable=False, server_default="private"),
    Column("protected", Boolean, nullable=False, server_default=text("false")),
    Column("owner", String(255)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint("visibility IN ('public', 'private')", name="visibility"),
    Index("ix_metadef_namespaces_owner", "owner"),
)

# A type stays when no namespace is associated with it any more.
metadef_resource_types = Table(
    "metadef_resource_types",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)


def _in_namespace(name: str, *columns: Column[Any]) -> Table:
    """What a namespace holds, each of its kind under a name of its own."""
    return Table(
        name,
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column(
            "namespace_id",
            BigInteger,
            ForeignKey(metadef_namespaces.c.id, ondelete="CASCADE"),
            nullable=False,
        ),
        *columns,
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
        Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
        Index(f"uq_{name}_name", "namespace_id", "name", unique=True),
    )


metadef_associations = _in_namespace(
    "metadef_associations",
    Column("name", String(80), ForeignKey(metadef_resource_types.c.name), nullable=False),
    Column("prefix", String(80)),
    Column("properties_target", String(80)),
)
metadef_objects = _in_namespace(
    "metadef_objects",
    Column("name", String(80), nullable=False),
    Column("description", Text),
    # Objects of the API, or SQL NULL where the client gave none.
    Column("required", JSONB(none_as_null=True)),
    Column("properties", JSONB(none_as_null=True)),
)
metadef_properties = _in_namespace(
    "metadef_properties",
    Column("name", String(80), nullable=False),
    Column("schema", JSONB, nullable=False),
)
metadef_tags = _in_namespace("metadef_tags", Column("name", String(80), nullable=False))

# Which nodes' caches have an image whole, as each node says time and again of itself: what was not
# said for long is a node that is gone. Nothing but the list of nodes depends on it.
cached_images = Table(
    "cached_images",
    metadata,
    Column("image_id", Uuid(as_uuid=False), ForeignKey(images.c.id), primary_key=True),
    Column("node", Text, primary_key=True),
    Column("reported_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)
