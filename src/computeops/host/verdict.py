"""Does an image run on a machine? One finding for each thing that it needs, with what to do where it does not."""

import operator
import re
from collections.abc import Iterator
from dataclasses import dataclass

from computeops.host import cpu, gpu
from computeops.host.model import Host
from computeops.host.needs import Needs

_CLAUSE = re.compile(r"(>=|<=|==|>|<)([0-9][0-9A-Za-z.]*)")
_OPERATORS = {">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt}
_FAMILIES = {
    "openmpi": "openmpi",
    "mpich": "mpich",
    "intelmpi": "mpich",
    "mvapich": "mpich",
    "mvapich2": "mpich",
    "cray-mpich": "mpich",
    "standard": "standard",
}
"""What recipes call an MPI to the family of its ABI (https://www.mpich.org/abi/)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an image needs, beside what the machine has."""

    what: str
    fits: bool | None
    """None: nobody can tell before it runs."""
    needs: str
    has: str
    hint: str = ""
    """What to do where it does not fit."""


def fit(needs: Needs, host: Host) -> tuple[Finding, ...]:
    """Return what decides whether an image with `needs` runs on `host`, in the order in which it would fail."""
    return tuple(_findings(needs, host))


def _findings(needs: Needs, host: Host) -> Iterator[Finding]:
    if needs.arch:
        hint = "pull the image for this architecture: computeops pull --arch"
        yield Finding("architecture", needs.arch == host.arch, needs.arch, host.arch, hint)
    if needs.kernel:
        old = _version(host.kernel) < _version(needs.kernel)
        yield Finding("kernel", not old, f">={needs.kernel}", host.kernel, "rebuild it on an older distribution")
    if needs.cpu and needs.arch in {"", host.arch}:
        yield _cpu(needs.cpu, host)
    if needs.gpu:
        names = sorted({one.vendor for one in host.gpus})
        yield Finding("gpu", needs.gpu in names, needs.gpu, ", ".join(names) or "none", "ask for a machine with a GPU")
    if needs.driver:
        yield _driver(needs, host)
    if needs.cuda and host.nvidia_driver:
        yield _cuda(needs, host)
    if needs.mpi:
        yield _mpi(needs.mpi, host)
    if needs.x11:
        has = "a display" if host.display else "no display"
        yield Finding("x11", host.display, "a display", has, "log in with ssh -X, or start Xvfb")
    if not host.engines and not host.user_namespaces:
        yield Finding("engine", False, "a container engine", "none", "install apptainer, or allow user namespaces")


def _cpu(wanted: str, host: Host) -> Finding:
    missing = cpu.lacking(wanted, host.cpu_features) if host.cpu_features else None
    runs = wanted in host.cpu_levels or missing == ()
    has = host.cpu or "unknown"
    if missing and not runs:
        has += f" without {', '.join(missing)}"
    return Finding("cpu", runs, wanted, has, "take the generic variant, or one for an older CPU")


def _driver(needs: Needs, host: Host) -> Finding:
    amd = needs.gpu == "amd"
    has = host.amd_driver if amd else host.nvidia_driver
    if not has:
        return Finding("driver", False, needs.driver, "none", "ask for a machine with a GPU")
    return Finding(
        "driver",
        holds(needs.driver, has),
        needs.driver,
        has,
        "the site must update the GPU driver; take an older release",
    )


def _cuda(needs: Needs, host: Host) -> Finding:
    has = f"{host.cuda or 'none'} by driver {host.nvidia_driver}"
    cards = [one.name for one in host.gpus]
    fits = gpu.runs_cuda(needs.cuda, host.nvidia_driver, newer=needs.newer, branches=needs.branches, cards=cards)
    if fits and not gpu.runs_cuda(needs.cuda, host.nvidia_driver):
        has += f", with the image's libraries of driver {needs.newer}"
    first = gpu.driver_for(f"{needs.cuda.partition('.')[0]}.0")
    return Finding("cuda", fits, needs.cuda, has, f"it needs driver {first} or newer")


def _mpi(wanted: str, host: Host) -> Finding:
    name = re.split("[<>=]", wanted, maxsplit=1)[0]
    family = _FAMILIES.get(name, name)
    same = [one for one in host.mpi if one.family == family or not family]
    shown = ", ".join(f"{one.family} {one.version}".strip() for one in host.mpi) or "none"
    hint = "load the module of an MPI of the same family; on one machine the MPI in the image is enough"
    if not same:
        return Finding("mpi", False, wanted, shown, hint)
    if name in {"openmpi", ""}:
        known = [one for one in same if one.version]
        fits = any(holds(wanted, one.version) for one in known) or (None if len(known) < len(same) else False)
    else:  # the versions of its family are of other products
        fits = True if not _CLAUSE.search(wanted) else None
    return Finding("mpi", fits, wanted, shown, hint)


def holds(constraint: str, version: str) -> bool | None:
    """Whether `version` satisfies every clause; it is compared as far as the clause goes: 4.1.6 is ==4.1.

    None: `version` has no numbers, so nobody can tell.
    """
    has = _version(version)
    if not has:
        return None
    for sign, text in _CLAUSE.findall(constraint):
        wanted = _version(text)
        if not _OPERATORS[sign](has[: len(wanted)] + (0,) * (len(wanted) - len(has)), wanted):
            return False
    return True


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers in front of `text`; () where there are none."""
    found = re.match(r"\d{1,9}(?:\.\d{1,9}){0,9}", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
