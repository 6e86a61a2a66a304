"""Tables, indexes and constraints of the artifacts service.

Every index that serves a list is partial, so that artifacts that wait to be scrubbed cost the
living ones nothing.
"""

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
    Index,
    LargeBinary,
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

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True, server_default=func.gen_random_uuid()),
    Column("type_name", String(255), nullable=False),
    # Compared by code points everywhere, so that an index serves LIKE and pages do not depend on
    # the locale of the database.
    Column("name", String(255, collation="C"), nullable=False),
    # Canonical, as shown. `version_sort` sorts as SemVer orders, without the build, which stands
    # apart: two versions that differ by it are two, of which neither is newer.
    Column("version", Text, nullable=False),
    Column("version_sort", Text(collation="C"), nullable=False),
    Column("version_build", Text(collation="C"), nullable=False, server_default=""),
    Column("owner", String(255), nullable=False),
    Column("status", String(11), nullable=False, server_default="drafted"),
    Column("visibility", String(7), nullable=False, server_default="private"),
    Column("description", Text),
    Column("display_type_name", String(255)),
    Column("tags", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    # The type's own fields, and `metadata`, that have a value; defaults are the type's.
    Column("fields", JSONB, nullable=False, server_default=text("'{}'")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("activated_at", DateTime(timezone=True)),
    # When it was deleted, where that is delayed.
    Column("deleted_at", DateTime(timezone=True)),
    CheckConstraint(
        "status IN ('drafted', 'active', 'deactivated', 'deleted')",
        name="status",
    ),
    CheckConstraint("visibility IN ('private', 'public')", name="visibility"),
    CheckConstraint("jsonb_typeof(fields) = 'object'", name="fields"),
    CheckConstraint("(status = 'deleted') = (deleted_at IS NOT NULL)", name="deleted"),
)

# Name and version are free again as soon as an artifact is deleted.
_LIVING = artifacts.c.status != text("'deleted'")
Index(
    "uq_artifacts_private",
    artifacts.c.type_name,
    artifacts.c.name,
    artifacts.c.version,
    artifacts.c.owner,
    unique=True,
    postgresql_where=text("visibility = 'private' AND status <> 'deleted'"),
)
Index(
    "uq_artifacts_public",
    artifacts.c.type_name,
    artifacts.c.name,
    artifacts.c.version,
    unique=True,
    postgresql_where=text("visibility = 'public' AND status <> 'deleted'"),
)
# What lists walk: the private artifacts of one owner, and everybody's by visibility.
Index(
    "ix_artifacts_owner_created",
    artifacts.c.owner,
    artifacts.c.visibility,
    artifacts.c.type_name,
    artifacts.c.created_at,
    artifacts.c.id,
    postgresql_where=_LIVING,
)
Index(
    "ix_artifacts_visibility_created",
    artifacts.c.visibility,
    artifacts.c.type_name,
    artifacts.c.created_at,
    artifacts.c.id,
    postgresql_where=_LIVING,
)
Index(
    "ix_artifacts_owner_name",
    artifacts.c.owner,
    artifacts.c.visibility,
    artifacts.c.type_name,
    artifacts.c.name,
    artifacts.c.version_sort,
    postgresql_where=_LIVING,
)
Index(
    "ix_artifacts_visibility_name",
    artifacts.c.visibility,
    artifacts.c.type_name,
    artifacts.c.name,
    artifacts.c.version_sort,
    postgresql_where=_LIVING,
)
Index(
    "ix_artifacts_tags",
    artifacts.c.tags,
    postgresql_using="gin",
    postgresql_where=_LIVING,
    postgresql_with={"fastupdate": "off"},
)
Index(
    "ix_artifacts_fields",
    artifacts.c.fields,
    postgresql_using="gin",
    postgresql_ops={"fields": "jsonb_path_ops"},
    postgresql_where=_LIVING,
    postgresql_with={"fastupdate": "off"},
)
Index(
    "ix_artifacts_deleted_at",
    artifacts.c.deleted_at,
    postgresql_where=artifacts.c.deleted_at.is_not(None),
)
# Those that wait to be scrubbed count to their owner's quota.
Index(
    "ix_artifacts_deleted_owner",
    artifacts.c.owner,
    artifacts.c.type_name,
    postgresql_where=text("status = 'deleted'"),
)

# What artifacts have in stores, or will. A row is written before its bytes:
#   saving   an upload is under way; whoever does it, or clears up after it, holds the lease
#   active   the blob is the artifact's
#   deleted  the bytes are to go, and the row after them
# The id names the object in its store and is the token of the attempt at writing it, so a blob that
# replaces another never shares anything with it: the old one is read until the new one is whole.
blobs = Table(
    "blobs",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True, server_default=func.gen_random_uuid()),
    # NULL when the artifact is gone and the bytes are not yet.
    Column("artifact_id", Uuid(as_uuid=False), ForeignKey(artifacts.c.id, ondelete="SET NULL")),
    # The artifact's, whose quota the bytes count to.
    Column("owner", String(255), nullable=False),
    Column("type_name", String(255), nullable=False),
    Column("field", String(255), nullable=False),
    # Within a folder; empty for a blob of its own.
    Column("key", Text(collation="C"), nullable=False, server_default=""),
    Column("status", String(7), nullable=False),
    # Of one that is saving: the bytes for which room is taken. NULL for locations.
    Column("size", BigInteger),
    Column("md5", Text),
    Column("sha1", Text),
    Column("sha256", Text),
    Column("external", Boolean, nullable=False, server_default=text("false")),
    # Where it is: its location in the store, or the URL elsewhere.
    Column("url", Text),
    Column("store", Text),
    Column("content_type", Text),
    # How its bytes are sealed, with the wrapped key; NULL: they are not.
    Column("encryption", JSONB(none_as_null=True)),
    Column("lease_until", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint("status IN ('saving', 'active', 'deleted')", name="status"),
    CheckConstraint("size >= 0", name="size"),
    CheckConstraint("(status = 'saving') = (lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("status = 'saving' OR url IS NOT NULL", name="landed"),
    CheckConstraint("external OR store IS NOT NULL", name="store"),
    Index("ix_blobs_artifact_id", "artifact_id"),
    # One of each for a field and key.
    Index(
        "uq_blobs_active",
        "artifact_id",
        "field",
        "key",
        unique=True,
        postgresql_where=text("status = 'active'"),
    ),
    Index(
        "uq_blobs_saving",
        "artifact_id",
        "field",
        "key",
        unique=True,
        postgresql_where=text("status = 'saving'"),
    ),
    Index("ix_blobs_lease_until", "lease_until", postgresql_where=text("lease_until IS NOT NULL")),
    Index("ix_blobs_deleted", "id", postgresql_where=text("status = 'deleted'")),
    # What a project uses is added up from here.
    Index(
        "ix_blobs_usage",
        "owner",
        "type_name",
        postgresql_include=["size"],
        postgresql_where=text("status <> 'deleted' AND size IS NOT NULL"),
    ),
)

# What administrators have set for a project, over the settings; -1 is no limit.
quotas = Table(
    "quotas",
    metadata,
    Column("project_id", String(255), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("value", BigInteger, nullable=False),
    CheckConstraint("value >= -1", name="value"),
)

# The store `database`: what is published is an object, the rest are places of attempts. The id is
# the attempt's token.
blob_objects = Table(
    "blob_objects",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("key", Text(collation="C"), nullable=False),
    # In bytes; NULL while it is written, and again while it is removed.
    Column("size", BigInteger),
    Column("published", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint("NOT published OR size IS NOT NULL", name="published"),
    Index("uq_blob_objects_key", "key", unique=True, postgresql_where=text("published")),
    Index("ix_blob_objects_created_at", "created_at", postgresql_where=text("NOT published")),
)

# Their bytes in pieces of one size, but for the last.
blob_data = Table(
    "blob_data",
    metadata,
    Column(
        "id",
        Uuid(as_uuid=False),
        ForeignKey(blob_objects.c.id, ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)
