"""What a build file sees of the recipe: its archived sources, and nothing else that lies beside it."""

import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from computeops.build import sources
from computeops.build.model import Job
from computeops.errors import FormatError
from computeops.recipe import PathSource


def hints(copies: str, runs: str) -> Mapping[str, str]:
    """Return what to say where a build file misses something, by a sign of it in the output; of steps in its words."""
    file = f"{copies} only the [[sources]] of the recipe: add path = ... for each file"
    network = f"{runs} no network: add the file to [[sources]], or set network = true in [build]"
    return {
        "no such file or directory": file,
        "no source files found": file,
        "Temporary failure": network,
        "Could not resolve": network,
        "bad address": network,
    }


def lay(job: Job, into: Path) -> Path:
    """Put the sources of `job` and its build file into the new folder `into` and return it.

    A source `path` has its own place there, a folder is unpacked again; every other source is a file by its name.
    """
    into.mkdir()
    paths = {f"path:{one.path}": one.path for one in job.recipe.sources if isinstance(one, PathSource)}
    for material in job.lock.of_role("source"):
        file = job.files[f"source/{material.name}"]
        place = paths.get(material.uri)
        if place is None:
            shutil.copyfile(file, into / material.name)
        elif (job.folder / place).is_dir():
            _unpack(file, into / place)
        else:
            (into / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, into / place)
            (into / place).chmod(0o755 if os.access(job.folder / place, os.X_OK) else 0o644)
    for one in [into, *into.rglob("*")]:
        if not one.is_symlink():
            one.chmod(0o755 if one.is_dir() or one.stat().st_mode & 0o100 else 0o644)
        os.utime(one, (job.place.epoch, job.place.epoch), follow_symlinks=False)
    return into


def _unpack(archive: Path, into: Path) -> None:
    """Unpack the tar of a folder, whose first entry is the folder itself."""
    into.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            top = tar.getmembers()[0].name
        sources.restore(
            archive, into.parent
        )  # `extractall` is safe from Python 3.11.4 on only, and Debian 12 has 3.11.2
        if top != into.name:
            (into.parent / top).rename(into)
    except (tarfile.TarError, IndexError, OSError) as error:
        raise FormatError(f"{archive} is not the tar of a folder: {error}") from error
