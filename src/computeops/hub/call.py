"""One request to the registry."""

from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from computeops.errors import FormatError
from computeops.hub.oci_error import OciError
from computeops.hub.send import send_bytes
from computeops.model import Digest


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a repository."""

    scope: Scope
    receive: Receive
    send: Send
    name: str
    rest: str
    """The path behind `/manifests/` and the like."""

    @property
    def method(self) -> str:
        """GET, HEAD, PUT ..."""
        return str(self.scope["method"])

    def query(self, key: str) -> list[str]:
        """Return the values of `key` in the query string."""
        raw = self.scope["query_string"]
        return parse_qs(raw.decode("latin-1"), keep_blank_values=True).get(key, []) if raw else []

    def one(self, key: str) -> str:
        """Return the first value of `key` in the query string, else an empty text."""
        return next(iter(self.query(key)), "")

    async def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        """Answer it, to HEAD without the body."""
        await send_bytes(self.scope, self.send, status, headers or {}, body)


def digest_of(text: str) -> Digest:
    """Read a digest that was sent.

    Raises:
        OciError: it is none.
    """
    try:
        return Digest.parse(text)
    except FormatError as error:
        raise OciError("DIGEST_INVALID", 400, error.message) from error


def unsupported(call: Call) -> OciError:
    """Return the error of a method that is not possible there."""
    return OciError("UNSUPPORTED", 405, f"{call.method} is not possible here")
