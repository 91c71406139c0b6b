"""Mesos by way of Chronos: a job that runs once, as a Docker container, by Chronos' HTTP API.

https://mesos.github.io/chronos/docs/api.html. Both projects were retired; sites that still have them get no more than
the API gives: it tells neither exit codes nor output, and knows no arrays.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from computeops.errors import UsageError
from computeops.run import calls
from computeops.run.model import SINGLE, Phase, Plan, Record, Seen, State, volume

SHOWS_ENV = True
STARTS_CONTAINERS = True
_API = "/v1/scheduler"
_FILE = "job.json.asked"
_ONCE = "R1//PT1H"
"""Run one time, from now on."""


def available() -> str:
    """Return "": whether there is a Chronos is known when it is asked."""
    return ""


def script(record: Record, after: Sequence[Record]) -> Plan:
    """Return `record` as the description of a job, scheduled now or dependent on those before it.

    Raises:
        UsageError: it asks for what Chronos does not have.
    """
    job = record.job
    refused = {
        "be an array": job.array is not None,
        "have files of ours": bool(job.stdin or job.stdout or job.stderr),
        "have several nodes or tasks": job.nodes > 1 or job.tasks > 1,
        "have a time after which it ends": bool(job.seconds),
        "have modules": bool(job.modules),
    }
    for what, asked in refused.items():
        if asked:
            raise UsageError(f"a job of chronos cannot {what}", hint="use another scheduler")
    if not job.inside:
        raise UsageError("mesos fetches images from a registry", hint="name a release: [hub/]collection/name:version")
    text = json.dumps(_job(record, after), indent=1, ensure_ascii=False) + "\n"
    kind = "dependency" if after else "iso8601"
    return Plan(("POST", f"{calls.place(job).address}{_API}/{kind}"), {_FILE: text}, stdin=_FILE)


def _job(record: Record, after: Sequence[Record]) -> dict[str, Any]:
    job = record.job
    when: dict[str, Any] = {"parents": [one.native for one in after]} if after else {"schedule": _ONCE}
    volumes = [
        {"hostPath": name, "containerPath": target, "mode": "RO" if read_only else "RW"}
        for name, target, read_only in map(volume, job.volumes)
    ]
    return {
        "name": record.label,
        "command": shlex.join(job.inside),
        "shell": True,
        **when,
        "container": {"type": "DOCKER", "image": job.image, "network": "HOST", "volumes": volumes},
        "cpus": job.cpus,
        "gpus": job.gpus,
        **({"mem": job.memory} if job.memory else {}),
        "retries": job.retries,
        "environmentVariables": [{"name": "COMPUTEOPS_JOB_ID", "value": record.id}],
        **({"constraints": [["queue", "EQUALS", job.queue]]} if job.queue else {}),
    }


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Add the job and return its name.

    Raises:
        SchedulerError: it was not accepted, or nobody knows.
    """
    asked = json.loads(plan.files[_FILE])
    asked["environmentVariables"] += [{"name": name, "value": env.get(name, "")} for name in record.job.env]
    there = calls.place(record.job)
    calls.ask("POST", there, plan.argv[1].removeprefix(there.address), asked)
    return record.label


def states(records: Sequence[Record]) -> Mapping[str, Seen]:
    """Return what Chronos' counts of successes and errors say of `records`.

    Raises:
        SchedulerError: it does not answer.
    """
    found: dict[str, Seen] = {}
    for there in dict.fromkeys(calls.place(one.job) for one in records):
        known = {str(one.get("name")): one for one in calls.rows(calls.ask("GET", there, f"{_API}/jobs"))}
        for record in records:
            if calls.place(record.job) == there and record.label in known:
                found[record.id] = Seen(record.label, {SINGLE: _state(record, known[record.label])})
    return found


def _state(record: Record, told: Mapping[str, Any]) -> State:
    if _count(told, "successCount"):
        return State(Phase.SUCCEEDED, 0)
    if _count(told, "errorCount") > record.job.retries:
        return State(Phase.FAILED, None, "chronos does not tell exit codes")
    return State(Phase.WAITING, None, "chronos does not tell whether it has begun")


def _count(told: Mapping[str, Any], name: str) -> int:
    found = told.get(name, 0)
    return found if isinstance(found, int) else 0


def cancel(record: Record) -> None:
    """Kill its tasks and remove it; that it is gone already is no error.

    Raises:
        SchedulerError: it does not answer.
    """
    there, name = calls.place(record.job), quote(record.native, safe="")
    for path in (f"{_API}/task/kill/{name}", f"{_API}/job/{name}"):
        calls.ask("DELETE", there, path, fine=(200, 204, 400, 404))
