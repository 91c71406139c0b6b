"""The command line as its users see it: real processes, their output and exit codes."""

import json
import os
import pty
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import building
from computeops.cli import FAMILIES, VERBS
from computeops.config import Settings, other_credentials

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


COMMAND = [sys.executable, "-m", "computeops"]


def computeops(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, argv)], capture_output=True, text=True, check=False)


def test_version() -> None:
    assert computeops("--version").stdout.startswith("computeops ")


def test_a_misspelt_verb_gets_a_suggestion() -> None:
    done = computeops("biuld")
    assert done.returncode == 2
    assert "did you mean 'build'?" in done.stderr


def test_the_help_shows_each_verb_once() -> None:
    assert sorted(verb for verbs in FAMILIES.values() for verb in verbs) == sorted(VERBS)
    shown = computeops("--help").stdout
    assert [verb for verb in VERBS if f"\n  {verb} " not in shown] == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["lint", "--jsn"], 2, "error: no such option '--jsn'. Did you mean '--json'?\nhint: computeops lint --help"),
        (["key", "new"], 2, "error: missing argument 'NAME'\nhint: computeops key new --help"),
        (["verify", "nothing.sif"], 5, "error: there is no image at nothing.sif"),
        (["key", "import", "ada", "nothing.pub"], 5, "error: No such file or directory: nothing.pub"),
        (["search", "--hub", "http://127.0.0.1:9", b"\xff"], 2, "error: not a text in UTF-8: "),
        (["lint", "elsewhere"], 3, "error: elsewhere/computeops.toml:1: package: is missing: "),
    ],
)
def test_every_mistake_is_told_alike(words: list[str | bytes], code: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/computeops.toml").write_text("[build]\n")
    command = [sys.executable, "-m", "computeops", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith(said)) == (code, True), done.stderr


def test_output_that_finds_no_room_or_no_reader() -> None:
    for verb in ("schema", "--version"):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run([*COMMAND, verb], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 16
        assert done.stderr.startswith("error: No space left on device\nhint: free some space")
        assert "Exception" not in done.stderr
    with subprocess.Popen([*COMMAND, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.close()
        _, errors = child.communicate()
    assert (child.returncode, errors) == (0, b"")


def test_without_a_home_in_the_environment_the_account_says_where_it_is() -> None:
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert Settings.load({}).keys.is_relative_to(home)
    assert other_credentials({})[-1].is_relative_to(home)


def test_settings_that_no_parser_finishes(tmp_path: Path) -> None:
    for text in ("jobs = " + "9" * 5000, "x = " + "[" * 5000):
        (tmp_path / "config.toml").write_text(text)
        environ = {**os.environ, "COMPUTEOPS_CONFIG": str(tmp_path / "config.toml")}
        done = subprocess.run([*COMMAND, "key", "list"], env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, "cannot read the settings" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_progress_leaves_the_terminal_to_the_error(term: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    ordered = [*COMMAND, "pull", "http://127.0.0.1:9/a/b:1", str(tmp_path / "x.sif")]
    environ = {**os.environ, "TERM": term}
    with subprocess.Popen(ordered, stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as child:
        os.close(theirs)
        said = b""
        try:
            while data := os.read(ours, 1000):
                said += data
        except OSError:  # the other end of a terminal closes so
            pass
    os.close(ours)
    assert child.returncode == 14
    assert said.startswith(b"\r\x1b[Kerror: " if term == "xterm" else b"error: ")


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


@pytest.mark.parametrize("builder", ["debian", "dockerfile", "apptainer", "python", "conda", "guix", "spack"])
def test_a_new_recipe_is_good_has_a_test_and_is_never_written_over_another(tmp_path: Path, builder: str) -> None:
    folder = tmp_path / "tools/my-tool"
    done = computeops("new", folder, "--builder", builder)
    assert done.returncode == 0, done.stderr
    before = {one.name: one.read_bytes() for one in folder.iterdir()}
    linted = json.loads(computeops("lint", folder, "--json").stdout)
    assert linted["name"] == "my-tool"
    assert not [note for note in linted["notes"] if "tests" in note]
    again = computeops("new", folder)
    assert again.returncode == 6
    assert {one.name: one.read_bytes() for one in folder.iterdir()} == before
    assert [one.name for one in folder.parent.iterdir()] == ["my-tool"]


@pytest.mark.parametrize(
    ("file", "text", "builder"),
    [
        ("tool.def", "Bootstrap: docker\nFrom: debian:12\n", "apptainer"),
        ("Singularity", "# old\nbootstrap: scratch\n", "apptainer"),
        ("Containerfile", "# x\nARG A=1\nfrom debian:12\n", "dockerfile"),
        ("install.sh", "echo\n", "debian"),
        ("requirements.txt", "six==1.17.0\n", "python"),
        ("environment.yml", "dependencies:\n  - samtools =1.21\n", "conda"),
        ("manifest.scm", '(specifications->manifest (list "bash"))\n', "guix"),
        ("env.yaml", "name: x\ndependencies:\n  - samtools =1.21\n", "conda"),
        ("spack.yaml", "spack:\n  specs: [samtools@1.19]\n", "spack"),
        ("pyproject.toml", '[project]\nname = "x"\ndependencies = ["six==1.17.0"]\n', "python"),
    ],
)
def test_a_recipe_from_a_build_file_that_is_there(tmp_path: Path, file: str, text: str, builder: str) -> None:
    (tmp_path / file).write_text(text)
    folder = tmp_path / "tool"
    done = computeops("new", folder, "--from", tmp_path / file)
    assert done.returncode == 0, done.stderr
    assert f'builder = "{builder}"' in (folder / "computeops.toml").read_text()
    assert text.encode() in [one.read_bytes() for one in folder.iterdir()]
    assert computeops("lint", folder).returncode == 0


def test_what_cannot_become_a_recipe_is_told(tmp_path: Path) -> None:
    assert computeops("new", tmp_path / "My Tool").returncode == 2
    assert computeops("new", tmp_path / "tool", "--builder", "make").returncode == 2
    assert computeops("new", tmp_path / "tool", "--from", tmp_path / "missing").returncode == 5
    (tmp_path / "pixi.toml").write_text("[workspace]\n")
    done = computeops("new", tmp_path / "tool", "--from", tmp_path / "pixi.toml")
    assert done.returncode == 2
    assert "is for pixi" in done.stderr
    (tmp_path / "pixi.toml").unlink()
    for content, said in ((b"\0\xff", "is no text"), (b"all:\n", "--builder")):
        (tmp_path / "file").write_bytes(content)
        done = computeops("new", tmp_path / "tool", "--from", tmp_path / "file")
        assert done.returncode == 2
        assert said in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_lint_says_what_is_not_pinned(tmp_path: Path) -> None:
    (tmp_path / "computeops.toml").write_text(RECIPE)
    done = computeops("lint", tmp_path)
    assert done.returncode == 0
    assert "busy 1: good" in done.stdout
    assert "note: there is no computeops.lock" in done.stdout
    assert computeops("lint", tmp_path, "--reproducible").returncode == 13


@pytest.mark.skopeo
def test_lock_writes_what_it_prints(tmp_path: Path) -> None:
    folder = building.copy_recipe("dockerfile", tmp_path / "recipe")
    done = computeops("lock", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "computeops.lock").read_bytes())


@pytest.mark.buildah
@pytest.mark.skopeo
def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    folder = building.copy_recipe("dockerfile", tmp_path / "recipe")
    seconds = f"{os.getpid()}.5"
    text = (folder / "Dockerfile").read_text().replace('RUN echo "$GREETING"', f"RUN sleep {seconds}; echo")
    (folder / "Dockerfile").write_text(text)
    tmp = tmp_path / "tmp"
    env = {**os.environ, "TMPDIR": str(tmp), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    argv = [sys.executable, "-m", "computeops", "build", str(folder), "--out", str(tmp_path / "out")]
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, start_new_session=True) as child:
        deadline = time.monotonic() + 120
        while not sleeping(seconds) and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.05)
        assert sleeping(seconds)
        os.killpg(child.pid, signal.SIGINT)
        assert child.stderr is not None
        said = child.stderr.read().decode()
    assert child.returncode == 130
    assert "Traceback" not in said
    assert not sleeping(seconds)
    assert not tmp.exists() or list(tmp.iterdir()) == []
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def sleeping(seconds: str) -> bool:
    """Whether a process sleeps that long."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if file.read_bytes() == f"sleep\0{seconds}\0".encode():
                return True
        except OSError:
            continue
    return False


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
