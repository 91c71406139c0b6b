"""The Python builder: a project and its dependencies from the package index, installed without network."""

import json
import re
import shutil
from pathlib import Path

import pytest

import building
from computeops import build
from computeops.build import python
from computeops.errors import MissingProgramError, RecipeError
from computeops.recipe import load

RECIPE = """
[package]
name = "shouting"
version = "0.1"
summary = "A project of Python with one dependency"
license = "MIT"

[build]
builder = "python"
file = "{file}"
suite = "bookworm"
"""
PROJECT = """
[build-system]
requires = ["flit-core"]
build-backend = "flit_core.buildapi"

[project]
name = "shouting"
version = "0.1"
description = "Shouts"
dependencies = ["six==1.17.0", "tomli; python_version < '3'"]
scripts = { shout = "shouting:main" }
"""
INDEX = "https://pypi.org/simple"


def recipe(folder: Path, file: str, text: str, more: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / file).write_text(text)
    (folder / "computeops.toml").write_text(RECIPE.format(file=file) + more)
    return folder


@pytest.mark.mmdebstrap
def test_a_project_is_locked_for_the_python_of_its_suite_and_equal_builds_are_equal(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert request.config.cache
    cache = Path(request.config.cache.mkdir("computeops-packages"))
    folder = recipe(tmp_path / "recipe", "pyproject.toml", PROJECT, '[[sources]]\npath = "shouting.py"\n')
    (folder / "shouting.py").write_text('import six\n\n\ndef main():\n    print("SIX", six.__version__)\n')
    try:
        lock = build.lock(folder, load(folder), mirror="", pypi=INDEX, cache=cache, tmp=tmp_path)
    except MissingProgramError as error:
        pytest.skip(error.message)
    wheels = [one.name.partition("-")[0] for one in lock.of_role("wheel")]
    assert wheels == ["flit_core", "pip", "six"]  # and no tomli: the marker was evaluated for this Python
    build.write_lock(folder, lock)
    first = building.look(building.run(folder, tmp_path / "one", cache, jobs=2))
    there = shutil.copytree(folder, tmp_path / "another place/recipe")
    second = building.look(building.run(there, tmp_path / "two", cache, jobs=1))
    assert {path: about for path, about in second.files.items() if first.files.get(path) != about} == {}
    assert second == first
    assert first.env["PATH"].startswith("/opt/venv/bin:")
    assert {"opt/venv/bin/shout", "opt/venv/lib/python3.11/site-packages/six.py"} <= set(first.files)
    left = [path for path in first.files if re.search(r"^opt/venv/.*(pip|flit_core)", path)]
    assert left == []  # neither the installer nor what only built the project
    assert [path for path in first.files if path.startswith("opt/venv/") and path.endswith("six.cpython-311.pyc")]


@pytest.mark.parametrize(
    ("text", "loose"),
    [
        ("six==1.17.0\nnumpy===2.0 ; python_version > '3'\n", ""),
        ("# all\nsix==1.17.0 \\\n  --hash=sha256:00\nthing @ https://x.org/t.whl#sha256=00  # here\n", ""),
        ("six\nnumpy>=2\nscipy==1.0\n", "names no version of six, numpy>=2: only the lock pins them"),
    ],
)
def test_lint_names_what_any_version_may_fill(tmp_path: Path, text: str, loose: str) -> None:
    folder = recipe(tmp_path / "a", "requirements.txt", text)
    notes = [one for one in python.lint(folder, load(folder)) if one.startswith("requirements.txt")]
    assert notes == ([f"requirements.txt {loose}"] if loose else [])


@pytest.mark.parametrize("line", ["-r other.txt", "--index-url http://evil.example", "-e .", "--find-links /etc"])
def test_options_of_pip_are_refused(tmp_path: Path, line: str) -> None:
    folder = recipe(tmp_path / "a", "requirements.txt", f"six\n{line}\n")
    with pytest.raises(RecipeError, match="only requirements can be locked"):
        build.lint(folder, load(folder))


def test_a_broken_pyproject_is_the_recipes_fault(tmp_path: Path) -> None:
    folder = recipe(tmp_path / "a", "pyproject.toml", "[project\n")
    with pytest.raises(RecipeError, match=r"pyproject\.toml: "):
        build.lint(folder, load(folder))


def test_what_there_is_decides_the_builder(tmp_path: Path) -> None:
    assert build.detect(recipe(tmp_path / "a", "requirements.txt", "six\n")) == ("python", "requirements.txt")
    (tmp_path / "a/Dockerfile").write_text("FROM scratch\n")
    assert build.detect(tmp_path / "a") == ("dockerfile", "Dockerfile")


def test_a_lock_with_wheels_is_read_as_it_was_written(tmp_path: Path) -> None:
    text = {
        "version": 1,
        "builder": "python",
        "inputs": "sha256:" + 64 * "0",
        "options": {"wheels": ["six-1.17.0-py2.py3-none-any.whl"]},
        "materials": [
            {
                "role": "wheel",
                "name": "six-1.17.0-py2.py3-none-any.whl",
                "uri": "https://example.org/six.whl",
                "digest": "sha256:" + 64 * "1",
                "size": 0,
            }
        ],
    }
    assert build.Lock.from_json(json.dumps(text).encode()).as_json() == text
