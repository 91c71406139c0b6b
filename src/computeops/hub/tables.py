"""The tables of the index: here those that every door shares; pipelines, deposits, vulnerabilities have their own.

Who adds or changes a table adds a migration too (`computeops.hub.migrations`); a test compares them.
"""

import sqlalchemy as sa

from computeops.hub.deposits import tables as _of_deposits  # noqa: F401  its table is of the same index
from computeops.hub.pipelines import tables as _of_pipelines  # noqa: F401  its tables are of the same index
from computeops.hub.schema import Sorted, metadata
from computeops.hub.vulnerabilities import tables as _of_vulnerabilities  # noqa: F401  its tables too

collections = sa.Table(
    "collections",
    metadata,
    sa.Column("name", Sorted, primary_key=True),
    sa.Column("public", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("quota", sa.BigInteger),  # bytes that it may hold; null: as much as there is
)
repositories = sa.Table(
    "repositories",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", Sorted, nullable=False, unique=True),
    sa.Column("collection", Sorted, sa.ForeignKey("collections.name"), nullable=False, index=True),
    sa.Column("created", sa.BigInteger, nullable=False),
)
_repository = "repositories.id"
links = sa.Table(  # which repository may serve which blob
    "links",
    metadata,
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), primary_key=True),
    sa.Column("digest", sa.String, primary_key=True, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
manifests = sa.Table(
    "manifests",
    metadata,
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("media_type", sa.String, nullable=False),
    sa.Column("artifact_type", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False, index=True),
    sa.Column("annotations", sa.JSON, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("place", sa.BigInteger, nullable=False),  # in the order of their coming, whatever the clock says
    sa.Index("manifests_in_order", "repository", "place"),
    sa.Index("manifests_by_digest", "digest"),
)
parts = sa.Table(  # what a manifest consists of: nothing of it may be deleted while it stands
    "parts",
    metadata,
    sa.Column("repository", sa.Integer, primary_key=True),
    sa.Column("manifest", sa.String, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True, index=True),
)
tags = sa.Table(
    "tags",
    metadata,
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), primary_key=True),
    sa.Column("name", Sorted, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, index=True),
    sa.Column("moved", sa.BigInteger, nullable=False),
    sa.Column("retired", sa.Boolean, nullable=False),  # deleted: remembered, so that a version is never used again
)
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("hash", sa.String, nullable=False, unique=True),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.String, nullable=False, server_default="operator"),  # or personal, robot, ci, browser
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), index=True),  # whose roles bound it
    sa.Column("collection", sa.String, index=True),  # whose robot it is
    sa.Column("publisher", sa.Integer, sa.ForeignKey("publishers.id"), index=True),  # what let CI have it
)
people = sa.Table(
    "people",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("title", sa.String, nullable=False),  # as they call themselves
    sa.Column("administrator", sa.Boolean, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
identities = sa.Table(  # by which account elsewhere a person signs in
    "identities",
    metadata,
    sa.Column("issuer", sa.String, primary_key=True),
    sa.Column("subject", sa.String, primary_key=True),  # never the name there, which may become another's
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), nullable=False, index=True),
    sa.Column("login", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
members = sa.Table(
    "members",
    metadata,
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), primary_key=True),
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), primary_key=True, index=True),
    sa.Column("role", sa.String, nullable=False),  # reader, contributor, maintainer or owner
    sa.Column("created", sa.BigInteger, nullable=False),
)
experts = sa.Table(
    "experts",
    metadata,
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), primary_key=True),
    sa.Column("kind", sa.String, primary_key=True),  # scientific or technical
    sa.Column("domain", sa.String, primary_key=True),
)
publishers = sa.Table(  # which CI project may publish what, without a secret
    "publishers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), nullable=False, index=True),
    sa.Column("repository", sa.String, nullable=False),  # empty: any of the collection
    sa.Column("issuer", sa.String, nullable=False),
    sa.Column("project", sa.String, nullable=False, index=True),
    sa.Column("ref", sa.String, nullable=False),  # empty: any
    sa.Column("project_id", sa.String, nullable=False),  # of the first exchange: a project of the same name is another
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
audit = sa.Table(  # every write; rows are added and nothing else
    "audit",
    metadata,
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
webhooks = sa.Table(
    "webhooks",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), nullable=False, index=True),
    sa.Column("url", sa.String, nullable=False),
    sa.Column("secret", sa.String, nullable=False),
    sa.Column("events", sa.JSON, nullable=False),
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
deliveries = sa.Table(  # what webhooks are still to be told, and what became of the rest
    "deliveries",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("webhook", sa.Integer, sa.ForeignKey("webhooks.id"), nullable=False, index=True),
    sa.Column("event", sa.String, nullable=False),
    sa.Column("body", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due", sa.BigInteger, index=True),  # when it is tried next; null: never again
    sa.Column("outcome", sa.String, nullable=False),
    sqlite_autoincrement=True,
)
releases = sa.Table(  # one row for each image that a tag offers: an index of two architectures has two
    "releases",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),  # grows with the time of publication: newest first is by id
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), nullable=False),
    sa.Column("tag", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False, index=True),  # what the tag points to: the manifest or an index
    sa.Column("digest", sa.String, nullable=False, index=True),  # the manifest of the image
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
    sqlite_autoincrement=True,  # an id is never used again, so that it can be the cursor of a list
)
# The terms of a release, row for row of `releases`, as `hub.terms` makes and asks for them
words = sa.table("words", sa.column("rowid"), sa.column("terms"))
recipes = sa.Table(  # the recipe of an image: the first that was pushed
    "recipes",
    metadata,
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), primary_key=True),
    sa.Column("subject", sa.String, primary_key=True),
    sa.Column("digest", sa.String, nullable=False),  # the manifest that carries it
    sa.Column("about", sa.JSON, nullable=False),  # the tables of computeops.toml; empty where it is broken
    sa.Column("fault", sa.String, nullable=False),  # why it is broken
    sa.Column("files", sa.JSON, nullable=False),  # name, digest and size of each
)
evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("repository", sa.Integer, sa.ForeignKey(_repository), primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("subject", sa.String, nullable=False, index=True),
    sa.Column("blob", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("passed", sa.Boolean),
    sa.Column("signers", sa.JSON, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),  # a few words and numbers of the predicate
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
pgp_keys = sa.Table(  # OpenPGP certificates, for those who verify the signature of a SIF
    "pgp_keys",
    metadata,
    sa.Column("fingerprint", sa.String, primary_key=True),  # of the primary key, lower case hex
    sa.Column("armored", sa.String, nullable=False),
    sa.Column("users", sa.String, nullable=False),  # one a line
    sa.Column("line", sa.String, nullable=False),  # what a search answers
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("added", sa.BigInteger, nullable=False),
)
pgp_key_ids = sa.Table(  # the fingerprints of primary keys and subkeys, backwards: a key id is the end of one
    "pgp_key_ids",
    metadata,
    sa.Column("backwards", sa.String, primary_key=True),
    sa.Column("fingerprint", sa.String, sa.ForeignKey("pgp_keys.fingerprint"), primary_key=True),
)
notes = sa.Table(  # what all processes of a hub must agree about
    "notes",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
