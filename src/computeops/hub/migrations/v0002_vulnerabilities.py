"""Inventories of images, findings, verdicts, gates, keys of evidence: every release there is gets in line for them."""

import sqlalchemy as sa
from alembic.operations import Operations

_METADATA = sa.MetaData()
_Sorted = sa.String().with_variant(sa.String(collation="C"), "postgresql")

sa.Table("collections", _METADATA, sa.Column("name", _Sorted, primary_key=True))  # as foreign keys name them
sa.Table("people", _METADATA, sa.Column("id", sa.Integer, primary_key=True))
sa.Table(
    "image_systems",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.UniqueConstraint("name", "version", "title"),
)
sa.Table(
    "image_packages",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.String, nullable=False, unique=True),
    sa.Column("system", sa.Integer, sa.ForeignKey("image_systems.id"), nullable=False, index=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("body", sa.String, nullable=False),
    sa.Column("counts", sa.String, nullable=False),
)
sa.Table(
    "package_names",
    _METADATA,
    sa.Column("ecosystem", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("package", sa.Integer, primary_key=True),
    sqlite_with_rowid=False,
)
sa.Table(
    "inventories",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    sa.Column("system", sa.Integer, sa.ForeignKey("image_systems.id")),
    sa.Column("packages", sa.LargeBinary, nullable=False),
    sa.Column("kinds", sa.JSON, nullable=False),
    sa.Column("owned", sa.Integer, nullable=False),
    sa.Column("unread", sa.JSON, nullable=False),
    sa.Column("fault", sa.String, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("due", sa.BigInteger, index=True),
    sa.Column("made", sa.BigInteger, nullable=False),
)
sa.Table(
    "package_uses",
    _METADATA,
    sa.Column("package", sa.Integer, primary_key=True),
    sa.Column("inventory", sa.Integer, primary_key=True, index=True),
    sqlite_with_rowid=False,
)
sa.Table(
    "package_findings",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("package", sa.Integer, sa.ForeignKey("image_packages.id"), nullable=False),
    sa.Column("vulnerability", sa.String, nullable=False, index=True),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("counts", sa.Boolean, nullable=False),
    sa.Column("body", sa.String, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("fix_since", sa.BigInteger),
    sa.Column("until", sa.BigInteger),
    sa.Index("findings_of_package", "package", "vulnerability"),
)
sa.Table(
    "verdicts",
    _METADATA,
    sa.Column("repository", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True, index=True),
    sa.Column("verdict", sa.String, nullable=False),
    sa.Column("counts", sa.JSON, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
    sa.Column("pending", sa.Boolean, nullable=False, index=True),
    sa.Column("told", sa.Integer, nullable=False),
    sa.Column("blocked_from", sa.BigInteger),
    sa.Column("why", sa.String, nullable=False),
)
sa.Table(
    "finding_events",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("collection", sa.String, nullable=False, index=True),
    sa.Column("repository", sa.String, nullable=False, index=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)
sa.Table(
    "gates",
    _METADATA,
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), primary_key=True),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("severity", sa.String, nullable=False),
    sa.Column("only_fixed", sa.Boolean, nullable=False),
    sa.Column("strict", sa.Boolean, nullable=False),
    sa.Column("until", sa.BigInteger),
    sa.Column("changed_by", sa.String, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
)
sa.Table(
    "gate_passes",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), nullable=False, index=True),
    sa.Column("vulnerability", sa.String, nullable=False),
    sa.Column("repository", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "rebuild_requests",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, nullable=False),
    sa.Column("repository", sa.String, nullable=False, index=True),
    sa.Column("tag", sa.String, nullable=False),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("reason", sa.JSON, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("taken", sa.BigInteger),
    sa.UniqueConstraint("repository", "digest"),
)
sa.Table(
    "subscriptions",
    _METADATA,
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), primary_key=True),
    sa.Column("target", _Sorted, primary_key=True),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "evidence_keys",
    _METADATA,
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), primary_key=True),
    sa.Column("keyid", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("public", sa.String, nullable=False),
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "evidence_checks",
    _METADATA,
    sa.Column("repository", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("state", sa.String, nullable=False, index=True),
    sa.Column("keys", sa.JSON, nullable=False),
    sa.Column("checked", sa.BigInteger, nullable=False),
)

_IN_LINE = (  # grouped: after DISTINCT PostgreSQL takes '[]' for a text, which is no JSON
    (
        "INSERT INTO inventories (digest, packages, kinds, owned, unread, fault, tries, due, made)"
        " SELECT digest, {empty}, '{{}}', 0, '[]', '', 0, 0, 0 FROM releases GROUP BY digest"
    ),
    (
        "INSERT INTO verdicts (repository, digest, verdict, counts, changed, pending, told, why)"
        " SELECT repository, digest, 'waiting', '[]', 0, {true}, 0, '' FROM releases GROUP BY repository, digest"
    ),
    (
        "INSERT INTO evidence_checks (repository, digest, state, keys, checked)"
        " SELECT repository, digest, 'waiting', '[]', 0 FROM evidence"
    ),
)


def upgrade(op: Operations) -> None:
    """Make them."""
    connection = op.get_bind()
    _METADATA.create_all(connection)
    words = {"empty": "x''", "true": "1"}
    if connection.dialect.name == "postgresql":
        words = {"empty": "''::bytea", "true": "true"}
    for statement in _IN_LINE:
        connection.exec_driver_sql(statement.format_map(words))
