"""Licence expressions: the grammar of SPDX 2.3, annex D."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeops.spdx import license_fault

GOOD = [
    "MIT",
    "GPL-2.0+",
    "MIT OR Apache-2.0",
    "(MIT)",
    "GPL-2.0-or-later WITH Classpath-exception-2.0",
    "(MIT OR BSD-3-Clause) AND GPL-3.0-only",
    "((MIT))",
    "LicenseRef-Proprietary",
    "DocumentRef-spdx-tool-1.2:LicenseRef-MIT-Style-2",
    "MIT AND (GPL-2.0-only WITH Linux-syscall-note OR BSD-2-Clause)",
]
BAD = [
    "",
    "AND",
    "MIT OR",
    "MIT Apache-2.0",
    "MIT or Apache-2.0",
    "(MIT",
    "MIT)",
    "()",
    "WITH Classpath-exception-2.0",
    "(MIT OR ISC) WITH Classpath-exception-2.0",
    "MIT WITH A WITH B",
    "MIT,ISC",
    "MIT/ISC",
    "+",
]


@pytest.mark.parametrize("expression", GOOD)
def test_expressions_of_the_grammar(expression: str) -> None:
    assert license_fault(expression) == ""


@pytest.mark.parametrize("expression", BAD)
def test_what_is_not_an_expression_is_told_with_an_example(expression: str) -> None:
    assert "MIT OR Apache-2.0" in license_fault(expression)


EXPRESSIONS = st.recursive(
    st.sampled_from(["MIT", "GPL-2.0+", "LicenseRef-x", "GPL-2.0-only WITH GCC-exception-2.0"]),
    lambda inner: st.one_of(
        inner.map(lambda one: f"({one})"),
        st.builds("{} AND {}".format, inner, inner),
        st.builds("{} OR {}".format, inner, inner),
    ),
    max_leaves=12,
)


@given(EXPRESSIONS)
def test_whatever_the_grammar_makes_is_good(expression: str) -> None:
    assert license_fault(expression) == ""


@given(EXPRESSIONS, st.sampled_from([" AND", " OR", " WITH", "(", ")", " MIT"]))
def test_no_good_expression_stays_good_with_a_word_too_many(expression: str, word: str) -> None:
    assert license_fault(expression + word)


@given(st.text())
def test_any_text_is_judged(text: str) -> None:
    assert isinstance(license_fault(text), str)
