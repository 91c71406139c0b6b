"""Jobs on a real Kubernetes, whose node is a real kubelet with containerd, and the manifests that it judges."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from computeops import run
from computeops.errors import SchedulerError, UsageError
from computeops.run import Array, Job, Phase, Record, Records, State, kubernetes
from computeops.run.model import memory, seconds
from conftest import RunningHub
from containers import root_filesystem
from releases import release
from schedulers import kubernetes as cluster
from test_run_golden import GOLDEN, HOSTILE, Golden

SECRET = "s3cret-value-that-nobody-may-see"


def job(*inside: str, name: str = "a job", **more) -> Job:
    return Job(name=name, command=("none",), cwd="/", inside=inside, **more)


def shell(text: str, **more) -> Job:
    return job("sh", "-c", text, **more)


class Jobs(Records):
    """Of a user of the cluster."""

    def __init__(self, folder: Path, kube: cluster.Cluster) -> None:
        super().__init__(folder)
        self.kube = kube


@pytest.fixture(scope="session")
def jobs(tmp_path_factory) -> Iterator[Jobs]:
    kube = cluster.up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", kube.env["KUBECONFIG"])
        try:
            yield Jobs(tmp_path_factory.mktemp("kubernetes") / "jobs", kube)
        finally:
            cluster.down(kube)


def submit(jobs: Jobs, wanted: Job, values: Mapping[str, str] | None = None) -> Record:
    wanted = dataclasses.replace(wanted, env=tuple(values or ()), image=wanted.image or jobs.kube.image)
    return run.submit(wanted, on="kubernetes", jobs=jobs, environ=os.environ, values=values or {})


def until(record: Record, *phases: Phase, seconds: float = 60) -> Mapping[int, State]:
    deadline = time.monotonic() + seconds
    while True:
        states = run.look([record])[record.id]
        phase = run.summary(states).phase
        if phase in phases or (not phases and phase.ended):
            return states
        assert time.monotonic() < deadline, states
        time.sleep(0.3)


def output(record: Record, number: int = 0) -> str:
    run.fetch(record)
    return Path(run.log_files(record, number)[0]).read_text()


pytestmark = pytest.mark.kubernetes


@pytest.mark.parametrize(
    ("text", "end", "said"),
    [
        ("echo hello", State(Phase.SUCCEEDED, 0), "hello\n"),
        ("echo before; exit 42", State(Phase.FAILED, 42), "before\n"),
        ("kill -KILL $$", State(Phase.FAILED, 137), ""),
    ],
)
def test_a_job_ends_as_its_program_did(jobs: Jobs, text: str, end: State, said: str) -> None:
    record = submit(jobs, shell(text))
    assert until(record) == {0: end}
    assert output(record) == said


def test_golden_jobs_end_the_same_way_as_elsewhere(jobs: Jobs) -> None:
    """Those that ask for nothing that a pod does not have; here a pod's errors are in its one stream of output."""
    here = {name: golden for name, golden in GOLDEN.items() if _podlike(golden)}
    assert len(here) >= 45
    records = {name: submit(jobs, _golden(golden), _public(golden)) for name, golden in here.items()}
    run.cancel([records[name] for name, golden in here.items() if golden.cancel], jobs)
    deadline = time.monotonic() + 200
    while True:
        found = run.look([jobs.get(one.id) for one in records.values()])
        if all(run.summary(states).phase.ended for states in found.values()):
            break
        assert time.monotonic() < deadline, found
        time.sleep(0.3)
    for name, golden in here.items():
        record, states = records[name], found[records[name].id]
        end = run.summary(states)
        assert (end.phase, end.code) == (golden.state, golden.code), (name, end)
        if golden.tasks:
            assert {number: (one.phase, one.code) for number, one in states.items()} == golden.tasks, name
        if golden.out is not None and golden.err is not None:
            run.fetch(record)
            said = "".join(Path(run.log_files(record, number)[0]).read_text() for number in record.job.numbers)
            assert said == golden.out + golden.err, name
    assert "OOMKilled" in run.summary(found[records["memory"].id]).reason


_ASKS = {"--array", "--time", "--env", "--name", "--cpus", "--memory", "--retries"}
_LATER = 6
"""A pod's time begins when it is sent to its machine: this many times longer, it is enough on a busy one."""


def _podlike(golden: Golden) -> bool:
    """Whether it needs neither files of ours, nor another job, nor the count of tries, which pods do not know."""
    words = set(golden.options[::2])
    plain = not (golden.after or golden.env or "COMPUTEOPS_ATTEMPT" in golden.program)
    return plain and words <= _ASKS and not any(one in golden.program for one in ("go", "order", ".txt", "pwd"))


def _golden(golden: Golden) -> Job:
    options = dict(zip(golden.options[::2], golden.options[1::2], strict=True))
    more = {"array": Array.parse(options["--array"])} if "--array" in options else {}
    more |= {"seconds": seconds(options["--time"]) * _LATER} if "--time" in options else {}
    more |= {"memory": memory(options["--memory"])} if "--memory" in options else {}
    more |= {"retries": int(options["--retries"])} if "--retries" in options else {}
    return job("sh", "-c", golden.program, "sh", *golden.args, name=options.get("--name", "golden"), **more)


def _public(golden: Golden) -> dict[str, str]:
    pairs = zip(golden.options[::2], golden.options[1::2], strict=True)
    return dict(word.split("=", 1) for name, word in pairs if name == "--env")


_WORDS = 'for one; do printf "[%s]" "$one"; done'


def test_words_and_names_are_never_interpreted(jobs: Jobs) -> None:
    record = submit(jobs, job("sh", "-c", _WORDS, "sh", HOSTILE, "$(HOME)", "$$(A)", "$", name=HOSTILE))
    assert until(record)[0] == State(Phase.SUCCEEDED, 0)
    assert output(record) == f"[{HOSTILE}][$(HOME)][$$(A)][$]"


def test_an_array_counts_as_everywhere_and_one_failure_ends_no_other(jobs: Jobs) -> None:
    record = submit(
        jobs, shell('echo "task $COMPUTEOPS_TASK_ID"; exit $((COMPUTEOPS_TASK_ID - 3))', array=Array(3, 6, 2))
    )
    states = until(record)
    assert {n: (s.phase, s.code) for n, s in states.items()} == {
        3: (Phase.SUCCEEDED, 0),
        4: (Phase.FAILED, 1),
        5: (Phase.FAILED, 2),
        6: (Phase.FAILED, 3),
    }
    assert [output(record, n) for n in (3, 6)] == ["task 3\n", "task 6\n"]
    assert run.summary(states).code == 3


def test_values_travel_in_a_secret_that_goes_with_the_job(jobs: Jobs) -> None:
    record = submit(jobs, shell('echo "${#TOKEN}"'), {"TOKEN": SECRET})
    assert until(record)[0] == State(Phase.SUCCEEDED, 0)
    assert output(record) == f"{len(SECRET)}\n"
    for file in record.folder.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


def test_a_cancelled_job_is_gone_with_its_pods(jobs: Jobs) -> None:
    record = submit(jobs, shell("sleep 300"))
    until(record, Phase.RUNNING)
    run.cancel([record], jobs)
    assert until(jobs.get(record.id))[0].phase is Phase.CANCELLED


def test_a_server_that_dies_in_the_middle_loses_nothing(jobs: Jobs) -> None:
    record = submit(jobs, shell("sleep 2; echo done; exit 3"))
    until(record, Phase.RUNNING)
    restart = cluster.crash(jobs.kube)
    (state,) = run.look([record])[record.id].values()
    assert state.phase is Phase.UNKNOWN
    assert "kubernetes does not answer" in state.reason
    with pytest.raises(SchedulerError, match="nobody knows whether it took the job"):
        submit(jobs, shell("true", array=Array(7, 7)))
    with pytest.raises(SchedulerError) as caught:
        run.cancel([record], jobs)
    assert "the job goes on" in (caught.value.hint or "")
    restart()
    assert until(jobs.get(record.id))[0] == State(Phase.FAILED, 3)
    assert output(record) == "done\n"
    (unsure,) = (one for one in jobs.all() if one.job.array == Array(7, 7))
    assert run.summary(run.look([unsure])[unsure.id]).phase is Phase.UNKNOWN
    assert jobs.get(unsure.id).native == "", "nobody took it"


def test_an_image_that_cannot_be_pulled_holds_the_job(jobs: Jobs) -> None:
    record = submit(jobs, shell("true", image="hub.example/missing/image:1"))
    states = until(record, Phase.HELD)
    assert "hub.example/missing/image:1" in states[0].reason
    run.cancel([record], jobs)


def test_a_job_whose_submission_was_interrupted_is_found_again(jobs: Jobs) -> None:
    record = submit(jobs, shell("sleep 1"))
    (record.folder / "native").unlink()
    found = jobs.get(record.id)
    assert found.native == ""
    until(found)
    assert jobs.get(record.id).native == record.native == f"default/a-job-{record.id}"


def test_what_the_server_refuses_leaves_nothing_behind(jobs: Jobs) -> None:
    before = len(jobs.all())
    with pytest.raises(SchedulerError, match="not found"):
        submit(jobs, shell("true", account="no-such-namespace"))
    assert len(jobs.all()) == before


def test_what_a_job_cannot_give_is_refused(jobs: Jobs) -> None:
    for wrong in (shell("true", stdin="/etc/passwd"), shell("true", nodes=2), job()):
        with pytest.raises(UsageError):
            submit(jobs, wrong)


def test_the_manifest_is_as_small_a_door_as_can_be(jobs: Jobs) -> None:
    wanted = shell("true", cpus=2, memory=512, gpus=1, queue="batch", array=Array(1, 3), volumes=("data:/data:ro",))
    plan = kubernetes.script(jobs.draft("kubernetes", wanted), ())
    manifest = json.loads(plan.files["manifest.json"])
    pod = manifest["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["containers"][0]["securityContext"] == {"allowPrivilegeEscalation": False}
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "2", "memory": "512Mi", "nvidia.com/gpu": "1"}
    assert pod["volumes"] == [{"name": "v0", "persistentVolumeClaim": {"claimName": "data"}}]
    assert pod["containers"][0]["volumeMounts"] == [{"name": "v0", "mountPath": "/data", "readOnly": True}]
    assert manifest["spec"]["suspend"] is True
    record = submit(jobs, wanted)  # the real server keeps every field of it
    run.cancel([record], jobs)
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "batch"


@pytest.mark.squashfs
def test_a_release_is_pulled_from_the_hub_by_the_node_itself(jobs: Jobs, hub: RunningHub, tmp_path: Path) -> None:
    """As the how-to has it: pushed, submitted by its name, awaited, read."""
    environ = {**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}

    def cli(*words: str | Path, code: int = 0, stdin: str = "") -> str:
        command = [sys.executable, "-m", "computeops", *map(str, words)]
        done = subprocess.run(command, env=environ, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout

    root_filesystem(tmp_path / "made/tree")
    made, _ = release(tmp_path / "made", "from the hub")
    name = f"{hub.address}/bio/thing:1.0"
    cli("key", "new", "ada")
    cli("sign", made.sif, "--key", "ada")
    cli("login", hub.address, "--token-stdin", stdin=hub.token("push:bio/thing") + "\n")
    cli("push", made.sif, name)
    assert cli("submit", "--on", "kubernetes", "--wait", name).endswith("succeeded\n")
    (record,) = Records(tmp_path / "state/computeops/jobs").all()
    assert cli("logs", record.id) == "from the hub\n"
