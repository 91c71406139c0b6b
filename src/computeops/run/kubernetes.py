"""Kubernetes: a batch/v1 Job for each job, an indexed one for an array, handed over and watched by kubectl.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/. Its machines share no file system with
ours: the image comes from a registry, by its digest, and output is fetched when somebody wants to see it. Values of
variables travel in a Secret that goes with the Job, never in a file of ours.
"""

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from computeops import proc
from computeops.errors import SchedulerError, UsageError
from computeops.limits import LIMITS
from computeops.run import handover
from computeops.run.model import SINGLE, Job, Phase, Plan, Record, Seen, State, volume
from computeops.run.records import put

SHOWS_ENV = False
STARTS_CONTAINERS = True
_FILE = "manifest.json"
_PASSES = ("KUBECONFIG", "KUBERNETES_")
_LABEL = "computeops.org/id"
_INDEX = "batch.kubernetes.io/job-completion-index"
_KEPT_SECONDS = 7 * 86400
"""How long the server keeps a job that has ended, and its output."""
_GRACE = 10
_STUCK = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerError", "RunContainerError"}
"""Reasons of a container that waits for somebody to do something."""
_AT_ONCE = 4
"""Outputs that are fetched at the same time."""
_MOST_NAMES = 200
"""Ids in one question; of more jobs, all are asked for."""


def available() -> str:
    """Return "" if kubectl is here."""
    return handover.missing("kubectl")


def script(record: Record, after: Sequence[Record]) -> Plan:
    """Return `record` as the manifest of a Job.

    Raises:
        UsageError: it asks for what a Job cannot give: files of ours, several nodes, or to start after another.
    """
    job = record.job
    for asked, what in ((after, "to start after another"), (job.stdin or job.stdout or job.stderr, "files of ours")):
        if asked:
            raise UsageError(f"a job on kubernetes cannot have {what}", hint="use another scheduler, or a workflow")
    if job.nodes > 1 or job.tasks > 1:
        raise UsageError("a job on kubernetes is one process", hint="use --cpus, --array, or another scheduler")
    if not job.inside:
        raise UsageError(
            "kubernetes fetches images from a registry", hint="name a release: [hub/]collection/name:version"
        )
    text = json.dumps(_manifest(record), indent=1, ensure_ascii=False) + "\n"
    argv = ("kubectl", "create", "-f", _FILE, "-o", "json", *_namespace(job), *job.options)
    return Plan(argv, {_FILE: text}, passes=_PASSES)


def _manifest(record: Record) -> dict[str, Any]:
    job, labels = record.job, {"app.kubernetes.io/managed-by": "computeops", _LABEL: record.id}
    queue = {"kueue.x-k8s.io/queue-name": job.queue} if job.queue else {}
    spec: dict[str, Any] = {
        "ttlSecondsAfterFinished": _KEPT_SECONDS,
        "template": {"metadata": {"labels": labels}, "spec": _pod(record)},
    }
    if job.queue:
        spec["suspend"] = True  # Kueue starts it
    if job.array:
        spec |= {"completions": job.array.size, "parallelism": job.array.at_once or job.array.size}
        # Without a limit of its own for each task, one that fails would end all others.
        spec |= {"completionMode": "Indexed", "backoffLimitPerIndex": job.retries}
    else:
        spec["backoffLimit"] = job.retries
    name = {"name": _name(record), "labels": labels | queue, "annotations": {"computeops.org/name": job.name}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": name, "spec": spec}


def _pod(record: Record) -> dict[str, Any]:
    job, user = record.job, os.getuid()
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # Else the program would be process 1, which no signal of its own ends: a crash would pass for success.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": _GRACE,
        "containers": [_container(record)],
    }
    if job.volumes:
        pod["volumes"] = [
            {"name": f"v{number}", "persistentVolumeClaim": {"claimName": volume(one)[0]}}
            for number, one in enumerate(job.volumes)
        ]
    if job.seconds:
        pod["activeDeadlineSeconds"] = job.seconds
    if user:
        pod["securityContext"] = {"runAsUser": user, "runAsGroup": os.getgid(), "runAsNonRoot": True}
    return pod


def _container(record: Record) -> dict[str, Any]:
    job = record.job
    limits = {"cpu": str(job.cpus)}
    limits |= {"memory": f"{job.memory}Mi"} if job.memory else {}
    limits |= {"nvidia.com/gpu": str(job.gpus)} if job.gpus else {}
    command = list(job.inside)
    if job.array:  # the server counts from 0
        shift = f'export COMPUTEOPS_TASK_ID=$((JOB_COMPLETION_INDEX + {job.array.first})); exec "$@"'
        command = ["/bin/sh", "-c", shift, "sh", *command]
    env: list[dict[str, Any]] = [{"name": "COMPUTEOPS_JOB_ID", "value": record.id}]
    env += [{"name": one, "valueFrom": {"secretKeyRef": {"name": _name(record), "key": one}}} for one in job.env]
    return {
        "name": "main",
        "image": job.image,
        "command": [word.replace("$", "$$") for word in command],  # $(NAME) would be a variable, and $$ is a $
        "env": env,
        "resources": {"limits": limits, "requests": limits},
        "volumeMounts": [
            {"name": f"v{number}", "mountPath": path, "readOnly": read_only}
            for number, (_, path, read_only) in enumerate(map(volume, job.volumes))
        ],
        "securityContext": {"allowPrivilegeEscalation": False},
    }


def _name(record: Record) -> str:
    """Return its name as DNS allows it (RFC 1123)."""
    return re.sub(r"[^a-z0-9-]+", "-", record.label.lower())


def _namespace(job: Job) -> list[str]:
    return [f"--namespace={job.account}"] if job.account else []


def submit(record: Record, plan: Plan, env: Mapping[str, str]) -> str:
    """Create the Job and the Secret with its variables, and return NAMESPACE/NAME.

    Raises:
        SchedulerError: it was not accepted, or not as it was asked for, or nobody knows.
    """
    made = _object(handover.submit(record, plan, env))
    metadata = made.get("metadata", {})
    native = f"{metadata.get('namespace')}/{metadata.get('name')}"
    if lost := _dropped(_manifest(record)["spec"], made.get("spec", {})):
        cancel(replace(record, native=native))
        raise SchedulerError(
            f"this server does not know {', '.join(lost)} of a Job, and dropped it without a word",
            hint="arrays need Kubernetes 1.33 or later",
        )
    if record.job.env:
        argv = ("kubectl", "create", "-f", "-", *_namespace(record.job))
        handover.submit(record, Plan(argv, {"-": _secret(record, metadata, env)}, stdin="-"), env)
    return native


def _dropped(asked: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the fields that old servers drop in silence: what is not in the spec that came back."""
    spec = [name for name, value in asked.items() if name != "template" and given.get(name) != value]
    return [*spec, *(f"template{path}" for path in _missing(asked["template"], given.get("template")))]


def _missing(asked: Any, given: Any) -> Iterator[str]:
    """Yield the paths in `asked` that `given` does not have; values are the server's to write in its own way."""
    if isinstance(asked, dict):
        for name, value in asked.items():
            if isinstance(given, dict) and name in given:
                yield from (f".{name}{rest}" for rest in _missing(value, given[name]))
            elif value not in ([], {}, False):  # empty, it may be left out
                yield f".{name}"
    elif isinstance(asked, list):
        pairs = zip(asked, given, strict=False) if isinstance(given, list) and len(given) >= len(asked) else ()
        yield from (rest for one, other in pairs for rest in _missing(one, other))


def _secret(record: Record, owner: Mapping[str, Any], env: Mapping[str, str]) -> str:
    """Return a Secret that the server removes with the Job."""
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": owner.get("name"), "uid": owner.get("uid")}
    data = {one: base64.b64encode(env.get(one, "").encode()).decode() for one in record.job.env}
    metadata = {"name": _name(record), "labels": {_LABEL: record.id}, "ownerReferences": [reference]}
    return json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


def states(records: Sequence[Record]) -> Mapping[str, Seen]:
    """Return what the server knows of `records`.

    Raises:
        SchedulerError: it does not answer.
    """
    found: dict[str, Seen] = {}
    for place in dict.fromkeys(tuple(_namespace(one.job)) for one in records):
        group = {one.id: one for one in records if tuple(_namespace(one.job)) == place}
        which = f"{_LABEL} in ({','.join(group)})" if len(group) <= _MOST_NAMES else _LABEL
        answer = _object(handover.ask(["kubectl", "get", "jobs,pods", "-l", which, "-o", "json", *place]))
        for identity, (job, pods) in _sorted(answer).items():
            if identity in group and job:
                found[identity] = _seen(group[identity], job, pods)
    return found


def cancel(record: Record) -> None:
    """Delete the Job with its pods; that it is gone already is no error.

    Raises:
        SchedulerError: it does not answer.
    """
    namespace, _, name = record.native.partition("/")
    handover.ask(
        ["kubectl", "delete", "job", name, f"--namespace={namespace}", "--wait=false", "--ignore-not-found=true"]
    )


def fetch(record: Record) -> None:
    """Write the output of its tasks beside the record, the tries of each one behind another.

    Raises:
        SchedulerError: it does not answer.
    """
    which = ["-l", f"{_LABEL}={record.id}", "-o", "json", *_namespace(record.job)]
    _, pods = _sorted(_object(handover.ask(["kubectl", "get", "pods", *which]))).get(record.id, ({}, []))
    tries: dict[int, list[dict[str, Any]]] = {}
    for pod in pods:
        tries.setdefault(_task(record, pod), []).append(pod)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(lambda number: _fetch(record, number, tries[number]), tries):
            pass


def _fetch(record: Record, number: int, pods: Sequence[Mapping[str, Any]]) -> None:
    file = record.folder / "logs" / (f"out.{number}" if record.job.array else "out")
    whole = file.with_name(f".{file.name}.{len(pods)}")
    if whole.exists():
        return
    said = []
    for pod in pods:
        metadata = pod["metadata"]
        argv = ["kubectl", "logs", metadata["name"], f"--namespace={metadata['namespace']}"]
        done = proc.capture(argv, timeout=handover.SECONDS, error=SchedulerError)
        if done.returncode:  # not begun yet, or its node is gone: what was fetched before stays
            return
        said.append(done.stdout)
    put(file, b"".join(said))
    if all(_state(pod).phase.ended for pod in pods):
        whole.touch()


def _object(answer: str) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except ValueError as error:
        raise SchedulerError(f"kubectl answered with something else than JSON: {error}") from error
    if not isinstance(found, dict):
        raise SchedulerError(f"kubectl answered with something else than an object: {answer[:80]!r}")
    return found


_Found = dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]


def _sorted(answer: Mapping[str, Any]) -> _Found:
    """Return by id the Job and its pods, the oldest first."""
    found: _Found = {}
    for item in sorted(answer.get("items", []), key=lambda one: str(one["metadata"].get("creationTimestamp"))):
        identity = item["metadata"].get("labels", {}).get(_LABEL, "")
        job, pods = found.get(identity, ({}, []))
        found[identity] = (item, pods) if item["kind"] == "Job" else (job, [*pods, item])
    return found


def _seen(record: Record, job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> Seen:
    metadata, status = job["metadata"], job.get("status", {})
    holds = {one.get("type") for one in status.get("conditions", []) if one.get("status") == "True"}
    finished = bool(holds & {"Complete", "Failed"})
    failed = set(_indexes(status.get("failedIndexes", "")))
    tasks: dict[int, State] = {}
    for pod in pods:  # a later one of the same task is its next try
        number, state = _task(record, pod), _state(pod)
        final = finished or number - record.job.numbers[0] in failed
        again = state.phase.ended and state.phase is not Phase.SUCCEEDED and not final
        tasks[number] = State(Phase.RUNNING, None, "it failed and is tried again") if again else state
    for index in _indexes(status.get("completedIndexes", "")):
        tasks.setdefault(record.job.numbers[0] + index, State(Phase.SUCCEEDED, 0))
    native = f"{metadata['namespace']}/{metadata['name']}"
    return Seen(native, tasks, None if finished else State(Phase.WAITING))


def _indexes(text: str) -> Iterator[int]:
    """Yield the numbers of `0,2-4`."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit() and int(last or first) - int(first) < LIMITS.array_tasks:
            yield from range(int(first), int(last or first) + 1)


def _task(record: Record, pod: Mapping[str, Any]) -> int:
    index = pod["metadata"].get("annotations", {}).get(_INDEX, "")
    return record.job.numbers[0] + int(index) if record.job.array and index.isdigit() else SINGLE


def _state(pod: Mapping[str, Any]) -> State:
    """Return the state of a pod: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/."""
    status = pod.get("status", {})
    containers: list[dict[str, Any]] = status.get("containerStatuses", [])
    container = containers[0].get("state", {}) if containers else {}
    if status.get("phase") in {"Succeeded", "Failed"}:
        return _end(status, container.get("terminated", {}))
    if status.get("phase") == "Running":
        return State(Phase.RUNNING)
    waiting = container.get("waiting", {})
    reason = f"{waiting.get('reason', '')}: {waiting.get('message', '')}".strip(": ")
    return State(Phase.HELD if waiting.get("reason") in _STUCK else Phase.WAITING, None, reason)


def _end(status: Mapping[str, Any], terminated: Mapping[str, Any]) -> State:
    if status.get("reason") == "DeadlineExceeded":
        return State(Phase.TIMEOUT, None, "its time was over")
    code, reason = terminated.get("exitCode"), str(terminated.get("reason") or status.get("reason") or "")
    if isinstance(code, int) and (status["phase"] == "Succeeded") == (code == 0):
        return State.of_code(code, "" if reason in {"Completed", "Error"} else reason)
    return State(Phase.FAILED, None, f"{reason} {status.get('message', '')}".strip())
