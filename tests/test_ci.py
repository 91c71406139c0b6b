"""`computeops ci`: the whole pipeline in one process as a runner calls it, the files it comes from, and its logins."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from joserfc import jwt
from joserfc.jwk import ECKey

import building
import feeds
from computeops.check.report import gitlab
from computeops.ci import junit, sections
from conftest import RunningHub, Scientist
from schedulers import slurm
from schedulers.daemons import Daemons
from servers import Asked, Server, serving

BIN = Path(sys.executable).parent
RECIPE = """
[package]
name = "greeting"
version = "1.0"
summary = "Says hello from a Dockerfile"
license = "Apache-2.0"

[[sources]]
path = "greeting.txt"

[build]
builder = "dockerfile"
file = "Dockerfile"

[[tests]]
name = "greets"
run = "greet"
expect = "hello"
"""
CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
CI = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of an author with a key, and a repository with a locked recipe."""
    home = tmp_path_factory.mktemp("author")
    folder = building.copy_recipe("dockerfile", home / "repository")
    (folder / "computeops.toml").write_text(RECIPE)
    call(home, "key", "new", "author")
    call(home, "lock", "repository")
    return home


@pytest.fixture
def ci(home: Path, tmp_path: Path) -> CI:
    """Call computeops on a runner: in a clone of the repository, without the author's keys."""
    shutil.copytree(home / "repository", tmp_path / "runner/repository")

    def computeops(*argv: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        return call(tmp_path / "runner", *argv, code=code, variables=variables)

    return computeops


def call(
    home: Path, *argv: str | Path, code: int = 0, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    env = {"HOME": str(home), "PATH": f"{BIN}:{os.environ['PATH']}", "TMPDIR": "/var/tmp", **(variables or {})}
    command = [sys.executable, "-m", "computeops", *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=home)
    assert done.returncode == code, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def secret(home: Path) -> str:
    return (home / ".config/computeops/keys/author/secret").read_text()


def pulled(home: Path, hub: RunningHub, into: Path) -> Path:
    """Pull as somebody who trusts the author."""
    into.mkdir()
    (into / "author.pub").write_text(call(home, "key", "export", "author").stdout)
    call(into, "key", "import", "author", "author.pub")
    call(into, "pull", f"{hub.address}/bio/greeting:1.0", "greeting.sif")
    return into / "greeting.sif"


@pytest.mark.buildah
def test_a_run_leaves_image_evidence_and_reports(ci: CI, tmp_path: Path) -> None:
    log = ci("ci", "run", "repository", GITLAB_CI="true").stdout
    steps = ["lint", "lock", "build", "test", "sbom", "sign"]
    assert [step for step in steps if f"section_start:{int(time.time()) // 10000}" in log and step in log] == steps
    reports = tmp_path / "runner/reports"
    suites = ET.fromstring((reports / "junit.xml").read_bytes())
    assert (suites.get("tests"), suites.get("failures")) == ("1", "0")
    assert suites[0][0].get("name") == "greets"
    assert json.loads((reports / "greeting-1.0.cdx.json").read_text())["bomFormat"] == "CycloneDX"
    summary = json.loads((reports / "summary.json").read_text())
    assert summary["exit_code"] == 0
    assert [one["step"] for one in summary["steps"]] == steps
    assert summary["images"][0]["evidence"] == {"provenance": None, "test": True, "cyclonedx": None, "spdx": None}
    assert (tmp_path / "runner/built/greeting-1.0.sif").exists()


@pytest.mark.buildah
def test_a_failed_test_of_one_variant_publishes_none(ci: CI, home: Path, hub: RunningHub, tmp_path: Path) -> None:
    folder = tmp_path / "runner/repository"
    variants = '[[variants]]\nname = "quiet"\n\n[[variants]]\nname = "loud"\noptions = { GREETING = "HELLO" }\n'
    (folder / "computeops.toml").write_text(RECIPE + variants)
    push = ("ci", "run", "repository", "--push", f"{hub.address}/bio/greeting", "--key-env", "KEY")
    log = ci(*push, code=13, KEY=secret(home), COMPUTEOPS_TOKEN=hub.token("push:bio/*"), GITHUB_ACTIONS="true").stdout
    assert "::group::test loud" in log
    assert "FAILED  greets: the output lacks 'hello'" in log
    suites = ET.fromstring((tmp_path / "runner/reports/junit.xml").read_bytes())
    assert [suite.get("failures") for suite in suites] == ["0", "1"]
    failure = suites[1][0][0]
    assert failure.get("message") == "the output lacks 'hello'"
    assert "HELLO" in (failure.text or "")
    call(tmp_path / "runner", "show", f"{hub.address}/bio/greeting:1.0-quiet", code=5)
    summary = json.loads((tmp_path / "runner/reports/summary.json").read_text())
    assert summary["exit_code"] == 13
    assert [one["manifest"] for one in summary["images"]] == ["", ""]


@pytest.mark.buildah
def test_what_is_published_is_trusted_and_no_secret_shows(ci: CI, home: Path, hub: RunningHub, tmp_path: Path) -> None:
    given = {"KEY": secret(home), "COMPUTEOPS_TOKEN": hub.token("push:bio/*")}
    (tmp_path / "token").write_text(given["COMPUTEOPS_TOKEN"])
    variables = given | {"COMPUTEOPS_TOKEN": str(tmp_path / "token")}
    push = ("ci", "run", "repository", "--push", f"{hub.address}/bio/greeting", "--key-env", "KEY")
    done = ci(*push, **variables)
    assert pulled(home, hub, tmp_path / "scientist").exists()
    written = [path.read_text() for path in (tmp_path / "runner/reports").iterdir()]
    words = [given["COMPUTEOPS_TOKEN"], *(line for line in given["KEY"].splitlines() if len(line) > 30)]
    assert not [word for word in words for text in (done.stdout, done.stderr, *written) if word in text]
    assert not (tmp_path / "runner/.config").exists()  # neither a keyring nor a login stays on the runner
    assert not list(Path("/var/tmp").glob("computeops-keys-*"))


@pytest.mark.parametrize(
    ("options", "variables", "code", "words"),
    [
        (["--push", "hub.example.org/bio/greeting"], {}, 2, "nothing is published that nobody signed"),
        (["--key-env", "KEY"], {}, 2, "the variable KEY is not set"),
        (["--fail-on", "critical"], {}, 5, "there is no index of advisories"),
        (["--key-env", "KEY"], {"KEY": "/nowhere/key"}, 5, "cannot read the file that KEY names"),
        (["--key-env", "KEY"], {"KEY": "not a key"}, 2, "holds no secret key"),
        (["--push", "bio/greeting:2.0"], {"COMPUTEOPS_KEY": "x"}, 5, "no key 'x'"),
    ],
)
def test_what_a_run_lacks_is_told_before_it_builds(
    ci: CI, options: list[str], variables: dict[str, str], code: int, words: str
) -> None:
    done = ci("ci", "run", "repository", *options, code=code, **variables)
    assert words in done.stderr
    assert "build" not in done.stdout


def test_a_version_that_is_not_the_recipes_and_an_old_lock_stop_the_run(ci: CI, home: Path, tmp_path: Path) -> None:
    push = ("ci", "run", "repository", "--push", "hub.example.org/bio/greeting:2.0", "--key-env", "KEY")
    assert "the recipe is of version 1.0" in ci(*push, code=2, KEY=secret(home)).stderr
    with (tmp_path / "runner/repository/Dockerfile").open("a") as file:
        file.write("RUN true\n")
    assert "another state of the recipe" in ci("ci", "run", "repository", code=3).stderr
    summary = json.loads((tmp_path / "runner/reports/summary.json").read_text())
    assert (summary["exit_code"], summary["steps"][-1]["outcome"]) == (3, "failed")
    assert "computeops lock" in summary["error"]["hint"]


class Issuer:
    """A CI service: publishes its key, signs tokens of jobs, and gives one to who asks as GitHub does."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "1", "use": "sig"})
        self.claims: dict[str, str] = {}

    def token(self, address: str, audience: str) -> str:
        now = int(time.time())
        claims = {"iss": address, "aud": audience, "iat": now, "exp": now + 300, "sub": "job", **self.claims}
        return jwt.encode({"alg": "ES256", "kid": "1"}, claims, self.key)

    def answer(self, asked: Asked) -> None:
        address = f"http://{asked.headers['host']}"
        about = {"issuer": address, "jwks_uri": f"{address}/keys"}
        pages: dict[str, object] = {
            "/.well-known/openid-configuration": about,
            "/keys": {"keys": [self.key.as_dict(private=False)]},
        }
        if asked.path == "/token" and asked.headers.get("authorization") == "Bearer of-the-job":
            audience = asked.query.partition("audience=")[2].replace("%3A", ":").replace("%2F", "/")
            pages["/token"] = {"value": self.token(address, audience)}
        found = pages.get(asked.path)
        asked.answer(200 if found else 404, json.dumps(found).encode(), {"Content-Type": "application/json"})


@pytest.fixture
def issuer() -> Iterator[tuple[Issuer, Server]]:
    made = Issuer()
    with serving(made.answer) as server:
        yield made, server


def knows(hub: RunningHub, home: Path, address: str, kind: str) -> None:
    """Let the hub know the tags of `lab/greeting` at the service with this address."""
    hub.stop()
    settings = f'audience = "{hub.address}"\n[[ci]]\nissuer = "{address}"\nkind = "{kind}"\n'
    file = hub.data / "hub.toml"
    file.write_text(settings + (file.read_text() if file.exists() else ""))
    hub.start()
    call(home, "hub", "collection", "bio", "--public", "--data", hub.data)
    bind = ("hub", "publisher", "add", "bio", "--data", hub.data, "--issuer", address, "--project", "lab/greeting")
    call(home, *bind, "--ref", "refs/tags/v*")


@pytest.mark.buildah
def test_a_job_that_the_hub_knows_needs_no_token(
    ci: CI, home: Path, hub: RunningHub, issuer: tuple[Issuer, Server], tmp_path: Path
) -> None:
    service, server = issuer
    knows(hub, home, server.url, "gitlab")
    service.claims = {"project_path": "lab/greeting", "project_id": "7", "ref_path": "refs/tags/v1.0"}
    push = ("ci", "run", "repository", "--push", f"{hub.address}/bio/greeting", "--key-env", "KEY")
    ci(*push, KEY=secret(home), COMPUTEOPS_ID_TOKEN=service.token(server.url, hub.address))
    assert pulled(home, hub, tmp_path / "scientist").exists()


@pytest.mark.buildah
def test_a_job_that_the_hub_does_not_know_is_told_what_to_do(
    ci: CI, home: Path, hub: RunningHub, tmp_path: Path
) -> None:
    push = ("ci", "run", "repository", "--push", f"{hub.address}/bio/greeting", "--key-env", "KEY")
    done = ci(*push, code=7, KEY=secret(home))
    assert "give it an ID token in COMPUTEOPS_ID_TOKEN, or a token" in done.stderr
    assert json.loads((tmp_path / "runner/reports/summary.json").read_text())["steps"][-1]["step"] == "publish"


@pytest.mark.parametrize(
    ("service", "schemas"),
    [
        ("gitlab", {".gitlab-ci.yml": "gitlab-ci", ".gitlab/computeops.yml": "gitlab-ci"}),
        ("github", {".github/workflows/computeops.yml": "github-workflows"}),
    ],
)
def test_pipeline_files_satisfy_the_published_schemas(
    ci: CI, service: str, schemas: dict[str, str], tmp_path: Path
) -> None:
    ci("ci", "init", "repository", "--for", service, "--push", "hub.example.org/bio/greeting")
    for name, schema in schemas.items():
        for number, document in enumerate(yaml.safe_load_all((tmp_path / "runner/repository" / name).read_text())):
            if set(document) == {"spec"}:  # the head of a component; the schema is for what follows
                continue
            file = tmp_path / f"{number}.json"
            # YAML 1.1 reads the key `on` as a truth
            file.write_text(json.dumps({"on" if key is True else key: value for key, value in document.items()}))
            argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", str(file)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout


def test_pipeline_files_are_never_written_over_others(ci: CI, tmp_path: Path) -> None:
    folder = tmp_path / "runner/repository"
    init = ("ci", "init", "repository", "--for", "gitlab", "--push", "hub.example.org/bio/greeting")
    (folder / ".gitlab-ci.yml").write_text("mine\n")
    assert ".gitlab-ci.yml: there is one already" in ci(*init, code=6).stderr
    assert not (folder / ".gitlab").exists()
    ci(*init, "--force")
    assert "bio/greeting" in (folder / ".gitlab-ci.yml").read_text()
    ci(*init)  # the same again is no harm
    assert ci("ci", "init", "repository", "--for", "gitlab", "--push", "bio/greeting:1.0", code=2).stderr
    assert ci("ci", "init", "--recipe", "../x", "--for", "gitlab", "--push", "h.org/a/b", code=2).stderr


class Repository:
    """The recipe in a git repository, its image with a package in it, and what the runner of the site has."""

    def __init__(self, ci: CI, home: Path, hub: RunningHub, site: Path) -> None:
        self.folder = site / "runner/repository"
        self._ci = ci
        self.env = {
            "HOME": str(site),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "COMPUTEOPS_FEEDS": str(site / "feeds"),
        }
        record = feeds.osv("DEBIAN-CVE-2026-1001", severity=[{"type": "CVSS_V3", "score": CRITICAL}])
        for feed in ("osv/Debian", "osv/PyPI"):
            feeds.write_zip(site / f"feeds/{feed}/all.zip", [record], when=int(time.time()) - 3600)
        known = {"vulnerabilities": [{"cveID": "CVE-2026-1001", "dateAdded": "2026-11-01"}]}
        feeds.write(site / "feeds/kev.json", known, when=int(time.time()) - 3600)
        (site / "author.pub").write_text(call(home, "key", "export", "author").stdout)
        call(site, "key", "import", "author", "author.pub")
        call(site, "hub", "collection", "bio", "--public", "--data", hub.data)

    def git(self, *argv: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *argv], cwd=self.folder, env=self.env, capture_output=True, check=True)

    def zlib(self, version: str) -> None:
        """Commit that the image has this version of a package of Debian."""
        package = "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nSource: zlib\n"
        (self.folder / "status").write_text(f"{package}Version: {version}\n")
        (self.folder / "os-release").write_text('ID=debian\nVERSION_ID="12"\n')
        (self.folder / "greet").write_text('#!/bin/sh\necho hello "$@"\n')
        copied = {"greet": "/bin/greet", "status": "/var/lib/dpkg/status", "os-release": "/etc/os-release"}
        (self.folder / "computeops.toml").write_text(
            RECIPE + "".join(f'[[sources]]\npath = "{name}"\n' for name in copied)
        )
        lines = [f"COPY --chmod=755 {name} {place}" for name, place in copied.items()]
        (self.folder / "Dockerfile").write_text("\n".join(["FROM oci:base.oci", *lines, 'ENTRYPOINT ["greet"]', ""]))
        self._ci("lock", "repository")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", version)

    def run(self, *argv: str | Path, code: int = 0) -> str:
        words = list(map(str, argv))
        done = subprocess.run(words, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def repository(ci: CI, home: Path, hub: RunningHub, tmp_path: Path) -> Repository:
    made = Repository(ci, home, hub, tmp_path)
    made.git("init", "-q", "-b", "main")
    made.git("remote", "add", "origin", "git@git.example.org:bio/greeting.git")
    return made


@pytest.fixture
def cluster() -> Iterator[Daemons]:
    running = slurm.up()
    yield running
    running.stop()


@pytest.fixture
def login_node(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """A real sshd on a port of its own, and the variables by which rsync gets there."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    settings = {"Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "PidFile": "none"}
    settings |= {"AuthorizedKeysFile": folder / "user.pub", "StrictModes": "no", "UsePAM": "no"}
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    Path("/run/sshd").mkdir(exist_ok=True)
    argv = ["/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(argv, stderr=log)
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    ssh = f"ssh -F none -p {port} -i {folder}/user -o UserKnownHostsFile={folder}/known -o ConnectionAttempts=20"
    yield {"RSYNC_RSH": ssh}
    daemon.terminate()
    daemon.wait(10)


@pytest.mark.apptainer
@pytest.mark.buildah
@pytest.mark.gitlab_ci_local
@pytest.mark.slurm
@pytest.mark.ssh
def test_from_a_commit_by_the_pipeline_of_gitlab_to_a_job_of_slurm_that_runs_the_release(
    ci: CI,
    home: Path,
    hub: RunningHub,
    repository: Repository,
    cluster: Daemons,
    scientist: Scientist,
    login_node: Mapping[str, str],
    tmp_path: Path,
) -> None:
    folder, shared = repository.folder, scientist.home / "shared"
    ci("ci", "init", "repository", "--for", "gitlab", "--push", f"{hub.address}/bio/greeting")
    remote = scientist.home / ".apptainer/remote.yaml"
    remote.parent.mkdir()
    remote.write_text(json.dumps({"Active": "hub", "Remotes": {"hub": {"URI": f"//{hub.host}", "Insecure": True}}}))
    remote.chmod(0o600)
    scientist.own(remote.parent)
    pipeline = yaml.safe_load((folder / ".gitlab-ci.yml").read_text())
    job = ["apptainer", "run", "library://bio/greeting:1.0", "from the hub"]
    local = ["apptainer", "run", shared / "greeting-1.0.sif", "from the folder"]
    script = "; ".join(shlex.join(map(str, words)) for words in (job, local))
    submit = ["env", f"HOME={scientist.home}", "srun", "--chdir=/tmp", "sh", "-ec", script]
    pipeline["include"][0]["inputs"] |= {
        "deploy": "folder",
        "deploy_to": str(shared),
        "deploy_check": shlex.join(scientist.argv(submit)),
    }
    (folder / ".gitlab-ci.yml").write_text(json.dumps(pipeline))
    settings = tmp_path / "settings/.gitlab-ci-local"
    settings.mkdir(parents=True)
    variables = {
        "COMPUTEOPS_TOKEN": hub.token("push:bio/*"),
        "COMPUTEOPS_SIGNING_KEY": {"type": "file", "values": {"*": secret(home)}},
    }
    (settings / "variables.yml").write_text(json.dumps({"global": variables}))
    repository.env |= {"GCL_IGNORE_PREDEFINED_VARS": "CI_PROJECT_DIR,CI_COMMIT_TAG", **cluster.env}
    runner = ("gitlab-ci-local", "--force-shell-executor", "--home", settings.parent)
    runner = (*runner, "--variable", f"CI_PROJECT_DIR={folder}")

    repository.zlib("1:1.2.13.dfsg-1")  # of which an advisory knows a critical vulnerability
    log = repository.run(*runner, code=1)
    assert "FAIL  computeops" in log
    report = json.loads((folder / "reports/gl-container-scanning.json").read_text())
    assert [one["severity"] for one in report["vulnerabilities"]] == ["Critical"]
    assert json.loads((folder / "reports/summary.json").read_text())["exit_code"] == 13

    repository.zlib("1:1.2.13.dfsg-1+deb12u1")
    repository.git("tag", "v1.0")
    call(tmp_path / "runner", "show", f"{hub.address}/bio/greeting:1.0", code=5)
    log = repository.run(*runner, "--variable", "CI_COMMIT_TAG=v1.0")
    assert "PASS  computeops-publish" in log
    assert "PASS  computeops-deploy" in log
    assert "from the hub" in log
    assert "from the folder" in log
    deployed = (shared / "greeting-1.0.sif").stat()

    again = repository.run("computeops", "ci", "deploy", shared)  # nothing is fetched twice
    assert "greeting-1.0.sif" in again
    assert (shared / "greeting-1.0.sif").stat().st_ino == deployed.st_ino
    image = (shared / "greeting-1.0.sif").read_bytes()
    (shared / "greeting-1.0.sif").write_bytes(b"another")
    repository.run("computeops", "ci", "deploy", shared, code=6)
    assert (shared / "greeting-1.0.sif").read_bytes() == b"another"

    repository.env |= login_node  # to a machine that has nothing but rsync and ssh
    there = tmp_path / "there"
    for _ in range(2):  # the second time there is nothing to send
        repository.run("computeops", "ci", "deploy", f"127.0.0.1:{there}")
        assert (there / "greeting-1.0.sif").read_bytes() == image
    (there / "greeting-1.0.sif").write_bytes(b"another")
    repository.run("computeops", "ci", "deploy", f"127.0.0.1:{there}", code=6)
    repository.run("computeops", "ci", "deploy", f"127.0.0.1:{there}", "--force")
    assert (there / "greeting-1.0.sif").read_bytes() == image


ACTIONS = {
    "actions/upload-artifact@v4": (
        "action.yml",
        'mkdir -p "$STORE"; for one in $GIVEN; do cp -r --parents "$one" "$STORE"; done',
        "path",
    ),
    "actions/download-artifact@v4": ("action.yml", 'cp -r "$STORE/." .; : "$GIVEN"', "name"),
    "github/codeql-action@v3": ("upload-sarif/action.yml", 'cp "$GIVEN"/*.sarif "$STORE-found.sarif"', "sarif_file"),
}
"""Stand-ins for the actions that talk to GitHub itself: file, what it does, and the input that it looks at."""


def actions(folder: Path) -> list[str]:
    """Write the stand-ins, and return the words by which act takes them."""
    words = []
    for name, (file, script, given) in ACTIONS.items():
        place = folder / name.replace("/", "-") / file
        place.parent.mkdir(parents=True)
        step = {"shell": "bash", "run": script, "env": {"GIVEN": f"${{{{ inputs.{given} }}}}"}}
        action = {"name": name, "inputs": {given: {}}, "runs": {"using": "composite", "steps": [step]}}
        place.write_text(json.dumps(action))
        words += ["--local-repository", f"{name}={folder / name.replace('/', '-')}"]
    return words


@pytest.mark.act
@pytest.mark.buildah
def test_from_a_commit_by_the_workflow_of_github_to_an_image_in_the_folder_of_a_cluster(
    ci: CI, home: Path, hub: RunningHub, repository: Repository, issuer: tuple[Issuer, Server], tmp_path: Path
) -> None:
    service, server = issuer
    service.claims = {"repository": "lab/greeting", "repository_id": "7", "ref": "refs/tags/v1.0"}
    knows(hub, home, server.url, "github")
    ci("ci", "init", "repository", "--for", "github", "--push", f"{hub.address}/bio/greeting")
    shared, store = tmp_path / "shared", tmp_path / "store"
    repository.env["COMPUTEOPS_SIGNING_KEY"] = secret(home)
    act = ["act", "push", *actions(tmp_path / "actions"), "--no-cache-server", "--secret", "COMPUTEOPS_SIGNING_KEY"]
    for label in ("ubuntu-24.04", "self-hosted"):
        act += ["--platform", f"{label}=-self-hosted"]
    asked = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{server.url}/token?a=1", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job"}
    for name, value in {**asked, "STORE": str(store)}.items():
        act += ["--env", f"{name}={value}"]

    repository.zlib("1:1.2.13.dfsg-1")
    assert "exit status 13" in repository.run(*act, code=1)
    (found,) = json.loads(Path(f"{store}-found.sarif").read_text())["runs"]
    assert found["automationDetails"] == {"id": "computeops/generic/"}
    assert [one["ruleId"] for one in found["results"]] == ["CVE-2026-1001"]
    shutil.rmtree(store)

    repository.zlib("1:1.2.13.dfsg-1+deb12u1")
    repository.git("tag", "v1.0")
    (tmp_path / "event.json").write_text('{"ref": "refs/tags/v1.0"}')
    log = repository.run(*act, "--eventpath", tmp_path / "event.json", "--var", f"COMPUTEOPS_DEPLOY_TO={shared}")
    assert log.count("Job succeeded") == 2
    assert "hello" in call(tmp_path, "run", shared / "greeting-1.0.sif", "there").stdout
    assert (store / "built/greeting-1.0.sif").exists()
    stranger = tmp_path / "stranger"  # a site that does not know the author
    stranger.mkdir()
    call(stranger, "ci", "deploy", stranger / "shared", "--reports", store / "reports", code=10)
    assert not list((stranger / "shared").iterdir())


@pytest.mark.parametrize(
    ("summary", "code", "words"),
    [
        (None, 5, "cannot read"),
        ("{", 4, "is not of `computeops ci run`"),
        ('{"images": [{"manifest": "", "reference": ""}]}', 5, "nothing published"),
        ('{"images": [{"manifest": "sha256:..", "reference": "h.org/a/b:1"}]}', 4, "not a digest"),
        ('{"images": [{"manifest": "%s", "reference": "h.org/a/../../b:1"}]}', 2, "not a reference"),
        ('{"images": [{"manifest": "%s", "reference": "h.org/a/b:../x"}]}', 2, "not a reference"),
    ],
)
def test_reports_that_are_not_of_a_run_that_published_deploy_nothing(
    summary: str | None, code: int, words: str, tmp_path: Path
) -> None:
    if summary is not None:
        (tmp_path / "summary.json").write_text(summary.replace("%s", "sha256:" + 64 * "0"))
    done = call(tmp_path, "ci", "deploy", "shared", "--reports", ".", code=code)
    assert words in done.stderr
    assert not (tmp_path / "shared").exists()


def test_one_report_for_gitlab_tells_of_all_variants_once() -> None:
    one, other = ({"id": name, "severity": "High"} for name in "ab")
    reports = [
        json.dumps({"vulnerabilities": found, "scan": {"messages": [{"value": "stale"}]}})
        for found in ([one], [one, other], [other])
    ]
    made = json.loads(gitlab.merged(reports))
    assert made == {"vulnerabilities": [one, other], "scan": {"messages": [{"value": "stale"}]}}


def test_what_a_build_prints_is_no_command_for_the_runner() -> None:
    hostile = "\x1b[0Ksection_end:1:x\r\x1b[0K::set-env name=A::b"
    assert "\x1b" not in sections.plain("gitlab", hostile)
    assert "\r" not in sections.plain("gitlab", hostile)
    assert not sections.plain("github", "  ::add-path::/tmp").lstrip().startswith("::")
    assert sections.plain("github", "std::vector") == "std::vector"


def test_junit_holds_whatever_a_test_prints() -> None:
    bad = {"name": "a\x00<b", "seconds": 1.5, "fault": "]]>\ud800", "output": "\x1b[31m\uffff&"}
    suite = ET.fromstring(junit.junit({"x": [bad, {"name": "c", "seconds": 0.25}]}))
    assert suite.get("time") == "1.750"
    assert suite[0][0].get("name") == "a\N{REPLACEMENT CHARACTER}<b"
    assert suite[0].get("failures") == "1"
