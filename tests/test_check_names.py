"""Names that others must understand: licences as SPDX expressions, package URLs; judged by the libraries of both."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from license_expression import get_spdx_licensing
from packageurl import PackageURL

from computeops.check.inventory.license import all_of, expression
from computeops.check.inventory.purl import purl
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


_TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)


@given(st.sampled_from(["deb", "apk", "rpm", "pypi"]), _TEXT, _TEXT, _TEXT)
def test_packageurl_reads_from_a_purl_what_was_put_into_it(kind: str, name: str, version: str, value: str) -> None:
    # A slash stands for several segments there, and is in no name of a package or distribution.
    assume("/" not in name + value)
    # packageurl-python follows the older rule for PyPI: only underscores are replaced.
    assume(kind != "pypi" or not set("._-") & set(name))
    namespace = "" if kind == "pypi" else "debian"
    read = PackageURL.from_string(purl(kind, namespace.title(), name, version, {"distro": value, "epoch": ""}))
    assert (read.type, read.namespace or "", read.version) == (kind, namespace, version)
    assert read.name == (name if kind == "rpm" else name.lower())
    assert read.qualifiers == {"distro": value}


@pytest.mark.parametrize(
    ("made", "canonical"),
    [
        (
            purl("deb", "Debian", "libstdc++6", "1:12.2~rc1+b1", {"arch": "amd64", "distro": "debian-12"}),
            "pkg:deb/debian/libstdc%2B%2B6@1:12.2~rc1%2Bb1?arch=amd64&distro=debian-12",
        ),
        (
            purl("rpm", "Fedora", "PackageKit", "1.2^git1-3", {"epoch": "2", "arch": ""}),
            "pkg:rpm/fedora/PackageKit@1.2%5Egit1-3?epoch=2",
        ),
        (purl("pypi", "", "Ruamel_.Yaml", "0.17", {}), "pkg:pypi/ruamel-yaml@0.17"),
        (purl("apk", "alpine", "libstdc++", "13-r0", {}), "pkg:apk/alpine/libstdc%2B%2B@13-r0"),
    ],
)
def test_a_purl_is_in_its_canonical_form(made: str, canonical: str) -> None:
    assert made == canonical
