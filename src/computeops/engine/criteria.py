"""The seven criteria by which container engines are judged, and what is known of those that are not installed.

`judge` tries them; what stands here was read in manuals and was not tried.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

CRITERIA = {
    "docker": "Docker compatibility: an OCI image runs",
    "security": "Unprivileged: root inside is harmless outside",
    "io": "Transparent I/O: files, MPI ranks and windows work as outside",
    "scheduler": "Scheduler fit: child of its caller; exit code, signals and end are the program's",
    "gpu": "GPU: a program finds the GPU and its driver",
    "mobility": "Mobility: the image starts elsewhere with no store, no service and no root",
    "file": "Single file: the image is one file, and starts from it",
}


class Mark(enum.StrEnum):
    """How well an engine meets a criterion."""

    YES = "yes"
    PARTLY = "partly"
    NO = "no"
    UNTRIED = "not tried"
    """This machine lacks what the trial needs."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One criterion of one engine, with what was seen."""

    criterion: str
    mark: Mark
    evidence: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Judged:
    """An engine under all seven criteria."""

    engine: str
    tried: bool
    """Whether it was judged here; else the verdicts are what manuals say."""
    reason: str
    """Why it was not judged here."""
    verdicts: tuple[Verdict, ...]
    start_seconds: float = 0.0
    """Median of a few starts of a program that does nothing."""

    @property
    def points(self) -> int:
        """Two for each criterion that is met, one for each that is met partly."""
        return sum({Mark.YES: 2, Mark.PARTLY: 1}.get(one.mark, 0) for one in self.verdicts)


_ALIKE = "as Apptainer, whose options it shares"
KNOWN: Mapping[str, Mapping[str, tuple[Mark, str]]] = {
    "singularity": {
        "docker": (Mark.YES, "pulls and converts OCI images; --oci runs them as such"),
        "security": (Mark.PARTLY, "user namespaces, or a setuid starter where the site installs it"),
        "io": (Mark.YES, _ALIKE),
        "scheduler": (Mark.YES, _ALIKE),
        "gpu": (Mark.YES, "--nv, --rocm; CDI with --oci"),
        "mobility": (Mark.YES, _ALIKE),
        "file": (Mark.YES, "SIF and OCI-SIF"),
    },
    "docker": {
        "docker": (Mark.YES, "it is Docker"),
        "security": (Mark.NO, "a daemon of root, unless rootless mode is set up"),
        "io": (Mark.PARTLY, "binds, environment and display by hand; MPI needs the host's network and IPC"),
        "scheduler": (Mark.NO, "the container is a child of the daemon, outside the job and its limits"),
        "gpu": (Mark.YES, "--gpus, CDI"),
        "mobility": (Mark.PARTLY, "needs a registry or docker save, and the daemon"),
        "file": (Mark.NO, "layers in the daemon's store"),
    },
    "podman-hpc": {
        "docker": (Mark.YES, "as Podman"),
        "security": (Mark.YES, "as Podman, without root"),
        "io": (Mark.PARTLY, "--mpi and --shared-run; windows by hand"),
        "scheduler": (Mark.YES, "one container per node and job, entered by each rank"),
        "gpu": (Mark.YES, "--gpu"),
        "mobility": (Mark.PARTLY, "images are squashed into a store that nodes read"),
        "file": (Mark.NO, "a store of layers"),
    },
    "shifter": {
        "docker": (Mark.YES, "a gateway converts Docker images"),
        "security": (Mark.PARTLY, "a setuid program, then the user"),
        "io": (Mark.YES, "the host's MPI replaces the image's by the MPICH ABI"),
        "scheduler": (Mark.YES, "a plugin of Slurm"),
        "gpu": (Mark.YES, "a module of the site"),
        "mobility": (Mark.NO, "needs the gateway of a site"),
        "file": (Mark.PARTLY, "a squashfs that only the gateway makes"),
    },
    "sarus": {
        "docker": (Mark.YES, "pulls Docker images"),
        "security": (Mark.PARTLY, "a setuid program, then the user"),
        "io": (Mark.YES, "a hook replaces MPI by ABI; binds by hand"),
        "scheduler": (Mark.YES, "a child of its caller; a hook joins Slurm"),
        "gpu": (Mark.YES, "hooks of NVIDIA and AMD"),
        "mobility": (Mark.NO, "needs an installation by root"),
        "file": (Mark.PARTLY, "a squashfs in its own store"),
    },
    "udocker": {
        "docker": (Mark.YES, "pulls and loads Docker images"),
        "security": (Mark.YES, "no namespaces at all: system calls are traced, or libraries replaced"),
        "io": (Mark.PARTLY, "files and ranks are the machine's; tracing slows system calls"),
        "scheduler": (Mark.YES, "a child of its caller"),
        "gpu": (Mark.PARTLY, "setup --nvidia copies the driver into the container"),
        "mobility": (Mark.YES, "a Python program in the home folder; works where namespaces are forbidden"),
        "file": (Mark.NO, "a folder of layers in the home"),
    },
    "enroot": {
        "docker": (Mark.YES, "imports Docker images"),
        "security": (Mark.YES, "user namespaces"),
        "io": (Mark.YES, "hooks for PMI and fast networks"),
        "scheduler": (Mark.YES, "a plugin of Slurm (pyxis)"),
        "gpu": (Mark.YES, "a hook of NVIDIA; devices of AMD by binds"),
        "mobility": (Mark.YES, "a squashfs of its own, and namespaces"),
        "file": (Mark.YES, "a squashfs file"),
    },
    "kata": {
        "docker": (Mark.YES, "an OCI runtime under containerd or Podman"),
        "security": (Mark.YES, "a virtual machine for each container"),
        "io": (Mark.NO, "files by virtio, no shared memory with the machine, no display"),
        "scheduler": (Mark.NO, "a service starts the virtual machine"),
        "gpu": (Mark.PARTLY, "whole devices by VFIO"),
        "mobility": (Mark.NO, "needs /dev/kvm and containerd"),
        "file": (Mark.NO, "a store of layers"),
    },
}
"""Engine to criterion to what its manual says (apptainer.org, sylabs.io, docs.docker.com, github.com/NERSC/podman-hpc,
shifter.readthedocs.io, sarus.readthedocs.io, github.com/indigo-dc/udocker, github.com/NVIDIA/enroot,
katacontainers.io)."""


def known(engine: str, reason: str) -> Judged:
    """Return what is known of an engine that cannot be judged here."""
    facts = KNOWN.get(engine, {})
    verdicts = (Verdict(one, *facts.get(one, (Mark.UNTRIED, reason))) for one in CRITERIA)
    return Judged(engine, False, reason, tuple(verdicts))
