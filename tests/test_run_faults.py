"""Jobs that are cancelled, lost, asked for after a crash, or submitted to a scheduler that does not answer."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from schedulers.users import User, using
from test_run_golden import SCHEDULERS, everywhere

SECRET = "s3cret-value-that-nobody-may-see"


@pytest.fixture(scope="session")
def user(request: pytest.FixtureRequest) -> Iterator[User]:
    with using(request.param, SCHEDULERS[request.param]) as one:
        yield one


local = pytest.mark.parametrize("user", ["local"], indirect=True, scope="session")
daemons = pytest.mark.parametrize(
    "user",
    [pytest.param(one, marks=getattr(pytest.mark, one)) for one in SCHEDULERS if one != "local"],
    indirect=True,
    scope="session",
)
on_slurm = pytest.mark.parametrize(
    "user", [pytest.param("slurm", marks=pytest.mark.slurm)], indirect=True, scope="session"
)


def _programs_of(job: str) -> list[str]:
    """Processes that were started by a job."""
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                if f"COMPUTEOPS_JOB_ID={job}".encode() in (one / "environ").read_bytes().split(b"\0"):
                    found.append((one / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


@everywhere("user")
def test_cancel_ends_a_running_job_with_all_its_processes(user: User) -> None:
    job = user.submit("--", "-c", "echo started; sleep 300 & exec sleep 300")
    user.until(job, states={"running"})
    until = time.monotonic() + 20
    while not user.logs(job)[0] and time.monotonic() < until:
        time.sleep(0.2)
    assert user("cancel", job).returncode == 0
    (state,) = user.until(job, seconds=30)
    assert state["state"] == "cancelled"
    assert user.logs(job)[0] == "started\n"
    until = time.monotonic() + 10
    while _programs_of(job) and time.monotonic() < until:
        time.sleep(0.2)
    assert _programs_of(job) == []
    assert user("cancel", job).returncode == 0  # once more is no error


@everywhere("user")
def test_cancel_ends_jobs_that_wait(user: User) -> None:
    first = user.submit("--", "-c", "sleep 300")
    then = user.submit("--after", first, "--", "-c", "echo never")
    user.until(then, states={"waiting"})
    assert user("cancel", then, first).returncode == 0
    found = user.until(first, then, seconds=30)
    assert [one["state"] for one in found] == ["cancelled", "cancelled"], found
    assert user("submit", "--on", user.scheduler, user.image, "--after", first).returncode == 2


@everywhere("user")
def test_wait_exits_as_the_program_did(user: User) -> None:
    submit = ["submit", "--on", user.scheduler, "--wait", user.image, "--", "-c"]
    done = user(*submit, "exit 42")
    assert done.returncode == 42
    assert b"failed with exit code 42" in done.stdout
    assert user(*submit, "exit 0").returncode == 0


@everywhere("user")
def test_a_job_whose_submission_was_interrupted_is_found_again(user: User) -> None:
    """The client died after the scheduler had accepted the job and before it could note the job's name there."""
    job = user.submit("--", "-c", "sleep 2; echo done")
    (user.folder(job) / "native").unlink()
    if user.scheduler == "local":  # there is no queue that could be asked: the script's own file tells
        user.until(job)
    (seen,) = user.until(job)
    assert (seen["state"], seen["code"]) == ("succeeded", 0)
    if user.scheduler != "local":
        job = user.submit("--", "-c", "sleep 4")
        native = (user.folder(job) / "native").read_text()
        (user.folder(job) / "native").unlink()
        assert user.jobs(job)[0]["native"] == native
        assert (user.folder(job) / "native").read_text() == native


@everywhere("user")
def test_no_value_of_a_variable_is_written_down(user: User) -> None:
    done = user(
        "submit",
        "--on",
        user.scheduler,
        user.image,
        "--env",
        "TOKEN",
        "--",
        "-c",
        'echo "${#TOKEN}"',
        env={"TOKEN": SECRET},
    )
    if user.scheduler in {"htcondor", "gridengine"}:  # everyone may ask their queues for the variables of a job
        assert done.returncode == 2
        assert b"shows variables to everyone" in done.stderr
        return
    job = done.stdout.decode().strip()
    assert user.until(job)[0]["state"] == "succeeded"
    assert user.logs(job)[0] == f"{len(SECRET)}\n"
    for file in user.folder(job).rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file


@everywhere("user")
def test_dry_run_shows_the_script_and_starts_nothing(user: User) -> None:
    before = user.jobs()
    done = user("submit", "--dry-run", "--on", user.scheduler, user.image, "--", "-c", "touch $HOME/no; it's")
    assert done.returncode == 0
    assert b"'touch $HOME/no; it'\"'\"'s'" in done.stdout
    assert user.jobs() == before


@everywhere("user")
def test_an_image_that_goes_before_the_start_is_said_in_the_logs(user: User) -> None:
    copy = user.home / "copy.sif"
    copy.write_bytes(user.image.read_bytes())
    copy.chmod(0o644)
    first = user.submit("--", "-c", "sleep 3")
    done = user("submit", "--on", user.scheduler, copy, "--after", first, "--", "-c", "echo never")
    copy.unlink()
    (state,) = user.until(done.stdout.decode().strip())
    assert state["state"] == "failed"
    assert "there is no image" in user.logs(state["id"])[1]


@local
def test_a_local_job_whose_supervisor_was_killed_is_lost_and_never_a_success(user: User) -> None:
    job = user.submit("--", "-c", "sleep 300")
    user.until(job, states={"running"})
    _host, pid, _start = (user.folder(job) / "native").read_text().rsplit(":", 2)
    subprocess.run(user.scientist.argv(["pkill", "-KILL", "--session", pid]), check=False)
    (state,) = user.until(job)
    assert state["state"] == "lost"
    assert user("jobs", job).returncode == 0


@local
def test_a_local_job_outlives_its_client_and_its_terminal(user: User) -> None:
    client = user.start(
        "submit",
        "--on",
        "local",
        "--wait",
        user.image,
        "--",
        "-c",
        "sleep 2; echo alive",
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert client.stderr is not None
    job = client.stderr.readline().decode().strip()
    os.killpg(client.pid, signal.SIGKILL)
    client.wait()
    client.stderr.close()
    assert user.until(job)[0]["state"] == "succeeded"
    assert user.logs(job)[0] == "alive\n"


@local
def test_a_full_quota_refuses_a_job_and_hides_no_end(user: User) -> None:
    """On a small file system of its own: full before the submission, and filled up by the job itself."""
    small = user.home / "small"
    small.mkdir()
    user.scientist.own(small)
    submit = shlex.join(
        [*user.argv()[len(user.scientist.argv([])) :], "submit", "--on", "local", "--wait", str(user.image)]
    )
    script = f"""
        mount -t tmpfs -o size=256k tmpfs {small} && export XDG_STATE_HOME={small} COMPUTEOPS_ENGINE=native
        cat /dev/zero >{small}/fill 2>/dev/null
        {submit} -- -c true; echo "refused $?"
        rm {small}/fill; ls -A {small}/computeops/jobs 2>/dev/null
        {submit} --bind {small}:/mnt -- -c 'cat /dev/zero >/mnt/fill; exit 7' 2>/dev/null; echo "ended $?"
    """
    done = user.scientist.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], env=user.env())
    assert done.stdout.decode().splitlines()[0] == "refused 16"
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout.decode().splitlines()[-1] == "ended 7"
    assert len(done.stdout.splitlines()) == 3, done.stdout  # nothing was left of the one that was refused


@local
def test_words_that_make_no_sense_are_refused(user: User) -> None:
    def refused(*words: str) -> str:
        done = user("submit", user.image, *words)
        assert done.returncode == 2, words
        return done.stderr.decode()

    assert "did you mean 'slurm'" in refused("--on", "slum")
    assert "not a size" in refused("--on", "local", "--memory", "much")
    assert "not a span of time" in refused("--on", "local", "--time", "1x")
    assert "not a range" in refused("--on", "local", "--array", "1,2")
    assert "numbered from 1" in refused("--on", "local", "--array", "5-2")
    assert "more than" in refused("--on", "local", "--array", "1000000000")
    assert "not a name" in refused("--on", "local", "--env", "1A=2")
    assert "it is not set here" in refused("--on", "local", "--env", "NOT_SET")
    assert "no scheduler was named" in refused()
    assert user("logs", "nosuchid").returncode == 5
    assert user("cancel", "").returncode == 5


@local
def test_a_scheduler_that_is_not_here_is_said(user: User) -> None:
    done = user("submit", "--on", "lsf", user.image)
    assert done.returncode == 11
    assert b"bsub" in done.stderr
    assert user.jobs() is not None


@on_slurm
def test_several_tasks_on_several_nodes_are_started_by_srun(user: User) -> None:
    job = user.submit(
        "--nodes", "2", "--tasks", "4", "--", "-c", 'echo "rank $SLURM_PROCID of $SLURM_NTASKS on $SLURMD_NODENAME"'
    )
    (state,) = user.until(job)
    assert state["state"] == "succeeded", user.logs(job)
    ranks = sorted(user.logs(job)[0].splitlines())
    assert [one.partition(" on ")[0] for one in ranks] == [f"rank {n} of 4" for n in range(4)]
    assert {one.partition(" on ")[2] for one in ranks} == {"n1", "n2"}


@on_slurm
def test_a_gpu_is_asked_for(user: User) -> None:
    job = user.submit("--gpus", "1", "--", "-c", 'echo "$CUDA_VISIBLE_DEVICES"')
    assert user.until(job)[0]["state"] == "succeeded", user.logs(job)
    assert user.logs(job)[0] == "0\n"


@on_slurm
def test_what_the_scheduler_refuses_leaves_nothing_behind(user: User) -> None:
    before = len(user.jobs())
    done = user("submit", "--on", "slurm", "--queue", "no such; queue", user.image)
    assert done.returncode == 17
    assert b"invalid partition" in done.stderr
    assert len(user.jobs()) == before


@on_slurm
def test_a_job_that_slurm_ended_and_forgot_is_never_a_success(user: User) -> None:
    """It was killed outside of computeops; the queue still tells, and once told it is remembered."""
    job = user.submit("--", "-c", "sleep 300")
    user.until(job, states={"running"})
    native = (user.folder(job) / "native").read_text()
    subprocess.run(user.scientist.argv(["scancel", native]), env=user.env(), check=True)
    (seen,) = user.until(job)
    assert seen["state"] == "cancelled", seen
    (user.folder(job) / "native").write_text("4999999")  # as if Slurm had forgotten it
    assert user.jobs(job)[0]["state"] == "cancelled"
    (user.folder(job) / "ended.json").unlink()
    assert user.jobs(job)[0]["state"] == "unknown"
    os.utime(user.folder(job) / "missing", (0, 0))
    assert user.jobs(job)[0]["state"] == "lost"


@daemons
def test_a_scheduler_that_dies_in_the_middle_loses_nothing(user: User) -> None:
    """Its daemon is killed while jobs run and wait, and a client waits; and is started again."""
    wait = ["submit", "--on", user.scheduler, "--wait", user.image, "--", "-c", _UNTIL, "sh", "now", "4"]
    with user.start(*wait, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client, contextlib.ExitStack() as end:
        end.callback(client.kill)
        _dies_and_comes_back(user)
        assert client.wait(60) == 4


_UNTIL = 'while [ ! -e "$1" ]; do sleep 0.1; done; exit "$2"'


def _dies_and_comes_back(user: User) -> None:
    assert user.daemons is not None
    running = user.submit("--", "-c", _UNTIL, "sh", "now", "3")
    user.until(running, states={"running"})
    later = user.submit("--", "-c", _UNTIL, "sh", "later", "0")
    waiting = user.submit("--after", later, "--", "-c", "echo after")
    restart = SCHEDULERS[user.scheduler].crash(user.daemons, f"-{waiting}")
    quick = _impatient(user)
    (told, asked, out), (refused, _, why), (cancelled, _, because) = user.many(
        [
            ["jobs", "--json", running, waiting],
            ["submit", "--on", user.scheduler, user.image, "--", "-c", "echo once"],
            ["cancel", later],
        ],
        [quick] * 3,
    )
    assert (told, refused, cancelled) == (0, 17, 17), (out, why, because)
    assert {(one["state"], one["reason"].partition(" answer")[0]) for one in json.loads(asked)} == {
        ("unknown", f"{user.scheduler} does not")
    }
    assert "before you submit it again, ask: computeops jobs" in why
    assert f"the job goes on; try again: computeops cancel {later}" in because
    (user.home / "now").touch()
    while (user.folder(running) / "exits/0.running").exists():
        time.sleep(0.1)
    (ended,) = json.loads(user("jobs", "--json", running, env=quick).stdout)
    assert (ended["state"], ended["code"]) == ("failed", 3)  # its own file tells, with no scheduler at all

    restart()
    unsure = why.rpartition("computeops jobs ")[2].strip()
    found = {one["id"]: (one["state"], one["native"]) for one in user.jobs(later, waiting, unsure)}
    assert {found[later][0], found[waiting][0]} <= {"running", "waiting"}, found
    assert found[unsure] == ("unknown", ""), "nobody took it"
    os.utime(user.folder(unsure) / "missing", (0, 0))
    (user.home / "later").touch()
    ends = [(one["state"], one["code"]) for one in user.until(later, waiting, unsure)]
    assert ends == [("succeeded", 0), ("succeeded", 0), ("lost", None)]
    assert user.logs(waiting)[0] == "after\n"


def _impatient(user: User) -> dict[str, str]:
    """What makes the scheduler's own commands give up early where it does not answer."""
    assert user.daemons is not None
    if user.scheduler != "slurm":
        return {}
    conf = Path(user.daemons.env["SLURM_CONF"])
    quick = conf.with_name("quick.conf")
    quick.write_text(conf.read_text() + "MessageTimeout=2\n")
    return {"SLURM_CONF": str(quick)}
