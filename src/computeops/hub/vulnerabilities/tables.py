"""The tables of inventories, findings, verdicts, gates and checked signatures."""

import sqlalchemy as sa

from computeops.hub.schema import Sorted, metadata

systems = sa.Table(  # the operating systems of images, each once
    "image_systems",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.UniqueConstraint("name", "version", "title"),
)
packages = sa.Table(  # the packages of all images, each once
    "image_packages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.String, nullable=False, unique=True),  # digest of the system and of what is known
    sa.Column("system", sa.Integer, sa.ForeignKey("image_systems.id"), nullable=False, index=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("body", sa.String, nullable=False),  # what the matcher needs, as JSON
    sa.Column("counts", sa.String, nullable=False),  # findings that count by severity; empty: none
)
names = sa.Table(  # the inverted index: under which names advisories speak about a package
    "package_names",
    metadata,
    sa.Column("ecosystem", sa.String, primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("package", sa.Integer, primary_key=True),
    sqlite_with_rowid=False,
)
inventories = sa.Table(  # of each image once, by the digest of its manifest, whichever repositories have it
    "inventories",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    sa.Column("system", sa.Integer, sa.ForeignKey("image_systems.id")),
    sa.Column("packages", sa.LargeBinary, nullable=False),  # their ids, 4 bytes each
    sa.Column("kinds", sa.JSON, nullable=False),  # kind of package to how many are judged by themselves
    sa.Column("owned", sa.Integer, nullable=False),
    sa.Column("unread", sa.JSON, nullable=False),
    sa.Column("fault", sa.String, nullable=False),  # why there is no inventory
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("due", sa.BigInteger, index=True),  # when it is tried; null: it was done
    sa.Column("made", sa.BigInteger, nullable=False),
)
uses = sa.Table(
    "package_uses",
    metadata,
    sa.Column("package", sa.Integer, primary_key=True),
    sa.Column("inventory", sa.Integer, primary_key=True, index=True),
    sqlite_with_rowid=False,
)
findings = sa.Table(  # of packages, not of images; one that ended stays, as history
    "package_findings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("package", sa.Integer, sa.ForeignKey("image_packages.id"), nullable=False),
    sa.Column("vulnerability", sa.String, nullable=False, index=True),
    sa.Column("rank", sa.Integer, nullable=False),  # place of its severity
    sa.Column("counts", sa.Boolean, nullable=False),
    sa.Column("body", sa.String, nullable=False),  # all that is known, as JSON
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("fix_since", sa.BigInteger),  # when a version without it became known
    sa.Column("until", sa.BigInteger),  # when the advisory was withdrawn or changed; null: it holds
    sa.Index("findings_of_package", "package", "vulnerability"),
)
verdicts = sa.Table(  # of an image in a repository
    "verdicts",
    metadata,
    sa.Column("repository", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True, index=True),
    sa.Column("verdict", sa.String, nullable=False),
    sa.Column("counts", sa.JSON, nullable=False),  # how many findings count, by place of the severity
    sa.Column("changed", sa.BigInteger, nullable=False),
    sa.Column("pending", sa.Boolean, nullable=False, index=True),  # to be judged again
    sa.Column("told", sa.Integer, nullable=False),  # the last finding that was known when people were told
    sa.Column("blocked_from", sa.BigInteger),  # from when on readers are refused; null: they are not
    sa.Column("why", sa.String, nullable=False),  # what the gate says
)
events = sa.Table(  # what happened to releases, for feeds and for those who subscribe
    "finding_events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("collection", sa.String, nullable=False, index=True),
    sa.Column("repository", sa.String, nullable=False, index=True),
    sa.Column("kind", sa.String, nullable=False),  # found or withdrawn
    sa.Column("body", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)
gates = sa.Table(
    "gates",
    metadata,
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), primary_key=True),
    sa.Column("action", sa.String, nullable=False),  # warn or block; no row: nothing
    sa.Column("severity", sa.String, nullable=False),
    sa.Column("only_fixed", sa.Boolean, nullable=False),
    sa.Column("strict", sa.Boolean, nullable=False),  # what could not be judged does not pass either
    sa.Column("until", sa.BigInteger),  # until then all may pass
    sa.Column("changed_by", sa.String, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
)
passes = sa.Table(  # exceptions to a gate
    "gate_passes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), nullable=False, index=True),
    sa.Column("vulnerability", sa.String, nullable=False),
    sa.Column("repository", sa.String, nullable=False),  # empty: all of the collection
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
rebuild_requests = sa.Table(  # newest releases that another build would repair; who builds takes them
    "rebuild_requests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("collection", sa.String, nullable=False),
    sa.Column("repository", sa.String, nullable=False, index=True),
    sa.Column("tag", sa.String, nullable=False),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("reason", sa.JSON, nullable=False),  # what it would repair
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("taken", sa.BigInteger),  # when somebody began to build; null: nobody has
    sa.UniqueConstraint("repository", "digest"),
)
subscriptions = sa.Table(
    "subscriptions",
    metadata,
    sa.Column("person", sa.Integer, sa.ForeignKey("people.id"), primary_key=True),
    sa.Column("target", Sorted, primary_key=True),  # a collection or a repository
    sa.Column("created", sa.BigInteger, nullable=False),
)
evidence_keys = sa.Table(  # whose signatures count in a collection
    "evidence_keys",
    metadata,
    sa.Column("collection", sa.String, sa.ForeignKey("collections.name"), primary_key=True),
    sa.Column("keyid", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("public", sa.String, nullable=False),
    sa.Column("added_by", sa.String, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
)
evidence_checks = sa.Table(
    "evidence_checks",
    metadata,
    sa.Column("repository", sa.Integer, primary_key=True),
    sa.Column("digest", sa.String, primary_key=True),  # of the manifest that carries it
    sa.Column("state", sa.String, nullable=False, index=True),  # waiting, valid, unknown, invalid, unsigned, unreadable
    sa.Column("keys", sa.JSON, nullable=False),  # names of those whose signature holds
    sa.Column("checked", sa.BigInteger, nullable=False),
)
