"""Attempts at uploads: for which project one writes, and whether its image goes on without it.

Columns are explained in db/tables.py.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002_expand"
down_revision = "0001_expand"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("image_locations", sa.Column("project_id", sa.String(length=255), nullable=True))
    op.add_column(
        "image_locations",
        sa.Column("released", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
