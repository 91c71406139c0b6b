"""What other tools locked of an environment of conda: pixi, conda-lock, and `conda list --explicit --sha256`."""

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from computeops.build.model import Material
from computeops.errors import FormatError, MissingProgramError, RecipeError
from computeops.limits import LIMITS
from computeops.model import Digest

NAMES = ("pixi.lock", "conda-lock.yml")
PIP = "name them as packages of conda, or take the builder `python` for a requirements.txt of all"
_SUBDIRS = {"x86_64": "linux-64", "aarch64": "linux-aarch64", "ppc64le": "linux-ppc64le"}
_EXPLICIT = re.compile(r"^@EXPLICIT\s*$", re.MULTILINE)
_LINE = re.compile(r"(\S+/([a-z0-9-]+)/([^/\s]+\.(?:conda|tar\.bz2)))#(?:sha256:)?([0-9a-f]{64})")


def is_one(file: Path) -> bool:
    """Whether `file` is what a tool locked, and not an environment that is still to be solved."""
    return file.name == "pixi.lock" or "conda-lock" in file.name or bool(_EXPLICIT.search(text(file)))


def read(file: Path) -> list[Material]:
    """Return the packages for this machine that `file` names.

    Raises:
        RecipeError: it has none, or some that are not pinned by SHA-256 or not of conda.
    """
    if file.name == "pixi.lock":
        found = _by_pixi(file)
    else:
        found = _by_conda_lock(file) if "conda-lock" in file.name else _explicit(file)
    if not found:
        raise RecipeError(f"{file.name} has no packages for {subdir()}", hint="lock it for this platform too")
    return found


def subdir() -> str:
    """Return what conda calls this machine."""
    return _SUBDIRS.get(platform.machine(), "")


def _explicit(file: Path) -> list[Material]:
    made = []
    for line in text(file).splitlines():
        if line.strip() and not line.startswith(("#", "@EXPLICIT")):
            found = _LINE.fullmatch(line.strip())
            if found is None:
                hint = "the list of `conda list --explicit --sha256` has them"
                raise RecipeError(f"{file.name}: no package with its sha256: {line.strip()[:160]}", hint=hint)
            made.append(_material(found[2], found[3], found[1], found[4]))
    return made


def _by_pixi(file: Path) -> list[Material]:
    made = rattler()
    try:
        environment = made.LockFile.from_path(file).default_environment()
        ours = [one for one in environment.platforms() if str(one.name) == subdir()]
        packages = [one for each in ours for one in environment.packages(each) or ()]
        records = {one.name: getattr(one, "repo_data_record", lambda: None)() for one in packages}
    except Exception as error:
        raise RecipeError(f"{file.name}: {str(error)[:2000]}") from error
    if others := [name for name, record in records.items() if record is None]:
        raise RecipeError(f"{file.name}: {others[0]} is no package of conda", hint=PIP)
    return [of_record(one) for one in records.values()]


def _by_conda_lock(file: Path) -> list[Material]:
    made = []
    try:
        for one in yaml(file)["package"]:
            if one["platform"] == subdir():
                if one["manager"] != "conda":
                    raise RecipeError(f"{file.name}: {one['name']} is no package of conda", hint=PIP)
                where, _, name = str(one["url"]).rpartition("/")
                made.append(_material(where.rpartition("/")[2], name, one["url"], one["hash"]["sha256"]))
    except (KeyError, TypeError) as error:
        raise RecipeError(f"{file.name} is not what conda-lock writes: {error!r}") from None
    return made


def of_record(record: Any) -> Material:
    """Return a package as rattler found it.

    Raises:
        RecipeError: it is not pinned by SHA-256.
    """
    if not record.sha256:
        raise RecipeError(f"{record.file_name} has no sha256 in its channel")
    return _material(record.subdir, record.file_name, str(record.url), record.sha256.hex(), record.size or 0)


def _material(subdir: str, name: str, url: str, sha256: str, size: int = 0) -> Material:
    try:
        return Material(f"{subdir}:{name}", url, Digest.parse(f"sha256:{sha256}"), size, "conda")
    except FormatError as error:
        raise RecipeError(f"{name}: {error.message}") from None


def text(file: Path) -> str:
    """Return what a build file says.

    Raises:
        RecipeError: it says too much.
    """
    with file.open("rb") as stream:
        data = stream.read(LIMITS.solved_bytes + 1)
    if len(data) > LIMITS.solved_bytes:
        raise RecipeError(f"{file.name} has more than {LIMITS.solved_bytes} bytes")
    return data.decode(errors="replace")


def rattler() -> Any:
    """Return the module py-rattler.

    Raises:
        MissingProgramError: it is not installed.
    """
    try:
        import rattler as found
    except ImportError:
        raise MissingProgramError("py-rattler is not installed", hint="pip install 'computeops[conda]'") from None
    return found


def yaml(file: Path) -> Mapping[str, Any]:
    """Return the table in a file of YAML.

    Raises:
        RecipeError: it is no YAML.
        MissingProgramError: PyYAML is not installed.
    """
    try:
        import yaml as reader  # type: ignore[import-untyped]  # no stubs: they would be one more dependency
    except ImportError:
        raise MissingProgramError("PyYAML is not installed", hint="pip install 'computeops[conda]'") from None
    try:
        found = reader.safe_load(text(file))
    except (reader.YAMLError, RecursionError) as error:
        raise RecipeError(f"{file.name}: {' '.join(str(error).split())[:300]}") from None
    return found if isinstance(found, dict) else {}
