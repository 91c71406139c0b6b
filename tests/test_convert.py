"""A tree packed into SIF and OCI: equal bytes on every run, and real programs that read them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from computeops.errors import BuildError, FormatError
from computeops.image import convert, oci, sif
from computeops.image.layer import plain
from computeops.image.tar import read_tar
from computeops.image.tree import Directory
from computeops.model import Digest

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
