"""The JSON API of deposits: keep a source, see what it says of itself and what is asked, make it a release."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from starlette.routing import Route

from computeops.hub import manage
from computeops.hub.deposits import keep
from computeops.hub.deposits.apart import Asked as Wanted
from computeops.hub.manage import Asked, Operation
from computeops.hub.pipelines.doors import StartedPipeline, require_push
from computeops.hub.state import Hub

_MOST = 200


class NewDeposit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source that shall be kept: an archive that was pushed to the repository, or a tag or commit."""

    repository: str
    """What it shall become: `collection/name`."""
    archive: str = ""
    """Digest of a tar or zip file, which the repository has as a blob."""
    name: str = ""
    """Name or address of that file: `samtools-1.21.tar.gz`."""
    git: str = ""
    """Address of a git repository."""
    ref: str = ""
    """A tag of it, or the 40 hex digits of a commit."""


class Answers(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What its author says; where nothing is said, the source's own word holds."""

    answers: dict[str, str] = {}


def routes(hub: Hub) -> list[Route]:
    """Return the routes of this door."""
    return manage.routes(hub, OPERATIONS)


def _deposit_source(asked: Asked) -> keep.Deposit:
    body = asked.body
    require_push(asked, body.repository)
    wanted = Wanted(git=body.git, ref=body.ref, name=body.name)
    return keep.deposit(asked.hub, body.repository, wanted, archive=body.archive, asked_by=asked.caller.name)


def _deposits(asked: Asked) -> list[keep.Deposit]:
    return keep.entries(
        asked.hub,
        asked.caller,
        repository=asked.query.get("repository", ""),
        before=asked.number("before", "0"),
        limit=min(max(asked.number("limit", "50"), 1), _MOST),
    )


def _deposit(asked: Asked) -> keep.Deposit:
    return keep.show(asked.hub, asked.caller, asked.number("deposit"))


def _release_deposit(asked: Asked) -> StartedPipeline:
    kept = _deposit(asked)
    require_push(asked, kept.repository)
    made = keep.release(asked.hub, kept, asked.body.answers, asked_by=asked.caller.name)
    return StartedPipeline(id=made.id, state=made.state)


_D = "/api/v1/deposits"
OPERATIONS: Sequence[Operation] = (
    Operation("GET", _D, "caller", "Sources that are kept, newest first.", _deposits, list[keep.Deposit]),
    Operation("POST", _D, "", "Keep a source.", _deposit_source, keep.Deposit, NewDeposit),
    Operation("GET", f"{_D}/{{deposit}}", "caller", "One source, and what is asked of it.", _deposit, keep.Deposit),
    Operation("POST", f"{_D}/{{deposit}}", "", "Make it a release.", _release_deposit, StartedPipeline, Answers),
)


def paths(components: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the OpenAPI paths of this door, and add their schemas to `components`."""
    return manage.paths(components, OPERATIONS)
