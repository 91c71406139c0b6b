"""The only HTTP client: bounded, verifying, and careful with credentials.

Every call names its limit in bytes. Redirects are followed here, one by one: credentials go only to the origin they
were meant for, and never from https to http. Connection errors of GET and HEAD are tried again. httpx2 is imported by
the first request. `download` fetches files; `addresses` knows which machines may be reached.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from computeops.errors import (
    ComputeOpsError,
    ConflictError,
    DeniedError,
    LimitError,
    LoginError,
    NetworkError,
    NotFoundError,
    UsageError,
)
from computeops.http.addresses import leads_to, origin, pinned, shown
from computeops.limits import LIMITS

if TYPE_CHECKING:
    import ssl

    import httpx2

Headers = Mapping[str, str]

CHUNK = 1024 * 1024
ATTEMPTS = 4
_REDIRECTS = 10
PAUSE = 0.5
"""Seconds before the second attempt; doubled before each further one."""
_MESSAGE_BYTES = 64 * 1024
_SAFE = frozenset({"GET", "HEAD"})
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
"""Statuses that may be gone a moment later; 500: docker-registry, while another writes the same tag."""
_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})
_ERRORS: dict[int, tuple[type[ComputeOpsError], str]] = {
    401: (LoginError, "log in with: computeops login HUB"),
    403: (DeniedError, "ask the owner of the collection for access"),
    404: (NotFoundError, "check the name; private things show only after: computeops login HUB"),
    409: (ConflictError, "a released version never changes; release a new version"),
    410: (NotFoundError, ""),
    413: (LimitError, ""),
}


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

    @property
    def length(self) -> int | None:
        """The bytes of the body that it announced, where it did."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


@dataclass(frozen=True, slots=True)
class Stream:
    """A response whose body is still on its way; `chunks` may be consumed once."""

    answer: Answer
    chunks: Iterator[bytes]

    def read(self, limit: int) -> Answer:
        """Return the whole answer.

        Raises:
            LimitError: it is larger than `limit` bytes.
        """
        if (self.answer.length or 0) > limit:
            raise too_large(self.answer.url, limit)
        data = bytearray()
        for chunk in self.chunks:
            data += chunk
            if len(data) > limit:
                raise too_large(self.answer.url, limit)
        return replace(self.answer, body=bytes(data))

    def expect(self, *statuses: int) -> Self:
        """Return self if the status is one of `statuses`.

        Raises:
            ComputeOpsError: as `Answer.expect`.
        """
        if self.answer.status not in statuses:
            start = bytearray()
            while len(start) < _MESSAGE_BYTES and (chunk := next(self.chunks, b"")):
                start += chunk
            replace(self.answer, body=bytes(start)).expect(*statuses)
        return self


class Session:
    """Connections that are kept and re-used; a context manager. Not for several threads at once."""

    def __init__(
        self,
        *,
        seconds: float = LIMITS.http_seconds,
        pause: float = PAUSE,
        hosts: frozenset[str] | None = None,
        socket: str = "",
        identity: Path | None = None,
    ) -> None:
        """`hosts`: the only ones (`host` or `host:port`) that requests and redirects may go to; None: any.

        `socket`: path of the Unix socket that every request goes to, whatever its address says.
        `identity`: folder with cert.pem and key.pem, which say who we are, and ca.pem, which alone is trusted.
        """
        self._seconds = seconds
        self._hosts = hosts
        self._socket = socket
        self._identity = identity
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
            return stream.answer if method == "HEAD" else stream.read(limit_bytes)

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
        attempts = ATTEMPTS if method in _SAFE else 1
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
                verify=_known(self._identity) if self._identity else True,
            )
        return self._client


def _known(identity: Path) -> "ssl.SSLContext":
    import ssl

    try:
        context = ssl.create_default_context(cafile=str(identity / "ca.pem"))
        context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
    except (OSError, ssl.SSLError) as error:
        raise NetworkError(
            f"{identity} holds no certificates for TLS: {error}", hint="it wants ca.pem, cert.pem and key.pem"
        ) from error
    return context


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


def _chunks(response: "httpx2.Response") -> Iterator[bytes]:
    import httpx2

    try:
        yield from response.iter_raw()  # as it arrives, so that little is lost when the connection breaks
    except (httpx2.TransportError, httpx2.StreamError) as error:
        raise _unreachable(str(response.url), error) from error


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


def too_large(url: str, limit: int) -> LimitError:
    """Return the error of an answer from `url` that is larger than `limit` bytes."""
    return LimitError(f"{shown(url)} is larger than the {limit} bytes that are allowed")


def _unreachable(url: str, error: Exception) -> NetworkError:
    why = str(error).partition("] ")[2] if str(error).startswith("[Errno ") else str(error) or type(error).__name__
    return NetworkError(
        f"no answer from {shown(url)}: {why}", hint="check the address, the network and the proxy settings"
    )
