"""Trusted publishing: a CI job proves by an OIDC token which project it is of, and gets a short token to push.

A maintainer binds a project of GitLab or GitHub to a collection once; CI keeps no secret. Which services count as CI
is the operator's choice (`[[ci]]` in hub.toml). As on PyPI (https://docs.pypi.org/trusted-publishers/).
"""

import time
from asyncio import to_thread
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa
from joserfc import jws
from joserfc.errors import JoseError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from computeops.errors import ConflictError, DeniedError, LoginError, NotFoundError, UsageError
from computeops.hub import audit, receive, roles
from computeops.hub.auth import CI, Scope
from computeops.hub.db import Database
from computeops.hub.id_tokens import Issuers
from computeops.hub.settings import Issuer
from computeops.hub.state import Hub
from computeops.hub.tables import collections, publishers, tokens
from computeops.limits import LIMITS

PUSH_SECONDS = 15 * 60
_MOST = 100
_TEXT = 200
_PROJECTS = {"gitlab": ("project_path", "project_id", "ref_path"), "github": ("repository", "repository_id", "ref")}
"""Kind of CI to the claims that name project, project's number and ref.
https://docs.gitlab.com/ci/secrets/id_token_authentication/ and
https://docs.github.com/actions/reference/security/oidc."""
_BRANCHES, _TAGS = "refs/heads/", "refs/tags/"


@dataclass(frozen=True, slots=True)
class Publisher:
    """A project whose CI may push."""

    id: int
    collection: str
    repository: str
    """Empty: every one of the collection."""
    issuer: str
    project: str
    ref: str
    """`main`, `refs/tags/v*`; empty: every branch and tag."""
    project_id: str
    """Number of the project, from its first push on: another project that takes the name later is refused."""
    added_by: str
    created: int


@dataclass(frozen=True, slots=True)
class Job:
    """What a CI job's token says of it."""

    issuer: str
    project: str
    project_id: str
    ref: str


class Wish(msgspec.Struct, frozen=True):
    """What a CI job asks for."""

    token: str
    repository: str


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""
    issuers = Issuers()

    async def exchange(request: Request) -> Response:
        body = await receive.whole(request.receive, LIMITS.token_answer_bytes)
        try:
            wish = msgspec.json.decode(body, type=Wish)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise UsageError(f"not a request for a push token: {error}") from None
        token, said = await to_thread(publish_token, hub, issuers, wish)
        audit.note(request.scope, said)
        answer = {"token": token, "expires_in": PUSH_SECONDS}
        return JSONResponse(answer, headers={"cache-control": "no-store"})

    return [Route("/auth/publish", exchange, methods=["POST"])]


def publish_token(hub: Hub, issuers: Issuers, wish: Wish) -> tuple[str, str]:
    """Return a token that may push to one repository for a quarter of an hour, and a line that says to whom.

    Raises:
        LoginError: the CI job's token is forged, foreign or expired.
        DeniedError: its project may not push there, or there is nothing: the same words for both.
        UsageError: the hub does not know its own address.
    """
    audience = hub.settings.audience or hub.base
    if not audience:
        raise UsageError("this hub knows no audience for tokens of CI", hint="set `audience` in hub.toml")
    ci = _issuer(hub, wish.token)
    claims = issuers.verify(wish.token, issuer=ci.issuer, audience=audience)
    job = _job(ci, claims)
    publisher = _bound(hub.database, job, wish.repository[:_TEXT])
    _pin(hub.database, publisher, job)
    name = f"{urlsplit(job.issuer).hostname}/{job.project}@{job.ref}"
    scope = Scope("push", publisher.repository or wish.repository)
    token = hub.auth.grant(name[-100:], [scope], seconds=PUSH_SECONDS, kind=CI, publisher=publisher.id)
    return token, f"push token for {scope.pattern} to {name}"


def _issuer(hub: Hub, token: str) -> Issuer:
    """Return the CI service that the token claims to be of; only its own keys will decide whether it is."""
    try:
        claims = msgspec.json.decode(jws.extract_compact(token[: LIMITS.token_answer_bytes].encode()).payload)
        said = claims.get("iss") if isinstance(claims, dict) else None
    except (JoseError, msgspec.DecodeError, ValueError):
        raise LoginError(
            "that is no OIDC token", hint="give the CI job an ID token; see docs/how-to/accounts.md"
        ) from None
    for one in hub.settings.ci:
        if one.issuer == said:
            return one
    raise LoginError(f"this hub does not trust the CI service {str(said)[:_TEXT]!r}", hint="its operator may add it")


def _job(ci: Issuer, claims: Mapping[str, Any]) -> Job:
    names = _PROJECTS[ci.kind]
    project, number, ref = (str(claims.get(name) or "")[:_TEXT] for name in names)
    if not (project and number and ref):
        raise LoginError(f"the token of the CI job does not say {', '.join(names)}")
    if not ref.startswith((_BRANCHES, _TAGS)) or claims.get("event_name") == "pull_request_target":
        raise DeniedError("a job for a merge or pull request may not publish", hint="publish from a branch or a tag")
    return Job(ci.issuer, project, number, ref)


def _bound(database: Database, job: Job, repository: str) -> Publisher:
    collection = repository.rpartition("/")[0]
    for one in list_publishers(database, collection):
        same = (one.issuer, one.project.casefold()) == (job.issuer, job.project.casefold())
        here = one.repository in {"", repository} and roles.NAME.fullmatch(repository)
        if same and here and _matches(one.ref, job.ref) and one.project_id in {"", job.project_id}:
            return one
    raise DeniedError(
        f"{job.project} at {job.ref} may not publish to {repository}",
        hint="a maintainer of the collection binds it: computeops hub publisher add, or the collection's page",
    )


def _matches(wanted: str, ref: str) -> bool:
    full = wanted if wanted.startswith("refs/") or not wanted else _BRANCHES + wanted
    return ref.startswith(full[:-1]) if full.endswith("*") else full in {"", ref}


def _pin(database: Database, publisher: Publisher, job: Job) -> None:
    if not publisher.project_id:
        with database.write() as connection:
            here = (publishers.c.id == publisher.id) & (publishers.c.project_id == "")
            connection.execute(sa.update(publishers).where(here).values(project_id=job.project_id))


# what maintainers bind


def list_publishers(database: Database, collection: str) -> list[Publisher]:
    """Return what may publish in a collection."""
    query = sa.select(publishers).where(publishers.c.collection == collection).order_by(publishers.c.id)
    with database.read() as connection:
        return [Publisher(**row._mapping) for row in connection.execute(query)]  # noqa: SLF001  its public name


def add(hub: Hub, collection: str, *, issuer: str, project: str, ref: str, repository: str, added_by: str) -> Publisher:
    """Let the CI of `project` push to the collection, or to one repository of it.

    Raises:
        UsageError: the hub does not know this CI service, or a value is no name.
        NotFoundError: there is no such collection.
        ConflictError: there is the same already, or too many.
    """
    known = [one.issuer for one in hub.settings.ci]
    if issuer not in known:
        hint = f"there are: {', '.join(known)}"
        raise UsageError(f"this hub does not trust the CI service {issuer[:_TEXT]!r}", hint=hint)
    for what, value in (("project", project), ("ref", ref)):
        if len(value) > _TEXT or not value.isascii() or not value.isprintable() or " " in value:
            raise UsageError(f"not a {what}: {value[:_TEXT]!r}")
    if "/" not in project.strip("/"):
        raise UsageError(f"not a project: {project[:_TEXT]!r}", hint="write it as group/project")
    if repository and repository.rpartition("/")[0] != collection:
        raise UsageError(f"{repository[:_TEXT]} is not in the collection {collection}")
    row = {"collection": collection, "repository": repository, "issuer": issuer, "project": project, "ref": ref}
    with hub.database.write() as connection:
        here = sa.select(collections.c.name).where(collections.c.name == collection)
        if connection.execute(here).first() is None:
            raise NotFoundError(f"no collection {collection}")
        same = sa.select(publishers.c.id).where(*(publishers.c[key] == value for key, value in row.items()))
        count = sa.select(sa.func.count()).where(publishers.c.collection == collection)
        if connection.execute(same).first() is not None or (connection.execute(count).scalar() or 0) >= _MOST:
            raise ConflictError(f"that is bound to {collection} already, or {_MOST} others are")
        more = {"project_id": "", "added_by": added_by, "created": int(time.time())}
        made = connection.execute(sa.insert(publishers).values(**row, **more)).inserted_primary_key
    assert made is not None
    return next(one for one in list_publishers(hub.database, collection) if one.id == made[0])


def remove(database: Database, collection: str, publisher: int) -> None:
    """Bind it no longer; what it got to push with ends at once.

    Raises:
        NotFoundError: the collection has no such publisher.
    """
    here = (publishers.c.id == publisher) & (publishers.c.collection == collection)
    with database.write() as connection:
        if connection.execute(sa.select(publishers.c.id).where(here)).first() is None:
            raise NotFoundError(f"{collection} has no publisher {publisher}")
        connection.execute(sa.delete(tokens).where(tokens.c.publisher == publisher))
        connection.execute(sa.delete(publishers).where(here))
