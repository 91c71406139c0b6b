"""What an address is and where it leads, and which machines requests of this process may reach.

A process that fetches what others named is bound to machines by `only_to`: the name is resolved once, and the
connection goes to the address that was judged (`pinned`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

from computeops.errors import NetworkError

Resolve = Callable[[str, int], str]
"""Called with host and port; returns the one address to connect to, empty for any, or raises an error."""
_resolve: Resolve | None = None


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
