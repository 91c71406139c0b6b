"""Until when distributions repair their releases, as they have announced it (last look: November 2026).

Debian: https://wiki.debian.org/LTS. Ubuntu: https://ubuntu.com/about/release-cycle (without Pro).
Alpine: https://alpinelinux.org/releases. Others: their own pages on life cycles.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime

from computeops.check.inventory import System

_ENDS: Mapping[str, Mapping[str, str]] = {
    "debian": {
        "7": "2018-05-31",
        "8": "2020-06-30",
        "9": "2022-06-30",
        "10": "2024-06-30",
        "11": "2026-08-31",
        "12": "2028-06-30",
        "13": "2030-06-30",
    },
    "ubuntu": {
        "14.04": "2019-04-25",
        "16.04": "2021-04-30",
        "18.04": "2023-05-31",
        "20.04": "2025-05-31",
        "22.04": "2027-06-01",
        "23.10": "2024-07-11",
        "24.04": "2029-05-31",
        "24.10": "2025-07-10",
        "25.04": "2026-01-15",
        "25.10": "2026-07-09",
    },
    "alpine": {
        "3.15": "2023-11-01",
        "3.16": "2024-05-23",
        "3.17": "2024-11-22",
        "3.18": "2025-05-09",
        "3.19": "2025-11-01",
        "3.20": "2026-04-01",
        "3.21": "2026-11-01",
        "3.22": "2027-05-01",
    },
    "centos": {"6": "2020-11-30", "7": "2024-06-30", "8": "2021-12-31"},
    "rhel": {"6": "2020-11-30", "7": "2024-06-30", "8": "2029-05-31", "9": "2032-05-31", "10": "2035-05-31"},
    "almalinux": {"8": "2029-03-01", "9": "2032-05-31", "10": "2035-05-31"},
    "rocky": {"8": "2029-05-31", "9": "2032-05-31", "10": "2035-05-31"},
    "fedora": {"38": "2024-05-21", "39": "2024-11-26", "40": "2025-05-13", "41": "2025-12-15", "42": "2026-05-13"},
    "opensuse-leap": {"15.4": "2023-12-07", "15.5": "2024-12-31", "15.6": "2026-04-30"},
}
_ALPINE_FIRST_LISTED = (3, 15)


def ended(system: System, now: int) -> str:
    """Return the day on which the repairs of `system` ended, or "" if they have not, or it is not known."""
    parts = system.version.split(".")
    known = _ENDS.get(system.id, {})
    day = next((known[one] for one in (".".join(parts[:2]), parts[0]) if one in known), "")
    if not day and system.id == "alpine" and all(part.isdigit() for part in parts[:2]):
        early = tuple(int(part) for part in parts[:2]) < _ALPINE_FIRST_LISTED
        day = _ENDS["alpine"]["3.15"] if early else ""
    return day if day and date.fromisoformat(day) < datetime.fromtimestamp(now, UTC).date() else ""
