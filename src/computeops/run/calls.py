"""Schedulers that are asked by HTTP: where they are, and what their failures mean.

Their address is a word of the job, `--option=--host=URL` or the `options` of a site, so that another process finds it
days later; so is the folder with the certificates, `--option=--tls=FOLDER`, as the clients of Docker keep them.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from computeops.errors import NetworkError, SchedulerError, UsageError
from computeops.http import Answer, Session
from computeops.run.model import Job

SECONDS = 60.0
_PAUSE = 0.2
_HOST, _TLS = "--host=", "--tls="


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scheduler is, and how it is asked."""

    address: str
    """Without a slash at its end."""
    identity: str = ""
    """Folder with our certificate and the one that the scheduler's must be signed by."""


def place(job: Job, default: str = "") -> Place:
    """Return where `job` says that its scheduler is.

    Raises:
        UsageError: nowhere, what it says is no address, or there are other words that nobody would understand.
    """
    said = {kind: [word.removeprefix(kind) for word in job.options if word.startswith(kind)] for kind in (_HOST, _TLS)}
    if others := [word for word in job.options if not word.startswith((_HOST, _TLS))]:
        raise UsageError(
            f"--option {others[0]!r}: this scheduler is asked by HTTP",
            hint="it knows --option=--host=URL and --option=--tls=FOLDER",
        )
    address, identity = (said[_HOST] or [default])[-1], "".join(said[_TLS][-1:])
    if not address:
        raise UsageError("where is the scheduler?", hint="--option=--host=http://HOST:PORT, or options of a site")
    if address.startswith("tcp://"):
        address = f"{'https' if identity else 'http'}://{address.removeprefix('tcp://')}"
    if urlsplit(address).scheme not in {"http", "https", "unix"}:
        raise UsageError(f"not an address: {address!r}", hint="tcp://, http://, https:// or unix:///PATH")
    return Place(address.rstrip("/"), identity)


def ask(method: str, there: Place, path: str, body: Any = None, *, fine: Sequence[int] = (200, 201, 204)) -> Answer:
    """Return the answer of the scheduler that is `there`.

    Raises:
        SchedulerError: it does not answer, or refuses.
    """
    socket = urlsplit(there.address).path if there.address.startswith("unix://") else ""
    if socket and not Path(socket).is_socket():
        raise SchedulerError(f"there is no daemon at {socket}", hint="name another with --option=--host=URL")
    data = None if body is None else json.dumps(body).encode()
    url = f"{'http://localhost' if socket else there.address}{path}"
    identity = Path(there.identity) if there.identity else None
    try:
        with Session(seconds=SECONDS, pause=_PAUSE, socket=socket, identity=identity) as session:
            answer = session.request(method, url, headers={"Content-Type": "application/json"}, body=data)
    except NetworkError as error:
        raise SchedulerError(error.message, hint=error.hint) from error
    if answer.status not in fine:
        said = answer.body[:300].decode(errors="replace").strip()
        raise SchedulerError(f"{method} {path.partition('?')[0]}: {answer.status} {said}")
    return answer


def rows(answer: Answer) -> list[dict[str, Any]]:
    """Return the objects of a JSON list.

    Raises:
        SchedulerError: it is something else.
    """
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        raise SchedulerError(f"it answered with something else than JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise SchedulerError("it answered with something else than a list of objects")
    return found
