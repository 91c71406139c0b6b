"""Run the tasks of one local job: `python -m computeops.run.supervisor FOLDER`.

It detaches itself, says its name on standard output, waits for the jobs before this one, and runs the tasks, as many
at once as there are CPUs for them.
"""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from computeops import proc, run
from computeops.run import body, local
from computeops.run.model import Phase, Record
from computeops.run.records import Records, exits

_PAUSE = 0.5


def main(folder: Path) -> None:
    """Detach, and supervise the job in `folder`."""
    os.chdir(folder)
    ready, tell = os.pipe()
    if child := os.fork():
        os.close(tell)
        os.read(ready, 1)  # its session is its own now
        sys.stdout.write(local.name_of(child) + "\n")
        return
    os.setsid()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # ignored where the submission ran in the background of a shell
    log = os.open("logs/scheduler.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(tell)
    supervise(Records(folder.parent).get(folder.name))


def supervise(record: Record) -> None:
    """Run every task of `record` once the jobs before it succeeded."""
    if not _may_start(record):
        for number in record.job.numbers:
            _mark(record, number, "dependency")
        return
    at_once = record.job.array.at_once if record.job.array else 1
    room = max(1, (os.cpu_count() or 1) // (record.job.cpus * record.job.tasks))
    with ThreadPoolExecutor(at_once or min(room, len(record.job.numbers))) as pool:
        for _ in pool.map(lambda number: _run(record, number), record.job.numbers):
            pass


def _may_start(record: Record) -> bool:
    jobs = Records(record.folder.parent)
    while True:
        before = [run.summary(states) for states in run.look([jobs.get(one) for one in record.job.after]).values()]
        if any(state.phase.ended and state.phase is not Phase.SUCCEEDED for state in before):
            return False
        if all(state.phase.ended for state in before):
            return True
        time.sleep(_PAUSE)


def _run(record: Record, number: int) -> None:
    """Run one task; of one whose script was killed, say by which signal."""
    with proc.start(["sh", body.NAME, str(number)], cwd=record.folder, stdin=proc.DEVNULL) as process:
        code = process.wait()
    state = exits(record).get(number)
    if state is None or not state.phase.ended:
        _mark(record, number, str(128 - code if code < 0 else code))


def _mark(record: Record, number: int, word: str) -> None:
    (record.folder / "exits" / f"{number}.{word}").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
