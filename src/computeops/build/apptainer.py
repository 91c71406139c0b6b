"""A root filesystem from an Apptainer definition file, by Apptainer, with every image it starts from pinned by digest.

Apptainer runs as root of a box (`namespace`): %setup and %pre see that box and not the host, %post has no network
unless the recipe says so, %files copies from the recipe's sources. %test is kept in the image and not run by the build.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from computeops import proc
from computeops.build import bases, context, definition, log, namespace, shellenv, sources
from computeops.build.dockerfile import build_file
from computeops.build.model import Built, Job, Material, Pins, Place, moving
from computeops.build.noise import Quiet
from computeops.errors import BuildError, RecipeError, did_you_mean
from computeops.image.archive import TarFile
from computeops.image.tree import Entry, Item, Kind, read_files
from computeops.limits import LIMITS
from computeops.recipe import Recipe

_LABELS = ".singularity.d/labels.json"
_RUNSCRIPT = "/.singularity.d/definition/runscript"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOCAL = {"localimage", "oci", "oci-archive", "docker-archive"}
_HINTS = context.hints("%files sees", "%post has")
# The scripts of the definition get names that do not collide with the image's own; its environment comes before the
# recipe's, so that the recipe wins. The tree is the box's own, so a hostile link leads nowhere.
_ARRANGE = """
set -eu
cd "$1/.singularity.d"
mkdir -p definition
[ ! -f runscript ] || mv runscript definition/runscript
rm -f Singularity
cp "$2" Singularity
chmod 644 Singularity
[ ! -f env/90-environment.sh ] || mv env/90-environment.sh env/20-environment.sh
[ ! -f env/91-environment.sh ] || mv env/91-environment.sh env/21-environment.sh
"""
_EXPORTS = """
for script in /.singularity.d/env/10-docker2singularity.sh /.singularity.d/env/2?-environment.sh; do
    if [ -f "$script" ]; then . "$script" >/dev/null 2>&1 || :; fi
done
export -p
"""
_NOT_OURS = {"HOME", "OLDPWD", "PWD", "SHLVL", "USER", "_"}
_NOISE = ("org.label-schema.build", "org.label-schema.usage", "org.label-schema.schema-version")
"""Starts of labels that Apptainer adds: dates, versions and paths of one build."""


def detect(folder: Path) -> str:
    """A `*.def` or `Singularity` file is for this builder, if there is just one."""
    found = sorted(one.name for one in folder.glob("*.def")) if folder.is_dir() else []
    found += [name for name in ("Singularity",) if (folder / name).is_file()]
    return found[0] if len(found) == 1 else ""


def lint(folder: Path, recipe: Recipe) -> Sequence[str]:
    """Say what moves, and refuse a definition file that starts from what cannot be pinned."""
    file = build_file(folder, recipe)
    text = file.read_text(errors="replace")
    agents, images = set(), dict[str, None]()
    for options in [{}, *(one.options for one in recipe.variants)]:
        _check_options(text, options, file.name)
        for stage in definition.stages(text, options, file.name):
            uri = _uri(stage, recipe, file.name)
            if not uri and stage.keys["bootstrap"].lower() != "scratch":
                agents.add(stage.keys["bootstrap"])
            if bases.moves(uri):
                images[uri.removeprefix("docker://")] = None
    said = [f"{file.name}: what Bootstrap: {agent} fetches is not pinned" for agent in sorted(agents)]
    return [*said, *moving(file.name, list(images), "starts from")]


def lock(folder: Path, recipe: Recipe, place: Place) -> Pins:
    """Pin the images that the stages of the definition file start from, for every variant."""
    file = build_file(folder, recipe)
    text = file.read_text(errors="replace")
    wanted: dict[str, None] = {}
    for options in [{}, *(one.options for one in recipe.variants)]:
        _check_options(text, options, file.name)
        stages = definition.stages(text, options, file.name)
        wanted |= {uri: None for one in stages if (uri := _uri(one, recipe, file.name))}
    return Pins(tuple(_pin(uri, folder, place) for uri in wanted))


def build(job: Job) -> Built:
    """Run the definition file and take the root filesystem of its last stage."""
    proc.need("apptainer")
    place, output = job.place, log.path(job)
    file = build_file(job.folder, job.recipe)
    original, text = place.work / "original.def", place.work / "pinned.def"
    shutil.copyfile(file, original)
    _check_options(original.read_text(errors="replace"), job.options, file.name)
    laid = context.lay(job, place.work / "context")
    text.write_text(definition.pinned(original.read_text(errors="replace"), dict(_froms(job, original, file.name))))
    archive = place.work / "root.tar"
    with namespace.box(place.work, network=job.recipe.build.network) as box:
        root = box.folder / "root"
        place.progress("building")
        argv = _argv(job, box, laid, root, text)
        log.follow(argv, output, what="the definition file", progress=place.progress, step=_step, hints=_HINTS)
        proc.run(box.argv("sh", "-c", _ARRANGE, "arrange", str(root), str(original)), error=BuildError)
        env = _environment(box, root)
        box.tar(root, archive)
    tree = TarFile(archive)
    labels = _labels(tree)
    return Built(
        tree=Quiet(tree, _labels_file(labels)),
        command=(_RUNSCRIPT,),
        env=env,
        labels=labels,
        working_dir="",
        materials=job.lock.materials,
        log=output,
    )


def _check_options(text: str, options: Mapping[str, str], file: str) -> None:
    known = definition.used(text)
    for name in options:
        if name not in known:
            near = did_you_mean(name, known)
            raise RecipeError(
                f"the variant's option {name} is not used in {file}{near}", hint=f"use it as {{{{ {name} }}}}"
            )


def _uri(stage: definition.Stage, recipe: Recipe, file: str) -> str:
    """Return what a stage starts from: an image for `bases`, `path:` of an Apptainer image, or "" for nothing.

    Raises:
        RecipeError: it cannot be pinned.
    """
    agent, source = stage.keys.get("bootstrap", "").lower(), stage.keys.get("from", "")
    where = f"{file}:{stage.line}"
    if agent == "scratch":
        return ""
    if agent == "docker":
        parts = (stage.keys.get("registry", ""), stage.keys.get("namespace", ""), source.removeprefix("//"))
        return "docker://" + "/".join(part.strip("/") for part in parts if part)
    if agent in _LOCAL:
        if not source:
            raise RecipeError(f"{where}: Bootstrap: {agent} without From:")
        return f"path:{source}" if agent == "localimage" else f"{agent}:{source}"
    if recipe.build.network:
        return ""
    if agent == "debootstrap":
        raise RecipeError(f"{where}: debootstrap fetches what is not pinned", hint='use the builder "debian" instead')
    hint = "pull it beside the recipe and use Bootstrap: localimage, or set network = true in [build]"
    raise RecipeError(f"{where}: what Bootstrap: {agent} fetches cannot be pinned", hint=hint)


def _pin(uri: str, folder: Path, place: Place) -> Material:
    if not uri.startswith("path:"):
        return bases.pin(uri, folder, place)
    target = bases.local(uri.removeprefix("path:"), folder)
    if not target.is_file():
        raise RecipeError(f"{uri.removeprefix('path:')} is not a file", hint="make a SIF of it: apptainer build")
    return Material(target.name, uri, sources.digest_of(target), target.stat().st_size, "base")


def _froms(job: Job, file: Path, name: str) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield the line of each stage that starts from an image, with the agent and path that stand for it here."""
    known = {one.uri: one for one in job.lock.of_role("base")}
    for stage in definition.stages(file.read_text(errors="replace"), job.options, name):
        uri = _uri(stage, job.recipe, name)
        if not uri:
            continue
        if uri not in known:
            raise RecipeError(f"{uri} is not in the lock", hint="run `computeops lock` again")
        material, target = known[uri], job.place.work / f"base-{stage.line}"
        if uri.startswith("path:"):
            shutil.copyfile(sources.cached(material, job.folder, job.place), target)
            yield stage.line, ("localimage", str(target))
        else:
            image = bases.fetch(material, job.folder, job.place)
            proc.run(["skopeo", "copy", "--quiet", f"dir:{image}", f"oci:{target}"], error=BuildError)
            yield stage.line, ("oci", str(target))


def _argv(job: Job, box: namespace.Box, laid: Path, root: Path, text: Path) -> list[str]:
    ours = {"SOURCE_DATE_EPOCH": str(job.place.epoch), "PYTHONHASHSEED": "0"}
    ours |= {"MAKEFLAGS": f"-j{job.place.jobs}"} if job.place.jobs else {}
    env = {
        "PATH": _PATH,
        "HOME": str(box.folder),
        **{f"APPTAINER_{name}": str(box.folder) for name in ("TMPDIR", "CACHEDIR", "CONFIGDIR")},
        **{f"APPTAINERENV_{name}": value for name, value in ours.items()},
    }
    options = [f"--build-arg={name}={value}" for name, value in job.options.items()]
    return box.argv(
        *("env", "-i", "-C", str(laid), *(f"{name}={value}" for name, value in env.items())),
        *("apptainer", "build", "--sandbox", "--notest", "--disable-cache", "--warn-unused-build-args"),
        *(*options, str(root), str(text)),
    )


def _step(line: str) -> str:
    return line.partition("INFO:")[2].strip()


def _environment(box: namespace.Box, root: Path) -> dict[str, str]:
    """Return the variables that the definition exports, less those that depend on who runs the image and where."""
    seen = []
    for home in ("/root", "/home/somebody"):
        argv = ("env", "-i", f"PATH={_PATH}", f"HOME={home}", f"USER={home[6:]}", "chroot", str(root))
        done = proc.capture(box.argv(*argv, "/bin/sh", "-c", _EXPORTS), timeout=60)
        seen.append(shellenv.read(done.stdout.decode(errors="replace")))
    first, second = seen
    return {name: value for name, value in first.items() if second.get(name) == value and name not in _NOT_OURS}


def _labels_file(labels: Mapping[str, str]) -> list[Item]:
    data = json.dumps(labels, indent=1, sort_keys=True).encode() + b"\n"
    return [(Entry(_LABELS, Kind.FILE, 0o644, size=len(data)), (data,))]


def _labels(tree: TarFile) -> dict[str, str]:
    found: Any = {}
    for data in read_files(tree, lambda one: one == _LABELS, LIMITS.config_bytes).values():
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BuildError(f"/{_LABELS} is not JSON: {error}") from error
    kept = found.items() if isinstance(found, dict) else ()
    return {str(name): str(value) for name, value in kept if not str(name).startswith(_NOISE)}
