"""run, exec and shell: read the words of a launch and become the container.

This is the hot path, started a million times by schedulers: it reads its options by itself, from one table, and imports
neither click nor anything else that a start does not need. `computeops.cli.run` shows the same table as click's help.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from computeops import engine
from computeops.config import Settings, environment
from computeops.engine import verdicts
from computeops.errors import UsageError, did_you_mean

VALUES = {
    "--bind": ("SRC[:DST[:ro]]", "Show a file or folder of this machine in the container; may be repeated."),
    "--cwd": ("DIR", "Folder in the container to start in; else the current one."),
    "--engine": ("NAME", "Engine to run it with; else the first that works and fits."),
    "--env": ("NAME[=VALUE]", "Set a variable, or pass the one of this name; may be repeated."),
    "--gpu": (
        "auto|nvidia|amd|intel|xilinx|CDI|none",
        "GPUs to bring into the container; CDI: one device, as nvidia.com/gpu=0.",
    ),
    "--mpi": (
        "auto|host|none",
        "Whether to join the ranks of an MPI that the machine started; host: with its MPI in place of the image's.",
    ),
}
"""Options with a value: its form, and what it does."""
FLAGS = {
    "--contain": "Give the container a /tmp, /dev and home of its own.",
    "--dry-run": "Print the command that would be started, do nothing.",
    "--no-home": "Do not show the home folder in the container.",
    "--writable": "Let the program write into the image; what it writes is lost at its end.",
    "--x11": "Let the program open windows on this machine's display.",
}
ALIASES = {"--pwd": "--cwd", "-B": "--bind", "--mount": "--bind", "-e": "--env"}
"""Words of other engines that people have in their fingers."""
HELP = ("--help", "-h")
_GPUS = ("auto", "nvidia", "amd", "intel", "xilinx", "none")
_CDI = r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+=[A-Za-z0-9._:-]+"
_MPIS = ("auto", "host", "none")


@dataclass(slots=True)
class Words:
    """A launch as it was typed."""

    image: str = ""
    argv: tuple[str, ...] = ()
    """What goes to the program."""
    values: dict[str, list[str]] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)

    def last(self, option: str, default: str = "") -> str:
        """Return the last value given for `option`."""
        return self.values.get(option, [default])[-1]


def parse(verb: str, words: Sequence[str]) -> Words:
    """Read options, IMAGE, more options, and the program's words, which nobody touches.

    Behind IMAGE only the options of the table are ours, up to the first other word or `--`.

    Raises:
        UsageError: an option is not known or lacks its value, or there is no image.
    """
    found = Words()
    at = 0
    while at < len(words):
        word = words[at]
        name, equals, value = word.partition("=")
        name = ALIASES.get(name, name)
        if name in FLAGS and not equals:
            found.flags.add(name)
        elif name in VALUES:
            at += not equals
            if at == len(words):
                raise UsageError(f"option {name} needs a value: {VALUES[name][0]}")
            found.values.setdefault(name, []).append(value if equals else words[at])
        elif not found.image and word in HELP:
            found.flags.add(HELP[0])
            return found
        elif not found.image and word.startswith("-") and word != "--":
            known = [*VALUES, *FLAGS]
            raise UsageError(f"no such option of {verb}: {word!r}{did_you_mean(name, known)}", hint=_help(verb))
        elif not found.image and word != "--":
            found.image = word
        elif found.image:
            found.argv = tuple(words[at + (word == "--") :])
            break
        at += 1
    if not found.image:
        raise UsageError(f"{verb}: no image was named", hint=_help(verb))
    return found


def _help(verb: str) -> str:
    return f"computeops {verb} --help lists the options"


def request(verb: str, words: Words, environ: Mapping[str, str]) -> engine.Request:
    """Return what `words` ask for.

    Raises:
        UsageError: a value does not have its form.
    """
    if (gpu := words.last("--gpu", "none")) not in _GPUS and not re.fullmatch(_CDI, gpu):
        raise UsageError(f"--gpu {gpu!r}: it is one of {', '.join(_GPUS)}{did_you_mean(gpu, _GPUS)}")
    if (mpi := words.last("--mpi", "auto")) not in _MPIS:
        raise UsageError(f"--mpi {mpi!r}: it is one of {', '.join(_MPIS)}{did_you_mean(mpi, _MPIS)}")
    variables = {}
    for text in words.values.get("--env", []):
        name, equals, value = text.partition("=")
        variables[name] = value if equals else environ.get(name, "")
    cwd = words.last("--cwd")
    if cwd and not cwd.startswith("/"):
        raise UsageError(f"--cwd {cwd!r}: it must be an absolute path in the container")
    return engine.Request(
        action=verb,
        argv=words.argv,
        binds=tuple(engine.Bind.parse(text) for text in words.values.get("--bind", [])),
        env=variables,
        cwd=cwd,
        gpu=gpu,
        mpi=mpi,
        x11="--x11" in words.flags,
        isolated="--contain" in words.flags,
        writable="--writable" in words.flags,
        home="--no-home" not in words.flags,
    )


@dataclass(frozen=True, slots=True)
class Located:
    """The image to start, and how it came to be that one."""

    path: Path
    gpu: str = ""
    """The vendor of the GPU that its variant was made for."""
    told: tuple[str, ...] = ()
    """Which variant of a release it is and why, and why the others are not."""
    release: Any = None
    """The `Reference` of that variant, where it came from a hub just now."""


def locate(image: str, settings: Settings, environ: Mapping[str, str], gpu: str = "auto") -> Located:
    """Return the file or folder of `image`; of a release, the variant that runs best here, pulled into the cache.

    Raises:
        NotFoundError: there is none; TrustError: nobody we know vouches for the release.
        EngineError: no variant runs here.
    """
    path = Path(image)
    if path.is_file() or (path.is_dir() and ((path / "oci-layout").exists() or not any(path.glob("*.sif")))):
        return Located(path)
    from computeops.cli import choice

    return choice.locate(image, settings, environ, gpu)


def launch(verb: str, words: Sequence[str]) -> int:
    """Become the container; return for --dry-run and --help, and where the container could not be made.

    Raises:
        ComputeOpsError: the container could not be planned or started.
    """
    read = parse(verb, words)
    if HELP[0] in read.flags:
        from computeops.cli.root import call

        return call([verb, HELP[0]])
    environ = environment()
    settings = Settings.load(environ)
    located = locate(read.image, settings, environ, read.last("--gpu", "auto"))
    image = located.path
    if settings.policy and not verdicts.holds(settings.cache, image, Path(settings.policy), settings.keys):
        from computeops import pipeline

        pipeline.admit(image, settings)
    asked = request(verb, read, environ)
    if located.gpu and "--gpu" not in read.values:  # it was made for one
        asked = replace(asked, gpu=located.gpu)
    plan = engine.plan(
        image,
        asked,
        engine=read.last("--engine", settings.engine),
        cache=settings.cache,
        environ=environ,
        cache_bytes=settings.cache_bytes,
        shared=shared(settings),
    )
    if warning := engine.warning(environ, image if read.last("--mpi") != "host" else None):
        sys.stderr.write(f"warning: {warning}\n")
    if "--dry-run" not in read.flags:
        return engine.become(plan)
    sys.stderr.write("".join(f"{line}\n" for line in located.told))
    sys.stdout.write(shown(plan, environ) + "\n")
    return 0


def shared(settings: Settings) -> engine.Shared | None:
    """Return where the site shares unpacked images, and whose are believed; None if it does not.

    Raises:
        UsageError: there is no such user.
    """
    if not settings.shared:
        return None
    import pwd

    try:
        owners = {pwd.getpwnam(name).pw_uid for name in settings.shared_owners.split()}
    except KeyError as error:
        raise UsageError(f"setting shared_owners: {error.args[0]}") from None
    return engine.Shared(Path(settings.shared), frozenset({0, *owners}))


def shown(plan: engine.Plan, environ: Mapping[str, str]) -> str:
    """Return the command of `plan` as a line for a shell, with the variables that differ from `environ`."""
    import shlex

    changed = [f"{name}={value}" for name, value in sorted(plan.env.items()) if environ.get(name) != value]
    unset = [word for name in sorted(environ) if name not in plan.env for word in ("-u", name)]
    return shlex.join([*(["env", *unset, *changed] if changed or unset else []), *plan.argv])
