"""The verbs of a machine: host and fit."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from computeops.cli.output import emit, json_option, table
from computeops.config import Settings, environment
from computeops.errors import CHECK_FAILED, EngineError, NotFoundError

if TYPE_CHECKING:
    from computeops.host import Needs
    from computeops.host.model import Host
    from computeops.host.verdict import Finding

_GIB = 1024**3


@click.command()
@click.option("--toml", "as_toml", is_flag=True, help="Print a file that `fit --site` reads.")
@json_option
@click.pass_obj
def host_command(settings: Settings, *, as_toml: bool, as_json: bool) -> None:
    """Show what this machine offers: CPU, GPUs, MPI, network, kernel, container engines and schedulers.

    Example: computeops host --toml > cluster.toml
    """
    import msgspec

    from computeops import engine
    from computeops.host import site
    from computeops.host.look import look

    found = look(environment(), engines=engine.working(settings.cache))
    if as_toml:
        click.echo(site.dump(found), nl=False)
        return
    emit(msgspec.to_builtins(found), table(["", "THIS MACHINE"], _rows(found)), as_json=as_json)


def _rows(host: "Host") -> Sequence[Sequence[str]]:
    levels = [name for name in host.cpu_levels if name.startswith(("x86_64_v", "armv"))]
    gpus = [f"{one.vendor} {one.name} {one.device}".strip() for one in host.gpus]
    mpi = [f"{one.family} {one.version} ({one.library})".replace("  ", " ") for one in host.mpi]
    driver = f"NVIDIA {host.nvidia_driver}, CUDA up to {host.cuda or '?'}" if host.nvidia_driver else ""
    rows: Mapping[str, str] = {
        "name": host.name,
        "architecture": host.arch,
        "CPU": f"{host.cpu} ({', '.join(levels[:1]) or 'no level'}), {host.cores} cores",
        "memory": f"{host.memory_bytes / _GIB:.0f} GiB",
        "GPU": "; ".join(gpus) or "none",
        "GPU driver": driver or (f"amdgpu {host.amd_driver}" if host.amd_driver else "none"),
        "MPI": "; ".join(mpi) or "none",
        "network": "; ".join(host.fabrics) or "none but TCP",
        "kernel": host.kernel,
        "glibc": host.glibc or "another C library",
        "user namespaces": "yes" if host.user_namespaces else "no",
        "FUSE": "yes" if host.fuse else "no",
        "cgroups": host.cgroups or "none",
        "display": "yes" if host.display else "no",
        "engines": ", ".join(host.engines) or "none",
        "schedulers": ", ".join(host.schedulers) or "none",
    }
    return [[name, value] for name, value in rows.items()]


@click.command()
@click.argument("image", metavar="FILE|REF")
@click.option(
    "--site", type=click.Path(path_type=Path), help="A machine described by `computeops host --toml`; else this one."
)
@json_option
@click.pass_obj
def fit_command(settings: Settings, image: str, site: Path | None, *, as_json: bool) -> int:
    """Say whether an image will run here, or at a described site, and why not: before any queue does.

    It exits with 13 if the image does not fit. Of a release in a hub only the description is fetched.

    Example: computeops fit --site cluster.toml bio/samtools:1.21
    """
    from computeops.host.verdict import fit

    needs = _needs(settings, image)
    found = fit(needs, _host(settings, site))
    fits = all(one.fits is not False for one in found)
    rows = [[one.what, _word(one), one.needs, one.has, "" if one.fits else one.hint] for one in found]
    text = "\n".join([table(["", "FITS", "NEEDS", "HAS", ""], rows), "it fits" if fits else "it does not fit"])
    data: dict[str, Any] = {"fits": fits, "findings": [asdict(one) for one in found], "needs": asdict(needs)}
    emit(data, text, as_json=as_json)
    return 0 if fits else CHECK_FAILED


def _word(finding: "Finding") -> str:
    return {True: "yes", False: "NO", None: "perhaps"}[finding.fits]


def _needs(settings: Settings, image: str) -> "Needs":
    from computeops import pipeline
    from computeops.cli import store

    path = Path(image)
    if path.exists():
        return pipeline.needs(path)
    if "/" not in image or image.startswith(("/", ".", "~")) or image.endswith((".sif", ".oci", ".tar")):
        raise NotFoundError(f"there is no image {image!r}", hint="name a file, or a release: collection/name:version")
    reference = store.named(settings, image)
    with store.registry(settings, reference.hub) as registry:
        return pipeline.needs_of(reference, registry)


def _host(settings: Settings, site: Path | None) -> "Host":
    from computeops import engine
    from computeops.host import site as sites
    from computeops.host.look import look

    if site:
        return sites.load(site)
    try:
        first: tuple[str, ...] = (engine.choose(cache=settings.cache),)
    except EngineError:
        first = ()
    return look(environment(), engines=first)
