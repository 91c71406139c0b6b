"""A root filesystem of Guix packages: `manifest.scm` says which, `channels.scm` from which state of the channels.

`lock` pins every channel to a commit and keeps the derivation of the whole image, which names all that it is made of;
`build` lets Guix's daemon realise exactly that derivation. Both files are programs: they run in a box, with the network
that the channels need, and see nothing of the host but its store.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from computeops import proc
from computeops.build import log, namespace
from computeops.build.model import Built, Job, Material, Moving, Pins, Place
from computeops.build.noise import Quiet
from computeops.errors import BuildError, RecipeError
from computeops.image.archive import TarFile
from computeops.limits import LIMITS
from computeops.model import Digest
from computeops.recipe import BESIDE, Recipe

(CHANNELS,) = BESIDE["guix"]
_NAME = "manifest.scm"
_STORE = re.compile(r"/[!-~]*/[0-9abcdfghijklmnpqrsvwxyz]{32}-[A-Za-z0-9+._?=-]{1,211}")
_COMMIT = re.compile(r"\(\s*commit\s+\"[0-9a-f]{40}\"")
_CHANNEL = re.compile(r"^[^;\n]*\(\s*channel[\s)]", re.MULTILINE)
_GUIXES_OWN = re.compile(r"^[^;\n]*%default-(?:guix-)?channels?\b", re.MULTILINE)
_HINTS = {
    "failed to connect": "start guix-daemon: https://guix.gnu.org/manual/en/html_node/Invoking-guix_002ddaemon.html",
    "no code for module": "is the package in a channel that channels.scm does not name?",
    "unknown package": "guix search finds the names of packages",
}


def detect(folder: Path) -> str:
    """A `manifest.scm` is for this builder."""
    return _NAME if (folder / _NAME).is_file() else ""


def lint(folder: Path, recipe: Recipe) -> Sequence[str]:
    """Say which channels move, and that an image without a shell runs no tests."""
    said: list[str] = []
    channels = folder / CHANNELS
    text = _text(channels) if channels.is_file() else ""
    if not text:
        said.append(
            Moving(
                f"there is no {CHANNELS}: only the lock says which Guix it is (`guix describe -f channels` writes it)"
            )
        )
    elif _GUIXES_OWN.search(text) or len(_COMMIT.findall(text)) < len(_CHANNEL.findall(text)):
        said.append(Moving(f"{CHANNELS} has channels without a commit: only the lock pins them"))
    if "bash" not in _text(folder / recipe.build.file):
        said.append(f"{recipe.build.file} has no bash: scripts, tests and `computeops shell` need a shell")
    return said


def lock(folder: Path, recipe: Recipe, place: Place) -> Pins:
    """Pin every channel to a commit, and the derivation that the manifest is with them."""
    given = folder / CHANNELS
    channels = _text(given) if given.is_file() else "%default-channels\n"
    place.progress("finding the commits of the channels")
    pinned = _guix(place, channels, "", ("describe", "--format=channels"))
    place.progress("computing the derivation")
    derivation = _derivation(place, pinned, _text(folder / recipe.build.file))
    return Pins((derivation,), {"channels": pinned})


def build(job: Job) -> Built:
    """Realise the locked derivation, from substitutes or from its sources, and read the pack."""
    channels = job.lock.options.get("channels")
    locked = [one for one in job.lock.of_role("base") if one.uri.startswith("guix:")]
    if not isinstance(channels, str) or len(locked) != 1:
        raise RecipeError("the lock names no channels of Guix", hint="run `computeops lock` again")
    job.place.progress("computing the derivation")
    found = _derivation(job.place, channels, _text(job.folder / job.recipe.build.file))
    if found != locked[0]:
        raise RecipeError(
            f"the manifest is the derivation {found.uri}, not {locked[0].uri} of the lock",
            hint="run `computeops lock` again, on the architecture that is built for",
        )
    output = log.path(job)
    job.place.progress("realising the derivation")
    log.follow(["guix", "build", found.uri.removeprefix("guix:")], output, what="guix", progress=job.place.progress)
    pack = _last_in_store(output.read_text(errors="replace"), "guix build")
    return Built(
        tree=Quiet(TarFile(pack)),
        command=(),
        env={"PATH": "/bin"},
        labels={},
        working_dir="",
        materials=job.lock.materials,
        log=output,
    )


def pack_argv(manifest: str) -> tuple[str, ...]:
    """Return the words for guix that print the derivation of the image of `manifest`: its store, and /bin."""
    # /bin alone: guix pack refuses a link to what the profile may not have
    return (
        "pack",
        "--format=tarball",
        "--compression=none",
        "--symlink=/bin=bin",
        f"--manifest={manifest}",
        "--derivation",
    )


def _derivation(place: Place, channels: str, manifest: str) -> Material:
    path = _last_in_store(_guix(place, channels, manifest, pack_argv(_NAME)), "guix pack")
    try:
        with path.open("rb") as file:
            content = file.read(LIMITS.build_file_bytes + 1)
    except OSError as error:
        raise BuildError(f"cannot read {path}, which Guix named: {error.strerror}") from error
    if len(content) > LIMITS.build_file_bytes:
        raise BuildError(f"{path} has more than {LIMITS.build_file_bytes} bytes")
    return Material(path.name, f"guix:{path}", Digest.of(content), len(content), "base")


def _guix(place: Place, channels: str, manifest: str, words: Sequence[str]) -> str:
    """Run the guix of `channels` in a box beside `manifest` and return what it printed."""
    program = Path(proc.need("guix")).resolve()  # what `guix pull` made is a link in a home, which the box has not
    with namespace.box(place.work, readable=[program], network=True) as box:
        (box.folder / CHANNELS).write_text(channels)
        (box.folder / _NAME).write_text(manifest)
        inside = (
            "env",
            "-i",
            "-C",
            str(box.folder),
            f"HOME={box.folder}",
            "LC_ALL=C.UTF-8",
            "PATH=/usr/local/bin:/usr/bin:/bin",
        )
        argv = box.argv(*inside, str(program), "time-machine", f"--channels={CHANNELS}", "--", *words)
        done = proc.capture(argv, error=BuildError)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[-2000:]
        known = [hint for sign, hint in _HINTS.items() if sign in said]
        raise BuildError(f"guix {words[0]} failed:\n{said}", hint="; ".join(known))
    return done.stdout.decode(errors="replace")


def _last_in_store(printed: str, what: str) -> Path:
    """Return the last path of the store in `printed`."""
    found = [line for line in printed.split("\n") if _STORE.fullmatch(line)]
    if not found:
        raise BuildError(f"{what} named nothing in /gnu/store")
    return Path(found[-1])


def _text(file: Path) -> str:
    with file.open("rb") as stream:
        data = stream.read(LIMITS.build_file_bytes + 1)
    if len(data) > LIMITS.build_file_bytes:
        raise RecipeError(f"{file.name} has more than {LIMITS.build_file_bytes} bytes")
    return data.decode(errors="replace")
