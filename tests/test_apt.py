"""Asking a Debian archive: its signature, its names, its versions; a repository of our own and the machine's mirror."""

import gzip
import hashlib
import subprocess
from pathlib import Path

import pytest

from computeops.build import apt
from computeops.build.model import Place
from computeops.errors import NetworkError, RecipeError

pytestmark = pytest.mark.mmdebstrap


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(work=tmp_path, cache=tmp_path / "cache")


def package(folder: Path, name: str, *, essential: bool = False, depends: str = "") -> None:
    tree = folder / f"tree-{name}"
    (tree / "DEBIAN").mkdir(parents=True)
    lines = [f"Package: {name}", "Version: 1:2.0-1", "Architecture: all", "Maintainer: a <a@b>", "Description: x"]
    lines += ["Essential: yes"] if essential else []
    lines += [f"Depends: {depends}"] if depends else []
    (tree / "DEBIAN/control").write_text("\n".join([*lines, ""]))
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", tree, folder / f"{name}_2.0-1_all.deb"],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An archive with three packages and no signature."""
    folder = tmp_path / "repository"
    binary = folder / "dists/stable/main/binary-all"
    binary.mkdir(parents=True)
    package(folder, "base", essential=True)
    package(folder, "tool", depends="library")
    package(folder, "library")
    package(folder, "broken", depends="nowhere")
    stanzas = []
    for deb in sorted(folder.glob("*.deb")):
        control = subprocess.run(["dpkg-deb", "-f", deb], check=True, capture_output=True, text=True).stdout
        data = deb.read_bytes()
        stanzas.append(
            f"{control.strip()}\nFilename: {deb.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
    text = "\n".join(stanzas).encode()
    native = folder / "dists/stable/main/binary-amd64"
    native.mkdir()
    release = [
        "Origin: x",
        "Suite: stable",
        "Codename: stable",
        "Architectures: amd64 all",
        "Components: main",
        "SHA256:",
    ]
    for one in (binary, native):
        (one / "Packages").write_bytes(text if one is native else b"")
        packed = gzip.compress((one / "Packages").read_bytes(), mtime=0)
        (one / "Packages.gz").write_bytes(packed)
        for name in ("Packages", "Packages.gz"):
            data = (one / name).read_bytes()
            release.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} main/{one.name}/{name}")
    (folder / "dists/stable/Release").write_text("\n".join([*release, ""]))
    return folder


def archive(repository: Path, place: Place, *, trusted: bool = True) -> apt.Archive:
    option = "[trusted=yes] " if trusted else ""
    return apt.Archive(place.work / f"apt-{trusted}", [f"deb {option}file:{repository} stable main"], place)


def test_packages_come_with_the_essential_ones_and_what_they_depend_on(repository: Path, place: Place) -> None:
    found = archive(repository, place).debs(["tool"])
    assert [one.name for one in found] == ["base_2.0-1_all.deb", "library_2.0-1_all.deb", "tool_2.0-1_all.deb"]
    deb = repository / "tool_2.0-1_all.deb"
    assert found[2].digest.hex == hashlib.sha256(deb.read_bytes()).hexdigest()
    assert found[2].size == deb.stat().st_size


def test_an_unknown_package_names_the_nearest(repository: Path, place: Place) -> None:
    with pytest.raises(RecipeError, match=r"no package 'toll' \(did you mean 'tool'\?\)"):
        archive(repository, place).debs(["toll"])


def test_a_package_that_cannot_be_installed_says_why(repository: Path, place: Place) -> None:
    with pytest.raises(RecipeError, match="nowhere"):
        archive(repository, place).debs(["broken"])


def test_an_archive_without_a_signature_is_refused(repository: Path, place: Place) -> None:
    with pytest.raises(NetworkError, match="not signed"):
        archive(repository, place, trusted=False)


def test_an_index_that_is_not_what_the_release_says_is_refused(repository: Path, place: Place) -> None:
    for name in ("Packages", "Packages.gz"):
        file = repository / "dists/stable/main/binary-amd64" / name
        file.write_bytes(file.read_bytes() + b"\n")
    with pytest.raises(NetworkError):
        archive(repository, place)


def test_a_source_package_that_is_not_there_says_what_is(repository: Path, place: Place) -> None:
    with pytest.raises(RecipeError, match=r"no source package tool 9\.9-1"):
        archive(repository, place).source("tool", "9.9-1")


def test_the_hosts_own_mirror_is_asked_for_updates_and_security_too() -> None:
    entries = apt.entries("deb", "bookworm", ["main"], mirror="", snapshot="")
    suites = {line.split()[-2] for line in entries}
    assert {"bookworm", "bookworm-updates", "bookworm-security"} <= suites


def test_a_snapshot_is_taken_from_the_snapshot_archive_or_a_mirror_that_has_it() -> None:
    when = "20250520T000000Z"
    official = apt.entries("deb", "bookworm", ["main", "contrib"], mirror="", snapshot=when)
    assert (
        official[0]
        == f"deb [check-valid-until=no] https://snapshot.debian.org/archive/debian/{when} bookworm main contrib"
    )
    assert any(f"debian-security/{when} bookworm-security" in line for line in official)
    mirror = apt.entries("deb-src", "bookworm", ["main"], mirror="https://m.example/{snapshot}/debian", snapshot=when)
    assert mirror == [f"deb-src [check-valid-until=no] https://m.example/{when}/debian bookworm main"]


def test_a_rolling_suite_has_no_updates() -> None:
    entries = apt.entries("deb", "sid", ["main"], mirror="", snapshot="20250520T000000Z")
    assert len(entries) == 1
