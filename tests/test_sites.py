"""Profiles of sites: where jobs go, what they load, and how the image comes to the machines that compute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from computeops import config
from computeops.errors import UsageError
from computeops.host import site
from test_host import CLUSTER
from test_variants import packed

PROFILE = """
scheduler = "local"
queue = "slow"

[sites.cluster]
scheduler = "slurm"
queue = "batch"
account = "astro"
options = ["--qos=long"]
modules = ["gcc/13", "openmpi"]
cache = "{home}/shared"
machine = "{home}/node.toml"

[sites.far]
scheduler = "slurm"
image = "pull"

[sites.grid]
scheduler = "gridengine"
image = "{home}/cvmfs/{{collection}}/{{name}}-{{version}}.sif"

[sites.bad]
quue = "x"
"""


@pytest.mark.squashfs
def test_a_site_is_chosen_by_its_name(hub, tmp_path: Path) -> None:
    environ = {"PYTHONPATH": os.environ.get("PYTHONPATH", ""), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def cli(*words: str | Path, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "computeops", *map(str, words)]
        done = subprocess.run(argv, cwd=tmp_path, env=environ, input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done

    made = tmp_path / "made"
    generic, v2 = packed(made, "", cpu=""), packed(made, "v2", cpu="x86_64_v2")
    node = msgspec.structs.replace(CLUSTER, cpu_levels=("x86_64_v2", "x86_64"), gpus=())
    (tmp_path / "node.toml").write_text(site.dump(node))
    (tmp_path / ".config/computeops").mkdir(parents=True)
    (tmp_path / ".config/computeops/config.toml").write_text(PROFILE.format(home=tmp_path))
    cli("key", "new", "ada")
    cli("login", hub.address, "--token-stdin", stdin=hub.token("push:bio/thing") + "\n")
    for one, version in ((generic, "1.0"), (v2, "1.0-v2")):
        cli("sign", one.sif, "--key", "ada")
        cli("push", one.sif, f"{hub.address}/bio/thing:{version}")
    name = f"{hub.address}/bio/thing:1.0"

    def planned(*words: str, code: int = 0) -> tuple[list[str], str, str]:
        done = cli("submit", "--dry-run", "--json", *words, code=code)
        told = json.loads(done.stdout) if code == 0 else {"argv": [], "files": {"job.sh": ""}}
        return told["argv"], told["files"]["job.sh"], done.stderr

    argv, script, told = planned("--site", "cluster", name)
    assert {"--partition=batch", "--account=astro", "--qos=long"} < set(argv)
    assert "module load gcc/13 openmpi || co_end 125 125" in script
    assert f"{tmp_path}/shared/images/" in script  # staged once, for all jobs of the site
    assert "thing-1.0-v2.sif" in script
    assert "variant v2, the best that fits: x86_64_v2" in told
    argv, _, _ = planned("--site", "cluster", "--queue", "fast", name)
    assert "--partition=fast" in argv  # the command line wins
    _, script, told = planned("--site", "far", name)  # nobody described its machines
    assert "variant generic" in told
    assert f"run {name}@sha256:" in script.replace("'", "")

    there = tmp_path / "cvmfs/bio"
    there.mkdir(parents=True)
    assert "does not have" in planned("--site", "grid", name, code=5)[2]
    (there / "thing-1.0.sif").write_bytes(v2.sif.read_bytes())
    assert "is not the image" in planned("--site", "grid", name, code=9)[2]
    (there / "thing-1.0.sif").write_bytes(generic.sif.read_bytes())
    assert f"run {there}/thing-1.0.sif --" in planned("--site", "grid", name)[1]

    environ["COMPUTEOPS_SITE"] = "cluster"
    assert "--partition=batch" in planned(str(made / "thing-1.0.sif"))[0]
    assert "did you mean 'cluster'" in planned("--site", "clusta", name, code=2)[2]
    assert "unknown key 'quue' of site bad" in planned("--site", "bad", name, code=2)[2]
    environ["HOME"] = str(tmp_path / "stranger")  # who knows no key: refused before any queue
    environ["COMPUTEOPS_CONFIG"] = str(tmp_path / ".config/computeops/config.toml")
    planned("--site", "far", name, code=10)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no site is called"),
        ("sites = 3", "no site is called"),
        ("[sites.a]\nmodules = 'x'", "must be a list of texts"),
        ("[sites.a]\nqueue = ['x']", "must be a text"),
        ("[sites.a]\noptions = [1]", "must be a list of texts"),
    ],
)
def test_wrong_profiles_are_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        config.site("a", {"COMPUTEOPS_CONFIG": str(tmp_path / "c.toml")})
