"""One file from the web, whole and with the digest that it must have; a download that breaks goes on where it stopped.

RFC 9110 section 14: `Range` with `If-Range`, so that halves of two files are never put together.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from computeops.errors import FormatError, NetworkError, UsageError
from computeops.files import whole_file
from computeops.http import ATTEMPTS, CHUNK, Answer, Headers, Session, Stream, too_large
from computeops.http.addresses import shown
from computeops.model import Digest

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the bytes in all, where known."""
Login = Callable[[Answer], Headers]
"""Called with an answer 401; returns the headers to ask with again."""


def download(
    url: str,
    into: Path,
    *,
    sha256: str | None = None,
    digest: Digest | None = None,
    limit_bytes: int,
    headers: Headers | None = None,
    login: Login | None = None,
    progress: Progress | None = None,
    session: Session | None = None,
    files: bool = False,
) -> Digest:
    """Fetch `url` to the file `into`, which appears whole or not at all, and return its digest.

    `sha256` in hex or `digest` is what its content must have. `file:` addresses are refused unless `files`.

    Raises:
        FormatError: the content has another digest.
        LimitError: it is larger than `limit_bytes`.
        ComputeOpsError: as `Answer.expect`; NetworkError when the connection breaks again and again.
    """
    expected = Digest("sha256", sha256.lower()) if sha256 is not None else digest
    into.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(into) as file:
        if urlsplit(url).scheme == "file":
            found = _copy(url, file, limit_bytes, allowed=files)
        else:
            own = session or Session()
            try:
                found = _Download(
                    own,
                    url,
                    file=file,
                    expected=expected,
                    limit=limit_bytes,
                    headers=dict(headers or {}),
                    login=login,
                    progress=progress,
                ).run()
            finally:
                if session is None:
                    own.close()
        if expected is not None and found != expected:
            raise FormatError(
                f"{shown(url)} has {found.algorithm} {found.hex}, expected {expected.hex}",
                hint="the file changed or was tampered with; nothing was kept",
            )
    return found


class _Download:
    """One file on its way: how much is there, and its hash so far."""

    def __init__(
        self,
        session: Session,
        url: str,
        *,
        file: IO[bytes],
        expected: Digest | None,
        limit: int,
        headers: dict[str, str],
        login: Login | None,
        progress: Progress | None,
    ) -> None:
        self._session, self._url, self._file, self._limit = session, url, file, limit
        self._headers, self._login, self._progress = headers, login, progress
        self._algorithm = expected.algorithm if expected else "sha256"
        self._trusted = expected is not None  # the digest at the end decides, whatever was pieced together
        self._validator = ""
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._size, self._hash = 0, hashlib.new(self._algorithm)

    def run(self) -> Digest:
        attempt, farthest = 1, 0
        while True:
            try:
                self._part()
                return Digest(self._algorithm, self._hash.hexdigest())
            except NetworkError:
                # a link that breaks often is good enough while it brings more; one that does not is given up soon
                if self._size >= farthest + CHUNK:
                    attempt, farthest = 1, self._size
                if attempt == ATTEMPTS:
                    raise
                self._session.wait(attempt)
                attempt += 1

    def _part(self) -> None:
        with self._session.stream("GET", self._url, headers=self._asked()) as stream:
            answer = stream.answer
            if answer.status != 401 or self._login is None:
                self._take(stream)
                return
        self._headers |= self._login(answer)
        with self._session.stream("GET", self._url, headers=self._asked()) as stream:
            self._take(stream)

    def _asked(self) -> dict[str, str]:
        """Return the headers that ask for the rest."""
        if not self._size or not (self._validator or self._trusted):
            return self._headers
        condition = {"If-Range": self._validator} if self._validator else {}
        return self._headers | {"Range": f"bytes={self._size}-"} | condition

    def _take(self, stream: Stream) -> None:
        answer = stream.answer
        if answer.status == 416:  # all was there already, or the file has changed: begin again
            self._restart()
        if answer.status not in {200, 206}:
            stream.expect(200)
        resumed = answer.headers.get("content-range", "").startswith(f"bytes {self._size}-")
        if answer.status != 206 or not resumed:
            self._restart()
        if answer.status == 206 and not resumed:
            raise NetworkError(f"{shown(answer.url)} sent another range than asked for")
        etag = answer.headers.get("etag", "")
        self._validator = etag if etag and not etag.startswith("W/") else answer.headers.get("last-modified", "")
        self._receive(stream)

    def _receive(self, stream: Stream) -> None:
        length = stream.answer.length
        total = None if length is None else self._size + length
        if total is not None and total > self._limit:
            raise too_large(stream.answer.url, self._limit)
        for chunk in stream.chunks:
            self._size += len(chunk)
            if self._size > self._limit:
                raise too_large(stream.answer.url, self._limit)
            self._hash.update(chunk)
            self._file.write(chunk)
            if self._progress is not None:
                self._progress(self._size, total)
        if total is not None and self._size != total:
            raise NetworkError(f"{shown(stream.answer.url)} ended after {self._size} of {total} bytes")


def _copy(url: str, file: IO[bytes], limit: int, *, allowed: bool) -> Digest:
    if not allowed:
        raise UsageError(f"a file address is not allowed here: {url}")
    digest, size = hashlib.sha256(), 0
    with Path(unquote(urlsplit(url).path)).open("rb") as source:
        while chunk := source.read(CHUNK):
            size += len(chunk)
            if size > limit:
                raise too_large(url, limit)
            digest.update(chunk)
            file.write(chunk)
    return Digest("sha256", digest.hexdigest())
