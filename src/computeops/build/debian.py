"""A root filesystem of Debian packages, by mmdebstrap, and a build.sh on top of it.

`lock` asks a private apt root which .deb files the packages need. `build` installs exactly those, from a local
repository and without network, so two builds of one lock give equal trees.
"""

import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from computeops import proc
from computeops.build import apt, log, namespace
from computeops.build.model import Built, Job, Material, Pins, Place
from computeops.build.noise import Quiet
from computeops.errors import BuildError, RecipeError
from computeops.image.archive import TarFile
from computeops.model import Digest
from computeops.recipe import Recipe

_INSIDE = "/usr/src/computeops"
"""Where build.sh and the sources are while it runs."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CAPABILITIES = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+net_bind_service,+setfcap,+setgid,+setpcap,+setuid"
"""What a container usually may, less chroot: enough to install, not enough to leave the root."""
_FAILED = "computeops: the build file failed"


def detect(folder: Path) -> str:
    """A `build.sh` is for this builder."""
    return "build.sh" if (folder / "build.sh").is_file() else ""


def lint(folder: Path, recipe: Recipe) -> Sequence[str]:
    """Say what will not last, and refuse a build file that no shell can read."""
    name = recipe.build.file
    if name and b"\r\n" in (folder / name).read_bytes():
        raise RecipeError(
            f"{name} has line ends of Windows, which no shell understands", hint=f"run: sed -i 's/\\r$//' {name}"
        )
    if recipe.build.snapshot:
        return ()
    return ("build.snapshot is not set: a mirror drops versions of packages that the lock names when newer ones come",)


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
    place, network = job.place, job.recipe.build.network
    repository, out = place.work / "repository", place.work / "root.tar"
    _repository(job, repository)
    hook = place.work / "finish"
    hook.write_text(_hook(job))
    hook.chmod(0o755)
    packages = job.lock.of_role("package")
    with namespace.box(place.work, readable=[place.cache / "sources"], network=network) as box:
        environment = _environment(job, {"TMPDIR": str(box.folder), "DEBIAN_FRONTEND": "noninteractive"})
        argv = box.argv(
            *("env", "-i", *(f"{name}={value}" for name, value in environment.items())),
            *("mmdebstrap", "--mode=root", "--variant=essential", "--format=tar"),
            *("--skip=output/dev", "--skip=chroot/mount/sys"),
            f"--include={','.join(sorted(_package(one) for one in packages))}",
            *(
                "--dpkgopt=force-confold",
                "--dpkgopt=force-unsafe-io",
                f'--customize-hook={shlex.quote(str(hook))} "$1"',
            ),
            *(job.recipe.build.suite, str(out), f"deb [trusted=yes] copy:{repository} ./"),
        )
        place.progress(f"installing {len(packages)} packages")
        log.follow(argv, log.path(job), what="mmdebstrap", progress=place.progress, step=_step, last=_FAILED)
    return Built(
        tree=Quiet(TarFile(out)),
        command=(),
        env={"PATH": _PATH, "LANG": "C.UTF-8"},
        labels={},
        working_dir="",
        materials=job.lock.materials,
        log=log.path(job),
    )


def scripted(job: Job, recipe: Recipe, script: str, beside: Mapping[str, Path]) -> Built:
    """Build `recipe` with `script` as its build file, which finds the sources of `job`, and `beside`, next to it."""
    folder = job.place.work / "scripted"
    folder.mkdir()
    (folder / "build.sh").write_text(script)
    more = tuple(Material(name, "", Digest.of(b"")) for name in beside)
    part = msgspec.structs.replace(recipe.build, builder="debian", file="build.sh")
    inside = replace(
        job,
        folder=folder,
        recipe=msgspec.structs.replace(recipe, build=part),
        lock=replace(job.lock, materials=(*job.lock.materials, *more)),
        files={**job.files, **{f"source/{name}": path for name, path in beside.items()}},
    )
    return replace(build(inside), materials=job.lock.materials)


def _step(line: str) -> str:
    return line.removeprefix("I: ") if line.startswith("I: ") else ""


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
    # what names a folder of this build, or was for its speed only
    inside = ["rm -f /etc/apt/sources.list /etc/dpkg/dpkg.cfg.d/99mmdebstrap"]
    lines = ["#!/bin/sh", "set -eu", "umask 022", "root=$1"]
    if job.recipe.build.file:
        file = job.folder / job.recipe.build.file
        copy = job.place.work / "build-file"
        shutil.copyfile(file, copy)
        copies = [*job.sources().items(), (file.name, copy)]
        lines.append(f'mkdir -p "$root{_INSIDE}"')
        lines += [f'cp {shlex.quote(str(path))} "$root{_INSIDE}/"{shlex.quote(name)}' for name, path in copies]
        lines.append(f'chmod 755 "$root{_INSIDE}/"{shlex.quote(file.name)}')
        inside += [f'{_call(job, file)} || {{ echo "{_FAILED} ($?)"; exit 1; }}', f"rm -rf {_INSIDE}"]
    if removed := [name for name in job.lock.options.get("removed", []) if isinstance(name, str)]:
        inside.append(f"dpkg --purge --force-depends {shlex.join(removed)}")
    # all in one: once the build file has run, no program of the root is ours to start any more
    script = shlex.quote("\n".join(["set -eu", *inside]))
    lines.append(f'chroot "$root" setpriv --bounding-set={_CAPABILITIES} sh -c {script}')
    return "\n".join([*lines, ""])


def _call(job: Job, file: Path) -> str:
    """Return the command that runs the build file inside the root."""
    variables = _environment(job, {"MAKEFLAGS": f"-j{job.place.jobs}" if job.place.jobs else "", **job.options})
    inside = f"{_INSIDE}/{file.name}"
    has_interpreter = file.read_bytes()[:2] == b"#!"
    command = [inside] if has_interpreter else ["/bin/sh", "-eu", inside]
    return shlex.join(["env", "-i", "-C", _INSIDE, *(f"{k}={v}" for k, v in variables.items()), *command])
