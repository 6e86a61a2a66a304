"""Quotas: the room that attempts have taken. Explained in db/tables.py."""

import sqlalchemy as sa
from alembic import op

revision = "0006_expand"
down_revision = "0005_expand"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("image_locations", sa.Column("reserved", sa.BigInteger(), nullable=True))
    op.create_check_constraint(
        op.f("ck_image_locations_reserved"), "image_locations", "reserved >= 0"
    )
