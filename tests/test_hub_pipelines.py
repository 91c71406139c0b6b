"""Pipelines with real hubs and workers: from a recipe to a release, whatever is killed or tried meanwhile."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from worksite import Worker, Worksite, git_over_http, tiny, worksite

pytestmark = [pytest.mark.buildah, pytest.mark.apptainer, pytest.mark.squashfs]
STEPS = ["fetch", "lint", "build", "test", "sbom", "scan", "sign", "publish", "deliver"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worksite]:
    """A hub with one worker, which the tests of this module share."""
    with worksite(tmp_path_factory.mktemp("site"), "log_bytes = 65536\nat_once = 4") as made:
        made.login()
        made.worker("one", "--at-once", "2")
        yield made


def test_from_a_folder_to_a_release_that_a_client_trusts(site: Worksite, tmp_path: Path) -> None:
    recipe = tiny(tmp_path / "recipe")
    done = site.run("pipeline", "start", recipe, "--for", f"{site.hub.host}/main/tiny", "--follow", "--json")
    assert done.returncode == 0, done.stdout + done.stderr + site.workers["one"].log()
    said = json.loads(done.stdout)
    assert [one["name"] for one in said["steps"]] == STEPS
    assert {one["state"] for one in said["steps"]} == {"done"}
    # who trusts the worker's key gets an image that passes the policy
    key = site.workers["one"].state / "keys/worker/public"
    assert site.run("key", "import", "hub-worker", key).returncode == 0
    pulled = site.run("pull", f"{site.hub.host}/main/tiny:1.0", tmp_path / "tiny.sif")
    assert pulled.returncode == 0, pulled.stderr
    evidence = json.loads(site.run("verify", tmp_path / "tiny.sif", "--json").stdout)["evidence"]
    assert {one["kind"].partition("/v")[0] for one in evidence} >= {"https://slsa.dev/provenance"}
    assert all(one["signers"] for one in evidence)
    # the same in CLI and API
    shown = site.run("pipeline", "show", str(said["id"])).stdout
    assert "succeeded" in shown
    assert "main/tiny" in site.run("pipeline", "list", "main").stdout
    assert "passed  says" in site.run("pipeline", "logs", str(said["id"])).stdout

    # nothing has changed: the first is the answer, and no worker is asked
    again = json.loads(site.run("pipeline", "start", recipe, "--for", f"{site.hub.host}/main/tiny", "--json").stdout)
    assert again["state"] == "succeeded"
    assert site.show(again["id"])["answered_by"] == said["id"]
    # another recipe of the same version is refused before it is built
    other = tiny(tmp_path / "other", "echo hello again > /made\n")
    refused = site.run("pipeline", "start", other, "--for", f"{site.hub.host}/main/tiny")
    assert (refused.returncode, "never changes" in refused.stderr) == (6, True)


def test_a_changed_test_does_not_build_the_image_again(site: Worksite, tmp_path: Path) -> None:
    recipe = tiny(tmp_path / "recipe", test="cat /mode")
    first = site.ended(site.start(recipe, "again/tiny"), "failed")
    assert "says" in first["error"]
    text = (recipe / "computeops.toml").read_text()
    (recipe / "computeops.toml").write_text(text.replace("/mode", "/made"))
    second = site.ended(site.start(recipe, "again/tiny"))
    facts = {one["name"]: one["facts"] for one in second["steps"]}
    assert facts["build"]["answered"] is True
    assert facts["test"] == {"tests": 1}
    status, release = site.ask("GET", "/api/v1/releases/again/tiny?version=1.0")
    assert status == 200
    assert "/made" in release["recipe"]["computeops.toml"]


def test_hub_and_worker_that_are_killed_at_each_step_go_on_there(site: Worksite, tmp_path: Path) -> None:
    recipe = tiny(tmp_path / "recipe", "echo hello killed > /made\n")
    worker = site.workers["one"]
    number = site.start(recipe, "killed/tiny")
    done: dict[str, Any] = {}
    for count, name in enumerate(STEPS[:-1]):
        _until(lambda name=name: name in worker.steps(number) or not (name == "fetch" or _left(worker, number)))
        worker.kill(all_of_it=count % 2 == 0)
        site.hub.stop(signal.SIGKILL)
        now = {key: step for key, step in worker.steps(number).items() if step["state"] == "done"}
        assert {key: now.get(key, step) for key, step in done.items()} == done  # none was done again
        done |= now
        worker.start()
        site.hub.start()
    found = site.ended(number)
    assert [one["name"] for one in found["steps"]] == STEPS
    assert found["attempts"] == 1
    for step in found["steps"]:
        if step["name"] in done:
            assert step["began"] == done[step["name"]]["began"], step["name"]
    assert _published(site, "killed/tiny") == 1


def _published(site: Worksite, repository: str) -> int:
    """Return how many images a repository has, tagged or not: one that was pushed twice would be two."""
    tags = site.ask("GET", f"/v2/{repository}/tags/list")[1]["tags"]
    assert sorted(tags) == ["1.0", "1.0.sif"]
    events = site.ask("GET", f"/api/v1/search?q={repository.partition('/')[0]}")[1]["releases"]
    return len([one for one in events if one["collection"] == repository.partition("/")[0]])


def _left(worker: Worker, number: int) -> bool:
    return (worker.state / "pipelines" / str(number)).exists()


def _until(condition: Any) -> None:
    until = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_build_sees_no_secret_and_no_network_and_may_print_what_it_likes(site: Worksite, tmp_path: Path) -> None:
    worker, secret = site.workers["one"], site.hub.data / "session.key"
    script = (
        f"ls {site.hub.data} {site.hub.data.parent} {worker.state}/keys {worker.state}/pipelines && echo SEEN\n"
        f"cat {secret} {worker.state}/keys/worker/secret /proc/1/environ && echo SEEN\n"
        "env | grep -i -e token -e cops_ && echo SEEN\n"
        f"wget -T 2 -q -O - {site.hub.address}/healthz && echo SEEN\n"
        "id -u; touch /etc/mine || echo cannot\n"
        "yes | head -c 3000000 | tr 'y' 'z'; echo hello > /made\n"
    )
    recipe = tiny(tmp_path / "recipe", script.replace("yes |", "while echo yyyyyyyyyyyyyyyy; do :; done |"))
    number = site.start(recipe, "spy/tiny")
    site.ended(number)
    log = site.log(number)
    assert "SEEN" not in log
    assert worker.token not in log
    assert len(log) < 70_000
    assert "the log was longer than is kept" in log


def test_cancel_ends_what_hangs_and_retry_goes_on(site: Worksite, tmp_path: Path) -> None:
    seconds = 1_000_000 + os.getpid()  # by which it is known among all processes
    recipe = tiny(tmp_path / "recipe", f"echo begun; sleep {seconds}\n")
    worker = site.workers["one"]
    number = site.start(recipe, "hang/tiny")
    _until(lambda: "begun" in site.log(number))
    assert f"pipeline {number}:" in site.run("pipeline", "cancel", str(number)).stdout
    found = site.ended(number, "cancelled")
    assert [one["name"] for one in found["steps"] if one["state"] == "done"] == ["fetch", "lint"]
    _until(lambda: not any(b"sleep\0%d\0" % seconds == _cmdline(pid) for pid in _pids()))
    _until(lambda: not _left(worker, number))
    assert "waiting" in site.run("pipeline", "retry", str(number)).stdout
    site.waited(number, {"running"})
    assert site.ask("POST", f"/api/v1/pipelines/{number}/cancel")[0] == 201
    site.ended(number, "cancelled")


def _pids() -> list[int]:
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_a_push_elsewhere_becomes_a_release(site: Worksite, tmp_path: Path) -> None:
    """From a commit in a git repository, with hooks that do not run and a submodule that is not followed."""
    work = tiny(tmp_path / "work" / "sub", "echo hello from git > /made\n").parent
    with git_over_http(work, tmp_path / "served") as (url, commit):
        token = site.hub.token("manage:*", name="owner")
        assert site.ask("PUT", "/api/v1/collections/git", {"public": True}, token=token)[0] == 204
        asked = {"repository": "git/tiny", "kind": "gitlab", "git": url, "folder": "sub"}
        status, given = site.ask("POST", "/api/v1/collections/git/hooks", asked, token=token)
        assert status == 201, given
        body = json.dumps({"ref": "refs/tags/v1", "checkout_sha": commit}).encode()
        request = urllib.request.Request(f"{site.hub.address}{given['url']}", body, method="POST")
        request.add_header("X-Gitlab-Token", given["secret"])
        request.add_header("X-Gitlab-Event", "Tag Push Hook")
        with urllib.request.urlopen(request, timeout=60) as answer:
            number = json.load(answer)["pipeline"]
        site.ended(number)
        assert not (tmp_path / "ran").exists()
        # what leads out of the tree stops it, before anything of it is read
        (work / "sub/secret").symlink_to("../../../../../etc/passwd")
        with git_over_http(work, tmp_path / "hostile") as (evil, head):
            done = site.run("pipeline", "start", evil, "--commit", head, "--for", "git/evil", "--folder", "sub")
            number = int(done.stdout.split()[1].rstrip(":"))
            assert "leads out of it" in site.ended(number, "failed")["error"]


def test_rebuilds_by_others_come_before_publication(site: Worksite, tmp_path: Path) -> None:
    token = site.hub.token("manage:*", name="owner")
    assert site.ask("PUT", "/api/v1/collections/proven", {"public": True}, token=token)[0] == 204
    recipe = tiny(tmp_path / "recipe", "echo hello proof > /made\n")
    status, said = site.ask("PUT", "/api/v1/collections/proven/rebuilds", {"rebuilds": 1}, token=token)
    assert status == 204, said
    number = site.start(recipe, "proven/tiny")
    site.waited(number, {"proving"})
    assert site.ask("GET", "/v2/proven/tiny/manifests/1.0")[0] == 404
    asked: list[dict[str, Any]] = []

    def rebuilds() -> bool:
        found = site.ask("GET", "/api/v1/pipelines?repository=proven")[1]
        asked.extend(one for one in found if one["kind"] == "rebuild")
        return bool(asked)

    _until(rebuilds)
    rebuild = asked[0]
    assert rebuild["state"] == "waiting"  # who built it is no second opinion
    site.worker("two")
    try:
        found = site.ended(number)
    finally:
        site.workers.pop("two").close()  # other tests look into the folder of the one that is left
    assert next(one for one in found["steps"] if one["name"] == "prove")["facts"] == {"identical": 1}
    verdict = next(one for one in site.show(rebuild["id"])["steps"] if one["name"] == "rebuild")
    assert verdict["facts"]["identical"] is True
    evidence = site.ask("GET", "/api/v1/releases/proven/tiny?version=1.0")[1]["evidence"]
    assert [one["passed"] for one in evidence if "rebuild" in one["kind"]] == [True]
