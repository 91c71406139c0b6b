"""What a worker asks of its hub: three questions, over `computeops.http`."""

from typing import TypeVar

import msgspec

from computeops.errors import NetworkError
from computeops.http import Session
from computeops.hub.pipelines.words import Pass, Reply, Report, Task, Worker
from computeops.limits import LIMITS
from computeops.store.credentials import base_url

_T = TypeVar("_T")
_SECONDS = 30.0


class Client:
    """One worker's connection to its hub; not for several threads at once."""

    def __init__(self, hub: str, token: str) -> None:
        self.base = base_url(hub)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._session = Session(seconds=_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def take(self, worker: Worker) -> Task | None:
        """Return the next pipeline, or None if there is none.

        Raises:
            LoginError, DeniedError: this worker may not; NetworkError: the hub does not answer.
        """
        return self._ask("take", worker, Task)

    def report(self, pipeline: int, said: Report) -> Reply:
        """Tell how far a pipeline is.

        Raises:
            ConflictError, NotFoundError: it is not ours any more; NetworkError: the hub does not answer.
        """
        return self._must(str(pipeline), said, Reply)

    def push_token(self, pipeline: int, lease: str) -> str:
        """Return a token to push what was made.

        Raises:
            ConflictError, NotFoundError: it is not ours any more; NetworkError: the hub does not answer.
        """
        return self._must(f"{pipeline}/pass", Report(lease=lease), Pass).token

    def _must(self, path: str, said: msgspec.Struct, kind: type[_T]) -> _T:
        found = self._ask(path, said, kind)
        if found is None:
            raise NetworkError(f"{self.base} did not answer as a hub does")
        return found

    def _ask(self, path: str, said: msgspec.Struct, kind: type[_T]) -> _T | None:
        url, body = f"{self.base}/api/v1/work/{path}", msgspec.json.encode(said)
        answer = self._session.request(
            "POST", url, headers=self._headers, body=body, limit_bytes=LIMITS.json_answer_bytes
        )
        answer.expect(200, 204)
        if answer.status == 204:
            return None
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.ValidationError, msgspec.DecodeError):
            raise NetworkError(f"{self.base} did not answer as a hub does") from None
