"""One tree of errors: what happened, and what to do next.

Each class has an exit code of the command line, an HTTP status of the hub and an anchor in
`docs/reference/errors.md`. A fault that a check finds in an image is not an error but evidence.

    ComputeOpsError         1  500
    ├── UsageError          2  400   the command or request itself is wrong
    ├── RecipeError         3  422   computeops.toml or its build file
    ├── FormatError         4  422   a SIF, OCI, tar, squashfs or envelope that is broken or hostile
    ├── NotFoundError       5  404
    ├── ConflictError       6  409   it exists already, or is immutable
    ├── LoginError          7  401   who are you?
    ├── DeniedError         8  403   you may not
    ├── TrustError          9  403   a signature or a subject does not hold
    │   └── PolicyError    10  403   the evidence is genuine but not enough
    ├── MissingProgramError 11 501   a program that must be installed first
    ├── BuildError         12  500   the build file failed
    ├── NetworkError       14  502   a hub or mirror did not answer as it must
    ├── LimitError         15  413   larger, longer or deeper than allowed
    ├── StorageError       16  507   disk full, read-only, no permission
    │   └── UnavailableError 18 503  a database or an object store does not answer
    ├── SchedulerError     17  502   a scheduler did not take a job, or does not answer
    └── EngineError       125  500   a container could not be started (as podman and docker exit)

Exit code 13 means: a check ran and its verdict is "failed". 130 means: interrupted (Ctrl-C).
"""

from collections.abc import Iterable

CHECK_FAILED = 13
INTERRUPTED = 130
NO_ROOM = "free some space, or set COMPUTEOPS_TMP and COMPUTEOPS_CACHE to folders on a larger disk"
"""Hint where a disk is full."""


class ComputeOpsError(Exception):
    """What went wrong, with the value; `hint` says what to do next."""

    exit_code = 1
    status = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ComputeOpsError):
    """The command line or request is wrong."""

    exit_code = 2
    status = 400


class RecipeError(ComputeOpsError):
    """The recipe or its build file is wrong; the message names file, line, key and value."""

    exit_code = 3
    status = 422


class FormatError(ComputeOpsError):
    """Bytes from outside do not have the format they claim."""

    exit_code = 4
    status = 422


class NotFoundError(ComputeOpsError):
    """There is no such thing here, or none that the asker may see."""

    exit_code = 5
    status = 404


class ConflictError(ComputeOpsError):
    """The thing exists already or must not change."""

    exit_code = 6
    status = 409


class LoginError(ComputeOpsError):
    """A token or password is missing, wrong or expired."""

    exit_code = 7
    status = 401


class DeniedError(ComputeOpsError):
    """The asker is known and may not do this."""

    exit_code = 8
    status = 403


class TrustError(ComputeOpsError):
    """A signature does not verify, or evidence is about another image."""

    exit_code = 9
    status = 403


class PolicyError(TrustError):
    """All evidence is genuine, but it does not satisfy the policy."""

    exit_code = 10


class MissingProgramError(ComputeOpsError):
    """A program that this needs is not installed; the hint is the line that installs it."""

    exit_code = 11
    status = 501


class BuildError(ComputeOpsError):
    """A build file failed; the message carries the end of its output."""

    exit_code = 12


class NetworkError(ComputeOpsError):
    """A hub, registry or mirror could not be reached or broke its contract."""

    exit_code = 14
    status = 502


class LimitError(ComputeOpsError):
    """Something from outside is larger, longer or deeper than `computeops.limits` allows."""

    exit_code = 15
    status = 413


class StorageError(ComputeOpsError):
    """The disk is full, read-only or not ours."""

    exit_code = 16
    status = 507


class UnavailableError(StorageError):
    """A database or an object store does not answer now; nothing is lost."""

    exit_code = 18
    status = 503


class SchedulerError(ComputeOpsError):
    """A scheduler did not take a job, does not answer, or lost one."""

    exit_code = 17
    status = 502


class EngineError(ComputeOpsError):
    """A container engine could not start the container."""

    exit_code = 125


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the nearest of `known`, or "" if none is near."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""
