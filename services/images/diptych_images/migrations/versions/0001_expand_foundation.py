"""Images, their members and locations; jobs and the outbox.

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
        "images",
        sa.Column(
            "id",
            sa.Uuid(as_uuid=False),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
        ),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("status", sa.String(length=30), server_default="queued", nullable=False),
        sa.Column("visibility", sa.String(length=9), server_default="shared", nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("disk_format", sa.String(length=20), nullable=True),
        sa.Column("container_format", sa.String(length=20), nullable=True),
        sa.Column("min_disk", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("min_ram", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("virtual_size", sa.BigInteger(), nullable=True),
        sa.Column("checksum", sa.String(length=32), nullable=True),
        sa.Column("os_hash_algo", sa.String(length=64), nullable=True),
        sa.Column("os_hash_value", sa.String(length=128), nullable=True),
        sa.Column("protected", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("os_hidden", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("properties", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
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
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("jsonb_typeof(properties) = 'object'", name="ck_images_properties"),
        sa.CheckConstraint(
            "status IN ('queued', 'saving', 'uploading', 'importing', 'active', 'deactivated',"
            " 'killed', 'pending_delete', 'deleted')",
            name="ck_images_status",
        ),
        sa.CheckConstraint(
            "visibility IN ('public', 'community', 'shared', 'private')",
            name="ck_images_visibility",
        ),
        sa.CheckConstraint("min_disk >= 0", name="ck_images_min_disk"),
        sa.CheckConstraint("min_ram >= 0", name="ck_images_min_ram"),
        sa.CheckConstraint("size >= 0", name="ck_images_size"),
        sa.CheckConstraint("virtual_size >= 0", name="ck_images_virtual_size"),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
    )
    op.create_index(
        "ix_images_checksum", "images", ["checksum"], postgresql_where=sa.text("deleted_at IS NULL")
    )
    op.create_index(
        "ix_images_os_hash_value",
        "images",
        ["os_hash_value"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_images_owner_created",
        "images",
        ["owner", "visibility", "os_hidden", "created_at", "id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_images_owner_name",
        "images",
        [
            "owner",
            "visibility",
            "os_hidden",
            sa.literal_column("coalesce(name, '')"),
            "created_at",
            "id",
        ],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_images_properties",
        "images",
        ["properties"],
        postgresql_using="gin",
        postgresql_ops={"properties": "jsonb_path_ops"},
        postgresql_where=sa.text("deleted_at IS NULL"),
        postgresql_with={"fastupdate": "off"},
    )
    op.create_index(
        "ix_images_tags",
        "images",
        ["tags"],
        postgresql_using="gin",
        postgresql_where=sa.text("deleted_at IS NULL"),
        postgresql_with={"fastupdate": "off"},
    )
    op.create_index(
        "ix_images_visibility_created",
        "images",
        ["visibility", "os_hidden", "created_at", "id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_images_visibility_name",
        "images",
        ["visibility", "os_hidden", sa.literal_column("coalesce(name, '')"), "created_at", "id"],
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("dedup_key", sa.Text(), nullable=True),
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
        sa.Column("progress", postgresql.JSONB(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (lease_until IS NOT NULL)", name="ck_jobs_running_has_a_lease"
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'succeeded', 'failed')", name="ck_jobs_known_state"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index(
        "ix_jobs_due",
        "jobs",
        [sa.literal_column("coalesce(lease_until, run_after)")],
        postgresql_where=sa.text("state IN ('waiting', 'running')"),
    )
    op.create_index(
        "ix_jobs_finished_at",
        "jobs",
        ["finished_at"],
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
        sa.Column("payload", postgresql.JSONB(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    op.create_table(
        "image_locations",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("image_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("attempt", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("statement_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "CASE WHEN status IN ('pending', 'discarding')"
            " THEN attempt IS NOT NULL AND lease_until IS NOT NULL"
            " ELSE url IS NOT NULL AND attempt IS NULL AND lease_until IS NULL END",
            name="ck_image_locations_held_or_landed",
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'discarding', 'active', 'deleted')",
            name="ck_image_locations_status",
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name="fk_image_locations_image_id_images"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_image_locations"),
        sa.UniqueConstraint("attempt", name="uq_image_locations_attempt"),
    )
    op.create_index("ix_image_locations_image_id", "image_locations", ["image_id"])
    op.create_index(
        "ix_image_locations_lease_until",
        "image_locations",
        ["lease_until"],
        postgresql_where=sa.text("lease_until IS NOT NULL"),
    )
    op.create_table(
        "image_members",
        sa.Column("image_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("member", sa.String(length=255), nullable=False),
        sa.Column("status", sa.String(length=20), server_default="pending", nullable=False),
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
        sa.CheckConstraint(
            "status IN ('pending', 'accepted', 'rejected')", name="ck_image_members_status"
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name="fk_image_members_image_id_images"
        ),
        sa.PrimaryKeyConstraint("image_id", "member", name="pk_image_members"),
    )
    op.create_index("ix_image_members_member", "image_members", ["member", "status", "image_id"])
