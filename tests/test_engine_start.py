"""Containers started by every engine that this machine has, as the user who is not root: what goes in and comes out."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import containers

ENGINES = [
    pytest.param("native", marks=pytest.mark.squashfs),
    pytest.param("apptainer", marks=pytest.mark.apptainer),
    pytest.param("bubblewrap", marks=[pytest.mark.squashfs, pytest.mark.bubblewrap]),
]
SHELL_CODE = "for code in 0 1 2 77 126 127 128 255; do (exit $code); echo $?; done"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return containers.image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def launcher(scientist, built: Path) -> containers.Launcher:
    shutil.copy(built, scientist.home / "small.sif")
    scientist.own(scientist.home)
    return containers.Launcher(scientist)


@pytest.fixture(params=ENGINES)
def run(request, launcher: containers.Launcher):
    """`computeops exec --engine E ... IMAGE sh -c SCRIPT`."""

    def call(script: str, *options: str | Path, **how):
        words = ["exec", "--engine", request.param, *options, "small.sif", "/bin/sh", "-c", script]
        return launcher(*words, **how)

    call.engine = request.param
    call.launcher = launcher
    return call


def good(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_the_exit_code_is_the_programs_own(run) -> None:
    for code in (0, 1, 2, 77, 125, 126, 127, 128, 255):
        assert run(f"exit {code}").returncode == code


def test_a_program_killed_by_a_signal_shows_as_in_a_shell(run) -> None:
    done = run("kill -TERM $$")
    assert done.returncode in {128 + signal.SIGTERM, -signal.SIGTERM}


def test_every_byte_of_standard_input_passes(run) -> None:
    data = bytes(range(256)) * 4096
    done = run("exec cat", stdin=data)
    assert done.stdout == data
    assert done.stderr == b""


def test_a_pipe_that_is_closed_ends_the_program_by_its_signal(run) -> None:
    argv = run.launcher.argv("exec", "--engine", run.engine, "small.sif", "/bin/sh", "-c", "while :; do echo y; done")
    child = subprocess.Popen(argv, env=run.launcher.env(), cwd=run.launcher.home, stdout=subprocess.PIPE, stderr=-1)
    assert child.stdout.readline() == b"y\n"
    child.stdout.close()
    assert child.wait(20) in {-signal.SIGPIPE, 128 + signal.SIGPIPE}
    assert child.stderr.read() == b""
    child.stderr.close()


def test_variables_of_the_image_the_machine_and_the_request(run) -> None:
    script = 'printf "%s\\n" "$COLOUR|$SHAPE|$PATH|$LD_LIBRARY_PATH|$HOST_ONLY|$TEXT"'
    text = "two words, 'quotes' \"double\" $HOME `x` back\\slash\\\\ \\$ é"
    host = {"HOST_ONLY": "inherited", "COLOUR": "red", "LD_LIBRARY_PATH": "/nowhere", "SHAPE": "host"}
    options = ["--env", "SHAPE=round", "--env", f"TEXT={text}", "--env", "COLOUR=green"]
    said = good(run(script, env=host)).strip().split("|")
    assert said == ["blue", "host", "/usr/bin:/bin", "/.singularity.d/libs", "inherited", ""]
    said = good(run(script, *options, env=host)).strip().split("|")
    assert said == ["green", "round", "/usr/bin:/bin", "/.singularity.d/libs", "inherited", text]


def test_a_secret_variable_stands_in_no_argument_list(run) -> None:
    shown = run.launcher(
        "exec", "--engine", run.engine, "--env", "TOKEN", "--dry-run", "small.sif", "true", env={"TOKEN": "s3cret"}
    )
    command = good(shown).partition("s3cret")[2]
    assert "s3cret" not in command


@pytest.mark.parametrize("name", ["plain", "with space", "co:lon", "com,ma", 'quo"te', "ünïcödé 文"])
def test_a_bind_of_any_name_shows_the_folder(run, name: str) -> None:
    folder = run.launcher.home / "data" / name
    folder.mkdir(parents=True)
    (folder / "file").write_text(name)
    run.launcher.scientist.own(folder)
    escaped = str(folder).replace(":", "\\:")
    target = f"/mnt/new/{name}".replace(":", "\\:")
    assert good(run('cat "$WHERE/file"', "--bind", f"{escaped}:{target}", "--env", f"WHERE=/mnt/new/{name}")) == name


def test_a_read_only_bind_cannot_be_written_and_a_plain_one_can(run) -> None:
    folder = run.launcher.home / "data"
    folder.mkdir()
    run.launcher.scientist.own(folder)
    done = run("echo no > /a/file; echo yes > /b/file", "--bind", f"{folder}:/a:ro", "--bind", f"{folder}:/b")
    assert b"Read-only file system" in done.stderr
    assert (folder / "file").read_text() == "yes\n"


def test_the_image_itself_cannot_be_written(run) -> None:
    for path in ("/new", "/etc/new", "/bin/new", "/mnt/new"):
        assert run(f"echo x > {path}").returncode != 0


def test_a_file_can_be_bound_over_a_file_and_into_a_folder_of_the_image(run) -> None:
    note = run.launcher.home / "note"
    note.write_text("hello")
    run.launcher.scientist.own(note)
    script = "cat /etc/passwd /etc/brand-new; ls /etc"
    said = good(run(script, "--bind", f"{note}:/etc/passwd", "--bind", f"{note}:/etc/brand-new"))
    assert said.startswith("hellohello")
    assert "group" in said


def test_the_container_stands_where_the_caller_stands(run) -> None:
    folder = run.launcher.home / "work" / "deep"
    folder.mkdir(parents=True)
    run.launcher.scientist.own(run.launcher.home)
    argv = run.launcher.argv(
        "exec", "--engine", run.engine, "../../small.sif", "/bin/sh", "-c", "pwd; echo made > here"
    )
    done = subprocess.run(argv, env=run.launcher.env(), cwd=folder, capture_output=True, check=False)
    assert good(done) == f"{folder}\n"
    assert (folder / "here").read_text() == "made\n"


def test_another_folder_to_start_in(run) -> None:
    assert good(run("pwd", "--cwd", "/etc")) == "/etc\n"
    assert good(run("pwd", "--pwd", "/bin")) in {"/bin\n", "/usr/bin\n"}
    assert run("pwd", "--cwd", "/not/there").returncode != 0


def test_the_user_is_the_same_user_with_a_name_and_a_home(run) -> None:
    user = (run.launcher.home / "small.sif").stat().st_uid
    said = good(run("cat /etc/passwd; ls -n ~/small.sif; echo ~")).splitlines()
    assert said[-1] == str(run.launcher.home)
    assert str(user) in said[-2]
    assert "service:x:77:77::/:/bin/false" in said
    assert any(f":x:{user}:" in line for line in said)


def test_without_a_home_its_files_are_not_there(run) -> None:
    secret = run.launcher.home / "secret"
    secret.write_text("x")
    assert good(run(f"test -e {secret} || echo no", "--no-home", "--contain")) == "no\n"


def test_an_isolated_container_has_its_own_scratch(run) -> None:
    script = "echo x > /tmp/eng-isolated && echo x > ~/eng-isolated && echo x > /dev/null && ls -a ~"
    said = good(run(script, "--contain"))
    assert "small.sif" not in said
    assert not Path("/tmp/eng-isolated").exists()
    assert not (run.launcher.home / "eng-isolated").exists()


def test_a_missing_program_is_the_engines_own_failure(run) -> None:
    done = run.launcher("exec", "--engine", run.engine, "small.sif", "no-such-program")
    assert done.returncode in {127, 255}
    assert b"no-such-program" in done.stderr
    assert b"Traceback" not in done.stderr


def test_run_gives_arguments_to_the_images_command(run) -> None:
    done = run.launcher("run", "--engine", run.engine, "small.sif", "--bind-not-ours", "a b")
    assert good(done) == "ran a b\n"


WAITING = "trap 'echo caught; exit 9' TERM INT; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize("engine", ENGINES[:2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("group", [False, True])
def test_a_signal_to_the_process_reaches_the_program(launcher, engine: str, number: int, group: bool) -> None:
    argv = ["exec", "--engine", engine, "small.sif", "/bin/sh", "-c", WAITING]
    with launcher.start(*argv, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout.readline() == b"ready\n"
        (os.killpg if group else os.kill)(child.pid, number)
        assert child.stdout.read() == b"caught\n"
        assert child.wait(20) == 9


@pytest.mark.bubblewrap
@pytest.mark.squashfs
def test_a_killed_bubblewrap_leaves_no_program_behind(launcher) -> None:
    argv = ["exec", "--engine", "bubblewrap", "small.sif", "/bin/sh", "-c", "echo ready; while :; do sleep 0.05; done"]
    with launcher.start(*argv, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        child.kill()
        assert child.stdout.read() == b""  # the other end is closed: the program has gone too


@pytest.mark.parametrize("engine", ENGINES)
def test_a_shell_on_a_terminal(launcher, engine: str) -> None:
    leader, follower = pty.openpty()
    argv = launcher.argv("shell", "--engine", engine, "small.sif")
    with subprocess.Popen(
        argv,
        env=launcher.env({"TERM": "dumb"}),
        cwd=launcher.home,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    ) as child:
        os.close(follower)
        os.write(leader, b"test -t 0 && echo terminal-$((40+2)); exit 5\n")
        said = read_until(leader, b"terminal-42")
        assert child.wait(20) == 5
    os.close(leader)
    assert b"terminal-42" in said


def read_until(leader: int, wanted: bytes) -> bytes:
    said, end = b"", time.monotonic() + 20
    while wanted not in said and time.monotonic() < end:
        if select.select([leader], [], [], 0.5)[0]:
            try:
                said += os.read(leader, 65536)
            except OSError:  # the terminal is closed
                break
    return said


@pytest.mark.parametrize("engine", ["native", "bubblewrap", "apptainer"])
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can see what root does")
@pytest.mark.apptainer
@pytest.mark.bubblewrap
@pytest.mark.squashfs
def test_root_can_run_containers_too(built: Path, tmp_path: Path, engine: str) -> None:
    argv = [
        sys.executable,
        "-m",
        "computeops",
        "exec",
        "--engine",
        engine,
        str(built),
        "/bin/sh",
        "-c",
        "echo $((6*7)); exit 3",
    ]
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(argv, env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (3, b"42\n"), done.stderr


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("form", ["small.oci", "small.tar", "tree"])
def test_other_forms_of_an_image_start_too(scientist, built: Path, engine: str, form: str) -> None:
    source = built.with_name("small.oci" if form == "small.tar" else form)
    target = scientist.home / source.name
    shutil.copytree(source, target, symlinks=True)
    if form == "small.tar":
        subprocess.run(["tar", "-C", target, "-cf", scientist.home / form, "."], check=True)
    scientist.own(scientist.home)
    done = containers.Launcher(scientist)("exec", "--engine", engine, form, "/bin/sh", "-c", "echo $0 here", "x")
    assert good(done) == "x here\n"


@pytest.mark.squashfs
def test_an_image_without_a_shell_starts_its_program(scientist, tmp_path: Path) -> None:
    tree = containers.root_filesystem(scientist.home / "tree")
    for name in ("sh", "bash"):
        for folder in ("bin", "usr/bin"):
            (tree / folder / name).unlink(missing_ok=True)
    for path in tree.rglob("*"):
        if path.name in {"dash", "bash"}:
            path.unlink()
    scripts = tree / ".singularity.d/env"
    scripts.mkdir(parents=True)
    (scripts / "90-environment.sh").write_text(
        "#!/bin/sh\nexport COLOUR='deep blue'\nexport PATH=/usr/bin:/bin\nexport X=$HOME\n"
    )
    scientist.own(scientist.home)
    launch = containers.Launcher(scientist)
    said = good(launch("exec", "--engine", "native", "--env", "SHAPE=round", "tree", "env"))
    assert {"COLOUR=deep blue", "PATH=/usr/bin:/bin", "SHAPE=round"} <= set(said.splitlines())
    assert launch("exec", "--engine", "native", "tree", "nothing").returncode == 127
    assert launch("exec", "--engine", "native", "tree", "/etc/passwd").returncode == 126
    assert launch("shell", "--engine", "native", "tree").returncode == 125
