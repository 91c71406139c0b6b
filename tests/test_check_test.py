"""The recipe's tests as evidence: real shells, and what their outcome says."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from computeops import proc
from computeops.check import kinds
from computeops.check.test import Outcome, run_tests
from computeops.errors import EngineError, UsageError
from computeops.limits import LIMITS
from computeops.model import Digest, Evidence, Image
from computeops.recipe import Test as Case

IMAGE = Image(Path("x.sif"), "sif", Digest.of(b"config"))
RECIPE = Digest.of(b"recipe")


def here(argv: Sequence[str], seconds: float) -> Outcome:
    """This machine as the container."""
    seen = proc.observe(argv, env={"PATH": "/usr/bin:/bin"}, timeout=seconds, limit_bytes=LIMITS.test_output_bytes)
    return Outcome(seen.code, seen.output, seen.seconds, seen.timed_out)


def run(*tests: Case) -> Evidence:
    return run_tests(IMAGE, tests, run=here, recipe=RECIPE)


def test_tests_that_hold_pass_and_say_what_was_asked() -> None:
    said: list[str] = []
    tests = [
        Case(name="version", run="echo samtools 1.21", expect="samtools 1.21"),
        Case(name="refuses", run="echo no >&2; exit 3", expect="no", expect_exit=3),
    ]
    evidence = run_tests(IMAGE, tests, run=here, recipe=RECIPE, progress=said.append)
    assert evidence.kind == kinds.TEST
    assert evidence.subjects == {"image": IMAGE.id}
    assert evidence.passed is True
    predicate = evidence.predicate
    assert (predicate["result"], predicate["passedTests"], predicate["failedTests"]) == (
        "PASSED",
        ["version", "refuses"],
        [],
    )
    assert {"name": "computeops.toml", "digest": {"sha256": RECIPE.hex}} in predicate["configuration"]
    assert said == ["test 1 of 2: version", "test 2 of 2: refuses"]
    assert "output" not in predicate["computeops_tests"][0]


def test_other_tests_are_another_configuration_even_where_no_recipe_is_known() -> None:
    def asked(text: str) -> object:
        return run_tests(IMAGE, [Case(name="a", run=text)], run=here).predicate["configuration"]

    assert asked("true") == asked("true") != asked(":")


@pytest.mark.parametrize(
    ("test", "fault"),
    [
        (Case(name="x", run="exit 7"), "exit code 7, not 0"),
        (Case(name="x", run="true", expect_exit=1), "exit code 0, not 1"),
        (Case(name="x", run="false\ntrue"), "exit code 1, not 0"),
        (Case(name="x", run="echo 1.2", expect="1.21"), "the output lacks '1.21'"),
        (Case(name="x", run="sleep 30", timeout=1), "no end after 1 s"),
        (Case(name="x", run="kill -9 $$"), "exit code -9, not 0"),
    ],
)
def test_a_fault_is_evidence_and_the_other_tests_still_run(test: Case, fault: str) -> None:
    evidence = run(test, Case(name="good", run="true"))
    assert evidence.passed is False
    assert (evidence.predicate["failedTests"], evidence.predicate["passedTests"]) == (["x"], ["good"])
    assert evidence.predicate["computeops_tests"][0]["fault"] == fault


def test_the_end_of_a_failed_tests_output_is_kept_without_what_a_terminal_would_obey() -> None:
    text = (
        r"printf 'x%.0s' $(seq 9000); printf '\033[31mred\033[0m \033]0;title\007\007\377 \303\274\r\n end\n'; exit 1"
    )
    output = run(Case(name="x", run=text)).predicate["computeops_tests"][0]["output"]
    assert output.endswith("xxred \ufffd ü\n end\n")
    assert len(output) == 4000


def test_without_tests_nothing_can_pass() -> None:
    with pytest.raises(UsageError, match="no tests") as caught:
        run()
    assert "[[tests]]" in caught.value.hint


def test_a_container_that_does_not_start_is_no_failed_test() -> None:
    def broken(argv: Sequence[str], seconds: float) -> Outcome:
        raise EngineError("no user namespaces")

    with pytest.raises(EngineError):
        run_tests(IMAGE, [Case(name="x", run="true")], run=broken)
