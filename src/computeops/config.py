"""Settings: defaults < file < environment < flags. The only reader of the environment.

The file is `$XDG_CONFIG_HOME/computeops/config.toml` (or what `COMPUTEOPS_CONFIG` names); each setting `x` is a key `x`
there and `COMPUTEOPS_X` in the environment. Everything below `cli` gets plain arguments.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from computeops.errors import UsageError, did_you_mean

EPOCH_DEFAULT = 315532800
"""1980-01-01T00:00:00Z, the first time a ZIP archive can hold: the time of every file where nothing else is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The profile of one site: the table `[sites.NAME]`. What the command line says wins over it."""

    scheduler: str = ""
    """Where `submit` sends jobs."""
    queue: str = ""
    """Queue or partition."""
    account: str = ""
    """Account that pays."""
    options: tuple[str, ...] = ()
    """More words for the scheduler's own command, for every job."""
    modules: tuple[str, ...] = ()
    """Environment modules that a job loads before its program starts."""
    cache: str = ""
    """Folder that the machines of the site share: images are staged there, once for all jobs."""
    image: str = "shared"
    """How machines get the image of a release: `shared` (from the shared cache), `pull` (each job fetches it, by the
    digest that was trusted), or a path under which the site has it, as /cvmfs/csan.example.org/{name}-{version}.sif;
    {collection}, {name}, {version} and {variant} stand for those of the release."""
    machine: str = ""
    """File of `computeops host --toml` from a machine that computes: the variant of a release is chosen for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user, the site and the environment chose."""

    cache: Path
    """Folder of pulled images, fetched sources and unpacked trees; may be deleted at any time."""
    keys: Path
    """Folder of signing keys and of trusted public keys, mode 0700."""
    credentials: Path
    """File with tokens of hubs, mode 0600."""
    tmp: Path
    """Folder for build trees; needs room for one unpacked image."""
    job_records: Path
    """Folder of the jobs that were submitted, with their scripts and logs; the machines that compute must see it."""
    scheduler: str = ""
    """Where `submit` sends jobs; empty: it must be named."""
    queue: str = ""
    """Queue or partition of jobs that name none; empty: the scheduler's own."""
    account: str = ""
    """Account that pays for jobs that name none."""
    site: str = ""
    """Site whose profile, a table `[sites.NAME]` in the file, `submit` takes; empty: none."""
    advisories: Path
    """File of the index of advisories that `scan` asks; it may lie on a read-only file system."""
    feeds: str = ""
    """Address or folder of a mirror of advisory feeds; empty: their public addresses."""
    stale_days: int = 7
    """After so many days without an update advisories are too old to call an image clean."""
    key: str = ""
    """Name of the key that signs what is built; empty: none."""
    policy: str = ""
    """File with the policy that an image must satisfy before it is pulled, pushed or run; empty: the default one, and
    `run` takes any file."""
    hub: str = ""
    """Hub of references that name none, `host[:port]`; `http://` in front for a hub without TLS."""
    engine: str = ""
    """Engine that `run`, `exec`, `shell` and `test` use; empty: the first that is available."""
    cache_bytes: int = 20 * 1024**3
    """What unpacked images may take in the cache; those not used for longest go first."""
    shared: str = ""
    """Folder of unpacked images of the site: `prepare` fills it, and every start looks there first; empty: none."""
    shared_owners: str = ""
    """Users, besides root, whose images in `shared` are believed: names with spaces between."""
    compression: str = "zstd"
    """Compressor of squashfs and OCI layers: zstd or gzip."""
    level: int = 6
    """Compression level of the squashfs in a SIF."""
    mirror: str = ""
    """Debian mirror of the `debian` builder; empty: the host's own apt sources."""
    pypi: str = "https://pypi.org/simple"
    """Python package index that sdists are fetched from."""
    epoch: int = EPOCH_DEFAULT
    """Time of all files in an image, seconds since 1970 (also read from SOURCE_DATE_EPOCH)."""
    jobs: int = 0
    """Threads for compression; 0: one per CPU."""

    @classmethod
    def load(cls, environ: Mapping[str, str], **flags: Any) -> Self:
        """Merge defaults, the file, `environ` and the `flags` that are not None.

        Raises:
            UsageError: the file or a value is wrong.
        """
        home = _home(environ)
        base = cls(
            cache=_xdg(environ, "XDG_CACHE_HOME", home / ".cache"),
            keys=_xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "keys",
            credentials=_xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "credentials.json",
            job_records=_xdg(environ, "XDG_STATE_HOME", home / ".local/state") / "jobs",
            advisories=_xdg(environ, "XDG_DATA_HOME", home / ".local/share") / "advisories.sqlite",
            tmp=Path(environ.get("TMPDIR") or "/var/tmp"),  # noqa: S108  build trees are too big for a /tmp in memory
        )
        file = _file(environ)
        there = os.access(file, os.F_OK)  # Path.exists raises where a folder above may not be entered
        from_file = _read(file) if there or "COMPUTEOPS_CONFIG" in environ else {}
        from_file.pop("sites", None)  # asked for by `site`
        from_environ = {
            f.name: environ[f"COMPUTEOPS_{f.name.upper()}"]
            for f in fields(cls)
            if environ.get(f"COMPUTEOPS_{f.name.upper()}")
        }
        if "SOURCE_DATE_EPOCH" in environ:
            from_environ.setdefault("epoch", environ["SOURCE_DATE_EPOCH"])
        given = {name: value for name, value in flags.items() if value is not None}
        settings = base
        for where, values in ((str(file), from_file), ("the environment", from_environ), ("the command line", given)):
            settings = replace(settings, **{name: _typed(name, value, where) for name, value in values.items()})
        return settings


_TYPES = {f.name: f.type for f in fields(Settings)}


def site(name: str, environ: Mapping[str, str]) -> Site:
    """Return the profile called `name` in the file of settings.

    Raises:
        UsageError: there is none, or it is wrong.
    """
    known = _read(file).get("sites", {}) if os.access(file := _file(environ), os.F_OK) else {}
    known = known if isinstance(known, dict) else {}
    if not isinstance(known.get(name), dict):
        raise UsageError(
            f"no site is called {name!r} in {file}{did_you_mean(name, known)}",
            hint=f"write a table [sites.{name}] there; docs/how-to/sites.md shows one",
        )
    values: dict[str, Any] = {}
    types = {one.name: one.type for one in fields(Site)}
    for key, value in known[name].items():
        if key not in types:
            raise UsageError(f"unknown key {key!r} of site {name} in {file}{did_you_mean(key, types)}")
        several = types[key] is not str
        if several is not isinstance(value, list) or not all(
            isinstance(one, str) for one in (value if several else [value])
        ):
            raise UsageError(f"{key} of site {name} in {file} must be {'a list of texts' if several else 'a text'}")
        values[key] = tuple(value) if several else value
    return Site(**values)


def _file(environ: Mapping[str, str]) -> Path:
    home = _home(environ)
    default = _xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "config.toml"
    return Path(environ.get("COMPUTEOPS_CONFIG") or default)


def _home(environ: Mapping[str, str]) -> Path:
    """Return the home folder; a batch system or a service may start a program without saying it."""
    if given := environ.get("HOME"):
        return Path(given)
    import pwd

    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a user without an entry, as in some containers
        return Path("/")


def _xdg(environ: Mapping[str, str], name: str, default: Path) -> Path:
    return Path(environ.get(name) or default) / "computeops"


def _read(file: Path) -> dict[str, Any]:
    import tomllib  # not for those who have no file

    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:  # of TOML: an integer of thousands of digits is no error
        raise UsageError(f"cannot read the settings in {file}: {error}") from error


def _typed(name: str, value: Any, where: str) -> Any:
    if name not in _TYPES:
        raise UsageError(f"unknown setting {name!r} in {where}{did_you_mean(name, _TYPES)}")
    if _TYPES[name] is int:
        try:
            return int(value)
        except (TypeError, ValueError):
            raise UsageError(f"setting {name} in {where} must be a whole number, not {value!r}") from None
    if _TYPES[name] is Path:
        return Path(str(value)).expanduser()
    if name == "compression" and value not in {"zstd", "gzip"}:
        raise UsageError(f"setting compression in {where} must be zstd or gzip, not {value!r}")
    return str(value)


def environment() -> dict[str, str]:
    """Return this process's environment as it was given: Python adds LC_CTYPE where the locale is C (PEP 538)."""
    environ = dict(os.environ)
    if environ.get("LC_CTYPE") == "C.UTF-8":
        given = Path("/proc/self/environ").read_bytes()
        if b"\0LC_CTYPE=" not in b"\0" + given:
            del environ["LC_CTYPE"]
    return environ


def other_credentials(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where Podman, Docker and Apptainer keep their logins, in the order in which they are asked."""
    home = _home(environ)
    named = [Path(environ["REGISTRY_AUTH_FILE"])] if environ.get("REGISTRY_AUTH_FILE") else []
    podman = [Path(environ["XDG_RUNTIME_DIR"]) / "containers/auth.json"] if environ.get("XDG_RUNTIME_DIR") else []
    docker = Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    apptainer = Path(environ.get("APPTAINER_CONFIGDIR") or home / ".apptainer")
    return (*named, *podman, docker, apptainer / "docker-config.json", apptainer / "remote.yaml")
