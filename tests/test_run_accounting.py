"""Where the job's own word is missing, the accounting of a real Slurm with slurmdbd tells how it ended."""

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from schedulers import slurm
from schedulers.users import User, using

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with using("slurm", SimpleNamespace(up=lambda: slurm.up(accounting=True))) as one:
        yield one


def _forget(user: User, job: str) -> None:
    for file in (user.folder(job) / "exits").iterdir():
        file.unlink()


def _told(user: User, job: str, state: str) -> dict:
    """What is told of a job, once the accounting has heard of its end."""
    until = time.monotonic() + 30
    while True:
        (found,) = user.jobs(job)
        if (found["state"] == state and found["code"] is not None) or time.monotonic() > until:
            return found
        (user.folder(job) / "ended.json").unlink(missing_ok=True)
        time.sleep(0.5)


def test_accounting_knows_the_exit_code_of_a_job_that_left_no_file(user: User) -> None:
    job = user.submit("--", "-c", "exit 42")
    user.until(job)
    _forget(user, job)
    assert _told(user, job, "failed")["code"] == 42


def test_accounting_knows_every_task_of_an_array(user: User) -> None:
    job = user.submit("--array", "3-4", "--", "-c", "exit $((COMPUTEOPS_TASK_ID - 3))")
    user.until(job)
    _forget(user, job)
    assert _told(user, job, "failed")["code"] == 1
    (found,) = user.jobs(job)
    assert {n: one["state"] for n, one in found["tasks"].items()} == {"3": "succeeded", "4": "failed"}
