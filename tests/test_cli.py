"""The command line as its users see it: real processes, their output and exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = """
[package]
name = "busy"
version = "1"
summary = "One program"
license = "GPL-2.0-only"

[build]
builder = "debian"
suite = "bookworm"
packages = ["busybox-static"]

[run]
command = ["busybox"]
"""


def computeops(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "computeops", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_version() -> None:
    assert computeops("--version").stdout.startswith("computeops ")


def test_a_misspelt_verb_gets_a_suggestion() -> None:
    done = computeops("biuld")
    assert done.returncode == 2
    assert "did you mean 'build'?" in done.stderr


def test_a_recipe_with_problems_names_file_line_key_and_value(tmp_path: Path) -> None:
    (tmp_path / "computeops.toml").write_text(RECIPE.replace('suite = "bookworm"', "suite = 3\nsuit = 1"))
    done = computeops("lint", tmp_path)
    assert done.returncode == 3
    assert "computeops.toml:10" in done.stderr
    assert "computeops.toml:11" in done.stderr
    assert "did you mean 'suite'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_recipe_is_one_clear_error(tmp_path: Path) -> None:
    done = computeops("lint", tmp_path)
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert "computeops.toml" in done.stderr


def test_the_schema_is_json() -> None:
    assert "package" in json.dumps(json.loads(computeops("schema").stdout))


@pytest.mark.mmdebstrap
@pytest.mark.squashfs
def test_two_builds_in_different_folders_have_equal_digests(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two/deeper"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "computeops.toml").write_text(RECIPE)
        done = computeops("build", folder, "--out", folder / "out", "--json")
        assert done.returncode == 0, done.stderr
        digests.append(json.loads(done.stdout)["digests"])
    assert digests[0] == digests[1]
    assert set(digests[0]) == {"image", "manifest", "sif"}
