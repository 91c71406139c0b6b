"""A person with a browser, a hub whose worker builds on a real Slurm, and the release that runs as a job there."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from building import base_layout
from chromium import Browser, browsing
from conftest import SCIENTIST, Scientist
from raw_http import Caller
from schedulers import slurm
from schedulers.daemons import Daemons
from shelf import until
from worksite import Worksite, git_over_http, tiny, worksite

pytestmark = [
    pytest.mark.apptainer,
    pytest.mark.browser,
    pytest.mark.buildah,
    pytest.mark.slurm,
    pytest.mark.squashfs,
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Daemons]:
    running = slurm.up()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def site(cluster: Daemons, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worksite]:
    """A hub, and a worker that hands what it builds to Slurm."""
    with worksite(tmp_path_factory.mktemp("site")) as made:
        made.worker("one", "--on", "slurm", "--memory", "1G", "--time", "1h", env=cluster.env)
        yield made


@pytest.fixture(scope="module")
def browser(site: Worksite) -> Iterator[Browser]:
    """Somebody who has signed in, and owns a collection."""
    argv = ["hub", "user", "add", "grace", "--data", site.hub.data]
    token = site.run(*argv).stdout.strip()
    assert site.run("hub", "collection", "main", "--public", "--data", site.hub.data).returncode == 0
    done = site.run("hub", "member", "set", "main", "grace", "owner", "--data", site.hub.data)
    assert done.returncode == 0, done.stderr
    with browsing() as made:
        made.open(f"{site.hub.address}/auth/tokens")
        made.fill("//input[@id='token']", token)
        made.click("//button[contains(., 'Sign in for an hour')]")
        made.find("//button[text()='Sign out']")
        yield made


def archive(folder: Path) -> Path:
    """Pack a program as its author has it: a Dockerfile, a licence, and no recipe."""
    folder.mkdir()
    base_layout(folder / "base.oci")
    (folder / "build.sh").write_text("echo begun; for one in 1 2 3; do echo step $one; done; echo hello > /made\n")
    lines = ["FROM oci:base.oci", "COPY build.sh /build.sh", "RUN sh /build.sh", 'ENTRYPOINT ["cat", "/made"]', ""]
    (folder / "Dockerfile").write_text("\n".join(lines))
    (folder / "CITATION.cff").write_text("cff-version: 1.2.0\ntitle: A tiny thing\nversion: 2.0\n")
    return Path(shutil.make_archive(str(folder), "gztar", folder.parent, folder.name))


def pipeline_of(browser: Browser) -> int:
    """Return the number of the pipeline that the browser is shown."""
    assert until(30, lambda: "/-/pipelines/" in browser.address), browser.source
    return int(browser.address.rpartition("/")[2])


def jobs(cluster: Daemons, number: int) -> list[str]:
    """Return how far the jobs of a pipeline are; each is of the user of the worker."""
    listed = cluster.run(["squeue", "--states=all", "--noheader", "--format=%j %u %T"]).splitlines()
    found = [one.split() for one in listed if one.startswith(f"pipeline-{number}-")]
    assert {user for _, user, _ in found} <= {SCIENTIST}
    return [state for _, _, state in found]


def test_from_an_archive_in_the_portal_to_apptainer_run_in_a_job_of_slurm(
    site: Worksite, cluster: Daemons, browser: Browser, scientist: Scientist, tmp_path: Path
) -> None:
    browser.open(f"{site.hub.address}/-/deposits")
    browser.fill("//input[@id='file-repository']", "main/tiny")
    browser.choose("//input[@id='archive']", archive(tmp_path / "tiny-2.0"))
    browser.click("//button[text()='Send it']")
    browser.fill("//input[@id='q-license']", "MIT")
    browser.fill("//input[@id='q-test']", "cat /made")
    browser.fill("//input[@id='q-expect']", "hello")
    browser.click("//button[text()='Build and publish']")
    assert until(30, lambda: "/-/pipelines/" in browser.address)
    number = pipeline_of(browser)
    worker = site.workers["one"]
    assert until(120, lambda: "build" in worker.steps(number))
    worker.kill(all_of_it=False)  # the job goes on meanwhile, and is not submitted again
    worker.start()
    site.ended(number)
    # it shows how far it is, and its log, by itself
    assert until(30, lambda: "passed  works" in browser.text("//pre"))
    assert jobs(cluster, number) == ["COMPLETED"]

    remote = scientist.home / ".apptainer/remote.yaml"
    remote.parent.mkdir()
    place = {"hub": {"URI": f"//{site.hub.host}", "Insecure": True}}
    remote.write_text(json.dumps({"Active": "hub", "Remotes": place}))
    remote.chmod(0o600)
    scientist.own(remote.parent)
    argv = ["srun", "--chdir=/tmp", "apptainer", "run", "library://main/tiny:2.0"]
    done = scientist.run(argv, env=cluster.env)
    assert done.stdout == b"hello\n"


def test_from_a_commit_in_the_portal_that_is_cancelled_and_retried(
    site: Worksite, cluster: Daemons, browser: Browser, tmp_path: Path
) -> None:
    work = tiny(tmp_path / "work" / "sub", "echo it hangs; sleep 777\n").parent
    with git_over_http(work, tmp_path / "served") as (url, commit):
        browser.open(f"{site.hub.address}/-/pipelines")
        browser.click("//summary")
        for name, text in (("repository", "main/tiny"), ("git", url), ("commit", commit), ("folder", "sub")):
            browser.fill(f"//input[@id='start-{name}']", text)
        browser.click("//button[text()='Build and publish']")
        number = pipeline_of(browser)
        assert until(120, lambda: "it hangs" in browser.text("//pre"))
        assert jobs(cluster, number) == ["RUNNING"]
        browser.click("//button[text()='Cancel']")
        assert until(60, lambda: jobs(cluster, number) == ["CANCELLED"])
        site.ended(number, "cancelled")
        browser.click("//button[contains(., 'Go on with')]")
        site.waited(number, {"running"})
        browser.click("//button[text()='Cancel']")
        site.ended(number, "cancelled")

    browser.open(f"{site.hub.address}/auth/collections/main")
    browser.fill("//input[@id='hook-git']", "https://git.example.org/tiny")
    browser.fill("//input[@id='hook-repository']", "main/tiny")
    browser.click("//button[text()='Let pushes start pipelines']")
    address, secret = browser.text("//pre[@class='secret']").split()
    event = {"ref": "refs/heads/main", "checkout_sha": commit}
    told = {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": secret}
    answer = Caller(site.hub.address)("POST", address, json.dumps(event), told)
    assert (answer.status, answer.json) == (200, {"ignored": "refs/heads/main is not refs/tags/*"})
    browser.click("//tr[contains(., 'git.example.org')]//button")
    assert until(30, lambda: "git.example.org/tiny" not in browser.source)

    # in a collection of its own: whatever is published there from now on has to be proven
    assert site.run("hub", "collection", "strict", "--public", "--data", site.hub.data).returncode == 0
    assert site.run("hub", "member", "set", "strict", "grace", "owner", "--data", site.hub.data).returncode == 0
    browser.open(f"{site.hub.address}/auth/collections/strict")
    browser.fill("//input[@id='rebuilds']", "2")
    browser.click("//button[text()='Ask for so many']")
    assert until(30, lambda: "2 different workers have rebuilt it" in browser.source)
