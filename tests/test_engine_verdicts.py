"""A verdict of trust is remembered only as long as nothing that it rests on changes."""

import os
import time
from pathlib import Path

import pytest

from computeops.engine import verdicts


class Place:
    """An image, its evidence, a policy and a keyring, and the verdict on them."""

    def __init__(self, folder: Path) -> None:
        self.cache, self.image, self.evidence = folder / "cache", folder / "x.sif", folder / "x.release/evidence"
        self.policy, self.keys = folder / "policy.toml", folder / "keys"
        self.image.write_bytes(b"image")
        self.evidence.mkdir(parents=True)
        (self.evidence / "test.dsse.json").write_text("{}")
        self.policy.write_text("[passed]\ntest = 1\n")
        self.key("ada")
        until = time.monotonic() + 20
        while not self.basis() and time.monotonic() < until:  # until the files are old enough to be relied upon
            time.sleep(0.05)
        verdicts.remember(self.cache, self.image, self.basis())

    def key(self, name: str) -> Path:
        (self.keys / name).mkdir(parents=True)
        (self.keys / name / "public").write_text(name)
        return self.keys / name

    def basis(self) -> bytes:
        return verdicts.basis(self.image, self.evidence, self.policy, self.keys)

    def holds(self) -> bool:
        return verdicts.holds(self.cache, self.image, self.policy, self.keys)


def test_any_change_voids_the_verdict(tmp_path: Path) -> None:
    one = Place(tmp_path)
    assert one.holds()
    one.policy.write_text("[passed]\ntest = 2\n")
    assert not one.holds()
    one.policy.write_text("[passed]\ntest = 1\n")
    assert one.holds()
    new = one.key("eve")
    assert not one.holds()
    (new / "public").unlink()
    assert one.holds()
    (one.evidence / "failed.dsse.json").write_text("{}")
    assert not one.holds()
    (one.evidence / "failed.dsse.json").unlink()
    assert one.holds()
    folder = one.cache / "trusted"
    folder.chmod(0o770)  # others could have noted it
    assert not one.holds()
    folder.chmod(0o700)
    assert one.holds()
    (one.keys / "ada/public").unlink()
    assert not one.holds()
    (one.keys / "ada/public").write_text("ada")  # the same text in another file
    assert not one.holds()


def test_another_image_in_the_same_place_is_looked_at(tmp_path: Path) -> None:
    one = Place(tmp_path)
    times = one.image.stat()
    one.image.write_bytes(b"IMAGE")
    os.utime(one.image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not one.holds()


@pytest.mark.parametrize("what", ["image", "policy", "folder", "young"])
def test_nothing_is_remembered_of_what_cannot_be_relied_upon(tmp_path: Path, what: str) -> None:
    image = tmp_path / "x.sif"
    image.write_bytes(b"image")
    policy = tmp_path / "policy.toml"
    policy.write_text("")
    given = {"image": tmp_path / "none.sif", "folder": tmp_path}.get(what, image)
    rests_on = verdicts.basis(given, tmp_path / "evidence", tmp_path / "none" if what == "policy" else policy, tmp_path)
    assert rests_on == b""
    verdicts.remember(tmp_path / "cache", given, rests_on)
    assert not verdicts.holds(tmp_path / "cache", given, policy, tmp_path)
