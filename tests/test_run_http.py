"""Docker Swarm and Chronos by fakes that speak HTTP as their manuals say."""

import dataclasses
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from computeops import run
from computeops.errors import SchedulerError, UsageError
from computeops.run import Array, Job, Phase, Record, Records, State, calls
from schedulers.fake_http import Chronos, Fake, Swarm
from test_run_golden import GOLDEN, HOSTILE

IMAGE = "hub.example/bio/samtools@sha256:" + "0" * 64
PLAIN = ("success", "silence", "code-1", "code-42", "code-255", "killed", "streams", "unicode", "trapped", "syntax")


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    fake = Swarm()
    yield fake
    fake.stop()


@pytest.fixture
def chronos() -> Iterator[Chronos]:
    fake = Chronos()
    yield fake
    fake.stop()


def submit(fake: Fake, jobs: Records, *inside: str, values: Mapping[str, str] | None = None, **more) -> Record:
    on = type(fake).__name__.lower()
    options = more.pop("options", (f"--host={fake.address}",))
    wanted = Job(
        name=more.pop("name", "a job"),
        command=("none",),
        cwd="/",
        image=more.pop("image", IMAGE),
        inside=inside,
        options=options,
        env=tuple(values or ()),
        **more,
    )
    return run.submit(wanted, on=on, jobs=jobs, environ=os.environ, values=values or {})


def until(*records: Record) -> dict[str, Mapping[int, State]]:
    deadline = time.monotonic() + 30
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


def test_golden_jobs_end_the_same_way_on_a_swarm(swarm: Swarm, tmp_path: Path) -> None:
    jobs = Records(tmp_path / "jobs")
    records = {name: submit(swarm, jobs, "sh", "-c", GOLDEN[name].program) for name in PLAIN}
    states = until(*records.values())
    for name, record in records.items():
        golden, end = GOLDEN[name], run.summary(states[record.id])
        assert (end.phase, end.code) == (golden.state, golden.code), name
        assert golden.out is None or output(record)[0] == golden.out, name
        assert golden.err is None or output(record)[1] == golden.err, name


def test_a_swarm_counts_tasks_from_zero_and_we_do_not(swarm: Swarm, tmp_path: Path) -> None:
    jobs = Records(tmp_path / "jobs")
    text = 'echo "task $COMPUTEOPS_TASK_ID"; exit $((COMPUTEOPS_TASK_ID - 3))'
    record = submit(
        swarm, jobs, "sh", "-c", text, array=Array(3, 5, 2), cpus=2, memory=64, gpus=1, volumes=("v:/data:ro",)
    )
    states = until(record)[record.id]
    assert {n: (one.phase, one.code) for n, one in states.items()} == {
        3: (Phase.SUCCEEDED, 0),
        4: (Phase.FAILED, 1),
        5: (Phase.FAILED, 2),
    }
    assert [output(record, n)[0] for n in (3, 5)] == ["task 3\n", "task 5\n"]
    (asked,) = swarm.asked
    assert asked["Mode"] == {"ReplicatedJob": {"TotalCompletions": 3, "MaxConcurrent": 2}}
    template = asked["TaskTemplate"]
    assert template["Resources"]["Limits"] == {"NanoCPUs": 2 * 10**9, "MemoryBytes": 64 * 1024**2}
    assert template["Resources"]["Reservations"]["GenericResources"][0]["DiscreteResourceSpec"]["Value"] == 1
    assert template["ContainerSpec"]["Mounts"] == [
        {"Type": "volume", "Source": "v", "Target": "/data", "ReadOnly": True}
    ]
    assert template["ContainerSpec"]["Image"] == IMAGE


def test_words_retries_and_variables_on_a_swarm(swarm: Swarm, tmp_path: Path) -> None:
    jobs = Records(tmp_path / "jobs")
    odd = submit(swarm, jobs, "printf", "[%s]", HOSTILE, name=HOSTILE)
    again = submit(swarm, jobs, "sh", "-c", f"echo x >>{tmp_path}/tries; exit 7", retries=2)
    public = submit(swarm, jobs, "sh", "-c", 'printf %s "$A"', values={"A": "a=b 'c'"})
    states = until(odd, again, public)
    assert output(odd)[0] == f"[{HOSTILE}]"
    assert run.summary(states[again.id]) == State(Phase.FAILED, 7)
    assert (tmp_path / "tries").read_text() == "x\n" * 3
    assert output(public)[0] == "a=b 'c'"
    with pytest.raises(UsageError, match="shows variables"):
        submit(swarm, jobs, "true", values={"A": "secret"}, private=("A",))
    for wrong in ({"seconds": 5}, {"stdin": "/x"}, {"nodes": 2}, {"modules": ("gcc",)}, {"options": ("--x",)}):
        with pytest.raises(UsageError):
            submit(swarm, jobs, "true", **wrong)
    with pytest.raises(UsageError, match="registry"):
        submit(swarm, jobs)
    assert len(jobs.all()) == 3


def test_a_swarm_that_refuses_falls_silent_or_lost_the_answer(swarm: Swarm, tmp_path: Path) -> None:
    jobs = Records(tmp_path / "jobs")
    with pytest.raises(SchedulerError, match="no such label"):
        submit(swarm, jobs, "true", queue="nope")
    assert jobs.all() == []
    record = submit(swarm, jobs, "sleep", "300")
    (record.folder / "native").unlink()  # the client died before it could note the answer
    assert run.summary(run.look([jobs.get(record.id)])[record.id]).phase is Phase.RUNNING
    assert jobs.get(record.id).native == record.native
    swarm.down = True
    assert run.summary(run.look([jobs.get(record.id)])[record.id]).phase is Phase.UNKNOWN
    with pytest.raises(SchedulerError, match="nobody knows"):
        submit(swarm, jobs, "true")
    assert len(jobs.all()) == 2  # the record stays: the swarm may have taken it
    swarm.down = False
    run.cancel([jobs.get(record.id)], jobs)
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


def test_a_daemon_is_asked_by_its_socket_too(tmp_path: Path) -> None:
    place = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[{"a":1}]')

        thread = threading.Thread(target=serve)
        thread.start()
        address = calls.host(Job(name="x", command=(), cwd="/"), f"unix://{place}")
        assert calls.rows(calls.ask("GET", address, "/v1.41/services")) == [{"a": 1}]
        thread.join()
    with pytest.raises(SchedulerError):
        calls.ask("POST", f"unix://{tmp_path}/none", "/")


def test_dataclasses_of_jobs_survive_the_disk(tmp_path: Path) -> None:
    jobs = Records(tmp_path / "jobs")
    job = Job(name="x", command=("a",), cwd="/", volumes=("v:/d",), modules=("gcc",))
    jobs.write(record := jobs.draft("local", job), {})
    assert jobs.get(record.id).job == dataclasses.replace(job)
