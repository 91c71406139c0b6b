"""The archive of examples, without building it: `script/archive` builds, tests and rebuilds them all."""

import re
from pathlib import Path

import pytest

from computeops import build
from computeops.recipe import Recipe, load
from computeops.spdx import license_fault

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(one.parent for one in (ROOT / "examples").glob("**/computeops.toml"))
TABLE = ROOT / "docs/reference/archive.md"


@pytest.fixture(scope="module")
def recipes() -> dict[str, Recipe]:
    return {one.name: load(one) for one in FOLDERS}


def test_there_are_twenty_and_more_of_many_domains(recipes: dict[str, Recipe]) -> None:
    assert len(recipes) == len(FOLDERS) >= 20
    assert len({domain for one in recipes.values() for domain in one.package.domains}) >= 8


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_says_what_it_is_and_computes_something(folder: Path) -> None:
    recipe = load(folder)
    package = recipe.package
    assert package.name == folder.name
    assert package.domains
    assert package.homepage
    assert package.summary.strip(".") == package.summary
    assert not license_fault(package.license)
    assert recipe.run.command
    assert all("no [[tests]]" not in note for note in build.lint(folder, recipe))
    # at least one test gives the program data and names a number that must come out
    assert any(re.search(r"[0-9]|is right", test.expect) for test in recipe.tests)
    assert any(len(test.run) > 60 for test in recipe.tests)


def test_the_table_of_the_archive_names_every_example(recipes: dict[str, Recipe]) -> None:
    told = TABLE.read_text()
    assert [name for name in recipes if not re.search(rf"^\| {re.escape(name)} \|", told, re.MULTILINE)] == []
