"""Deposits: their table as it was then."""

import sqlalchemy as sa
from alembic.operations import Operations

_METADATA = sa.MetaData()

sa.Table(
    "deposits",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("repository", sa.String, nullable=False),
    sa.Column("archive", sa.String, nullable=False, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("content", sa.String, nullable=False),
    sa.Column("tree", sa.String, nullable=False),
    sa.Column("origin", sa.String, nullable=False),
    sa.Column("found", sa.JSON, nullable=False),
    sa.Column("tops", sa.JSON, nullable=False),
    sa.Column("whole", sa.Boolean, nullable=False),
    sa.Column("pipeline", sa.Integer),
    sa.Column("asked_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("repository", "tree"),
    sqlite_autoincrement=True,
)


def upgrade(op: Operations) -> None:
    """Make it."""
    _METADATA.create_all(op.get_bind())
