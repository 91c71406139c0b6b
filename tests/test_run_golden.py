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
    after: tuple[str, ...] = ()
    """Names of the jobs that it waits for."""
    state: str = "succeeded"
    code: int | None = 0
    out: str | None = ""
    err: str | None = ""
    tasks: Mapping[int, tuple[str, int | None]] = dataclasses.field(default_factory=dict)
    """State and code of the tasks of an array."""
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What is set where it is submitted."""
    on: tuple[str, ...] = ("local", "slurm", "htcondor", "gridengine")
    """The schedulers that have what it asks for."""
    cancel: bool = False
    """Whether its owner cancels it, when all are submitted."""


def failed(code: int, program: str, **more: Any) -> Golden:
    """A job that ends with this exit code."""
    return Golden(program, state="failed", code=code, **more)


_FILL = "x=0123456789abcdef; while [ ${#x} -lt 120000000 ]; do x=$x$x; done; sleep 300"
"""Fills some 130 MB of memory, and stays."""
_SIGN = "while [ ! -e go ]; do sleep 0.2; done"
"""Waits until all jobs have been submitted."""
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
    "first": Golden("echo 1 >order.txt"),
    "second": Golden("cat order.txt", after=("first",), out="1\n"),
    "after-array": Golden("echo all", after=("array",), out="all\n"),
    "bad": failed(3, f"{_SIGN}; exit 3"),
    "after-bad": Golden("echo never", after=("bad",), state="cancelled", code=None),
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
    "code-2": failed(2, "exit 2"),
    "not-executable": failed(126, "exec /etc/passwd", err=None),
    "hangup": failed(129, "kill -HUP $$", err=None),
    "interrupt": failed(130, "kill -INT $$", err=None),
    "abort": failed(134, "kill -ABRT $$", err=None),
    "user-signal": failed(138, "kill -USR1 $$", err=None),
    "pipe": failed(141, "kill -PIPE $$", err=None),
    "trapped": failed(9, "trap 'echo caught; exit 9' TERM; kill -TERM $$; sleep 300", out="caught\n"),
    "syntax": failed(2, "if", err=None),
    "unicode": Golden("echo 'é漢𝄞 ü'", out="é漢𝄞 ü\n"),
    "unicode-env": Golden('printf %s "$GREETING"', options=("--env", "GREETING=漢𝄞 = 'ü'"), out="漢𝄞 = 'ü'"),
    "unicode-files": Golden("cat", options=("--input", "ïn ø.txt", "--output", "öut 漢.txt"), out="ü\n"),
    "two-variables": Golden('echo "$A-$B_2"', options=("--env", "A=1", "--env", "B_2=two"), out="1-two\n"),
    "empty-variable": Golden('echo "[${A-unset}]"', options=("--env", "A="), out="[]\n"),
    "many-words": Golden('echo "$#"', args=tuple(map(str, range(2000))), out="2000\n"),
    "long-word": Golden('echo "${#1}"', args=("x" * 100_000,), out="100000\n"),
    "big-errors": Golden("cat big.txt >&2", err=None),
    "big-input": Golden("cat", options=("--input", "big.txt", "--output", "big copy.txt"), out=None),
    "bytes": Golden(r"printf '\000\377'", options=("--output", "bytes.bin"), out=None),
    "job-id": Golden('echo "${#COMPUTEOPS_JOB_ID}"', out="8\n"),
    "array-one": Golden('echo "$COMPUTEOPS_TASK_ID"', options=("--array", "3-3"), out="3\n"),
    "array-of-many": Golden(
        'echo "$COMPUTEOPS_TASK_ID"',
        options=("--array", "12%6"),
        out="".join(f"{number}\n" for number in range(1, 13)),
    ),
    "array-after": Golden(
        'read one <order.txt; echo "$one$COMPUTEOPS_TASK_ID"',
        options=("--array", "2"),
        after=("first",),
        out="11\n12\n",
    ),
    "after-two": Golden("echo both", after=("first", "array"), out="both\n"),
    "third": Golden("echo 3", after=("second",), out="3\n"),
    "bad-array": failed(1, f"{_SIGN}; exit $((COMPUTEOPS_TASK_ID - 1))", options=("--array", "2")),
    "after-bad-array": Golden("echo never", after=("bad-array",), state="cancelled", code=None),
    "array-retried": Golden(
        "[ $COMPUTEOPS_ATTEMPT = $((COMPUTEOPS_TASK_ID - 1)) ]", options=("--array", "2", "--retries", "2")
    ),
    "cleaned-up": Golden(
        "trap 'echo cleaned; exit 0' TERM; while :; do sleep 0.1; done",
        options=("--time", "2s"),
        state="timeout",
        code=None,
        out="cleaned\n",
        err=None,
    ),
    "memory": failed(137, _FILL, options=("--memory", "64M"), err=None),
    "memory-kept": Golden(
        "x=0123456789abcdef; while [ ${#x} -lt 9000000 ]; do x=$x$x; done; sleep 2; echo ${#x}",
        options=("--memory", "400M"),
        out="16777216\n",
    ),
    "array-memory": Golden(
        f'[ "$COMPUTEOPS_TASK_ID" = 1 ] || {{ {_FILL}; }}',
        options=("--array", "2", "--memory", "64M", "--retries", "1"),
        state="failed",
        code=137,
        err=None,
        tasks={1: ("succeeded", 0), 2: ("failed", 137)},
    ),
    "cancelled": Golden("sleep 300", state="cancelled", code=None, err=None, cancel=True),
    "cancelled-array": Golden(
        "sleep 300", options=("--array", "2"), state="cancelled", code=None, err=None, cancel=True
    ),
    "ranks": Golden(
        'echo "rank ${PMIX_RANK:-${SLURM_PROCID}}"',
        options=("--tasks", "2"),
        out="rank 0\nrank 1\n",
        err=None,
        on=("local", "slurm", "gridengine"),
    ),
    "nodes": Golden(
        'echo "$SLURM_PROCID $SLURMD_NODENAME"',
        options=("--nodes", "2", "--tasks", "2"),
        out="0 n1\n1 n2\n",
        err=None,
        on=("slurm",),
    ),
}
"""Name to job; later ones may wait for earlier ones."""


@functools.cache
def _files() -> dict[str, bytes]:
    return {
        "in put.txt": "from a file\nénd\n".encode(),
        "in-1.txt": b"first\n",
        "in-2.txt": b"second\n",
        "ïn ø.txt": "ü\n".encode(),
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
        ids = _submit(user)
        (user.home / "go").touch()
        user.many([["cancel", ids[name]] for name, golden in GOLDEN.items() if golden.cancel])
        found = {one["id"]: one for one in user.until(*ids.values(), seconds=200)}
        logs = user.many([["logs", identity] for identity in ids.values()])
        yield (
            user,
            {
                name: {**found[identity], "out": out, "err": err}
                for (name, identity), (_, out, err) in zip(ids.items(), logs, strict=True)
            },
        )


def _submit(user: User) -> dict[str, str]:
    """Submit every golden job, many at once, and return their ids: first those that wait, and what they wait for."""
    ids: dict[str, str] = {}
    here = {name: golden for name, golden in GOLDEN.items() if user.scheduler in golden.on}
    awaited = {name for golden in here.values() for name in golden.after}
    roots = [name for name in awaited if not here[name].after]
    for wave in (roots, ["second"], [name for name in here if here[name].after], here):
        new = [name for name in wave if name not in ids]
        words = [
            [
                *("--name", name, *here[name].options),
                *(word for one in here[name].after for word in ("--after", ids[one])),
                *("--", "-c", here[name].program, "sh", *here[name].args),
            ]
            for name in new
        ]
        ids |= zip(new, user.submit_all(words, [here[name].env for name in new]), strict=True)
    return ids


def everywhere(fixture: str) -> pytest.MarkDecorator:
    marked = [pytest.param(one, marks=[getattr(pytest.mark, one)] if one != "local" else []) for one in SCHEDULERS]
    return pytest.mark.parametrize(fixture, marked, indirect=True, scope="session")


@everywhere("outcomes")
@pytest.mark.parametrize("name", GOLDEN)
def test_a_job_ends_the_same_way_everywhere(outcomes, name: str) -> None:
    user, found = outcomes
    golden = GOLDEN[name]
    if user.scheduler not in golden.on:
        assert name not in found
        return
    job = found[name]
    codes = {job["code"]} if golden.cancel else {golden.code}  # what a cancelled one left, nobody promises
    assert job["state"] == golden.state, job
    assert job["code"] in codes, job
    if golden.tasks:
        assert {int(n): (one["state"], one["code"]) for n, one in job["tasks"].items()} == golden.tasks
    if golden.out is not None:
        assert (job["out"] if "--tasks" not in golden.options else _sorted(job["out"])) == golden.out
    if golden.err is not None:
        assert job["err"] == golden.err


def _sorted(lines: str) -> str:
    """Processes that run at once print in any order."""
    return "".join(sorted(lines.splitlines(keepends=True)))


@everywhere("outcomes")
def test_what_jobs_leave_behind(outcomes) -> None:
    user, found = outcomes
    assert found["big"]["out"].encode() == found["big-errors"]["err"].encode() == _files()["big.txt"]
    assert found["folder"]["out"] == f"{user.home}/a folder é\n"
    assert (user.home / "big copy.txt").read_bytes() == _files()["big.txt"]
    assert (user.home / "bytes.bin").read_bytes() == b"\0\377"
    assert (user.home / "my out.txt").read_text() == "kept\n"
    assert (user.home / "out 2.txt").read_text() == "second\n"
    assert (user.home / "öut 漢.txt").read_text() == "ü\n"
    assert (user.home / "tries.txt").read_text() == "try\n" * 3
    assert "more memory than it asked for" in found["memory"]["reason"]
    assert list(user.home.rglob("pwned")) == []
    assert not Path("pwned").exists()
