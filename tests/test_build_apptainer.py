"""Definition files: real builds by Apptainer, as root and as an ordinary user, of a recipe that needs no network."""

import shutil
import subprocess
from pathlib import Path

import pytest

import building
from computeops import build
from computeops.build import definition, shellenv
from computeops.errors import BuildError, ComputeOpsError, RecipeError
from computeops.image import convert, oci
from computeops.image.tree import read_files
from computeops.recipe import load
from conftest import Scientist

pytestmark = [pytest.mark.apptainer, pytest.mark.skopeo]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return building.copy_recipe("apptainer", tmp_path / "recipe")


def change(folder: Path, old: str, new: str) -> None:
    file = folder / "greeting.def"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_the_image_keeps_what_the_definition_says(folder: Path, tmp_path: Path, scientist: Scientist) -> None:
    built = building.run(folder, tmp_path / "work", tmp_path / "cache")
    seen = building.look(built)
    assert seen.env["GREETING_FILE"] == "/usr/share/greeting/first"
    assert seen.env["COUNT"] == "2"
    assert "GREETING_CACHE" not in seen.env  # it depends on who runs the image
    assert seen.labels["kind"] == "greeting"
    assert not [name for name in seen.labels if "label-schema" in name]
    kept = read_files(built.tree, lambda path: path.startswith(".singularity.d/"), 100_000)
    assert kept[".singularity.d/Singularity"] == (folder / "greeting.def").read_bytes()
    assert b"Greets whom" in kept[".singularity.d/runscript.help"]
    assert b"does not run this" in kept[".singularity.d/test"]

    sif = scientist.home / "greeting.sif"
    description = oci.Description("amd64", built.env, built.command, (), built.labels)
    convert.pack(built.tree, description, to_sif=sif, writer=convert.Writer(), epoch=building.EPOCH)
    scientist.own(sif)
    said = scientist.run(["apptainer", "run", "--no-home", sif, "Ada"]).stdout.decode().splitlines()
    assert said[:2] == ["hello", "good morning"]
    assert said[2].startswith("2 lines for Ada, cached in /")
    assert said[2].endswith("/.greeting")
    assert "root/.greeting" not in said[2]


def test_builds_are_equal_whoever_builds_and_where(folder: Path, tmp_path: Path, scientist: Scientist) -> None:
    mine = building.look(building.run(folder, tmp_path / "work", tmp_path / "cache"))
    there = shutil.copytree(folder, scientist.home / "an other/recipe")
    theirs = building.as_scientist(scientist, scientist.own(there), jobs=1)
    assert {k: v for k, v in theirs.files.items() if mine.files.get(k) != v} == {}
    assert theirs == mine


def test_the_options_of_a_variant_are_build_arguments(folder: Path, tmp_path: Path) -> None:
    built = building.run(folder, tmp_path / "work", tmp_path / "cache", "loud")
    assert read_files(built.tree, lambda path: path.endswith("greeting/first"), 100) == {
        "usr/share/greeting/first": b"HELLO\n"
    }


def test_an_option_that_nothing_uses_is_refused(folder: Path, tmp_path: Path) -> None:
    recipe = folder / "computeops.toml"
    recipe.write_text(recipe.read_text().replace("GREETING =", "GREETNG ="))
    with pytest.raises(RecipeError, match="did you mean 'GREETING'"):
        build.lint(folder, load(folder))


def test_a_build_that_fails_says_why(folder: Path, tmp_path: Path) -> None:
    change(folder, 'echo "{{ GREETING }}"', 'echo "the reason is {{ GREETING }}"; exit 3; echo')
    with pytest.raises(BuildError, match="the reason is hello") as caught:
        building.run(folder, tmp_path / "work", tmp_path / "cache")
    assert Path(caught.value.hint.rpartition(" ")[2]).is_file()
    assert not (tmp_path / "work/inside").exists()


def test_setup_on_the_host_sees_the_box_and_not_the_host(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    text = f"%setup\n    touch {mark} || true\n    ls {folder} || true\n    cat /proc/net/dev\n    exit 3\n\n%post\n"
    file = folder / "greeting.def"
    file.write_text(file.read_text().replace("%post\n", text, 1))
    with pytest.raises(BuildError) as caught:
        building.run(folder, tmp_path / "work", tmp_path / "cache")
    said = Path(caught.value.hint.rpartition(" ")[2]).read_text()
    assert not mark.exists()
    assert f"cannot access '{folder}'" in said
    assert "lo:" in said
    assert "eth0" not in said


def test_an_apptainer_image_and_an_archive_are_bases_too(folder: Path, tmp_path: Path) -> None:
    subprocess.run(["skopeo", "copy", "-q", f"oci:{folder}/base.oci", f"oci-archive:{folder}/base.tar"], check=True)
    change(
        folder, "Bootstrap: oci\nFrom: base.oci\nStage: first", "Bootstrap: oci-archive\nFrom: base.tar\nStage: first"
    )
    convert.pack(
        convert.open_tree(folder / "base.oci"),
        oci.Description("amd64", labels={"from": "base"}),
        to_sif=folder / "base.sif",
        writer=convert.Writer(),
        epoch=building.EPOCH,
    )
    change(
        folder, "Bootstrap: oci\nFrom: base.oci\nStage: final", "Bootstrap: localimage\nFrom: base.sif\nStage: final"
    )
    lock = build.lock(folder, load(folder), mirror="", pypi="", cache=tmp_path / "cache", tmp=tmp_path / "tmp")
    assert [one.uri for one in lock.of_role("base")] == ["oci-archive:base.tar", "path:base.sif"]
    built = building.run(folder, tmp_path / "work", tmp_path / "cache")
    assert built.labels["from"] == "base"
    assert built.env["COUNT"] == "2"


def test_nothing_is_a_base_too(folder: Path, tmp_path: Path) -> None:
    (folder / "greeting.def").write_text("Bootstrap: scratch\n\n%files\n    greeting.txt /greeting.txt\n")
    recipe = folder / "computeops.toml"
    recipe.write_text(recipe.read_text().partition("[[variants]]")[0])
    seen = building.look(building.run(folder, tmp_path / "work", tmp_path / "cache"))
    assert seen.files["greeting.txt"].startswith("file 644 0:0 13")
    assert set(seen.env) <= {"PATH"}


# What a definition file starts from


def test_the_stages_of_a_definition_file() -> None:
    text = "# c\nBootstrap: docker\nFrom: debian:{{ V }}  # the base\nStage: one\n\n%arguments\n  V=12\n\n%post\n  true\n\nbootstrap: scratch\n%post\n"
    one, two = definition.stages(text, {})
    assert one.keys == {"bootstrap": "docker", "from": "debian:12", "stage": "one"}
    assert (one.line, two.line) == (2, 12)
    assert two.keys == {"bootstrap": "scratch"}
    assert definition.stages(text, {"V": "13"})[0].keys["from"] == "debian:13"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%post\n true\n", "has no line Bootstrap:"),
        ("Bootstrap: docker\nFrom: a:{{ V }}\n", r"greeting.def:2: \{\{ V \}\} has no value"),
        ("Bootstrap: library\nFrom: alpine\n", "cannot be pinned"),
        ("Bootstrap: debootstrap\nMirrorURL: http://x/\n", "debootstrap fetches what is not pinned"),
        ("Bootstrap: localimage\nFrom: ../base.sif\n", "outside of the recipe's folder"),
        ("Bootstrap: localimage\nFrom: missing.sif\n", "no base image missing.sif"),
        ("Bootstrap: localimage\n", "without From:"),
        ("Bootstrap: oci\nFrom: /etc\n", "outside of the recipe's folder"),
    ],
)
def test_a_definition_whose_base_cannot_be_pinned_is_refused(
    folder: Path, tmp_path: Path, text: str, expected: str
) -> None:
    (folder / "greeting.def").write_text(text)
    recipe = folder / "computeops.toml"
    recipe.write_text(recipe.read_text().partition("[[variants]]")[0])
    with pytest.raises(ComputeOpsError, match=expected):
        build.lock(folder, load(folder), mirror="", pypi="", cache=tmp_path / "cache", tmp=tmp_path / "tmp")


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
@pytest.mark.parametrize(
    "value", ["plain", "two words", "it's", 'say "hi"', "a\nb", "$HOME", "back\\slash", "`x`", "a\\$b", "", "ü"]
)
def test_values_come_out_of_every_shell_as_they_went_in(shell: str, value: str) -> None:
    if shutil.which(shell.split(maxsplit=1)[0]) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [*shell.split(), "-c", "export -p"], env={"VALUE": value, "PATH": "/bin"}, capture_output=True, check=True
    )
    assert shellenv.read(done.stdout.decode())["VALUE"] == value
