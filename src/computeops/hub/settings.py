"""The settings of a hub: `hub.toml` in its folder (a link to a file elsewhere will do). A hub without one works.

The structs below are the documentation of the file. An unknown key is an error; a secret is never in the file itself,
but in a file that only its owner can read, or in a variable of the environment.
"""

import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from computeops.errors import UsageError, did_you_mean
from computeops.hub import names as names_of
from computeops.limits import LIMITS

FILE_NAME = "hub.toml"
_HINT = "the keys are described in docs/reference/hub-settings.md"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Slug = Annotated[str, Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*\Z", max_length=40)]
Line = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]*\Z", max_length=200)]


class Provider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where people sign in: a table `[[providers]]`."""

    name: Slug
    """In addresses: its callback is `https://HUB/auth/callback/NAME`."""
    kind: Literal["oidc", "gitlab", "github"] = "oidc"
    """`github` speaks OAuth 2 only; `gitlab` and every other one OpenID Connect."""
    client_id: Line
    """What the provider calls this hub."""
    issuer: Line = ""
    """Address of the provider; default: https://gitlab.com or https://github.com."""
    title: Line = ""
    """What the button says; default: the name."""
    client_secret_file: str = ""
    """File with the secret, mode 0600; a relative path begins at the folder of hub.toml."""
    client_secret_env: str = ""
    """Or the name of a variable of the environment that has it. Without either the client is public: PKCE alone."""
    scopes: tuple[Line, ...] = ()
    """What to ask for; default: `openid profile`, and for github nothing."""
    api: Line = ""
    """github only: address of its API; default: https://api.github.com."""


class Issuer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A CI service whose OIDC tokens maintainers may bind to their collections: a table `[[ci]]`."""

    issuer: Line
    """Its address, as its tokens have it in `iss`."""
    kind: Literal["gitlab", "github"]
    """What it calls project, branch and environment."""


class Retention(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tags `hub gc` deletes when they are old: a table `[[retention]]`. A release is never deleted."""

    repositories: Line
    """A pattern of repositories: `*`, `ci/*` or `ci/nightly`."""
    tags: Line
    """A pattern of tags: `*` stands for any characters, as in `pr-*`."""
    days: Annotated[int, Meta(ge=1)]
    """How long ago the tag must have been set."""


class Proxy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Repositories that come from another registry when they are first asked for: a table `[[proxies]]`."""

    prefix: Annotated[str, Meta(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*\Z", max_length=60)]
    """What their names here begin with: with `dockerhub`, `dockerhub/library/debian` is `library/debian` there."""
    registry: Line
    """Address of the registry, as `https://registry-1.docker.io`."""
    below: Annotated[str, Meta(pattern=r"^([a-z0-9]+([._/-][a-z0-9]+)*)?\Z", max_length=200)] = ""
    """Only what is below this there; the prefix stands for it."""
    hosts: tuple[Line, ...] = ()
    """Where else the registry may send us for tokens and content: `auth.docker.io`. Nowhere, by default."""
    public: bool = True
    """Whether everybody may read them. Off: who has a token for them."""
    fresh_minutes: Annotated[int, Meta(ge=0)] = 60
    """How long a tag is good before the registry is asked again."""
    credentials: Line = ""
    """File with the login, as `computeops login` or `docker login` writes it; begins at the folder of the hub."""


class Pipelines(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the hub's workers build, and how much one build may take: the table `[pipelines]`."""

    at_once: Annotated[int, Meta(ge=1)] = 2
    """How many pipelines of one collection run at the same time."""
    waiting: Annotated[int, Meta(ge=1)] = 1000
    """How many of one collection may wait."""
    seconds: Annotated[int, Meta(ge=1)] = 6 * 3600
    """How long one step of a build may take."""
    memory: Annotated[int, Meta(ge=16)] = 16 * 1024
    """MiB that all processes of a build may have together."""
    disk: Annotated[int, Meta(ge=1)] = 64 * 1024
    """MiB that a build may write."""
    processes: Annotated[int, Meta(ge=16)] = 4096
    """Processes and threads of one build."""
    log_bytes: Annotated[int, Meta(ge=1024)] = 16 * 1024 * 1024
    """How much of what a build prints is kept."""
    network: bool = False
    """Whether recipes may have `network = true`: their build files then reach the network. Off: only sources do."""
    git: tuple[Line, ...] = ("*",)
    """Machines whose git repositories may be built: `git.example.org`, `*.example.org`; `*`: every public one."""
    private_addresses: bool = False
    """Whether sources may come from machines of the own network, also without TLS. Off: only from public addresses."""
    lease_seconds: Annotated[int, Meta(ge=1)] = 120
    """How long a worker may be silent until another one gets its pipeline."""
    rebuild_days: Annotated[int, Meta(ge=0)] = 0
    """After how many days a release is rebuilt once more to see whether it still can be; 0: never."""
    keep_days: Annotated[int, Meta(ge=1)] = 365
    """How long the logs of pipelines that have ended are kept."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a hub."""

    create_collections: Literal["administrators", "people"] = "administrators"
    """Who may push into a collection that does not exist yet, and so becomes its owner: `people` is everybody who has
    an account. A collection below another one (`bio/rna` below `bio`) is made by the owners of that."""
    new_collections: Literal["public", "private"] = "public"
    """What a collection is when somebody makes it by a push."""
    audience: Line = ""
    """The audience that CI asks its OIDC tokens for; default: the address of `--external-url`."""
    webhooks_to_private_addresses: bool = False
    """Whether webhooks may go to machines of the own network. Off: only to public addresses."""
    database: Line = ""
    """Where the index is: `postgresql://USER@HOST/NAME`, with the password in `~/.pgpass`; default: SQLite in the
    folder of the hub."""
    storage: Line = ""
    """Where the content is: `s3://BUCKET/PREFIX`, `gs://...` or `az://...`; default: the folder of the hub."""
    storage_options: dict[str, Line] = {}
    """What the object store needs beside its address: `endpoint`, `region` ... Its secrets are variables of the
    environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` ...), or a role of the machine."""
    storage_redirect: bool = False
    """Whether readers are sent to the object store itself (307 to an address that is good for 15 minutes). Off: the hub
    passes the content on, so nobody else needs to reach the object store."""
    grace_hours: Annotated[int, Meta(ge=1)] = 24
    """How long `hub gc` keeps what nothing uses."""
    untagged_days: Annotated[int, Meta(ge=0)] = 0
    """After how many days `hub gc` deletes a manifest that no tag reaches; 0: never."""
    retention: tuple[Retention, ...] = ()
    requests_per_second: Annotated[int, Meta(ge=0)] = 200
    """How many requests one caller (a token, or an address without one) may send in the long run; ten seconds' worth at
    once. A search counts as five, a false token as twenty. 0: as many as it likes."""
    requests_at_once: Annotated[int, Meta(ge=1)] = 256
    """How many requests of one caller are answered at the same time."""
    trusted_proxies: tuple[Line, ...] = ()
    """Addresses of the proxies in front, whose `X-Forwarded-For` says who asks."""
    pipelines: Pipelines = Pipelines()
    inventory: bool = True
    """Whether the packages of each image that is pushed are listed, by a process of its own after the push."""
    advisories: Line = ""
    """File of the index of advisories; default: `advisories.sqlite` in the folder of the hub. One that `computeops
    advisories` maintains will do, also on a read-only file system."""
    advisories_hours: Annotated[int, Meta(ge=0)] = 0
    """How old the index may be before the hub updates it by itself; 0: it never does, somebody else brings it."""
    advisories_from: Line = ""
    """Address or folder of a mirror of the feeds for that; default: their public addresses."""
    advisories_stale_days: Annotated[int, Meta(ge=1)] = 7
    """After so many days without news advisories are too old to call a release clean: it is `stale`."""
    proxies: tuple[Proxy, ...] = ()
    providers: tuple[Provider, ...] = ()
    ci: tuple[Issuer, ...] = (
        Issuer(issuer="https://gitlab.com", kind="gitlab"),
        Issuer(issuer="https://token.actions.githubusercontent.com", kind="github"),
    )


class Secrets:
    """The client secrets of the providers, which nothing prints."""

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        self._secrets = dict(secrets or {})

    def of(self, provider: str) -> str:
        """Return the client secret of `provider`; empty if it has none."""
        return self._secrets.get(provider, "")

    def __repr__(self) -> str:
        return "Secrets(...)"


DEFAULT = Settings()


def load(file: Path, environ: Mapping[str, str]) -> tuple[Settings, Secrets]:
    """Read the settings in `file`, and the secrets that they name; without the file, the defaults.

    Raises:
        UsageError: a key is unknown, a value is wrong, or a secret is missing or readable by others.
    """
    if not file.exists():
        return DEFAULT, Secrets()
    try:
        with file.open("rb") as stream:
            data = stream.read(LIMITS.recipe_bytes + 1)
        if len(data) > LIMITS.recipe_bytes:
            raise UsageError(f"{file} is larger than {LIMITS.recipe_bytes} bytes")
        table = tomllib.loads(data.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read the settings in {file}: {error}") from None
    settings = parse(table, str(file))
    return settings, Secrets({one.name: _secret(one, file, environ) for one in settings.providers})


def parse(table: Mapping[str, Any], where: str) -> Settings:
    """Return the settings in a table of TOML; `where` names it in errors.

    Raises:
        UsageError: a key is unknown, or a value is wrong.
    """
    if unknown := next(_unknown(Settings, table, ""), ""):
        raise UsageError(f"{where}: {unknown}", hint=_HINT)
    try:
        settings = msgspec.convert(table, Settings)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        place = re.sub(r"\[([0-9]+)\]", lambda found: f"[{int(found[1]) + 1}]", place)  # people count from 1
        at = f" at {place.strip('.`')}" if place else ""
        raise UsageError(f"{where}: {what[:1].lower()}{what[1:]}{at}", hint=_HINT) from None
    for fault in _faults(settings):
        raise UsageError(f"{where}: {fault}", hint=_HINT)
    return settings


def _unknown(kind: Any, value: Any, at: str) -> Iterator[str]:
    """Yield what is wrong with the names of the keys in `value`."""
    if get_origin(kind) is tuple and isinstance(value, list):
        for index, one in enumerate(value):
            yield from _unknown(get_args(kind)[0], one, f"{at}[{index + 1}]")
    elif isinstance(kind, type) and issubclass(kind, Struct) and isinstance(value, dict):
        fields = {one.name: one.type for one in msgspec.structs.fields(kind)}
        for key, inside in value.items():
            name = f"{at}.{key}".lstrip(".")
            if key not in fields:
                hint = did_you_mean(key, fields) or f"; there are: {', '.join(fields)}"
                yield f"unknown key {name[:160]}{hint}"
            else:
                yield from _unknown(fields[key], inside, name)


def in_folder(data: Path) -> Settings:
    """Return the settings of the hub in the folder `data`, without their secrets.

    Raises:
        UsageError: as `load`.
    """
    file = data / FILE_NAME
    try:
        return parse(tomllib.loads(file.read_text()), str(file))
    except FileNotFoundError:
        return DEFAULT
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read the settings in {file}: {error}") from None


def _faults(settings: Settings) -> Iterator[str]:
    for key in settings.storage_options:
        if any(word in key.lower() for word in ("secret", "token", "password", "access_key", "account_key")):
            yield f"storage_options: {key} is a secret: set it in the environment instead"
    prefixes = [one.prefix for one in settings.proxies]
    yield from (
        f"two proxies have the prefix {name!r}" for name in sorted({p for p in prefixes if prefixes.count(p) > 1})
    )
    for proxy in settings.proxies:
        if proxy.prefix in names_of.RESERVED:
            yield f"proxies: the hub keeps the name {proxy.prefix!r} for itself"
        if not secure(proxy.registry):
            yield f"proxies: {proxy.prefix}: not an https address: {proxy.registry}"
    names = [one.name for one in settings.providers]
    yield from (f"two providers are called {name!r}" for name in sorted({n for n in names if names.count(n) > 1}))
    for one in settings.providers:
        if one.kind == "oidc" and not one.issuer:
            yield f"providers: {one.name} has no issuer"
        for address in (one.issuer, one.api):
            if address and not secure(address):
                yield f"providers: {one.name}: not an https address: {address}"
        if one.client_secret_file and one.client_secret_env:
            yield f"providers: {one.name} has client_secret_file and client_secret_env; one is enough"
    yield from (f"ci: not an https address: {one.issuer}" for one in settings.ci if not secure(one.issuer))


def secure(address: str) -> bool:
    """Return whether nobody between can read or change what is sent to `address`: https, or this machine."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.username is not None or parts.fragment or parts.query or not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def _secret(provider: Provider, file: Path, environ: Mapping[str, str]) -> str:
    if name := provider.client_secret_env:
        if not environ.get(name):
            raise UsageError(
                f"provider {provider.name}: the variable {name} is not set", hint="it has the client secret"
            )
        return environ[name]
    if not provider.client_secret_file:
        return ""
    path = file.parent / provider.client_secret_file
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip() if path.stat().st_size <= LIMITS.key_bytes else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"provider {provider.name}: cannot read {path}: {error}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"provider {provider.name}: others can read {path}", hint=f"chmod 600 {path}")
    if not text:
        raise UsageError(f"provider {provider.name}: no secret in {path}")
    return text
