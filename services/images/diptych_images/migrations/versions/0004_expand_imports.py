"""Imports: their tasks, what is staged, which import holds an image; jobs that can be cancelled.

Columns are explained in db/tables.py and diptych_common/jobs.py.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004_expand"
down_revision = "0003_expand"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column("priority", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column(
        "jobs",
        sa.Column("cancelled", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column("jobs", sa.Column("secret", sa.LargeBinary(), nullable=True))
    op.add_column("jobs", sa.Column("ending", postgresql.JSONB(), nullable=True))
    op.drop_index("ix_jobs_due", table_name="jobs")
    op.create_index(
        "ix_jobs_due",
        "jobs",
        [sa.text("priority DESC"), sa.text("coalesce(lease_until, run_after)")],
        postgresql_where=sa.text("state IN ('waiting', 'running')"),
    )
    op.drop_constraint(op.f("ck_jobs_known_state"), "jobs", type_="check")
    op.create_check_constraint(
        op.f("ck_jobs_known_state"),
        "jobs",
        "state IN ('waiting', 'running', 'succeeded', 'failed', 'cancelled')",
    )

    op.add_column("images", sa.Column("import_task", sa.Uuid(as_uuid=False), nullable=True))

    op.add_column("image_locations", sa.Column("key", sa.Text(), nullable=True))
    op.add_column(
        "image_locations", sa.Column("import_task", sa.Uuid(as_uuid=False), nullable=True)
    )
    op.add_column("image_locations", sa.Column("staged", postgresql.JSONB(), nullable=True))
    op.drop_constraint(op.f("ck_image_locations_status"), "image_locations", type_="check")
    op.create_check_constraint(
        op.f("ck_image_locations_status"),
        "image_locations",
        "status IN ('pending', 'discarding', 'staged', 'active', 'deleted')",
    )
    op.drop_constraint(op.f("ck_image_locations_held_or_landed"), "image_locations", type_="check")
    op.create_check_constraint(
        op.f("ck_image_locations_held_or_landed"),
        "image_locations",
        "CASE WHEN status IN ('pending', 'discarding')"
        " THEN attempt IS NOT NULL AND lease_until IS NOT NULL"
        " ELSE url IS NOT NULL AND lease_until IS NULL"
        " AND (attempt IS NULL OR import_task IS NOT NULL) END",
    )
    op.create_check_constraint(
        op.f("ck_image_locations_staged_is_described"),
        "image_locations",
        "(staged IS NOT NULL) OR (status <> 'staged')",
    )
    op.create_index(
        "uq_image_locations_attempts",
        "image_locations",
        ["image_id", "store"],
        unique=True,
        postgresql_where=sa.text(
            "status IN ('pending', 'discarding') AND NOT released AND key IS NULL"
        ),
    )

    op.create_table(
        "tasks",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("type", sa.String(length=30), nullable=False),
        sa.Column("status", sa.String(length=10), server_default="pending", nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=True),
        sa.Column("image_id", sa.Uuid(as_uuid=False), nullable=True),
        sa.Column("user_id", sa.String(length=255), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("input", postgresql.JSONB(), nullable=False),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.Column("message", sa.Text(), server_default="", nullable=False),
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
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'success', 'failure')", name="ck_tasks_status"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tasks"),
    )
    op.create_index("ix_tasks_created_at", "tasks", ["created_at", "id"])
    op.create_index(
        "ix_tasks_expires_at",
        "tasks",
        ["expires_at"],
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index("ix_tasks_image_id", "tasks", ["image_id", "created_at"])
    op.create_index("ix_tasks_owner", "tasks", ["owner", "created_at", "id"])
