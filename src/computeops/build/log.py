"""Run a build's program with its output in a file that outlives it, and give the end of it to the error."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from computeops import proc
from computeops.build.model import Job
from computeops.errors import NO_ROOM, BuildError
from computeops.limits import LIMITS

_TAIL = 30
_HINTS = {"No space left on device": NO_ROOM}


def path(job: Job) -> Path:
    """Return the file that keeps the output of this build, in the cache."""
    package = job.recipe.package
    stem = "-".join((package.name, package.version, *((job.variant.name,) if job.variant else ())))
    return job.place.cache / "logs" / f"{stem}.log"


def follow(
    argv: Sequence[str],
    log: Path,
    *,
    what: str,
    progress: Callable[[str], None],
    step: Callable[[str], str] = lambda _: "",
    last: str = "\0",
    hints: Mapping[str, str] | None = None,
) -> None:
    """Run `argv`, keep its output in `log` and tell `progress` what `step` makes of each line.

    Nothing after a line with `last` in it goes into the error. Of `hints`, the one whose key is in the output is given.

    Raises:
        BuildError: it failed; with the last lines of its output.
    """
    tail: list[str] = []
    left = LIMITS.build_log_bytes  # of a build that prints without end, the beginning is kept, and the end in the error
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", buffering=1, errors="replace") as file:  # by lines: others read it while it grows

        def line(text: str) -> None:
            nonlocal left
            left -= len(text) + 1
            if left > 0:
                file.write(f"{text}\n")
            if last not in "".join(tail[-1:]):
                tail[:] = [*tail[1 - _TAIL :], text]
            if said := step(text):
                progress(said)

        try:
            proc.stream(argv, line=line, error=BuildError)
        except BuildError as error:
            shown = "\n".join(f"  {text}" for text in tail)
            known = [hint for sign, hint in {**_HINTS, **(hints or {})}.items() if sign.lower() in shown.lower()]
            raise BuildError(
                f"{what} failed:\n{shown}", hint="; ".join([*dict.fromkeys(known), f"all output is in {log}"])
            ) from error
