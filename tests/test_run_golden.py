"""The same jobs give the same results on every scheduler: this machine, real Slurm, real HTCondor, real Grid Engine."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from schedulers import gridengine, htcondor, slurm
from schedulers.users import User, using

SCHEDULERS: dict[str, ModuleType | None] = {
    "local": None,
    "slurm": slurm,
    "htcondor": htcondor,
    "gridengine": gridengine,
}
HOSTILE = "a b'c\"d $(touch pwned) `touch pwned` ${HOME} $HOME \\ %j %A $(Process) $$(Cpus) \n;touch pwned # é漢 *"
BIG = 5_000_000


@dataclasses.dataclass(frozen=True)
class Golden:
    """A job and what must come of it."""

    program: str
    """What the shell in the container runs."""
    options: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    after: str = ""
    """Name of the job that it waits for."""
    state: str = "succeeded"
    code: int | None = 0
    out: str | None = ""
    err: str | None = ""
    tasks: Mapping[int, tuple[str, int | None]] = dataclasses.field(default_factory=dict)
    """State and code of the tasks of an array."""
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What is set where it is submitted."""


GOLDEN = {
    "success": Golden("echo hello", out="hello\n"),
    "silence": Golden(":"),
    "code-1": Golden("exit 1", state="failed", code=1),
    "code-42": Golden("echo before; exit 42", state="failed", code=42, out="before\n"),
    "code-255": Golden("exit 255", state="failed", code=255),
    "not-found": Golden("exec /no/such/program", state="failed", code=127, err=None),
    "segmentation": Golden("kill -SEGV $$", state="failed", code=139, err=None),
    "killed": Golden("kill -KILL $$", state="failed", code=137, err=None),
    "terminated": Golden("kill -TERM $$", state="failed", code=143, err=None),
    "streams": Golden("echo one; echo two >&2", out="one\n", err="two\n"),
    "words": Golden(
        'for one; do printf "[%s]" "$one"; done', args=(HOSTILE, "", "-x", "--on=z"), out=f"[{HOSTILE}][][-x][--on=z]"
    ),
    "name": Golden("echo fine", options=("--name", HOSTILE), out="fine\n"),
    "stdin": Golden("cat", options=("--input", "in put.txt"), out="from a file\nénd\n"),
    "no-stdin": Golden("cat; echo end", out="end\n"),
    "big": Golden("cat big.txt", out=None),
    "folder": Golden("pwd", options=("--cwd", "a folder é"), out=None),
    "output": Golden(
        "echo kept; echo bad >&2",
        options=("--output", "my out.txt", "--error", "my err.txt"),
        out="kept\n",
        err="bad\n",
    ),
    "public": Golden(
        'printf %s "$GREETING"', options=("--env", "GREETING=hello; $(id) 'wörld'"), out="hello; $(id) 'wörld'"
    ),
    "bare": Golden('printf %s "${LEAK-none}"', env={"LEAK": "yes"}, out="none"),
    "array": Golden(
        'echo "task $COMPUTEOPS_TASK_ID"', options=("--array", "4"), out="task 1\ntask 2\ntask 3\ntask 4\n"
    ),
    "array-range": Golden('echo "$COMPUTEOPS_TASK_ID"', options=("--array", "5-7%1"), out="5\n6\n7\n"),
    "array-codes": Golden(
        "exit $((COMPUTEOPS_TASK_ID - 1))",
        options=("--array", "3"),
        state="failed",
        code=2,
        tasks={1: ("succeeded", 0), 2: ("failed", 1), 3: ("failed", 2)},
    ),
    "array-files": Golden(
        "cat", options=("--array", "2", "--input", "in-{task}.txt", "--output", "out {task}.txt"), out="first\nsecond\n"
    ),
    "no-task": Golden('echo "${COMPUTEOPS_TASK_ID-none}"', out="none\n"),
    "first": Golden("sleep 1; echo 1 >order.txt"),
    "second": Golden("cat order.txt", after="first", out="1\n"),
    "after-array": Golden("echo all", after="array", out="all\n"),
    "bad": Golden("sleep 2; exit 3", state="failed", code=3),
    "after-bad": Golden("echo never", after="bad", state="cancelled", code=None),
    "timeout": Golden("sleep 300", options=("--time", "2s"), state="timeout", code=None, err=None),
    "in-time": Golden("echo quick", options=("--time", "5m"), out="quick\n"),
    "stubborn": Golden(
        "trap '' TERM; while :; do sleep 1; done", options=("--time", "1s"), state="timeout", code=None, err=None
    ),
    "array-timeout": Golden(
        '[ "$COMPUTEOPS_TASK_ID" = 1 ] || sleep 300',
        options=("--array", "2", "--time", "3s"),
        state="timeout",
        code=0,
        err=None,
        tasks={1: ("succeeded", 0), 2: ("timeout", None)},
    ),
    "retried": Golden("echo try >>tries.txt; [ $COMPUTEOPS_ATTEMPT = 2 ]", options=("--retries", "3")),
    "given-up": Golden("echo x; exit 7", options=("--retries", "2"), state="failed", code=7, out="x\nx\nx\n"),
    "resources": Golden("echo room", options=("--cpus", "2", "--memory", "300M", "--time", "10m"), out="room\n"),
    "child": Golden("sleep 300 & echo left", out="left\n"),
}
"""Name to job; later ones may wait for earlier ones."""


@functools.cache
def _files() -> dict[str, bytes]:
    return {
        "in put.txt": "from a file\nénd\n".encode(),
        "in-1.txt": b"first\n",
        "in-2.txt": b"second\n",
        "big.txt": (b"0123456789abcdef" * 8 + b"\n") * (BIG // 129),
    }


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Iterator[tuple[User, dict[str, dict[str, Any]]]]:
    """A user and, by name, what `jobs` says of every golden job: all were submitted before the first was awaited."""
    scheduler: str = request.param
    with using(scheduler, SCHEDULERS[scheduler]) as user:
        for name, data in _files().items():
            (user.home / name).write_bytes(data)
        (user.home / "a folder é").mkdir()
        user.scientist.own(user.home)
        ids: dict[str, str] = {}
        for name, golden in GOLDEN.items():
            words = ["--name", name, *golden.options, *(["--after", ids[golden.after]] if golden.after else [])]
            ids[name] = user.submit(*words, "--", "-c", golden.program, "sh", *golden.args, env=golden.env)
        found = {one["id"]: one for one in user.until(*ids.values(), seconds=150)}
        yield user, {name: found[identity] for name, identity in ids.items()}


def everywhere(fixture: str) -> pytest.MarkDecorator:
    marked = [pytest.param(one, marks=[getattr(pytest.mark, one)] if one != "local" else []) for one in SCHEDULERS]
    return pytest.mark.parametrize(fixture, marked, indirect=True, scope="session")


@everywhere("outcomes")
@pytest.mark.parametrize("name", GOLDEN)
def test_a_job_ends_the_same_way_everywhere(outcomes, name: str) -> None:
    user, found = outcomes
    golden, job = GOLDEN[name], found[name]
    assert (job["state"], job["code"]) == (golden.state, golden.code), job
    if golden.tasks:
        assert {int(n): (one["state"], one["code"]) for n, one in job["tasks"].items()} == golden.tasks
    out, err = user.logs(job["id"])
    if golden.out is not None:
        assert out == golden.out
    if golden.err is not None:
        assert err == golden.err


@everywhere("outcomes")
def test_what_jobs_leave_behind(outcomes) -> None:
    user, found = outcomes
    assert user.logs(found["big"]["id"])[0].encode() == _files()["big.txt"]
    assert user.logs(found["folder"]["id"])[0] == f"{user.home}/a folder é\n"
    assert (user.home / "my out.txt").read_text() == "kept\n"
    assert (user.home / "out 2.txt").read_text() == "second\n"
    assert (user.home / "tries.txt").read_text() == "try\n" * 3
    assert list(user.home.rglob("pwned")) == []
    assert not Path("pwned").exists()
