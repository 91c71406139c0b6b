"""How a pipeline begins: what is asked for is checked, written down, and answered from an earlier one where it can be.

`start` is the one function for every way in: the API, webhooks, the deposit page. A source is an archive that the
repository has as a blob, or a commit of a git repository on a machine that the settings allow.
"""

import fnmatch
import lzma
import re
import tarfile
import time
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from computeops import __version__
from computeops import recipe as recipes
from computeops.errors import ConflictError, FormatError, LimitError, NotFoundError, RecipeError, UsageError
from computeops.hub import names, outside
from computeops.hub.pipelines.queue import LOCK
from computeops.hub.pipelines.tables import pipeline_steps, pipelines
from computeops.hub.pipelines.words import BUILD, CANCELLED, ENDED, FAILED, REBUILD, SUCCEEDED, WAITING, Source
from computeops.hub.state import Hub
from computeops.hub.tables import tags
from computeops.limits import LIMITS
from computeops.model import Digest

_COMMIT = re.compile(r"[0-9a-f]{40}")
_LOCK_FILE = "computeops.lock"
_MEMBERS = 100_000
_UNPACKED = 8 * 1024**3
_SMALL = 16 * LIMITS.recipe_bytes


@dataclass(frozen=True, slots=True)
class Started:
    """A pipeline that was asked for."""

    id: int
    state: str


@dataclass(frozen=True, slots=True)
class _Read:
    """What the recipe in an archive says, as far as the hub needs it."""

    version: str = ""
    locked: bool = False


def start(hub: Hub, repository: str, source: Source, *, asked_by: str) -> Started:
    """Write down that `source` shall become a release of `repository`; whoever calls has asked whether they may.

    The same source that waits, runs, or was built before (with a lock, by this version) is not built again: the answer
    is that pipeline, or a new one with its result.

    Raises:
        UsageError: the source is none, or not allowed.
        NotFoundError: the repository has no such archive.
        RecipeError, FormatError: the archive has no recipe, a wrong one, or is none.
        ConflictError: the version is a release already, or about to be one, of another source; or too many wait.
    """
    names.require(repository)
    if bool(source.archive) == bool(source.git) or source.image:
        raise UsageError("a pipeline begins with an archive or a git repository", hint="give one of both")
    if source.git:
        check_git(hub, source)
        read = _Read()
    else:
        read = _read(hub, repository, source)
    key = str(Digest.of(msgspec.json.encode([BUILD, repository, source])))
    row = {"kind": BUILD, "repository": repository, "version": read.version, "source_key": key, "locked": read.locked}
    return _enqueue(hub, row | {"source": msgspec.to_builtins(source), "asked_by": asked_by[:200]})


def rebuild(hub: Hub, repository: str, manifest: str, *, asked_by: str, others: bool = False) -> Started:
    """Write down that the image `manifest` of `repository` shall be rebuilt and compared.

    `others`: by a worker that neither built it nor rebuilt it before.

    Raises:
        NotFoundError: there is no such image.
    """
    found = hub.database.repository(repository)
    row = hub.database.manifest(found, str(Digest.parse(manifest))) if found else None
    if found is None or row is None:
        raise NotFoundError(f"{repository} has no image {manifest}")
    source: dict[str, Any] = {"image": manifest, "others": others}
    key = str(Digest.of(msgspec.json.encode([REBUILD, repository, manifest, others])))
    new = {"kind": REBUILD, "repository": repository, "version": manifest, "source_key": key, "locked": False}
    return _enqueue(hub, new | {"source": source, "asked_by": asked_by[:200]})


def _enqueue(hub: Hub, asked: dict[str, Any]) -> Started:
    now, repository = int(time.time()), asked["repository"]
    collection = repository.rpartition("/")[0]
    with hub.database.write(LOCK) as connection:
        same = sa.select(pipelines).where(pipelines.c.source_key == asked["source_key"])
        known = connection.execute(same.order_by(pipelines.c.id.desc()).limit(100)).all()
        for one in known:
            if one.state not in ENDED and not one.ending and not asked["source"].get("others"):
                return Started(one.id, one.state)
        if asked["version"] and asked["kind"] == BUILD:
            _require_free(hub, connection, asked, {one.id for one in known})
        waiting = sa.select(sa.func.count()).where(pipelines.c.state == WAITING, pipelines.c.collection == collection)
        if (connection.execute(waiting).scalar() or 0) >= hub.settings.pipelines.waiting:
            raise ConflictError(f"{collection} has {hub.settings.pipelines.waiting} pipelines that wait already")
        row = {"collection": collection, "state": WAITING, "created": now, "ending": False, "attempts": 0}
        row |= {"lease": "", "builder": "", "images": [], "error": "", "hint": "", "log_bytes": 0, **asked}
        row |= _answer(known, asked, now)
        made = connection.execute(sa.insert(pipelines).values(**row)).inserted_primary_key
        assert made is not None
    return Started(int(made[0]), str(row["state"]))


def _answer(known: Any, asked: dict[str, Any], now: int) -> dict[str, Any]:
    """Return the result of an earlier pipeline with the same source, the same lock and the same program, or nothing."""
    if asked["kind"] != BUILD:
        return {}
    for one in known:
        if one.state == SUCCEEDED and one.locked and one.builder == __version__:
            copied = {"state": SUCCEEDED, "began": now, "ended": now, "images": one.images, "builder": one.builder}
            return copied | {"answered_by": one.answered_by or one.id, "locked": True, "version": one.version}
    return {}


def _require_free(hub: Hub, connection: sa.Connection, asked: dict[str, Any], same: set[int]) -> None:
    """Refuse a second source for a version before anybody builds it."""
    here = (pipelines.c.repository == asked["repository"]) & (pipelines.c.version == asked["version"])
    alive = here & (pipelines.c.kind == BUILD) & pipelines.c.state.not_in(ENDED)
    for number in connection.scalars(sa.select(pipelines.c.id).where(alive)):
        if number not in same:
            raise ConflictError(
                f"pipeline {number} builds {asked['repository']}:{asked['version']} from another source",
                hint="cancel it, or wait for its end",
            )
    found = hub.database.repository(asked["repository"])
    if found is None:
        return
    taken = sa.select(tags.c.digest).where(tags.c.repository == found.id, tags.c.name == asked["version"])
    digest = connection.execute(taken).scalar()
    ours = sa.select(pipelines.c.id).where(pipelines.c.id.in_(same), pipelines.c.state == SUCCEEDED)
    if digest is not None and connection.execute(ours).first() is None:
        raise ConflictError(
            f"{asked['repository']}:{asked['version']} is a release already",
            hint="a released version never changes; release a new version",
        )


def check_git(hub: Hub, source: Source) -> None:
    """Refuse a git repository that the settings do not allow, as far as it can be told without asking it.

    Raises:
        UsageError: so.
    """
    if not _COMMIT.fullmatch(source.commit):
        raise UsageError(f"not a commit: {source.commit[:80]!r}", hint="give its 40 hex digits")
    inside(source.folder)
    private = hub.settings.pipelines.private_addresses
    outside.check(source.git, private=private)
    host = (urlsplit(source.git).hostname or "").lower()
    if not any(fnmatch.fnmatchcase(host, pattern.lower()) for pattern in hub.settings.pipelines.git):
        raise UsageError(f"this hub builds nothing from {host}", hint="its operator may allow it: `git` in hub.toml")


def inside(folder: str) -> None:
    """Refuse a path that may lead out of a tree.

    Raises:
        UsageError: so.
    """
    parts = folder.split("/")
    if folder and (folder.startswith("/") or ".." in parts or not folder.isprintable() or len(folder) > 500):
        raise UsageError(f"not a folder inside the source: {folder[:80]!r}")


def _read(hub: Hub, repository: str, source: Source) -> _Read:
    """Read recipe and lock in an archive."""
    inside(source.folder)
    digest = Digest.parse(source.archive)
    found = hub.database.repository(repository)
    if found is None or hub.database.linked(found, str(digest)) is None:
        raise NotFoundError(f"{repository} has no archive {digest}", hint="push it there as a blob first")
    kept = _small_files(hub, digest, source.folder)
    if recipes.FILE_NAME not in kept:
        where = source.folder or "the archive"
        raise RecipeError(f"{where} has no {recipes.FILE_NAME}", hint="pack the folder of the recipe as it is")
    recipe = recipes.parse(kept[recipes.FILE_NAME])
    return _Read(recipe.package.version, _LOCK_FILE in kept)


def _small_files(hub: Hub, digest: Digest, folder: str) -> dict[str, bytes]:
    """Return recipe and lock out of a tar file; nothing is unpacked."""
    found: dict[str, bytes] = {}
    try:
        with hub.blobs.file(digest) as file, tarfile.open(file, mode="r|*") as tar:
            for count, member in enumerate(tar):
                if count >= _MEMBERS or member.offset_data + member.size > _UNPACKED:
                    raise LimitError(f"the archive has more than {_MEMBERS} files, or {_UNPACKED} bytes unpacked")
                name = _below(member.name, folder)
                if name in {recipes.FILE_NAME, _LOCK_FILE} and member.isreg():
                    if member.size > _SMALL:
                        raise LimitError(f"{name} is larger than {_SMALL} bytes")
                    content = tar.extractfile(member)
                    found[name] = content.read() if content else b""
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise FormatError(f"the archive cannot be read: {error}", hint="send a tar file") from error
    return found


def _below(name: str, folder: str) -> str:
    path = name.removeprefix("./")
    return path.removeprefix(f"{folder}/") if folder and path.startswith(f"{folder}/") else "" if folder else path


def retry(hub: Hub, number: int) -> Started:
    """Let a pipeline that failed or was cancelled go on at the step that did not end well.

    Raises:
        NotFoundError: there is none; ConflictError: it has not failed.
    """
    with hub.database.write(LOCK) as connection:
        row = _get(connection, number)
        if row.state not in {FAILED, CANCELLED}:
            raise ConflictError(
                f"pipeline {number} is {row.state}", hint="only what failed or was cancelled is retried"
            )
        new = {"state": WAITING, "ended": None, "ending": False, "error": "", "hint": "", "attempts": 0, "lease": ""}
        connection.execute(sa.update(pipelines).where(pipelines.c.id == number).values(**new))
        bad = (pipeline_steps.c.pipeline == number) & (pipeline_steps.c.state != "done")
        connection.execute(sa.delete(pipeline_steps).where(bad))
    return Started(number, WAITING)


def cancel(hub: Hub, number: int) -> Started:
    """Let a pipeline end: at once if it waits, else when its worker hears of it.

    Raises:
        NotFoundError: there is none; ConflictError: it has ended.
    """
    with hub.database.write(LOCK) as connection:
        row = _get(connection, number)
        if row.state in ENDED:
            raise ConflictError(f"pipeline {number} has {row.state} already")
        new: dict[str, Any] = {"ending": True}
        if row.lease_until is None:
            new |= {"state": CANCELLED, "ended": int(time.time())}
        connection.execute(sa.update(pipelines).where(pipelines.c.id == number).values(**new))
    return Started(number, str(new.get("state", row.state)))


def _get(connection: sa.Connection, number: int) -> sa.Row[Any]:
    row = connection.execute(sa.select(pipelines).where(pipelines.c.id == number)).first()
    if row is None:
        raise NotFoundError(f"there is no pipeline {number}")
    return row
