"""Schedulers that are asked by HTTP: where they are, and what their failures mean.

Their address is a word of the job, `--option=--host=URL` or the `options` of a site, so that another process finds it
days later.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from computeops.errors import NetworkError, SchedulerError, UsageError
from computeops.http import Answer, Session
from computeops.run.model import Job

SECONDS = 60.0
_PAUSE = 0.2
_HOST = "--host="


def host(job: Job, default: str = "") -> str:
    """Return the address that `job` names, without a slash at its end.

    Raises:
        UsageError: there is none, it is no address, or there are other words that nobody would understand.
    """
    named = [word.removeprefix(_HOST) for word in job.options if word.startswith(_HOST)]
    if others := [word for word in job.options if not word.startswith(_HOST)]:
        raise UsageError(
            f"--option {others[0]!r}: this scheduler is asked by HTTP", hint="it knows --option=--host=URL"
        )
    address = named[-1] if named else default
    if not address:
        raise UsageError("where is the scheduler?", hint="--option=--host=http://HOST:PORT, or options of a site")
    address = f"http://{address.removeprefix('tcp://')}" if address.startswith("tcp://") else address
    if urlsplit(address).scheme not in {"http", "https", "unix"}:
        raise UsageError(f"not an address: {address!r}", hint="tcp://, http://, https:// or unix:///PATH")
    return address.rstrip("/")


def ask(method: str, address: str, path: str, body: Any = None, *, fine: Sequence[int] = (200, 201, 204)) -> Answer:
    """Return the answer of the scheduler at `address`.

    Raises:
        SchedulerError: it does not answer, or refuses.
    """
    socket = urlsplit(address).path if address.startswith("unix://") else ""
    if socket and not Path(socket).is_socket():
        raise SchedulerError(f"there is no daemon at {socket}", hint="name another with --option=--host=URL")
    data = None if body is None else json.dumps(body).encode()
    url = f"{'http://localhost' if socket else address}{path}"
    try:
        with Session(seconds=SECONDS, pause=_PAUSE, socket=socket) as session:
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
