"""The machine's MPI in place of the image's: a real Open MPI, and names of libraries as they are elsewhere."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from computeops.engine import inside_probe, machine, mpi
from computeops.errors import EngineError
from computeops.image import convert, oci
from computeops.image.tree import Directory
from containers import Launcher, root_filesystem
from schedulers import slurm
from schedulers.users import User, using

PYTHON = "/usr/bin/python3.11"
SUM = """
import ctypes
mpi = ctypes.CDLL("libmpi.so.40", ctypes.RTLD_GLOBAL)
of = lambda name: ctypes.byref(ctypes.c_char.in_dll(mpi, name))
mpi.MPI_Init(None, None)
rank, total = ctypes.c_int(), ctypes.c_int()
mpi.MPI_Comm_rank(of("ompi_mpi_comm_world"), ctypes.byref(rank))
mine = ctypes.c_int(rank.value + 1)
how = of("ompi_mpi_int"), of("ompi_mpi_op_sum"), of("ompi_mpi_comm_world")
mpi.MPI_Allreduce(ctypes.byref(mine), ctypes.byref(total), 1, *how)
places = {line.split()[-1] for line in open("/proc/self/maps") if "libmpi.so" in line}
print(f"rank {rank.value} sum {total.value} {sorted(places)}", flush=True)
mpi.MPI_Finalize()
"""
"""Two ranks add their numbers, and say which library they did it with."""


@pytest.mark.parametrize(
    ("image", "host", "why"),
    [
        ("libmpi.so.40.30.4", "libmpi.so.40.30.1", ""),
        ("libmpi.so.40.20.4", "libmpi.so.40.30.4", ""),
        ("libmpi.so.40.30.4", "libmpi.so.40.20.4", "is newer than this machine's"),
        ("libmpi.so.40.30.4", "libmpi.so.40.40.7", "Open MPI 4, and this machine's Open MPI 5"),
        ("libmpi.so.12.1.8", "libmpich.so.12.2.3", ""),  # Intel MPI, and MPICH as Debian calls it
        ("libmpich.so.12.1.8", "libmpi.so.12.0.5", ""),
        ("libmpi.so.12", "libmpi.so.40.30.4", "another family"),
        ("libmpi_abi.so.0.1", "libmpi_abi.so.0.2", ""),
        ("libmpi_abi.so.0", "libmpi.so.12", "another family"),
    ],
)
def test_which_mpi_goes_with_which(image: str, host: str, why: str) -> None:
    mine, theirs = mpi.parse(image), mpi.parse(host)
    assert mine is not None
    assert theirs is not None
    found = mpi.fits(mine, theirs)
    assert (why in found) if why else found == ""


def test_what_is_no_mpi() -> None:
    assert [mpi.parse(one) for one in ("libmpi.so", "libmpi_mpifh.so.40", "libmpicxx.so.40", "libmpi.so.x")] == [
        None
    ] * 4


def _copied(root: Path, *files: str) -> None:
    """Copy files of this machine, with the libraries that they need, into a root filesystem."""
    for name in files:
        told = subprocess.run(["ldd", name], capture_output=True, text=True, check=False).stdout
        for path in [Path(name), *(Path(word) for word in told.split() if word.startswith("/"))]:
            target = root / str(path.resolve()).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            if path.name != target.name:
                link = root / f"usr/lib/x86_64-linux-gnu/{path.name}"
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    link.symlink_to(f"/{target.relative_to(root)}")


@pytest.mark.mpi
@pytest.mark.squashfs
@pytest.mark.skipif(not Path(PYTHON).exists(), reason="the program is one of Debian 12's Python")
def test_two_ranks_talk_by_the_machines_mpi(scientist) -> None:
    user = Launcher(scientist)
    tree = user.home / "tree"
    root_filesystem(tree)
    folder = Path("/usr/lib/x86_64-linux-gnu")
    (ctypes_,) = Path("/usr/lib/python3.11/lib-dynload").glob("_ctypes.cpython-*.so")
    _copied(tree, PYTHON, str(ctypes_))
    # An Open MPI without what it needs: by itself it cannot even be loaded.
    own = (folder / "libmpi.so.40").resolve()
    shutil.copy(own, tree / "usr/lib/x86_64-linux-gnu" / own.name)
    (tree / "usr/lib/x86_64-linux-gnu/libmpi.so.40").symlink_to(own.name)
    (user.home / "sum.py").write_text(SUM)
    described = oci.Description("amd64", env={"PATH": "/usr/bin:/bin"})
    image = user.home / "mpi.sif"
    convert.pack(Directory(tree), described, to_sif=image, writer=convert.Writer(level=1), epoch=0)
    scientist.own(user.home)
    library, fabric = mpi.of_image(image)
    assert (library, fabric) == (mpi.Library("libmpi.so.40", int(own.name.split(".")[3])), False)

    inside = ["exec", "--engine", "native", "--bind", "/usr/lib/python3.11"]
    alone = user(*inside, image, PYTHON, "-S", user.home / "sum.py")
    assert alone.returncode != 0
    assert b"cannot open shared object file" in alone.stderr
    mpirun = ["mpirun", "-n", "2", "--oversubscribe", "--allow-run-as-root"]
    command = user.argv(*inside, "--mpi", "host", image, PYTHON, "-S", user.home / "sum.py")
    done = scientist.run([*mpirun, *command[len(scientist.argv([])) :]], env=user.env())
    lines = sorted(line for line in done.stdout.decode().splitlines() if line.startswith("rank"))
    assert [line.split(" [")[0] for line in lines] == ["rank 0 sum 3", "rank 1 sum 3"]
    assert all("/.singularity.d/libs/libmpi.so.40" in line for line in lines)

    with pytest.raises(EngineError, match="has no MPI"):
        mpi.edits(user.home / "tree/etc", {})


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """Of a real Slurm with two nodes, which joins ranks by PMI-2; with images that run two ranks of MPICH.

    `own.sif` has its own MPICH, `bare.sif` the name of one only, as of Intel MPI, and `old.sif` that of Open MPI 4.
    """
    with using("slurm", slurm) as one:
        tree = one.home / "tree"
        root_filesystem(tree)
        (ctypes_,) = Path("/usr/lib/python3.11/lib-dynload").glob("_ctypes.cpython-*.so")
        _copied(tree, PYTHON, str(ctypes_))
        libraries = tree / "usr/lib/x86_64-linux-gnu"
        for name, file in (("bare", "libmpi.so.12.1.8"), ("old", "libmpi.so.40.20.4")):
            (libraries / file).touch()
            _packed(tree, one.home / f"{name}.sif")
            (libraries / file).unlink()
        _copied(tree, MPICH)
        shutil.copytree("/usr/lib/x86_64-linux-gnu/ucx", libraries / "ucx")
        _packed(tree, one.home / "own.sif")
        yield one


MPICH = "/usr/lib/x86_64-linux-gnu/libmpich.so.12"
ENGINES = ("apptainer", "bubblewrap", "native")


def _packed(tree: Path, sif: Path) -> None:
    described = oci.Description("amd64", env={"PATH": "/usr/bin:/bin"}, command=(PYTHON, "-S", "-c", inside_probe.MPI))
    convert.pack(Directory(tree), described, to_sif=sif, writer=convert.Writer(level=1), epoch=0)
    sif.chmod(0o644)


def _ranks(user: User, image: str, *words: str) -> list[str]:
    two = ["--nodes", "2", "--tasks", "2", "--bind", "/usr/lib/python3.11"]
    return ["submit", "--on", "slurm", "--wait", *two, *words, str(user.home / image), "--"]


@pytest.mark.mpich
@pytest.mark.slurm
@pytest.mark.squashfs
@pytest.mark.apptainer
@pytest.mark.bubblewrap
@pytest.mark.charliecloud
@pytest.mark.podman
@pytest.mark.skipif(not Path(PYTHON).exists(), reason="the program is one of Debian 12's Python")
def test_two_ranks_of_mpich_join_by_pmi(user: User) -> None:
    """Hybrid: the image's own. Bound: the machine's in its place. Each under the engines whose program is a child."""
    cases = [[*_ranks(user, "own.sif", "--engine", one), MPICH] for one in (*ENGINES, "charliecloud")]
    cases += [[*_ranks(user, "bare.sif", "--engine", one, "--mpi", "host"), "libmpi.so.12"] for one in ENGINES]
    cases += [[*_ranks(user, "old.sif", "--mpi", "host"), "libmpi.so.40"]]
    cases += [[*_ranks(user, "own.sif", "--engine", "podman"), MPICH]]
    done = user.many(cases)
    ids = [err.split()[0] for _, _, err in done]
    for (code, out, _), identity in zip(done[:-2], ids, strict=False):
        assert code == 0, (out, user.logs(identity))
        assert user.logs(identity)[0] == "rank 1 of 2 received 42\n"
    said = [user.logs(one)[1] for one in ids[-2:]]
    assert "the image's is Open MPI 4, and this machine's Open MPI 5" in said[0]
    assert "libmpich.so.12: another family" in said[0]
    assert "engine podman cannot do this: no ranks that reach their launcher by a file" in said[1]


@pytest.mark.squashfs
def test_an_image_without_a_fast_network_is_warned_of(tmp_path: Path) -> None:
    environ = {"SLURM_JOB_NUM_NODES": "2", "PMI_RANK": "0"}
    image = tmp_path / "root"
    (image / "usr/lib64").mkdir(parents=True)
    (image / "usr/lib64/libmpi.so.12.1.8").touch()
    assert machine.slow_network(environ, image, tmp_path) == ""
    (tmp_path / "infiniband").mkdir()
    (tmp_path / "infiniband/uverbs0").touch()
    assert "UCX_TLS=tcp" in machine.slow_network({**environ, "UCX_TLS": "tcp"}, image, tmp_path)
    assert "try --mpi host" in machine.slow_network(environ, image, tmp_path)
    assert machine.slow_network({"PMI_RANK": "0"}, image, tmp_path) == ""
    (image / "usr/lib64/libfabric.so.1.2").touch()
    assert machine.slow_network(environ, image, tmp_path) == ""
