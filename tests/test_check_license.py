"""Licences as packages write them, as SPDX expressions: judged by SPDX's own list in the CycloneDX schemas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from license_expression import get_spdx_licensing

from computeops.check.inventory.license import all_of, expression
from computeops.spdx import license_fault


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("MIT", "MIT"),
        ("apache-2.0", "Apache-2.0"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("GPL-3", "GPL-3.0-only"),
        ("LGPL-2.1+", "LGPL-2.1-or-later"),
        ("GPLv2+ and (MIT or ASL 2.0)", "GPL-2.0-or-later AND ( MIT OR Apache-2.0 )"),
        ("GNU General Public License v3 or later (GPLv3+)", "GPL-3.0-or-later"),
        ("GPL-2.0-only WITH Classpath-exception-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
        ("GPL-2+ with Bison exception", "LicenseRef-GPL-2.0-or-later-with-Bison-exception"),
        ("Expat", "MIT"),
        ("BSD", "LicenseRef-BSD"),
        ("public-domain", "LicenseRef-public-domain"),
        ("LicenseRef-Fedora-Public-Domain", "LicenseRef-Fedora-Public-Domain"),
        ("MIT, Zlib", "MIT AND Zlib"),
        ("MIT/Apache-2.0", "LicenseRef-MIT-Apache-2.0"),
        ("", ""),
        ("UNKNOWN", ""),
        ("x" * 5000, ""),
        ("((MIT", "LicenseRef-MIT"),
        ("and or with", "LicenseRef-and-or-with"),
    ],
)
def test_names_become_what_they_mean_and_nothing_is_made_up(said: str, meant: str) -> None:
    assert expression(said) == meant


def test_licences_of_several_parts_all_apply_once() -> None:
    assert all_of(["MIT or GPL-2+", "Expat", "MIT", ""]) == "MIT AND (MIT OR GPL-2.0-or-later)"


@given(st.lists(st.sampled_from(["MIT", "GPL-2+", "and", "or", "with", "(", ")", ",", "BSD", "\n", "\udcff", "ü"])))
def test_any_text_gives_an_expression_or_nothing(words: list[str]) -> None:
    made = expression(" ".join(words))
    assert not made or not license_fault(made)
    assert made.isascii()
    if "LicenseRef" not in made and made:
        get_spdx_licensing().parse(made, validate=True, strict=True)
