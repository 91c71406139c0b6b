"""The packages of a root filesystem: compared with dpkg-query and importlib.metadata where they can judge."""

import importlib.metadata
import itertools
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packageurl import PackageURL

from computeops.check import inventory
from computeops.check.inventory import Inventory, Package
from computeops.errors import FormatError, LimitError
from computeops.image.archive import TarFile
from computeops.image.tar import write_tar
from computeops.image.tree import Directory, Entry, Item, Kind, everywhere
from computeops.limits import LIMITS

BAD = Path(__file__).parent / "bad/check"

STATUS = """\
Package: python3-numpy
Status: install ok installed
Architecture: amd64
Source: numpy
Version: 1:1.24.2-1+deb12u1
Description: fast arrays
 a continuation: with a colon
Conffiles:
 /etc/x 0123

Package: libfoo
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libstdc++6
Status: hold ok half-configured
Architecture: i386
Multi-Arch: same
Source: gcc-12 (12.2.0-14)
Version: 12.2.0-14+b1
"""


def write(top: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    return top


def packages(top: Path, files: dict[str, str] | None = None) -> Inventory:
    return inventory.packages(Directory(write(top, files or {})))


def by_name(found: Inventory, kind: str) -> dict[str, Package]:
    return {one.name: one for one in found.packages if one.kind == kind}


DEBIAN = {"etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'}


def test_a_dpkg_status_names_what_is_unpacked_with_its_source(tmp_path: Path) -> None:
    found = packages(tmp_path, {"var/lib/dpkg/status": STATUS, **DEBIAN})
    assert (found.system.distro, found.system.title) == ("debian-12", "Debian GNU/Linux 12 (bookworm)")
    assert [(one.name, one.source, one.source_version) for one in found.packages] == [
        ("libstdc++6", "gcc-12", "12.2.0-14"),
        ("python3-numpy", "numpy", "1:1.24.2-1+deb12u1"),
    ]
    assert [one.purl for one in found.packages] == [
        "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bb1?arch=i386&distro=debian-12",
        "pkg:deb/debian/python3-numpy@1:1.24.2-1%2Bdeb12u1?arch=amd64&distro=debian-12",
    ]
    assert found.unread == ()


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="dpkg-query is not installed")
def test_this_machine_has_the_packages_that_dpkg_query_says(tmp_path: Path) -> None:
    database = tmp_path / "var/lib/dpkg"
    for folder in (database / "info", database / "updates"):
        folder.mkdir(parents=True)
    shutil.copy("/var/lib/dpkg/status", database)
    for file in Path("/usr/share/doc").glob("*/copyright"):
        target = tmp_path / file.relative_to("/")
        target.parent.mkdir(parents=True)
        shutil.copy(file, target)
    fields = "${Package} ${Version} ${Architecture} ${source:Package} ${source:Version} ${db:Status-Status}\n"
    argv = ["dpkg-query", f"--admindir={database}", "-W", "-f", fields]
    said = subprocess.run(argv, capture_output=True, check=True, text=True).stdout
    rows = [line.rpartition(" ") for line in said.splitlines()]
    expected = sorted(row for row, _, status in rows if status not in {"config-files", "not-installed"})
    found = inventory.packages(Directory(tmp_path)).packages
    assert sorted(f"{p.name} {p.version} {p.arch} {p.source} {p.source_version}" for p in found) == expected
    assert sum(1 for one in found if one.license) > len(found) // 2
    assert all(PackageURL.from_string(one.purl).to_string() == one.purl for one in found)


def test_this_environment_has_the_packages_that_importlib_says() -> None:
    folder = sysconfig.get_path("purelib")
    expected = sorted((one.metadata["Name"], one.version) for one in importlib.metadata.distributions(path=[folder]))
    found = [one for one in inventory.packages(Directory(Path(folder))).packages if one.place.count("/") == 1]
    assert sorted((one.name, one.version) for one in found) == expected
    assert all(PackageURL.from_string(one.purl).to_string() == one.purl for one in found)
    assert {one.name: one.license for one in found}["packageurl-python"] == "MIT"


def test_distroless_has_one_file_for_each_package(tmp_path: Path) -> None:
    site = "usr/lib/python3/dist-packages/six-1.16.0.dist-info/METADATA"
    found = packages(
        tmp_path,
        {
            "var/lib/dpkg/status.d/python3-six": "Package: python3-six\nVersion: 1.16.0-4\nArchitecture: all\n",
            "var/lib/dpkg/status.d/python3-six.md5sums": f"0123456789abcdef0123456789abcdef  {site}\n",
            site: "Name: six\nVersion: 1.16.0\n",
            **DEBIAN,
        },
    )
    (deb,) = by_name(found, "deb").values()
    assert deb.purl == "pkg:deb/debian/python3-six@1.16.0-4?arch=all&distro=debian-12"
    assert by_name(found, "pypi")["six"].owner == deb.purl


def test_a_python_package_is_known_to_belong_to_a_package_of_the_distribution(tmp_path: Path) -> None:
    mine = "usr/lib/python3/dist-packages/numpy-1.24.2.egg-info/PKG-INFO"
    other = "usr/local/lib/python3.11/dist-packages/NumPy-2.0.dist-info/METADATA"
    found = packages(
        tmp_path,
        {
            "var/lib/dpkg/status": STATUS,
            # Files are listed by the path of a system whose /lib was not yet a link.
            "var/lib/dpkg/info/python3-numpy.list": f"/.\n/{mine.removeprefix('usr/')}\n",
            mine: "Metadata-Version: 2.1\nName: numpy\nVersion: 1.24.2\nLicense: BSD-3-Clause\n\nA description\n",
            other: "Name: NumPy\nVersion: 2.0\nLicense-Expression: BSD-3-Clause AND MIT\nVersion: 9\n",
        },
    )
    (tmp_path / "lib").symlink_to("usr/lib")
    found = packages(tmp_path)
    owned = {one.place: one.owner for one in found.packages if one.kind == "pypi"}
    assert owned == {mine: by_name(found, "deb")["python3-numpy"].purl, other: ""}
    assert {one.purl for one in found.packages if one.kind == "pypi"} == {
        "pkg:pypi/numpy@1.24.2",
        "pkg:pypi/numpy@2.0",
    }
    assert by_name(found, "pypi")["NumPy"].license == "BSD-3-Clause AND MIT"


COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
License: Beerware

Files: *
Copyright: x
License: GPL-2+ or Artistic
 A text: here

Files: a
License: Expat

Files: b
License: GPL-2+ with OpenSSL exception

License: GPL-2+
 Text.
"""


def test_licences_come_from_the_files_of_a_machine_readable_copyright(tmp_path: Path) -> None:
    (tmp_path / "usr/share/doc").mkdir(parents=True)
    (tmp_path / "usr/share/doc/libstdc++6").symlink_to("python3-numpy")
    found = packages(tmp_path, {"var/lib/dpkg/status": STATUS, "usr/share/doc/python3-numpy/copyright": COPYRIGHT})
    said = "(GPL-2.0-or-later OR Artistic-1.0-Perl) AND LicenseRef-GPL-2.0-or-later-with-OpenSSL-exception AND MIT"
    assert [one.license for one in found.packages] == [said, said]


APK = """\
C:Q1abc=
P:py3-six
V:1.16.0-r9
A:noarch
o:py3-six-src
L:MIT
F:usr/lib/python3.12/site-packages/six-1.16.0-py3.12.egg-info
M:0:0:0755
R:PKG-INFO
a:0:0:644

P:busybox
V:1.36.1-r15
A:x86_64
L:GPL2 MIT
"""


@pytest.mark.parametrize("folder", ["lib/apk/db", "usr/lib/apk/db"])
def test_an_apk_database_names_packages_origins_and_files(tmp_path: Path, folder: str) -> None:
    found = packages(
        tmp_path,
        {
            f"{folder}/installed": APK,
            "etc/os-release": "ID=alpine\nVERSION_ID=3.20.1\n",
            "usr/lib/python3.12/site-packages/six-1.16.0-py3.12.egg-info/PKG-INFO": "Name: six\nVersion: 1.16.0\n",
        },
    )
    apks = by_name(found, "apk")
    assert apks["py3-six"].purl == "pkg:apk/alpine/py3-six@1.16.0-r9?arch=noarch&distro=alpine-3.20.1"
    assert (apks["py3-six"].source, apks["py3-six"].license) == ("py3-six-src", "MIT")
    assert apks["busybox"].license == "GPL-2.0-only AND MIT"
    assert by_name(found, "pypi")["six"].owner == apks["py3-six"].purl


def test_os_release_is_followed_and_a_missing_one_is_linux(tmp_path: Path) -> None:
    assert packages(tmp_path, {"var/lib/dpkg/status": STATUS}).system.distro == "linux"
    write(tmp_path, {"usr/lib/os-release": '# x\nID=\'debian\'\nVERSION_CODENAME=trixie\nPRETTY_NAME="a \\"b\\""\n'})
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").symlink_to("../usr/lib/os-release")
    system = packages(tmp_path).system
    assert (system.distro, system.title) == ("debian-trixie", 'a "b"')


def test_what_cannot_be_read_is_listed_and_an_empty_image_is_not_silent(tmp_path: Path) -> None:
    found = packages(
        tmp_path,
        {
            "opt/conda/conda-meta/zlib-1.3-h1.json": "{}",
            "opt/conda/conda-meta/openssl-3-h1.json": "[",
            "opt/app/node_modules/@x/y/package.json": '{"name": "a b", "version": "1"}',
            "usr/lib/R/library/stats/DESCRIPTION": "Package: stats\nBuilt: R 4.2.2\n",
            "opt/spack/zlib/.spack/spec.json": "{}",
            "opt/julia/environments/v1.10/Manifest.toml": "[",
            "usr/share/java/x-1.jar": "no archive",
            "usr/lib/ruby/specifications/rake-13.gemspec": "",
            "usr/lib/python3/dist-packages/broken.egg-info": "no name",
        },
    )
    assert found.packages == ()
    said = {one.kind: (one.place, one.why) for one in found.unread}
    assert said["conda"][1].startswith("/opt/conda/conda-meta/zlib-1.3-h1.json is the record of no package")
    assert said["gem"] == ("usr/lib/ruby/specifications/rake-13.gemspec", "packages of this kind are not read: 1")
    assert said.keys() == {"conda", "npm", "cran", "spack", "julia", "maven", "gem", "pypi", "system"}
    assert {"deb", "conda", "guix", "nix", "program"} <= set(found.looked_for)
    assert found.kinds["npm"] == 0


def test_traces_that_belong_to_a_package_of_the_distribution_are_no_gap(tmp_path: Path) -> None:
    gem, jar = "usr/lib/ruby/specifications/rake-13.gemspec", "usr/share/java/x.jar"
    owned = f"/{gem}\n/{jar}\n"
    files = {"var/lib/dpkg/status": STATUS, "var/lib/dpkg/info/libstdc++6:i386.list": owned, gem: "", jar: "broken"}
    assert packages(tmp_path, files).unread == ()


def test_links_cannot_hide_a_database(tmp_path: Path) -> None:
    write(tmp_path, {"a/secret": STATUS, "var/lib/dpkg/x": "", "lib/apk/db/x": ""})
    os.link(tmp_path / "a/secret", tmp_path / "var/lib/dpkg/status")
    (tmp_path / "lib/apk/db/installed").symlink_to("../../../a/secret")
    said = {(one.kind, one.place) for one in packages(tmp_path).unread}
    assert said >= {("deb", "var/lib/dpkg/status"), ("apk", "lib/apk/db/installed")}


def test_links_in_a_circle_or_out_of_the_image_lead_nowhere(tmp_path: Path) -> None:
    write(tmp_path, {"var/lib/dpkg/status": STATUS, "usr/share/doc/x/y": "", "etc/z": ""})
    (tmp_path / "usr/share/doc/python3-numpy").symlink_to("python3-numpy")
    (tmp_path / "usr/share/doc/libstdc++6").symlink_to("../../../../../../../../etc")
    (tmp_path / "etc/os-release").symlink_to("/etc/os-release")
    found = packages(tmp_path)
    assert [one.license for one in found.packages] == ["", ""]
    assert [one.place for one in found.unread] == ["etc/os-release"]


def test_names_that_are_no_text_can_still_be_shown(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    path = os.fsdecode(b"opt/\xff\x1b/six.dist-info/METADATA")
    items: list[tuple[Entry, Iterable[bytes]]] = [
        (Entry(path, Kind.FILE, size=27), [b"Name: six\nVersion: 1.16.0\n\n"])
    ]
    with archive.open("wb") as out:
        write_tar(items, out.write)
    (package,) = inventory.packages(TarFile(archive)).packages
    assert package.place.encode() == "opt/\ufffd\ufffd/six.dist-info/METADATA".encode()


class Claims:
    """A tree whose file says that it is too large, or that has too many records."""

    ordered = True

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = items

    def items(self, descend: object = everywhere) -> Iterator[Item]:
        yield from self._items


def test_size_and_number_are_bounded_before_anything_is_read() -> None:
    def data() -> Iterator[bytes]:
        raise AssertionError("read")
        yield b""

    size = LIMITS.package_database_bytes + 1
    with pytest.raises(LimitError, match="/var/lib/dpkg/status has"):
        inventory.packages(Claims([(Entry("var/lib/dpkg/status", Kind.FILE, size=size), data())]))
    many = itertools.repeat((Entry("a/x.egg", Kind.FILE), ()), LIMITS.package_records + 1)
    with pytest.raises(LimitError, match="files record packages"):
        inventory.packages(Claims(many))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dpkg-no-version", r"^/var/lib/dpkg/status, line 5: not a package: 'bad' ''"),
        ("dpkg-no-field", r"^/var/lib/dpkg/status, line 4: not a field: 'this is no field'"),
        ("dpkg-bad-source", r"^/var/lib/dpkg/status, line 1: not a source package: 'a b c'"),
        ("apk-no-version", r"^/lib/apk/db/installed, line 5: not a package: 'zlib' ''"),
        ("apk-no-field", r"^/lib/apk/db/installed, line 4: not a field: 'nonsense'"),
        ("rpm-view", "^/var/lib/rpm/rpmdb.sqlite has no table of packages"),
        ("rpm-endless", "^/var/lib/rpm/rpmdb.sqlite"),
        ("rpm-number", "^/var/lib/rpm/rpmdb.sqlite has a package that is no header"),
        ("ndb-overlap", r"^/var/lib/rpm/Packages.db, byte \d+: two packages overlap"),
        ("bdb-shared-chain", r"^/var/lib/rpm/Packages, page \d+: it continues no value"),
    ],
)
def test_a_broken_database_is_named_with_the_place_in_it(name: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        inventory.packages(Directory(BAD / name))


def test_every_stored_broken_database_is_tested() -> None:
    tested = set(re.findall(r'^        \("([a-z-]+)", r?"\^', Path(__file__).read_text(), re.MULTILINE))
    assert tested == {path.name for path in BAD.iterdir()}
