"""run, exec and shell on the command line: whose option is whose, what is said, and what a start does not import."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import containers
from computeops.cli import launch
from computeops.errors import UsageError

HEAVY = (
    "click",
    "http",
    "httpx2",
    "cryptography",
    "msgspec",
    "sqlalchemy",
    "json",
    "tomllib",
    "computeops.hub",
    "computeops.pipeline",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return containers.image(tmp_path_factory.mktemp("image"))


def computeops(*words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "computeops", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})


@pytest.mark.parametrize(
    ("words", "image", "argv"),
    [
        ("x.sif ls -l", "x.sif", ["ls", "-l"]),
        ("--bind /a x.sif ls --bind /b", "x.sif", ["ls", "--bind", "/b"]),
        ("x.sif --bind /a ls", "x.sif", ["ls"]),
        ("--bind /a x.sif --engine native -- --help", "x.sif", ["--help"]),
        ("x.sif --version", "x.sif", ["--version"]),
        ("x.sif -- -- ls", "x.sif", ["--", "ls"]),
        ("x.sif --help", "x.sif", ["--help"]),
        ("-- x.sif ls", "x.sif", ["ls"]),
        ("x.sif sort -o out.bam in.sam", "x.sif", ["sort", "-o", "out.bam", "in.sam"]),
        ("x.sif", "x.sif", []),
        ("x.sif ''", "x.sif", [""]),
    ],
)
def test_words_after_the_image_are_the_programs(words: str, image: str, argv: list[str]) -> None:
    read = launch.parse("run", shlex.split(words))
    assert (read.image, list(read.argv)) == (image, argv)


def test_values_come_with_a_space_or_an_equals_sign_and_may_repeat() -> None:
    read = launch.parse("exec", ["--bind=/a", "-B", "/b:/c", "--env", "A=b=c", "x.sif", "ls"])
    assert read.values == {"--bind": ["/a", "/b:/c"], "--env": ["A=b=c"]}


@pytest.mark.parametrize("words", ["", "--bind", "--bnd /a x.sif", "--contain=yes x.sif", "--bind /a", "-x x.sif"])
def test_words_that_mean_nothing(words: str) -> None:
    with pytest.raises(UsageError):
        launch.parse("exec", shlex.split(words))


def test_a_misspelt_option_gets_a_suggestion() -> None:
    done = computeops("exec", "--bnd", "/a", "x.sif")
    assert done.returncode == 2
    assert "did you mean '--bind'?" in done.stderr


@pytest.mark.parametrize("verb", ["run", "exec", "shell"])
def test_the_help_lists_every_option_and_an_example(verb: str) -> None:
    said = computeops(verb, "--help").stdout
    assert all(option in said for option in (*launch.VALUES, *launch.FLAGS))
    assert f"Example: computeops {verb}" in said


def test_what_is_no_image_is_said_in_one_line(tmp_path: Path) -> None:
    done = computeops("run", tmp_path / "none.sif")
    assert done.returncode == 5
    assert done.stderr.startswith("error: there is no image")
    (tmp_path / "text").write_text("not an image at all" * 100)
    done = computeops("run", tmp_path / "text", env={"XDG_CACHE_HOME": str(tmp_path)})
    assert done.returncode == 4
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "aptainer"], "did you mean 'apptainer'?"),
        (["--gpu", "nvida"], "did you mean 'nvidia'?"),
        (["--env", "1A=x"], "'1A'"),
        (["--cwd", "here"], "absolute"),
        (["--bind", "/no/such/place"], "/no/such/place"),
    ],
)
def test_a_wrong_value_is_named(built: Path, options: list[str], said: str) -> None:
    done = computeops("exec", *options, built, "true")
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.squashfs
def test_a_dry_run_prints_a_command_that_a_shell_can_run(built: Path, tmp_path: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    words = ["exec", "--engine", "native", "--env", "A=two words $x", "--dry-run", str(built)]
    shown = computeops(*words, "/bin/sh", "-c", 'echo "$A|$COLOUR|$0"', "it's me", env=cache)
    assert shown.returncode == 0, shown.stderr
    done = subprocess.run(["/bin/sh", "-c", shown.stdout], capture_output=True, text=True, check=True)
    assert done.stdout == "two words $x|blue|it's me\n"


def test_an_engine_that_is_not_installed_says_the_line_that_installs_it(built: Path, tmp_path: Path) -> None:
    for engine in ("apptainer", "bubblewrap"):
        environ = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
        tree = built.with_name("tree")
        done = computeops("exec", "--engine", engine, tree, "true", env=environ)
        assert done.returncode == 11, done.stderr
        assert "apt-get install" in done.stderr


@pytest.mark.squashfs
@pytest.mark.parametrize("engine", ["native", pytest.param("apptainer", marks=pytest.mark.apptainer), "bubblewrap"])
def test_a_second_start_imports_little(built: Path, tmp_path: Path, engine: str) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(containers.SOURCES)}
    words = ["exec", "--engine", engine, "--dry-run", str(built), "true"]
    assert computeops(*words, env=cache).returncode == 0
    argv = [sys.executable, "-X", "importtime", "-m", "computeops", *words]
    said = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **cache}).stderr
    imported = {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}
    assert imported & set(HEAVY) == set()


@pytest.mark.squashfs
def test_the_setting_chooses_the_engine(built: Path, tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), "COMPUTEOPS_ENGINE": "bubblewrap"}
    shown = computeops("exec", "--dry-run", built, "true", env=environ).stdout
    assert "bwrap --unshare-user" in shown
    environ["COMPUTEOPS_ENGINE"] = "native"
    assert "enter.py" in computeops("exec", "--dry-run", built, "true", env=environ).stdout


@pytest.mark.apptainer
def test_what_needs_a_gpu_goes_to_an_engine_that_brings_it(built: Path, tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    assert " --nv " in computeops("exec", "--gpu", "nvidia", "--dry-run", built, "true", env=environ).stdout
    done = computeops("exec", "--gpu", "nvidia", "--engine", "charliecloud", "--dry-run", built, "true", env=environ)
    assert done.returncode == 125
    assert "no NVIDIA GPUs" in done.stderr
    assert "these can: native, apptainer" in done.stderr
