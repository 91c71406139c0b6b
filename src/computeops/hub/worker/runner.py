"""Do the steps of one pipeline: `python -m computeops.hub.worker.runner FOLDER`, as a job of a scheduler.

Steps that ended well before are not done again. Ends with 0 if all did, with 1 if one failed and `fault.json` says why.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from computeops import config
from computeops.errors import ComputeOpsError
from computeops.hub.pipelines.words import DONE, FAILED, RUNNING, Step
from computeops.hub.worker import addresses, cage, steps
from computeops.hub.worker.gateway import Gateway
from computeops.hub.worker.plan import END, Fault, Folder
from computeops.hub.worker.steps import Way
from computeops.image import convert as _convert  # noqa: F401  loaded here, once, and not in every child
from computeops.store import release as _release  # noqa: F401

_FAULT = "fault.json"


def main(path: Path) -> int:
    """Do what is left to do in the folder `path`; return the exit code."""
    os.umask(0o022)
    signal.signal(signal.SIGTERM, _asked_to_end)
    folder = Folder(path.resolve())
    folder.path.joinpath("tmp").mkdir(exist_ok=True)
    code = _all(folder)
    folder.write(END, code)  # the agent need not wait until the scheduler says so
    return code


def _all(folder: Folder) -> int:
    if folder.read(_FAULT, Fault) is not None:
        return 1
    for name in steps.names(folder):
        if not folder.has_done(name) and not _step(folder, name):
            return 1
    return 0


def _asked_to_end(*_: object) -> None:
    """End the step with all that it began, which is in other sessions than this process."""
    raise SystemExit(128 + signal.SIGTERM)


def _step(folder: Folder, name: str) -> bool:
    """Do one step in a child; return whether it ended well."""
    began = time.time()
    running = Step(name=name, state=RUNNING, began=int(began * 1000))
    folder.note(running)
    plan, tail = folder.plan(), _Tail(folder, name)
    way = steps.way(name, plan, config.environment())
    gateways: list[Gateway] = []

    def child() -> None:
        _do(folder, running, way)

    def guard(listener: socket.socket) -> None:
        gateways.append(Gateway(listener, addresses.lookup(private=False, own=plan.site.own)))

    try:
        where, guarded = (folder.log, folder.path, plan.bounds), guard if way is Way.GUARDED else None
        ids = not name.startswith("test") or plan.site.engine != "bubblewrap"
        code, reason = cage.run(child, *where, tail.tick, network=way is Way.OPEN, gateway=guarded, ids=ids)
    finally:
        for one in gateways:
            one.close()
    if code and not reason and gateways and gateways[0].refused:
        reason = gateways[0].refused
    if code == 0 and not reason and folder.has_done(name):
        return True
    if folder.read(_FAULT, Fault) is None or reason:
        how = reason or (f"it was ended by signal {-code}" if code < 0 else f"it ended with {code}")
        folder.write(_FAULT, Fault(step=name, error=f"{name}: {how}"))
        with folder.log.open("a") as log:
            log.write(f"{name}: {how}\n")
    seconds = time.time() - began
    folder.note(msgspec.structs.replace(running, state=FAILED, seconds=seconds))
    return False


def _do(folder: Folder, step: Step, way: Way) -> None:
    """The child: do the step, and leave a file that says how it ended."""
    began = time.monotonic()
    last = ""

    def say(line: str) -> None:
        nonlocal last
        if line != last:
            last = line
            sys.stdout.write(f"   {line}\n")
            sys.stdout.flush()

    sys.stdout.write(f"{step.name}\n")
    try:
        facts = steps.do(step.name, folder, say, way)
    except ComputeOpsError as error:
        say(error.message)
        folder.write(_FAULT, Fault(step=step.name, error=error.message[:4000], hint=error.hint[:4000]))
        raise SystemExit(1) from None
    except OSError as error:
        text = f"{step.name}: {error.strerror or error}"
        say(text)
        hint = "the disk that a build may use is full, or a file is not readable"
        folder.write(_FAULT, Fault(step=step.name, error=text[:4000], hint=hint))
        raise SystemExit(1) from None
    except Exception as error:  # noqa: BLE001  a bug is told as one, where people look
        text = f"{step.name}: this is a bug of computeops: {type(error).__name__}: {error}"
        say(text)
        folder.write(_FAULT, Fault(step=step.name, error=text[:4000]))
        raise SystemExit(1) from None
    seconds = round(time.monotonic() - began, 3)
    folder.note(msgspec.structs.replace(step, state=DONE, seconds=seconds, facts=dict(facts)))


class _Tail:
    """Copies what the build's own programs print, from the file where the builder keeps it, to the log."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._file = steps.build_log(folder, name)
        self._log, self._left = folder.log, folder.plan().bounds.log_bytes
        self._began, self._at = time.time(), 0

    def tick(self) -> None:
        """Copy what is new."""
        if self._file is None or self._left <= 0:
            return
        try:
            with self._file.open("rb") as stream:
                if os.fstat(stream.fileno()).st_mtime < self._began - 1:
                    return
                stream.seek(self._at)
                new = stream.read(min(self._left, 1 << 20))
        except FileNotFoundError:
            return
        self._at += len(new)
        self._left -= len(new)
        if new:
            with self._log.open("ab") as log:
                log.write(new)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
