"""Ignore files: what the owner of an image decided not to count, with a reason and, best, an end.

[[ignore]]
id = "CVE-2023-45853"
package = "zlib1g"        # or a purl; left out: every package
reason = "minizip is not used"
until = 2027-03-31
"""

import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from computeops.check.inventory import Package
from computeops.check.vex.statement import Product, Statement, words
from computeops.errors import FormatError, did_you_mean

_KEYS = ("id", "package", "reason", "until")


class _Any(Product):
    """Every package of every image."""

    def fits(self, package: Package, digests: object) -> bool:
        """Return true."""
        del package, digests
        return True


def statements(data: bytes, by: str) -> Sequence[Statement]:
    """Return the statements of an ignore file.

    Raises:
        FormatError: it is no TOML, or an entry is wrong.
    """
    try:
        found = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{by} is no TOML: {error}") from error
    entries = found.get("ignore")
    if set(found) - {"ignore"} or not isinstance(entries, list):
        raise FormatError(f"{by} has no tables [[ignore]], or something else", hint="see docs/how-to/scan.md")
    return [_statement(one, f"{by}, entry {number}") for number, one in enumerate(entries, 1)]


def _statement(one: Any, by: str) -> Statement:
    if not isinstance(one, dict):
        raise FormatError(f"{by} is no table")
    for key in one:
        if key not in _KEYS:
            raise FormatError(f"{by}: unknown key {key[:80]!r}{did_you_mean(key, _KEYS)}")
    for key in ("id", "reason"):
        if not isinstance(one.get(key), str) or not one[key].strip():
            raise FormatError(f"{by}: there is no {key}", hint="what is not counted needs an id and a reason")
    package = one.get("package", "")
    if not isinstance(package, str):
        raise FormatError(f"{by}: package must be a name or a purl, not {package!r:.80}")
    return Statement(
        vulnerabilities=frozenset({one["id"].strip()}),
        products=(Product("", package) if package else _Any(),),
        quiet=True,
        reason=words(one["reason"]),
        time=float("inf"),  # the owner decides over what others say
        until=_end(one, by),
        by=by,
    )


def _end(one: Mapping[str, Any], by: str) -> float | None:
    """Return the end of the last day."""
    if (until := one.get("until")) is None:
        return None
    try:
        day = until if isinstance(until, date) else date.fromisoformat(until)
    except (TypeError, ValueError):
        raise FormatError(f"{by}: until must be a day like 2027-03-31, not {until!r:.40}") from None
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return (moment + timedelta(days=1)).timestamp()
