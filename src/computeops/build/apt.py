"""A private apt root: asks a Debian archive which packages there are, without touching the host's own apt.

apt checks the archive's signature (InRelease) and every index against it; what it names is pinned by SHA-256.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from computeops import proc
from computeops.build.model import Material, Place
from computeops.errors import MissingProgramError, NetworkError, RecipeError, did_you_mean
from computeops.model import Digest

DEBIAN = "http://deb.debian.org/debian"
SNAPSHOTS = "https://snapshot.debian.org/archive"
_KEYRINGS = Path("/usr/share/keyrings")
_KEYRING = "debian-archive-keyring.gpg"
_ROLLING = {"sid", "unstable", "testing", "experimental"}
_URI = re.compile(r"'(\S+)' (\S+) (\d+) SHA256:([0-9a-f]{64})")


class Archive:
    """The indexes of some suites, in a folder of their own."""

    def __init__(self, folder: Path, entries: Sequence[str], place: Place) -> None:
        self._folder = folder
        proc.need("apt-get")
        for name in (
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/sources.list.d",
            "state/lists/partial",
            "cache/archives/partial",
        ):
            (folder / name).mkdir(parents=True)
        _keyrings(folder / "etc/trusted.gpg.d")
        (folder / "status").touch()
        (folder / "etc/sources.list").write_text("".join(f"{entry}\n" for entry in entries))
        (folder / "apt.conf").write_text(_configuration(folder))
        place.progress("reading the package indexes")
        self._apt("apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any", error=NetworkError)

    def debs(self, packages: Sequence[str]) -> tuple[Material, ...]:
        """Return the .deb files that Debian's essential packages and `packages` need, sorted by name.

        Raises:
            RecipeError: a package does not exist or cannot be installed with the others.
        """
        if packages:
            self._check_names(packages)
        listing = self._apt(
            "apt-get", "-q", "-y", "--no-install-recommends", "--print-uris", "install", "?essential", *packages
        )
        return _materials(listing, "package")

    def source(self, name: str, version: str) -> tuple[Material, ...]:
        """Return the .dsc and tar files of one source package.

        Raises:
            RecipeError: the archive does not have that version.
        """
        shown = self._apt("apt-cache", "showsrc", name) if self._has_source(name) else ""
        versions = sorted(
            set(re.findall(rf"^Package: {re.escape(name)}\n(?:.*\n)*?Version: (\S+)$", shown, re.MULTILINE))
        )
        if version not in versions:
            hint = (
                f"it has: {', '.join(versions)}"
                if versions
                else "the names of source packages are on tracker.debian.org"
            )
            raise RecipeError(f"the archive has no source package {name} {version}", hint=hint)
        argv = ("apt-get", "-qq", "source", "--download-only", "--only-source", "--print-uris", f"{name}={version}")
        return _materials(self._apt(*argv), "source")

    def _has_source(self, name: str) -> bool:
        done = proc.capture(self._argv("apt-cache", "showsrc", name))
        return done.returncode == 0

    def _check_names(self, packages: Sequence[str]) -> None:
        known = set(self._apt("apt-cache", "pkgnames").split())
        for name in packages:
            if name not in known:
                near = did_you_mean(name, [one for one in known if one[:2] == name[:2]])
                raise RecipeError(f"build.packages: the archive has no package {name!r}{near}")

    def _argv(self, *argv: str) -> list[str]:
        return ["env", f"APT_CONFIG={self._folder / 'apt.conf'}", "LC_ALL=C", *argv]

    def _apt(self, *argv: str, error: type[RecipeError | NetworkError] = RecipeError) -> str:
        done = proc.capture(self._argv(*argv), error=error)
        if done.returncode != 0:
            # what does not fit together stands in the one stream, that it failed in the other
            raise proc.failed(argv, done.returncode, done.stdout + done.stderr, error)
        return done.stdout.decode(errors="replace")


def entries(kind: str, suite: str, components: Sequence[str], *, mirror: str, snapshot: str) -> list[str]:
    """Return the lines of a sources.list for `suite`, its updates and its security fixes.

    `kind` is `deb` or `deb-src`. With `snapshot`, the archive as it was then, from snapshot.debian.org or from a
    `mirror` that has the word `{snapshot}` for it; else from `mirror`; else from where the host's own apt takes it.
    """
    parts = " ".join(components)
    if snapshot and "{snapshot}" not in mirror:
        main = f"{SNAPSHOTS}/debian/{snapshot}"
        pairs = _with_updates(main, f"{SNAPSHOTS}/debian-security/{snapshot}", suite)
    elif mirror:
        pairs = [(mirror.replace("{snapshot}", snapshot), suite)]
    else:
        pairs = _host(suite)
    option = "[check-valid-until=no] " if snapshot else ""
    return [f"{kind} {option}{uri} {name} {parts}" for uri, name in pairs]


def _with_updates(main: str, security: str, suite: str) -> list[tuple[str, str]]:
    if suite in _ROLLING:
        return [(main, suite)]
    return [(main, suite), (main, f"{suite}-updates"), (security, f"{suite}-security")]


def _host(suite: str) -> list[tuple[str, str]]:
    """Return URI and suite of the host's own entries for `suite` (all of them for ""), or of Debian's mirror."""
    form = "$(REPO_URI) $(RELEASE)"
    listing = proc.run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])
    known = list(
        dict.fromkeys((uri.rstrip("/"), name) for uri, _, name in (x.partition(" ") for x in listing.splitlines()))
    )
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    found = [(uri, name) for uri, name in known if name in wanted or (not suite and "debian" in uri)]
    if suite and (not found or suite not in {name for _, name in found}):
        main = next((uri for uri, _ in known if uri.endswith("/debian")), DEBIAN)
        return _with_updates(main, f"{main}-security", suite)
    return found or [(DEBIAN, "stable")]


def _keyrings(into: Path) -> None:
    """Link the keyrings that the host's own apt trusts, and Debian's."""
    into.mkdir(parents=True)
    files = [*Path("/etc/apt/trusted.gpg.d").glob("*.[ga][ps][gc]"), _KEYRINGS / _KEYRING]
    for listing in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.*")]:
        text = listing.read_text(errors="replace") if listing.is_file() else ""
        files += [Path(name) for name in re.findall(r"[Ss]igned-[Bb]y[:=]\s*(/[^\s\],]+)", text)]
    found = {file.name: file for file in files if file.is_file()}
    if not found:
        raise MissingProgramError(
            "the keys of the Debian archive are not installed",
            hint="install them with: apt-get install debian-archive-keyring",
        )
    for name, file in found.items():
        (into / name).symlink_to(file)


def _configuration(folder: Path) -> str:
    """Return an apt.conf that looks at nothing of the host but its proxies."""
    dump = proc.run(["apt-config", "dump"])
    proxies = [line for line in dump.splitlines() if line.startswith(("Acquire::http::", "Acquire::https::"))]
    lines = [
        f'Dir::Etc "{folder}/etc";',
        f'Dir::Etc::SourceParts "{folder}/etc/sources.list.d";',
        f'Dir::Etc::Parts "{folder}/etc/apt.conf.d";',
        f'Dir::State "{folder}/state";',
        f'Dir::State::status "{folder}/status";',
        f'Dir::Cache "{folder}/cache";',
        f'Dir::Log "{folder}";',
        'APT::Install-Recommends "false";',
        'APT::Sandbox::User "root";',
        'Acquire::ForceHash "SHA256";',
        'Acquire::Languages "none";',
        'Acquire::Retries "2";',
        *proxies,
    ]
    return "".join(f"{line}\n" for line in lines)


def _materials(listing: str, role: str) -> tuple[Material, ...]:
    found = [
        Material(unquote(uri.rpartition("/")[2]).replace(":", "%3a"), uri, Digest("sha256", hex_), int(size), role)
        for uri, _, size, hex_ in _URI.findall(listing)
    ]
    return tuple(sorted(found, key=lambda one: one.name))
