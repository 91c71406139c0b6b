"""Image layouts as folders, archives and what Docker saves; real programs read what we write."""

import json
import subprocess
from pathlib import Path

import pytest

import oci_images
from computeops.errors import ConflictError, FormatError, LimitError, NotFoundError
from computeops.image import oci, stored
from computeops.image.convert import open_tree
from computeops.model import Digest

LAYERS: list[list[oci_images.Member]] = [[("a", "file", b"a")], [("b", "file", b"b")], [("a", "file", b"a")]]


def test_a_layout_is_the_same_as_folder_and_archive(tmp_path: Path) -> None:
    files = oci_images.image(LAYERS)
    folder = stored.read(oci_images.layout(files, tmp_path / "x"))
    archive = stored.read(oci_images.archive(files, tmp_path / "x.tar"))
    assert (folder.manifest, folder.config, folder.diff_ids) == (archive.manifest, archive.config, archive.diff_ids)


def test_what_old_docker_saved_is_read(tmp_path: Path) -> None:
    path = oci_images.saved_by_old_docker(LAYERS, tmp_path / "saved.tar")
    found = stored.read(path)
    assert found.manifest == b""
    assert oci.describe(oci.document(found.config)).arguments == ("sh",)
    assert [e.path for e, _ in open_tree(path).items()] == ["", "a", "b"]


@pytest.mark.skopeo
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_archives_of_the_real_skopeo_are_read(form: str, tmp_path: Path) -> None:
    source = oci_images.layout(oci_images.image(LAYERS, compression="gzip"), tmp_path / "x")
    argv = ["skopeo", "copy", "-q", f"oci:{source}:x", f"{form}:{tmp_path}/made.tar:x/y:z"]
    subprocess.run(argv, check=True, capture_output=True)
    assert [e.path for e, _ in open_tree(tmp_path / "made.tar").items()] == ["", "a", "b"]


def _index(
    files: dict[str, bytes], *platforms: dict[str, str] | None, more: list[dict[str, object]] | None = None
) -> None:
    index = json.loads(files["index.json"])
    (one,) = index["manifests"]
    index["manifests"] = [one | ({"platform": platform} if platform else {}) for platform in platforms] + (more or [])
    files["index.json"] = json.dumps(index).encode()


def test_one_of_several_platforms_is_chosen(tmp_path: Path) -> None:
    files = oci_images.image(LAYERS)
    _index(
        files,
        {"architecture": "arm", "variant": "v6"},
        {"architecture": "arm", "variant": "v7"},
        {"architecture": "amd64"},
    )
    layout = oci.Layout(oci_images.layout(files, tmp_path / "x"))
    assert layout.choose("amd64") == layout.choose("arm/v7")
    for arch in ("", "arm", "s390x"):
        with pytest.raises(NotFoundError, match="amd64, arm/v6, arm/v7"):
            layout.choose(arch)


def test_signatures_and_missing_platforms_are_no_images(tmp_path: Path) -> None:
    files = oci_images.image(LAYERS)
    blob = json.dumps(
        {"config": {"mediaType": oci.CONFIG}, "layers": [{"mediaType": "application/vnd.in-toto+json"}]}
    ).encode()
    files[f"blobs/sha256/{Digest.of(blob).hex}"] = blob
    missing = {"mediaType": oci.MANIFEST, "digest": str(Digest.of(b"elsewhere")), "size": 1}
    _index(files, {"architecture": "amd64"}, more=[oci.descriptor(oci.MANIFEST, blob), missing])
    assert oci.Layout(oci_images.archive(files, tmp_path / "x.tar")).choose()


def test_indexes_nested_too_deep_are_refused(tmp_path: Path) -> None:
    files = oci_images.image(LAYERS)
    for _ in range(6):
        inner = files["index.json"]
        files[f"blobs/sha256/{Digest.of(inner).hex}"] = inner
        files["index.json"] = json.dumps({"manifests": [oci.descriptor(oci.INDEX, inner)]}).encode()
    with pytest.raises(LimitError, match="nested"):
        oci.Layout(oci_images.layout(files, tmp_path / "x")).choose()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("index.json", b"[]"),
        ("index.json", b"{"),
        ("index.json", b"[" * 100_000),
        ("index.json", b'{"manifests": {}}'),
        ("index.json", b'{"manifests": [{"digest": "md5:1"}]}'),
    ],
)
def test_a_broken_index_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    files = oci_images.image(LAYERS) | {name: data}
    with pytest.raises(FormatError):
        oci.Layout(oci_images.layout(files, tmp_path / "x")).choose()


def test_a_blob_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    folder = oci_images.layout(oci_images.image(LAYERS), tmp_path / "x")
    found = stored.read(folder)
    path = folder / "blobs/sha256" / Digest.of(found.config).hex
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="lacks blobs"):
        stored.read(folder)


@pytest.mark.parametrize(
    "config", [{"Env": "PATH=/"}, {"Entrypoint": "sh"}, {"Cmd": [1]}, {"Labels": ["a"]}, {"Cmd": ["a\0b"]}]
)
def test_a_broken_config_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        oci.describe({"config": config})


def test_a_layout_never_takes_the_place_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("precious")
    for archive in (False, True):
        with pytest.raises(ConflictError):
            oci.LayoutWriter(tmp_path / "mine", archive=archive)
    assert (tmp_path / "mine/file").read_text() == "precious"
