"""The table of deposits."""

import sqlalchemy as sa

from computeops.hub.schema import metadata

deposits = sa.Table(
    "deposits",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("repository", sa.String, nullable=False),
    sa.Column("archive", sa.String, nullable=False, index=True),  # digest of the blob, as it came
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("content", sa.String, nullable=False),  # SWHID of the archive's bytes
    sa.Column("tree", sa.String, nullable=False),  # SWHID of what is in it
    sa.Column("origin", sa.String, nullable=False),  # where it came from: a file's name, an address
    sa.Column("found", sa.JSON, nullable=False),  # key to what the source says, and where
    sa.Column("tops", sa.JSON, nullable=False),  # names of its first level
    sa.Column("whole", sa.Boolean, nullable=False),  # it has a recipe already
    sa.Column("pipeline", sa.Integer),  # the last one that was started
    sa.Column("asked_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("repository", "tree"),
    sqlite_autoincrement=True,
)
