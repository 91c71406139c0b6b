"""The documentation says what the code does: reference pages, routes, verbs, builders."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from computeops.cli import VERBS
from computeops.hub.app import routes
from computeops.hub.state import Hub
from computeops.recipe import BUILDERS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def test_reference_pages_are_as_the_code_says() -> None:
    argv = [sys.executable, str(DOCS / "generate.py"), "--check"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_an_example(verb: str) -> None:
    page = (DOCS / "reference/cli.md").read_text()
    section = re.split(rf"^## computeops {verb}$", page, flags=re.MULTILINE)[1].split("\n## ")[0]
    assert f"$ computeops {verb}" in section


def test_every_route_of_the_hub_is_documented(tmp_path: Path) -> None:
    page = (DOCS / "reference/http.md").read_text()
    documented = {re.sub(r"\{[^}]*\}", "{}", route) for route in re.findall(r"`(/[^`?]*)", page)}
    served = {re.sub(r"\{[^}]*\}", "{}", route.path) for route in routes(Hub.open(tmp_path))} - {"/{}"}
    assert served - documented == set()


def test_every_builder_is_in_a_guide() -> None:
    page = (DOCS / "how-to/write-a-recipe.md").read_text()
    assert [name for name in BUILDERS if f'builder = "{name}"' not in page] == []


def test_links_between_files_lead_somewhere() -> None:
    pages = [page for page in (*ROOT.glob("*.md"), *DOCS.rglob("*.md")) if "_build" not in page.parts]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())]
    assert [f"{page.relative_to(ROOT)}: {link}" for page, link in links if not (page.parent / link).exists()] == []
