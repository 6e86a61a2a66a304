"""Which nodes have which images in their caches. Explained in db/tables.py."""

import sqlalchemy as sa
from alembic import op

revision = "0007_expand"
down_revision = "0006_expand"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cached_images",
        sa.Column("image_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column(
            "reported_at",
            sa.DateTime(timezone=True),
            server_default=sa.func.statement_timestamp(),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_cached_images_image_id_images")
        ),
        sa.PrimaryKeyConstraint("image_id", "node", name=op.f("pk_cached_images")),
    )
