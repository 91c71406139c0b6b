"""From where the sources of strangers may come: the web, and what lies in their own folder; nothing of this machine."""

import ipaddress
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from computeops.errors import DeniedError, NetworkError
from computeops.http.addresses import only_to, origin
from computeops.hub.outside import is_public

_WEB = frozenset({"https", "http"})


def require(uris: Iterable[str], *, private: bool, own: Iterable[str] = ()) -> None:
    """Refuse addresses that a stranger's recipe or lock may not name; `own` are those that the worker itself chose.

    Raises:
        DeniedError: a file of this machine, or a machine of the own network unless `private`.
        NetworkError: a name leads nowhere.
    """
    mine = tuple(f"{one.rstrip('/')}/" for one in own if one)
    hosts = set[str]()
    for uri in uris:
        scheme, _, rest = uri.removeprefix("git+").partition(":")
        if scheme == "path" or (mine and _is_own(uri, mine)):
            continue
        if scheme in {"oci", "localimage", "dir"} and not rest.startswith("/"):
            continue  # the builders let these lie beside the recipe only
        if scheme == "docker":
            registry, slash, _ = rest.removeprefix("//").partition("/")
            is_host = bool(slash) and (bool(set(registry) & set(".:")) or registry == "localhost")
            hosts |= {urlsplit(f"//{registry}").hostname or ""} if is_host else set()
            continue
        if scheme not in _WEB:
            raise DeniedError(f"a pipeline takes nothing from {uri[:200]}", hint="name an https address")
        hosts.add(urlsplit(uri.removeprefix("git+")).hostname or "")
    if not private:
        for host in sorted(hosts):
            _public(host, 443)


@contextmanager
def outside(*, private: bool, own: Iterable[str] = ()) -> Iterator[None]:
    """Let what is fetched meanwhile, redirects too, come from public addresses only, each looked up once.

    `own` are the addresses of mirrors that the worker itself chose: their hosts may be anywhere, as all if `private`.
    """
    with only_to(lookup(private=private, own=own)):
        yield


def lookup(*, private: bool, own: Iterable[str] = ()) -> Callable[[str, int], str]:
    """Return what gives the one address that a host has, empty for any of it; arguments as for `outside`.

    It raises DeniedError for a machine of the own network, and NetworkError for a name that leads nowhere.
    """
    mine = {origin(one)[1:] for one in own if one.startswith(("http:", "https:"))}
    return lambda host, port: "" if private or (host, port) in mine else _public(host, port)


def _is_own(uri: str, mine: tuple[str, ...]) -> bool:
    path = uri.partition(":")[2].removeprefix("//")
    return ".." not in path.split("/") and any(
        uri.startswith(one) or path.startswith(one.partition(":")[2].removeprefix("//")) for one in mine
    )


def _found(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NetworkError(f"the name {host[:200]} leads nowhere") from None
    return [str(one[4][0]) for one in found]


def _public(host: str, port: int) -> str:
    """Return the first address of `host`; if any of them is not public, none."""
    found = _found(host, port)
    for address in found:
        if not is_public(ipaddress.ip_address(address.partition("%")[0])):
            raise DeniedError(f"{host[:200]} leads to {address}, which is not a public address")
    return found[0]
