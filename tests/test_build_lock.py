"""The lock: what it is, when it is stale, and that no bytes can break its reader."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeops import build
from computeops.build.model import LOCK_NAME, Builder, Lock, Material
from computeops.errors import RecipeError, UsageError
from computeops.model import Digest
from computeops.recipe import BUILDERS, load

RECIPE = '[package]\nname = "a"\nversion = "1"\nsummary = "s"\nlicense = "MIT"\n[build]\nbuilder = "dockerfile"\nfile = "Dockerfile"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "computeops.toml").write_text(RECIPE)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def lock_of(folder: Path) -> Lock:
    return build.lock(folder, load(folder), mirror="", pypi="", cache=folder / "cache", tmp=folder / "tmp")


MATERIALS = st.builds(
    Material,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+~%:@-]{0,30}", fullmatch=True),
    st.text(max_size=50),
    st.binary(max_size=4).map(Digest.of),
    st.integers(0, 2**60),
    st.sampled_from(["source", "package", "base", "file"]),
)


@given(
    st.lists(MATERIALS, max_size=4),
    st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=5), max_size=2), max_size=2),
)
def test_a_lock_comes_back_as_it_was_written(materials: list[Material], options: dict[str, list[str]]) -> None:
    lock = Lock("debian", Digest.of(b""), tuple(materials), options)
    assert Lock.from_json(json.dumps(lock.as_json()).encode()) == lock


@given(
    st.one_of(
        st.binary(max_size=100),
        st.recursive(st.one_of(st.none(), st.text(max_size=5), st.integers()), st.lists, max_leaves=5).map(
            lambda x: json.dumps(x).encode()
        ),
    )
)
def test_any_bytes_give_a_lock_or_a_recipe_error(data: bytes) -> None:
    with pytest.raises(RecipeError, match="not a lock file"):
        Lock.from_json(data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../../etc/passwd"),
        ("name", "a/b"),
        ("name", ""),
        ("name", "a\n"),
        ("digest", "md5:00"),
        ("digest", "sha256:../../x"),
        ("role", "root"),
        ("size", -1),
        ("uri", "x" * 5000),
        ("more", 1),
    ],
)
def test_a_hostile_entry_is_refused(key: str, value: object) -> None:
    lock = Lock("debian", Digest.of(b""), (Material("a", "b", Digest.of(b"")),)).as_json()
    lock["materials"][0][key] = value
    with pytest.raises(RecipeError, match="not a lock file"):
        Lock.from_json(json.dumps(lock).encode())


def test_the_file_is_written_whole_and_read_back(folder: Path) -> None:
    lock = lock_of(folder)
    file = build.write_lock(folder, lock)
    assert file.name == LOCK_NAME
    assert file.stat().st_mode & 0o777 == 0o644
    assert build.read_lock(folder) == lock
    assert not list(folder.glob(".lock-*"))


def test_the_lock_is_stale_when_what_decides_the_inputs_changes(folder: Path) -> None:
    build.write_lock(folder, lock_of(folder))
    assert not [note for note in build.lint(folder, load(folder)) if "lock" in note]
    (folder / "computeops.toml").write_text(RECIPE.replace('"s"', '"another summary"'))
    assert not [note for note in build.lint(folder, load(folder)) if "lock" in note]
    (folder / "Dockerfile").write_text("FROM scratch\nENV A=b\n")
    assert [note for note in build.lint(folder, load(folder)) if "another state" in note]


def test_what_moves_is_told_until_a_lock_pins_it(folder: Path) -> None:
    sha = "sha256:" + "0" * 64
    (folder / "Dockerfile").write_text(
        f"FROM debian:12 AS a\nFROM x.org/b@{sha}\nCOPY --from=a /x /x\nCOPY --from=alpine / /\n"
    )
    recipe = load(folder)
    said = "Dockerfile starts from debian:12, alpine: only the lock pins them"
    assert said in build.unpinned(folder, recipe)
    assert {type(one) for one in build.lint(folder, recipe)} == {str}  # nothing else can be written as JSON
    build.write_lock(folder, Lock("dockerfile", build.inputs(folder, recipe), ()))
    assert build.unpinned(folder, recipe) == []
    build.write_lock(folder, Lock("dockerfile", Digest.of(b"of another state"), ()))
    assert said in build.unpinned(folder, recipe)

    definition = (
        f"Bootstrap: docker\nFrom: debian:12\n\nBootstrap: docker\nFrom: x@{sha}\n%post\n apt-get -y install gcc\n"
    )
    (folder / "x.def").write_text(definition)
    text = RECIPE.replace("dockerfile", "apptainer").replace("Dockerfile", "x.def")
    (folder / "computeops.toml").write_text(text + "network = true\n")
    notes = build.unpinned(folder, load(folder))
    assert "x.def starts from debian:12: only the lock pins them" in notes
    assert "build.network is true: what the build file fetches is not pinned (lines 7)" in notes


def test_lint_tells_what_is_not_pinned_or_tested(folder: Path) -> None:
    (folder / "computeops.toml").write_text(RECIPE + "network = true\n")
    notes = "\n".join(build.lint(folder, load(folder)))
    for expected in ("no computeops.lock", "build.network is true", "no [[tests]]"):
        assert expected in notes


def test_every_builder_keeps_the_protocol() -> None:
    for name in BUILDERS:
        builder: Builder = build.find(name)
        assert all(callable(getattr(builder, verb)) for verb in ("detect", "lint", "lock", "build"))
    with pytest.raises(UsageError, match="did you mean 'debian'"):
        build.find("debain")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("build.sh", "debian"),
        ("Dockerfile", "dockerfile"),
        ("Containerfile", "dockerfile"),
        ("x.def", "apptainer"),
        ("README", ""),
    ],
)
def test_a_builder_is_found_by_its_build_file(tmp_path: Path, file: str, expected: str) -> None:
    (tmp_path / file).write_text("")
    assert build.detect(tmp_path) == (expected, file if expected else "")
