"""What all tests share: skip with the reason where a real program is missing, and an ordinary user to run programs as."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import hypothesis
import pytest

from backends import CHOSEN, furnish, missing_program

PROGRAMS = {
    "act": ["act", "git"],
    "apptainer": ["apptainer"],
    "azurite": ["azurite-blob"],
    "bubblewrap": ["bwrap"],
    "browser": ["chromium", "chromedriver"],
    "buildah": ["buildah"],
    "docker": ["docker", "dockerd"],
    "faketime": ["faketime"],
    "gitlab_ci_local": ["gitlab-ci-local", "git"],
    "charliecloud": ["ch-run"],
    "gridengine": ["/usr/lib/gridengine/sge_qmaster", "qsub"],
    "htcondor": ["condor_master", "condor_submit"],
    "kubernetes": [
        *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"),
        *("kubelet", "containerd", "ctr", "/usr/lib/cni/ptp"),
    ],
    "mmdebstrap": ["mmdebstrap"],
    "mpi": ["mpirun"],
    "mpich": ["mpirun.mpich"],
    "oras": ["oras"],
    "oci_conformance": ["oci-conformance"],
    "podman": ["podman"],
    "podman_hpc": ["podman-hpc"],
    "postgresql": ["pg_ctlcluster"],
    "registry": ["docker-registry"],
    "rpm": ["rpm"],
    "skopeo": ["skopeo"],
    "slurm": ["/usr/sbin/slurmctld", "/usr/sbin/slurmd", "/usr/sbin/slurmdbd", "mariadbd", "munged", "sbatch"],
    "udocker": ["udocker", "proot"],
    "x11": ["Xvfb", "xdpyinfo"],
    "ssh": ["/usr/sbin/sshd", "ssh", "rsync"],
    "squashfs": ["mksquashfs", "unsquashfs"],
}
"""Marker to the programs that a test with it drives."""

SCIENTIST = "sci"


hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of ours
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hub-database", choices=["sqlite", "postgresql"], default="sqlite", help="of every hub")
    parser.addoption("--hub-storage", choices=["folder", "s3"], default="folder", help="of every hub")


def pytest_configure(config: pytest.Config) -> None:
    CHOSEN.update(database=config.getoption("--hub-database"), storage=config.getoption("--hub-storage"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, programs in PROGRAMS.items():
        missing = [p for p in programs if shutil.which(p) is None]
        if item.get_closest_marker(marker) and missing:
            missing_program(", ".join(missing))


class Scientist:
    """An ordinary user with a home of its own: containers are run by people who are not root."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._prefix: list[str] = []
        if os.geteuid() == 0:
            try:
                user = pwd.getpwnam(SCIENTIST)
            except KeyError:
                pytest.skip(f"as root, this test needs an ordinary user {SCIENTIST!r} with subordinate ids")
            os.chown(home, user.pw_uid, user.pw_gid)
            self._prefix = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups", "--"]

    def argv(self, argv: Sequence[str | Path]) -> list[str]:
        """The command as this user runs it."""
        return [*self._prefix, *map(str, argv)]

    def env(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "USER": SCIENTIST if self._prefix else pwd.getpwuid(os.getuid()).pw_name,
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.home),
            **(more or {}),
        }

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        stdin: bytes = b"",
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end; with `check`, fail with the command's output unless it exits with 0."""
        done = subprocess.run(
            self.argv(argv), env=self.env(env), cwd=cwd or self.home, input=stdin, capture_output=True, check=False
        )
        if check and done.returncode != 0:
            pytest.fail(f"{done.args} exited with {done.returncode}\n{done.stdout.decode()}\n{done.stderr.decode()}")
        return done

    def own(self, path: Path) -> Path:
        """Give `path` and all in it to this user."""
        if self._prefix:
            user = pwd.getpwnam(SCIENTIST)
            for one in [path, *path.rglob("*")]:
                os.chown(one, user.pw_uid, user.pw_gid, follow_symlinks=False)
        return path


@pytest.fixture
def scientist() -> Iterator[Scientist]:
    """An ordinary user with an empty home that every user may look into."""
    home = Path(tempfile.mkdtemp(prefix="cops-", dir="/tmp"))
    home.chmod(0o755)
    try:
        yield Scientist(home)
    finally:
        _end_what_podman_left(home)
        shutil.rmtree(home, ignore_errors=True)


def _end_what_podman_left(home: Path) -> None:
    """End the process that keeps the namespaces of a user of Podman, one for each home."""
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it went meanwhile
            pauses = (place / "comm").read_text() == "podman pause\n"
            if pauses and f"HOME={home}".encode() in (place / "environ").read_bytes().split(b"\0"):
                os.kill(int(place.name), signal.SIGKILL)


@pytest.fixture(scope="session")
def docker_host() -> Iterator[str]:
    """The address of a Docker daemon of our own, with a store of its own, that the scientist may talk to."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a Docker daemon")
    place = Path(tempfile.mkdtemp(prefix="dock-", dir="/tmp"))  # short: the path of a socket has at most 107 bytes
    place.chmod(0o755)
    words = ["--data-root", place / "data", "--exec-root", place / "exec", "--pidfile", place / "pid"]
    words += ["--host", f"unix://{place}/sock", "--group", SCIENTIST, "--storage-driver", "vfs"]
    words += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    with (place / "log").open("wb") as log:
        daemon = subprocess.Popen(["dockerd", *words], stdout=log, stderr=log)
    asked = ["docker", "--host", f"unix://{place}/sock", "version"]
    try:
        while subprocess.run(asked, capture_output=True, check=False).returncode:
            assert daemon.poll() is None, (place / "log").read_text()
            time.sleep(0.05)
        yield f"unix://{place}/sock"
    finally:
        daemon.terminate()
        daemon.wait(30)
        subprocess.run(["umount", place / "exec/netns/default"], capture_output=True, check=False)
        shutil.rmtree(place, ignore_errors=True)


ComputeOps = Callable[..., subprocess.CompletedProcess[bytes]]


class RunningHub:
    """A hub in a process of its own, started as a user starts it."""

    def __init__(self, data: Path) -> None:
        furnish(data)
        self.data, self.address = data, ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> "RunningHub":
        argv = [sys.executable, "-m", "computeops", "hub", "serve", "--data", str(self.data)]
        argv += options or ["--port", self.address.rpartition(":")[2] or "0"]
        with (self.data.parent / "hub.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().decode().strip()
        if not self.address:
            self.stop(signal.SIGKILL)
            pytest.fail(self.log())
        return self

    def log(self) -> str:
        return (self.data.parent / "hub.log").read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    @property
    def host(self) -> str:
        return self.address.partition("://")[2]

    def token(self, *scopes: str, name: str = "tester") -> str:
        argv = [sys.executable, "-m", "computeops", "hub", "token", "--data", str(self.data), "--name", name]
        done = subprocess.run([*argv, *(f"--scope={one}" for one in scopes)], capture_output=True, check=True)
        return done.stdout.decode().strip()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    """A hub that serves an empty folder on a free port."""
    running = RunningHub(tmp_path / "hub").start()
    try:
        yield running
        assert "Traceback" not in running.log()
    finally:
        if running.process:
            running.stop()
