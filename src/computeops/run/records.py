"""Jobs on disk: one folder each, so that they are known after the client, the terminal and the week have ended.

    JOBS/ID/
      job.json       what was asked, without values of variables; written before anything is submitted, never changed
      native         the scheduler's name for it, once it was accepted
      cancelled      its owner wanted it to end
      job.sh ...     what was handed to the scheduler
      logs/out[.N]   output of (task N of) the program, and err[.N]; scheduler.log: what the scheduler itself said
      exits/N.CODE   an empty file that the script makes when task N ends: one folder to read for ten thousand
                     tasks, and nothing that a full disk could cut in half
      ended.json     how the tasks ended that made no such file, as the scheduler told it

Each file is written once and whole by whoever learns its content: no two processes ever edit the same one.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import TypeVar

import msgspec

from computeops.errors import FormatError, NotFoundError, did_you_mean
from computeops.files import whole_file
from computeops.limits import LIMITS
from computeops.run.model import Job, Phase, Record, State

_T = TypeVar("_T")
_FIRST, _MORE, _LENGTH = "abcdefghijkmnpqrstuvwxyz", "abcdefghijkmnpqrstuvwxyz23456789", 8
_WORDS = {
    "timeout": State(Phase.TIMEOUT, None, "its time was over"),
    "dependency": State(Phase.CANCELLED, None, "a job before it did not succeed"),
    "memory": State(Phase.FAILED, 137, "it used more memory than it asked for"),
    "running": State(Phase.RUNNING),
}
"""Ends, and one beginning, that are no exit code."""
_MOST_NATIVE = 4096
"""Bytes of a scheduler's name for a job."""


class _Asked(msgspec.Struct, frozen=True):
    """Content of job.json."""

    on: str
    job: Job
    created: float


class Records:
    """The jobs under one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def draft(self, on: str, job: Job) -> Record:
        """Return a record with a new id; nothing is written."""
        identity = secrets.choice(_FIRST) + "".join(secrets.choice(_MORE) for _ in range(_LENGTH - 1))
        return Record(identity, on, job, time.time(), self.folder / identity)

    def write(self, record: Record, files: Mapping[str, str]) -> None:
        """Put `record` and the `files` for its scheduler on the disk, before it is submitted."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        record.folder.mkdir(mode=0o700)
        try:
            for name in ("exits", "logs"):
                (record.folder / name).mkdir()
            for name, text in files.items():
                put(record.folder / name, text.encode())
            asked = _Asked(record.on, record.job, record.created)
            put(record.folder / "job.json", msgspec.json.encode(asked))
        except OSError:  # a full disk: nothing was submitted, and nothing shall look as if it were
            self.discard(record)
            raise

    def discard(self, record: Record) -> None:
        """Forget a job that its scheduler refused."""
        import shutil

        shutil.rmtree(record.folder, ignore_errors=True)

    def accept(self, record: Record, native: str) -> None:
        """Remember under which name the scheduler knows it."""
        put(record.folder / "native", native.encode())

    def mark_cancelled(self, record: Record) -> None:
        """Remember that its owner wants it to end."""
        with contextlib.suppress(FileExistsError):  # its time is that of the first wish
            (record.folder / "cancelled").touch(exist_ok=False)

    def unmark_cancelled(self, record: Record) -> None:
        """Forget that wish: nobody could be told of it."""
        (record.folder / "cancelled").unlink(missing_ok=True)

    def get(self, identity: str) -> Record:
        """Return the job with this id, or the only one whose id begins so.

        Raises:
            NotFoundError: there is none, or more than one.
        """
        known = self._ids()
        found = [one for one in known if one == identity] or [
            one for one in known if identity and one.startswith(identity)
        ]
        if len(found) != 1:
            several = f": there are {', '.join(found[:5])}" if found else did_you_mean(identity, known)
            raise NotFoundError(f"there is no job {identity!r}{several}", hint="computeops jobs lists them")
        return self._read(found[0])

    def all(self, since: float = 0) -> list[Record]:
        """Return every job created after `since`, the oldest first; folders that are no jobs are passed over."""
        found = []
        for identity in self._ids():
            with contextlib.suppress(FormatError):
                found.append(self._read(identity))
        return sorted((one for one in found if one.created >= since), key=lambda one: one.created)

    def _ids(self) -> list[str]:
        try:
            return [name for name in os.listdir(self.folder) if len(name) == _LENGTH and name.isalnum()]  # noqa: PTH208  no Path for each of many
        except FileNotFoundError:
            return []

    def _read(self, identity: str) -> Record:
        place = f"{self.folder}/{identity}"
        asked = _decode(f"{place}/job.json", _Asked)
        native, cancelled = _text(f"{place}/native"), os.access(f"{place}/cancelled", os.F_OK)
        return Record(identity, asked.on, asked.job, asked.created, self.folder / identity, native, cancelled)


def exits(record: Record) -> dict[int, State]:
    """Return what the script itself left behind about each task: the first authority on how it ended."""
    found: dict[int, State] = {}
    since = (record.folder / "cancelled").stat().st_ctime if record.cancelled else None
    with contextlib.suppress(FileNotFoundError), os.scandir(f"{record.folder}/exits") as entries:
        for entry in entries:
            number, state = _left(entry.name)
            if since is not None and state.phase is Phase.FAILED and entry.stat().st_ctime >= since:
                state = State(Phase.CANCELLED, state.code, "by its owner")
            if number in record.job.numbers and (state.phase.ended or number not in found):
                found[number] = state
    return found


def _left(name: str) -> tuple[int, State]:
    """Return task and state of a file NUMBER.CODE or NUMBER.WORD; of any other name, no task."""
    number, _, word = name.partition(".")
    state = State.of_code(int(word)) if word.isascii() and word.isdigit() else _WORDS.get(word)
    known = state is not None and number.isascii() and number.isdigit()
    return (int(number), state) if known and state else (-1, State(Phase.UNKNOWN))


def remembered(record: Record) -> dict[int, State]:
    """Return the ends of tasks that the scheduler told once: it may have forgotten them since."""
    file = f"{record.folder}/ended.json"
    return _decode(file, dict[int, State]) if os.access(file, os.F_OK) else {}


def known(record: Record, told: Mapping[int, State] | None = None) -> dict[int, State]:
    """Return all that is known without asking anyone: the script's own word, else what the scheduler `told` once."""
    left = exits(record)
    ends = remembered(record) if told is None else told
    return left | {n: state for n, state in ends.items() if n not in left or not left[n].phase.ended}


def remember(record: Record, ends: Mapping[int, State]) -> None:
    """Keep `ends`, told by the scheduler."""
    put(record.folder / "ended.json", msgspec.json.encode(dict(ends)))


def _decode(file: str, kind: type[_T]) -> _T:
    try:
        with FileIO(file) as opened:  # no Path for each of many
            data = opened.read(LIMITS.job_record_bytes + 1)
        if len(data) > LIMITS.job_record_bytes:
            raise FormatError(f"{file} is larger than {LIMITS.job_record_bytes} bytes")
        return msgspec.json.decode(data, type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise FormatError(f"{file} is no record of a job: {error}", hint="remove its folder to forget it") from error


def _text(file: str) -> str:
    try:
        with FileIO(file) as opened:
            return opened.read(_MOST_NATIVE).decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def put(file: Path, data: bytes) -> None:
    """Write `file` whole, or leave it as it was."""
    with whole_file(file, 0o600) as new:
        new.write(data)
