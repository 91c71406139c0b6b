"""What a release is, and the index of them: tags, recipes and evidence, read from the manifests that were pushed.

A release is a tag that points to an image (or to an index of images, one for each architecture). Its version is the
tag, or what its recipe says where the tag is that or `VERSION-VARIANT`. What the catalogue knows is made of manifests
and blobs alone: `reindex` makes it anew, and every step may be repeated.

Whatever was pushed, however odd, is listed as well as it can be understood: a push never fails here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import sqlalchemy as sa

from computeops import recipe as recipe_format
from computeops.check import kinds
from computeops.errors import ComputeOpsError
from computeops.hub import contents, facts, terms
from computeops.hub.contents import File
from computeops.hub.db import Repository, upsert
from computeops.hub.facts import clean
from computeops.hub.listed import Item, Listed, complete, listed, rows_of_releases
from computeops.hub.state import Hub
from computeops.hub.tables import collections, evidence, manifests, recipes, releases, repositories, tags, words
from computeops.hub.vulnerabilities import inventory, signatures
from computeops.image.oci import EVIDENCE_ARTIFACT, PREDICATE_TYPE, RECIPE_ARTIFACT
from computeops.limits import LIMITS
from computeops.model import Digest

_MAX_FILES = 64
_MAX_LIST = 256

Row = Mapping[str, Any]


def is_release(hub: Hub, repository: Repository, digest: str) -> bool:
    """Return whether the manifest `digest` has a recipe or evidence: then a tag on it never moves."""
    query = sa.select(manifests.c.digest).where(
        manifests.c.repository == repository.id,
        manifests.c.subject == digest,
        manifests.c.artifact_type.in_([RECIPE_ARTIFACT, EVIDENCE_ARTIFACT]),
    )
    with hub.database.read() as connection:
        return connection.execute(query.limit(1)).first() is not None


def manifest_pushed(hub: Hub, repository: Repository, digest: str, tag: str = "") -> None:
    """Take a manifest that was stored, and tagged unless `tag` is empty, into the catalogue."""
    found = hub.database.manifest(repository, digest)
    if found is None:
        return
    if found.artifact_type == RECIPE_ARTIFACT and found.subject:
        _index_recipe(hub, repository, found.subject)
    elif found.artifact_type == EVIDENCE_ARTIFACT and found.subject:
        _index_evidence(hub, repository, found)
    if tag:
        for target in {digest, *_targets(hub, repository, releases.c.tag == tag)}:
            _index_target(hub, repository, target)


def removed(hub: Hub, repository: Repository, digest: str = "", tag: str = "") -> None:
    """Take a manifest or a tag that was deleted out of the catalogue."""
    if digest:
        mine = recipes.c.repository == repository.id, recipes.c.digest == digest
        said = evidence.c.repository == repository.id, evidence.c.digest == digest
        with hub.database.write() as connection:
            subjects = connection.execute(sa.select(recipes.c.subject).where(*mine)).scalars().all()
            judged = connection.execute(sa.select(evidence.c.subject).where(*said)).scalars().all()
            connection.execute(sa.delete(evidence).where(*said))
        for subject in subjects:
            _index_recipe(hub, repository, subject)
        for subject in judged:
            _index_subject(hub, repository, subject)
    gone = sa.or_(releases.c.tag == tag, releases.c.target == digest, releases.c.digest == digest)
    for target in _targets(hub, repository, gone):
        _index_target(hub, repository, target)


def reindex(hub: Hub) -> None:
    """Make the whole catalogue anew from the manifests, tags and blobs; what is right already keeps its place."""
    with hub.database.read() as connection:
        known = {
            row.id: Repository(row.id, row.name, row.public)
            for row in connection.execute(
                sa.select(repositories.c.id, repositories.c.name, collections.c.public).join_from(
                    repositories, collections
                )
            )
        }
        referrers = connection.execute(
            sa.select(manifests.c.repository, manifests.c.digest)
            .where(manifests.c.artifact_type.in_([RECIPE_ARTIFACT, EVIDENCE_ARTIFACT]))
            .order_by(manifests.c.created, manifests.c.digest)
        ).all()
        tagged = connection.execute(
            sa.select(tags.c.repository, tags.c.digest, tags.c.name).order_by(tags.c.moved, tags.c.name)
        ).all()
    with hub.database.write() as connection:
        connection.execute(sa.delete(recipes))
        connection.execute(sa.delete(evidence))
    for row in referrers:
        manifest_pushed(hub, known[row.repository], row.digest)
    for tag in tagged:
        manifest_pushed(hub, known[tag.repository], tag.digest, tag.name)
    _forget_untagged(hub, known)


def _forget_untagged(hub: Hub, known: Mapping[int, Repository]) -> None:
    with hub.database.read() as connection:
        listed = connection.execute(sa.select(releases.c.repository, releases.c.target).distinct()).all()
    for row in listed:
        _index_target(hub, known[row.repository], row.target)


def _targets(hub: Hub, repository: Repository, condition: sa.ColumnElement[bool]) -> Sequence[str]:
    query = sa.select(releases.c.target).distinct().where(releases.c.repository == repository.id, condition)
    with hub.database.read() as connection:
        return connection.execute(query).scalars().all()


def _index_recipe(hub: Hub, repository: Repository, subject: str) -> None:
    """Make the row of the recipe of `subject`: the first that was pushed, so that a later one changes nothing."""
    found = [row for row in hub.database.referrers(repository, subject) if row.artifact_type == RECIPE_ARTIFACT]
    with hub.database.write() as connection:
        if found:
            upsert(connection, recipes, _recipe(hub, repository, subject, found[0]))
        else:
            mine = recipes.c.repository == repository.id, recipes.c.subject == subject
            connection.execute(sa.delete(recipes).where(*mine))
    _index_subject(hub, repository, subject)


def _index_subject(hub: Hub, repository: Repository, subject: str) -> None:
    """Make the rows anew that what refers to `subject` says something about."""
    with_it = sa.or_(releases.c.digest == subject, releases.c.target == subject)
    for target in _targets(hub, repository, with_it):
        _index_target(hub, repository, target)


def _recipe(hub: Hub, repository: Repository, subject: str, manifest: sa.Row[Any]) -> Row:
    files = [file for file in contents.files(manifest.body, _MAX_FILES) if file.name]
    about, fault = _about(hub, files)
    return {
        "repository": repository.id,
        "subject": subject,
        "digest": manifest.digest,
        "about": about,
        "fault": fault,
        "files": [asdict(file) for file in files],
    }


def _about(hub: Hub, files: Sequence[File]) -> tuple[dict[str, Any], str]:
    """Return the tables of computeops.toml, and why there are none."""
    digest = next((file.digest for file in files if file.name == recipe_format.FILE_NAME), None)
    if digest is None:
        return {}, f"there is no {recipe_format.FILE_NAME} in it"
    try:
        data = hub.blobs.read(Digest.parse(digest), LIMITS.recipe_bytes)
        parsed = recipe_format.parse(data, builders=None)  # who builds it has its builder, not who lists it
    except ComputeOpsError as error:
        return {}, "\n".join(clean(line, 300) for line in error.message.splitlines()[:20])
    return _clipped(msgspec.to_builtins(parsed)), ""


def _clipped(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= LIMITS.about_chars else value[: LIMITS.about_chars] + "…"
    if isinstance(value, dict):
        return {key: _clipped(one) for key, one in list(value.items())[:_MAX_LIST]}
    if isinstance(value, list | tuple):
        return [_clipped(one) for one in value[:_MAX_LIST]]
    return value


def _index_evidence(hub: Hub, repository: Repository, manifest: sa.Row[Any]) -> None:
    part = next(iter(contents.files(manifest.body, 1)), File("", "", 0))
    try:
        known = facts.read(hub.blobs.read(Digest.parse(part.digest), LIMITS.evidence_bytes))
    except ComputeOpsError:
        known = facts.Known(facts={"fault": "cannot be read"})
    row = {
        "repository": repository.id,
        "digest": manifest.digest,
        "subject": manifest.subject,
        "blob": part.digest,
        "kind": known.kind or clean(str(manifest.annotations.get(PREDICATE_TYPE, ""))),
        "passed": known.passed,
        "signers": list(known.signers),
        "facts": dict(known.facts),
        "size": part.size,
        "created": manifest.created,
    }
    with hub.database.write() as connection:
        upsert(connection, evidence, row)
        signatures.want(connection, repository.id, manifest.digest)
    _index_subject(hub, repository, manifest.subject)


def _index_target(hub: Hub, repository: Repository, target: str) -> None:
    """Make the rows of all tags that point to `target`, and remove those of tags that no longer do."""
    rows = list(_release_rows(hub, repository, target))
    kept = {(row["tag"], row["digest"]) for row in rows}
    mine = releases.c.repository == repository.id, releases.c.target == target
    with hub.database.write() as connection:
        for old in connection.execute(sa.select(releases.c.id, releases.c.tag, releases.c.digest).where(*mine)).all():
            if (old.tag, old.digest) not in kept:
                connection.execute(sa.delete(releases).where(releases.c.id == old.id))
                connection.execute(sa.delete(words).where(words.c.rowid == old.id))
        for row in rows:
            upsert(connection, releases, row, on=["repository", "tag", "digest"])
            inventory.want(connection, repository.id, row["digest"])
        made = [listed(row) for row in connection.execute(rows_of_releases().where(*mine))]
        for one in complete(connection, made):
            _index_terms(connection, one, _recipe_of(connection, repository, one.digest, target))


def _index_terms(connection: sa.Connection, one: Listed, about: Row) -> None:
    variant: Row = next((v for v in about.get("variants", ()) if v["name"] == one.variant), {})
    facts = {
        "arch": [one.arch],
        "collection": [one.collection],
        "cpu": [variant.get("cpu", "")],
        "domain": one.domains,
        "gpu": [about.get("requires", {}).get("gpu", "")],
        "license": terms.licenses(one.license),
        "variant": [one.variant],
        "verdict": [one.verdict],
        "verified": _verified(one.evidence),
    }
    texts = [one.collection, one.version, one.variant, one.summary, *one.domains]
    terms.store(connection, one.id, terms.of_release(one.name, texts, facts))


def _verified(items: Sequence[Item]) -> Iterator[str]:
    """Yield the kinds of evidence that count for an image and in which nothing failed."""
    counting = [item for item in items if not item.fault]
    failed = {item.kind for item in counting if item.passed is False}
    yield from {kinds.short(item.kind) for item in counting if item.kind not in failed}


def _release_rows(hub: Hub, repository: Repository, target: str) -> Iterator[Row]:
    query = sa.select(tags.c.name).where(
        tags.c.repository == repository.id, tags.c.digest == target, sa.not_(tags.c.retired)
    )
    with hub.database.read() as connection:
        names = connection.execute(query.order_by(tags.c.name)).scalars().all()
    if not names:
        return
    for manifest in _images(hub, repository, target):
        with hub.database.read() as connection:
            about = _recipe_of(connection, repository, manifest.digest, target)
        package = about.get("package", {})
        image = contents.describe(hub.blobs, manifest.body)
        variants = [one["name"] for one in about.get("variants", [])]
        for meaning in contents.meanings(names, package.get("version", ""), variants):
            yield {
                "repository": repository.id,
                "target": target,
                "digest": manifest.digest,
                **asdict(meaning),
                **asdict(image),
                "summary": package.get("summary") or image.summary,
                "license": package.get("license") or image.license,
                "domains": package.get("domains", []),
                "created": manifest.created,
            }


def _images(hub: Hub, repository: Repository, target: str) -> Iterator[sa.Row[Any]]:
    """Yield the images behind the manifest `target`: itself, or those of the index that it is."""
    found = hub.database.manifest(repository, target)
    if found is None:
        return
    for digest in contents.children(found.body, found.media_type) or [target]:
        one = found if digest == target else hub.database.manifest(repository, digest)
        if one is not None and contents.is_image(one.body):
            yield one


def _recipe_of(connection: sa.Connection, repository: Repository, digest: str, target: str) -> dict[str, Any]:
    query = sa.select(recipes.c.subject, recipes.c.about).where(
        recipes.c.repository == repository.id, recipes.c.subject.in_([digest, target])
    )
    found = {row.subject: row.about for row in connection.execute(query)}
    about: dict[str, Any] = found.get(digest) or found.get(target) or {}
    return about
