"""Which variant of a release runs best on a machine, and never one that would die there of an illegal instruction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from computeops.errors import EngineError
from computeops.host import cpu
from computeops.host.model import Host
from computeops.host.needs import Needs
from computeops.host.verdict import Finding, fit

_DEADLY = frozenset({"architecture", "kernel", "cpu", "gpu", "driver", "cuda"})
"""What a program cannot do without; without the machine's MPI or display most still run."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One variant beside a machine."""

    name: str
    """Empty: the generic one."""
    needs: Needs
    findings: tuple[Finding, ...]

    @property
    def runs(self) -> bool:
        """Whether nothing is missing that it would die of."""
        return not any(one.fits is False and one.what in _DEADLY for one in self.findings)

    @property
    def fits(self) -> bool:
        """Whether nothing at all is known to be missing."""
        return all(one.fits is not False for one in self.findings)

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.name or "generic"

    @property
    def why(self) -> str:
        """What is missing; for one that fits, for what it was made."""
        missing = [f"{one.what} {one.needs}: this is {one.has}" for one in self.findings if one.fits is False]
        return "; ".join(missing) or ", ".join(filter(None, (self.needs.gpu, self.needs.cpu))) or "any machine"


def judge(asked: Mapping[str, Needs], host: Host, *, gpu: str = "auto") -> tuple[Judged, ...]:
    """Return the variants `asked` about, the best for `host` first.

    `gpu`: `auto` for every GPU of the machine, the vendor of the only ones that shall be used, or `none`.
    """
    judged = [Judged(name, needs, (*fit(needs, host), *_unwanted(needs, gpu))) for name, needs in asked.items()]
    return tuple(sorted(judged, key=_order))


def best(judged: Sequence[Judged]) -> Judged:
    """Return the first of `judged` if it runs.

    Raises:
        EngineError: none does.
    """
    if judged and judged[0].runs:
        return judged[0]
    lines = "".join(f"\n  {one.title}: {one.why}" for one in judged)
    raise EngineError(f"no variant of this release runs here:{lines}", hint="ask its authors for a generic variant")


def _order(one: Judged) -> tuple[bool, bool, bool, tuple[int, int], str]:
    level, detail = cpu.generation(one.needs.cpu)
    return not one.runs, not one.fits, not one.needs.gpu, (-level, -detail), one.name


def _unwanted(needs: Needs, gpu: str) -> tuple[Finding, ...]:
    if not needs.gpu or gpu in {"auto", needs.gpu}:
        return ()
    return (Finding("gpu", False, needs.gpu, f"--gpu {gpu}", "leave out --gpu"),)
