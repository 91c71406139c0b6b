"""The commands that get and run a release, as people paste them: for each tool, from this hub."""

import re
from dataclasses import dataclass

from computeops.errors import UsageError
from computeops.hub.listed import Listed

_BASE = re.compile(r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")
_ARCHITECTURES = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Commands:
    """How one tool gets and runs a release."""

    title: str
    get: str
    run: str
    note: str = ""
    """What must be known first."""


def commands(base: str, release: Listed, *, has_sif: bool) -> dict[str, Commands]:
    """Return the commands of each tool for the hub at `base`, an address without a `/` at its end.

    Raises:
        UsageError: `base` is no address; it may come from a header of the request.
    """
    match = _BASE.fullmatch(base)
    if match is None:
        raise UsageError("the Host header is not a name", hint="ask for this page by the hub's own address")
    plain, host = match[1] == "http", base.partition("://")[2]
    image = f"{host}/{release.reference}"
    own = base + "/" + release.reference if plain else image
    library = f"library://{image}"
    no_https, no_tls = (" --no-https", " --tls-verify=false") if plain else ("", "")
    apptainer, containers = _platform(release.arch)
    found = {"computeops": Commands("ComputeOps", f"computeops pull {own}", f"computeops run {own}")}
    if has_sif:
        found["apptainer"] = Commands(
            "Apptainer", f"apptainer pull{no_https}{apptainer} {library}", f"apptainer run{no_https} {library}"
        )
    found["podman"] = Commands(
        "Podman", f"podman pull{no_tls}{containers} {image}", f"podman run{no_tls} --rm -it {image}"
    )
    note = f'The daemon must have "{host}" in its insecure-registries.' if plain and not _is_local(match[2]) else ""
    found["docker"] = Commands("Docker", f"docker pull{containers} {image}", f"docker run --rm -it {image}", note)
    return found


def _platform(arch: str) -> tuple[str, str]:
    """Return the options that ask for an architecture which is not the most usual one."""
    if arch in {"", "amd64"} or not _ARCHITECTURES.fullmatch(arch):
        return "", ""
    return f" --arch {arch}", f" --platform linux/{arch}"


def _is_local(host: str) -> bool:
    return host in {"localhost", "[::1]"} or host.startswith("127.")
