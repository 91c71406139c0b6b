"""What the fetch of a pipeline may reach: names are looked up once, and each redirect is judged like an address."""

import os
from pathlib import Path

import pytest

from computeops.build import sources
from computeops.build.model import Place
from computeops.errors import ComputeOpsError, DeniedError, NetworkError
from computeops.http import Session
from computeops.http.addresses import only_to
from computeops.http.download import download
from computeops.hub.worker import addresses
from conftest import Scientist
from servers import Asked, serving
from worksite import git_over_http, python_for

GUARDED = """
import subprocess, sys, urllib.request
from pathlib import Path
from computeops.hub.pipelines.words import Bounds
from computeops.hub.worker import addresses, cage
from computeops.hub.worker.gateway import Gateway
from computeops.http import Session

folder, port = Path(sys.argv[1]), sys.argv[2]
folder.mkdir()
bounds = Bounds(seconds=60, memory=1024, disk=64, log_bytes=1000, processes=120)
judge, told = addresses.lookup(private=False), []

def lookup(host, port):
    return "127.0.0.1" if host == "mirror.example.org" else judge(host, port)

def tried(*argv):
    print(argv[0], subprocess.run(argv, capture_output=True).returncode, flush=True)

def step():
    for host in ("mirror.example.org", "127.0.0.1", "localhost"):
        for path in ("good", "leads"):
            with Session(seconds=5) as session:
                print(host, path, session.request("GET", f"http://{host}:{port}/{path}").body, flush=True)
    tried("git", "ls-remote", f"http://127.0.0.1:{port}/git")
    tried("skopeo", "inspect", "--tls-verify=false", f"docker://127.0.0.1:{port}/x")
    tried("skopeo", "inspect", "--tls-verify=false", f"docker://mirror.example.org:{port}/x")
    tried(sys.executable, "-c", f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)")
    urllib.request.urlopen(f"https://mirror.example.org:{port}/tls", timeout=5)

print(cage.run(step, folder.parent / "log", folder, bounds, network=False,
               gateway=lambda one: told.append(Gateway(one, lookup))))
told[0].close()
print(told[0].refused)
"""
ALONE = """
import os, socket, subprocess, sys
from pathlib import Path
from computeops.hub.pipelines.words import Bounds
from computeops.hub.worker import cage

folder, port = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir()
bounds = Bounds(seconds=30, memory=1024, disk=64, log_bytes=1000, processes=120)

def step():
    own = socket.create_server(("127.0.0.1", 0))
    socket.create_connection(own.getsockname()).close()
    print("loopback", os.getuid(), flush=True)
    socket.create_connection(("127.0.0.1", port), timeout=5)
    print("reached", flush=True)

def engines():
    mapped = ["unshare", "--user", "--map-root-user", "--map-auto", "true"]  # as boxes and Podman do
    for argv in (mapped, ["bwrap", "--ro-bind", "/", "/", "true"]):
        print(argv[0], subprocess.run(argv, capture_output=True).returncode, flush=True)

for network in (True, False):
    print(cage.run(step, folder.parent / f"log-{network}", folder, bounds, network=network), flush=True)
for ids in (True, False):
    cage.run(engines, folder.parent / f"ids-{ids}", folder, bounds, network=False, ids=ids)
"""


def test_a_redirect_leads_to_no_machine_of_the_own_network(tmp_path: Path) -> None:
    reached = list[str]()

    def inside(asked: Asked) -> None:
        reached.append(asked.path)
        asked.answer(200, b"secret")

    with serving(inside) as secret:

        def leads(asked: Asked) -> None:
            if asked.path == "/plain":
                asked.answer(200, b"good")
            else:
                asked.answer(302, b"", {"Location": f"{secret.url}{asked.path}"})

        with serving(leads) as mirror:
            with addresses.outside(private=False, own=[mirror.url]):
                download(f"{mirror.url}/plain", tmp_path / "good", limit_bytes=100)
                for url in (f"{mirror.url}/x", f"{secret.url}/y"):
                    with pytest.raises(DeniedError, match="not a public address"):
                        download(url, tmp_path / "bad", limit_bytes=100)
            with addresses.outside(private=True):
                download(f"{mirror.url}/z", tmp_path / "open", limit_bytes=100)
    assert reached == ["/z"]
    assert (tmp_path / "good").read_bytes() == b"good"
    assert not (tmp_path / "bad").exists()


def test_a_name_is_looked_up_once_and_the_connection_goes_there(tmp_path: Path) -> None:
    heard = list[str]()

    def answers(asked: Asked) -> None:
        heard.append(asked.headers["host"])
        asked.answer(200, b"{}")

    with serving(answers) as server, only_to(lambda *_: "127.0.0.1"), Session() as session:
        port = server.url.rpartition(":")[2]
        answer = session.request("GET", f"http://rebinding.invalid:{port}/x?y")
        assert (answer.url, heard) == (f"http://rebinding.invalid:{port}/x?y", [f"rebinding.invalid:{port}"])

    work = tmp_path / "work"
    work.mkdir()
    (work / "file").write_text("1")
    place = Place(work=tmp_path / "w", cache=tmp_path / "cache")
    with git_over_http(work, tmp_path / "bare") as (url, commit):
        named = url.replace("127.0.0.1", "rebinding.invalid")
        with only_to(lambda *_: "127.0.0.1"):
            assert sources.commit(named, commit, place).stat().st_size > 0

        def leads(asked: Asked) -> None:
            asked.answer(302, b"", {"Location": f"{url}{asked.path}?{asked.query}"})

        with serving(leads) as other:
            sources.commit(other.url, commit, place)  # as git does by itself
            with only_to(lambda *_: "127.0.0.1"), pytest.raises(NetworkError):
                sources.commit(other.url, commit, place)
        with addresses.outside(private=False), pytest.raises(ComputeOpsError, match="not a public address"):
            sources.commit(url, commit, place)


@pytest.mark.bubblewrap
def test_the_tests_of_a_recipe_have_a_loopback_and_no_network(scientist: Scientist) -> None:
    program = scientist.home / "alone.py"
    program.write_text(ALONE)
    python, env = python_for(scientist)
    with serving(lambda asked: asked.answer(200, b"")) as server:
        port = server.url.rpartition(":")[2]
        done = scientist.run([python, program, scientist.home / "work", port], env=env)
    assert done.stdout.decode().split("\n")[0] == "(0, '')", done.stdout
    assert not done.stdout.decode().split("\n")[1].startswith("(0,"), done.stdout
    logs = [(scientist.home / f"log-{network}").read_text() for network in (True, False)]
    uid = scientist.home.stat().st_uid
    assert logs[0].splitlines() == [f"loopback {uid}", "reached"], os.geteuid()
    assert logs[1].startswith(f"loopback {uid}\n")
    assert "reached" not in logs[1]
    assert (scientist.home / "ids-True").read_text() == "unshare 0\nbwrap 1\n"
    assert (scientist.home / "ids-False").read_text() == "unshare 1\nbwrap 0\n"


@pytest.mark.skopeo
def test_no_program_of_the_fetch_step_goes_past_the_gateway(scientist: Scientist) -> None:
    """Whatever it is, and wherever it is led: names, redirects, registries, and addresses that it has made up."""
    reached, program = list[str](), scientist.home / "guarded.py"
    program.write_text(GUARDED)
    python, env = python_for(scientist)

    def answers(asked: Asked) -> None:
        reached.append(f"{asked.headers['host'].partition(':')[0]}{asked.path}")
        if asked.path == "/leads":
            asked.answer(302, b"", {"Location": f"http://127.0.0.1:{port}/secret"})
        else:
            asked.answer(200, b"good")

    with serving(answers) as server:
        port = server.url.rpartition(":")[2]
        done = scientist.run([python, program, scientist.home / "work", port], env=env)
    lines = (scientist.home / "log").read_text().splitlines()
    assert lines[0] == "mirror.example.org good b'good'", lines
    assert all("not a public address" in line for line in lines[1:6]), lines
    assert [line.split()[1] for line in lines[6:10]] == ["128", "1", "1", "1"], lines
    assert "/secret" not in "".join(reached)
    # the registry was asked by its name, and by TLS nobody could answer; nothing came by the address
    assert {one.partition("/")[0] for one in reached} == {"mirror.example.org"}, reached
    assert "not a public address" in done.stdout.decode().splitlines()[-1], done.stdout
