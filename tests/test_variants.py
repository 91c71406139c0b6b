"""Of a release with several variants the best that fits is run, and never one that would die of an illegal instruction."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import releases
from computeops.errors import EngineError
from computeops.host import Needs, cpu, needs, site, variants
from computeops.host.model import Gpu
from computeops.image import convert, oci
from computeops.image.tree import Directory
from computeops.store.release import Release
from test_host import CLUSTER

LABEL = "org.computeops.variant"
ICELAKE = ("icelake", "x86_64_v4", "haswell", "x86_64_v3", "x86_64_v2", "x86_64")
ALL = {
    "": Needs(arch="amd64"),
    "v2": Needs(arch="amd64", cpu="x86_64_v2"),
    "v3": Needs(arch="amd64", cpu="x86_64_v3"),
    "v4": Needs(arch="amd64", cpu="x86_64_v4"),
    "haswell": Needs(arch="amd64", cpu="haswell"),
    "icelake": Needs(arch="amd64", cpu="icelake"),
    "arm": Needs(arch="arm64"),
    "cuda": Needs(arch="amd64", gpu="nvidia", driver=">=525"),
    "cuda-new": Needs(arch="amd64", gpu="nvidia", driver=">=580"),
    "rocm": Needs(arch="amd64", gpu="amd"),
}


@pytest.mark.parametrize(
    ("levels", "gpus", "option", "order"),
    [
        (("x86_64",), "", "auto", [""]),
        (("x86_64_v2", "x86_64"), "", "auto", ["v2", ""]),
        (CLUSTER.cpu_levels, "", "auto", ["haswell", "v3", "v2", ""]),
        (ICELAKE, "", "auto", ["icelake", "v4", "haswell", "v3", "v2", ""]),
        (ICELAKE, "nvidia", "auto", ["cuda", "icelake", "v4", "haswell", "v3", "v2", ""]),
        (ICELAKE, "nvidia", "none", ["icelake", "v4", "haswell", "v3", "v2", ""]),
        (ICELAKE, "nvidia", "amd", ["icelake", "v4", "haswell", "v3", "v2", ""]),
        (("x86_64",), "amd", "auto", ["rocm", ""]),
    ],
)
def test_the_best_is_first_and_what_would_die_is_never_taken(levels, gpus, option, order) -> None:
    found = tuple(Gpu(vendor=one) for one in gpus.split())
    host = msgspec.structs.replace(CLUSTER, cpu_levels=levels, gpus=found)
    judged = variants.judge(ALL, host, gpu=option)
    assert [one.name for one in judged if one.runs] == order
    assert variants.best(judged).name == order[0]


def test_where_none_fits_it_says_why_each_does_not() -> None:
    host = msgspec.structs.replace(CLUSTER, cpu_levels=("x86_64",), gpus=())
    with pytest.raises(EngineError) as caught:
        variants.best(variants.judge({"v3": ALL["v3"], "cuda": ALL["cuda"]}, host))
    assert "v3: cpu x86_64_v3" in caught.value.message
    assert "cuda: gpu nvidia" in caught.value.message


def test_newer_cpus_are_higher() -> None:
    order = ["", "x86_64_v2", "x86_64_v3", "haswell", "x86_64_v4", "icelake"]
    found = [cpu.generation(name) for name in order]
    assert found == sorted(found)
    assert cpu.generation("no-such-cpu") == (0, 0)


def packed(folder: Path, name: str, **labels: str) -> Release:
    """The variant `name` of thing 1.0, with evidence as a build leaves it."""
    tree = folder / f"tree{name}"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/thing").write_text(f"#!/bin/sh\necho {name}\n")
    (tree / "bin/thing").chmod(0o755)
    stem = "-".join(filter(None, ("thing-1.0", name)))
    said = {**needs.labels(**labels), **({LABEL: name} if name else {})}
    image = convert.pack(
        Directory(tree),
        oci.Description("amd64", command=("thing",), labels=said),
        to_sif=folder / f"{stem}.sif",
        to_layout=folder / f"{stem}.oci",
        writer=convert.Writer(level=1),
        epoch=releases.EPOCH,
    )
    made = Release.beside(image.path)
    made.add("recipe", "computeops.toml", releases.RECIPE)
    for kind in (releases.TEST, releases.PROVENANCE):
        made.add_evidence(kind.rpartition("/")[0].rpartition("/")[2], releases.signed(image, kind))
    return made


BEST = cpu.best() or "x86_64"
DRY = ("exec", "--dry-run", "--engine", "native")


@pytest.mark.squashfs
def test_run_takes_the_best_variant_of_a_hub_or_a_folder(hub, tmp_path: Path) -> None:
    environ = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def cli(*words: str | Path, code: int = 0, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "computeops", *map(str, words)]
        env = {**environ, **more}
        done = subprocess.run(argv, cwd=tmp_path, env=env, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done

    made = tmp_path / "made"
    all_ = [
        packed(made, "", cpu=""),
        packed(made, "here", cpu=BEST),
        packed(made, "power", cpu="power9le"),
        packed(made, "cuda", gpu="nvidia", driver=">=9999"),
    ]
    (made / "thing-1.0-rc1.sif").write_bytes((made / "thing-1.0.sif").read_bytes())  # a version, no variant
    here = "here" if BEST != "x86_64" else ""

    # a release on disk
    done = cli(*DRY, made / "thing-1.0", "/bin/thing")
    assert f"variant {here or 'generic'}, the best that fits: {BEST}" in done.stderr
    assert "power: cpu power9le: this is" in done.stderr
    assert "cuda: gpu nvidia: this is none" in done.stderr
    assert "rc1" not in done.stderr
    cli("exec", made / "thing-1.0-power.sif", "true", code=125)  # who names a file gets it, or is refused
    assert "several releases" in cli("fit", made, code=2).stderr

    # the same in a hub
    cli("key", "new", "ada")
    cli("login", hub.address, "--token-stdin", stdin=hub.token("push:bio/thing") + "\n")
    for one, version in zip(all_, ("1.0", "1.0-here", "1.0-power", "1.0-cuda"), strict=True):
        cli("sign", one.sif, "--key", "ada")
        cli("push", one.sif, f"{hub.address}/bio/thing:{version}")
    name = f"{hub.address}/bio/thing:1.0"
    told = json.loads(cli("fit", "--json", name).stdout)
    assert {one["variant"]: one["fits"] for one in told["variants"]} == {
        "": True,
        "here": True,
        "power": False,
        "cuda": False,
    }
    assert told["variant"] == here
    assert not (tmp_path / ".cache/computeops/images").exists()
    text = cli("fit", name).stdout
    assert text.splitlines()[0].split() == ["VARIANT", "FITS"]
    assert text.endswith("here: it fits\n")
    old = msgspec.structs.replace(CLUSTER, cpu_levels=("x86_64",), gpus=())
    (tmp_path / "old.toml").write_text(site.dump(old))
    assert json.loads(cli("fit", "--json", "--site", tmp_path / "old.toml", name).stdout)["variant"] == ""
    for _ in range(2):  # the second time it is remembered
        done = cli(*DRY, name, "/bin/thing")
        assert f"variant {here or 'generic'}" in done.stderr
    hub.stop()
    began = time.process_time()
    assert "variant" in cli(*DRY, name, "/bin/thing").stderr
    assert time.process_time() - began < 1
    cli(*DRY, "--gpu", "none", name, "/bin/thing", code=14)  # another question, and nobody to ask
    hub.start()
    cli(*DRY, f"{hub.address}/bio/thing:1.0-here", "/bin/thing")
    assert "for amd64" in cli(*DRY, f"{hub.address}/bio/thing:3.0", "x", code=5).stderr
