"""Tokens and passwords of hubs: our own file, and to read only those of Docker, Podman and Apptainer.

A secret belongs to one address, scheme included: what was given for https is never found for http. Files of other
programs name hosts without a scheme; they are used for https, and for http only on this machine. Where Docker keeps its
passwords in the system's keyring, its helper is asked
(https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol).
"""

import base64
import binascii
import contextlib
import fcntl
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from computeops import proc
from computeops.errors import ComputeOpsError, FormatError, LoginError, UsageError
from computeops.files import whole_file

_FILE_BYTES = 1024 * 1024
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_SECONDS = 60.0  # it may ask for the password of the keyring
_DOCKER_HUB = {"docker.io", "index.docker.io", "registry-1.docker.io"}
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\]")
_FIRST_LOOPBACK = "127."


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to a hub."""

    secret: str = field(repr=False)
    """A token, or the password of `user`."""
    user: str = ""
    """Empty: the secret is a token that needs no name."""

    def check(self) -> None:
        """Raise UsageError if it is empty or could not stand in an HTTP header."""
        text = self.secret + self.user  # with a user, both are written in base64
        if not self.secret or not text.isprintable() or ":" in self.user or not (self.user or text.isascii()):
            raise UsageError("the token is empty, or has characters that no token has", hint="copy it again")

    @property
    def basic(self) -> str:
        """The value of an `Authorization: Basic` header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user or 'computeops'}:{self.secret}".encode()).decode()

    @property
    def header(self) -> str:
        """The value of an `Authorization` header for the hub's own pages."""
        return self.basic if self.user else f"Bearer {self.secret}"


def base_url(hub: str) -> str:
    """Return `https://host[:port]` of a hub as users write it; http only where written, or on this machine.

    Raises:
        UsageError: it is not a hub's address.
    """
    scheme, separator, rest = hub.partition("://")
    if not separator:
        scheme, rest = "", hub
    host, port = _host_and_port(rest.rstrip("/"))
    if not _HOST.fullmatch(host) or scheme not in {"", "http", "https"}:
        raise UsageError(f"not the address of a hub: {hub!r}", hint="write host[:port], for example hub.example.org")
    if not scheme:
        scheme = "http" if loopback(host) else "https"
    host = "registry-1.docker.io" if host in _DOCKER_HUB else host.lower()
    return f"{scheme}://{host}" + (f":{port}" if port else "")


def _host_and_port(text: str) -> tuple[str, str]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text, ""
    return (host, str(int(port))) if port.isascii() and port.isdigit() and 0 < int(port) < 65536 else ("", "")


def loopback(host: str) -> bool:
    """Return whether `host` is this machine, so that nobody can listen on the way."""
    host = host.strip("[]").lower()
    return host in {"localhost", "::1"} or (host.startswith(_FIRST_LOOPBACK) and host.replace(".", "").isdigit())


class Credentials:
    """The logins of one user, in the file `path` with mode 0600; `others` are files of other programs, only read."""

    def __init__(self, path: Path, others: Sequence[Path] = ()) -> None:
        self.path = path
        self._others = tuple(others)

    def get(self, hub: str) -> str:
        """Return the token or password for `hub`, or ""."""
        found = self.login(hub)
        return found.secret if found else ""

    def login(self, hub: str) -> Login | None:
        """Return who we are to `hub`: as `computeops login` stored it, else as another program did.

        Raises:
            LoginError: others may read our file; FormatError: it is broken.
        """
        base = base_url(hub)
        entry = self._read().get(base)
        if isinstance(entry, dict) and isinstance(entry.get("secret"), str):
            return Login(entry["secret"], str(entry.get("user", "")))
        parts = urlsplit(base)
        if parts.scheme == "http" and not loopback(parts.hostname or ""):
            return None
        return next(filter(None, (_of_other(path, parts.netloc) for path in self._others)), None)

    def set(self, hub: str, token: str, *, user: str = "") -> None:
        """Store a token, or the password of `user`.

        Raises:
            UsageError: it is empty or could not stand in an HTTP header.
        """
        Login(token, user).check()
        with self._changed() as hubs:
            hubs[base_url(hub)] = {"secret": token, **({"user": user} if user else {})}

    def remove(self, hub: str) -> bool:
        """Forget what is stored for `hub`, and return whether there was something."""
        with self._changed() as hubs:
            return hubs.pop(base_url(hub), None) is not None

    def _read(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise LoginError(f"others may read {self.path}", hint=f"make it yours: chmod 600 {self.path}")
                hubs = json.loads(file.read(_FILE_BYTES))["hubs"]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, RecursionError):
            hubs = None
        if not isinstance(hubs, dict):
            raise FormatError(f"{self.path} is broken", hint="remove it and log in again") from None
        return hubs

    @contextlib.contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        """Give the table to change; one process at a time, and the file is always whole."""
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            hubs = self._read()
            yield hubs
            data = json.dumps({"hubs": hubs}, indent=1, sort_keys=True).encode()
            with whole_file(self.path, 0o600) as new:
                new.write(data)
        finally:
            os.close(lock)


def _of_other(path: Path, host: str) -> Login | None:
    """Return what another program's file holds for `host`; a file that is missing or odd holds nothing."""
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES)
        if path.suffix in {".yaml", ".yml"}:
            return _apptainer(data.decode(), host)
        settings = json.loads(data)
        hosts = _DOCKER_HUB if host in _DOCKER_HUB else {host}
        helpers = dict.fromkeys(settings.get("auths", {}), settings.get("credsStore")) | settings.get("credHelpers", {})
        asked = (_helper(helper, key) for key, helper in helpers.items() if _docker_host(key) in hosts and helper)
        written = (_docker(entry) for key, entry in settings.get("auths", {}).items() if _docker_host(key) in hosts)
        return next(filter(None, itertools.chain(written, asked)), None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, ComputeOpsError):
        return None


def _helper(name: str, server: str) -> Login | None:
    """Return what `docker-credential-NAME` knows of `server`; the user "<token>" means a token of Docker's own kind."""
    if not _HELPER.fullmatch(name):
        return None
    said = json.loads(proc.run([f"docker-credential-{name}", "get"], stdin=server.encode(), timeout=_HELPER_SECONDS))
    user, secret = str(said["Username"]), str(said["Secret"])
    return Login(secret, user) if secret and user != "<token>" else None


def _docker_host(key: str) -> str:
    """Return the host of a key in Docker's config.json: `host`, `host/path` or `https://host/v1/`."""
    return key.rpartition("://")[2].partition("/")[0].lower()


def _docker(entry: Mapping[str, Any]) -> Login | None:
    try:
        user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (binascii.Error, KeyError, TypeError):
        return None
    return Login(password, user) if password else None


_REMOTE_LINE = re.compile(r"""\s+(URI|Token): ["']?([^"'\s]*)["']?\s*""")


def _apptainer(text: str, host: str) -> Login | None:
    """Return the token of a remote at `host` in Apptainer's remote.yaml, whose URI and Token stand on one line each."""
    at = ""
    for line in text.splitlines():
        if (match := _REMOTE_LINE.fullmatch(line)) is None:
            at = "" if line.rstrip().endswith(":") else at  # the next remote begins
        elif match[1] == "URI":
            at = _docker_host(match[2].removeprefix("//"))
        elif at == host and match[2]:
            return Login(match[2])
    return None
