"""What of a tree is noise, and that nothing else is touched."""

import os
from pathlib import Path

from computeops.build.noise import Quiet
from computeops.image.tree import Directory


def seen(top: Path) -> dict[str, bytes]:
    return {entry.path: b"".join(data) for entry, data in Quiet(Directory(top)).items()}


def put(top: Path, path: str, data: bytes = b"x") -> Path:
    (top / path).parent.mkdir(parents=True, exist_ok=True)
    (top / path).write_bytes(data)
    return top / path


def test_what_differs_from_one_build_to_the_next_goes(tmp_path: Path) -> None:
    for path in (
        "etc/passwd-",
        "etc/hostname",
        "var/log/dpkg.log",
        "var/cache/ldconfig/aux-cache",
        "root/.cache/a",
        "tmp/b",
    ):
        put(tmp_path, path)
    for path in ("etc/passwd", "var/log/app/.keep/", "home/tmp/b", "var/cache/app/a", "etc/hostname.d/x"):
        (tmp_path / path).mkdir(parents=True) if path.endswith("/") else put(tmp_path, path)
    put(tmp_path, "etc/machine-id", b"0123")
    put(tmp_path, "etc/resolv.conf", b"nameserver 1.2.3.4")
    found = seen(tmp_path)
    files = {path: data for path, data in found.items() if data}
    assert set(files) == {"etc/passwd", "home/tmp/b", "var/cache/app/a", "etc/hostname.d/x"}
    assert found["etc/machine-id"] == found["etc/resolv.conf"] == found["etc/hosts"] == b""
    assert "var/log/app/.keep" in found


def test_of_a_dated_file_only_the_date_goes(tmp_path: Path) -> None:
    text = b"# Created by Octave 7.3.0, Tue Nov 25 03:48:34 2026 UTC <root@host>\n# name: global_packages\n# Created by me, x\n"
    file = put(tmp_path, "usr/share/octave/octave_packages", text)
    quiet = b"# Created by Octave 7.3.0\n# name: global_packages\n# Created by me, x\n"
    assert seen(tmp_path)["usr/share/octave/octave_packages"] == quiet
    sizes = {entry.path: entry.size for entry, _ in Quiet(Directory(tmp_path)).items()}
    assert sizes["usr/share/octave/octave_packages"] == len(quiet)
    other = put(tmp_path, "opt/octave_packages", text)
    assert seen(tmp_path)["opt/octave_packages"] == text
    file.unlink()
    os.link(other, file)  # whoever gave it a second name meant it to be the same file
    assert seen(tmp_path)["opt/octave_packages"] == text
