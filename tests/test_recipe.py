"""The recipe: every key, every problem at its line, whatever the bytes."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeops.errors import ComputeOpsError, LimitError, NotFoundError, RecipeError
from computeops.limits import LIMITS
from computeops.recipe import (
    FILE_NAME,
    DebianSource,
    GitSource,
    PathSource,
    PypiSource,
    UrlSource,
    digest,
    load,
    parse,
    schema,
)

FULL = """\
[package]
name = "samtools"
version = "1.21"
summary = "Tools for sequencing data"
license = "MIT OR Apache-2.0"
homepage = "https://www.htslib.org"
domains = ["bioinformatics", "genomics"]
citation = "10.1093/gigascience/giab008"

[[maintainers]]
name = "Ada Lovelace"
email = "ada@example.org"
orcid = "0000-0002-1825-0097"

[[sources]]
url = "https://example.org/samtools-1.21.tar.bz2"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

[[sources]]
git = "https://example.org/samtools.git"
commit = "8d1c56f5f2c0b1e5a3a9a7e6c3f0b1d2e3f4a5b6"

[[sources]]
path = "patches"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

[[sources]]
debian = "samtools"
version = "1.16.1-1"

[[sources]]
pypi = "cutadapt"
version = "4.9"

[build]
builder = "debian"
file = "build.sh"
suite = "bookworm"
components = ["main", "non-free"]
packages = ["libhts3"]
build_packages = ["gcc"]
snapshot = "20250520T000000Z"
network = false

[run]
command = ["samtools"]
programs = ["bgzip"]
env = { LC_ALL = "C" }

[[variants]]
name = "v3"
cpu = "x86_64_v3"
options = { CFLAGS = "-O3 -march=x86-64-v3" }

[requires]
gpu = "nvidia"
driver = ">=525"
mpi = "openmpi>=4,<6"
x11 = false

[[tests]]
name = "version"
run = "samtools --version"
expect = "samtools 1.21"
expect_exit = 0
timeout = 60
"""
SMALL = '[package]\nname = "a"\nversion = "1"\nsummary = "s"\nlicense = "MIT"\n[build]\nbuilder = "dockerfile"\nfile = "Dockerfile"\n'


def problems(text: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse(text.encode())
    return caught.value.message.splitlines()


def test_every_key_is_read() -> None:
    recipe = parse(FULL.encode())
    assert recipe.package.domains == ("bioinformatics", "genomics")
    assert [type(one) for one in recipe.sources] == [UrlSource, GitSource, PathSource, DebianSource, PypiSource]
    assert recipe.maintainers[0].orcid == "0000-0002-1825-0097"
    assert recipe.build.components == ("main", "non-free")
    assert recipe.run.env == {"LC_ALL": "C"}
    variant = recipe.variant("v3")
    assert variant is not None
    assert variant.options == {"CFLAGS": "-O3 -march=x86-64-v3"}
    assert recipe.variant("") is None
    assert recipe.requires.mpi == "openmpi>=4,<6"
    assert recipe.tests[0].timeout == 60


def test_the_smallest_recipe_has_the_documented_defaults() -> None:
    recipe = parse(SMALL.encode())
    assert (recipe.sources, recipe.variants, recipe.tests, recipe.maintainers) == ((), (), (), ())
    assert recipe.build.network is False
    assert recipe.build.components == ("main",)


def test_an_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="did you mean 'v3'"):
        parse(FULL.encode()).variant("v33")


@pytest.mark.parametrize(
    ("old", "new", "line", "expected"),
    [
        ('name = "samtools"', 'nme = "samtools"', 2, "did you mean 'name'?"),
        ('version = "1.21"', "version = 1.21", 3, "package.version = 1.21: must be a text"),
        ('version = "1.21"', 'version = "1/21"', 3, 'package.version = "1/21"'),
        ('name = "samtools"', 'name = "Sam Tools"', 2, "lower case"),
        ('name = "samtools"', f'name = "{"a" * 129}"', 2, "at most 128"),
        ("MIT OR Apache-2.0", "MIT or Apache", 5, "not an SPDX licence expression at 'or'"),
        ("https://www.htslib.org", "www.htslib.org", 6, "a web address"),
        ("https://www.htslib.org", "javascript:alert(1)", 6, "a web address"),
        ('["bioinformatics", "genomics"]', '"bioinformatics"', 7, "must be a list"),
        ("10.1093/gigascience", "https://doi.org/10.1093/gigascience", 8, "a DOI without"),
        ("ada@example.org", "ada", 12, "an e-mail address"),
        ("0000-0002-1825-0097", "\u0660000-0002-1825-0097", 13, "an ORCID iD"),
        ("https://example.org/samtools-1", "ftp://example.org/samtools-1", 16, "an https, http or file address"),
        ("https://example.org/samtools-1", "https://me:secret@example.org/samtools-1", 16, "a recipe is public"),
        ("https://example.org/samtools-1", "https://[/samtools-1", 16, "is not an address"),
        ("https://example.org/samtools.git", "https://token@example.org/samtools.git", 20, "a recipe is public"),
        ("https://example.org/samtools.git", "--upload-pack=touch x", 20, "address of a git repository"),
        ("https://example.org/samtools.git", "ext::sh -c touch% x", 20, "address of a git repository"),
        ("8d1c56f5f2c0b1e5a3a9a7e6c3f0b1d2e3f4a5b6", "main", 21, "40 hex digits"),
        ('path = "patches"', 'path = "../patches"', 24, "inside the recipe's folder"),
        ('path = "patches"', 'path = "/etc/passwd"', 24, "inside the recipe's folder"),
        ('path = "patches"', 'path = "."', 24, "inside the recipe's folder"),
        (
            'pypi = "cutadapt"',
            'pypi = "cutadapt"\ngit = "https://a.example/b"',
            31,
            "exactly one of url, git, path, debian, pypi",
        ),
        ('builder = "debian"', 'builder = "debain"', 36, "did you mean 'debian'?"),
        ('file = "build.sh"', 'file = "a/../../b"', 37, "without .."),
        ('suite = "bookworm"', 'suite = "Book Worm"', 38, "a Debian suite"),
        ('packages = ["libhts3"]', 'packages = ["libhts3", "--option"]', 40, 'build.packages[2] = "--option"'),
        ("20250520T000000Z", "yesterday", 42, "as snapshot.debian.org writes it"),
        ("network = false", 'network = "no"', 43, "must be true or false"),
        ('programs = ["bgzip"]', 'programs = ["/bin/sh"]', 47, "the name of a program"),
        ('LC_ALL = "C"', '"LC ALL" = "C"', 48, "a table of names and texts"),
        ('LC_ALL = "C"', "LC_ALL = 1", 48, "a table of names and texts"),
        ('name = "v3"', 'name = "v3"\nname2 = 1', 52, "did you mean 'name'?"),
        ('gpu = "nvidia"', 'gpu = "voodoo"', 56, "nvidia, amd, intel or xilinx"),
        ('driver = ">=525"', 'driver = ">525 or so"', 57, "a range of versions"),
        ("x11 = false", "x11 = 0", 59, "must be true or false"),
        ("expect_exit = 0", "expect_exit = 256", 65, "an exit code from 0 to 255"),
        ("expect_exit = 0", "expect_exit = true", 65, "an exit code from 0 to 255"),
        ("timeout = 60", "timeout = 0", 66, "a number of seconds from 1 to 86400"),
        ("timeout = 60", "timeout = 1979-05-27", 66, "a number of seconds"),
        ("[requires]", "[require]", 55, "did you mean 'requires'?"),
    ],
)
def test_a_problem_is_told_with_line_key_value_and_what_to_write(old: str, new: str, line: int, expected: str) -> None:
    assert old in FULL
    told = problems(FULL.replace(old, new, 1))
    assert [one for one in told if one.startswith(f"{FILE_NAME}:{line}: ") and expected in one], told


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    told = problems(
        FULL.replace('"1.21"', "1").replace('"debian"\nfile', '"debain"\nfile').replace("timeout = 60", 'timeout = "x"')
    )
    assert [one.split(":")[1] for one in told] == ["3", "36", "66"]


def test_what_is_missing_is_told_at_its_table() -> None:
    told = problems("\n[package]\nname = 'a'\n")
    assert any(one.startswith(f"{FILE_NAME}:2: package.version: is missing") for one in told)
    assert any("build: is missing" in one for one in told)


def test_two_of_one_name_are_told() -> None:
    twice = FULL + '\n[[tests]]\nname = "version"\nrun = "true"\n'
    assert "another of this name among the tests" in problems(twice)[0]


def test_options_of_one_builder_are_not_for_another() -> None:
    told = problems(SMALL + 'suite = "bookworm"\npackages = ["gcc"]\n')
    assert [one.split(":")[1] for one in told] == ["9", "10"]
    assert "debian" in told[0]


def test_debian_needs_a_suite() -> None:
    assert "build.suite: is missing" in problems(SMALL.replace("dockerfile", "debian"))[0]


def test_a_builder_needs_its_build_file() -> None:
    assert "build.file: is missing" in problems(SMALL.replace('file = "Dockerfile"\n', ""))[0]


@pytest.mark.parametrize("hidden", ["\x1b[31mred", "\x9b31m", "evil\u202etxt", "a\u2028b", "\ufefftext", "\x7f"])
def test_texts_that_steer_a_terminal_are_refused(hidden: str) -> None:
    encoded = json.dumps(hidden).replace("\\u007f", "\x7f")
    (told,) = problems(SMALL.replace('"s"', encoded.replace("\x7f", "\\u007F")))
    assert told.isprintable()


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b'[package]\nname = "a\xff"\n', f"{FILE_NAME}:2: not UTF-8: byte 0xff"),
        (b"[package]\nname = \n", f"{FILE_NAME}:2:"),
        (b"[package\n", f"{FILE_NAME}:1:"),
        (b"a = " + b"[" * 20_000, f"{FILE_NAME}"),
        (b"a = " + b"9" * 10_000, f"{FILE_NAME}"),
        (b"", f"{FILE_NAME}:1: package: is missing"),
    ],
)
def test_what_is_no_toml_is_told_with_its_place(data: bytes, where: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(data)
    assert caught.value.message.startswith(where)


def test_a_recipe_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    file.write_bytes(b"#" * (LIMITS.recipe_bytes + 1))
    with pytest.raises(LimitError):
        load(tmp_path)


def test_a_large_hostile_recipe_is_judged_in_time() -> None:
    many = "".join(f'[[tests]]\nname = "t"\nrun = ""\nx{i} = 1\n' for i in range(20_000))[: LIMITS.recipe_bytes - 500]
    told = problems(SMALL + many.rpartition("[[tests]]")[0])
    assert len(told) == 100


def test_windows_line_ends_do_not_matter() -> None:
    assert parse(FULL.replace("\n", "\r\n").encode()) == parse(FULL.encode())


def test_files_are_looked_for_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(SMALL)
    with pytest.raises(RecipeError, match="there is no such file beside the recipe"):
        load(tmp_path)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    assert load(tmp_path).build.file == "Dockerfile"
    (tmp_path / "Dockerfile").unlink()
    (tmp_path / "Dockerfile").symlink_to("/etc/passwd")
    with pytest.raises(RecipeError, match="by a symbolic link"):
        load(tmp_path)


def test_a_missing_recipe_says_how_to_write_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no recipe") as caught:
        load(tmp_path)
    assert "computeops new" in caught.value.hint


def test_the_digest_is_what_sha256sum_would_print(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / FILE_NAME).write_text(SMALL)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    listing = subprocess.run(
        f"sha256sum Dockerfile {FILE_NAME} | sha256sum", shell=True, cwd=tmp_path, capture_output=True, check=True
    )
    assert digest(tmp_path).hex == listing.stdout.decode().split()[0]


RECIPES = sorted(Path(__file__).parent.glob("recipes/*/")) + sorted(
    one.parent for one in Path(__file__).parent.parent.glob("examples/**/computeops.toml")
)


@pytest.mark.parametrize("folder", RECIPES, ids=lambda folder: folder.name)
def test_the_recipes_of_this_project_are_good_and_fit_the_schema(folder: Path) -> None:
    load(folder)
    jsonschema.validate(tomllib.loads((folder / FILE_NAME).read_text()), schema())


BAD = sorted(Path(__file__).parent.glob("bad/recipe/*.toml"))


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_stored_bad_recipes_are_refused_with_one_clear_line(file: Path) -> None:
    expected = file.read_text(errors="replace").splitlines()[0].removeprefix("# ")
    with pytest.raises(RecipeError) as caught:
        parse(file.read_bytes())
    assert expected in caught.value.message


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@given(st.binary(max_size=400))
def test_any_bytes_give_a_recipe_or_an_error_of_ours(data: bytes) -> None:
    with pytest.raises((RecipeError, LimitError)):
        parse(data)


LEAVES = st.one_of(
    st.text(max_size=20), st.integers(-5, 90000), st.booleans(), st.floats(), st.lists(st.text(max_size=5), max_size=3)
)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(
            str(value), repr(value) if "." in repr(value) else f"{value:.1f}"
        )
    return (
        json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
        if isinstance(value, str)
        else str(value).lower()
    )


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """A good recipe with some keys changed, dropped or added."""
    table = tomllib.loads(FULL)
    for _ in range(draw(st.integers(0, 3))):
        parent: Any = table
        while True:
            keys = sorted(parent) if isinstance(parent, dict) else range(len(parent))
            key = draw(st.sampled_from(list(keys)))
            if not isinstance(parent[key], (dict, list)) or not parent[key] or draw(st.booleans()):
                break
            parent = parent[key]
        change = draw(st.sampled_from(["drop", "set", "add"]))
        if change == "drop":
            del parent[key]
        elif change == "set" or isinstance(parent, list):
            parent[key] = draw(LEAVES)
        else:
            parent[draw(st.text(max_size=8))] = draw(LEAVES)
        if not table:
            break
    return table


@given(changed())
def test_what_the_reader_takes_fits_the_schema_and_what_does_not_fit_is_refused(table: dict[str, Any]) -> None:
    text = "\n".join(f"{json.dumps(key)} = {_toml(value)}" for key, value in table.items())
    try:
        parse(text.encode("utf-8", "surrogatepass"))
    except ComputeOpsError:
        return
    jsonschema.validate(table, schema())


@pytest.mark.parametrize(
    "text", ["a." * 200_000 + "b = 1", "x = 1\n[" + "'a' . " * 100_000 + "b]", "x = {" + "a." * 200_000 + "b = 1}"]
)
def test_a_key_of_very_many_names_is_refused_at_once(text: str) -> None:
    with pytest.raises(RecipeError, match=r"computeops.toml:[12]: a key of more than 64 names"):
        parse(text.encode())
    parse(FULL.replace('summary = "', 'summary = "' + "a." * 100).encode())  # in a text it is none
