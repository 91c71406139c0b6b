"""rpm's databases in their three formats: the same packages as `rpm -qa` says, and no answer but ours to broken ones."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from computeops.check import inventory
from computeops.check.inventory import Inventory, Package
from computeops.errors import FormatError
from computeops.image.tree import Directory

STORED = Path(__file__).parent / "packages/rpm"
FORMATS = ["rpmdb.sqlite", "Packages.db", "Packages"]


def root(top: Path, name: str, data: bytes | None = None, folder: str = "var/lib/rpm") -> Inventory:
    (top / folder).mkdir(parents=True, exist_ok=True)
    (top / folder / name).write_bytes((STORED / name).read_bytes() if data is None else data)
    (top / "etc").mkdir(exist_ok=True)
    (top / "etc/os-release").write_text("ID=Rocky\nVERSION_ID=9.4\n")
    return inventory.packages(Directory(top))


def as_rpm_says(package: Package) -> str:
    """The line of rpm-qa.txt; licences are compared elsewhere."""
    epoch, _, version = package.version.rpartition(":")
    name, _, release = version.rpartition("-")
    return "|".join([package.name, epoch or "0", name, release, package.arch])


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_has_the_packages_that_rpm_says(tmp_path: Path, name: str) -> None:
    found = root(tmp_path, name)
    said = (STORED / "rpm-qa.txt").read_text().splitlines()
    assert sorted(map(as_rpm_says, found.packages)) == sorted("|".join(line.split("|")[:5]) for line in said)
    assert found.unread == ()
    assert [(one.source, one.source_version, one.license) for one in found.packages] == [
        ("htslib", "2:1.21-3.el9", "MIT AND BSD-3-Clause"),
        ("htslib", "2:1.21-3.el9", "GPL-2.0-or-later AND MIT"),
        ("python3-cutadapt", "4.9^20240101-1~rc1", "LicenseRef-Public-Domain"),
    ]
    assert [one.purl for one in found.packages] == [
        "pkg:rpm/rocky/htslib@1.21-3.el9?arch=x86_64&distro=rocky-9.4&epoch=2",
        "pkg:rpm/rocky/htslib-tools@1.21-3.el9?arch=x86_64&distro=rocky-9.4&epoch=2",
        "pkg:rpm/rocky/python3-cutadapt@4.9%5E20240101-1~rc1?arch=noarch&distro=rocky-9.4",
    ]


def rpm(*argv: str) -> str:
    return subprocess.run(["rpm", *argv], capture_output=True, check=True, text=True).stdout


@pytest.mark.rpm
@pytest.mark.parametrize(("name", "backend"), [("rpmdb.sqlite", "sqlite"), ("Packages", "bdb_ro")])
def test_rpm_itself_reads_the_stored_databases(tmp_path: Path, name: str, backend: str) -> None:
    shutil.copy(STORED / name, tmp_path)
    fields = "%{name}|%{epochnum}|%{version}|%{release}|%{arch}|%{sourcerpm}|%{license}\n"
    said = rpm("--define", f"_db_backend {backend}", "--dbpath", str(tmp_path), "-qa", "--qf", fields)
    assert sorted(line for line in said.splitlines() if "gpg-pubkey" not in line) == sorted(
        (STORED / "rpm-qa.txt").read_text().splitlines()
    )


def test_a_python_package_belongs_to_its_rpm(tmp_path: Path) -> None:
    place = "usr/lib/python3.9/site-packages/cutadapt-4.9.dist-info/METADATA"
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("Name: cutadapt\nVersion: 4.9\n")
    found = {one.kind: one for one in root(tmp_path, "Packages").packages}
    assert found["pypi"].owner == found["rpm"].purl


def test_a_linked_folder_is_the_same_database_once(tmp_path: Path) -> None:
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/rpm").symlink_to("../../usr/lib/sysimage/rpm")
    found = root(tmp_path, "rpmdb.sqlite", folder="usr/lib/sysimage/rpm")
    assert len(found.packages) == 3
    assert found.unread == ()


def test_only_the_newest_of_two_databases_counts_and_the_other_is_named(tmp_path: Path) -> None:
    (tmp_path / "var/lib/rpm").mkdir(parents=True)
    (tmp_path / "var/lib/rpm/Packages").write_bytes(b"left behind")
    found = root(tmp_path, "rpmdb.sqlite")
    assert len(found.packages) == 3
    assert [one.place for one in found.unread] == ["var/lib/rpm/Packages"]


def test_what_is_only_in_the_write_ahead_log_is_read(tmp_path: Path) -> None:
    """A container that was stopped in the middle of dnf has its last packages there."""
    import sqlite3

    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(STORED / "rpmdb.sqlite", work)
    database = sqlite3.connect(work / "rpmdb.sqlite")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("DELETE FROM Packages WHERE hnum = 3")
    database.commit()
    log = (work / "rpmdb.sqlite-wal").read_bytes()
    before = (work / "rpmdb.sqlite").read_bytes()
    database.close()
    root(tmp_path / "image", "rpmdb.sqlite-wal", log)
    assert len(root(tmp_path / "image", "rpmdb.sqlite", before).packages) == 2


@pytest.mark.parametrize("name", FORMATS)
def test_cut_and_changed_databases_raise_nothing_but_a_format_error(tmp_path: Path, name: str) -> None:
    whole, chance = (STORED / name).read_bytes(), random.Random(name)
    faults: list[str] = []
    for attempt in range(60):
        data = bytearray(whole)
        if attempt % 3 == 0:
            data = data[: chance.randrange(1, len(data))]
        for _ in range(attempt % 3 * 20):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            root(tmp_path, name, bytes(data))
        except FormatError as error:
            faults.append(error.message)
    assert len(faults) > 20
    assert all(name in one for one in faults)
