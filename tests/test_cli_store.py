"""login, push, search, show, pull as users type them, against a hub that is a process of its own."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from releases import pack, release
from servers import Asked, serving

Cli = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.squashfs


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line of a user with a home of their own, in the folder `tmp_path`."""
    home = tmp_path / "home"
    home.mkdir()

    def run(*argv: str | Path, stdin: str = "", code: int | None = 0) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
        command = [sys.executable, "-m", "computeops", *map(str, argv)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, input=stdin, capture_output=True, text=True, check=False
        )
        assert code is None or done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def test_the_whole_way(cli: Cli, hub, tmp_path: Path) -> None:
    made, image = release(tmp_path / "made")
    name = f"{hub.address}/bio/thing:1.0"
    token = hub.token("push:bio/thing")

    assert "policy" in cli("push", made.sif, name, code=10).stderr, "nobody has signed it"
    cli("key", "new", "ada")
    cli("sign", made.sif, "--key", "ada")
    assert "computeops login" in cli("push", made.sif, name, code=7).stderr

    assert f"logged in to {hub.address}" in cli("login", hub.address, "--token-stdin", stdin=token + "\n").stdout
    kept = tmp_path / "home/.config/computeops/credentials.json"
    assert kept.stat().st_mode & 0o777 == 0o600

    planned = json.loads(cli("push", made.sif, name, "--dry-run", "--json").stdout)
    assert planned["sources"] == ["thing_1.0~rc1+dfsg.orig.tar.xz"]
    assert json.loads(cli("search", "--hub", hub.address, "--json").stdout) == []

    pushed = json.loads(cli("push", made.sif, name, "--json").stdout)
    assert pushed["manifest"] == str(image.manifest)
    cli("push", made.sif, name)

    listed = cli("search", "--hub", hub.address, "thing").stdout
    assert "bio/thing:1.0" in listed
    assert "A thing for tests" in listed
    assert "nothing found" in cli("search", "--hub", hub.address, "nosuchthing").stdout

    shown = cli("show", name).stdout
    assert str(image.id) in shown
    assert "passed" in shown
    assert "astronomy" in shown
    assert json.loads(cli("show", name, "--json").stdout)["manifest"] == str(image.manifest)

    pulled = json.loads(cli("pull", name, "--json").stdout)
    assert pulled["digests"]["image"] == str(image.id)
    assert (tmp_path / "thing-1.0.sif").read_bytes() == made.sif.read_bytes()
    assert "--force" in cli("pull", name, code=6).stderr
    cli("pull", name, "--force")
    assert str(image.manifest) in cli("pull", name, "elsewhere.oci", "--dry-run").stdout
    assert not (tmp_path / "elsewhere.oci").exists()

    assert "logged out" in cli("logout", hub.address).stdout
    assert "was not logged in" in cli("logout", hub.address).stdout
    assert token not in kept.read_text()


def test_a_wrong_token_is_not_stored(cli: Cli, hub, tmp_path: Path) -> None:
    for token in ("cops_" + "x" * 209, "", "a b"):
        done = cli("login", hub.address, "--token-stdin", stdin=token, code=None)
        assert done.returncode in {2, 7}
        assert token == "" or token not in done.stderr
    assert not (tmp_path / "home/.config").exists()


def test_a_token_from_a_prompt_does_not_show(cli: Cli, hub, tmp_path: Path) -> None:
    token = hub.token("pull:*")
    ours, theirs = pty.openpty()
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}
    argv = [sys.executable, "-m", "computeops", "login", hub.address]
    process = subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True, close_fds=True
    )
    os.close(theirs)
    said = b""
    while b"Token" not in said:
        said += os.read(ours, 1000)
    os.write(ours, token.encode() + b"\n")
    try:
        while data := os.read(ours, 1000):
            said += data
    except OSError:  # the other end of a terminal closes so
        pass
    os.close(ours)
    assert process.wait(20) == 0, said
    assert b"logged in" in said
    assert token.encode() not in said


def test_without_a_hub_each_verb_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    pack(tmp_path)
    for argv in (["search", "x"], ["show", "a/b"], ["pull", "a/b:1"], ["push", "thing-1.0.sif", "a/b:1"], ["login"]):
        assert "COMPUTEOPS_HUB" in cli(*argv, code=2).stderr


def test_a_hub_that_is_not_there(cli: Cli) -> None:
    done = cli("login", "http://127.0.0.1:9", "--token-stdin", stdin="token", code=14)
    assert "no answer from http://127.0.0.1:9" in done.stderr


def test_what_a_hub_says_cannot_steer_the_terminal(cli: Cli) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202eevil"
    entry = {"reference": f"a/b:1{evil}", "collection": "a", "name": "b", "version": "1", "summary": evil}
    shown = entry | {"evidence": [{"kind": evil, "digest": "x", "signers": [evil]}], "commands": {evil: evil}}

    def answers(asked: Asked) -> None:
        found = {"releases": [entry], "next": None} if "search" in asked.path else shown
        asked.answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    with serving(answers) as server:
        for argv in (["search", "--hub", server.url, "x"], ["show", f"{server.url}/a/b:1"]):
            said = cli(*argv).stdout
            assert "evil" in said
            assert not set("\x1b\x07\r\u202e") & set(said)


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"releases": 3}', b'{"releases": [{}]}', b"<html>", b"[" * 100_000])
def test_an_answer_that_makes_no_sense(cli: Cli, body: bytes) -> None:
    with serving(lambda asked: asked.answer(200, body)) as server:
        cli("search", "--hub", server.url, "x", code=14)
        cli("show", f"{server.url}/a/b:1", code=14)


def test_a_registry_without_a_catalogue(cli: Cli) -> None:
    with serving(lambda asked: asked.answer(404, b"404 page not found")) as server:
        assert "without a catalogue" in cli("search", "--hub", server.url, "x", code=5).stderr


def test_a_search_that_needs_several_pages(cli: Cli) -> None:
    def answers(asked: Asked) -> None:
        after = int(dict(pair.split("=") for pair in asked.query.split("&"))["after"] or 0)
        rows = [{"reference": f"a/b:{after + n}", "collection": "a", "name": "b", "version": "1"} for n in range(100)]
        asked.answer(200, json.dumps({"releases": rows, "next": str(after + 100)}).encode())

    with serving(answers) as server:
        said = json.loads(cli("search", "--hub", server.url, "--limit", "250", "--json").stdout)
        assert len({one["reference"] for one in said}) == 250
        assert len(server.asked) == 3
