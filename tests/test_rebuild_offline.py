"""Releases are rebuilt from what the hub keeps of them alone, when all that they came from has vanished."""

import json
import subprocess
from pathlib import Path

import pytest

from building import base_layout
from conftest import RunningHub
from servers import docker_registry
from test_pipeline import person

pytestmark = [
    pytest.mark.apptainer,
    pytest.mark.buildah,
    pytest.mark.registry,
    pytest.mark.skopeo,
    pytest.mark.squashfs,
]
HEAD = '[package]\nname = "{name}"\nversion = "1"\nsummary = "One program"\nlicense = "MIT"\n'
BUILD = '[build]\nbuilder = "{builder}"\nfile = "{file}"\n'


def recipe(folder: Path, builder: str, base: str) -> Path:
    """Write a recipe whose base image is one of a registry."""
    files = {
        "dockerfile": ("Dockerfile", f"FROM {base}\nRUN echo made > /made\n"),
        "apptainer": ("Apptainer.def", f"Bootstrap: docker\nFrom: {base}\n%post\necho made > /made\n"),
    }
    name, text = files[builder]
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    (folder / "computeops.toml").write_text(HEAD.format(name=builder) + BUILD.format(builder=builder, file=name))
    return folder


def test_when_the_registry_of_the_base_image_is_gone(hub: RunningHub, tmp_path: Path) -> None:
    grace, other = person(tmp_path / "grace"), person(tmp_path / "other")
    settings = tmp_path / "grace/.config/containers/registries.conf"
    settings.parent.mkdir(parents=True)
    with docker_registry(tmp_path / "registry") as registry:
        settings.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
        base = base_layout(tmp_path / "base.oci")
        to = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{base}", f"docker://{registry}/lab/base:12"]
        subprocess.run(to, check=True)
        grace("key", "new", "grace")
        grace("login", hub.address, "--token-stdin", stdin=hub.token("push:main/*"))
        for builder in ("dockerfile", "apptainer"):
            made = recipe(tmp_path / "recipes" / builder, builder, f"{registry}/lab/base:12")
            grace("build", made, "--out", tmp_path / "out", "--key", "grace")
            grace("push", tmp_path / f"out/{builder}-1.sif", f"{hub.address}/main/{builder}:1")
    # its parts are blobs of the hub like all others: both releases share them
    blobs = sorted(hub.data.glob("blobs/**/*"), key=lambda one: one.name)
    (config,) = (base / "blobs/sha256").glob(subject(base))
    assert [one.name for one in blobs if one.name == config.name] == [config.name]

    other("key", "new", "other")
    other("login", hub.address, "--token-stdin", stdin=hub.token("push:main/*", name="other"))
    for builder in ("dockerfile", "apptainer"):
        where = f"{hub.address}/main/{builder}:1"
        done = other("rebuild", where, "--key", "other", "--attach")
        assert "identical: image, manifest" in done.stdout
        shown = json.loads(other("show", where, "--json").stdout)
        assert [one["passed"] for one in shown["evidence"] if "rebuild" in one["kind"]] == [True]
    assert "a key with --key" in other("rebuild", f"{hub.address}/main/dockerfile:1", "--attach", code=2).stderr


def subject(layout: Path) -> str:
    """Return the digest of the config of the one image in a layout."""
    index = json.loads((layout / "index.json").read_text())
    manifest = layout / "blobs/sha256" / index["manifests"][0]["digest"].partition(":")[2]
    digest: str = json.loads(manifest.read_text())["config"]["digest"].partition(":")[2]
    return digest
