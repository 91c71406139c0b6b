"""A root filesystem of Debian packages, by mmdebstrap, and a build.sh on top of it.

`lock` asks a private apt root which .deb files the packages need. `build` installs exactly those, from a local
repository and without network, so two builds of one lock give equal trees.
"""

import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

from computeops import proc
from computeops.build import apt, namespace, noise
from computeops.build.model import Built, Job, Material, Pins, Place
from computeops.errors import BuildError
from computeops.image.archive import TarFile
from computeops.recipe import Recipe

_INSIDE = "/usr/src/computeops"
"""Where build.sh and the sources are while it runs."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TAIL = 30
_FAILED = "computeops: the build file failed"


def detect(folder: Path) -> str:
    """A `build.sh` is for this builder."""
    return "build.sh" if (folder / "build.sh").is_file() else ""


def lock(_folder: Path, recipe: Recipe, place: Place) -> Pins:
    """Pin the .deb files of the image, and of what build.sh needs beside them."""
    build = recipe.build
    entries = apt.entries("deb", build.suite, build.components, mirror=place.mirror, snapshot=build.snapshot)
    with tempfile.TemporaryDirectory(dir=place.work, prefix="apt-") as scratch:
        archive = apt.Archive(Path(scratch), entries, place)
        image = archive.debs(build.packages)
        both = archive.debs([*build.packages, *build.build_packages]) if build.build_packages else image
    kept = {_package(one) for one in image}
    removed = sorted({_package(one) for one in both} - kept)
    return Pins(both, {"suite": build.suite, "removed": removed} if removed else {"suite": build.suite})


def build(job: Job) -> Built:
    """Install the locked packages into an empty root, run build.sh in it, and quieten what remains."""
    proc.need("mmdebstrap")
    proc.need("dpkg-deb")
    place = job.place
    repository, log, out = place.work / "repository", place.work / "build.log", place.work / "root.tar"
    _repository(job, repository)
    hook = place.work / "finish"
    hook.write_text(_hook(job))
    hook.chmod(0o755)
    environment = _environment(job, {"TMPDIR": str(place.work), "DEBIAN_FRONTEND": "noninteractive"})
    argv = [
        *namespace.prefix(network=job.recipe.build.network),
        *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
        *("mmdebstrap", "--mode=root", "--variant=essential", "--format=tar", "--skip=output/dev"),
        *(("--skip=chroot/mount/sys",) if job.recipe.build.network else ()),
        f"--include={','.join(sorted(_package(one) for one in job.lock.of_role('package')))}",
        *("--dpkgopt=force-confold", f'--customize-hook={shlex.quote(str(hook))} "$1"'),
        *(job.recipe.build.suite, str(out), f"deb [trusted=yes] copy:{repository} ./"),
    ]
    place.progress(f"installing {len(job.lock.of_role('package'))} packages")
    _run(argv, log, place)
    command = job.recipe.run.command
    return Built(
        tree=TarFile(out),
        command=command,
        env={"PATH": _PATH, "LANG": "C.UTF-8"},
        labels={},
        working_dir="",
        materials=job.lock.materials,
        log=log,
    )


def _package(material: Material) -> str:
    """Return the package of a .deb by its file name, `name_version_arch.deb`."""
    return material.name.partition("_")[0]


def _repository(job: Job, into: Path) -> None:
    """Make a flat apt repository of the locked .deb files; their digests were checked when they were fetched."""
    into.mkdir()
    stanzas = []
    for one in job.lock.of_role("package"):
        file = job.files[f"package/{one.name}"]
        (into / one.name).symlink_to(file)
        control = proc.run(["dpkg-deb", "-f", str(file)], error=BuildError).rstrip("\n")
        stanzas.append(f"{control}\nFilename: ./{one.name}\nSize: {file.stat().st_size}\nSHA256: {one.digest.hex}\n")
    (into / "Packages").write_text("\n".join(stanzas))
    suite = job.recipe.build.suite
    (into / "Release").write_text(f"Suite: {suite}\nCodename: {suite}\n")


def _environment(job: Job, more: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": _PATH,
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(job.place.epoch),
        "PYTHONHASHSEED": "0",  # the order of sets in the .pyc files that packages compile
        **more,
    }


def _hook(job: Job) -> str:
    """Return the script that mmdebstrap runs when all packages are installed, with the root in `$1`."""
    lines = ["#!/bin/sh", "set -eu", "root=$1"]
    if job.recipe.build.file:
        lines += _build_file(job, job.folder / job.recipe.build.file)
    if removed := [name for name in job.lock.options.get("removed", []) if isinstance(name, str)]:
        lines.append(f'chroot "$root" dpkg --purge --force-depends {shlex.join(removed)}')
    return "\n".join([*lines, noise.script()])


def _build_file(job: Job, file: Path) -> list[str]:
    """Return the lines that run the build file inside the root, its sources beside it."""
    variables = _environment(job, {"MAKEFLAGS": f"-j{job.place.jobs}" if job.place.jobs else "", **job.options})
    inside = f"{_INSIDE}/{file.name}"
    has_interpreter = file.read_bytes()[:2] == b"#!"
    command = [inside] if has_interpreter else ["/bin/sh", "-eu", inside]
    run = shlex.join(["env", "-i", "-C", _INSIDE, *(f"{k}={v}" for k, v in variables.items()), *command])
    copies = [f'cp {shlex.quote(str(path))} "$root{_INSIDE}/"{name}' for name, path in _inputs(job, file)]
    return [
        f'mkdir -p "$root{_INSIDE}"',
        *copies,
        f'chmod 755 "$root"{shlex.quote(inside)}',
        "umask 022",
        f'chroot "$root" {run} || {{ echo "{_FAILED} ($?)"; exit 1; }}',
        f'rm -rf "$root{_INSIDE}"',
    ]


def _inputs(job: Job, file: Path) -> list[tuple[str, Path]]:
    named = [(shlex.quote(name), path) for name, path in job.sources().items()]
    return [*named, (shlex.quote(file.name), file)]


def _run(argv: list[str], log: Path, place: Place) -> None:
    """Run mmdebstrap with its output in `log`; the error of a failed build carries the end that matters."""
    tail: list[str] = []
    with log.open("w") as file:

        def line(text: str) -> None:
            file.write(f"{text}\n")
            if _FAILED not in "".join(tail[-1:]):
                tail[:] = [*tail[1 - _TAIL :], text]
            if text.startswith("I: "):
                place.progress(text.removeprefix("I: "))

        try:
            proc.stream(argv, line=line, error=BuildError)
        except BuildError as error:
            shown = "\n".join(f"  {text}" for text in tail)
            raise BuildError(f"mmdebstrap failed:\n{shown}", hint=f"the whole output is in {log}") from error
