"""The last steps, which the hub does itself: what a worker pushed gets its names, all variants together, and is told.

The worker has pushed each variant by its digest, with its evidence, and nobody sees it yet. Here it is looked at: it
must be what the worker says, signed by that worker's own key, and of no version that is a release of something else.
If the collection wants rebuilds first, the pipeline waits until so many different workers found the same image.
"""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

from computeops import __version__
from computeops.check import kinds
from computeops.errors import ComputeOpsError, ConflictError, TrustError
from computeops.hub import catalogue, contents, manifests, webhooks
from computeops.hub.db import Repository
from computeops.hub.pipelines import queue, rules, start
from computeops.hub.pipelines.tables import pipelines, workers
from computeops.hub.pipelines.words import (
    DONE,
    ENDED,
    FAILED,
    PROVING,
    REBUILD,
    RUNNING,
    SUCCEEDED,
    Made,
    Reply,
    Report,
    Step,
)
from computeops.hub.state import Hub
from computeops.hub.tables import evidence as evidence_rows
from computeops.hub.tables import tags
from computeops.image.oci import SIF_ARTIFACT
from computeops.limits import LIMITS
from computeops.model import Digest, Signed
from computeops.sign import dsse
from computeops.sign.key import Key

PUBLISH, PROVE, DELIVER = "publish", "prove", "deliver"


def publish(hub: Hub, worker: int, number: int, said: Report) -> Reply:
    """Take in what a worker pushed, and publish it or let it be rebuilt first; may be repeated.

    The pipeline fails if that is not what the worker says, or not signed by its key, or if the version is taken.

    Raises:
        NotFoundError, ConflictError: it is not this worker's any more.
    """
    queue.report(hub, worker, number, msgspec.structs.replace(said, failed=False, cancelled=False, returned=False))
    with hub.database.read() as connection:
        row = queue.held(connection, worker, number, said.lease)
        key = connection.execute(sa.select(workers.c.key).where(workers.c.id == worker)).scalar_one()
    if row.state != RUNNING:
        return Reply(state=row.state, ending=row.ending, log_at=row.log_bytes)
    repository = hub.database.repository(row.repository)
    if repository is None or not said.made:
        _fail(hub, row.id, PUBLISH, f"nothing was pushed to {row.repository}", "")
        return Reply(state=FAILED, ending=True, log_at=row.log_bytes)
    try:
        for one in said.made:
            _check(hub, repository, one, Key.read("worker", key.encode()))
        new: dict[str, Any] = {"images": [msgspec.to_builtins(one) for one in said.made], "builder": __version__}
        if wanted := rules.rebuilds(hub.database, row.collection):
            _hold_back(hub, row, new, wanted)
            return Reply(state=PROVING, ending=False, log_at=row.log_bytes)
        _name(hub, repository, said.made)
        _end(hub, row.id, repository, new)
    except (TrustError, ConflictError) as error:
        _fail(hub, row.id, PUBLISH, error.message, error.hint)
        return Reply(state=FAILED, ending=True, log_at=row.log_bytes)
    return Reply(state=SUCCEEDED, ending=False, log_at=row.log_bytes)


def _check(hub: Hub, repository: Repository, made: Made, key: Key) -> None:
    """Refuse an image that is not what the worker says, or that it did not sign."""
    row = hub.database.manifest(repository, made.manifest)
    described = contents.parsed(row.body).get("config") if row else None
    if not isinstance(described, dict) or described.get("digest") != made.image:
        raise TrustError(f"{repository.name} has no image {made.image} as {made.manifest}")
    kept = _evidence(hub, repository, made.manifest, kinds.PROVENANCE)
    if not any(_about(one, made, key) for one in kept):
        raise TrustError(f"{made.manifest} has no provenance that its worker signed")
    if any(item is False for item in _verdicts(hub, repository, made.manifest, kinds.TEST)):
        raise TrustError(f"{made.manifest} has failed its tests")


def _about(signed: Signed, made: Made, key: Key) -> bool:
    """Return whether `key` says in this envelope how just this image was made."""
    try:
        statement = dsse.read(signed)
        signers = dsse.signers(signed, {key.keyid: key})
    except ComputeOpsError:
        return False
    return bool(signers) and str(statement.subjects.get("image")) == made.image


def _evidence(hub: Hub, repository: Repository, manifest: str, kind: str) -> list[Signed]:
    """Return the envelopes of one kind about an image."""
    rows = evidence_rows.c
    query = sa.select(rows.blob).where(rows.repository == repository.id, rows.subject == manifest, rows.kind == kind)
    with hub.database.read() as connection:
        blobs = list(connection.scalars(query.limit(LIMITS.page_rows)))
    found = []
    for blob in blobs:
        try:
            data = hub.blobs.read(Digest.parse(blob), LIMITS.evidence_bytes)
            found.append(Signed.from_json(msgspec.json.decode(data)))
        except (ComputeOpsError, msgspec.DecodeError):
            continue
    return found


def _verdicts(hub: Hub, repository: Repository, manifest: str, kind: str) -> list[bool | None]:
    rows = evidence_rows.c
    query = sa.select(rows.passed).where(rows.repository == repository.id, rows.subject == manifest, rows.kind == kind)
    with hub.database.read() as connection:
        return list(connection.scalars(query))


def _name(hub: Hub, repository: Repository, made: Sequence[Made]) -> None:
    """Give every variant its version as its tag, once all of those are free, and its SIF `VERSION.sif`."""
    with hub.database.read() as connection:
        for one in made:
            taken = sa.select(tags.c.digest, tags.c.retired).where(
                tags.c.repository == repository.id, tags.c.name == _tag(one.version)
            )
            found = connection.execute(taken).first()
            if found is not None and (found.retired or found.digest != one.manifest):
                raise ConflictError(
                    f"{repository.name}:{one.version} is another image already",
                    hint="a released version never changes; release a new version",
                )
    for one in made:
        named = [(one.manifest, _tag(one.version))]
        named += [(digest, f"{_tag(one.version)}.sif") for digest in _sifs(hub, repository, one.manifest)[:1]]
        for digest, tag in named:
            _put(hub, repository, digest, tag)


def _tag(version: str) -> str:
    """Return the tag of a version, as `store.oci.tag` does: a tag cannot have a +."""
    return version.replace("+", "_")


def _sifs(hub: Hub, repository: Repository, manifest: str) -> list[str]:
    return [row.digest for row in hub.database.referrers(repository, manifest) if row.artifact_type == SIF_ARTIFACT]


def _put(hub: Hub, repository: Repository, digest: str, tag: str) -> None:
    row = hub.database.manifest(repository, digest)
    if row is None:
        raise TrustError(f"{repository.name} has no {digest} any more")
    there = hub.database.manifest(repository, tag)
    is_new = there is None or there.digest != digest
    if is_new:
        manifest = manifests.Manifest.read(row.body, Digest.parse(digest), row.media_type)
        manifests.put(hub.database, repository, manifest, (tag,))
    catalogue.manifest_pushed(hub, repository, digest, tag)  # again too: a hub that was killed did not come so far
    if is_new:
        webhooks.announce(hub, repository, digest, tag)


def _end(hub: Hub, number: int, repository: Repository, new: dict[str, Any]) -> None:
    """Write down that all is published, once it can be found by its names."""
    made = [msgspec.convert(one, Made) for one in new["images"]]
    now = time.time()
    for one in made:
        found = hub.database.manifest(repository, _tag(one.version))
        if found is None or found.digest != one.manifest:
            raise ConflictError(f"{repository.name}:{one.version} is not what was published")
    names = [f"{repository.name}:{one.version}@{one.manifest}" for one in made]
    began = int(now * 1000)
    with hub.database.write(queue.LOCK) as connection:
        for name in (PUBLISH, DELIVER):
            facts: dict[str, Any] = {"published": names} if name == PUBLISH else {"found": len(names)}
            queue.note_step(connection, number, Step(name=name, state=DONE, began=began, facts=facts))
        done = {"state": SUCCEEDED, "ended": int(now), "lease_until": None, **new}
        connection.execute(sa.update(pipelines).where(pipelines.c.id == number).values(**done))
        queue.revoke(connection, number)


# rebuilds before publication


def _hold_back(hub: Hub, row: sa.Row[Any], new: dict[str, Any], wanted: int) -> None:
    """Let others rebuild what was pushed, as many as the collection wants, each by a worker of its own."""
    step = Step(name=PROVE, state=RUNNING, began=int(time.time() * 1000), facts={"wanted": wanted})
    with hub.database.write(queue.LOCK) as connection:
        queue.note_step(connection, row.id, step)
        held = {"state": PROVING, "lease_until": None, **new}
        connection.execute(sa.update(pipelines).where(pipelines.c.id == row.id).values(**held))
        queue.revoke(connection, row.id)
    for one in new["images"]:
        for _ in range(wanted):
            start.rebuild(hub, row.repository, one["manifest"], asked_by=f"pipeline {row.id}", others=True)


def rebuilt(hub: Hub, repository_name: str) -> None:
    """Look again at what waits for rebuilds: publish what has enough, and fail what somebody could not rebuild."""
    query = sa.select(pipelines).where(pipelines.c.repository == repository_name, pipelines.c.state == PROVING)
    with hub.database.read() as connection:
        waiting = connection.execute(query).all()
        keys = _keys(connection)
    wanted = rules.rebuilds(hub.database, repository_name.rpartition("/")[0])
    repository = hub.database.repository(repository_name)
    for row in waiting if repository else ():
        assert repository is not None
        counts = [count(hub, repository, msgspec.convert(one, Made), keys) for one in row.images]
        if any(bad for _, bad in counts):
            _fail(hub, row.id, PROVE, "a worker rebuilt it and got another image", "see the evidence of the rebuild")
        elif all(good >= wanted for good, _ in counts):
            _prove(hub, row, repository, min(good for good, _ in counts))
        elif not _is_open(hub, row):
            _fail(hub, row.id, PROVE, "it could not be rebuilt", "see the pipelines of the rebuilds, and retry")


def _is_open(hub: Hub, row: sa.Row[Any]) -> bool:
    """Return whether somebody still works on a rebuild of this pipeline's images."""
    query = sa.select(pipelines.c.id).where(
        pipelines.c.repository == row.repository,
        pipelines.c.kind == REBUILD,
        pipelines.c.version.in_([one["manifest"] for one in row.images]),
        pipelines.c.state.not_in(ENDED),
    )
    with hub.database.read() as connection:
        return connection.execute(query.limit(1)).first() is not None


def _prove(hub: Hub, row: sa.Row[Any], repository: Repository, good: int) -> None:
    made = [msgspec.convert(one, Made) for one in row.images]
    try:
        _name(hub, repository, made)
    except ComputeOpsError as error:
        _fail(hub, row.id, PROVE, error.message, error.hint)
        return
    with hub.database.write(queue.LOCK) as connection:
        step = Step(name=PROVE, state=DONE, began=int(time.time() * 1000), facts={"identical": good})
        queue.note_step(connection, row.id, step)
    _end(hub, row.id, repository, {"images": row.images})


def _fail(hub: Hub, number: int, name: str, error: str, hint: str) -> None:
    with hub.database.write(queue.LOCK) as connection:
        queue.note_step(connection, number, Step(name=name, state=FAILED, began=int(time.time() * 1000)))
        queue.revoke(connection, number)
        new = {"state": FAILED, "ended": int(time.time()), "lease_until": None, "error": error, "hint": hint}
        connection.execute(sa.update(pipelines).where(pipelines.c.id == number).values(**new))


def _keys(connection: sa.Connection) -> dict[str, Key]:
    """Return the keys of the workers: only their verdicts count."""
    found = {}
    for row in connection.execute(sa.select(workers).where(workers.c.key != "")):
        key = Key.read(row.name, row.key.encode())
        found[key.keyid] = key
    return found


def count(hub: Hub, repository: Repository, made: Made, keys: dict[str, Key]) -> tuple[int, int]:
    """Return how many different workers rebuilt the same image, and how many another one; who built it is not asked."""
    by = {True: set[str](), False: set[str]()}
    builders = set[str]()
    for one in _evidence(hub, repository, made.manifest, kinds.PROVENANCE):
        builders |= dsse.signers(one, keys)
    for one in _evidence(hub, repository, made.manifest, kinds.REBUILD):
        statement = dsse.read(one)
        if statement.passed is not None and str(statement.subjects.get("image")) == made.image:
            by[statement.passed] |= dsse.signers(one, keys) - builders
    return len(by[True]), len(by[False])
