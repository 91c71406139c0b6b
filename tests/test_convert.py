"""A tree packed into SIF and OCI: equal bytes on every run, and real programs that read them."""

import itertools
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import oci_images
from computeops.errors import BuildError, ConflictError, FormatError, UsageError
from computeops.image import convert, oci, sif
from computeops.image.layer import plain
from computeops.image.tar import read_tar
from computeops.image.tree import Directory
from computeops.model import Digest, Image

EPOCH = 315532800


def small_tree(folder: Path) -> Path:
    """A root filesystem whose only program is the machine's shell, with the libraries it needs."""
    shell = Path("/bin/sh").resolve()
    listed = subprocess.run(["ldd", str(shell)], capture_output=True, check=True).stdout.decode()
    for path in [shell, *(Path(word) for word in listed.split() if word.startswith("/"))]:
        target = folder / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (folder / "bin").mkdir(exist_ok=True)
    if not (folder / "bin/sh").exists():
        (folder / "bin/sh").symlink_to(f"/{shell.relative_to('/')}")
    return folder


def pack(folder: Path, out: Path, name: str, threads: int) -> tuple[bytes, dict[str, bytes]]:
    description = oci.Description("amd64", command=("sh",), labels={"org.opencontainers.image.title": "small"})
    convert.pack(
        Directory(folder),
        description,
        to_sif=out / f"{name}.sif",
        to_layout=out / f"{name}.oci",
        writer=convert.Writer(threads=threads),
        epoch=EPOCH,
        recipe=b"[package]\n",
    )
    layout = out / f"{name}.oci"
    files = {str(p.relative_to(layout)): p.read_bytes() for p in sorted(layout.rglob("*")) if p.is_file()}
    return (out / f"{name}.sif").read_bytes(), files


@pytest.mark.squashfs
def test_equal_bytes_from_copies_of_a_tree_and_any_number_of_threads(tmp_path: Path) -> None:
    first = small_tree(tmp_path / "a")
    copy = shutil.copytree(first, tmp_path / "elsewhere/b", symlinks=True)
    one, two = pack(first, tmp_path, "one", 1), pack(copy, tmp_path, "two", 2)
    assert one[0] == two[0]
    assert one[1] == two[1]


@pytest.mark.squashfs
def test_the_identity_is_the_config_whose_diff_id_is_the_layer(tmp_path: Path) -> None:
    pack(small_tree(tmp_path / "a"), tmp_path, "x", 0)
    layout = oci.Layout(tmp_path / "x.oci")
    manifest = oci.document(layout.choose("amd64"))
    config = oci.document(layout.read(Digest.parse(manifest["config"]["digest"])))
    (descriptor,) = manifest["layers"]
    with layout.blob(Digest.parse(descriptor["digest"])) as blob:
        names = {e.path for e, _ in read_tar(plain(blob, diff_id=Digest.parse(config["rootfs"]["diff_ids"][0])))}
    assert {".singularity.d/runscript", "bin/sh" if "bin/sh" in names else "bin"} <= names
    carried = sif.Sif.open(tmp_path / "x.sif")
    by_name = {one.name: carried.read(one) for one in carried.objects if one.type != sif.PARTITION}
    assert by_name[convert.OCI_MANIFEST] == layout.choose()
    assert Digest.of(by_name[convert.OCI_CONFIG]) == Digest.parse(manifest["config"]["digest"])
    assert by_name[convert.RECIPE] == b"[package]\n"


@pytest.mark.squashfs
def test_signing_does_not_change_what_evidence_calls_the_file(tmp_path: Path) -> None:
    before, _ = pack(small_tree(tmp_path / "a"), tmp_path, "x", 0)
    file = tmp_path / "x.sif"
    message = sif.signed_message(sif.Sif.open(file))
    sif.add_signature(file, b"one signature", bytes(20), 1_700_000_000)
    sif.add_signature(file, b"another", bytes(20), 1_800_000_000)
    assert sif.unsigned_digest(file) == Digest.of(before)
    assert sif.signed_message(sif.Sif.open(file)) == message
    assert [sif.Sif.open(file).read(one) for one in sif.Sif.open(file).signatures] == [b"one signature", b"another"]


@pytest.mark.squashfs
@pytest.mark.apptainer
def test_the_real_apptainer_lists_and_runs_it(tmp_path: Path, scientist) -> None:
    pack(small_tree(tmp_path / "a"), scientist.home, "x", 0)
    file = scientist.own(scientist.home / "x.sif")
    listed = scientist.run(["apptainer", "sif", "list", file]).stdout.decode()
    assert "FS (Squashfs/*System/amd64)" in listed
    answer = scientist.run(
        ["apptainer", "exec", "--userns", file, "/bin/sh", "-c", "echo $0 $LD_LIBRARY_PATH", "hello"]
    )
    assert answer.stdout.decode().split() == ["hello", "/.singularity.d/libs"]
    ran = scientist.run(["apptainer", "run", "--userns", file, "-c", 'echo "$1"', "sh", "two words"])
    assert ran.stdout == b"two words\n"


@pytest.mark.squashfs
@pytest.mark.skopeo
def test_the_real_skopeo_reads_the_layout(tmp_path: Path) -> None:
    pack(small_tree(tmp_path / "a"), tmp_path, "x", 0)
    argv = ["skopeo", "inspect", "--config", f"oci:{tmp_path}/x.oci"]
    config = oci.document(subprocess.run(argv, capture_output=True, check=True).stdout)
    assert config["config"]["Entrypoint"] == ["/.singularity.d/runscript"]


@pytest.mark.squashfs
def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BuildError):
        convert.pack(
            Directory(small_tree(tmp_path / "a")),
            oci.Description("amd64"),
            to_sif=out / "x.sif",
            to_layout=out / "x.oci",
            writer=convert.Writer(level=99),
            epoch=EPOCH,
        )
    assert list(out.iterdir()) == []


@pytest.mark.squashfs
def test_a_cut_or_changed_sif_gives_only_our_errors(tmp_path: Path) -> None:
    good, _ = pack(small_tree(tmp_path / "a"), tmp_path, "x", 0)
    bad = tmp_path / "bad.sif"
    for cut in (0, 10, 127, 128, 4096, 5000, 32175, 32768, len(good) - 1):
        bad.write_bytes(good[:cut])
        with pytest.raises(FormatError):
            sif.Sif.open(bad)
    for at, value in ((32, b"X"), (42, b"99"), (46, b"\x37"), (4096 + 17, b"\xff" * 8), (4096 + 25, b"\x7f" * 8)):
        broken = bytearray(good)
        broken[at : at + len(value)] = value
        bad.write_bytes(broken)
        with pytest.raises(FormatError):
            sif.Sif.open(bad)


FAST = convert.Writer(level=1)


def change(source: Path, target: Path, *, writer: convert.Writer = FAST, arch: str = "") -> Image:
    return convert.convert(source, target, writer=writer, epoch=EPOCH, arch=arch)


def known(image: Image) -> dict[str, Digest]:
    return {name: digest for name, digest in image.subjects.items() if name != "sif"}


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A SIF and a layout of one image of ours, beside each other."""
    top = small_tree(tmp_path / "a")
    os.link(top / "bin/sh", top / "bin/z") if not (top / "bin").is_symlink() else None
    os.setxattr(top, "user.note", b"of the root")
    pack(top, tmp_path, "x", 0)
    return tmp_path


@pytest.mark.squashfs
def test_ours_keeps_its_digests_through_every_form(ours: Path) -> None:
    chain = ["x.sif", "1.oci", "2.sif", "3.tar", "4.oci", "5.tar", "6.sif"]
    first = convert.prove(convert.open_image(ours / "x.sif"))
    writer = convert.Writer()
    for source, target in itertools.pairwise(chain):
        image = change(ours / source, ours / target, writer=writer)
        assert known(image) == known(first)
        opened = convert.open_image(ours / target)
        assert (opened.subjects, opened.form) == (image.subjects, image.form)
        assert convert.prove(opened).proven
    assert (ours / "6.sif").read_bytes() == (ours / "2.sif").read_bytes()
    assert (ours / "5.tar").read_bytes() == (ours / "3.tar").read_bytes()
    assert convert.carried_recipe(ours / "x.sif") == b"[package]\n"


@pytest.mark.squashfs
def test_another_compressor_changes_the_manifest_and_not_the_image(ours: Path) -> None:
    first = convert.open_image(ours / "x.sif")
    packed = change(ours / "x.sif", ours / "gzip.oci", writer=convert.Writer(compression="gzip"))
    assert (packed.id, packed.manifest == first.manifest) == (first.id, False)
    back = change(ours / "gzip.oci", ours / "zstd.oci")
    assert known(back) == known(first)


@pytest.mark.squashfs
def test_an_archive_begins_with_its_index(ours: Path) -> None:
    change(ours / "x.sif", ours / "x.tar")
    with (ours / "x.tar").open("rb") as file:
        assert [entry.path for entry, _ in read_tar(file)][:4] == ["index.json", "oci-layout", "blobs", "blobs/sha256"]


@pytest.mark.squashfs
def test_a_sif_that_lies_about_its_content_is_refused(ours: Path) -> None:
    pack(small_tree(ours / "b"), ours, "y", 0)
    (ours / "b/evil").write_text("evil")
    pack(ours / "b", ours, "evil", 0)
    honest, evil = sif.Sif.open(ours / "x.sif"), sif.Sif.open(ours / "evil.sif")
    config = honest.read(honest.named(convert.OCI_CONFIG))
    lie = ours / "lie.sif"
    lie.write_bytes((ours / "evil.sif").read_bytes()[: evil.partition.end])
    sif.finish(
        lie,
        arch="amd64",
        identity=str(Digest.of(config)),
        epoch=EPOCH,
        objects=[sif.New(sif.JSON, convert.OCI_CONFIG, config)],
    )
    claimed = convert.open_image(lie)
    assert (claimed.id, claimed.proven) == (Digest.of(config), False)
    with pytest.raises(FormatError, match="says that its content is"):
        convert.prove(claimed)
    with pytest.raises(FormatError, match="says that its content is"):
        change(lie, ours / "out.oci")
    assert not (ours / "out.oci").exists()


@pytest.mark.squashfs
def test_another_image_than_was_opened_is_not_proven(ours: Path) -> None:
    image = convert.open_image(ours / "x.oci")
    with pytest.raises(FormatError, match="not sha256:00"):
        convert.prove(replace(image, id=Digest.parse("sha256:" + "0" * 64)))


LAYERS: list[list[oci_images.Member]] = [
    [("etc", "dir"), ("etc/a", "file", b"a"), ("etc/b", "hard etc/a"), ("bin", "dir"), ("bin/sh", "file", b"")],
    [("etc/.wh.a", "file"), ("data", "file", b"x" * 70_000)],
]


@pytest.mark.squashfs
def test_a_foreign_image_becomes_one_of_ours_and_names_its_base(tmp_path: Path) -> None:
    config = {
        "Env": ["A=b c", "PATH=/bin"],
        "Entrypoint": ["tool"],
        "Cmd": ["--help"],
        "WorkingDir": "/data",
        "Labels": {"l": "v"},
    }
    files = oci_images.image(LAYERS, config=config, compression="gzip")
    source = oci_images.archive(files, tmp_path / "in.tar")
    base = convert.open_image(source).manifest
    packed, direct = change(source, tmp_path / "x.oci"), change(source, tmp_path / "x.sif")
    assert direct.id == packed.id == change(tmp_path / "x.sif", tmp_path / "y.oci").id
    assert change(tmp_path / "x.sif", tmp_path / "y.oci").manifest == packed.manifest
    described = convert.description(tmp_path / "x.sif")
    assert described.labels == {"l": "v", "org.opencontainers.image.base.digest": str(base)}
    assert (dict(described.env), described.working_dir) == ({"A": "b c", "PATH": "/bin"}, "/data")
    tree = {
        e.path: (e.kind.value, e.target, b"".join(data)) for e, data in convert.open_tree(tmp_path / "x.sif").items()
    }
    assert tree["etc/b"] == ("file", "", b"a")
    assert "etc/a" not in tree
    assert b"exec tool" in tree[".singularity.d/runscript"][2]
    assert b"set -- --help" in tree[".singularity.d/runscript"][2]


@pytest.mark.squashfs
def test_the_order_of_a_foreign_tar_does_not_matter(tmp_path: Path) -> None:
    members: list[oci_images.Member] = [
        (f"{letter}{number}", "file", letter.encode() * number * 99) for letter in "abc" for number in range(9)
    ]
    trees = []
    for number, listed in enumerate((members, members[::-1], members[9:] + members[:9])):
        change(
            oci_images.archive(oci_images.image([listed]), tmp_path / f"{number}.in.tar"), tmp_path / f"{number}.sif"
        )
        trees.append([(entry, b"".join(data)) for entry, data in convert.open_tree(tmp_path / f"{number}.sif").items()])
    # Only the base's digest, which is another one, may differ.
    without = [[one for one in tree if one[0].path != ".singularity.d/labels.json"] for tree in trees]
    assert without[0] == without[1] == without[2]


@pytest.mark.squashfs
@pytest.mark.apptainer
def test_a_foreign_image_runs_as_its_config_says(tmp_path: Path, scientist) -> None:
    top = small_tree(tmp_path / "a")
    plain = convert.convert(top, scientist.home / "base.oci", writer=FAST, epoch=EPOCH, arch=arch())
    layout = oci.Layout(plain.path)
    manifest = json.loads(layout.choose())
    config = json.loads(layout.read(plain.id))
    config["config"] = {
        "Entrypoint": ["/bin/sh", "-c", 'echo "$A" "$0" "$@"'],
        "Cmd": ["by", "default"],
        "Env": ["A=it's set"],
    }
    config["history"] = [{"created_by": "somebody else"}]
    data = json.dumps(config).encode()
    manifest["config"] = oci.descriptor(oci.CONFIG, data)
    foreign = json.dumps(manifest).encode()
    for blob in (data, foreign):
        (plain.path / "blobs/sha256" / Digest.of(blob).hex).write_bytes(blob)
    (plain.path / "index.json").write_text(json.dumps({"manifests": [oci.descriptor(oci.MANIFEST, foreign)]}))
    file = scientist.home / "x.sif"
    change(plain.path, file)
    scientist.own(file)
    assert scientist.run(["apptainer", "run", "--userns", file]).stdout == b"it's set by default\n"
    assert scientist.run(["apptainer", "run", "--userns", file, "as", "asked"]).stdout == b"it's set as asked\n"
    assert scientist.run(["apptainer", "exec", "--userns", file, "/bin/sh", "-c", "echo $A"]).stdout == b"it's set\n"


def arch() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]


@pytest.mark.squashfs
@pytest.mark.apptainer
def test_a_sif_of_the_real_apptainer_converts_and_keeps_its_runscript(tmp_path: Path, scientist) -> None:
    top = scientist.home / "top"
    small_tree(top)
    scientist.own(top)
    (scientist.home / "x.def").write_text(
        f"Bootstrap: localimage\nFrom: {top}\n%environment\n    export WHO=world\n"
        '%runscript\n    echo "hello $WHO $*"\n%labels\n    Author me\n'
    )
    scientist.run(["apptainer", "build", "--userns", scientist.home / "foreign.sif", scientist.home / "x.def"])
    source, file = scientist.home / "foreign.sif", scientist.home / "ours.sif"
    opened = convert.prove(convert.open_image(source))
    assert (opened.proven, opened.manifest, opened.labels["Author"]) == (True, None, "me")
    assert opened.sif == Digest.of(source.read_bytes())
    assert change(source, file).id == change(source, scientist.home / "y.oci").id
    scientist.own(file)
    assert scientist.run(["apptainer", "run", "--userns", file, "a", "b"]).stdout == b"hello world a b\n"
    config = convert.description(scientist.home / "y.oci")
    assert (config.command, config.labels["Author"]) == (("/.singularity.d/actions/run",), "me")


# crun refuses a machine that mounts both kinds of control groups: as root, give it a view with one.
_MOUNT = 'umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"'
_ONE_CGROUP = (
    ["unshare", "--mount", "sh", "-c", _MOUNT, "sh"]
    if os.geteuid() == 0 and Path("/sys/fs/cgroup/unified").exists()
    else []
)


@pytest.mark.squashfs
@pytest.mark.podman
def test_the_real_podman_runs_an_archive(tmp_path: Path, scientist) -> None:
    pack(small_tree(tmp_path / "a"), tmp_path, "x", 0)
    change(tmp_path / "x.sif", scientist.home / "x.tar")
    scientist.own(scientist.home / "x.tar")
    store = [
        "podman",
        "--storage-driver",
        "vfs",
        "--root",
        scientist.home / "root",
        "--runroot",
        scientist.home / "run",
    ]

    def podman(*words: str | Path) -> bytes:
        argv = [*_ONE_CGROUP, *scientist.argv([*store, *words])]
        done = subprocess.run(argv, env=scientist.env(), cwd=scientist.home, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    loaded = podman("load", "-q", "-i", scientist.home / "x.tar").decode().split()[-1]
    try:
        ran = podman("run", "--rm", "--network", "none", "--cgroups=disabled", loaded, "-c", "echo $0 works", "podman")
        assert ran == b"podman works\n"
    finally:
        podman("system", "reset", "-f")


@pytest.mark.squashfs
@pytest.mark.skopeo
@pytest.mark.parametrize("form", ["oci-archive", "oci"])
def test_the_real_skopeo_copies_what_is_written(form: str, ours: Path) -> None:
    target = ours / ("out.tar" if form == "oci-archive" else "out.oci")
    change(ours / "x.sif", target)
    subprocess.run(["skopeo", "copy", "-q", f"{form}:{target}", f"dir:{ours}/copied"], check=True, capture_output=True)
    assert Digest.of((ours / "copied/manifest.json").read_bytes()) == convert.open_image(target).manifest


@pytest.mark.squashfs
def test_a_squashfs_and_a_tar_of_a_root_filesystem_are_converted(tmp_path: Path) -> None:
    top = small_tree(tmp_path / "a")
    subprocess.run(
        ["mksquashfs", top, tmp_path / "x.sqfs", "-quiet", "-no-progress", "-all-root"], check=True, capture_output=True
    )
    subprocess.run(["tar", "-C", top, "--owner=0", "--group=0", "-cf", tmp_path / "x.tar", "."], check=True)
    sources = (top, tmp_path / "x.sqfs", tmp_path / "x.tar")
    ids = {change(source, tmp_path / f"{n}.sif", arch="arm64").id for n, source in enumerate(sources)}
    assert len(ids) == 1
    with pytest.raises(UsageError, match="does not say for which architecture"):
        change(top, tmp_path / "y.sif")
    with pytest.raises(UsageError, match="is a root filesystem"):
        convert.open_image(tmp_path / "x.tar")


@pytest.mark.squashfs
def test_an_image_is_never_converted_onto_itself(ours: Path) -> None:
    with pytest.raises(ConflictError, match="that is to be converted"):
        change(ours / "x.sif", ours / "x.sif")
