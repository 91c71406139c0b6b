"""LSF, PBS Pro and Torque by fakes that speak as their manuals say: the golden jobs that show the dialect."""

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from schedulers import fakes
from schedulers.users import User, using
from test_run_golden import GOLDEN, _files

NAMES = (
    "success",
    "code-42",
    "words",
    "name",
    "stdin",
    "public",
    "array",
    "array-range",
    "array-codes",
    "after-array",
    "first",
    "second",
    "bad",
    "after-bad",
    "timeout",
    "resources",
)


@pytest.fixture(scope="session")
def dialect(request: pytest.FixtureRequest) -> Iterator[tuple[User, dict[str, dict[str, Any]]]]:
    """A user of the fake, and by name what `jobs` says of the golden jobs."""
    with using(request.param, getattr(fakes, request.param)) as user:
        for name, data in _files().items():
            (user.home / name).write_bytes(data)
        user.scientist.own(user.home)
        ids: dict[str, str] = {}
        for name in NAMES:
            golden = GOLDEN[name]
            words = ["--name", name, *golden.options, *(word for one in golden.after for word in ("--after", ids[one]))]
            ids[name] = user.submit(*words, "--", "-c", golden.program, "sh", *golden.args, env=golden.env)
        (user.home / "go").touch()
        found = {one["id"]: one for one in user.until(*ids.values())}
        yield user, {name: found[identity] for name, identity in ids.items()}


each = pytest.mark.parametrize("dialect", fakes.COMMANDS, indirect=True, scope="session")


@each
@pytest.mark.parametrize("name", NAMES)
def test_a_job_ends_the_same_way_in_every_dialect(dialect, name: str) -> None:
    user, found = dialect
    golden, job = GOLDEN[name], found[name]
    assert (job["state"], job["code"]) == (golden.state, golden.code), job
    if golden.tasks:
        assert {int(n): (one["state"], one["code"]) for n, one in job["tasks"].items()} == golden.tasks
    if golden.out is not None:
        assert user.logs(job["id"])[0] == golden.out


@each
def test_cancel_and_find_again(dialect) -> None:
    user, _ = dialect
    job = user.submit("--array", "2", "--", "-c", "sleep 300")
    user.until(job, states={"running"})
    native = (user.folder(job) / "native").read_text()
    (user.folder(job) / "native").unlink()
    assert user.jobs(job)[0]["native"] == native
    assert user("cancel", job).returncode == 0
    assert user.until(job)[0]["state"] == "cancelled"


@each
def test_what_is_refused_leaves_nothing_behind(dialect) -> None:
    user, _ = dialect
    before = len(user.jobs())
    done = user("submit", "--on", user.scheduler, "--queue", "nope", user.image)
    assert done.returncode == 17
    assert b"ueue" in done.stderr
    assert len(user.jobs()) == before


@each
def test_only_the_scheduler_knows_how_a_killed_job_ended(dialect) -> None:
    user, _ = dialect
    job = user.submit("--", "-c", "sleep 300")
    user.until(job, states={"running"})
    native = (user.folder(job) / "native").read_text()
    command = {"lsf": "bkill"}.get(user.scheduler, "qdel")
    subprocess.run(user.scientist.argv([command, native]), env=user.env(), check=True, stdout=subprocess.DEVNULL)
    assert user.until(job)[0]["state"] == "cancelled"
