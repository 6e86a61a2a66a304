"""Artifacts, their blobs and quotas; jobs and the outbox.

Columns and indexes are explained in db/tables.py.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001_expand"
down_revision = None
branch_labels = ("expand",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "artifacts",
        sa.Column(
            "id",
            sa.Uuid(as_uuid=False),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
        ),
        sa.Column("type_name", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255, collation="C"), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("version_sort", sa.Text(collation="C"), nullable=False),
        sa.Column("version_build", sa.Text(collation="C"), server_default="", nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=11), server_default="drafted", nullable=False),
        sa.Column("visibility", sa.String(length=7), server_default="private", nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("display_type_name", sa.String(length=255), nullable=True),
        sa.Column(
            "tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column(
            "fields",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("statement_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("statement_timestamp()"),
            nullable=False,
        ),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'deleted') = (deleted_at IS NOT NULL)", name=op.f("ck_artifacts_deleted")
        ),
        sa.CheckConstraint("jsonb_typeof(fields) = 'object'", name=op.f("ck_artifacts_fields")),
        sa.CheckConstraint(
            "status IN ('drafted', 'active', 'deactivated', 'deleted')",
            name=op.f("ck_artifacts_status"),
        ),
        sa.CheckConstraint(
            "visibility IN ('private', 'public')", name=op.f("ck_artifacts_visibility")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
    )
    op.create_index(
        "ix_artifacts_deleted_at",
        "artifacts",
        ["deleted_at"],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.create_index(
        "ix_artifacts_deleted_owner",
        "artifacts",
        ["owner", "type_name"],
        unique=False,
        postgresql_where=sa.text("status = 'deleted'"),
    )
    op.create_index(
        "ix_artifacts_fields",
        "artifacts",
        ["fields"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"fields": "jsonb_path_ops"},
        postgresql_where=sa.text("status != 'deleted'"),
        postgresql_with={"fastupdate": "off"},
    )
    op.create_index(
        "ix_artifacts_owner_created",
        "artifacts",
        ["owner", "visibility", "type_name", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("status != 'deleted'"),
    )
    op.create_index(
        "ix_artifacts_owner_name",
        "artifacts",
        ["owner", "visibility", "type_name", "name", "version_sort"],
        unique=False,
        postgresql_where=sa.text("status != 'deleted'"),
    )
    op.create_index(
        "ix_artifacts_tags",
        "artifacts",
        ["tags"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("status != 'deleted'"),
        postgresql_with={"fastupdate": "off"},
    )
    op.create_index(
        "ix_artifacts_visibility_created",
        "artifacts",
        ["visibility", "type_name", "created_at", "id"],
        unique=False,
        postgresql_where=sa.text("status != 'deleted'"),
    )
    op.create_index(
        "ix_artifacts_visibility_name",
        "artifacts",
        ["visibility", "type_name", "name", "version_sort"],
        unique=False,
        postgresql_where=sa.text("status != 'deleted'"),
    )
    op.create_index(
        "uq_artifacts_private",
        "artifacts",
        ["type_name", "name", "version", "owner"],
        unique=True,
        postgresql_where=sa.text("visibility = 'private' AND status <> 'deleted'"),
    )
    op.create_index(
        "uq_artifacts_public",
        "artifacts",
        ["type_name", "name", "version"],
        unique=True,
        postgresql_where=sa.text("visibility = 'public' AND status <> 'deleted'"),
    )
    op.create_table(
        "blob_objects",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("published", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("statement_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "NOT published OR size IS NOT NULL", name=op.f("ck_blob_objects_published")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blob_objects")),
    )
    op.create_index(
        "ix_blob_objects_created_at",
        "blob_objects",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("NOT published"),
    )
    op.create_index(
        "uq_blob_objects_key",
        "blob_objects",
        ["key"],
        unique=True,
        postgresql_where=sa.text("published"),
    )
    op.create_table(
        "blob_data",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("statement_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["id"],
            ["blob_objects.id"],
            name=op.f("fk_blob_data_id_blob_objects"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", "position", name=op.f("pk_blob_data")),
    )
    # Nothing is gained by trying to compress what mostly is compressed.
    op.execute("ALTER TABLE blob_data ALTER COLUMN data SET STORAGE EXTERNAL")
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=True),
        sa.Column("dedup_key", sa.Text(), nullable=True),
        sa.Column("priority", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column(
            "run_after", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("period", sa.Interval(), nullable=True),
        sa.Column("again", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=True),
        sa.Column("fence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("cancelled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("ending", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL)",
            name=op.f("ck_jobs_running_has_a_lease"),
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_jobs_known_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index(
        "ix_jobs_due",
        "jobs",
        [sa.literal_column("priority DESC"), sa.literal_column("coalesce(lease_until, run_after)")],
        unique=False,
        postgresql_where=sa.text("state IN ('waiting', 'running')"),
    )
    op.create_index(
        "ix_jobs_finished_at",
        "jobs",
        ["finished_at"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "uq_jobs_dedup_key",
        "jobs",
        ["kind", "dedup_key"],
        unique=True,
        postgresql_where=sa.text("state IN ('waiting', 'running')"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "message_id",
            sa.Uuid(as_uuid=False),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
        ),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_table(
        "quotas",
        sa.Column("project_id", sa.String(length=255), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("value >= -1", name=op.f("ck_quotas_value")),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_quotas")),
    )
    op.create_table(
        "blobs",
        sa.Column(
            "id",
            sa.Uuid(as_uuid=False),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
        ),
        sa.Column("artifact_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("owner", sa.String(length=255), nullable=False),
        sa.Column("type_name", sa.String(length=255), nullable=False),
        sa.Column("field", sa.String(length=255), nullable=False),
        sa.Column("key", sa.Text(collation="C"), server_default="", nullable=False),
        sa.Column("status", sa.String(length=7), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("md5", sa.Text(), nullable=True),
        sa.Column("sha1", sa.Text(), nullable=True),
        sa.Column("sha256", sa.Text(), nullable=True),
        sa.Column("external", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("store", sa.Text(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column(
            "encryption", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("statement_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(status = 'saving') = (lease_until IS NOT NULL)", name=op.f("ck_blobs_lease")
        ),
        sa.CheckConstraint("status = 'saving' OR url IS NOT NULL", name=op.f("ck_blobs_landed")),
        sa.CheckConstraint(
            "status IN ('saving', 'active', 'deleted')", name=op.f("ck_blobs_status")
        ),
        sa.CheckConstraint("external OR store IS NOT NULL", name=op.f("ck_blobs_store")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_blobs_size")),
        sa.ForeignKeyConstraint(
            ["artifact_id"],
            ["artifacts.id"],
            name=op.f("fk_blobs_artifact_id_artifacts"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blobs")),
    )
    op.create_index("ix_blobs_artifact_id", "blobs", ["artifact_id"], unique=False)
    op.create_index(
        "ix_blobs_deleted",
        "blobs",
        ["id"],
        unique=False,
        postgresql_where=sa.text("status = 'deleted'"),
    )
    op.create_index(
        "ix_blobs_lease_until",
        "blobs",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.create_index(
        "ix_blobs_usage",
        "blobs",
        ["owner", "type_name"],
        unique=False,
        postgresql_include=["size"],
        postgresql_where=sa.text("status <> 'deleted' AND size IS NOT NULL"),
    )
    op.create_index(
        "uq_blobs_active",
        "blobs",
        ["artifact_id", "field", "key"],
        unique=True,
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_index(
        "uq_blobs_saving",
        "blobs",
        ["artifact_id", "field", "key"],
        unique=True,
        postgresql_where=sa.text("status = 'saving'"),
    )
