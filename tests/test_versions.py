"""Orders of versions: judged by dpkg, rpm, apk-tools and packaging, and by the laws that every order obeys."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import version_pairs
from computeops.check.versions import SCHEMES, compare, deb, key, rpm

TEXT = st.one_of(
    st.text(alphabet="0123456789abrcdpvZ.~^+-_:!", max_size=16),
    st.text(max_size=8),
    st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}(-?[a-z]{1,3}[0-9]?)?", fullmatch=True),
)
ALL = sorted(SCHEMES)


def wrong(scheme: str, pairs: list[version_pairs.Pair], said: list[int]) -> list[tuple[version_pairs.Pair, int]]:
    assert len(said) == len(pairs)
    return [(pair, answer) for pair, answer in zip(pairs, said, strict=True) if compare(scheme, *pair) != answer]


def test_debian_versions_compare_as_dpkg_says() -> None:
    pairs = version_pairs.pairs("deb", 250, valid=version_pairs.dpkg_valid)
    assert wrong("deb", pairs, version_pairs.by_dpkg(pairs)) == []


@pytest.mark.rpm
def test_rpm_versions_compare_as_rpm_says(tmp_path: Path) -> None:
    pairs = version_pairs.pairs("rpm", 4000)
    assert wrong("rpm", pairs, version_pairs.by_rpm(pairs, tmp_path)) == []


def test_python_versions_compare_as_packaging_says() -> None:
    pairs = version_pairs.pairs("pep440", 4000, valid=version_pairs.packaging_valid)
    assert wrong("pep440", pairs, list(version_pairs.by_packaging(pairs))) == []


def test_alpine_versions_compare_as_apk_tools_says() -> None:
    pairs, said = version_pairs.by_apk()
    assert wrong("apk", pairs, said) == []


@pytest.mark.parametrize("scheme", ALL)
@given(first=TEXT, second=TEXT, third=TEXT)
def test_every_text_has_a_place_and_the_places_are_in_a_row(scheme: str, first: str, second: str, third: str) -> None:
    assert compare(scheme, first, first) == 0
    assert compare(scheme, first, second) == -compare(scheme, second, first)
    one, two, three = sorted((first, second, third), key=lambda version: key(scheme, version))
    assert compare(scheme, one, two) <= 0
    assert compare(scheme, two, three) <= 0
    assert compare(scheme, one, three) <= 0


@pytest.mark.parametrize("scheme", ALL)
def test_a_hostile_version_costs_no_more_than_its_length(scheme: str) -> None:
    began = time.monotonic()
    for hostile in ("9" * 1024, "1." * 512, "~" * 1024, "1" + "-rc" * 340, "\udcff" * 100, "a1" * 512, "+" * 1024):
        assert isinstance(key(scheme, hostile), bytes)
    assert time.monotonic() - began < 2


# In rising order, from the published rules and tests.
ROWS = {
    "deb": ["0~~", "0~", "0", "1~rc1", "1", "1-1~bpo1", "1-1", "1-1+b1", "1-1+deb12u1", "1+1", "1.1", "9", "10", "1:0"],
    "rpm": ["1~~a", "1~rc1", "1", "1^", "1^20200101", "1a", "1.0", "1.10", "1.010.1", "10", "1:0"],
    "apk": [
        "1_alpha",
        "1_alpha2",
        "1_beta",
        "1_rc1",
        "1",
        "1-r0",
        "1-r10",
        "1_p",
        "1_p1",
        "1a",
        "1.0",
        "1.01",
        "1.1",
        "1.10",
        "2",
    ],
    "pep440": [
        "junk",
        "1.dev0",
        "1a1.dev2",
        "1a1",
        "1b1",
        "1rc1",
        "1",
        "1+a",
        "1+1",
        "1+1.1",
        "1.post1.dev1",
        "1.post1",
        "1.1",
        "1!0",
    ],
    "semver": [
        "nothing",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.0.0.1",
        "v1.0.1",
        "2.0.0rc2",
        "2",
    ],
    "julia": ["1.0.0-rc1", "1.0.0", "1.0.0+0", "1.0.0+1", "1.0.0+10", "1.0.1"],
    "maven": [
        *("1-alpha-1", "1-alpha2", "1.0-beta", "1-milestone3", "1.0.0-rc1", "1-SNAPSHOT", "1", "1-sp", "1-jre", "1-1"),
        *("1.0.1", "1.1-SNAPSHOT", "1.1", "1.2", "1.10", "2", "20230227"),
    ],
    "loose": ["1.0-rc1", "1.0", "1.0-1", "1.0-2", "1.0.3", "1.1"],
}


@pytest.mark.parametrize("scheme", sorted(ROWS))
def test_published_examples_are_in_order(scheme: str) -> None:
    row = ROWS[scheme]
    keys = [key(scheme, version) for version in row]
    assert [row[at] for at in range(1, len(row)) if keys[at - 1] >= keys[at]] == []


@pytest.mark.parametrize(
    ("scheme", "first", "second"),
    [
        ("deb", "0:1.0-1", "1.0-1"),
        ("deb", "1.0", "1.0-0"),
        ("deb", "1.00", "1.0"),
        ("rpm", "0:1.0-1", "1.0-1"),
        ("rpm", "1.0.-1", "1_0-1"),
        ("rpm-no-epoch", "2:1.0-1", "1.0-1"),
        ("apk", "1.0#x", "1.0#y"),
        ("pep440", "1.0", "1.0.0"),
        ("pep440", "1.0-1", "1.0.post1"),
        ("pep440", "v1.0RC1", "1.0rc1"),
        ("semver", "1.2", "1.2.0"),
        ("maven", "1.0.0.Final", "1"),
        ("maven", "1.0-RC1", "1-cr-1"),
        ("maven", "1a1", "1-alpha-1"),
        ("maven", "2.0-ga-foo", "2-foo"),
        ("semver", "1.2.0+a", "1.2.0+b"),
        ("semver", "go1.21rc2", "1.21.0-rc.2"),
    ],
)
def test_spellings_of_one_version_are_equal(scheme: str, first: str, second: str) -> None:
    assert compare(scheme, first, second) == 0


def test_a_rebuild_of_a_binary_is_of_the_same_source() -> None:
    assert deb.source_version("1.0-1+b12") == "1.0-1"
    assert deb.source_version("1.0-1+deb12u1") == "1.0-1+deb12u1"


def test_a_package_of_a_module_is_known_by_its_release() -> None:
    assert rpm.modular("1:16.1.0-1.module+el8.5.0+119+9a9ec082")
    assert rpm.modular("1.0-1.module_el8.5.0+119+9a9ec082")
    assert not rpm.modular("1.0-1.el8")
