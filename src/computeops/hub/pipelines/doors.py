"""The JSON API of pipelines for people and their programs: start, look, cancel, retry; workers, hooks and rules."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct
from starlette.routing import Route

from computeops.errors import DeniedError, NotFoundError
from computeops.hub import manage, roles
from computeops.hub.manage import Asked, Operation
from computeops.hub.pipelines import hooks, rules, start, view
from computeops.hub.pipelines.words import Source
from computeops.hub.state import Hub

_MOST = 200


class NewPipeline(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pipeline that is wanted: of an archive that was pushed to the repository, or of a commit."""

    repository: str
    """What is to be published: `collection/name`."""
    archive: str = ""
    """Digest of a tar file of the recipe's folder, which the repository has as a blob."""
    git: str = ""
    """Address of a git repository."""
    commit: str = ""
    """The 40 hex digits of its commit."""
    folder: str = ""
    """Of the recipe, inside the archive or the commit."""


class NewRebuild(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A release that shall be rebuilt and compared."""

    repository: str
    digest: str
    """Of its manifest."""


class StartedPipeline(Struct, frozen=True, kw_only=True):
    """A pipeline that was started, or is there already."""

    id: int
    state: str


class Rebuilds(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many different workers must have rebuilt a release before it is published."""

    rebuilds: Annotated[int, Meta(ge=0, le=rules.MOST)]


class NewHook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A repository elsewhere whose pushes shall start pipelines."""

    repository: str
    """What is to be published: `collection/name`."""
    kind: str
    """`gitlab` or `github`."""
    git: str
    """Its address, as it is cloned without a password."""
    ref: str = hooks.ANY_TAG
    """Which branch or tags: `refs/heads/main`, `refs/tags/v*`."""
    folder: str = ""
    """Of the recipe, inside it."""


class HookEntry(NewHook, frozen=True, kw_only=True):
    """A repository elsewhere whose pushes start pipelines."""

    id: int
    added_by: str
    created: int


class GivenHook(Struct, frozen=True, kw_only=True):
    """Where to send events to, and the secret that signs them, which is shown this once."""

    url: str
    secret: str


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""
    return manage.routes(hub, OPERATIONS)


def _list(asked: Asked) -> list[view.PipelineEntry]:
    return view.entries(
        asked.hub.database,
        asked.caller,
        repository=asked.query.get("repository", ""),
        state=asked.query.get("state", ""),
        before=asked.number("before", "0"),
        limit=min(max(asked.number("limit", "50"), 1), _MOST),
    )


def _start_pipeline(asked: Asked) -> StartedPipeline:
    body = asked.body
    require_push(asked, body.repository)
    source = Source(archive=body.archive, git=body.git, commit=body.commit, folder=body.folder.strip("/"))
    made = start.start(asked.hub, body.repository, source, asked_by=asked.caller.name)
    return StartedPipeline(id=made.id, state=made.state)


def _rebuild_release(asked: Asked) -> StartedPipeline:
    require_push(asked, asked.body.repository)
    made = start.rebuild(asked.hub, asked.body.repository, asked.body.digest, asked_by=asked.caller.name)
    return StartedPipeline(id=made.id, state=made.state)


def require_push(asked: Asked, repository: str) -> None:
    """Let those go on who may push to the repository.

    Raises:
        DeniedError: they may not.
    """
    if not asked.hub.admit(asked.caller, "push", repository):
        raise DeniedError(f"{asked.caller.name} may not publish {repository[:200]}", hint="ask its maintainers")


def _pipeline(asked: Asked) -> view.Pipeline:
    return view.show(asked.hub, asked.caller, asked.number("pipeline"))


def _pipeline_log(asked: Asked) -> view.Log:
    return view.log(asked.hub, asked.caller, asked.number("pipeline"), asked.number("at", "0"))


def _cancel_pipeline(asked: Asked) -> StartedPipeline:
    made = start.cancel(asked.hub, _mine(asked))
    return StartedPipeline(id=made.id, state=made.state)


def _retry_pipeline(asked: Asked) -> StartedPipeline:
    made = start.retry(asked.hub, _mine(asked))
    return StartedPipeline(id=made.id, state=made.state)


def _mine(asked: Asked) -> int:
    found = _pipeline(asked)
    require_push(asked, found.repository)
    return found.id


def _workers(asked: Asked) -> list[view.WorkerEntry]:
    return view.worker_entries(asked.hub.database)


def _hooks(asked: Asked) -> list[HookEntry]:
    return [HookEntry(**one) for one in hooks.entries(asked.hub.database, asked.collection)]


def _add_hook(asked: Asked) -> GivenHook:
    body = asked.body
    given = (body.repository, body.kind, body.git, body.ref, body.folder)
    made = hooks.add(asked.hub, asked.collection, *given, added_by=asked.caller.name)
    return GivenHook(url=f"{asked.hub.base}/hooks/{made.id}", secret=made.secret)


def _remove_hook(asked: Asked) -> None:
    hooks.remove(asked.hub.database, asked.collection, asked.number("hook"))


def _rebuilds(asked: Asked) -> Rebuilds:
    return Rebuilds(rebuilds=rules.rebuilds(asked.hub.database, asked.collection))


def _set_rebuilds(asked: Asked) -> None:
    if not roles.exists(asked.hub.database, asked.collection):
        raise NotFoundError(f"no collection {asked.collection}")
    rules.set_rebuilds(asked.hub.database, asked.collection, asked.body.rebuilds)


_P = "/api/v1/pipelines"
_C = "/api/v1/collections/{collection:path}"
OPERATIONS: Sequence[Operation] = (
    Operation("GET", _P, "caller", "Pipelines, newest first.", _list, list[view.PipelineEntry]),
    Operation("POST", _P, "", "Start a pipeline.", _start_pipeline, StartedPipeline, NewPipeline),
    Operation("POST", "/api/v1/rebuilds", "", "Rebuild a release.", _rebuild_release, StartedPipeline, NewRebuild),
    Operation("GET", f"{_P}/{{pipeline}}", "caller", "One pipeline with its steps.", _pipeline, view.Pipeline),
    Operation("GET", f"{_P}/{{pipeline}}/log", "caller", "Its log, as far as it is.", _pipeline_log, view.Log),
    Operation("POST", f"{_P}/{{pipeline}}/cancel", "", "Let it end.", _cancel_pipeline, StartedPipeline),
    Operation("POST", f"{_P}/{{pipeline}}/retry", "", "Let it go on.", _retry_pipeline, StartedPipeline),
    Operation("GET", "/api/v1/workers", "administrator", "Workers of the hub.", _workers, list[view.WorkerEntry]),
    Operation("GET", f"{_C}/hooks", "maintainer", "Pushes that start pipelines.", _hooks, list[HookEntry]),
    Operation("POST", f"{_C}/hooks", "maintainer", "Let pushes start pipelines.", _add_hook, GivenHook, NewHook),
    Operation("DELETE", f"{_C}/hooks/{{hook}}", "maintainer", "Start none for it any more.", _remove_hook),
    Operation("GET", f"{_C}/rebuilds", "reader", "Rebuilds before publication.", _rebuilds, Rebuilds),
    Operation("PUT", f"{_C}/rebuilds", "owner", "Ask for rebuilds first.", _set_rebuilds, None, Rebuilds),
)


def paths(components: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the OpenAPI paths of this door, and add their schemas to `components`."""
    return manage.paths(components, OPERATIONS)
