"""Jobs: a command is handed to a scheduler, watched, and ended. Plan, then do.

A scheduler is a module of this folder (or of the entry points `computeops.run`) that satisfies `model.Scheduler`. A job
is written down before it is submitted, under an id that is part of its name in the scheduler. So it is never submitted
twice: after a crash in between, `look` finds it there by that name.

How a task ended is told by, in this order: the file that its own script left, the scheduler's accounting, its queue.
What nobody tells is LOST.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from computeops import plugins
from computeops.errors import SchedulerError, UsageError
from computeops.run import body, handover, records
from computeops.run.model import Array, Fetching, Job, Phase, Plan, Record, Scheduler, Seen, State, label
from computeops.run.records import Records

__all__ = [
    "Array",
    "Job",
    "Phase",
    "Plan",
    "Record",
    "Records",
    "Scheduler",
    "Seen",
    "State",
    "cancel",
    "exit_code",
    "fetch",
    "finished",
    "label",
    "load",
    "log_files",
    "look",
    "names",
    "prepare",
    "submit",
    "summary",
]

BUILT_IN = (
    "local",
    "slurm",
    "htcondor",
    "htcondor_container",
    "gridengine",
    "lsf",
    "pbs",
    "torque",
    "kubernetes",
    "swarm",
    "chronos",
)
States = Mapping[int, State]
"""Number of a task to what is known of it."""
_LOST_SECONDS = 30.0
"""How long a job may be in neither queue nor accounting, nor have left its file on a slow file system, until it is
lost."""
_SEVERITY = (Phase.FAILED, Phase.TIMEOUT, Phase.LOST, Phase.CANCELLED, Phase.SUCCEEDED)
_ALIVE = frozenset({Phase.WAITING, Phase.RUNNING})
_ENDED_BY_SIGNAL = frozenset({129, 130, 137, 143})


def names() -> list[str]:
    """Return the names of all schedulers."""
    return plugins.names("run", BUILT_IN)


def load(name: str) -> Scheduler:
    """Return the scheduler called `name`.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    scheduler: Scheduler = plugins.load("run", name, BUILT_IN)
    return scheduler


def prepare(job: Job, *, on: str, jobs: Records) -> tuple[Record, Plan]:
    """Return the record and the plan of `job` on scheduler `on`; nothing is written or started.

    Raises:
        UsageError: the scheduler lacks what the job asks for, or a job before it has failed.
        NotFoundError: there is no such job before it.
    """
    scheduler = load(on)
    if job.private and scheduler.SHOWS_ENV:
        raise UsageError(
            f"--env {job.private[0]}: the queue of {on} shows variables to everyone who asks",
            hint="keep the secret in a file that only you may read, or write --env NAME=VALUE if it is none",
        )
    if job.volumes and not scheduler.STARTS_CONTAINERS:
        raise UsageError(f"{on} has no volumes of its own", hint="--bind shows a folder of the machine that computes")
    before = [jobs.get(identity) for identity in job.after]
    if foreign := [one for one in before if one.on != on]:
        raise UsageError(f"job {foreign[0].id} is on {foreign[0].on}: a job on {on} cannot wait for it")
    waiting = _unfinished(before)
    record = jobs.draft(on, replace(job, after=tuple(one.id for one in before)))
    return record, scheduler.script(record, waiting)


def _unfinished(before: Sequence[Record]) -> list[Record]:
    """Return those that have not succeeded yet: a scheduler forgets, and then refuses to wait for, what has ended."""
    waiting = []
    for one, states in zip(before, look(before).values(), strict=True):
        state = summary(states)
        if state.phase.ended and state.phase is not Phase.SUCCEEDED:
            raise UsageError(f"job {one.id} has {state.phase}: what comes after it would never start")
        if state.phase is not Phase.SUCCEEDED:
            waiting.append(one)
    return waiting


def submit(job: Job, *, on: str, jobs: Records, environ: Mapping[str, str], values: Mapping[str, str]) -> Record:
    """Hand `job` to scheduler `on` and return its record; `values` are those of the variables that it names.

    Raises:
        SchedulerError: it was refused; or it is not known whether it was accepted, and the record stays.
        MissingProgramError: the scheduler is not here; UsageError: as `prepare`.
    """
    scheduler = load(on)
    handover.need(on, scheduler.available())
    record, plan = prepare(job, on=on, jobs=jobs)
    jobs.write(record, plan.files)
    env = handover.environment(environ, values, plan.passes)
    try:
        native = scheduler.submit(record, plan, env)
    except SchedulerError as error:
        native = _accepted_after_all(scheduler, record, jobs, error)
    jobs.accept(record, native)
    return replace(record, native=native)


def _accepted_after_all(scheduler: Scheduler, record: Record, jobs: Records, error: SchedulerError) -> str:
    """Return the scheduler's name for a job whose submission failed on our side only; else raise `error`."""
    try:
        seen = scheduler.states([record]).get(record.id, Seen())
    except SchedulerError:
        raise SchedulerError(
            f"{error.message}\nand {record.on} does not answer, so nobody knows whether it took the job",
            hint=f"before you submit it again, ask: computeops jobs {record.id}",
        ) from error
    if not seen.native:
        jobs.discard(record)
        raise error
    return seen.native


def look(chosen: Sequence[Record]) -> dict[str, States]:
    """Return what is known of each of `chosen`, by id; each scheduler is asked once, for what has not ended."""
    known: dict[str, States] = {one.id: records.known(one) for one in chosen}
    open_ = [one for one in chosen if not _all_ended(one, known[one.id])]
    for on in dict.fromkeys(one.on for one in open_):
        group = [one for one in open_ if one.on == on]
        try:
            seen = load(on).states(group)
        except SchedulerError as error:
            silent = State(Phase.UNKNOWN, None, f"{on} does not answer: {error.message.splitlines()[-1].strip()}")
            known |= {one.id: _merge(one, known[one.id], Seen(rest=silent)) for one in group}
            continue
        for one in group:
            known[one.id] = _learn(one, seen.get(one.id, Seen()))
    return known  # in the order of `chosen`


def finished(record: Record) -> bool:
    """Return whether every task left its file: a glance that asks no scheduler."""
    return _all_ended(record, records.exits(record))


def fetch(record: Record) -> None:
    """Bring the output of `record` here, where its machines have no file system in common with this one.

    Raises:
        SchedulerError: the scheduler does not answer.
    """
    scheduler = load(record.on)
    if isinstance(scheduler, Fetching):
        scheduler.fetch(record)


def log_files(record: Record, number: int) -> tuple[str, str]:
    """Return the files with the output and the errors of task `number`."""
    out, err = body.log_files(record)
    return out.replace("{task}", str(number)), err.replace("{task}", str(number))


def _all_ended(record: Record, known: States) -> bool:
    return all(number in known and known[number].phase.ended for number in record.job.numbers)


def _learn(record: Record, seen: Seen) -> dict[int, State]:
    """Return what is known of `record` now, and keep what the scheduler may forget."""
    if seen.native and not record.native:
        Records(record.folder.parent).accept(record, seen.native)
    before = records.remembered(record)
    left = records.known(record, before)  # read again: a task may have ended between the two looks
    ended = {number for number, state in left.items() if state.phase.ended}
    gone = seen.rest is None and any(number not in ended and number not in seen.tasks for number in record.job.numbers)
    rest = _gone(record) if gone else seen.rest
    if not gone and os.access(mark := f"{record.folder}/missing", os.F_OK):
        Path(mark).unlink(missing_ok=True)
    states = _merge(record, left, replace(seen, rest=rest))
    told = {n: s for n, s in seen.tasks.items() if s.phase.ended and s == states.get(n)}
    if told.keys() - before.keys():
        records.remember(record, before | told)
    return states


def _gone(record: Record) -> State:
    """Return the state of tasks that the scheduler does not know: lost, once that has been so for a while."""
    if record.cancelled:
        return State(Phase.CANCELLED, None, "by its owner")
    mark = record.folder / "missing"
    if not mark.exists():
        mark.touch()
    if time.time() - mark.stat().st_mtime < _LOST_SECONDS:
        return State(Phase.UNKNOWN, None, f"{record.on} does not know it, and it left no sign yet")
    what = "left the queue and nothing tells how it ended" if record.native else "was never accepted"
    return State(Phase.LOST, None, what)


def _merge(record: Record, left: States, seen: Seen) -> dict[int, State]:
    nothing = State(Phase.UNKNOWN)
    states = {}
    for number in record.job.numbers:
        mine, theirs = left.get(number), seen.tasks.get(number, seen.rest) or nothing
        # That it began says nothing about now, unless the scheduler still has it.
        ours = mine is not None and (mine.phase.ended or theirs.phase in _ALIVE)
        states[number] = _cancelled(record, mine if mine is not None and ours else theirs)
    return states


def _cancelled(record: Record, state: State) -> State:
    """Return `state`, or that it was cancelled where the owner wanted that and a signal was the end."""
    by_signal = state.phase is Phase.FAILED and (state.code is None or state.code in _ENDED_BY_SIGNAL)
    return State(Phase.CANCELLED, state.code, "by its owner") if record.cancelled and by_signal else state


def summary(states: States) -> State:
    """Return the state of a whole job: the worst end of its tasks with the highest code, or how far they are."""
    phases = {state.phase for state in states.values()}
    reasons = Counter(state.reason for state in states.values() if state.reason)
    reason = reasons.most_common(1)[0][0] if reasons else ""
    if all(phase.ended for phase in phases):
        codes = [state.code for state in states.values() if state.code is not None]
        worst = next(phase for phase in _SEVERITY if phase in phases)
        return State(worst, max(codes, default=None), reason)
    if Phase.RUNNING in phases or (Phase.WAITING in phases and any(phase.ended for phase in phases)):
        return State(Phase.RUNNING, None, reason)
    still = next(phase for phase in (Phase.HELD, Phase.WAITING, Phase.UNKNOWN) if phase in phases)
    return State(still, None, reason)


def exit_code(state: State) -> int:
    """Return the exit code that stands for an ended job: the program's own, 124 after its time, 143 if cancelled.

    Raises:
        SchedulerError: it is lost, or held.
    """
    match state.phase:
        case Phase.SUCCEEDED:
            return 0
        case Phase.TIMEOUT:
            return 124
        case Phase.CANCELLED:
            return 143
        case Phase.FAILED:
            return state.code or 1
        case _:
            raise SchedulerError(
                f"the job is {state.phase}: {state.reason}", hint="computeops jobs and logs may tell more"
            )


def cancel(chosen: Iterable[Record], jobs: Records) -> None:
    """End those of `chosen` that have not ended.

    Raises:
        SchedulerError: a scheduler does not answer, and the job goes on.
    """
    for record in chosen:
        if _has_ended(record):
            continue
        jobs.mark_cancelled(record)
        known = jobs.get(record.id)  # read again: `look` may have learnt the scheduler's name for it
        try:
            fetch(known)  # the scheduler forgets the output with the job
            load(record.on).cancel(known)
        except SchedulerError as error:
            if not _has_ended(known):  # it might have, in between: then there was nothing to cancel
                jobs.unmark_cancelled(record)
                raise SchedulerError(
                    error.message, hint=f"the job goes on; try again: computeops cancel {record.id}"
                ) from error


def _has_ended(record: Record) -> bool:
    return summary(look([record])[record.id]).phase.ended
