"""HTCondor's container universe on a real pool: the pool starts the image itself."""

from collections.abc import Iterator

import pytest

from schedulers import htcondor
from schedulers.users import User, using

pytestmark = [pytest.mark.htcondor, pytest.mark.apptainer, pytest.mark.squashfs]
HOSTILE = "a b'c\"d $(touch pwned) `touch pwned` ${HOME} $HOME \\ %j $(Process) $$(Cpus) # é漢 *"


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    with using("htcondor", htcondor) as one:
        one.scheduler = "htcondor_container"
        yield one


def test_the_pool_starts_the_image_itself(user: User) -> None:
    (user.home / "in put.txt").write_text("from a file\n")
    user.scientist.own(user.home / "in put.txt")
    word = 'for one; do printf "[%s]" "$one"; done'
    cases = {
        "hello": ["--", "-c", 'echo "hello ${COMPUTEOPS_JOB_ID:+known}"'],
        "code": ["--", "-c", "echo before; echo bad >&2; exit 42"],
        "words": ["--", "-c", word, "sh", HOSTILE, "", "-x"],
        "array": ["--array", "3-4", "--", "-c", "echo task $COMPUTEOPS_TASK_ID"],
        "stdin": ["--input", "in put.txt", "--", "-c", "cat"],
        "public": ["--env", "GREETING=hello; 'x'", "--", "-c", 'printf %s "$GREETING"'],
        "late": ["--time", "1s", "--", "-c", "sleep 300"],
        "cancelled": ["--", "-c", "sleep 300"],
    }
    ids = dict(zip(cases, user.submit_all(list(cases.values())), strict=True))
    user.until(ids["cancelled"], states={"running"})
    assert user("cancel", ids["cancelled"]).returncode == 0
    found = {one["id"]: one for one in user.until(*ids.values(), seconds=120)}
    ends = {name: (found[identity]["state"], found[identity]["code"]) for name, identity in ids.items()}
    assert ends == {
        "hello": ("succeeded", 0),
        "code": ("failed", 42),
        "words": ("succeeded", 0),
        "array": ("succeeded", 0),
        "stdin": ("succeeded", 0),
        "public": ("succeeded", 0),
        "late": ("timeout", None),
        "cancelled": ("cancelled", None),
    }
    logs = {name: user.logs(identity) for name, identity in ids.items()}
    assert logs["hello"][0] == "hello known\n"
    assert logs["code"][0] == "before\n"
    assert "bad\n" in logs["code"][1]
    assert logs["words"][0] == f"[{HOSTILE}][][-x]"
    assert logs["array"][0] == "task 3\ntask 4\n"
    assert logs["stdin"][0] == "from a file\n"
    assert logs["public"][0] == "hello; 'x'"
    assert list(user.home.rglob("pwned")) == []


def test_what_it_cannot_do_is_refused(user: User) -> None:
    for words in (["--tasks", "2"], ["--queue", "x"], ["--", "-c", "two\nlines"], ["--volume", "v"]):
        done = user("submit", "--on", user.scheduler, user.image, *words)
        assert done.returncode == 2, words
