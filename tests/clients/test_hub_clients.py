"""Real clients against a hub: Skopeo, Podman, Docker, ORAS and Apptainer push and pull, and everyone gets the bytes that were sent."""

import contextlib
import filecmp
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import furnish
from computeops.image import convert, oci
from computeops.image.tree import Directory
from conftest import RunningHub, Scientist
from raw_http import Caller, basic
from servers import Server, balancer

EPOCH = 315532800
PODMAN = ["podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]


@pytest.fixture(scope="module", params=["hub", pytest.param("site", marks=pytest.mark.postgresql)])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub; or two that are one, on one database and in one bucket, which get every other request each."""
    folder = tmp_path_factory.mktemp("clients")
    hubs = [RunningHub(folder / "hub")]
    if request.param == "site":
        furnish(folder / "0/hub", database="postgresql", storage="s3")
        shutil.copytree(folder / "0", folder / "1")
        hubs = [RunningHub(folder / name / "hub") for name in "01"]
    for hub in hubs:
        hub.start("--port", "0")
    with balancer([hub.host for hub in hubs]) if len(hubs) > 1 else contextlib.nullcontext(hubs[0]) as door:
        reached = RunningHub(hubs[0].data)
        reached.address = door.url if isinstance(door, Server) else door.address
        yield reached
    for hub in hubs:
        log = hub.log()
        hub.stop()
        assert "Traceback" not in log


@pytest.fixture(scope="module")
def token(shared: RunningHub) -> str:
    return shared.token("delete:*", name="ada")


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    """An OCI layout of a small root filesystem with its SIF beside it, where every user may read it."""
    folder = Path(tempfile.mkdtemp(prefix="cops-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "root/etc").mkdir(parents=True)
    (folder / "root/etc/hello").write_text("hello\n" * 10_000)
    (folder / "root/bin").mkdir()
    convert.pack(
        Directory(folder / "root"),
        oci.Description("amd64"),
        to_sif=folder / "tiny.sif",
        to_layout=folder / "tiny",
        writer=convert.Writer(threads=1),
        epoch=EPOCH,
        name="1.0",
    )
    yield folder
    shutil.rmtree(folder)


class ApptainerUser:
    """A scientist whose Apptainer knows the hub as its default remote."""

    def __init__(self, scientist: Scientist, hub: RunningHub, token: str = "") -> None:
        self._scientist, self.home = scientist, scientist.home
        remote = scientist.home / ".apptainer/remote.yaml"
        remote.parent.mkdir()
        lines = [
            "Active: hub",
            "Remotes:",
            "  hub:",
            f"    URI: //{hub.host}",
            "    System: false",
            "    Insecure: true",
        ]
        remote.write_text("\n".join([*lines, *([f"    Token: {token}"] if token else [])]) + "\n")
        remote.chmod(0o600)
        scientist.own(remote.parent)

    def __call__(self, *argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return self._scientist.run(["apptainer", *argv], check=check)


@pytest.fixture
def apptainer(scientist: Scientist, shared: RunningHub, token: str) -> ApptainerUser:
    return ApptainerUser(scientist, shared, token)


@pytest.mark.skopeo
@pytest.mark.squashfs
class TestSkopeo:
    def test_there_and_back(self, shared: RunningHub, token: str, image: Path, tmp_path: Path) -> None:
        there = f"docker://{shared.host}/bio/skopeo:1.0"
        self.copy(f"oci:{image}/tiny:1.0", there, f"--dest-creds=ada:{token}", "--dest-tls-verify=false")
        self.copy(there, f"oci:{tmp_path}/back:1.0", "--src-tls-verify=false")
        sent, back = (
            json.loads((path / "index.json").read_bytes())["manifests"] for path in (image / "tiny", tmp_path / "back")
        )
        assert [one["digest"] for one in sent] == [one["digest"] for one in back]

    def test_a_stranger_cannot_push(self, shared: RunningHub, image: Path) -> None:
        with pytest.raises(subprocess.CalledProcessError) as caught:
            self.copy(f"oci:{image}/tiny:1.0", f"docker://{shared.host}/bio/stranger:1.0", "--dest-tls-verify=false")
        assert b"token is needed" in caught.value.stderr

    def test_list_inspect_delete(self, shared: RunningHub, token: str, image: Path) -> None:
        there = f"docker://{shared.host}/bio/deleted:1.0"
        self.copy(f"oci:{image}/tiny:1.0", there, f"--dest-creds=ada:{token}", "--dest-tls-verify=false")
        seen = subprocess.run(["skopeo", "inspect", "--tls-verify=false", there], capture_output=True, check=True)
        assert json.loads(seen.stdout)["RepoTags"] == ["1.0"]
        subprocess.run(["skopeo", "delete", "--tls-verify=false", f"--creds=ada:{token}", there], check=True)
        assert Caller(shared.address, token).get("/v2/bio/deleted/manifests/1.0").status == 404

    @staticmethod
    def copy(source: str, target: str, *options: str) -> None:
        argv = ["skopeo", "--insecure-policy", "copy", "--quiet", *options, source, target]
        subprocess.run(argv, capture_output=True, check=True)


@pytest.mark.podman
@pytest.mark.squashfs
def test_podman(scientist: Scientist, shared: RunningHub, token: str, image: Path) -> None:
    where = ["--root", scientist.home / "storage", "--runroot", scientist.home / "run"]
    name = f"{shared.host}/bio/podman:1.0"

    def podman(*argv: str | Path, stdin: bytes = b"") -> bytes:
        return scientist.run([*PODMAN, *where, *argv], stdin=stdin).stdout

    pulled = podman("pull", "--quiet", f"oci:{image}/tiny:1.0").decode().strip()
    podman("login", "--tls-verify=false", "--username", "ada", "--password-stdin", shared.host, stdin=token.encode())
    podman("push", "--quiet", "--tls-verify=false", pulled, name)
    podman("rmi", pulled)
    assert podman("pull", "--quiet", "--tls-verify=false", name).decode().strip() == pulled


@pytest.mark.docker
def test_docker(scientist: Scientist, docker_host: str, shared: RunningHub, token: str) -> None:
    name = f"{shared.host}/bio/docker:1.0"

    def docker(*argv: str, stdin: bytes = b"", check: bool = True) -> "subprocess.CompletedProcess[bytes]":
        return scientist.run(["docker", "--host", docker_host, *argv], stdin=stdin, check=check)

    with io.BytesIO() as data:
        with tarfile.open(fileobj=data, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("hello"))
        made = docker("import", "-", name, stdin=data.getvalue()).stdout.decode().strip()
    docker("login", "--username", "ada", "--password-stdin", shared.host, stdin=token.encode())
    docker("push", "--quiet", name)
    docker("rmi", name)
    docker("pull", "--quiet", name)
    assert docker("image", "inspect", "--format", "{{.Id}}", name).stdout.decode().strip() == made
    docker("logout", shared.host)
    refused = docker("push", "--quiet", name, check=False)
    assert (refused.returncode, b"token is needed" in refused.stderr) == (1, True), refused.stderr
    docker("rmi", name)


@pytest.mark.oras
def test_oras(scientist: Scientist, shared: RunningHub, token: str) -> None:
    for name in ("table.csv", "note.txt"):
        (scientist.home / name).write_text(f"{name}\n" * 1000)
    scientist.own(scientist.home)
    there, copy = f"{shared.host}/bio/oras", f"{shared.host}/bio/oras-copy"

    def oras(*argv: str, stdin: bytes = b"") -> str:
        return scientist.run(["oras", *argv], stdin=stdin).stdout.decode()

    oras("login", "--plain-http", "--username", "ada", "--password-stdin", shared.host, stdin=token.encode())
    oras("push", "--plain-http", "--artifact-type", "application/x-table", f"{there}:1", "table.csv:text/csv")
    oras("attach", "--plain-http", "--artifact-type", "application/x-note", f"{there}:1", "note.txt")
    found = json.loads(oras("discover", "--plain-http", "--format", "json", f"{there}:1"))["manifests"]
    assert [one["artifactType"] for one in found] == ["application/x-note"]
    oras("copy", "--recursive", "--from-plain-http", "--to-plain-http", f"{there}:1", f"{copy}:1")
    oras("tag", "--plain-http", f"{copy}:1", "latest")
    assert oras("repo", "tags", "--plain-http", copy).split() == ["1", "latest"]
    oras("pull", "--plain-http", "--output", "back", f"{copy}:latest")
    oras("pull", "--plain-http", "--output", "back", f"{copy}@{found[0]['digest']}")
    for name in ("table.csv", "note.txt"):
        assert (scientist.home / "back" / name).read_bytes() == (scientist.home / name).read_bytes()
    oras("manifest", "delete", "--plain-http", "--force", f"{copy}@{found[0]['digest']}")
    assert not json.loads(oras("discover", "--plain-http", "--format", "json", f"{copy}:1"))["manifests"]


@pytest.mark.apptainer
@pytest.mark.squashfs
class TestApptainer:
    def test_push_and_pull(self, apptainer: ApptainerUser, shared: RunningHub, image: Path) -> None:
        sif = image / "tiny.sif"
        apptainer("push", "-U", sif, "library://ada/tools/tiny:1.0,latest")
        for number, source in enumerate(
            [
                ("library://ada/tools/tiny:1.0",),
                ("--disable-cache", "library://ada/tools/tiny"),
                ("library://ada/tools/tiny:sha256." + sha256(sif),),
                ("--no-https", f"library://{shared.host}/ada/tools/tiny:1.0"),
                ("--no-https", f"oras://{shared.host}/ada/tools/tiny:latest"),
            ]
        ):
            target = apptainer.home / f"{number}.sif"
            apptainer("pull", *source[:-1], target, source[-1])
            assert filecmp.cmp(sif, target, shallow=False), source

    def test_push_again_and_to_other_places(self, apptainer: ApptainerUser, shared: RunningHub, image: Path) -> None:
        for place in ("library://ada/tools/again:1", "library://ada/tools/again:2", "library://library/ada/again:1"):
            apptainer("push", "-U", image / "tiny.sif", place)
        caller = Caller(shared.address)
        assert caller.get("/v2/ada/tools/again/tags/list").json["tags"] == ["1", "2"]
        apptainer("pull", "--no-https", "pulled.sif", f"library://{shared.host}/ada/again:1")
        assert filecmp.cmp(image / "tiny.sif", apptainer.home / "pulled.sif", shallow=False)

    def test_push_in_parts(self, apptainer: ApptainerUser, image: Path) -> None:
        """Above 64 MiB the client cuts the file."""
        large = apptainer.home / "large.sif"
        large.write_bytes((image / "tiny.sif").read_bytes() + os.urandom(1024 * 1024) * 140)
        apptainer("push", "-U", large, "library://ada/tools/large:1.0")
        apptainer("pull", "--disable-cache", "pulled.sif", "library://ada/tools/large:1.0")
        assert filecmp.cmp(large, apptainer.home / "pulled.sif", shallow=False)

    def test_search_and_delete(self, apptainer: ApptainerUser, image: Path) -> None:
        apptainer("push", "-U", image / "tiny.sif", "library://ada/tools/searched:1.0")
        assert b"library://ada/tools/searched:1.0" in apptainer("search", "searched").stdout
        assert b"library://" not in apptainer("search", "--arch", "arm64", "searched").stdout
        apptainer("delete", "--force", "library://ada/tools/searched:1.0")
        gone = apptainer("pull", "gone.sif", "library://ada/tools/searched:1.0", check=False)
        assert gone.returncode != 0
        assert b"does not exist" in gone.stderr

    def test_status(self, apptainer: ApptainerUser) -> None:
        said = apptainer("remote", "status").stdout.decode()
        assert said.count(" OK ") == 3
        assert "Logged in as: ada" in said

    def test_login_with_a_token_file(self, scientist: Scientist, shared: RunningHub, token: str) -> None:
        apptainer = ApptainerUser(scientist, shared)
        file = scientist.home / "token"
        file.write_text(token)
        scientist.own(file)
        apptainer("remote", "login", "--tokenfile", file)
        assert b"Logged in as: ada" in apptainer("remote", "status").stdout
        file.write_text("x" * 214)
        assert apptainer("remote", "login", "--tokenfile", file, check=False).returncode != 0

    def test_oras(self, apptainer: ApptainerUser, shared: RunningHub, token: str, image: Path) -> None:
        apptainer("registry", "login", "--username", "ada", "--password", token, f"oras://{shared.host}")
        apptainer("push", "--no-https", image / "tiny.sif", f"oras://{shared.host}/bio/oras:1.0")
        for number, source in enumerate((f"oras://{shared.host}/bio/oras:1.0", "library://bio/oras:1.0")):
            apptainer("pull", "--no-https", f"{number}.sif", source)
            assert filecmp.cmp(image / "tiny.sif", apptainer.home / f"{number}.sif", shallow=False)

    def test_an_image_that_was_pushed_without_a_sif(
        self, apptainer: ApptainerUser, shared: RunningHub, token: str, image: Path
    ) -> None:
        there = f"docker://{shared.host}/bio/made:1.0"
        TestSkopeo.copy(f"oci:{image}/tiny:1.0", there, f"--dest-creds=ada:{token}", "--dest-tls-verify=false")
        for number, source in enumerate((f"oras://{shared.host}/bio/made:1.0.sif", "library://bio/made:1.0")):
            apptainer("pull", "--no-https", f"{number}.sif", source)
            # made by the same writer of the same image: the same bytes
            assert filecmp.cmp(image / "tiny.sif", apptainer.home / f"{number}.sif", shallow=False)
        apptainer("pull", "--no-https", "docker.sif", there)

    def test_keys(self, apptainer: ApptainerUser, shared: RunningHub, image: Path) -> None:
        apptainer(
            "key",
            "newpair",
            "--name=Ada Lovelace",
            "--email=ada@example.org",
            "--comment=",
            "--password=",
            "--push=true",
        )
        assert b"ada@example.org" in apptainer("key", "search", "lovelace").stdout
        sif = apptainer.home / "signed.sif"
        sif.write_bytes((image / "tiny.sif").read_bytes())
        apptainer._scientist.own(sif)
        apptainer("sign", sif)
        apptainer("push", sif, "library://ada/tools/signed:1.0")
        apptainer("key", "remove", "--public", fingerprint(apptainer))
        checked = apptainer("verify", sif)
        assert b"Ada Lovelace" in checked.stdout + checked.stderr
        described = Caller(shared.address).get("/v1/images/ada/tools/signed:1.0").json["data"]
        assert described["signed"]
        assert len(described["fingerprints"][0]) == 40


def fingerprint(apptainer: ApptainerUser) -> str:
    listed = apptainer("key", "list").stdout.decode()
    return next(line.split()[-1] for line in listed.splitlines() if "Fingerprint" in line)


def sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_dockers_password_is_the_token(shared: RunningHub, token: str) -> None:
    caller = Caller(shared.address)
    caller.headers = {"Authorization": basic("anybody", token)}
    assert caller.get("/v2/").status == 200
