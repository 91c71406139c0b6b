"""CVSS base scores from their vectors: version 2 (section 3.2.1 of its guide) and 3.0, 3.1 (section 7.1).

Version 4 has no formula but a table of 270 scores; its vectors are kept, and rated by what the vendor says.
"""

import math
from collections.abc import Mapping

_Weights = Mapping[str, float]

_V3: Mapping[str, _Weights] = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "PR": {"N": 0.85, "L": 0.62, "H": 0.27},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"N": 0, "L": 0.22, "H": 0.56},
    "I": {"N": 0, "L": 0.22, "H": 0.56},
    "A": {"N": 0, "L": 0.22, "H": 0.56},
}
_V3_SCOPED_PRIVILEGES: _Weights = {"N": 0.85, "L": 0.68, "H": 0.5}
_V2: Mapping[str, _Weights] = {
    "AV": {"L": 0.395, "A": 0.646, "N": 1.0},
    "AC": {"H": 0.35, "M": 0.61, "L": 0.71},
    "Au": {"M": 0.45, "S": 0.56, "N": 0.704},
    "C": {"N": 0, "P": 0.275, "C": 0.66},
    "I": {"N": 0, "P": 0.275, "C": 0.66},
    "A": {"N": 0, "P": 0.275, "C": 0.66},
}
_BANDS = ((9.0, "critical"), (7.0, "high"), (4.0, "medium"), (0.1, "low"), (0.0, "negligible"))
_LONGEST = 300


def score(vector: str) -> float | None:
    """Return the base score of a vector of version 2 or 3; None for any other text."""
    if len(vector) > _LONGEST:
        return None
    head, _, rest = vector.partition("/")
    try:
        if head in {"CVSS:3.0", "CVSS:3.1"}:
            return _version_3(_metrics(rest), head)
        return None if head.startswith("CVSS:") else _version_2(_metrics(vector.strip("()")))
    except (KeyError, ValueError):
        return None


def severity(value: float | None) -> str:
    """Return the word for a score (section 5 of the specification of version 3)."""
    return "unknown" if value is None else next((word for least, word in _BANDS if value >= least), "unknown")


def _metrics(text: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in text.split("/"))


def _version_3(metrics: Mapping[str, str], head: str) -> float:
    scoped = {"U": False, "C": True}[metrics["S"]]
    weight = {name: weights[metrics[name]] for name, weights in _V3.items()}
    if scoped:
        weight["PR"] = _V3_SCOPED_PRIVILEGES[metrics["PR"]]
    base = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    impact = 7.52 * (base - 0.029) - 3.25 * (base - 0.02) ** 15 if scoped else 6.42 * base
    if impact <= 0:
        return 0.0
    reach = 8.22 * weight["AV"] * weight["AC"] * weight["PR"] * weight["UI"]
    total = min(1.08 * (impact + reach) if scoped else impact + reach, 10)
    return _up(total) if head == "CVSS:3.1" else math.ceil(total * 10) / 10


def _up(value: float) -> float:
    """Round up to one place as appendix A of version 3.1 defines it, without errors of floating point."""
    whole = round(value * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (whole // 10_000 + 1) / 10


def _version_2(metrics: Mapping[str, str]) -> float:
    weight = {name: weights[metrics[name]] for name, weights in _V2.items()}
    impact = 10.41 * (1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"]))
    reach = 20 * weight["AV"] * weight["AC"] * weight["Au"]
    return round((0.6 * impact + 0.4 * reach - 1.5) * (1.176 if impact else 0), 1)
