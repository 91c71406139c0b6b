"""A real Docker Swarm, asked over TLS, and Chronos by a fake that speaks HTTP as its manual says."""

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from computeops import run
from computeops.errors import SchedulerError, UsageError
from computeops.run import Array, Job, Phase, Record, Records, State
from schedulers.fake_http import Chronos
from schedulers.swarm import IMAGE, Swarm
from test_run_golden import GOLDEN, HOSTILE

PLAIN = ("success", "silence", "code-1", "code-42", "code-255", "killed", "streams", "unicode", "trapped", "syntax")


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    real = Swarm()
    yield real
    real.down()


@pytest.fixture
def chronos() -> Iterator[Chronos]:
    fake = Chronos()
    yield fake
    fake.stop()


def submit(
    there: Swarm | Chronos, jobs: Records, *inside: str, values: Mapping[str, str] | None = None, **more
) -> Record:
    tls = [f"--tls={there.identity}"] if isinstance(there, Swarm) else []
    wanted = Job(
        name=more.pop("name", "a job"),
        command=("none",),
        cwd="/",
        image=more.pop("image", IMAGE),
        inside=inside,
        options=more.pop("options", (f"--host={there.address}", *tls)),
        env=tuple(values or ()),
        **more,
    )
    on = type(there).__name__.lower()
    return run.submit(wanted, on=on, jobs=jobs, environ=os.environ, values=values or {})


def until(*records: Record) -> dict[str, Mapping[int, State]]:
    deadline = time.monotonic() + 60
    while True:
        states = dict(run.look(records))
        if all(run.summary(one).phase.ended for one in states.values()):
            return states
        assert time.monotonic() < deadline, states
        time.sleep(0.05)


def output(record: Record, number: int = 0) -> tuple[str, str]:
    run.fetch(record)
    out, err = (Path(name) for name in run.log_files(record, number))
    return tuple(one.read_text() if one.exists() else "" for one in (out, err))  # type: ignore[return-value]  two


@pytest.mark.docker
def test_golden_jobs_end_the_same_way_on_a_swarm(swarm: Swarm, tmp_path: Path) -> None:
    jobs = Records(tmp_path / "jobs")
    records = {name: submit(swarm, jobs, "sh", "-c", GOLDEN[name].program) for name in PLAIN}
    states = until(*records.values())
    for name, record in records.items():
        golden, end = GOLDEN[name], run.summary(states[record.id])
        assert (end.phase, end.code) == (golden.state, golden.code), name
        assert golden.out is None or output(record)[0] == golden.out, name
        assert golden.err is None or output(record)[1] == golden.err, name


@pytest.mark.docker
def test_an_array_on_a_swarm_and_what_it_asks_for(swarm: Swarm, tmp_path: Path) -> None:
    jobs = Records(tmp_path / "jobs")
    text = 'echo "task $COMPUTEOPS_TASK_ID"; exit $((COMPUTEOPS_TASK_ID - 3))'
    record = submit(swarm, jobs, "sh", "-c", text, array=Array(3, 5), cpus=1, memory=64, volumes=("data:/data:ro",))
    states = until(record)[record.id]
    assert {n: (one.phase, one.code) for n, one in states.items()} == {
        3: (Phase.SUCCEEDED, 0),
        4: (Phase.FAILED, 1),
        5: (Phase.FAILED, 2),
    }
    assert [output(record, n)[0] for n in (3, 5)] == ["task 3\n", "task 5\n"]
    (known,) = json.loads(swarm.run(["docker", "service", "inspect", record.native]))
    asked = json.loads((record.folder / "service.json").read_text())
    assert asked["Mode"] == known["Spec"]["Mode"]
    template = known["Spec"]["TaskTemplate"]
    assert template["Resources"]["Limits"] == {"NanoCPUs": 10**9, "MemoryBytes": 64 * 1024**2}
    assert template["ContainerSpec"]["Mounts"] == [
        {"Type": "volume", "Source": "data", "Target": "/data", "ReadOnly": True}
    ]
    assert template["ContainerSpec"]["CapabilityDrop"] == ["ALL"]


@pytest.mark.docker
def test_words_retries_and_variables_on_a_swarm(swarm: Swarm, tmp_path: Path) -> None:
    jobs = Records(tmp_path / "jobs")
    odd = submit(swarm, jobs, "sh", "-c", 'printf "[%s]" "$1"', "sh", f"{HOSTILE} {{{{.Node.ID}}}}", name=HOSTILE)
    again = submit(swarm, jobs, "sh", "-c", "echo x; exit 7", retries=2)
    by_socket = (f"--host={swarm.socket}",)
    public = submit(
        swarm, jobs, "sh", "-c", 'printf %s "$A"', options=by_socket, values={"A": "a=b 'c' {{.Node.ID}} {{"}
    )
    states = until(odd, again, public)
    assert output(odd)[0] == f"[{HOSTILE} {{{{.Node.ID}}}}]"
    assert run.summary(states[again.id]) == State(Phase.FAILED, 7)
    assert output(again)[0] == "x\n" * 3
    assert output(public)[0] == "a=b 'c' {{.Node.ID}} {{"
    with pytest.raises(UsageError, match="shows variables"):
        submit(swarm, jobs, "true", values={"A": "secret"}, private=("A",))
    for wrong in ({"seconds": 5}, {"stdin": "/x"}, {"nodes": 2}, {"modules": ("gcc",)}, {"array": Array(1, 4, 2)}):
        with pytest.raises(UsageError):
            submit(swarm, jobs, "true", **wrong)
    with pytest.raises(UsageError, match="registry"):
        submit(swarm, jobs)
    with pytest.raises(SchedulerError, match="nobody knows"):
        submit(swarm, Records(tmp_path / "other"), "true", options=(f"--host=unix://{tmp_path}/none",))
    with pytest.raises(UsageError, match="asked by HTTP"):
        submit(swarm, jobs, "true", options=("--x",))
    assert len(jobs.all()) == 3


@pytest.mark.docker
def test_a_swarm_that_refuses_a_stranger_dies_or_lost_the_answer(swarm: Swarm, tmp_path: Path) -> None:
    jobs = Records(tmp_path / "jobs")
    for strange in ((f"--host={swarm.address}",), (f"--host={swarm.address}", f"--tls={tmp_path}")):
        with pytest.raises(SchedulerError, match="nobody knows"):
            submit(swarm, jobs, "true", options=strange)
    record = submit(swarm, jobs, "sleep", "300")
    (record.folder / "native").unlink()  # the client died before it could note the answer
    while run.summary(run.look([jobs.get(record.id)])[record.id]).phase is not Phase.RUNNING:
        time.sleep(0.1)
    assert jobs.get(record.id).native == record.native
    swarm.killed("dockerd")
    assert run.summary(run.look([jobs.get(record.id)])[record.id]).phase is Phase.UNKNOWN
    with pytest.raises(SchedulerError, match="nobody knows"):
        submit(swarm, jobs, "true")
    with pytest.raises(SchedulerError):
        run.cancel([jobs.get(record.id)], jobs)
    swarm.serve()
    assert run.summary(until(record)[record.id]).phase is Phase.FAILED, "its daemon ended it when it came back"
    record = submit(swarm, jobs, "sleep", "300")
    run.cancel([record], jobs)
    assert run.summary(run.look([jobs.get(record.id)])[record.id]).phase is Phase.CANCELLED


def test_chronos_tells_success_and_failure_and_waits_for_parents(chronos: Chronos, tmp_path: Path) -> None:
    jobs = Records(tmp_path / "jobs")
    good = submit(chronos, jobs, "sh", "-c", f"echo 1 >{tmp_path}/order", values={"A": "b"}, memory=64)
    then = submit(chronos, jobs, "sh", "-c", f"[ -e {tmp_path}/order ]", after=(good.id,))
    bad = submit(chronos, jobs, "sh", "-c", f"echo x >>{tmp_path}/tries; exit 7", retries=1, name=HOSTILE)
    states = until(good, then, bad)
    assert [run.summary(states[one.id]).phase for one in (good, then, bad)] == ["succeeded", "succeeded", "failed"]
    assert (tmp_path / "tries").read_text() == "x\nx\n"
    assert chronos.asked[0]["environmentVariables"][1] == {"name": "A", "value": "b"}
    assert chronos.asked[0]["container"]["image"] == IMAGE
    running = submit(chronos, jobs, "sleep", "300")
    run.cancel([running], jobs)
    assert run.summary(run.look([jobs.get(running.id)])[running.id]).phase is Phase.CANCELLED
    with pytest.raises(SchedulerError, match="bad image"):
        submit(chronos, jobs, "true", image="refused")
    for wrong in ({"array": Array(1, 2)}, {"seconds": 5}, {"options": ()}, {"options": ("--host=ftp://x",)}):
        with pytest.raises(UsageError):
            submit(chronos, jobs, "true", **wrong)


def test_dataclasses_of_jobs_survive_the_disk(tmp_path: Path) -> None:
    jobs = Records(tmp_path / "jobs")
    job = Job(name="x", command=("a",), cwd="/", volumes=("v:/d",), modules=("gcc",))
    jobs.write(record := jobs.draft("local", job), {})
    assert jobs.get(record.id).job == dataclasses.replace(job)
