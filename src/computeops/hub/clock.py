"""The time, for who must not be fooled by a clock that jumps: an operator sets it, a machine wakes up in 1970.

`now` never goes back while the process lives, so that what has expired stays expired. `steady` tells for how long the
clock has gone evenly, so that nothing is taken for old that is not: the kernel counts the seconds since its start
whatever the clock says, and a file of the hub remembers both.
"""

import contextlib
import json
import math
import secrets
import time
from pathlib import Path

_FILE = "clock.json"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TOLERANCE_SECONDS = 300


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while the machine sleeps


_BEGAN = time.time() - _since_boot()


def now() -> float:
    """Return the seconds since 1970: what the clock says, and never less than has gone by in this process."""
    return max(time.time(), _BEGAN + _since_boot())


def steady(data: Path) -> float:
    """Return for how many seconds the clock has not been changed, as the hub in the folder `data` knows.

    It is infinite where nothing is known of a change, also after the machine was started anew.
    """
    boot, here, clock = _BOOT.read_text().strip(), _since_boot(), time.time()
    changed: float | None = None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads((data / _FILE).read_bytes())
        if known["boot"] == boot:
            gone, shown = here - known["since_boot"], clock - known["clock"]
            changed = here if abs(shown - gone) > _TOLERANCE_SECONDS else known["changed"]
    text = json.dumps({"boot": boot, "since_boot": here, "clock": clock, "changed": changed})
    temporary = data / f".{_FILE}-{secrets.token_hex(8)}"
    with contextlib.suppress(OSError):  # a full disk must not keep anybody from reading
        temporary.write_text(text)
        temporary.replace(data / _FILE)
    return math.inf if changed is None else here - changed
