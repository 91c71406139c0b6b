"""Pipelines, workers and incoming webhooks: their tables as they were then."""

import sqlalchemy as sa
from alembic.operations import Operations

_METADATA = sa.MetaData()

sa.Table(
    "pipelines",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("repository", sa.String, nullable=False),
    sa.Column("collection", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("source", sa.JSON, nullable=False),
    sa.Column("source_key", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("asked_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("began", sa.BigInteger),
    sa.Column("ended", sa.BigInteger),
    sa.Column("ending", sa.Boolean, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("worker", sa.Integer, sa.ForeignKey("workers.id")),
    sa.Column("lease", sa.String, nullable=False),
    sa.Column("lease_until", sa.BigInteger),
    sa.Column("builder", sa.String, nullable=False),
    sa.Column("locked", sa.Boolean, nullable=False),
    sa.Column("answered_by", sa.Integer),
    sa.Column("images", sa.JSON, nullable=False),
    sa.Column("error", sa.String, nullable=False),
    sa.Column("hint", sa.String, nullable=False),
    sa.Column("log_bytes", sa.BigInteger, nullable=False),
    sa.Index("pipelines_in_turn", "state", "collection", "id"),
    sa.Index("pipelines_of_repository", "repository", "id"),
    sa.Index("pipelines_of_collection", "collection", "id"),
    sa.Index("pipelines_by_source", "source_key", "id"),
    sqlite_autoincrement=True,
)
sa.Table(
    "pipeline_steps",
    _METADATA,
    sa.Column("pipeline", sa.Integer, sa.ForeignKey("pipelines.id"), primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("began", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
)
sa.Table(
    "pipeline_log",
    _METADATA,
    sa.Column("pipeline", sa.Integer, sa.ForeignKey("pipelines.id"), primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("text", sa.LargeBinary, nullable=False),
)
sa.Table(
    "pipeline_turns",
    _METADATA,
    sa.Column("collection", sa.String, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
)
sa.Table(
    "rebuild_rules",
    _METADATA,
    sa.Column("collection", sa.String, primary_key=True),
    sa.Column("rebuilds", sa.Integer, nullable=False),
)
sa.Table(
    "rebuilds_wanted",
    _METADATA,
    sa.Column("repository", sa.String, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "workers",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("token", sa.Integer, nullable=False, unique=True),
    sa.Column("keyid", sa.String, nullable=False),
    sa.Column("key", sa.String, nullable=False),
    sa.Column("about", sa.JSON, nullable=False),
    sa.Column("seen", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "hooks",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, nullable=False, index=True),
    sa.Column("repository", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("git", sa.String, nullable=False),
    sa.Column("folder", sa.String, nullable=False),
    sa.Column("ref", sa.String, nullable=False),
    sa.Column("secret", sa.String, nullable=False),
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
sa.Table(
    "hooks_heard",
    _METADATA,
    sa.Column("hook", sa.Integer, primary_key=True),
    sa.Column("event", sa.String, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False, index=True),
)


def upgrade(op: Operations) -> None:
    """Make them."""
    _METADATA.create_all(op.get_bind())
