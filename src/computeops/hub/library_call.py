"""One request of a Library client: the JSON that it sends, what it may, and the envelope of the answer."""

import json
from typing import Any

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from computeops.errors import ComputeOpsError, DeniedError, LoginError, UsageError
from computeops.hub import receive
from computeops.hub.auth import Caller
from computeops.hub.state import Hub
from computeops.hub.tables import collections
from computeops.limits import LIMITS


def require(hub: Hub, request: Request, action: str, repository: str) -> None:
    """Refuse who may not `action` on `repository`.

    Raises:
        LoginError: nobody asks; DeniedError: somebody who may not.
    """
    caller = hub.caller(request.scope)
    if not hub.admit(caller, action, repository):
        raise refused(caller, repository)


def refused(caller: Caller, name: str) -> ComputeOpsError:
    """Return the error for `caller`, who may not push to `name`."""
    if not caller.name:
        return LoginError("a token is needed to push", hint="run `apptainer remote login`")
    return DeniedError(f"{caller.name} may not do this with {name}")


async def sent_json(request: Request) -> dict[str, Any]:
    """Return the object that was sent; these clients name no content type.

    Raises:
        UsageError: it is none; LimitError: it is too large.
    """
    try:
        sent = json.loads(await receive.whole(request.receive, LIMITS.manifest_bytes) or b"{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the request is no JSON: {error}") from error
    if not isinstance(sent, dict):
        raise UsageError("the request is no JSON object")
    return sent


def text_of(sent: dict[str, Any], key: str) -> str:
    """Return the text under `key`.

    Raises:
        UsageError: there is none.
    """
    value = sent.get(key)
    if not isinstance(value, str) or not value:
        raise UsageError(f"{key!r} is missing")
    return value


def completed(hub: Hub, repository: str) -> dict[str, Any]:
    """Return what a client is told when a file is there: where it is, and what its collection holds and may hold."""
    query = sa.select(collections.c.quota).where(collections.c.name == repository.rpartition("/")[0])
    with hub.database.read() as connection:
        total = connection.execute(query).scalar() or 0  # 0: as much as there is
    left = hub.database.room(repository)
    used = max(0, total - left) if left is not None else 0
    return {"quota": {"quotaTotal": total, "quotaUsage": used}, "containerUrl": repository}


def data(found: Any, status: int = 200) -> Response:
    """Return an answer in the envelope."""
    return JSONResponse({"data": found}, status)
