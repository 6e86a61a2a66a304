"""For which project an attempt writes, since some stores keep objects in accounts of the users'."""

import sqlalchemy as sa
from alembic import op

revision = "0002_expand"
down_revision = "0001_expand"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("image_locations", sa.Column("project_id", sa.String(length=255), nullable=True))
