"""Docker Swarm: a service for each job, by the Docker Engine API 1.41.

https://docs.docker.com/reference/api/engine/version/v1.41/. The machines share no files with ours: the image comes from
a registry, by its digest, and output is fetched when somebody wants to see it. A swarm ends no job after a time.

The service is a replicated one whose tasks are not started again. Not in the mode `replicated-job`: a swarm starts a
task of such a one again and again until it exits with 0, whatever its restart policy says.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from computeops.errors import SchedulerError, UsageError
from computeops.run import body, calls
from computeops.run.model import Job, Phase, Plan, Record, Seen, State, volume
from computeops.run.records import put

SHOWS_ENV = True
STARTS_CONTAINERS = True
_SOCKET = "unix:///var/run/docker.sock"
_API = "/v1.41"
_FILE = "service.json"
_ID = "org.computeops.id"
# https://docs.docker.com/engine/swarm/how-swarm-mode-works/swarm-task-states/
_PHASES = {
    "new": Phase.WAITING,
    "allocated": Phase.WAITING,
    "pending": Phase.WAITING,
    "assigned": Phase.WAITING,
    "accepted": Phase.WAITING,
    "preparing": Phase.WAITING,
    "ready": Phase.WAITING,
    "starting": Phase.WAITING,
    "running": Phase.RUNNING,
    "complete": Phase.SUCCEEDED,
    "shutdown": Phase.CANCELLED,
    "failed": Phase.FAILED,
    "rejected": Phase.FAILED,
    "remove": Phase.CANCELLED,
    "orphaned": Phase.LOST,
}
_NANO = 10**9
_MIB = 1024 * 1024
_BRACES = '{{"{{"}}'
"""Two braces: in the value of a variable a swarm takes them for the beginning of a template."""
_FRAME, _STDERR = 8, 2
"""Bytes in front of each piece of output: the stream (2: errors), three zeros, and how long it is."""


def available() -> str:
    """Return "": whether there is a swarm is known when it is asked."""
    return ""


def script(record: Record, after: Sequence[Record]) -> Plan:
    """Return `record` as the description of a service.

    Raises:
        UsageError: it asks for what a swarm does not have.
    """
    job = record.job
    refused = {
        "to start after another": bool(after),
        "files of ours": bool(job.stdin or job.stdout or job.stderr),
        "several nodes or tasks": job.nodes > 1 or job.tasks > 1,
        "a time after which it ends": bool(job.seconds),
        "an array of which only some tasks run at once": bool(job.array and job.array.at_once),
        "modules": bool(job.modules),
    }
    for what, asked in refused.items():
        if asked:
            raise UsageError(f"a job of a swarm cannot have {what}", hint="use another scheduler")
    if not job.inside:
        raise UsageError("a swarm fetches images from a registry", hint="name a release: [hub/]collection/name:version")
    address = _place(job).address
    text = json.dumps(_service(record), indent=1, ensure_ascii=False) + "\n"
    return Plan(("POST", f"{address}{_API}/services/create"), {_FILE: text}, stdin=_FILE)


def _service(record: Record) -> dict[str, Any]:
    job = record.job
    limits: dict[str, Any] = {"NanoCPUs": job.cpus * _NANO}
    limits |= {"MemoryBytes": job.memory * _MIB} if job.memory else {}
    asked = dict(limits)
    if job.gpus:
        asked["GenericResources"] = [{"DiscreteResourceSpec": {"Kind": "NVIDIA-GPU", "Value": job.gpus}}]
    return {
        "Name": record.label[:63],
        "Labels": {_ID: record.id},
        "TaskTemplate": {
            "ContainerSpec": _container(record),
            "Resources": {"Limits": limits, "Reservations": asked},
            "RestartPolicy": {
                "Condition": "on-failure" if job.retries else "none",
                "MaxAttempts": job.retries,
                "Delay": 0,
            },
            "Placement": {"Constraints": [f"node.labels.queue=={job.queue}"]} if job.queue else {},
        },
        "Mode": {"Replicated": {"Replicas": len(job.numbers)}},
    }


def _container(record: Record) -> dict[str, Any]:
    job = record.job
    command = list(job.inside)
    env = [f"COMPUTEOPS_JOB_ID={record.id}"]
    if job.array:  # a swarm counts from 1, and fills in the number itself
        env.append("COMPUTEOPS_SLOT={{.Task.Slot}}")
        shift = f'export COMPUTEOPS_TASK_ID=$((COMPUTEOPS_SLOT + {job.array.first - 1})); exec "$@"'
        command = ["/bin/sh", "-c", shift, "sh", *command]
    return {
        "Image": job.image,
        "Command": command,
        "Env": env,
        "Mounts": [
            {"Type": "volume", "Source": name, "Target": target, "ReadOnly": read_only}
            for name, target, read_only in map(volume, job.volumes)
        ],
        "CapabilityDrop": ["ALL"],
        # Else the program would be process 1, which no signal of its own ends: a crash would pass for success.
        "Init": True,
    }


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Create the service and return its id.

    Raises:
        SchedulerError: it was not accepted, or nobody knows.
    """
    asked = json.loads(plan.files[_FILE])
    values = {name: env.get(name, "").replace("{{", _BRACES) for name in record.job.env}
    asked["TaskTemplate"]["ContainerSpec"]["Env"] += [f"{name}={value}" for name, value in values.items()]
    answer = calls.ask("POST", _place(record.job), f"{_API}/services/create", asked)
    native = json.loads(answer.body).get("ID", "")
    if not isinstance(native, str) or not native.isalnum():
        raise SchedulerError(f"the swarm did not answer with the id of a service but {answer.body[:80]!r}")
    return native


def states(records: Sequence[Record]) -> Mapping[str, Seen]:
    """Return what the swarm knows of `records`.

    Raises:
        SchedulerError: it does not answer.
    """
    found: dict[str, Seen] = {}
    for there in dict.fromkeys(_place(one.job) for one in records):
        here = {one.id: one for one in records if _place(one.job) == there}
        services = calls.rows(calls.ask("GET", there, f"{_API}/services{_filter('label', [_ID])}"))
        natives = {str(one.get("ID")): one.get("Spec", {}).get("Labels", {}).get(_ID) for one in services}
        mine = {native: here[identity] for native, identity in natives.items() if identity in here}
        tasks = _asked(there, list(mine)) if mine else []
        for native, record in mine.items():
            own = [one for one in tasks if one.get("ServiceID") == native]
            found[record.id] = Seen(native, {_number(record, one): _state(one) for one in own}, State(Phase.WAITING))
    return found


def _asked(there: calls.Place, natives: Sequence[str]) -> list[dict[str, Any]]:
    """Return the tasks of these services, the oldest first: a later one with the same number is its next try."""
    tasks = calls.rows(calls.ask("GET", there, f"{_API}/tasks{_filter('service', natives)}"))
    return sorted(tasks, key=lambda one: str(one.get("CreatedAt", "")))


def _filter(name: str, values: Sequence[str]) -> str:
    return f"?filters={quote(json.dumps({name: values}))}"


def _number(record: Record, task: Mapping[str, Any]) -> int:
    slot = task.get("Slot", 1)
    return record.job.numbers[0] + (slot - 1 if isinstance(slot, int) else 0)


def _state(task: Mapping[str, Any]) -> State:
    status = task.get("Status", {})
    phase = _PHASES.get(str(status.get("State")), Phase.UNKNOWN)
    code = status.get("ContainerStatus", {}).get("ExitCode")
    said = str(status.get("Err") or "")
    if phase is Phase.SUCCEEDED:
        return State(phase, 0)
    if phase is Phase.FAILED and task.get("DesiredState") != "shutdown":
        return State(Phase.RUNNING, None, "it failed, and the swarm has not said yet whether it is tried again")
    if phase is Phase.FAILED and isinstance(code, int) and code:
        return State(phase, code)
    return State(phase, None, said if phase is not Phase.RUNNING else "")


def fetch(record: Record) -> None:
    """Write output and errors of its tasks beside the record, the tries of each one behind another.

    Raises:
        SchedulerError: it does not answer.
    """
    there, said = _place(record.job), dict[Path, bytearray]()
    out, err = (Path(one) for one in body.log_files(record))
    for task in _asked(there, [record.native]) if record.native else ():
        identity, number = str(task.get("ID", "")), str(_number(record, task))
        logs = f"{_API}/tasks/{quote(identity, safe='')}/logs?stdout=1&stderr=1"
        for stream, piece in _frames(calls.ask("GET", there, logs, fine=(200, 404)).body):
            file = err if stream == _STDERR else out
            said.setdefault(file.with_name(file.name.replace("{task}", number)), bytearray()).extend(piece)
    for file, data in said.items():
        put(file, bytes(data))


def _frames(data: bytes) -> list[tuple[int, bytes]]:
    """Return stream and content of each piece."""
    found, at = [], 0
    while at + _FRAME <= len(data):
        size = int.from_bytes(data[at + 4 : at + _FRAME])
        found.append((data[at], data[at + _FRAME : at + _FRAME + size]))
        at += _FRAME + size
    return found


def cancel(record: Record) -> None:
    """Remove the service with its tasks; that it is gone already is no error.

    Raises:
        SchedulerError: it does not answer.
    """
    calls.ask("DELETE", _place(record.job), f"{_API}/services/{record.native}", fine=(200, 204, 404))


def _place(job: Job) -> calls.Place:
    return calls.place(job, _SOCKET)
