"""SIF files: written for and read beside the real Apptainer; broken ones give only our errors."""

import contextlib
import subprocess
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeops.errors import FormatError, LimitError
from computeops.image import sif
from computeops.image.convert import carried_recipe
from computeops.image.inspect import inspect
from computeops.model import Digest

BAD = Path(__file__).parent / "bad/image"


def made(path: Path, *, arch: str = "amd64", identity: str = "me", epoch: int = 1_000) -> Path:
    """A SIF whose partition is no filesystem: what is inside does not matter here."""
    path.write_bytes(bytes(sif.PARTITION_OFFSET) + b"squashfs" * 1000)
    objects = [sif.New(sif.JSON, "a.json", b"{}"), sif.New(sif.GENERIC, "computeops.toml", b"[package]\n")]
    sif.finish(path, arch=arch, identity=identity, epoch=epoch, objects=objects)
    return path


def test_equal_input_gives_equal_bytes_and_another_identity_another_uuid(tmp_path: Path) -> None:
    one, two, other = (made(tmp_path / name, identity=name[0]) for name in ("a1", "a2", "b"))
    assert one.read_bytes() == two.read_bytes()
    assert sif.Sif.open(one).uuid == sif.named_for("a") != sif.Sif.open(other).uuid
    assert isinstance(sif.Sif.open(one).uuid, uuid.UUID)


@pytest.mark.parametrize("arch", sorted(sif.ARCHITECTURES))
def test_what_is_written_is_read_back(arch: str, tmp_path: Path) -> None:
    read = sif.Sif.open(made(tmp_path / "x.sif", arch=arch))
    assert (read.arch, read.created, read.modified) == (arch, 1_000, 1_000)
    assert [(one.id, one.type, one.name, one.group) for one in read.objects] == [
        (1, sif.PARTITION, "rootfs", 1),
        (2, sif.JSON, "a.json", 1),
        (3, sif.GENERIC, "computeops.toml", 1),
    ]
    assert read.read(read.objects[2]) == b"[package]\n"
    assert (read.partition.offset, read.partition.size, read.partition.filesystem) == (32768, 8000, "squashfs")


def test_an_architecture_that_sif_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="'vax'"):
        made(tmp_path / "x.sif", arch="vax")


@pytest.mark.apptainer
def test_the_real_apptainer_reads_header_and_objects(tmp_path: Path) -> None:
    path = made(tmp_path / "x.sif")
    header = subprocess.run(["apptainer", "sif", "header", path], capture_output=True, check=True).stdout.decode()
    assert str(sif.Sif.open(path).uuid) in header
    argv = ["apptainer", "sif", "dump", "3", str(path)]
    assert subprocess.run(argv, capture_output=True, check=True).stdout == b"[package]\n"


def test_an_object_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    read = sif.Sif.open(made(tmp_path / "x.sif"))
    with pytest.raises(LimitError, match=r"'computeops\.toml'"):
        read.read(read.objects[2], limit=5)


def test_the_recipe_is_found(tmp_path: Path) -> None:
    assert carried_recipe(made(tmp_path / "x.sif")) == b"[package]\n"
    assert carried_recipe(BAD / "ext3.sif") == b""


@pytest.mark.apptainer
def test_signatures_of_the_real_apptainer_are_named_not_believed(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = made(tmp_path / "x.sif")
    before = Digest.of(path.read_bytes())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(Ed25519PrivateKey.generate().private_bytes(*form))
    argv = ["apptainer", "sign", "--key", tmp_path / "key.pem", path]
    subprocess.run(list(map(str, argv)), capture_output=True, check=True)
    facts = inspect(path)
    assert facts.signatures == ("DSSE",)
    assert facts.sif == before


GOOD = (BAD / "ext3.sif").read_bytes()


@given(st.lists(st.tuples(st.integers(0, 127) | st.integers(4096, 4096 + 3 * 585), st.integers(0, 255)), max_size=5))
def test_flipped_bytes_give_only_our_errors(tmp_path_factory, changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for at, value in changes:
        data[at] = value
    path = tmp_path_factory.getbasetemp() / "flipped.sif"
    path.write_bytes(data)
    with contextlib.suppress(FormatError, LimitError):
        read = sif.Sif.open(path)
        for one in read.objects:
            with contextlib.suppress(LimitError):
                assert len(read.read(one)) == one.size
        sif.unsigned_digest(path)
        sif.signed_message(read)


@pytest.mark.parametrize("cut", [0, 31, 41, 127, 128, 4096, 4096 + 585, 32176, 32768, 33000])
def test_a_cut_file_is_refused(cut: int, tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_bytes(GOOD[:cut])
    with pytest.raises(FormatError):
        sif.Sif.open(tmp_path / "x.sif")
