"""How a source is deposited: kept under its digest, written down, and, once all is known, given to a pipeline.

`deposit` and `release` are the ways in for the API and the pages; whoever calls has asked whether they may.
"""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec import Struct

from computeops.errors import LimitError, NotFoundError, RecipeError, UsageError, did_you_mean
from computeops.hub import names
from computeops.hub.auth import Caller
from computeops.hub.deposits import apart, fields, index, recipes
from computeops.hub.deposits.apart import Asked, Opened
from computeops.hub.deposits.tables import deposits
from computeops.hub.pipelines import start
from computeops.hub.pipelines.start import Started
from computeops.hub.pipelines.view import sees
from computeops.hub.pipelines.words import Source
from computeops.hub.state import Hub
from computeops.limits import LIMITS
from computeops.model import Digest
from computeops.recipe import FILE_NAME
from computeops.recipe import parse as parse_recipe

_TEXT = 500
_SEEN = 1000
_NO_COMMIT = "0" * 40
_REF_CHARS = frozenset(" ~^:?*[\\")


class Question(Struct, frozen=True, kw_only=True):
    """One thing that a recipe says."""

    key: str
    label: str
    example: str
    value: str = ""
    """What the source says."""
    source: str = ""
    """Which of its files says so."""
    missing: bool = False
    """Whether nobody said it yet, and it is needed."""


class Deposit(Struct, frozen=True, kw_only=True):
    """A source that is kept."""

    id: int
    repository: str
    archive: str
    """Digest of the blob with it, as it came."""
    size: int
    content: str
    """SWHID of the archive."""
    tree: str
    """SWHID of what is in it."""
    origin: str
    asked_by: str
    created: int
    whole: bool
    """Whether it has a recipe already: nothing is asked."""
    questions: list[Question]
    pipeline: int | None = None
    """The last one that was started of it."""
    known: bool = False
    """Whether it was kept here before, and has not been stored again."""


def deposit(hub: Hub, repository: str, asked: Asked, *, archive: str = "", asked_by: str) -> Deposit:
    """Keep a source: the blob `archive` that the repository has, or what `asked` names in git.

    Raises:
        UsageError: it names nothing, or what this hub takes nothing from.
        NotFoundError: the repository has no such blob; the git repository has no such tag.
        FormatError, LimitError: it cannot be unpacked, or should not be.
        RecipeError: it has a recipe, which is wrong.
        StorageError: there is no room for it.
    """
    names.require(repository)
    if bool(archive) == bool(asked.git):
        raise UsageError("a deposit is an archive or a git repository", hint="give one of both")
    if asked.git:
        _check_git(hub, asked)
        asked = msgspec.structs.replace(asked, private=hub.settings.pipelines.private_addresses)
        with apart.opened(asked, hub.blobs.work) as (found, folder):
            row = _row(repository, asked, found, asked_by)
            if (known := _known(hub, repository, found.tree)) is None:
                digest, size = _store(hub, repository, folder / "archive")
                row |= {"archive": str(digest), "size": size}
            return _noted(hub, row, known)
    digest = Digest.parse(archive)
    held = hub.database.repository(repository)
    linked = hub.database.linked(held, str(digest)) if held else None
    if linked is None:
        raise NotFoundError(f"{repository} has no archive {digest}", hint="push it there as a blob first")
    if linked > LIMITS.deposit_bytes:
        raise LimitError(f"the archive has {linked} bytes; a source has at most {LIMITS.deposit_bytes}")
    with hub.blobs.file(digest) as file:
        asked = msgspec.structs.replace(asked, archive=str(file.resolve()))
        with apart.opened(asked, hub.blobs.work) as (found, _):
            row = _row(repository, asked, found, asked_by)
    return _noted(hub, row | {"archive": str(digest), "size": linked}, _known(hub, repository, found.tree))


def release(hub: Hub, kept: Deposit, answers: Mapping[str, str], *, asked_by: str) -> Started:
    """Write the recipe of what the source says and the author answered, and start its pipeline.

    Raises:
        UsageError: an answer is to no question, or a needed one is missing.
        RecipeError: the answers do not make a recipe.
        ConflictError: the version is a release already, or another deposit of it is on its way.
    """
    given = {key: text for key, value in answers.items() if (text := " ".join(value.split()))}
    if kept.whole and given:
        raise UsageError(f"the source has its own {FILE_NAME}", hint="change it there, and deposit it again")
    name, files = kept.repository.rpartition("/")[2], dict[str, bytes]()
    if not kept.whole:
        files = recipes.write(name, _values(kept, given, named=set(answers)), _tops(hub, kept))
    with hub.blobs.file(Digest.parse(kept.archive)) as file:
        asked = Asked(archive=str(file.resolve()), files=files)
        with apart.opened(asked, hub.blobs.work) as (_, folder):
            digest, _ = _store(hub, kept.repository, folder / "packed")
    started = start.start(hub, kept.repository, Source(archive=str(digest)), asked_by=asked_by)
    with hub.database.write() as connection:
        connection.execute(sa.update(deposits).where(deposits.c.id == kept.id).values(pipeline=started.id))
    return started


def _values(kept: Deposit, given: Mapping[str, str], *, named: set[str]) -> dict[str, str]:
    """Return what is known for each key: what was answered, else what the source says; an empty answer takes it back.

    Raises:
        UsageError: so as `release`.
    """
    for key in named:
        if key not in fields.FIELDS:
            near = did_you_mean(key, fields.FIELDS)
            raise UsageError(f"a deposit has no {key[:80]!r}{near}", hint=f"there are: {', '.join(fields.FIELDS)}")
    values = {one.key: one.value for one in kept.questions if one.value and one.key not in named} | dict(given)
    wrong = [f"{key} = {value[:80]!r}: {fault}" for key, value in given.items() if (fault := fields.fault(key, value))]
    if wrong:
        raise UsageError("\n".join(wrong), hint="the keys are described in docs/how-to/deposit-a-release.md")
    if lacking := fields.missing(values):
        said = "; ".join(f"{key}: {fields.FIELDS[key].label}" for key in lacking)
        raise UsageError(
            f"the source does not say, and nobody answered: {said}",
            hint=" ".join(f"--set {key}={fields.FIELDS[key].example!r}" for key in lacking),
        )
    return values


def _check_git(hub: Hub, asked: Asked) -> None:
    is_name = asked.ref.isascii() and asked.ref.isprintable() and not set(asked.ref) & _REF_CHARS
    if not asked.ref or len(asked.ref) > 200 or not is_name or asked.ref.startswith("-") or ".." in asked.ref:
        raise UsageError(
            f"not a tag or commit: {asked.ref[:80]!r}", hint="name a tag, or the 40 hex digits of a commit"
        )
    start.check_git(hub, Source(git=asked.git, commit=_NO_COMMIT))


def _store(hub: Hub, repository: str, file: Path) -> tuple[Digest, int]:
    """Make a file of the hub's own working folder a blob of the repository."""
    size = file.stat().st_size
    hub.require_room(repository, size)
    with file.open("rb") as stream:
        digest = Digest("sha256", hashlib.file_digest(stream, "sha256").hexdigest())
    hub.blobs.take(file, digest)
    hub.database.link(hub.database.create_repository(repository), str(digest), size)
    return digest, size


# what is written down


def _row(repository: str, asked: Asked, found: Opened, asked_by: str) -> dict[str, Any]:
    origin = f"{asked.git}@{found.commit}" if asked.git else asked.name
    if found.recipe:
        recipe = parse_recipe(found.recipe)
        if recipe.package.name != repository.rpartition("/")[2]:
            raise RecipeError(
                f"the recipe in the source is of {recipe.package.name!r}, and the deposit of {repository}",
                hint=f"deposit it for COLLECTION/{recipe.package.name}",
            )
        found = msgspec.structs.replace(found, found={"version": (recipe.package.version, FILE_NAME)})
    return {
        "repository": repository,
        "content": found.content,
        "tree": found.tree,
        "origin": origin[:_TEXT],
        "found": found.found,
        "tops": found.tops,
        "whole": bool(found.recipe),
        "asked_by": asked_by[:200],
        "created": int(time.time()),
    }


def _known(hub: Hub, repository: str, tree: str) -> sa.Row[Any] | None:
    same = sa.select(deposits).where(deposits.c.repository == repository, deposits.c.tree == tree)
    with hub.database.read() as connection:
        return connection.execute(same).first()


def _noted(hub: Hub, row: Mapping[str, Any], known: sa.Row[Any] | None) -> Deposit:
    """Write down a deposit; the archive of a tree that is `known` stays the one that came first."""
    first = {"archive": known.archive, "size": known.size} if known else {}
    return _shown(index.note(hub.database, {**row, **first}), known=known is not None)


def _tops(hub: Hub, kept: Deposit) -> list[str]:
    with hub.database.read() as connection:
        found = connection.execute(sa.select(deposits.c.tops).where(deposits.c.id == kept.id)).scalar()
    return list(found or ())


def _shown(row: sa.Row[Any], *, known: bool = False) -> Deposit:
    values = {key: text for key, (text, _) in row.found.items()}
    lacking = [] if row.whole else fields.missing(values)
    asked = ["version"] if row.whole else list(fields.FIELDS)
    questions = [
        Question(
            key=key,
            label=fields.FIELDS[key].label,
            example=fields.FIELDS[key].example,
            value=values.get(key, ""),
            source=row.found[key][1] if key in row.found else "",
            missing=key in lacking,
        )
        for key in asked
    ]
    plain = ("id", "repository", "archive", "size", "content", "tree", "origin", "asked_by", "created", "whole")
    shared = {name: getattr(row, name) for name in plain}
    return Deposit(**shared, questions=questions, pipeline=row.pipeline, known=known)


def entries(hub: Hub, caller: Caller, *, repository: str = "", limit: int = 50, before: int = 0) -> list[Deposit]:
    """Return the newest deposits that the caller may see; of one repository."""
    query = sa.select(deposits).where(deposits.c.id < (before or 1 << 31)).order_by(deposits.c.id.desc())
    if repository:
        query = query.where(deposits.c.repository == repository)
    found: list[Deposit] = []
    with hub.database.read() as connection:
        for row in connection.execute(query.limit(_SEEN)):
            if len(found) < limit and sees(caller, row.repository):
                found.append(_shown(row))
    return found


def show(hub: Hub, caller: Caller, number: int) -> Deposit:
    """Return one deposit.

    Raises:
        NotFoundError: there is none that the caller may see.
    """
    with hub.database.read() as connection:
        row = connection.execute(sa.select(deposits).where(deposits.c.id == number)).first()
    if row is None or not sees(caller, row.repository):
        raise NotFoundError(f"there is no deposit {number}")
    return _shown(row)
