"""A release of a hub as a job: trusted before the queue, and started by Kubernetes as exactly the image that was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from releases import release

pytestmark = pytest.mark.squashfs


def test_a_release_is_submitted_by_the_digest_that_was_trusted(hub, tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}

    def cli(*argv: str | Path, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "computeops", *map(str, argv)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done

    made, image = release(tmp_path / "made")
    name = f"{hub.address}/bio/thing:1.0"
    cli("key", "new", "ada")
    cli("sign", made.sif, "--key", "ada")
    cli("login", hub.address, "--token-stdin", stdin=hub.token("push:bio/thing") + "\n")
    cli("push", made.sif, name)
    submit = ["submit", "--dry-run", "--json", "--on", "kubernetes"]
    manifest = json.loads(json.loads(cli(*submit, name, "--", "a", "$b").stdout)["files"]["manifest.json"])
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == f"{hub.host}/bio/thing@{image.manifest}"
    assert container["command"] == ["/.singularity.d/runscript", "a", "$$b"]
    script = json.loads(cli("submit", "--dry-run", "--json", "--on", "slurm", name).stdout)["files"]["job.sh"]
    assert "thing-1.0.sif" in script

    assert "registry" in cli(*submit, made.sif, code=2).stderr
    environ["HOME"] = str(tmp_path / "stranger")  # who knows no key
    cli(*submit, name, code=10)
