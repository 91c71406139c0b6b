"""The tables of pipelines, workers and incoming webhooks."""

import sqlalchemy as sa

from computeops.hub.schema import metadata

pipelines = sa.Table(
    "pipelines",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),  # build or rebuild
    sa.Column("repository", sa.String, nullable=False),
    sa.Column("collection", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),  # empty: not known before its recipe was read
    sa.Column("source", sa.JSON, nullable=False),
    sa.Column("source_key", sa.String, nullable=False),  # equal sources have equal keys
    sa.Column("state", sa.String, nullable=False),
    sa.Column("asked_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("began", sa.BigInteger),
    sa.Column("ended", sa.BigInteger),
    sa.Column("ending", sa.Boolean, nullable=False),  # somebody wants it to end
    sa.Column("attempts", sa.Integer, nullable=False),  # how often a worker took it
    sa.Column("worker", sa.Integer, sa.ForeignKey("workers.id")),
    sa.Column("lease", sa.String, nullable=False),
    sa.Column("lease_until", sa.BigInteger),  # null: nobody works on it
    sa.Column("builder", sa.String, nullable=False),  # version of the program that built it
    sa.Column("locked", sa.Boolean, nullable=False),  # its source had a lock: another build is the same
    sa.Column("answered_by", sa.Integer),  # the pipeline whose result this is
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
pipeline_steps = sa.Table(
    "pipeline_steps",
    metadata,
    sa.Column("pipeline", sa.Integer, sa.ForeignKey("pipelines.id"), primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("began", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
)
pipeline_log = sa.Table(
    "pipeline_log",
    metadata,
    sa.Column("pipeline", sa.Integer, sa.ForeignKey("pipelines.id"), primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("text", sa.LargeBinary, nullable=False),
)
pipeline_turns = sa.Table(  # when a collection had its last turn
    "pipeline_turns",
    metadata,
    sa.Column("collection", sa.String, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
)
rebuild_rules = sa.Table(  # how many workers must have rebuilt a release of the collection before it is published
    "rebuild_rules",
    metadata,
    sa.Column("collection", sa.String, primary_key=True),
    sa.Column("rebuilds", sa.Integer, nullable=False),
)
rebuilds_wanted = sa.Table(  # what somebody else found worth a rebuild before its time
    "rebuilds_wanted",
    metadata,
    sa.Column("repository", sa.String, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
workers = sa.Table(
    "workers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("token", sa.Integer, nullable=False, unique=True),
    sa.Column("keyid", sa.String, nullable=False),  # of the key that signs what it builds
    sa.Column("key", sa.String, nullable=False),
    sa.Column("about", sa.JSON, nullable=False),
    sa.Column("seen", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
hooks = sa.Table(  # which pushes elsewhere start a pipeline here
    "hooks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, nullable=False, index=True),
    sa.Column("repository", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),  # gitlab or github
    sa.Column("git", sa.String, nullable=False),
    sa.Column("folder", sa.String, nullable=False),
    sa.Column("ref", sa.String, nullable=False),
    sa.Column("secret", sa.String, nullable=False),
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
hooks_heard = sa.Table(  # what came already: nothing counts twice
    "hooks_heard",
    metadata,
    sa.Column("hook", sa.Integer, primary_key=True),
    sa.Column("event", sa.String, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False, index=True),
)
