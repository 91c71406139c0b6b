"""Build the recipes of `tests/recipes` in this process, or as another user, and say what came out.

As a program: FOLDER VARIANT WORK CACHE JOBS; prints `Seen` as JSON.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from computeops import build, recipe
from computeops.build.model import Built
from computeops.image import convert, oci
from computeops.image.tree import Directory, Tree

EPOCH = 315532800
RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Seen:
    """What a build made."""

    command: list[str]
    env: dict[str, str]
    labels: dict[str, str]
    files: dict[str, str]
    """Path to everything about it but its time, the content as a digest."""


def base_layout(into: Path, env: Mapping[str, str] | None = None) -> Path:
    """Write a tiny image, Busybox alone, as an OCI layout."""
    busybox = shutil.which("busybox")
    if not busybox:
        from backends import missing_program

        missing_program("busybox")
    root = into.with_name(f"{into.name}-root")
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    shutil.copyfile(busybox, root / "bin/busybox")
    (root / "bin/busybox").chmod(0o755)
    for name in (
        "cat",
        "chmod",
        "chown",
        "echo",
        "env",
        "id",
        "ls",
        "mkdir",
        "printf",
        "sh",
        "sleep",
        "test",
        "touch",
        "wc",
        "wget",
    ):
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    description = oci.Description("amd64", env or {})
    convert.pack(Directory(root), description, to_layout=into, writer=convert.Writer(), epoch=EPOCH)
    shutil.rmtree(root)
    return into


def copy_recipe(name: str, into: Path) -> Path:
    """Copy a recipe of `tests/recipes`, with a base image beside it."""
    shutil.copytree(RECIPES / name, into)
    if name != "debian":
        base_layout(into / "base.oci")
    into.chmod(0o755)
    return into


def run(folder: Path, work: Path, cache: Path, variant: str = "", *, jobs: int = 0, mirror: str = "") -> Built:
    return build.build(
        folder,
        recipe.load(folder),
        variant,
        build.read_lock(folder),
        work=work,
        cache=cache,
        epoch=EPOCH,
        mirror=mirror,
        pypi="http://127.0.0.1:9",
        jobs=jobs,
    )


def look(built: Built) -> Seen:
    return Seen(list(built.command), dict(built.env), dict(built.labels), files(built.tree))


def files(tree: Tree) -> dict[str, str]:
    found = {}
    for entry, data in tree.items():
        content = hashlib.sha256(b"".join(data)).hexdigest()[:16]
        found[entry.path] = (
            f"{entry.kind.value} {entry.mode:o} {entry.uid}:{entry.gid} {entry.size} {entry.target} {content}"
        )
    return found


def as_scientist(scientist: Any, folder: Path, *, jobs: int = 0, cache: Path | None = None) -> Seen:
    """Build as an ordinary user; nothing of it stays behind."""
    python = Path(sys.executable).resolve()
    if scientist.run(["test", "-x", python], check=False).returncode:
        python = Path("/usr/bin/python3.11") if sys.version_info[:2] == (3, 11) else Path("/usr/bin/python3")
    env = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONDONTWRITEBYTECODE": "1"}
    if scientist.run([python, "-c", "import msgspec, computeops"], env=env, check=False).returncode:
        pytest.skip("the ordinary user has no Python that can import this one's packages")
    work = scientist.home / "work"
    argv = [python, Path(__file__), folder, "", work, cache or scientist.home / "cache", str(jobs)]
    answer = json.loads(scientist.run(argv, env=env).stdout)
    scientist.run(["rm", "-r", work])  # nothing in it belongs to anybody else
    return Seen(**answer)


def main() -> None:
    folder, variant, work, cache, jobs = sys.argv[1:]
    seen = look(run(Path(folder), Path(work), Path(cache), variant, jobs=int(jobs)))
    json.dump(asdict(seen), sys.stdout)


if __name__ == "__main__":
    main()
