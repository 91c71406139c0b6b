"""The jobs of one pipeline: handed to a scheduler, looked at, submitted again where one was lost."""

import contextlib
import shutil
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from computeops import run
from computeops.errors import ComputeOpsError, NotFoundError, SchedulerError
from computeops.hub.pipelines.words import DONE
from computeops.hub.worker.plan import Folder
from computeops.run import Job, Record, Records, State

if TYPE_CHECKING:
    from computeops.hub.worker.agent import Post

_MOST = 3
_LOOK_SECONDS = 2.0
_OURS = ("COMPUTEOPS_", "XDG_")


class Jobs:
    """The jobs of the pipeline in one folder; their names stand in its file `job`, the newest last."""

    def __init__(self, post: "Post", folder: Folder) -> None:
        self._post, self._folder = post, folder
        self._records = Records(post.state / "jobs")
        self._file = folder.path / "job"
        self._record: Record | None = None
        self._looked = float("-inf")

    def state(self) -> State | None:
        """Return how far the job is, which is submitted if there is none; None: nothing new is known.

        Raises:
            SchedulerError: the scheduler refused it.
        """
        record = self._current() or self._submit()
        now = time.monotonic()
        if not run.finished(record) and now - self._looked < _LOOK_SECONDS:
            return None
        self._looked = now
        return run.summary(run.look([record])[record.id])

    def again(self, ended: State) -> None:
        """Submit another one in place of one that left no word of why it ended.

        Raises:
            SchedulerError: that was so too often, and no step ended between.
        """
        done = self._done()
        if [line.split()[-1] for line in self._lines()].count(done) >= _MOST:
            raise SchedulerError(
                f"{_MOST} jobs ended before their time: {ended.phase} {ended.reason}".rstrip(),
                hint="see the log of the worker and its scheduler",
            )
        self._submit()

    def cancel(self) -> None:
        """End the job, if there is one; a scheduler that does not answer will end it by its time."""
        with contextlib.suppress(ComputeOpsError):
            if (record := self._current()) is not None:
                run.cancel([record], self._records)

    def forget(self) -> None:
        """Remove what is kept of jobs that have ended."""
        for name in self._names():
            shutil.rmtree(self._records.folder / name, ignore_errors=True)
        self._file.unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        """Return a line for each job: its name, and how many steps had ended when it was submitted."""
        return self._file.read_text().splitlines() if self._file.exists() else []

    def _names(self) -> list[str]:
        return [line.split()[0] for line in self._lines()]

    def _done(self) -> str:
        return str(sum(one.state == DONE for one in self._folder.steps()))

    def _current(self) -> Record | None:
        if self._record is None and (names := self._names()):
            with contextlib.suppress(NotFoundError):
                self._record = self._records.get(names[-1])
        return self._record

    def _submit(self) -> Record:
        """Hand the job over, unless an agent that was killed did so and could not write it down."""
        name = f"pipeline-{self._folder.path.name}"
        known = set(self._names())
        lost = [one for one in self._records.all() if one.job.name == name and one.id not in known]
        alive = [one for one in lost if not run.summary(run.look([one])[one.id]).phase.ended]
        record = alive[-1] if alive else self._handed(name)
        with self._file.open("a") as file:
            file.write(f"{record.id} {self._done()}\n")
        self._record, self._looked = record, float("-inf")
        return record

    def _handed(self, name: str) -> Record:
        post, folder = self._post, self._folder.path
        command = (sys.executable, "-m", "computeops.hub.worker.runner", str(folder))
        job = Job(
            name=name,
            command=command,
            cwd=str(folder),
            cpus=post.cpus,
            memory=post.memory,
            seconds=post.seconds,
            queue=post.settings.queue,
            account=post.settings.account,
        )
        environ = _environment(post.environ, str(folder))
        return run.submit(job, on=post.on, jobs=self._records, environ=environ, values={})


def _environment(environ: Mapping[str, str], home: str) -> dict[str, str]:
    """Return what a job may find set: nothing that names a secret or a file of the worker."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_OURS)}
    return kept | {"HOME": home, "LANG": "C.UTF-8"}
