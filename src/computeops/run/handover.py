"""How every scheduler's own commands are run: with which environment, for how long, and what their failure means."""

from collections.abc import Mapping, Sequence

from computeops import proc
from computeops.errors import MissingProgramError, SchedulerError
from computeops.run.model import Plan, Record

SECONDS = 120
"""A scheduler under load answers late; one that does not answer in this time is taken for down."""
INHERITED = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "PYTHONPATH",
    "SHELL",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
)
"""What a job finds set beside the variables that were named: nothing else of the submitter's environment reaches it."""
OURS = "COMPUTEOPS_"


def environment(environ: Mapping[str, str], values: Mapping[str, str], passes: Sequence[str] = ()) -> dict[str, str]:
    """Return the environment of a submission: what jobs inherit, what the command needs, and `values`."""
    kept = {name: value for name, value in environ.items() if name in INHERITED or name.startswith((OURS, *passes))}
    return kept | dict(values)


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Run the command of `plan` and return what it printed.

    Raises:
        SchedulerError: it failed.
    """
    stdin = plan.files[plan.stdin].encode() if plan.stdin else None
    return proc.run(plan.argv, env=env, cwd=record.folder, stdin=stdin, timeout=SECONDS, error=SchedulerError).strip()


def ask(argv: Sequence[str], *, fine: Sequence[int] = (0,)) -> str:
    """Run a question to a scheduler and return its answer; exit codes in `fine` are answers too.

    Raises:
        SchedulerError: it failed.
    """
    done = proc.capture(argv, timeout=SECONDS, error=SchedulerError)
    if done.returncode not in fine:
        raise proc.failed(argv, done.returncode, done.stderr or done.stdout, SchedulerError)
    return done.stdout.decode(errors="replace")


def missing(*programs: str) -> str:
    """Return "" if all `programs` are installed, else which are not."""
    absent = [one for one in programs if proc.find(one) is None]
    return f"{', '.join(absent)} not installed" if absent else ""


def need(name: str, why_not: str) -> None:
    """Raise if a scheduler is not available.

    Raises:
        MissingProgramError: `why_not` says something.
    """
    if why_not:
        raise MissingProgramError(f"{name} cannot be used here: {why_not}", hint="submit from one of its own machines")
