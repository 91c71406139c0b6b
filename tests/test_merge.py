"""Layers merged in a stream, beside umoci, which extracts them one after the other."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oci_images
from computeops.errors import FormatError
from computeops.image.convert import open_tree
from computeops.image.tree import Directory, Tree

Layers = list[list[oci_images.Member]]
SCENES: dict[str, Layers] = {
    "one file over another": [[("a", "file", b"old")], [("a", "file", b"new")]],
    "whiteout": [[("d", "dir"), ("d/a", "file", b"a"), ("d/b", "file", b"b")], [("d/.wh.a", "file")]],
    "whiteout of a folder": [[("d", "dir"), ("d/e", "dir"), ("d/e/f", "file", b"x")], [("d/.wh.e", "file")]],
    "whiteout and the same name again": [
        [("a", "dir"), ("a/b", "file", b"b")],
        [("a", "dir"), ("a/c", "file", b"c"), (".wh.a", "file")],
    ],
    "opaque": [
        [("d", "dir"), ("d/a", "file", b"a")],
        [("d", "dir"), ("d/.wh..wh..opq", "file"), ("d/b", "file", b"b")],
    ],
    "opaque at the end": [
        [("d", "dir"), ("d/a", "file", b"a")],
        [("d", "dir"), ("d/b", "file", b"b"), ("d/.wh..wh..opq", "file")],
    ],
    "opaque root": [
        [("a", "file", b"a"), ("d", "dir"), ("d/x", "file")],
        [(".wh..wh..opq", "file"), ("b", "file", b"b")],
    ],
    "a file becomes a folder": [[("a", "file", b"a")], [("a", "dir"), ("a/b", "file", b"b")]],
    "a folder becomes a file": [[("a", "dir"), ("a/b", "file", b"b")], [("a", "file", b"a")]],
    "a folder becomes a link": [[("a", "dir"), ("a/b", "file", b"b")], [("c", "dir"), ("a", "link c")]],
    "a folder keeps what is in it": [[("a", "dir"), ("a/b", "file", b"b")], [("a", "dir")]],
    "hard links in a layer": [[("a", "file", b"a"), ("b", "hard a"), ("0", "hard a")]],
    "hard link into a lower layer": [[("a", "file", b"a")], [("b", "hard a")]],
    "hard link to what is replaced above": [[("a", "file", b"a"), ("b", "hard a")], [("a", "file", b"new")]],
    "hard link to what is gone above": [[("a", "file", b"a"), ("z", "hard a")], [(".wh.a", "file")]],
    "hard link, then the target anew": [[("a", "file", b"old")], [("b", "hard a"), ("a", "file", b"new")]],
    "hard links over three layers": [[("a", "file", b"a")], [("b", "hard a")], [("c", "hard b"), (".wh.a", "file")]],
    "parents that no layer names": [[("a/b/c", "file", b"c")], [("a/b/d", "file", b"d")]],
    "a name through a link": [[("usr", "dir"), ("usr/lib", "dir"), ("lib", "link usr/lib")], [("lib/x", "file", b"x")]],
    "through a link to the root": [
        [("d", "dir"), ("l", "link /d")],
        [("l/x", "file", b"x"), ("l/../y", "file", b"y")][:1],
    ],
    "a link that climbs stays inside": [[("d", "dir"), ("l", "link ../../../d")], [("l/x", "file", b"x")]],
    "kinds": [[("dev", "dir"), ("pipe", "pipe"), ("l", "link nowhere")], [("l", "file", b"file")]],
    "order": [
        [("a-b", "file", b"1"), ("a", "dir"), ("a/c", "file", b"2"), ("a!", "file", b"3")],
        [("a.b", "file", b"4")],
    ],
    "many layers": [
        [(f"{number % 7}", "file", b"%d" % number), (f"x{number}", "file", b"x" * number)] for number in range(20)
    ],
    "layers in reverse order": [
        [(f"{letter}{layer}", "file", letter.encode() * 900) for letter in "zyxwvu"] for layer in range(3)
    ],
}


def shown(tree: Tree) -> list[tuple[object, ...]]:
    listed = [
        (e.path, e.kind, e.mode if e.kind.value != "symlink" else 0, e.target, e.size, e.device, b"".join(data))
        for e, data in tree.items()
    ]
    return [one for one in listed if one[0]]


def extracted(files: dict[str, bytes], work: Path) -> Tree:
    """What umoci makes of the layers on disk."""
    folder = oci_images.layout(files, work / "image")
    more = [] if os.geteuid() == 0 else ["--rootless"]
    argv = ["umoci", "raw", "unpack", *more, "--image", f"{folder}:x", str(work / "root")]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return Directory(work / "root")


needs_umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")


@needs_umoci
@pytest.mark.parametrize("scene", SCENES)
def test_merging_is_extracting_one_after_the_other(scene: str, tmp_path: Path) -> None:
    files = oci_images.image(SCENES[scene], compression="gzip")
    theirs = extracted(files, tmp_path)
    assert shown(open_tree(tmp_path / "image")) == shown(theirs)


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_the_compressor_of_layers_does_not_matter(compression: str, tmp_path: Path) -> None:
    layers = [*SCENES["hard links over three layers"], *SCENES["opaque"]]
    plain = open_tree(oci_images.archive(oci_images.image(layers), tmp_path / "a.tar"))
    packed = open_tree(oci_images.archive(oci_images.image(layers, compression=compression), tmp_path / "b.tar"))
    assert shown(packed) == shown(plain)


_NAME = st.sampled_from(["a", "b", "c", "a/b", "a/c", "b/a", "a/b/c", "a-", "a.b"])
_MEMBER = st.one_of(
    st.tuples(_NAME, st.just("file"), st.binary(max_size=4)),
    st.tuples(_NAME, st.just("dir")),
    st.tuples(
        _NAME.map(lambda name: f"{name.rpartition('/')[0]}/.wh.{name.rpartition('/')[2]}".lstrip("/")), st.just("file")
    ),
    st.tuples(st.sampled_from([".wh..wh..opq", "a/.wh..wh..opq", "b/.wh..wh..opq"]), st.just("file")),
)


def _possible(layer: list[oci_images.Member]) -> list[oci_images.Member]:
    """A layer as a program would write it: parents first, each name once, nothing below a file."""
    kept: dict[str, oci_images.Member] = {}
    for member in layer:
        parents = [member[0][:at] for at, letter in enumerate(member[0]) if letter == "/"]
        if member[0] in kept or any(kept.get(one, ("", "dir"))[1] != "dir" for one in parents):
            continue
        if member[1] == "file" and any(name.startswith(f"{member[0]}/") for name in kept):
            continue
        for parent in parents:
            kept.setdefault(parent, (parent, "dir"))
        kept[member[0]] = member
    return list(kept.values())


@needs_umoci
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(_MEMBER, max_size=6).map(_possible), min_size=1, max_size=4))
def test_random_layers_are_merged_as_umoci_extracts_them(layers: Layers) -> None:
    with tempfile.TemporaryDirectory() as work:
        theirs = extracted(oci_images.image(layers), Path(work))
        assert shown(open_tree(Path(work) / "image")) == shown(theirs)


def test_data_that_nobody_takes_is_passed_over(tmp_path: Path) -> None:
    layers: Layers = [[(f"{letter}", "file", letter.encode() * 5000) for letter in "hgfedcba"] for _ in range(2)]
    tree = open_tree(oci_images.archive(oci_images.image(layers), tmp_path / "x.tar"))
    assert [(e.path, b"".join(data)[:1]) for e, data in tree.items() if e.path in {"b", "g"}] == [
        ("b", b"b"),
        ("g", b"g"),
    ]
    begun = {entry.path: next(iter(data), b"")[:1] for entry, data in tree.items()}
    assert begun["c"] == b"c"


def test_folders_can_be_left_out(tmp_path: Path) -> None:
    tree = open_tree(oci_images.archive(oci_images.image(SCENES["order"]), tmp_path / "x.tar"))
    assert [entry.path for entry, _ in tree.items(lambda path: path != "a")] == ["", "a", "a!", "a-b", "a.b"]
    assert [entry.path for entry, _ in tree.items(lambda _: False)] == [""]


def test_attributes_of_files_survive(tmp_path: Path) -> None:
    import io
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("ping")
        member.pax_headers = {"SCHILY.xattr.security.capability": "caps"}
        archive.addfile(member)
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    ((entry, _),) = [item for item in open_tree(tmp_path / "x.tar").items() if item[0].path]
    assert dict(entry.xattrs) == {"security.capability": b"caps"}


def test_a_layer_that_is_not_its_digest_is_refused(tmp_path: Path) -> None:
    files = oci_images.image([[("a", "file", b"aaaa")], [("b", "file", b"bbbb")]])
    name = next(name for name, data in files.items() if b"bbbb" in data)
    files[name] = files[name].replace(b"bbbb", b"evil")
    with pytest.raises(FormatError, match="has another digest"):
        shown(open_tree(oci_images.archive(files, tmp_path / "x.tar")))
