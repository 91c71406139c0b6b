"""The verbs of a machine: host and fit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from computeops.cli.output import emit, json_option, table
from computeops.config import Settings, environment
from computeops.errors import CHECK_FAILED, EngineError

if TYPE_CHECKING:
    from computeops.host.model import Host
    from computeops.host.variants import Judged
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

    Of a release every variant is judged, the best one in full; only descriptions are fetched. It exits with 13 if none
    fits.

    Example: computeops fit --site cluster.toml bio/samtools:1.21
    """
    from computeops.cli import choice

    judged = choice.judge(choice.candidates(settings, image), _host(settings, site))
    best = judged[0]
    emit(_facts(judged), "\n".join(_lines(judged)), as_json=as_json)
    return 0 if best.fits else CHECK_FAILED


def _facts(judged: "Sequence[Judged]") -> dict[str, Any]:
    """Return what is told of the best as that of the image, and all variants beside it."""
    told = [
        {
            "variant": one.name,
            "fits": one.fits,
            "findings": [asdict(finding) for finding in one.findings],
            "needs": asdict(one.needs),
        }
        for one in judged
    ]
    return {**told[0], "variants": told}


def _lines(judged: "Sequence[Judged]") -> Iterator[str]:
    best = judged[0]
    if len(judged) > 1:
        yield table(["VARIANT", "FITS", ""], [[one.title, "yes" if one.fits else "NO", one.why] for one in judged])
        yield ""
    rows = [[one.what, _word(one), one.needs, one.has, "" if one.fits else one.hint] for one in best.findings]
    yield table(["", "FITS", "NEEDS", "HAS", ""], rows)
    of = f"{best.title}: " if len(judged) > 1 else ""
    yield of + ("it fits" if best.fits else "it does not fit")


def _word(finding: "Finding") -> str:
    return {True: "yes", False: "NO", None: "perhaps"}[finding.fits]


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
