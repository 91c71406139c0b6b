"""What the tests of engines share: a small image of the machine's own programs, and `computeops` as a user runs it."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from computeops.image import convert, oci
from computeops.image.tree import Directory

PROGRAMS = ("sh", "bash", "cat", "env", "ls", "sleep", "true")
SOURCES = Path(__file__).parents[1] / "src"


def root_filesystem(folder: Path) -> Path:
    """A root filesystem of a few of the machine's own programs, with the libraries that they need."""
    for name in PROGRAMS:
        found = Path(shutil.which(name) or "/bin/sh").resolve()
        listed = subprocess.run(["ldd", str(found)], capture_output=True, check=True).stdout.decode()
        for path in [found, *(Path(word) for word in listed.split() if word.startswith("/"))]:
            target = folder / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        (folder / "bin").mkdir(exist_ok=True)
        if not (folder / "bin" / name).exists():
            (folder / "bin" / name).symlink_to(f"/{found.relative_to('/')}")
    (folder / "etc").mkdir()
    (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nservice:x:77:77::/:/bin/false\n")
    (folder / "etc/group").write_text("root:x:0:\n")
    return folder


def image(folder: Path) -> Path:
    """A SIF of such a root filesystem, and an OCI layout of it beside."""
    convert.pack(
        Directory(root_filesystem(folder / "tree")),
        oci.Description(
            "amd64", env={"COLOUR": "blue", "PATH": "/usr/bin:/bin"}, command=("sh", "-c", 'echo "ran $*"')
        ),
        to_sif=folder / "small.sif",
        to_layout=folder / "small.oci",
        writer=convert.Writer(level=1),
        epoch=315532800,
    )
    return folder / "small.sif"


def packed(tree: Path, sif: Path) -> Path:
    """A SIF of a root filesystem."""
    writer = convert.Writer(level=1)
    convert.pack(Directory(tree), oci.Description("amd64"), to_sif=sif, writer=writer, epoch=315532800)
    return sif


@functools.cache
def python_of(prefix: tuple[str, ...]) -> tuple[str, str]:
    """A Python that the user behind `prefix` may execute, and the PYTHONPATH with which it has computeops."""
    path = os.pathsep.join([str(SOURCES), *(one for one in sys.path if "site-packages" in one)])
    same = f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"  # compiled modules fit only this version
    for python in (sys.executable, same):
        argv = [*prefix, "env", "HOME=/nonexistent", f"PYTHONPATH={path}", python, "-m", "computeops", "exec", "--help"]
        try:
            if subprocess.run(argv, capture_output=True, check=False, cwd="/").returncode == 0:
                return python, path
        except OSError:
            continue
    pytest.skip("the ordinary user can execute no Python that has the dependencies of computeops")


def set_up(launch: "Launcher", engine: str, docker_host: Callable[[], str]) -> None:
    """Give `launch` what an engine needs that keeps things of its own: all of it in the user's home."""
    home = launch.home
    if engine == "docker":
        launch.extra["DOCKER_HOST"] = docker_host()
    if engine == "podman-hpc":
        places = {f"PODMANHPC_{name}": str(home / name.lower()) for name in ("GRAPH_ROOT", "RUN_ROOT", "CONFIG_HOME")}
        launch.extra.update(places, SQUASH_DIR=str(home / "squash"))
    if engine == "udocker":  # its own tools come from the network; Debian has the same
        tools = home / "udocker_dir/lib"
        tools.mkdir(parents=True)
        (tools / "VERSION").write_text("1.2.11")
        subprocess.run(["tar", "-C", home, "-czf", home / "tools.tgz", "udocker_dir"], check=True)
        launch.scientist.own(home)
        launch.scientist.run(["udocker", "install"], env={"UDOCKER_TARBALL": str(home / "tools.tgz")})
        launch.extra["UDOCKER_USE_PROOT_EXECUTABLE"] = shutil.which("proot") or ""


class Launcher:
    """`computeops` as an ordinary user with a cache of their own."""

    def __init__(self, scientist) -> None:
        self.scientist = scientist
        self.home: Path = scientist.home
        self.cache = self.home / ".cache/computeops"
        self.extra: dict[str, str] = {}
        self._python, self._path = python_of(tuple(scientist.argv([])))

    def argv(self, *words: str | Path) -> list[str]:
        return self.scientist.argv([self._python, "-m", "computeops", *words])

    def env(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return self.scientist.env(
            {"PYTHONPATH": self._path, "PYTHONDONTWRITEBYTECODE": "1", **self.extra, **(more or {})}
        )

    def __call__(
        self,
        *words: str | Path,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        wrap: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end, whatever the exit code."""
        return subprocess.run(
            [*wrap, *self.argv(*words)],
            input=stdin,
            env=self.env(env),
            cwd=cwd or self.home,
            capture_output=True,
            check=False,
            timeout=300,
        )

    def start(self, *words: str | Path, **how) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.argv(*words), env=self.env(), cwd=self.home, **how)
