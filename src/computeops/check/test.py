"""The recipe's tests, run inside the image: an in-toto Test Result.

Specification: https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md, version 0.1. What it has
no field for is under `computeops_tests`: how each test ended, how long it took, and of a failed one the end of its
output.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from computeops.check import kinds
from computeops.errors import UsageError
from computeops.model import Digest, Evidence, Image
from computeops.recipe import FILE_NAME, Test

_TAIL_CHARS = 4000
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command inside the image ended."""

    exit_code: int
    """Minus the signal for a process that was killed by one."""
    output: bytes
    """Both of its streams as they came, at most `LIMITS.test_output_bytes`."""
    seconds: float
    timed_out: bool = False


Run = Callable[[Sequence[str], float], Outcome]
"""Runs a command inside the image, for at most so many seconds."""


def run_tests(
    image: Image,
    tests: Sequence[Test],
    *,
    run: Run,
    progress: Callable[[str], None] = lambda _: None,
    recipe: Digest | None = None,
) -> Evidence:
    """Run every test by `sh -ec` inside the image and return how they ended; a failed test stops no other.

    Args:
        image: what the evidence is about.
        tests: the recipe's tests.
        run: runs one command inside the image.
        progress: told which test runs.
        recipe: digest of the recipe that the tests are from, where it is known.

    Raises:
        UsageError: there are no tests, so nothing can pass.
        EngineError: from `run`: the container could not be started.
    """
    if not tests:
        raise UsageError("the recipe has no tests", hint=f"add a table [[tests]] with name and run to {FILE_NAME}")
    results: list[dict[str, Any]] = []
    for number, test in enumerate(tests, 1):
        progress(f"test {number} of {len(tests)}: {test.name}")
        results.append(_result(test, run(["/bin/sh", "-ec", test.run], float(test.timeout))))
    failed = [one["name"] for one in results if "fault" in one]
    predicate = {
        "result": "FAILED" if failed else "PASSED",
        "configuration": _configuration(tests, recipe),
        "passedTests": [one["name"] for one in results if "fault" not in one],
        "warnedTests": [],
        "failedTests": failed,
        "computeops_tests": results,
    }
    return Evidence(kinds.TEST, image.subjects, predicate)


def _configuration(tests: Sequence[Test], recipe: Digest | None) -> list[dict[str, Any]]:
    """Return descriptors of what was asked: the tests themselves, as JSON with sorted keys, and their recipe."""
    asked = Digest.of(msgspec.json.encode(list(tests), order="sorted"))
    named = {f"{FILE_NAME}#tests": asked} | ({FILE_NAME: recipe} if recipe else {})
    return [{"name": name, "digest": {digest.algorithm: digest.hex}} for name, digest in named.items()]


def _result(test: Test, outcome: Outcome) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": test.name,
        "exitCode": outcome.exit_code,
        "seconds": round(outcome.seconds, 3),
    }
    if fault := _fault(test, outcome):
        result |= {"fault": fault, "output": plain(outcome.output)[-_TAIL_CHARS:]}
    return result


def _fault(test: Test, outcome: Outcome) -> str:
    """Return what is wrong with the outcome of a test, or ""."""
    if outcome.timed_out:
        return f"no end after {test.timeout} s"
    if outcome.exit_code != test.expect_exit:
        return f"exit code {outcome.exit_code}, not {test.expect_exit}"
    if test.expect not in outcome.output.decode(errors="replace").replace("\r\n", "\n"):
        return f"the output lacks {test.expect!r}"
    return ""


def plain(output: bytes) -> str:
    """Return output as text that can be shown anywhere: without escape sequences and control characters."""
    text = _ESCAPE.sub("", output.decode(errors="replace"))
    return "".join(one for one in text if one.isprintable() or one in "\n\t")
