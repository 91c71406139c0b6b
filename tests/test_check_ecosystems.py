"""Packages of languages and of package managers without a distribution, in records made by the tools themselves."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from packageurl import PackageURL

from computeops.check import inventory
from computeops.check.inventory import Inventory, Unread, golang
from computeops.image.tree import Directory
from elf import elf

STORED = Path(__file__).parent / "packages"
HASH = "0123456789abcdfghijklmnpqrsvwxyz"


def made(top: Path, files: Mapping[str, bytes | str | Path]) -> Inventory:
    for path, data in files.items():
        content = data.read_bytes() if isinstance(data, Path) else data.encode() if isinstance(data, str) else data
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(content)
        (top / path).chmod(0o755)
    found = inventory.packages(Directory(top))
    assert all(PackageURL.from_string(one.purl).to_string() == one.purl for one in found.packages)
    return found


def purls(found: Inventory) -> list[str]:
    return [one.purl for one in found.packages]


def faults(found: Inventory) -> dict[str, str]:
    return {one.place: one.why for one in found.unread if one.kind != "system"}


def test_npm_names_scopes_and_licences(tmp_path: Path) -> None:
    found = made(
        tmp_path,
        {
            "opt/app/node_modules/ms/package.json": STORED / "npm/ms.json",
            "opt/app/node_modules/ms/dist/package.json": '{"type": "module"}',
            "opt/app/node_modules/x/node_modules/@babel/code-frame/package.json": STORED / "npm/code-frame.json",
            "opt/app/node_modules/@a/b/package.json": '{"name": "@a/b", "version": "1", "licenses": [{"type": "ISC"}]}',
            "opt/app/package.json": '{"name": "app", "version": "1"}',
        },
    )
    said = [(one.name, one.version, one.license, one.purl) for one in found.packages]
    assert said == [
        ("@a/b", "1", "ISC", "pkg:npm/%40a/b@1"),
        ("@babel/code-frame", "7.29.7", "MIT", "pkg:npm/%40babel/code-frame@7.29.7"),
        ("ms", "2.1.3", "MIT", "pkg:npm/ms@2.1.3"),
    ]
    assert faults(found) == {}


def test_what_the_distribution_installed_is_its_own(tmp_path: Path) -> None:
    files = {
        "usr/share/nodejs/ms/package.json": STORED / "npm/ms.json",
        "usr/lib/R/library/stats/DESCRIPTION": STORED / "r/stats",
        "usr/bin/hello": STORED / "go/hello",
        "usr/share/java/slf4j-nop.jar": STORED / "java/slf4j-nop.jar",
    }
    status = "Package: all\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"
    listed = "\n".join(f"/{path.removeprefix('usr/') if 'bin/' in path else path}" for path in files)
    (tmp_path / "usr").mkdir()
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/share").mkdir()
    found = made(tmp_path, {**files, "var/lib/dpkg/status": status, "var/lib/dpkg/info/all.list": listed})
    (deb,) = (one.purl for one in found.packages if one.kind == "deb")
    assert {one.kind for one in found.packages if one.owner == deb} == {"npm", "cran", "golang", "maven"}
    assert all(one.owner == deb for one in found.packages if one.kind != "deb")
    assert found.unread == ()  # that its program has no version is the distribution's affair


def test_r_says_where_a_package_is_from(tmp_path: Path) -> None:
    found = made(
        tmp_path,
        {
            "usr/lib/R/library/stats/DESCRIPTION": STORED / "r/stats",
            "opt/lib/glue/DESCRIPTION": STORED / "r/glue",
            "opt/lib/DESeq2/DESCRIPTION": "Package: DESeq2\nVersion: 1.42.0\nbiocViews: RNASeq\nLicense: LGPL (>= 3)\n"
            "Built: R 4.3.2; x86_64-pc-linux-gnu; 2024-01-01; unix\n",
            "src/mine/DESCRIPTION": "Package: mine\nVersion: 0.1\n",
        },
    )
    assert purls(found) == ["pkg:bioconductor/DESeq2@1.42.0", "pkg:cran/glue@1.6.2", "pkg:cran/stats@4.2.2"]
    assert [one.license for one in found.packages] == ["LGPL-3.0-or-later", "MIT", "LicenseRef-Part-of-R-4.2.2"]


PROJECT = 'name = "Zlib_jll"\nuuid = "83775a58-1f1d-513f-b197-d71354ab007a"\nversion = "1.2.13+1"\n'
MANIFEST = """\
julia_version = "1.10.0"
manifest_format = "2.0"

[[deps.Dates]]
uuid = "ade2ca70-3891-5945-98fb-dc099432e06a"

[[deps.HDF5_jll]]
uuid = "0234f1f7-429e-5d53-9886-15a909be8d59"
version = "1.14.3+3"

[[deps.Zlib_jll]]
uuid = "83775a58-1f1d-513f-b197-d71354ab007a"
version = "1.2.13+1"
"""


def test_julia_has_a_depot_and_manifests(tmp_path: Path) -> None:
    found = made(
        tmp_path,
        {
            "opt/julia/packages/Zlib_jll/AbCd1/Project.toml": PROJECT,
            "opt/julia/packages/Zlib_jll/AbCd1/test/Manifest.toml": "this is no TOML, and nobody installs it",
            "opt/julia/environments/v1.10/Manifest.toml": MANIFEST,
            "srv/old/Manifest.toml": '[[JSON]]\nuuid = "682c06a0-de6a-54ab-a142-c8b1cf79cde6"\nversion = "0.21.4"\n',
            "srv/app/Project.toml": 'name = "App"\n',
        },
    )
    assert [(one.name, one.version, one.place.split("/")[0]) for one in found.packages] == [
        ("HDF5_jll", "1.14.3+3", "opt"),
        ("JSON", "0.21.4", "srv"),
        ("Zlib_jll", "1.2.13+1", "opt"),
    ]
    assert purls(found)[2] == "pkg:julia/Zlib_jll@1.2.13%2B1?uuid=83775a58-1f1d-513f-b197-d71354ab007a"


def test_conda_says_channel_and_build_and_what_it_holds(tmp_path: Path) -> None:
    six = {
        "name": "six",
        "version": "1.16.0",
        "build": "pyh6c4a22f_0",
        "subdir": "noarch",
        "channel": "https://conda.anaconda.org/conda-forge/noarch",
        "license": "MIT",
        "files": ["lib/python3.11/site-packages/six-1.16.0.dist-info/METADATA", "lib/x", 7],
        "fn": "six-1.16.0-pyh6c4a22f_0.conda",
        "url": "https://conda.anaconda.org/conda-forge/noarch/six-1.16.0-pyh6c4a22f_0.conda",
    }
    metadata = "opt/env/lib/python3.11/site-packages/six-1.16.0.dist-info/METADATA"
    found = made(
        tmp_path,
        {
            "opt/env/conda-meta/six-1.16.0-pyh6c4a22f_0.json": json.dumps(six),
            "opt/env/conda-meta/_tool-1.0-0.json": STORED / "conda/_tool-1.0-0.json",
            "opt/env/conda-meta/history": "",
            metadata: "Name: six\nVersion: 1.16.0\n\nText\n",
        },
    )
    qualifiers = "build=pyh6c4a22f_0&channel=conda-forge&subdir=noarch&type=conda"
    assert purls(found) == [
        "pkg:conda/_tool@1.0?build=0&subdir=linux-64",
        f"pkg:conda/six@1.16.0?{qualifiers}",
        "pkg:pypi/six@1.16.0",
    ]
    # PyPI's advisories are about the package inside; the distribution of conda publishes none.
    holds = ("pkg:pypi/six@1.16.0",)
    assert [(one.owner, one.holds) for one in found.packages] == [("", ()), ("", holds), ("", ())]


def test_spack_has_records_and_a_database(tmp_path: Path) -> None:
    arch = {"platform": "linux", "platform_os": "debian12", "target": {"name": "zen2"}}
    zlib_spec = {"name": "zlib-ng", "version": "2.1.6", "arch": arch, "hash": "abc"}
    installs = {
        "abc": {"spec": zlib_spec, "installed": True},
        "def": {"spec": {"name": "hdf5", "version": "1.14.3", "hash": "def"}, "installed": True},
        "gone": {"spec": {"name": "cmake", "version": "3", "hash": "gone"}, "installed": False},
        "host": {"spec": {"name": "glibc", "version": "2.36", "hash": "host", "external": {"path": "/usr"}}},
    }
    found = made(
        tmp_path,
        {
            "opt/spack/linux/zlib-ng/.spack/spec.json": json.dumps(
                {"spec": {"_meta": {"version": 4}, "nodes": [zlib_spec, {"name": "gcc", "version": "12"}]}}
            ),
            "opt/old/xz/.spack/spec.json": json.dumps({"spec": [{"xz": {"version": "5.4.1"}}, {"gcc": {}}]}),
            "opt/spack/.spack-db/index.json": json.dumps({"database": {"version": "8", "installs": installs}}),
            "opt/spack/linux/bad/.spack/spec.json": json.dumps({"spec": {"nodes": [{"name": "../x", "version": "1"}]}}),
        },
    )
    assert purls(found) == [
        "pkg:spack/hdf5@1.14.3?hash=def",
        "pkg:spack/xz@5.4.1",
        "pkg:spack/zlib-ng@2.1.6?arch=linux-debian12-zen2&hash=abc",
    ]
    assert list(faults(found)) == ["opt/spack/linux/bad/.spack/spec.json"]


def test_stores_of_guix_and_nix_are_read_by_name(tmp_path: Path) -> None:
    profile = f"""(manifest (version 4) (packages (("font-3d-go" "2.010" "out"
      "/gnu/store/{HASH}-font-3d-go-2.010" (propagated-inputs ()) (search-paths ())))))"""
    folders = ["hello-2.12.1", "gcc-toolchain-13.2.0-static", "font-3d-go-2.010", "r-minimal-4.3.1", "profile", "x.drv"]
    for name in folders:
        (tmp_path / f"gnu/store/{HASH}-{name}/bin").mkdir(parents=True)
    (tmp_path / f"nix/store/{HASH}-python3-3.11.6/bin").mkdir(parents=True)
    (tmp_path / "nix/store/short-python3-3.11.6").mkdir()
    found = made(tmp_path, {f"gnu/store/{HASH}-profile/manifest": profile})
    assert [(one.kind, one.name, one.version) for one in found.packages] == [
        ("guix", "font-3d-go", "2.010"),
        ("guix", "gcc-toolchain", "13.2.0"),
        ("guix", "hello", "2.12.1"),
        ("guix", "r-minimal", "4.3.1"),
        ("nix", "python3", "3.11.6"),
    ]
    assert purls(found)[1] == f"pkg:guix/gcc-toolchain@13.2.0?hash={HASH}&output=static"
    assert found.unread == ()


def test_go_names_its_modules_and_its_standard_library(tmp_path: Path) -> None:
    found = made(tmp_path, {"usr/local/bin/hello": STORED / "go/hello"})
    assert purls(found) == [
        "pkg:golang/golang.org/x/text@v0.0.0-20170915032832-14c0d48ead0c",
        "pkg:golang/rsc.io/quote@v1.5.2",
        "pkg:golang/rsc.io/sampler@v1.3.0",
        "pkg:golang/stdlib@1.26.8",
    ]
    assert faults(found) == {"usr/local/bin/hello": "a module without a version: 'example.org/hello'"}
    itself = golang.packages(b"go1.26.8\npath\tcmd/go\nbuild\t-compiler=gc\n", "usr/local/go/bin/go")
    assert [one.package.name for one in itself if not isinstance(one, Unread)] == ["stdlib", "toolchain"]


_FRAME = b"0" * 16
_MODULES = b"path\tx\nmod\texample.org/x\tv1.0.0\nbuild\tvcs=git\ndep\ta.b/c\tv1\n=>\td.e/f\tv2.0.0+incompatible\n"


@pytest.mark.parametrize("big", [False, True])
def test_go_before_1_18_has_pointers(tmp_path: Path, *, big: bool) -> None:
    """A layout that no Go that is still to be had writes: pointers to strings, in a program without sections."""
    order, base = (">" if big else "<"), 0x400000
    version, modules = b"go1.17.3", _FRAME + _MODULES + _FRAME
    head = b"\xff Go buildinf:" + bytes([8, 1 if big else 0])
    texts = base + 0x100
    data = head + struct.pack(f"{order}QQ", base + 0x40, base + 0x50)
    data = data.ljust(0x40, b"\0") + struct.pack(f"{order}QQQQ", texts, len(version), texts + 64, len(modules))
    data = data.ljust(0x100, b"\0") + version.ljust(64, b"\0") + modules
    found = made(tmp_path, {"usr/bin/old": elf(None, {base: data}, big=big)})
    assert purls(found) == [
        "pkg:golang/d.e/f@v2.0.0%2Bincompatible",
        "pkg:golang/example.org/x@v1.0.0",
        "pkg:golang/stdlib@1.17.3",
    ]


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("go1.21rc2", "1.21.0-rc.2"),
        ("go1.22.1", "1.22.1"),
        ("go1.22.1 X:boringcrypto", "1.22.1"),
        ("go1.18beta1", "1.18.0-beta.1"),
        ("go1.24.4-asan", "1.24.4"),
        ("devel +abc", ""),
    ],
)
def test_versions_of_go_are_written_as_advisories_write_them(said: str, version: str) -> None:
    assert golang.toolchain(said) == version


def crates(*packages: Mapping[str, object]) -> bytes:
    return zlib.compress(json.dumps({"packages": packages}).encode())


def test_rust_names_its_crates(tmp_path: Path) -> None:
    section = crates(
        {"name": "tool", "version": "0.1.0", "source": "local", "root": True},
        {"name": "serde", "version": "1.0.200", "source": "crates.io"},
        {"name": "fork", "version": "0.2.0+git", "source": "git"},
        {"name": "cc", "version": "1.0.0", "source": "crates.io", "kind": "build"},
    )
    found = made(tmp_path, {"usr/lib/x.so": elf({".dep-v0": section}), "opt/hello": STORED / "rust/hello"})
    assert [one for one in purls(found) if "hello" not in one and "itoa" not in one] == [
        "pkg:cargo/fork@0.2.0%2Bgit?source=git",
        "pkg:cargo/serde@1.0.200",
        "pkg:cargo/tool@0.1.0",
    ]
    assert {one.name for one in found.packages if one.place == "opt/hello"} == {"hello", "itoa"}


@pytest.mark.parametrize(
    ("section", "data", "why"),
    [
        (".dep-v0", zlib.compress(bytes(64 * 1024 * 1024)), "unpacks to more than"),
        (".dep-v0", b"nonsense", "cannot be decompressed"),
        (".dep-v0", zlib.compress(b"[]"), "holds no JSON object"),
        (".dep-v0", zlib.compress(b"[" * 100_000), "is not JSON"),
        (".dep-v0", crates({"name": "../x", "version": "1"}), "the record of no package"),
        (".go.buildinfo", b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16) + b"\xff" * 12, "is cut short"),
        (
            ".go.buildinfo",
            b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16) + b"\4go.1\xff\xff\xff\xff\x7f",
            "of modules",
        ),
        (".go.buildinfo", b"\xff Go buildinf:" + bytes([3, 0]) + bytes(64), "pointers of 3 bytes"),
        (".go.buildinfo", b"something else", "no build information"),
    ],
)
def test_broken_programs_are_named(tmp_path: Path, section: str, data: bytes, why: str) -> None:
    found = made(tmp_path, {"usr/bin/x": elf({section: data})})
    assert found.packages == ()
    assert why in faults(found)["usr/bin/x"]


def test_a_program_whose_tables_lie_is_no_record(tmp_path: Path) -> None:
    good = bytearray(elf({".text": b"x"}, {0x1000: b"y" * 100}))
    for at, size in ((40, 8), (32, 8), (60, 2), (62, 2), (56, 2)):  # places and counts of the tables
        bad = bytearray(good)
        bad[at : at + size] = b"\xff" * size
        (tmp_path / f"p{at}").write_bytes(bad)
        (tmp_path / f"p{at}").chmod(0o755)
    (tmp_path / "cut").write_bytes(b"\x7fELF\2\1\1".ljust(2000, b"\0"))
    (tmp_path / "cut").chmod(0o755)
    assert inventory.packages(Directory(tmp_path)).packages == ()


def jar(files: Mapping[str, bytes | str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_java_archives_say_who_they_are_and_what_is_in_them(tmp_path: Path) -> None:
    inner = jar({"BOOT-INF/lib/slf4j-nop.jar": (STORED / "java/slf4j-nop.jar").read_bytes()})
    found = made(
        tmp_path,
        {
            "opt/a/slf4j-nop.jar": STORED / "java/slf4j-nop.jar",
            "opt/b/atinject-jsr330-api-1.0.jar": STORED / "java/atinject-jsr330-api-1.0.jar",
            "opt/c/app.war": b"#!/bin/sh\nexec java -jar $0\n" + inner,
            "opt/d/plain.jar": jar({"META-INF/MANIFEST.MF": "Implementation-Version: 2.5\r\nBundle-Name: x\r\n y\r\n"}),
            "opt/e/nothing.jar": jar({"a.class": b""}),
        },
    )
    assert purls(found) == [
        "pkg:maven/javax.inject/atinject-jsr330-api@1.0",
        "pkg:maven/org.slf4j/slf4j-nop@1.7.32",
        "pkg:maven/org.slf4j/slf4j-nop@1.7.32",
        "pkg:maven/plain@2.5",
    ]
    assert {one.name for one in found.packages} >= {"org.slf4j:slf4j-nop", "plain"}
    assert faults(found) == {"opt/e/nothing.jar": "nothing.jar does not say which package it is"}


def nested(depth: int) -> bytes:
    data = jar({"META-INF/maven/g/a/pom.properties": "groupId=g\nartifactId=a\nversion=1\n"})
    for _ in range(depth):
        data = jar({"x.jar": data})
    return data


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (nested(9), "archives in archives are read 3 deep"),
        (jar({"META-INF/MANIFEST.MF": bytes(8 * 1024 * 1024)}), "at most 262144 are read"),
        (jar({"a.jar": b"no archive"}), "is no zip archive"),
        (b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 0, 0, 0xFFFFFFFF, 0, 0), "a table of contents of 4294967295"),
        (b"x" * 50 + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, 46, 4, 0), "is broken at byte 0 of 46"),
        (
            jar({"META-INF/MANIFEST.MF": b"a" * 99}).replace(struct.pack("<I", 99), struct.pack("<I", 98)),
            "does not have",
        ),
    ],
)
def test_archives_that_bomb_or_lie_are_named(tmp_path: Path, data: bytes, why: str) -> None:
    found = made(tmp_path, {"opt/x.jar": data})
    assert found.packages == ()
    assert any(why in one.why for one in found.unread), found.unread


def test_hostile_names_never_reach_a_document(tmp_path: Path) -> None:
    names = ["../../etc/passwd", "a\u202eb", "x" * 300, "a\nb", "", "<script>", "$(id)"]
    found = made(
        tmp_path,
        {
            f"opt/node_modules/n{number}/package.json": json.dumps({"name": name, "version": "1"})
            for number, name in enumerate(names)
        }
        | {"opt/node_modules/v/package.json": json.dumps({"name": "v", "version": "1\u00a0\x1b[31m"})},
    )
    assert found.packages == ()
    assert len(found.unread) == len(names) + 2  # the version, and that there is no distribution
    assert all(one.why.isprintable() for one in found.unread)


def test_of_many_faults_of_a_kind_the_first_are_named(tmp_path: Path) -> None:
    found = made(tmp_path, {f"opt/node_modules/n{number}/package.json": "{" for number in range(60)})
    assert len([one for one in found.unread if one.kind == "npm"]) == 51
    assert any(one.why == "10 more of this kind could not be read" for one in found.unread)
