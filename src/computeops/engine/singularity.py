"""SingularityCE, where both it and Apptainer are installed; a `singularity` that is Apptainer's is left to that.

Its options are those of Apptainer (https://docs.sylabs.io/guides/latest/user-guide/cli.html).
"""

from collections.abc import Mapping

from computeops import proc
from computeops.engine import apptainer
from computeops.engine.model import ABILITIES, Prepared, Request

TAKES = frozenset({"sif", "tree"})
CAN = frozenset(ABILITIES)
BRINGS_GPUS = True


def available() -> str:
    """Return "" if `singularity` is SingularityCE or SingularityPRO: its name alone does not tell."""
    if proc.find("singularity") is None:
        return "singularity is not installed"
    said = proc.capture(["singularity", "--version"], timeout=10).stdout.decode(errors="replace").strip()
    return "" if said.startswith(("singularity-ce", "singularity-pro")) else f"singularity is {said or 'silent'}"


def argv(image: Prepared, request: Request, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the command, as `apptainer.command` does."""
    return apptainer.command("singularity", image, request, environ)
