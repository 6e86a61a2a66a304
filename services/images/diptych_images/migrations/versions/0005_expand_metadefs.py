"""Metadata definitions: namespaces and what they hold.

Columns are explained in db/tables.py.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005_expand"
down_revision = "0004_expand"
branch_labels = None
depends_on = None


def _times() -> list[sa.Column[Any]]:
    return [
        sa.Column(
            name,
            sa.DateTime(timezone=True),
            server_default=sa.text("statement_timestamp()"),
            nullable=False,
        )
        for name in ("created_at", "updated_at")
    ]


def _in_namespace(name: str, *columns: sa.Column[Any] | sa.Constraint) -> None:
    op.create_table(
        name,
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("namespace_id", sa.BigInteger(), nullable=False),
        *columns,
        *_times(),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["metadef_namespaces.id"],
            name=op.f(f"fk_{name}_namespace_id_metadef_namespaces"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
    )
    op.create_index(f"uq_{name}_name", name, ["namespace_id", "name"], unique=True)


def upgrade() -> None:
    op.create_table(
        "metadef_namespaces",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("namespace", sa.String(length=80), nullable=False),
        sa.Column("display_name", sa.String(length=80), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("visibility", sa.String(length=7), server_default="private", nullable=False),
        sa.Column("protected", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("owner", sa.String(length=255), nullable=True),
        *_times(),
        sa.CheckConstraint(
            "visibility IN ('public', 'private')", name=op.f("ck_metadef_namespaces_visibility")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metadef_namespaces")),
        sa.UniqueConstraint("namespace", name=op.f("uq_metadef_namespaces_namespace")),
    )
    op.create_index("ix_metadef_namespaces_owner", "metadef_namespaces", ["owner"])
    op.create_table(
        "metadef_resource_types",
        sa.Column("name", sa.String(length=80), nullable=False),
        *_times(),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_metadef_resource_types")),
    )
    _in_namespace(
        "metadef_associations",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("prefix", sa.String(length=80), nullable=True),
        sa.Column("properties_target", sa.String(length=80), nullable=True),
        sa.ForeignKeyConstraint(
            ["name"],
            ["metadef_resource_types.name"],
            name=op.f("fk_metadef_associations_name_metadef_resource_types"),
        ),
    )
    _in_namespace(
        "metadef_objects",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("required", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("properties", postgresql.JSONB(none_as_null=True), nullable=True),
    )
    _in_namespace(
        "metadef_properties",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("schema", postgresql.JSONB(), nullable=False),
    )
    _in_namespace("metadef_tags", sa.Column("name", sa.String(length=80), nullable=False))
