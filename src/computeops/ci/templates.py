"""The pipeline files of a repository with a recipe in it, for GitLab and GitHub.

They are the files beside this module with `@NAME@` filled in: short on purpose, for `computeops ci run` does the work.
"""

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from computeops.errors import ConflictError, UsageError
from computeops.files import whole_file

FILES: Mapping[str, Mapping[str, str]] = {
    "gitlab": {".gitlab-ci.yml": "gitlab.yml", ".gitlab/computeops.yml": "gitlab-component.yml"},
    "github": {".github/workflows/computeops.yml": "github.yml"},
}
"""Service to the files it gets, each with the name of its template."""
_PATH = re.compile(r"[A-Za-z0-9._+-]+(?:/[A-Za-z0-9._+-]+)*")


def files(service: str, *, folder: str, release: str, hub: str, version: str) -> Mapping[str, str]:
    """Return path and content of the files for `service`.

    Args:
        service: gitlab or github.
        folder: the recipe's folder, seen from the repository's.
        release: `hub/collection/name` to publish as.
        hub: address of the hub.
        version: of computeops that the pipeline installs.

    Raises:
        UsageError: `folder` has characters that would have to be quoted differently in each place.
    """
    if not _PATH.fullmatch(folder):
        raise UsageError(
            f"a pipeline cannot name the folder {folder!r}", hint="use letters, digits and . _ + - in its name"
        )
    words = {"FOLDER": folder, "RELEASE": release, "HUB": hub, "VERSION": version}
    return {path: _filled(template, words) for path, template in FILES[service].items()}


def write(root: Path, found: Mapping[str, str], *, force: bool = False) -> None:
    """Write the files below the folder `root`; each appears whole.

    Raises:
        ConflictError: one is there with another content, and `force` is not given; then none is written.
    """
    others = [path for path, text in found.items() if _differs(root / path, text)]
    if others and not force:
        raise ConflictError(
            f"{', '.join(str(root / path) for path in others)}: there is one already",
            hint="compare, then write over it with --force",
        )
    for path, text in found.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(root / path) as file:
            file.write(text.encode())


def _differs(file: Path, text: str) -> bool:
    return (file.exists() or file.is_symlink()) and (not file.is_file() or file.read_bytes() != text.encode())


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = resources.files("computeops.ci").joinpath(template).read_text()
    return re.sub(r"@([A-Z]+)@", lambda match: words[match[1]], text)
