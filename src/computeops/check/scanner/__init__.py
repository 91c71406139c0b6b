"""Other scanners: what they say of an image becomes the same evidence as ours, and is compared with it side by side.

A scanner is a module of this folder (or of the entry points `computeops.check.scanner`) that satisfies `model.Scanner`.
Where its program is installed it is run on an OCI layout; a report that it has written elsewhere is read as well.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from computeops import plugins, proc
from computeops.check.scanner.model import Report, Reported, Scanner
from computeops.errors import EngineError, FormatError, LimitError
from computeops.limits import LIMITS

__all__ = ["BUILT_IN", "Report", "Reported", "Scanner", "names", "read", "run"]

BUILT_IN = ("grype", "trivy", "clair")
_SECONDS = 1800


def names() -> list[str]:
    """Return the names of all scanners."""
    return plugins.names("check.scanner", BUILT_IN)


def run(name: str, layout: Path) -> Report:
    """Return what the scanner called `name` says of an OCI layout.

    Raises:
        UsageError: there is no such scanner; MissingProgramError: it is not installed.
        EngineError: it failed; FormatError: its report cannot be read.
    """
    scanner: Scanner = plugins.load("check.scanner", name, BUILT_IN)
    argv = list(scanner.argv(layout))
    proc.need(argv[0])
    said = proc.run(argv, timeout=_SECONDS, error=EngineError)
    return _report({name: scanner}, said.encode(), f"the report of {name}")


def read(file: Path) -> Report:
    """Return what a report says that another scanner has written.

    Raises:
        FormatError: it is of no scanner that is known; LimitError: it is too large.
    """
    if file.stat().st_size > LIMITS.vex_bytes:
        raise LimitError(f"{file} is larger than {LIMITS.vex_bytes} bytes")
    known = {name: plugins.load("check.scanner", name, BUILT_IN) for name in names()}
    return _report(known, file.read_bytes(), file.name)


def _report(scanners: Mapping[str, Scanner], data: bytes, name: str) -> Report:
    try:
        document: Any = json.loads(data)
        scanner = next((one for one in scanners.values() if isinstance(document, dict) and one.knows(document)), None)
        if scanner is not None:
            return scanner.read(document)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError) as error:
        raise FormatError(f"{name} cannot be read: {error!r:.200}") from error
    raise FormatError(f"{name} is the report of no scanner that is known", hint=f"known are {_listed(scanners)}")


def _listed(scanners: Mapping[str, Scanner]) -> str:
    return ", ".join(sorted(scanners))


def ids(reports: Sequence[Report]) -> Mapping[str, str]:
    """Return for every name of a vulnerability the one by which all scanners' findings are put side by side."""
    found: dict[str, str] = {}
    for one in (finding for report in reports for finding in report.findings):
        chosen = next((found[name] for name in one.names if name in found), one.id)
        found.update(dict.fromkeys(one.names, chosen))
    return found
