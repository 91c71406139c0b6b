"""Webhooks in: a push or a tag in GitLab or GitHub starts a pipeline of the one repository that it is bound to.

GitHub signs the body (`X-Hub-Signature-256`,
https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries); GitLab sends the secret itself
(`X-Gitlab-Token`), or, where it was given as a signing token, signs as https://www.standardwebhooks.com does
(https://docs.gitlab.com/user/project/integrations/webhooks/). What an event says of addresses is not believed: only its
commit and its ref are used, and the commit is fetched from the address that a maintainer bound. An event counts once.
"""

import base64
import binascii
import fnmatch
import hashlib
import hmac
import re
import secrets
import time
from asyncio import to_thread
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from computeops.errors import ConflictError, DeniedError, NotFoundError, UsageError
from computeops.hub import audit, names, receive
from computeops.hub.db import Database, upsert
from computeops.hub.pipelines import start
from computeops.hub.pipelines.tables import hooks, hooks_heard
from computeops.hub.pipelines.words import Source
from computeops.hub.state import Hub

KINDS = ("gitlab", "github")
ANY_TAG = "refs/tags/*"
_BODY_BYTES = 25 * 1024 * 1024  # GitHub sends at most 25 MB
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REF = re.compile(r"refs/(heads|tags)/[A-Za-z0-9._/*+-]{1,200}")
_CLOCK_SECONDS = 300
_MOST = 50
_PREFIX = "whsec_"
_EVENTS = {"github": {"push"}, "gitlab": {"Push Hook", "Tag Push Hook"}}


@dataclass(frozen=True, slots=True)
class Hook:
    """A new hook with its secret, which is shown once."""

    id: int
    secret: str


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""

    async def heard(request: Request) -> Response:
        body = await receive.whole(request.receive, _BODY_BYTES)
        said = await to_thread(hear, hub, request.path_params["hook"], request.headers, body)
        audit.note(request.scope, str(said))
        return JSONResponse(said, 202 if "pipeline" in said else 200, headers={"cache-control": "no-store"})

    return [Route("/hooks/{hook}", heard, methods=["POST"])]


def hear(hub: Hub, number: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Take an event in; return the pipeline that it started, or why it started none.

    Raises:
        DeniedError: it is forged, too old, or there is no such hook: the same words for all.
        UsageError, ConflictError: what it asks for cannot be built.
    """
    row = _row(hub.database, number)
    secret = row.secret if row is not None else secrets.token_urlsafe(32)  # a stranger learns nothing by the time
    if not _is_genuine(secret, headers, body) or row is None:
        raise DeniedError("this event is not signed with the secret of this hook")
    if headers.get("x-github-event", headers.get("x-gitlab-event", "")) not in _EVENTS[row.kind]:
        return {"ignored": "not a push"}
    ref, commit = _pushed(body)
    if not commit:
        return {"ignored": "nothing was pushed"}
    if not fnmatch.fnmatchcase(ref, row.ref):
        return {"ignored": f"{ref[:200]} is not {row.ref}"}
    # by what it says and not by the headers, which are not signed: an old body is heard once, whatever is around it
    event = hashlib.sha256(body).hexdigest()
    if _was_heard(hub.database, row.id, event):
        return {"ignored": "this came before"}
    source = Source(git=row.git, commit=commit, folder=row.folder)
    made = start.start(hub, row.repository, source, asked_by=f"{row.kind} {ref}"[:200])
    _remember(hub.database, row.id, event)
    return {"pipeline": made.id, "state": made.state}


def _row(database: Database, number: str) -> sa.Row[Any] | None:
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        return None
    with database.read() as connection:
        return connection.execute(sa.select(hooks).where(hooks.c.id == int(number))).first()


def _is_genuine(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether the sender knows the secret; compared in constant time."""
    if signed := headers.get("x-hub-signature-256"):
        made = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(made.encode(), signed.encode())
    if signed := headers.get("webhook-signature"):
        return _is_signed(secret, headers, body, signed)
    return hmac.compare_digest(secret.encode(), headers.get("x-gitlab-token", "").encode())


def _is_signed(secret: str, headers: Mapping[str, str], body: bytes, signed: str) -> bool:
    """Check a signature as https://www.standardwebhooks.com has it, which is too old after five minutes."""
    identity, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not (at.isascii() and at.isdigit() and len(at) < 12) or abs(time.time() - int(at)) > _CLOCK_SECONDS:
        return False
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX))
    except binascii.Error:
        return False
    made = hmac.new(key, f"{identity}.{at}.".encode() + body, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(made).decode()}".encode()
    return any(hmac.compare_digest(expected, one.encode()) for one in signed.split(" ")[:10])


def _pushed(body: bytes) -> tuple[str, str]:
    """Return ref and commit of a push; no commit where a branch or tag was deleted.

    Raises:
        UsageError: it says neither.
    """
    try:
        found = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        raise UsageError("the event is no JSON object", hint="choose the content type application/json") from None
    head = found.get("head_commit")
    # of an annotated tag `after` names the tag; GitLab has the commit in checkout_sha, GitHub in head_commit
    commit = found.get("checkout_sha") or (head.get("id") if isinstance(head, dict) else None)
    ref = found.get("ref")
    if not isinstance(ref, str) or not (commit is None or isinstance(commit, str)):
        raise UsageError("the event does not say what was pushed")
    if commit is not None and not _COMMIT.fullmatch(commit):
        raise UsageError(f"not a commit: {commit[:80]!r}")
    return ref, commit or ""


def _was_heard(database: Database, hook: int, event: str) -> bool:
    query = sa.select(hooks_heard.c.at).where(hooks_heard.c.hook == hook, hooks_heard.c.event == event)
    with database.read() as connection:
        return connection.execute(query).first() is not None


def _remember(database: Database, hook: int, event: str) -> None:
    """Let an event count no second time; who sends it twice at once gets the same pipeline twice."""
    with database.write() as connection:
        upsert(connection, hooks_heard, {"hook": hook, "event": event, "at": int(time.time())}, keep=True)


# what maintainers bind


def add(
    hub: Hub, collection: str, repository: str, kind: str, git: str, ref: str, folder: str, *, added_by: str
) -> Hook:
    """Let pushes to `git` start pipelines of `repository` in `collection`; return the new hook with its secret.

    Raises:
        UsageError: something is no name or address, of another collection, or not allowed.
        ConflictError: the collection has too many.
    """
    names.require(repository)
    if repository.rpartition("/")[0] != collection:
        raise UsageError(f"{repository[:200]} is not in the collection {collection}")
    if kind not in KINDS:
        raise UsageError(f"not a kind of hook: {kind[:40]!r}", hint=f"there are: {', '.join(KINDS)}")
    if not _REF.fullmatch(ref):
        raise UsageError(f"not a ref: {ref[:80]!r}", hint="write refs/heads/main or refs/tags/v*")
    start.check_git(hub, Source(git=git, commit="0" * 40, folder=folder.strip("/")))
    secret = _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    row = {"collection": collection, "repository": repository, "kind": kind, "git": git, "folder": folder.strip("/")}
    row |= {"ref": ref, "secret": secret, "added_by": added_by}
    with hub.database.write() as connection:
        count = sa.select(sa.func.count()).select_from(hooks).where(hooks.c.collection == collection)
        if (connection.execute(count).scalar() or 0) >= _MOST:
            raise ConflictError(f"{collection} has {_MOST} hooks already")
        made = connection.execute(sa.insert(hooks).values(**row, created=int(time.time()))).inserted_primary_key
    assert made is not None
    return Hook(int(made[0]), secret)


def entries(database: Database, collection: str) -> list[dict[str, Any]]:
    """Return the hooks of a collection, without their secrets."""
    columns = [one for one in hooks.c if one.name not in {"secret", "collection"}]
    query = sa.select(*columns).where(hooks.c.collection == collection).order_by(hooks.c.id)
    with database.read() as connection:
        return [dict(row._mapping) for row in connection.execute(query)]  # noqa: SLF001  its public name


def remove(database: Database, collection: str, number: int) -> None:
    """Start nothing for this hook any more.

    Raises:
        NotFoundError: the collection has no such hook.
    """
    here = (hooks.c.id == number) & (hooks.c.collection == collection)
    with database.write() as connection:
        if not connection.execute(sa.delete(hooks).where(here)).rowcount:
            raise NotFoundError(f"{collection} has no hook {number}")
