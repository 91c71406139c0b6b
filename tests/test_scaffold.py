"""A recipe around a build file of somebody else, as such files are: stages, marks, line ends, links, half of it missing."""

import tomllib
from pathlib import Path

import pytest

from computeops import build
from computeops.build import scaffold
from computeops.limits import LIMITS
from computeops.recipe import load


def around(file: Path, into: Path) -> Path:
    """Write the recipe around `file` as `computeops new` does, and return its folder."""
    scaffold.write(into, scaffold.files("tool", scaffold.builder_of(file), file))
    return into


def paths(folder: Path) -> list[str]:
    return [one["path"] for one in tomllib.loads((folder / "computeops.toml").read_text()).get("sources", [])]


DOCKERFILE = (
    "\ufeff# syntax=docker/dockerfile:1\r\n"
    "FROM golang:1.21 AS build\r\n"
    "COPY go.mod \\\r\n"
    "  # a comment between\r\n"
    "  ./main.go ./\r\n"
    'COPY --chown=1:1 ["my data", "/data/"]\r\n'
    "ADD https://example.org/y.tar git@example.org:x.git /y/\r\n"
    "COPY ../secret /s\r\n"
    "RUN go get ./... && \\\r\n"
    "    go build -o /tool\r\n"
    "FROM debian:12\r\n"
    "COPY --from=build /tool /usr/bin/tool\r\n"
    "COPY texts/*.txt missing.txt /d/\r\n"
    "COPY . /all\r\n"
    "COPY link linked/a.txt /l/\r\n"
    "COPY <<END /here\r\n"
    "COPY nothing of this\r\n"
    "END\r\n"
)


def test_what_a_dockerfile_copies_comes_with_it_and_the_rest_is_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("go.mod", "main.go", "my data/a b", "texts/1.txt", "texts/2.txt", "unused", "real/a.txt"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    (home / "link").symlink_to("/etc/passwd")
    (home / "my data/etc").symlink_to("/etc")
    (home / "linked").symlink_to("real")
    (tmp_path / "secret").write_text("x")
    (home / "Dockerfile").write_bytes(DOCKERFILE.encode())
    folder = around(home / "Dockerfile", tmp_path / "tool")
    assert paths(folder) == ["go.mod", "main.go", "my data", "texts/1.txt", "texts/2.txt"]
    written = sorted(str(one.relative_to(folder)) for one in folder.rglob("*") if one.is_file())
    assert written == [
        *("Dockerfile", "computeops.toml", "go.mod", "main.go", "my data/a b", "texts/1.txt", "texts/2.txt"),
    ]
    assert (folder / "Dockerfile").read_bytes() == DOCKERFILE[1:].replace("\r\n", "\n").encode()
    told = (folder / "computeops.toml").read_text()
    for missing in ("../secret", "missing.txt", ".", "link", "linked/a.txt"):
        assert f'# path = "{missing}"' in told
    assert "nothing of" not in told
    notes = build.lint(folder, load(folder))
    assert any("build.network is true" in one for one in notes)  # it fetches


def test_what_is_too_much_to_copy_is_only_named(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    with (tmp_path / "big/file").open("wb") as file:
        file.truncate(LIMITS.taken_bytes + 1)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY big/ /big\n")
    folder = around(tmp_path / "Dockerfile", tmp_path / "tool")
    assert paths(folder) == []
    assert '# path = "big"' in (folder / "computeops.toml").read_text()


def test_files_of_a_definition_come_with_it_but_not_those_from_another_stage(tmp_path: Path) -> None:
    text = (
        "BootStrap: docker\r\nFrom: debian:12\r\nStage: one\r\n\r\n"
        '%files\r\n    # here\r\n    a.txt /a.txt\r\n    "b c.txt" /b\r\n    /etc/shadow /shadow\r\n'
        "%post\r\n    echo x\r\n\r\n"
        "Bootstrap: docker\r\nFrom: debian:12\r\n%files from one\r\n    /root/tool /tool\r\n"
    )
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b c.txt").write_text("b")
    (tmp_path / "tool.def").write_bytes(text.encode())
    folder = around(tmp_path / "tool.def", tmp_path / "tool")
    assert paths(folder) == ["a.txt", "b c.txt"]
    assert '# path = "etc/shadow"' in (folder / "computeops.toml").read_text()
    assert b"\r" not in (folder / "tool.def").read_bytes()
    assert not any("network" in one for one in build.lint(folder, load(folder)))


@pytest.mark.parametrize(
    ("file", "data", "builder"),
    [
        ("Singularity", "Bootstrap: scratch\n%labels\n Author José\n".encode("latin-1"), "apptainer"),
        ("x.def", "Bootstrap: docker\nFrom: debian:12\n".encode("utf-16"), "apptainer"),
        ("environment.yml", b"\xef\xbb\xbfname: x\r\nchannels: [conda-forge]\r\ndependencies:\r\n  - a=1\r\n", "conda"),
        ("spack.yaml", b"# mine\r\nspack:\r\n  specs:\r\n  - a@1\r\n", "spack"),
        ("my.scm", b"(use-modules (gnu))\n(concatenate-manifests (list))\n", "guix"),
        ("install", b"#!/bin/sh\ncat <<EOF\nFROM x\nEOF\n", "debian"),
        ("query.sh", b"echo 'SELECT *\n FROM x'\r\n", "debian"),
    ],
)
def test_a_build_file_is_known_by_what_is_in_it(tmp_path: Path, file: str, data: bytes, builder: str) -> None:
    (tmp_path / file).write_bytes(data)
    folder = around(tmp_path / file, tmp_path / "tool")
    recipe = load(folder)
    assert recipe.build.builder == builder
    build.lint(folder, recipe)
    if file == "Singularity":
        assert "José" in (folder / recipe.build.file).read_text()


def test_the_channels_of_a_manifest_come_with_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.scm").write_text('(specifications->manifest (list "bash"))\n')
    (tmp_path / "channels.scm").write_bytes(b"(list)\r\n")
    folder = around(tmp_path / "manifest.scm", tmp_path / "tool")
    assert (folder / "channels.scm").read_bytes() == b"(list)\n"
