"""The only HTTP client: bounded, verifying, and careful with credentials.

Every call names its limit in bytes. Redirects are followed here, one by one: credentials go only to the origin they
were meant for, and never from https to http. Connection errors of GET and HEAD are tried again; a download that breaks
goes on where it stopped (RFC 9110 section 14, `Range` with `If-Range`). httpx2 is imported by the first request.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urljoin, urlsplit

from computeops.errors import (
    ComputeOpsError,
    ConflictError,
    DeniedError,
    FormatError,
    LimitError,
    LoginError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from computeops.limits import LIMITS
from computeops.model import Digest

if TYPE_CHECKING:
    import httpx2

Headers = Mapping[str, str]
Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the bytes in all, where known."""
Login = Callable[["Answer"], Headers]
"""Called with an answer 401; returns the headers to ask with again."""

CHUNK = 1024 * 1024
_REDIRECTS = 10
_ATTEMPTS = 4
PAUSE = 0.5
"""Seconds before the second attempt; doubled before each further one."""
_MESSAGE_BYTES = 64 * 1024
_SAFE = frozenset({"GET", "HEAD"})
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
"""Statuses that may be gone a moment later; 500: docker-registry, while another writes the same tag."""
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})
Resolve = Callable[[str, int], str]
"""Called with host and port; returns the one address to connect to, empty for any, or raises an error."""
_resolve: Resolve | None = None

_ERRORS: dict[int, tuple[type[ComputeOpsError], str]] = {
    401: (LoginError, "log in with: computeops login HUB"),
    403: (DeniedError, "ask the owner of the collection for access"),
    404: (NotFoundError, "check the name; private things show only after: computeops login HUB"),
    409: (ConflictError, "a released version never changes; release a new version"),
    410: (NotFoundError, ""),
    413: (LimitError, ""),
}


@contextmanager
def only_to(resolve: Resolve) -> Iterator[None]:
    """Let all requests of this process, redirects too, connect to the addresses that `resolve` returns, meanwhile.

    For a process that does nothing else: also the sessions of its other threads are bound.
    A proxy is asked for the address.
    """
    global _resolve  # noqa: PLW0603  a context variable would not reach the threads that fetch
    before, _resolve = _resolve, resolve
    try:
        yield
    finally:
        _resolve = before


def pinned(url: str) -> str:
    """Return the one address that a program of others may connect to for `url`; empty: any.

    Raises:
        ComputeOpsError: as the function given to `only_to`.
    """
    _, host, port = origin(url)
    return _resolve(host, port) if _resolve is not None else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: its status, its headers (names in lower case) and, where it was read, its body."""

    status: int
    headers: Headers
    url: str
    """Where it came from, after redirects."""
    body: bytes = b""

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            NetworkError: it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise NetworkError(f"{shown(self.url)} did not answer with JSON") from None

    def expect(self, *statuses: int) -> Self:
        """Return self if the status is one of `statuses`.

        Raises:
            ComputeOpsError: by the status: LoginError, DeniedError, NotFoundError, ConflictError, LimitError, else
                NetworkError; with the server's own message.
        """
        if self.status in statuses:
            return self
        kind, hint = _ERRORS.get(self.status, (NetworkError, ""))
        said = _said(self.body)
        raise kind(f"{shown(self.url)} answered {self.status}" + (f": {said}" if said else ""), hint=hint)


@dataclass(frozen=True, slots=True)
class Stream:
    """A response whose body is still on its way; `chunks` may be consumed once."""

    answer: Answer
    chunks: Iterator[bytes]


class Session:
    """Connections that are kept and re-used; a context manager. Not for several threads at once."""

    def __init__(
        self,
        *,
        seconds: float = LIMITS.http_seconds,
        pause: float = PAUSE,
        hosts: frozenset[str] | None = None,
        socket: str = "",
    ) -> None:
        """`hosts`: the only ones (`host` or `host:port`) that requests and redirects may go to; None: any.

        `socket`: path of the Unix socket that every request goes to, whatever its address says.
        """
        self._seconds = seconds
        self._hosts = hosts
        self._socket = socket
        self._pause = pause
        self._client: httpx2.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def wait(self, attempt: int) -> None:
        """Wait as long as becomes the failure of this attempt, counted from 1."""
        time.sleep(self._pause * 2 ** (attempt - 1))

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Headers | None = None,
        body: bytes | Iterable[bytes] | None = None,
        limit_bytes: int = LIMITS.json_answer_bytes,
    ) -> Answer:
        """Send one request and return the whole answer, whatever its status.

        Raises:
            NetworkError: no answer, or more than 10 redirects.
            LimitError: the answer is larger than `limit_bytes`.
        """
        with self.stream(method, url, headers=headers, body=body) as stream:
            answer = stream.answer
            data = b"" if method == "HEAD" else _bounded(stream, limit_bytes)
            return Answer(answer.status, answer.headers, answer.url, data)

    @contextmanager
    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Headers | None = None,
        body: bytes | Iterable[bytes] | None = None,
    ) -> Iterator[Stream]:
        """Send one request and give the answer with its body unread.

        Raises:
            NetworkError: no answer, more than 10 redirects, or the connection breaks while the body is read.
        """
        response, there = self._follow(method, url, dict(headers or {}), body)
        try:
            names = {name.lower(): value for name, value in response.headers.items()}
            yield Stream(Answer(response.status_code, names, there), _chunks(response))
        finally:
            response.close()

    def _follow(self, method: str, url: str, headers: dict[str, str], body: Any) -> tuple["httpx2.Response", str]:
        """Return the answer after redirects, and the address by name that it came from."""
        for _ in range(_REDIRECTS):
            response = self._send(method, url, headers, body)
            target = response.headers.get("location")
            if response.status_code not in _REDIRECT_STATUSES or target is None or method not in _SAFE:
                return response, url
            response.close()
            there = leads_to(url, target)
            if origin(there) != origin(url):
                headers = {name: value for name, value in headers.items() if name.lower() not in _SECRET_HEADERS}
            url = there
        raise NetworkError(f"more than {_REDIRECTS} redirects, the last to {shown(url)}")

    def _send(self, method: str, url: str, headers: dict[str, str], body: Any) -> "httpx2.Response":
        """Send, again after connection errors and overload where the method is safe."""
        import httpx2

        if origin(url)[0] not in {"http", "https"}:
            raise UsageError(f"not an http or https address: {shown(url)}")
        if self._hosts is not None and urlsplit(url).netloc.lower() not in self._hosts:
            raise NetworkError(f"led to {shown(url)}, where this may not go")
        attempts = _ATTEMPTS if method in _SAFE else 1
        for attempt in range(1, attempts + 1):
            try:
                response = self._http().send(self._built(method, url, headers, body), stream=True)
            except (httpx2.TransportError, httpx2.InvalidURL, httpx2.StreamError) as error:
                if attempt == attempts or isinstance(error, (httpx2.UnsupportedProtocol, httpx2.InvalidURL)):
                    raise _unreachable(url, error) from error
            else:
                if response.status_code not in TRY_AGAIN or attempt == attempts:
                    return response
                response.close()
            self.wait(attempt)
        raise AssertionError

    def _built(self, method: str, url: str, headers: dict[str, str], body: Any) -> "httpx2.Request":
        """Return the request; where addresses are pinned, to that address, with the name in `Host` and for TLS."""
        import httpx2

        address = pinned(url)
        if not address:
            return self._http().build_request(method, url, headers=headers, content=body)
        there = httpx2.URL(url)
        # kept connections are found by address: one whose certificate was of another name there must not be taken
        sent = {**headers, "Host": there.netloc.decode("ascii"), "Connection": "close"}
        place, asked = there.copy_with(host=address), {"sni_hostname": there.host}
        return self._http().build_request(method, place, headers=sent, content=body, extensions=asked)

    def _http(self) -> "httpx2.Client":
        if self._client is None:
            import httpx2

            from computeops import __version__

            self._client = httpx2.Client(
                timeout=httpx2.Timeout(self._seconds, connect=min(self._seconds, 15.0)),
                # identity: digests are about bytes as they are stored, and a compressed answer could be a bomb
                headers={"User-Agent": f"computeops/{__version__}", "Accept-Encoding": "identity"},
                follow_redirects=False,
                transport=httpx2.HTTPTransport(uds=self._socket) if self._socket else None,
            )
        return self._client


async def post_to(url: str, address: str, body: bytes, headers: Headers) -> int:
    """Send `body` to `url` on the machine `address`, whatever its name leads to by now; return the answer's status.

    Certificates are checked against the name. No proxy, no redirect, no second attempt; nothing more is read.

    Raises:
        NetworkError: no answer.
    """
    import httpx2

    there = httpx2.URL(url)
    sent = {"User-Agent": "computeops", **headers, "Host": there.netloc.decode("ascii")}
    try:
        async with httpx2.AsyncClient(trust_env=False, follow_redirects=False) as client:
            asked = {"sni_hostname": there.host}
            place = there.copy_with(host=address)
            async with client.stream("POST", place, headers=sent, content=body, extensions=asked) as answer:
                return int(answer.status_code)
    except (httpx2.TransportError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise _unreachable(url, error) from error


def get_json(url: str, *, headers: Headers | None = None, limit_bytes: int = LIMITS.json_answer_bytes) -> Any:
    """Return the JSON document at `url`.

    Raises:
        ComputeOpsError: as `Answer.expect` and `Answer.json`.
    """
    with Session() as session:
        asked = {"Accept": "application/json", **(headers or {})}
        return session.request("GET", url, headers=asked, limit_bytes=limit_bytes).expect(200).json()


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


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file that becomes `path` when the block ends well, durably, and vanishes when it does not."""
    temporary = path.parent / f".tmp-{secrets.token_hex(12)}"
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
                if attempt == _ATTEMPTS:
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
            Answer(answer.status, answer.headers, answer.url, _start(stream)).expect(200)
        resumed = answer.headers.get("content-range", "").startswith(f"bytes {self._size}-")
        if answer.status != 206 or not resumed:
            self._restart()
        if answer.status == 206 and not resumed:
            raise NetworkError(f"{shown(answer.url)} sent another range than asked for")
        etag = answer.headers.get("etag", "")
        self._validator = etag if etag and not etag.startswith("W/") else answer.headers.get("last-modified", "")
        self._receive(stream)

    def _receive(self, stream: Stream) -> None:
        length = _length(stream.answer)
        total = None if length is None else self._size + length
        if total is not None and total > self._limit:
            raise _too_large(stream.answer.url, self._limit)
        for chunk in stream.chunks:
            self._size += len(chunk)
            if self._size > self._limit:
                raise _too_large(stream.answer.url, self._limit)
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
                raise _too_large(url, limit)
            digest.update(chunk)
            file.write(chunk)
    return Digest("sha256", digest.hexdigest())


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of `url` (RFC 6454).

    Raises:
        NetworkError: it is not an address.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NetworkError(f"not an address: {url[:100]!r}") from None
    return parts.scheme, (parts.hostname or "").lower(), port or (443 if parts.scheme == "https" else 80)


def leads_to(url: str, target: str) -> str:
    """Return the address that an answer from `url` names as `target`, in `Location` or `Link`.

    Raises:
        NetworkError: it is no http or https address, or leaves https.
    """
    try:
        there = urljoin(url, target)
        scheme = urlsplit(there).scheme
    except ValueError:
        there = scheme = ""
    if scheme not in {"http", "https"}:
        raise NetworkError(f"{shown(url)} leads to what is no http or https address")
    if origin(url)[0] == "https" and origin(there)[0] != "https":
        raise NetworkError(f"{shown(url)} leads to {shown(there)}, which is not encrypted")
    return there


def shown(url: str) -> str:
    """Return `url` without what may be secret: user, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _chunks(response: "httpx2.Response") -> Iterator[bytes]:
    import httpx2

    try:
        yield from response.iter_raw()  # as it arrives, so that little is lost when the connection breaks
    except (httpx2.TransportError, httpx2.StreamError) as error:
        raise _unreachable(str(response.url), error) from error


def _bounded(stream: Stream, limit: int) -> bytes:
    if (_length(stream.answer) or 0) > limit:
        raise _too_large(stream.answer.url, limit)
    data = bytearray()
    for chunk in stream.chunks:
        data += chunk
        if len(data) > limit:
            raise _too_large(stream.answer.url, limit)
    return bytes(data)


def _start(stream: Stream) -> bytes:
    """Read as much of an error's body as is worth showing."""
    data = bytearray()
    for chunk in stream.chunks:
        data += chunk
        if len(data) >= _MESSAGE_BYTES:
            break
    return bytes(data[:_MESSAGE_BYTES])


def _length(answer: Answer) -> int | None:
    text = answer.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _said(body: bytes) -> str:
    """Return the message in a JSON error of an OCI registry, a Library API or our own hub; "" if there is none."""
    try:
        data = json.loads(body[:_MESSAGE_BYTES])
    except (ValueError, RecursionError):
        return ""
    error = data.get("error") if isinstance(data, dict) else None
    errors = data.get("errors") if isinstance(data, dict) else None
    if isinstance(errors, list) and errors:
        error = errors[0]
    text = error.get("message") or error.get("code") if isinstance(error, dict) else error
    return "".join(c for c in str(text)[:500] if c.isprintable()) if text else ""


def _too_large(url: str, limit: int) -> LimitError:
    return LimitError(f"{shown(url)} is larger than the {limit} bytes that are allowed")


def _unreachable(url: str, error: Exception) -> NetworkError:
    why = str(error) or type(error).__name__
    return NetworkError(
        f"no answer from {shown(url)}: {why}", hint="check the address, the network and the proxy settings"
    )
