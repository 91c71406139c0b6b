"""Requests to addresses that people gave: sent once, to where the name leads now, and never into our own network.

A name is resolved once and the connection goes to that very address, so that a name server cannot answer the check
with one address and the connection with another. Redirects are not followed, and nothing of the answer but its status
is read.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from computeops.errors import NetworkError, UsageError
from computeops.http import post_to

_SECONDS = 15.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def check(url: str, *, private: bool) -> None:
    """Refuse an address that nothing may be sent to, as far as it can be told without asking a name server.

    Raises:
        UsageError: it is no https address, has a user or a fragment in it, or names a machine of the own network.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError(f"not an address: {url[:200]!r}") from None
    printable = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
    if parts.scheme not in ({"https", "http"} if private else {"https"}) or not host or port == 0 or not printable:
        raise UsageError(f"not an https address: {url[:200]!r}")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise UsageError("the address must not have a user, a password or a # in it")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return
    if not private and not is_public(literal):
        raise UsageError(f"{host} is not a public address")


def is_public(address: Address) -> bool:
    """Return whether packets to `address` leave our network for one machine: also where an IPv4 address is inside."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inside = [one for one in (address.sixtofour, *(address.teredo or ())) if one is not None]
        if not all(is_public(one) for one in inside):
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


async def post(url: str, body: bytes, headers: Mapping[str, str], *, private: bool) -> int:
    """Send `body` to `url` and return the status of the answer, all within 15 seconds.

    Raises:
        UsageError: as `check`, also where the name leads to a machine of the own network.
        NetworkError: the name leads nowhere, or there is no answer in time.
    """
    check(url, private=private)
    try:
        async with asyncio.timeout(_SECONDS):
            return await post_to(url, await _resolved(url, private=private), body, headers)
    except TimeoutError:
        raise NetworkError(f"no answer within {_SECONDS:.0f} seconds") from None


async def _resolved(url: str, *, private: bool) -> str:
    """Return the one address that the host of `url` has now; if any of its addresses is private, none."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NetworkError(f"the name {parts.hostname} leads nowhere") from None
    addresses = [str(one[4][0]) for one in found]
    if not private and not all(is_public(ipaddress.ip_address(one.partition("%")[0])) for one in addresses):
        raise UsageError(f"the name {parts.hostname} leads to an address that is not public")
    return addresses[0]
