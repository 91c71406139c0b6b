"""Publishing a release to our hub and to docker-registry, and what real clients then find there."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from computeops.errors import ConflictError, FormatError, NotFoundError, UsageError
from computeops.image import oci
from computeops.model import Digest, Reference
from computeops.store.credentials import Login
from computeops.store.oci import Registry, files
from computeops.store.publish import push
from computeops.store.release import Release
from releases import pack, release, signed
from servers import docker_registry

pytestmark = [pytest.mark.squashfs, pytest.mark.registry]
THING = Reference.parse("bio/thing:1.0")


@pytest.fixture(params=["docker-registry", "hub"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    if request.param == "hub":
        hub = request.getfixturevalue("hub")
        with Registry(hub.address, login=Login(hub.token("push:bio/*"))) as ours:
            yield ours
        return
    with docker_registry(tmp_path / "registry") as address, Registry(address) as theirs:
        yield theirs


def titles(registry: Registry, subject: Digest, artifact_type: str) -> list[str]:
    found = registry.referrers(THING.repository, subject, artifact_type)
    manifests = [registry.resolve(THING.repository, str(one.digest)).document for one in found]
    return sorted(layer.title for manifest in manifests for layer in files(manifest))


def test_all_parts_of_a_release_arrive(registry: Registry, tmp_path: Path) -> None:
    made, image = release(tmp_path)
    digest = push(made, THING, registry)
    assert digest == image.manifest
    found = registry.resolve("bio/thing", "1.0")
    assert found.digest == digest
    assert Digest.parse(found.document["config"]["digest"]) == image.id
    assert titles(registry, digest, oci.RECIPE_ARTIFACT) == ["computeops.lock", "computeops.toml"]
    assert titles(registry, digest, oci.SOURCES_ARTIFACT) == ["thing_1.0~rc1+dfsg.orig.tar.xz"]
    assert titles(registry, digest, oci.EVIDENCE_ARTIFACT) == sorted(made.files("evidence"))
    (sif,) = files(registry.resolve("bio/thing", "1.0.sif").document)
    assert registry.read("bio/thing", sif.digest, 10**8) == made.sif.read_bytes()


def test_pushing_again_sends_nothing_and_new_evidence_only(registry: Registry, tmp_path: Path) -> None:
    made, image = release(tmp_path)
    push(made, THING, registry)
    said: list[str] = []
    assert push(made, THING, registry, progress=said.append) == image.manifest
    assert not [line for line in said if line.startswith("sent")]
    made.add_evidence("review", signed(image, "https://example.org/review/v1"))
    push(made, THING, registry)
    assert len(registry.referrers("bio/thing", image.manifest, oci.EVIDENCE_ARTIFACT)) == 3
    assert len(registry.referrers("bio/thing", image.manifest, oci.SIF_ARTIFACT)) == 1


def test_another_image_under_the_same_version_is_refused_before_anything_is_sent(
    registry: Registry, tmp_path: Path
) -> None:
    first, image = release(tmp_path / "a")
    push(first, THING, registry)
    second, other = release(tmp_path / "b", "two")
    with pytest.raises(ConflictError) as caught:
        push(second, THING, registry)
    assert "new version" in caught.value.hint
    assert registry.digest_of("bio/thing", "1.0") == image.manifest
    assert registry.digest_of("bio/thing", str(other.manifest)) is None


def test_the_tag_comes_last(hub, tmp_path: Path) -> None:
    """A push that fails in the middle of the evidence leaves no version behind."""
    made, _ = release(tmp_path)
    (made.folder / "evidence/zz.dsse.json").write_text("{}")
    with Registry(hub.address, login=Login(hub.token("push:bio/*"))) as registry:
        with pytest.raises(FormatError):
            push(made, THING, registry)
        assert registry.digest_of("bio/thing", "1.0") is None


def test_two_pushes_of_one_release_at_once_both_succeed(registry: Registry, tmp_path: Path) -> None:
    made, image = release(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        pushed = [pool.submit(push, made, THING, registry) for _ in range(2)]
        assert [one.result() for one in pushed] == [image.manifest] * 2
    assert registry.digest_of("bio/thing", "1.0") == image.manifest


def test_of_two_different_releases_at_once_one_wins_and_the_other_is_told(hub, tmp_path: Path) -> None:
    releases = [release(tmp_path / content, content) for content in ("one", "two", "three")]
    with Registry(hub.address, login=Login(hub.token("push:bio/*"))) as registry:
        with ThreadPoolExecutor(3) as pool:
            pushed = [pool.submit(push, made, THING, registry) for made, _ in releases]
        won = [image.manifest for one, (_, image) in zip(pushed, releases, strict=True) if one.exception() is None]
        lost = [error for one in pushed if (error := one.exception())]
        assert len(won) == 1
        assert all(isinstance(error, ConflictError) for error in lost)
        assert registry.digest_of("bio/thing", "1.0") == won[0]


def test_a_release_of_only_a_sif_or_only_a_layout(registry: Registry, tmp_path: Path) -> None:
    image = pack(tmp_path / "a")
    assert image.manifest is not None
    subprocess.run(["rm", "-r", tmp_path / "a/thing-1.0.oci"], check=True)
    assert push(Release.beside(tmp_path / "a/thing-1.0.sif"), THING, registry) == image.manifest
    assert [path.name for path in (tmp_path / "a").iterdir() if path.name.startswith(".")] == []
    other = pack(tmp_path / "b", sif=False)
    assert push(Release.beside(other.path), Reference.parse("bio/other:1.0"), registry) == other.manifest


def test_parts_of_different_images_are_not_published(hub, tmp_path: Path) -> None:
    pack(tmp_path / "a")
    pack(tmp_path / "b", "two")
    (tmp_path / "b/thing-1.0.sif").replace(tmp_path / "a/thing-1.0.sif")
    blob = max((tmp_path / "b/thing-1.0.oci/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with Registry(hub.address, login=Login(hub.token("push:bio/*"))) as registry:
        with pytest.raises(FormatError):
            push(Release.beside(tmp_path / "a/thing-1.0.sif"), THING, registry)
        with pytest.raises(FormatError):
            push(Release.beside(tmp_path / "b/thing-1.0.oci"), THING, registry)
        with pytest.raises(NotFoundError):
            push(Release.beside(tmp_path / "nothing.sif"), THING, registry)
        with pytest.raises(UsageError):
            push(Release.beside(tmp_path / "a/thing-1.0.sif"), Reference.parse("bio/thing"), registry)
        assert registry.digest_of("bio/thing", "1.0") is None


@pytest.mark.skopeo
def test_the_real_skopeo_sees_what_was_pushed(registry: Registry, tmp_path: Path) -> None:
    made, image = release(tmp_path)
    push(made, THING, registry)
    name = f"docker://{registry.base.partition('://')[2]}/bio/thing:1.0"
    argv = ["skopeo", "inspect", "--tls-verify=false", name]
    found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
    assert found["Digest"] == str(image.manifest)
    assert found["Labels"]["org.opencontainers.image.title"] == "thing"
    subprocess.run(
        ["skopeo", "copy", "--src-tls-verify=false", name, f"oci:{tmp_path}/copy:1.0"], capture_output=True, check=True
    )
    assert Digest.of(oci.Layout(tmp_path / "copy").choose()) == image.manifest


@pytest.mark.apptainer
def test_the_real_apptainer_pulls_the_same_sif(registry: Registry, tmp_path: Path, scientist) -> None:
    made, _ = release(tmp_path)
    push(made, THING, registry)
    host = registry.base.partition("://")[2]
    scientist.run(["apptainer", "pull", "--no-https", "x.sif", f"oras://{host}/bio/thing:1.0.sif"])
    assert (scientist.home / "x.sif").read_bytes() == made.sif.read_bytes()
