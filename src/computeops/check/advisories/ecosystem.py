"""Ecosystems: how their names are written, how they order versions, and which of them an image's system is.

Names as in the OSV schema (https://ossf.github.io/osv-schema/#defined-ecosystems), made equal where they differ in
spelling only.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from computeops.check.inventory import System
from computeops.check.versions import pep440

_SCHEMES: Mapping[str, str] = {
    "Debian": "deb",
    "Ubuntu": "deb",
    "Echo": "deb",
    "Alpine": "apk",
    "Wolfi": "apk",
    "Chainguard": "apk",
    "MinimOS": "apk",
    "Alpaquita": "apk",
    "BellSoft Hardened Containers": "apk",
    "AlmaLinux": "rpm",
    "Azure Linux": "rpm",
    "Mageia": "rpm",
    "Photon OS": "rpm",
    "Red Hat": "rpm",
    "Rocky Linux": "rpm",
    "SUSE": "rpm",
    "openSUSE": "rpm",
    "openEuler": "rpm-no-epoch",
    "PyPI": "pep440",
    "npm": "semver",
    "Go": "semver",
    "crates.io": "semver",
    "Hex": "semver",
    "Pub": "julia",
    "SwiftURL": "semver",
    "Bitnami": "bitnami",
    "GitHub Actions": "semver",
    "Julia": "julia",
    "Maven": "maven",
    "NuGet": "nuget",
    "Packagist": "semver",
    "RubyGems": "gem",
}
_KINDS: Mapping[str, str] = {
    "pypi": "PyPI",
    "npm": "npm",
    "golang": "Go",
    "cargo": "crates.io",
    "gem": "RubyGems",
    "maven": "Maven",
    "nuget": "NuGet",
    "composer": "Packagist",
    "cran": "CRAN",
    "bioconductor": "Bioconductor",
    "julia": "Julia",
    "hackage": "Hackage",
    "hex": "Hex",
    "pub": "Pub",
    "swift": "SwiftURL",
    "bitnami": "Bitnami",
}
"""Type of purl to the ecosystem of the language."""
_DEBIAN_RELEASES: Mapping[str, str] = {
    "wheezy": "7",
    "jessie": "8",
    "stretch": "9",
    "buster": "10",
    "bullseye": "11",
    "bookworm": "12",
    "trixie": "13",
    "forky": "14",
    "duke": "15",
}
_BINARY_NAMES = frozenset({"AlmaLinux", "Red Hat", "Rocky Linux"})
_ANY_CASE = frozenset({"NuGet", "Packagist", "Pub"})
_RUN = re.compile(r"[-_.]+")
_RED_HAT = re.compile(r"Red Hat:(?:enterprise_linux|rhel):(\d+)(?:\.\d+)?(?:::.*)?")
_SUSE = re.compile(r"SUSE:Linux Enterprise (?!Micro|Real).*?(\d+)(?:(?: SP|\.)([1-9]\d*)|\.0)?(?:-.*)?")
_MAJOR = re.compile(r"\d+")


def normal(ecosystem: str) -> str:
    """Return the name of an ecosystem as the index writes it: without `:LTS`, and Red Hat's CPE as `Red Hat:9`.

    SUSE publishes for each module and product (`SUSE:Linux Enterprise Module for Basesystem 15 SP5`): parts of one
    system with one version of a package, `SUSE:15.5`.
    """
    name = ecosystem.strip().removesuffix(":LTS")
    if match := _RED_HAT.fullmatch(name):
        return f"Red Hat:{match[1]}"
    if match := _SUSE.fullmatch(name):
        return f"SUSE:{match[1]}.{match[2]}" if match[2] else f"SUSE:{match[1]}"
    base, colon, rest = name.partition(":")
    return f"{base}:v{rest}" if base == "Alpine" and colon and rest[:1].isdigit() else name


def scheme(ecosystem: str) -> str:
    """Return the order of the versions of `ecosystem`, a name in `versions.SCHEMES`."""
    return _SCHEMES.get(ecosystem.partition(":")[0], "loose")


def is_distribution(ecosystem: str) -> bool:
    """Return whether its packages are those of a Linux distribution."""
    return scheme(ecosystem) in {"deb", "rpm", "rpm-no-epoch", "apk"}


def by_binary_name(ecosystem: str) -> bool:
    """Return whether its advisories name the packages that are installed, not their source packages."""
    return ecosystem.partition(":")[0] in _BINARY_NAMES


def name_of(ecosystem: str, name: str) -> str:
    """Return the name of a package as the index writes it: for Python as in PEP 503."""
    if ecosystem == "PyPI":
        return _RUN.sub("-", name).lower()
    return name.lower() if ecosystem in _ANY_CASE else name


def version_of(ecosystem: str, version: str) -> str:
    """Return the version that advisories speak of: `2.1.0` of `2.1.0+cu118`, where PEP 440 labels who built it."""
    return version.partition("+")[0] if ecosystem == "PyPI" and pep440.is_version(version) else version


def of_kind(kind: str) -> str:
    """Return the ecosystem of a language's packages of this purl type, or ""."""
    return _KINDS.get(kind, "")


def debian(codename: str) -> str:
    """Return `Debian:12` for `bookworm`; "" for a release without a name here."""
    if codename == "sid":
        return "Debian:sid"
    return f"Debian:{_DEBIAN_RELEASES[codename]}" if codename in _DEBIAN_RELEASES else ""


def debian_codename(version: str) -> str:
    """Return `bookworm` for `12`, `12.5` or `bookworm`; "" for a release without a name here."""
    major = _major(version)
    return next((name for name, number in _DEBIAN_RELEASES.items() if major == number or version == name), "")


def of_system(system: System) -> Sequence[str]:
    """Return the ecosystems whose advisories are about the packages of `system`; none for one that publishes none."""
    if system.id in _OWN_RULES:
        return _OWN_RULES[system.id](system)
    known = _OTHERS.get(system.id, "")
    major = _major(system.version)
    return (known.format(major=major, version=system.version),) if known and (major or "{" not in known) else ()


def _major(version: str) -> str:
    match = _MAJOR.match(version)
    return match[0] if match else ""


def _debian(system: System) -> Sequence[str]:
    if major := _major(system.version):
        return (f"Debian:{major}",)
    # Testing and unstable say `trixie` or `trixie/sid`: before its release, a release is looked after as itself.
    return (debian(system.version.partition("/")[0]) or "Debian:sid",)


def _ubuntu(system: System) -> Sequence[str]:
    return (f"Ubuntu:{system.version}", f"Ubuntu:Pro:{system.version}") if system.version else ()


def _alpine(system: System) -> Sequence[str]:
    parts = system.version.split(".")
    if "_" in system.version or len(parts) < 2:  # "3.21.0_alpha20240807" is edge
        return ("Alpine:edge",) if parts[0] else ()
    return (f"Alpine:v{parts[0]}.{parts[1]}",)


def _red_hat(system: System) -> Sequence[str]:
    # CentOS Stream is ahead of the release whose number it has: no advisories are published for it.
    major = _major(system.version)
    return (f"Red Hat:{major}",) if major and "stream" not in system.title.lower() else ()


def _openeuler(system: System) -> Sequence[str]:
    """`openEuler 22.03 (LTS-SP1)` is 22.03-LTS-SP1."""
    match = re.search(r"\(([\w-]+)\)", system.title)
    return (f"openEuler:{system.version}-{match[1]}" if match else f"openEuler:{system.version}",)


def _suse(system: System) -> Sequence[str]:
    return (f"SUSE:{system.version.removesuffix('.0')}",) if system.version else ()


_OWN_RULES: Mapping[str, Callable[[System], Sequence[str]]] = {
    "debian": _debian,
    "ubuntu": _ubuntu,
    "alpine": _alpine,
    "rhel": _red_hat,
    "centos": _red_hat,
    "scientific": _red_hat,
    "openeuler": _openeuler,
    "sled": _suse,
    "sles": _suse,
    "sles_sap": _suse,
}
_OTHERS: Mapping[str, str] = {
    "almalinux": "AlmaLinux:{major}",
    "alpaquita": "Alpaquita:{version}",
    "azurelinux": "Azure Linux:{major}",
    "chainguard": "Chainguard",
    "mageia": "Mageia:{major}",
    "mariner": "Azure Linux:{major}",
    "minimos": "MinimOS",
    "opensuse": "openSUSE:Leap {version}",
    "opensuse-leap": "openSUSE:Leap {version}",
    "opensuse-tumbleweed": "openSUSE:Tumbleweed",
    "photon": "Photon OS:{version}",
    "rocky": "Rocky Linux:{major}",
    "sle-micro": "SUSE:Linux Enterprise Micro {version}",
    "wolfi": "Wolfi",
}
"""ID of os-release to the name of the ecosystem, with what of the version belongs to it."""
