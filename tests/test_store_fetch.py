"""Fetching releases: what appears, what never does, and images that other programs pushed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from computeops.check.kinds import short
from computeops.config import EPOCH_DEFAULT
from computeops.errors import (
    ComputeOpsError,
    ConflictError,
    FormatError,
    LimitError,
    NetworkError,
    NotFoundError,
    TrustError,
    UsageError,
)
from computeops.image import convert, oci
from computeops.limits import LIMITS
from computeops.model import Digest, Image, Reference, Signature, Signed
from computeops.store.credentials import Login
from computeops.store.fetch import evidence, fetch, fetch_release
from computeops.store.oci import Registry
from computeops.store.publish import push
from computeops.store.release import Release
from computeops.store.upload import push_blob
from releases import PROVENANCE, TEST, pack, release, signed
from servers import Asked, docker_registry, serving

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


@pytest.fixture
def published(registry: Registry, tmp_path: Path) -> tuple[Release, Image]:
    made, image = release(tmp_path / "made")
    push(made, THING, registry)
    return made, image


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_sif_and_its_evidence(registry: Registry, published: tuple[Release, Image], tmp_path: Path) -> None:
    made, image = published
    into = tmp_path / "out/mine.sif"
    found = fetch(THING, into, registry, word=short)
    assert found == replace(image, path=into, proven=False)
    assert into.read_bytes() == made.sif.read_bytes()
    assert into.stat().st_mode & 0o111
    names = sorted(Release.beside(into).files("evidence"))
    assert [name.partition("-")[0] for name in names] == ["provenance", "test"]
    assert {one.payload for one in Release.beside(into).evidence()} == {one.payload for one in made.evidence()}
    assert sorted(path.name for path in into.parent.iterdir()) == ["mine.release", "mine.sif"]
    assert {one.payload for one in evidence(THING, registry)} == {one.payload for one in made.evidence()}


def test_a_layout_and_an_archive_are_the_same_image(
    registry: Registry, published: tuple[Release, Image], tmp_path: Path
) -> None:
    made, image = published
    layout = fetch(THING, tmp_path / "out/x.oci", registry)
    assert (layout.form, layout.id, layout.manifest) == ("oci", image.id, image.manifest)
    assert content(tmp_path / "out/x.oci/blobs") == content(made.layout / "blobs")
    archive = fetch(THING, tmp_path / "out/y.tar", registry)
    assert (archive.form, archive.id, archive.manifest) == ("oci-archive", image.id, image.manifest)
    assert convert.prove(archive).id == image.id


def test_by_digest_and_only_by_the_right_one(
    registry: Registry, published: tuple[Release, Image], tmp_path: Path
) -> None:
    _, image = published
    assert image.manifest is not None
    pinned = Reference.parse("bio/thing").at(image.manifest)
    assert fetch(pinned, tmp_path / "x.sif", registry).id == image.id
    with pytest.raises(NotFoundError):
        fetch(THING.at(Digest.of(b"other")), tmp_path / "y.sif", registry)
    with pytest.raises(NotFoundError):
        fetch(Reference.parse("bio/thing:2.0"), tmp_path / "y.sif", registry)
    assert not (tmp_path / "y.sif").exists()


def test_all_that_a_release_was_built_from(
    registry: Registry, published: tuple[Release, Image], tmp_path: Path
) -> None:
    made, image = published
    sif = tmp_path / "again/x.sif"
    named = fetch_release(THING, sif, registry, writer=convert.Writer(), epoch=0)
    assert named.digest == image.manifest
    for part in ("recipe", "sources", "inputs"):
        kept = {name: path.read_bytes() for name, path in made.files(part).items()}
        assert content(tmp_path / "again/x.release" / part) == kept, part


def test_the_gate_sees_image_and_evidence_before_the_name_appears(
    registry: Registry, published: tuple[Release, Image], tmp_path: Path
) -> None:
    _, image = published
    into = tmp_path / "x.sif"

    def gate(there: Image, about: Sequence[Signed]) -> None:
        assert not into.exists() or into.read_bytes() == b"what was here"
        assert convert.prove(there).subjects == image.subjects
        assert len(about) == 2
        raise TrustError("no")

    with pytest.raises(TrustError):
        fetch(THING, into, registry, gate=gate)
    assert sorted(path.name for path in tmp_path.iterdir() if "x." in path.name or path.name.startswith(".")) == []
    into.write_bytes(b"what was here")
    with pytest.raises(TrustError):
        fetch(THING, into, registry, gate=gate, force=True)
    assert into.read_bytes() == b"what was here"


@pytest.mark.parametrize("suffix", [".sif", ".oci"])
def test_what_is_there_is_replaced_only_by_force_and_its_evidence_too(
    registry: Registry, published: tuple[Release, Image], tmp_path: Path, suffix: str
) -> None:
    _, image = published
    into = tmp_path / f"x{suffix}"
    old = pack(tmp_path, "old", name="x")
    Release.beside(into).add_evidence("old", signed(old))
    before = content(into) if into.is_dir() else into.read_bytes()
    with pytest.raises(ConflictError):
        fetch(THING, into, registry)
    assert (content(into) if into.is_dir() else into.read_bytes()) == before
    assert fetch(THING, into, registry, force=True).id == image.id
    assert not [name for name in Release.beside(into).files("evidence") if name.startswith("old")]


def test_what_lies_beside_another_form_of_the_release_stays(
    registry: Registry, published: tuple[Release, Image], tmp_path: Path
) -> None:
    """Pulling the layout beside the SIF that was built here: recipe, sources and our own signatures are not lost."""
    made, image = published
    made.add_evidence("test-result", signed(image, signer="SHA256:ours"))
    made.add_evidence("review", signed(image, "https://example.org/review/v1"))
    before = {name for part in ("recipe", "sources") for name in made.files(part)}
    shutil.rmtree(made.layout)
    fetch(THING, made.layout, registry, word=short)
    assert {name for part in ("recipe", "sources") for name in made.files(part)} == before
    signers = [{one.keyid for one in found.signatures} for found in made.evidence() if TEST.encode() in found.payload]
    assert signers == [{"SHA256:one", "SHA256:ours"}]
    assert len(made.evidence()) == 3


def test_signatures_of_two_envelopes_with_one_payload_are_put_together(hub, tmp_path: Path) -> None:
    made, image = release(tmp_path / "made")
    with Registry(hub.address, login=Login(hub.token("push:bio/*"))) as registry:
        push(made, THING, registry)
        made.add_evidence("test-result", signed(image, signer="SHA256:two"))
        push(made, THING, registry)
        (test,) = [one for one in evidence(THING, registry) if TEST.encode() in one.payload]
    assert {one.keyid for one in test.signatures} == {"SHA256:one", "SHA256:two"}


def test_a_name_that_says_no_form(registry: Registry, tmp_path: Path) -> None:
    for name in ("x", "x.zip", ".sif"):
        with pytest.raises(UsageError):
            fetch(THING, tmp_path / name, registry)


# images that other programs pushed


def skopeo(registry: Registry, source: str, name: str) -> None:
    target = f"docker://{registry.base.partition('://')[2]}/{name}"
    login = ["--dest-creds", f"x:{registry.login.secret}"] if registry.login else []
    argv = ["skopeo", "copy", "--dest-tls-verify=false", *login, source, target]
    subprocess.run(argv, capture_output=True, check=True)


@pytest.mark.skopeo
def test_our_image_without_its_sif_becomes_the_same_sif(registry: Registry, tmp_path: Path) -> None:
    image = pack(tmp_path)
    skopeo(registry, f"oci:{tmp_path}/thing-1.0.oci", "bio/thing:1.0")
    found = fetch(THING, tmp_path / "x.sif", registry, writer=convert.Writer(threads=1))
    assert found.subjects["image"] == image.id
    assert found.manifest == image.manifest


@pytest.mark.skopeo
def test_a_docker_image_of_several_layers_becomes_a_sif(registry: Registry, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, name in ((first, "one"), (second, "two")):
        folder.mkdir()
        (folder / name).write_text(name)
    layout = foreign_layout(tmp_path, [first, second])
    skopeo(registry, f"oci:{layout}", "bio/foreign:1.0")
    seen: list[Image] = []
    into = tmp_path / "x.sif"
    found = fetch(Reference.parse("bio/foreign:1.0"), into, registry, gate=lambda image, _: seen.append(image))
    assert seen[0].form == "oci"
    assert seen[0].manifest == registry.digest_of("bio/foreign", "1.0"), "the gate judges what was published"
    assert found.form == "sif"
    assert {"one", "two"} <= {entry.path for entry, _ in convert.open_tree(into).items()}


def foreign_layout(tmp_path: Path, layers: list[Path]) -> Path:
    """An OCI layout with one plain gzip layer for each folder, as Docker would make it."""
    import gzip
    import io
    import tarfile

    target = tmp_path / "foreign.oci"
    with oci.LayoutWriter(target) as writer:
        descriptors, diff_ids = [], []
        for folder in layers:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as tar:
                tar.add(folder, arcname=".")
            diff_ids.append(str(Digest.of(packed.getvalue())))
            blob = gzip.compress(packed.getvalue(), mtime=0)
            writer.add(blob)
            descriptors.append(oci.descriptor("application/vnd.oci.image.layer.v1.tar+gzip", blob))
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        writer.add(oci.canonical(config))
        body = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": oci.descriptor(oci.CONFIG, oci.canonical(config)),
            "layers": descriptors,
        }
        writer.close(oci.canonical(body), "1.0")
    return target


def put(registry: Registry, repository: str, layout: Path) -> dict[str, object]:
    body = oci.Layout(layout).choose()
    for blob in (layout / "blobs/sha256").iterdir():
        push_blob(registry, repository, Digest("sha256", blob.name), blob)
    registry.push_manifest(repository, body, oci.MANIFEST)
    return oci.descriptor(oci.MANIFEST, body)


@pytest.mark.skopeo
def test_a_sif_that_the_hub_made_of_somebodys_layers_is_made_again_here(hub, tmp_path: Path) -> None:
    with Registry(hub.address, login=Login(hub.token("push:*"))) as there:
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "one").write_text("one")
        skopeo(there, f"oci:{foreign_layout(tmp_path, [folder])}", "bio/foreign:1.0")
        reference = Reference.parse("bio/foreign:1.0")
        first = fetch(reference, tmp_path / "first.sif", there, epoch=EPOCH_DEFAULT)
        with urllib.request.urlopen(f"{hub.address}/v1/imagefile/bio/foreign:1.0?arch=amd64") as made:
            assert made.read() == (tmp_path / "first.sif").read_bytes()
        assert fetch(reference, tmp_path / "second.sif", there, epoch=EPOCH_DEFAULT).id == first.id


def test_an_index_is_read_by_architecture(registry: Registry, tmp_path: Path) -> None:
    entries = []
    for arch in ("amd64", "arm64"):
        pack(tmp_path / arch, arch)
        entry = put(registry, "bio/many", tmp_path / arch / "thing-1.0.oci")
        entries.append(entry | {"platform": {"os": "linux", "architecture": arch}})
    for os_name, arch in (("unknown", "unknown"), ("windows", "amd64")):  # what Docker's builder adds
        entries.append(entries[1] | {"platform": {"os": os_name, "architecture": arch}})
    index = oci.canonical({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries})
    registry.push_manifest("bio/many", index, oci.INDEX, "1.0")
    many = Reference.parse("bio/many:1.0")
    for arch, entry in zip(("amd64", "arm64"), entries[:2], strict=True):
        found = fetch(many, tmp_path / f"{arch}.oci", registry, arch=arch)
        assert str(found.manifest) == entry["digest"]
    with pytest.raises(NotFoundError, match="amd64, arm64"):
        fetch(many, tmp_path / "x.oci", registry, arch="riscv64")
    with pytest.raises(NotFoundError):
        fetch(many, tmp_path / "x.oci", registry)


@pytest.mark.apptainer
def test_a_sif_that_apptainer_pushed(registry: Registry, tmp_path: Path, scientist) -> None:
    pack(tmp_path)
    file = scientist.own(Path(shutil.copy(tmp_path / "thing-1.0.sif", scientist.home / "x.sif")))
    host = registry.base.partition("://")[2]
    if registry.login:
        login = ["apptainer", "registry", "login", "--username", "x", "--password-stdin", f"oras://{host}"]
        scientist.run(login, stdin=registry.login.secret.encode())
    scientist.run(
        ["apptainer", "push", "--no-https", "--allow-unsigned", file, f"oras://{host}/bio/oras:1.0"], check=False
    )
    found = fetch(Reference.parse("bio/oras:1.0"), tmp_path / "back.sif", registry)
    assert (tmp_path / "back.sif").read_bytes() == file.read_bytes()
    assert found.form == "sif"


# registries that lie


class Liar:
    """A registry that has one release, and changes what a test says on its way out."""

    def __init__(self, made: Release, image: Image) -> None:
        self.blobs: dict[str, bytes] = {p.name: p.read_bytes() for p in (made.layout / "blobs/sha256").iterdir()}
        self.image = image
        assert image.manifest is not None
        self.manifests = {str(image.manifest): oci.Layout(made.layout).choose()}
        self.manifests["1.0"] = self.manifests[str(image.manifest)]
        self.listed: list[dict[str, object]] = []
        self.change: Callable[[Asked, bytes], bytes] = lambda _asked, data: data

    def refer(self, kind: str, name: str, data: bytes, media_type: str = "", subject: str = "") -> None:
        layer = oci.descriptor(media_type or kind, data) | {"annotations": {"org.opencontainers.image.title": name}}
        body = oci.canonical(
            {
                "schemaVersion": 2,
                "mediaType": oci.MANIFEST,
                "artifactType": kind,
                "config": oci.descriptor("application/vnd.oci.empty.v1+json", b"{}"),
                "layers": [layer],
                "subject": {"digest": subject or str(self.image.manifest), "mediaType": oci.MANIFEST, "size": 1},
            }
        )
        self.blobs[Digest.of(data).hex] = data
        self.manifests[str(Digest.of(body))] = body
        self.listed.append(oci.descriptor(oci.MANIFEST, body) | {"artifactType": kind})

    def __call__(self, asked: Asked) -> None:
        kind, _, name = asked.path.removeprefix("/v2/bio/thing/").partition("/")
        if kind == "referrers":
            data: bytes | None = oci.canonical({"schemaVersion": 2, "manifests": self.listed})
        elif kind == "manifests":
            data = self.manifests.get(name)
        else:
            data = self.blobs.get(name.partition(":")[2])
        asked.answer(404) if data is None else asked.answer(200, self.change(asked, data))


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[tuple[Liar, Registry]]:
    made, image = release(tmp_path / "made")
    lies = Liar(made, image)
    lies.refer(oci.SIF_ARTIFACT, "x.sif", made.sif.read_bytes())
    with serving(lies) as server, Registry(server.url, pause=0.001) as registry:
        yield lies, registry


def refused(registry: Registry, tmp_path: Path, *kinds: type[ComputeOpsError], suffix: str = ".sif") -> None:
    out = tmp_path / "out"
    with pytest.raises(kinds):
        fetch(THING, out / f"x{suffix}", registry)
    assert list(out.iterdir()) == [] if out.exists() else True


def test_an_honest_one_is_believed(liar: tuple[Liar, Registry], tmp_path: Path) -> None:
    assert fetch(THING, tmp_path / "x.sif", liar[1]).id == liar[0].image.id


@pytest.mark.parametrize("suffix", [".sif", ".oci", ".tar"])
def test_changed_blobs_are_refused(liar: tuple[Liar, Registry], tmp_path: Path, suffix: str) -> None:
    lies, registry = liar
    lies.change = lambda asked, data: data[:-1] + b"!" if "/blobs/" in asked.path else data
    refused(registry, tmp_path, FormatError, suffix=suffix)


@pytest.mark.parametrize("suffix", [".sif", ".oci"])
def test_endless_blobs_are_refused(liar: tuple[Liar, Registry], tmp_path: Path, suffix: str) -> None:
    lies, registry = liar
    lies.change = lambda asked, data: data * 100 if "/blobs/" in asked.path else data
    refused(registry, tmp_path, LimitError, suffix=suffix)


def test_the_sif_of_another_image_is_refused(liar: tuple[Liar, Registry], tmp_path: Path) -> None:
    lies, registry = liar
    pack(tmp_path / "other", "other")
    lies.listed.clear()
    lies.refer(oci.SIF_ARTIFACT, "x.sif", (tmp_path / "other/thing-1.0.sif").read_bytes())
    refused(registry, tmp_path, FormatError)


def test_what_is_no_sif_is_refused(liar: tuple[Liar, Registry], tmp_path: Path) -> None:
    lies, registry = liar
    lies.listed.clear()
    lies.refer(oci.SIF_ARTIFACT, "x.sif", b"#!/bin/sh\nrm -r /\n")
    refused(registry, tmp_path, FormatError)


def test_referrers_of_another_image_are_refused(liar: tuple[Liar, Registry], tmp_path: Path) -> None:
    lies, registry = liar
    envelope = json.dumps(signed(lies.image).as_json()).encode()
    lies.refer(oci.EVIDENCE_ARTIFACT, "x", envelope, oci.ENVELOPE, subject=str(Digest.of(b"other")))
    refused(registry, tmp_path, FormatError)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"payload": "e30=", "payloadType": "x", "signatures": [3]}']
)
def test_broken_evidence_is_refused(liar: tuple[Liar, Registry], tmp_path: Path, data: bytes) -> None:
    lies, registry = liar
    lies.refer(oci.EVIDENCE_ARTIFACT, "x", data, oci.ENVELOPE)
    refused(registry, tmp_path, FormatError)


def test_a_kind_of_evidence_never_leaves_its_folder(liar: tuple[Liar, Registry], tmp_path: Path) -> None:
    lies, registry = liar
    for kind in ("../../../evil", "/etc/passwd", "", "v1", "..", "\x00\n", "https://example.org/" + "x" * 500, "É"):
        one = signed(lies.image, kind)
        lies.refer(oci.EVIDENCE_ARTIFACT, "../../evil", json.dumps(one.as_json()).encode(), oci.ENVELOPE)
    fetch(THING, tmp_path / "out/x.sif", registry, word=short)
    assert len(Release.beside(tmp_path / "out/x.sif").files("evidence")) == 8
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x.release", "x.sif"]
    assert not list(tmp_path.rglob("evil")), "no file has the name that the registry wanted"


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".", "..", ".hidden", "a\x00b", "a\nb", "x" * 300])
def test_file_names_of_a_recipe_that_are_none(liar: tuple[Liar, Registry], tmp_path: Path, name: str) -> None:
    lies, registry = liar
    lies.refer(oci.RECIPE_ARTIFACT, name, b"recipe")
    with pytest.raises(FormatError):
        fetch_release(THING, tmp_path / "in/x.sif", registry, writer=convert.Writer(), epoch=0)
    assert not list(tmp_path.glob("in/*.release/recipe/*"))


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"mediaType":"x"}',
        b'{"layers":3}',
        b'{"layers":[{}]}',
        b'{"config":{},"layers":[]}',
        b'{"manifests":[]}',
    ],
)
def test_manifests_that_are_none(liar: tuple[Liar, Registry], tmp_path: Path, body: bytes) -> None:
    lies, registry = liar
    for kind in (oci.MANIFEST, oci.INDEX):
        data = oci.canonical({"mediaType": kind, **json.loads(body)})
        lies.manifests = {"1.0": data, str(Digest.of(data)): data}
        for suffix in (".sif", ".oci"):
            refused(registry, tmp_path, FormatError, NotFoundError, suffix=suffix)


def test_an_index_of_itself_ends(liar: tuple[Liar, Registry], tmp_path: Path) -> None:
    lies, registry = liar
    inner = lies.manifests["1.0"]
    for _ in range(10):
        entry = oci.descriptor(oci.INDEX, inner)
        inner = oci.canonical({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]})
        lies.manifests[str(Digest.of(inner))] = lies.manifests["1.0"] = inner
    refused(registry, tmp_path, FormatError)


def test_a_link_that_breaks_all_the_time_but_gets_on(liar: tuple[Liar, Registry], tmp_path: Path) -> None:
    lies, _registry = liar
    big = os.urandom(5_000_000)
    (tmp_path / "made/tree/big").write_bytes(big)
    made, image = release(tmp_path / "made")
    lies.__init__(made, image)  # type: ignore[misc]
    lies.refer(oci.SIF_ARTIFACT, "x.sif", made.sif.read_bytes())
    breaks = 0

    def cutting(asked: Asked) -> None:
        nonlocal breaks
        data = lies.blobs.get(asked.path.rpartition(":")[2]) if "/blobs/" in asked.path else None
        if data is None or len(data) < 1_000_000:
            lies(asked)
            return
        first = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        asked.start(
            206 if first else 200,
            {"Content-Length": str(len(data) - first), "Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"},
        )
        asked.send(data[first : first + 1_200_000])
        if first + 1_200_000 < len(data):
            breaks += 1
            asked.cut()

    with serving(cutting) as server, Registry(server.url, pause=0.001) as broken:
        fetch(THING, tmp_path / "x.sif", broken)
    assert (tmp_path / "x.sif").read_bytes() == made.sif.read_bytes()
    assert breaks >= 3


def test_a_killed_fetch_leaves_nothing_under_the_name_and_the_next_cleans_up(
    liar: tuple[Liar, Registry], tmp_path: Path
) -> None:
    lies, registry = liar
    made_sif = lies.blobs[max(lies.blobs, key=lambda name: len(lies.blobs[name]))]

    def slow(asked: Asked) -> None:
        data = lies.blobs.get(asked.path.rpartition(":")[2]) if "/blobs/" in asked.path else None
        if data is not made_sif:
            lies(asked)
            return
        asked.start(200, {"Content-Length": str(len(data))})
        asked.send(data[: len(data) // 2])
        time.sleep(60)

    out = tmp_path / "out"
    out.mkdir()
    with serving(slow) as server:
        argv = [sys.executable, "-m", "computeops", "pull", f"{server.url}/bio/thing:1.0", str(out / "x.sif")]
        environ = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        process = subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            if any("/blobs/" in path for path in server.paths()) and list(out.glob(".computeops-pull-*/.tmp-*")):
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == []
        assert list(out.iterdir()), "it was killed in the middle"
    fetch(THING, out / "x.sif", registry)
    assert sorted(path.name for path in out.iterdir()) == ["x.sif"]


def test_more_evidence_than_is_read_is_refused(liar: tuple[Liar, Registry], tmp_path: Path) -> None:
    lies, registry = liar
    lies.refer(oci.EVIDENCE_ARTIFACT, "x", b"{}", oci.ENVELOPE)
    digest = str(lies.listed[-1]["digest"])
    body = json.loads(lies.manifests.pop(digest))
    body["layers"][0]["size"] = LIMITS.evidence_bytes + 1
    lies.manifests[str(Digest.of(oci.canonical(body)))] = oci.canonical(body)
    lies.listed[-1] |= oci.descriptor(oci.MANIFEST, oci.canonical(body))
    refused(registry, tmp_path, LimitError)


def test_the_first_failure_and_ctrl_c_end_all_that_is_under_way(tmp_path: Path) -> None:
    """Two layers drip without end; a third fails, or the user has enough."""
    layers = [tmp_path / name for name in ("one", "two", "three")]
    for folder in layers:
        folder.mkdir()
        (folder / folder.name).write_bytes(os.urandom(100_000))
    layout = foreign_layout(tmp_path, layers)
    body = oci.Layout(layout).choose()
    large = [one["digest"] for one in json.loads(body)["layers"]]
    failing = True

    def drip(asked: Asked) -> None:
        name = asked.path.rpartition("/")[2]
        if name == "1.0":
            asked.answer(200, body)
        elif name in large and not (failing and name == large[2]):
            asked.start(200, {"Content-Length": "100000"})
            for _ in range(1000):
                asked.send(b"x")
                time.sleep(0.02)
        elif name in large or "/blobs/" not in asked.path:
            asked.answer(404)
        else:
            asked.answer(200, (layout / "blobs/sha256" / name.partition(":")[2]).read_bytes())

    out = tmp_path / "out"
    out.mkdir()
    with serving(drip) as server, Registry(server.url, pause=0.001) as registry:
        began = time.monotonic()
        with pytest.raises(NotFoundError):
            fetch(THING, out / "x.oci", registry)
        assert time.monotonic() - began < 5
        assert list(out.iterdir()) == []
        failing = False
        argv = [
            sys.executable,
            "-m",
            "computeops",
            "pull",
            "--untrusted",
            f"{server.url}/bio/thing:1.0",
            str(out / "x.oci"),
        ]
        process = subprocess.Popen(argv, env={**os.environ, "HOME": str(tmp_path)}, stderr=subprocess.PIPE)
        while len([path for path in server.paths() if path.rpartition("/")[2] in large]) < 5:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 130, said
        assert list(out.iterdir()) == []


def test_a_fetch_that_is_going_on_is_left_alone(liar: tuple[Liar, Registry], tmp_path: Path) -> None:
    _, registry = liar
    out = tmp_path / "out"

    def gate(_image: Image, _evidence: Sequence[Signed]) -> None:
        fetch(THING, out / "second.sif", registry)

    fetch(THING, out / "first.sif", registry, gate=gate)
    assert sorted(path.name for path in out.iterdir()) == ["first.sif", "second.sif"]


def test_what_another_machine_fetches_into_a_shared_folder_is_left_alone(
    liar: tuple[Liar, Registry], tmp_path: Path
) -> None:
    _, registry = liar
    out = tmp_path / "out"
    young, old = out / ".computeops-pull-node17-abc", out / ".computeops-pull-node17-def"
    young.mkdir(parents=True)
    old.mkdir()
    os.utime(old, (0, 0))
    fetch(THING, out / "x.sif", registry)
    assert {path.name for path in out.iterdir()} == {"x.sif", young.name}


def test_nobody_there(tmp_path: Path) -> None:
    with Registry("127.0.0.1:9", pause=0.001) as registry, pytest.raises(NetworkError):
        fetch(THING, tmp_path / "x.sif", registry)
    assert list(tmp_path.iterdir()) == []


def test_unknown_words_are_kept(liar: tuple[Liar, Registry], tmp_path: Path) -> None:
    lies, registry = liar
    one = replace(signed(lies.image, PROVENANCE), signatures=(Signature("a", b"1"), Signature("b", b"2")))
    lies.refer(oci.EVIDENCE_ARTIFACT, "x", json.dumps(one.as_json()).encode(), oci.ENVELOPE)
    lies.refer("application/vnd.unknown", "x", b"whatever")
    assert evidence(THING, registry) == [one]
