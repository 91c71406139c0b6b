"""A blob on its way into a registry: streamed from disk, hashed on the way, continued where a connection broke.

distribution-spec 1.1, "Pushing blobs": a small blob goes with one PUT; a large one is streamed by PATCH, so that what
arrived before a break stays, and closed by PUT.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode, urlsplit

from computeops.errors import FormatError, NetworkError
from computeops.http import CHUNK, Answer
from computeops.http.addresses import leads_to, shown
from computeops.model import Digest
from computeops.store.oci import Registry

_ONE_PUT = 4 * 1024 * 1024
_ATTEMPTS = 4
_GONE = frozenset({400, 401, 404})  # the upload cannot be continued: it is begun again
_ASK_AGAIN = frozenset({409, 416})  # it has other bytes than we think, or the broken request still holds it

Sent = Callable[[int], None]
"""Called with the number of bytes that were just sent."""


def push_blob(
    registry: Registry,
    repository: str,
    digest: Digest,
    source: Path | bytes,
    *,
    sent: Sent = lambda _: None,
) -> bool:
    """Store a blob, unless the registry has it; return whether it was sent.

    Raises:
        FormatError: `source` does not have the digest: it is not stored.
        LoginError, DeniedError: we may not push there; NetworkError: the connection breaks again and again.
    """
    if registry.exists(repository, digest, push=True):
        return False
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        _Upload(registry, repository, digest, file, size, sent).run()
    return True


class _Upload:
    """One blob: where its upload is, and how much of it has been hashed."""

    def __init__(
        self, registry: Registry, repository: str, digest: Digest, file: BinaryIO, size: int, sent: Sent
    ) -> None:
        self._registry, self._repository, self._digest = registry, repository, digest
        self._file, self._size, self._sent = file, size, sent
        self._location, self._there = "", 0
        self._hash, self._hashed = hashlib.new(digest.algorithm), 0

    def run(self) -> None:
        attempt, farthest = 1, 0
        while True:
            try:
                self._attempt()
            except NetworkError:
                if self._there >= farthest + CHUNK:  # as `http.download`: a link that brings more is good enough
                    attempt, farthest = 1, self._there
                if attempt == _ATTEMPTS:
                    raise
                self._registry.session.wait(attempt)
                attempt += 1
                if self._registry.exists(self._repository, self._digest, push=True):  # only the answer was lost
                    return
            else:
                return

    def _attempt(self) -> None:
        self._there = offset = self._resume() if self._location else 0
        if not self._location:
            self._begin()
        if self._size <= _ONE_PUT:
            self._close(0)
            return
        if offset < self._size:
            self._stream(offset)
        self._close(self._size)

    def _begin(self) -> None:
        answer = self._ask("POST", self._registry.uploads(self._repository), 202, {"Content-Length": "0"})
        self._move(answer)

    def _resume(self) -> int:
        """Return how many bytes are there already; 0 and no location if the upload has to begin again."""
        location, self._location = self._location, ""
        if self._size <= _ONE_PUT:
            return 0
        answer = self._registry.ask("GET", location, self._repository, push=True)
        first, _, last = answer.headers.get("range", "").removeprefix("bytes=").partition("-")
        if answer.status not in {200, 204} or first != "0" or not last.isdigit() or len(last) > 18:
            return 0
        there = int(last) + 1 if int(last) else 0  # `0-0` is how "nothing" is written
        if there > min(self._hashed, self._size):
            return 0
        self._location = location
        self._move(answer)
        return there

    def _stream(self, offset: int) -> None:
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(self._size - offset)}
        if offset:
            headers["Content-Range"] = f"{offset}-{self._size - 1}"
        self._move(self._ask("PATCH", self._location, 202, headers, offset))

    def _close(self, offset: int) -> None:
        separator = "&" if urlsplit(self._location).query else "?"
        url = self._location + separator + urlencode({"digest": str(self._digest)})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(self._size - offset)}
        self._ask("PUT", url, 201, headers, offset)

    def _ask(self, method: str, url: str, expected: int, headers: dict[str, str], offset: int | None = None) -> Answer:
        """Send a request with the bytes from `offset` on; an upload that is gone is a NetworkError, to begin again."""
        body = None if offset is None or offset == self._size else self._bytes(offset)
        answer = self._registry.ask(
            method, url, self._repository, push=True, headers=headers, body=b"" if body is None else body
        )
        if answer.status == expected:
            return answer
        if method != "POST" and answer.status in _GONE | _ASK_AGAIN:
            self._location = "" if answer.status in _GONE else self._location
            raise NetworkError(f"{shown(url)} lost the upload: it answered {answer.status}")
        answer.expect(expected)
        raise AssertionError

    def _bytes(self, offset: int) -> Iterator[bytes]:
        """Give the bytes from `offset` on. The last of them only if the whole has its digest."""
        self._file.seek(offset)
        while offset < self._size:
            data = self._file.read(min(CHUNK, self._size - offset))
            offset += len(data)
            new = offset - self._hashed
            if new > 0:
                self._hash.update(data[-new:])
                self._hashed = offset
            if not data or (offset == self._size and self._hash.hexdigest() != self._digest.hex):
                raise FormatError(
                    f"the content to be sent is not {self._digest}", hint="the file was changed; build it again"
                )
            yield data
            self._sent(len(data))

    def _move(self, answer: Answer) -> None:
        """Go on where the registry says."""
        self._location = leads_to(answer.url, answer.headers.get("location", ""))
