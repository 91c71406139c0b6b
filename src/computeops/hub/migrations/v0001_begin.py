"""The first tables: as they were then, whatever `computeops.hub.tables` says now."""

import sqlalchemy as sa
from alembic.operations import Operations

_METADATA = sa.MetaData()
_Sorted = sa.String().with_variant(sa.String(collation="C"), "postgresql")

sa.Table(
    "audit",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("token", sa.Integer, nullable=False),
    sa.Column("address", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False, index=True),
    sa.Column("status", sa.Integer, nullable=False),
    sqlite_autoincrement=True,
)
sa.Table(
    "collections",
    _METADATA,
    sa.Column("name", _Sorted, primary_key=True),
    sa.Column("public", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("quota", sa.BigInteger),
)
sa.Table(
    "notes",
    _METADATA,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
sa.Table(
    "parts",
    _METADATA,
    sa.Column("repository", sa.Integer, primary_key=True),
    sa.Column("manifest", sa.String, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True, index=True),
)
sa.Table(
    "people",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("administrator", sa.Boolean, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "pgp_keys",
    _METADATA,
    sa.Column("fingerprint", sa.String, primary_key=True),
    sa.Column("armored", sa.String, nullable=False),
    sa.Column("users", sa.String, nullable=False),
    sa.Column("line", sa.String, nullable=False),
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("added", sa.BigInteger, nullable=False),
)
sa.Table(
    "experts",
    _METADATA,
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),
    sa.Column("domain", sa.String, primary_key=True),
)
sa.Table(
    "identities",
    _METADATA,
    sa.Column("issuer", sa.String, primary_key=True),
    sa.Column("subject", sa.String, primary_key=True),
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), nullable=False, index=True),
    sa.Column("login", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "members",
    _METADATA,
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), primary_key=True),
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), primary_key=True, index=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "pgp_key_ids",
    _METADATA,
    sa.Column("backwards", sa.String, primary_key=True),
    sa.Column("fingerprint", sa.String, sa.ForeignKey("pgp_keys.fingerprint"), primary_key=True),
)
sa.Table(
    "publishers",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), nullable=False, index=True),
    sa.Column("repository", sa.String, nullable=False),
    sa.Column("issuer", sa.String, nullable=False),
    sa.Column("project", sa.String, nullable=False, index=True),
    sa.Column("ref", sa.String, nullable=False),
    sa.Column("project_id", sa.String, nullable=False),
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "repositories",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", _Sorted, nullable=False, unique=True),
    sa.Column("collection", _Sorted, sa.ForeignKey("collections.name"), nullable=False, index=True),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "webhooks",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), nullable=False, index=True),
    sa.Column("url", sa.String, nullable=False),
    sa.Column("secret", sa.String, nullable=False),
    sa.Column("events", sa.JSON, nullable=False),
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "deliveries",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("webhook", sa.Integer, sa.ForeignKey("webhooks.id"), nullable=False, index=True),
    sa.Column("event", sa.String, nullable=False),
    sa.Column("body", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due", sa.BigInteger, index=True),
    sa.Column("outcome", sa.String, nullable=False),
    sqlite_autoincrement=True,
)
sa.Table(
    "evidence",
    _METADATA,
    sa.Column("repository", sa.Integer, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("subject", sa.String, nullable=False, index=True),
    sa.Column("blob", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("passed", sa.Boolean),
    sa.Column("signers", sa.JSON, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "links",
    _METADATA,
    sa.Column("repository", sa.Integer, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("digest", sa.String, primary_key=True, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
sa.Table(
    "manifests",
    _METADATA,
    sa.Column("repository", sa.Integer, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("media_type", sa.String, nullable=False),
    sa.Column("artifact_type", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False, index=True),
    sa.Column("annotations", sa.JSON, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("place", sa.BigInteger, nullable=False),
    sa.Index("manifests_by_digest", "digest"),
    sa.Index("manifests_in_order", "repository", "place"),
)
sa.Table(
    "recipes",
    _METADATA,
    sa.Column("repository", sa.Integer, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("subject", sa.String, primary_key=True),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("about", sa.JSON, nullable=False),
    sa.Column("fault", sa.String, nullable=False),
    sa.Column("files", sa.JSON, nullable=False),
)
sa.Table(
    "releases",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("repository", sa.Integer, sa.ForeignKey("repositories.id"), nullable=False),
    sa.Column("tag", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False, index=True),
    sa.Column("digest", sa.String, nullable=False, index=True),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("variant", sa.String, nullable=False),
    sa.Column("arch", sa.String, nullable=False),
    sa.Column("image", sa.String, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("summary", sa.String, nullable=False),
    sa.Column("license", sa.String, nullable=False),
    sa.Column("domains", sa.JSON, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("repository", "tag", "digest"),
    sa.Index("release_versions", "repository", "version"),
    sqlite_autoincrement=True,
)
sa.Table(
    "tags",
    _METADATA,
    sa.Column("repository", sa.Integer, sa.ForeignKey("repositories.id"), primary_key=True),
    sa.Column("name", _Sorted, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, index=True),
    sa.Column("moved", sa.BigInteger, nullable=False),
    sa.Column("retired", sa.Boolean, nullable=False),
)
sa.Table(
    "tokens",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("hash", sa.String, nullable=False, unique=True),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String, nullable=False, server_default="operator"),
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), index=True),
    sa.Column("collection", sa.String, index=True),
    sa.Column("publisher", sa.Integer, sa.ForeignKey("publishers.id"), index=True),
)

_KEPT = "the audit log is only added to"
_SQLITE = (
    (
        "CREATE VIRTUAL TABLE words USING fts5(terms, detail=none, columnsize=0,"
        " tokenize=\"ascii tokenchars '@='\", prefix='1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16')"
    ),
    *(
        f"CREATE TRIGGER audit_no_{change.lower()} BEFORE {change} ON audit BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END"
        for change in ("UPDATE", "DELETE")
    ),
)
_POSTGRESQL = (
    "CREATE TABLE words (rowid BIGINT PRIMARY KEY, terms tsvector NOT NULL)",
    "CREATE INDEX words_terms ON words USING gin (terms)",
    f"CREATE FUNCTION audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '{_KEPT}'; END $$",
    "CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_is_kept()",
)


def upgrade(op: Operations) -> None:
    """Make them."""
    connection = op.get_bind()
    _METADATA.create_all(connection)
    for statement in _POSTGRESQL if connection.dialect.name == "postgresql" else _SQLITE:
        connection.exec_driver_sql(statement)
