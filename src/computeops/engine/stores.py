"""Images in the stores of engines that start from nothing else: Docker's, Sarus's.

A tree of the cache is handed over once. What the store then calls it is remembered in `stored/` of the user's own
cache, by the tree's digest; for a folder of the user's, by the places, sizes and times of all that is in it.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import tarfile
from pathlib import Path

from computeops import proc
from computeops.engine import machine
from computeops.engine.model import Prepared
from computeops.errors import EngineError, StorageError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME_BYTES = 512


def key(image: Prepared) -> str:
    """Return what names the content of `image`: equal as long as nobody changed it.

    Raises:
        StorageError: a folder cannot be read.
    """
    if _DIGEST.fullmatch(image.path.parent.name):
        return image.path.parent.name
    found = hashlib.sha256(os.fsencode(image.path))
    try:
        for folder, folders, files in os.walk(image.path, onerror=_fail):
            folders.sort()
            for name in sorted([*folders, *files]):
                at = os.path.join(folder, name)  # noqa: PTH118  trees have many files
                seen = os.lstat(at)
                facts = (seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
                found.update(os.fsencode(at) + repr(facts).encode())
    except OSError as error:
        raise StorageError(f"cannot read {image.path}: {error.strerror}") from error
    return found.hexdigest()


def _fail(error: OSError) -> None:
    raise error


def known(cache: Path, engine: str, of: str) -> str:
    """Return what the store of `engine` called the image with the key `of`; "" if it was not handed over."""
    try:
        with (cache / "stored" / f"{engine}-{of}").open() as file:
            return file.read(_NAME_BYTES).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def remember(cache: Path, engine: str, of: str, name: str) -> None:
    """Note that the store of `engine` calls the image with the key `of` `name`."""
    folder = cache / "stored"
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the start
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = folder / f".new-{os.getpid()}"
        new.write_text(name)
        new.replace(folder / f"{engine}-{of}")


def archive(tree: Path, into: Path, name: str) -> None:
    """Write `tree` as an archive of one layer, as `docker save` does: what older stores load.

    Raises:
        EngineError: `tree` cannot be packed.
    """
    layer = into.with_suffix(".layer")
    with layer.open("wb") as file, proc.start(_packer(tree, 0, 0), stdout=file) as packer:
        pass
    if packer.returncode:
        raise EngineError(f"cannot pack {tree}")
    with layer.open("rb") as packed:
        digest = hashlib.file_digest(packed, "sha256").hexdigest()
    config = {
        "architecture": machine.architecture(),
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    texts = {
        "config.json": json.dumps(config),
        "manifest.json": json.dumps(
            [{"Config": "config.json", "RepoTags": [f"{name}:latest"], "Layers": ["layer.tar"]}]
        ),
    }
    with tarfile.open(into, "w") as whole:
        whole.add(layer, "layer.tar")
        for place, text in texts.items():
            entry = tarfile.TarInfo(place)
            entry.size = len(text)
            whole.addfile(entry, io.BytesIO(text.encode()))
    layer.unlink()


def _packer(tree: Path, user: int, group: int) -> list[str]:
    """Return the command that packs all that is in `tree`, in an order that does not change, as one user's."""
    owner = ["--numeric-owner", f"--owner={user}", f"--group={group}"]
    return ["tar", "-C", str(tree), "--create", *owner, "--sort=name", "--file=-", "."]


def feed(tree: Path, argv: list[str]) -> str:
    """Give `tree`, as this user's own, as a tar to the input of `argv`, and return the last line of its output.

    Raises:
        EngineError: one of the two failed; MissingProgramError: it is not installed.
    """
    with (
        proc.start(_packer(tree, os.geteuid(), os.getegid()), stdout=proc.PIPE, stderr=proc.PIPE) as packer,
        proc.start(argv, stdin=packer.stdout, stdout=proc.PIPE, stderr=proc.PIPE) as taker,
    ):
        assert packer.stdout is not None
        assert packer.stderr is not None
        packer.stdout.close()  # the other end of the pipe is the taker's alone: its end ends the packer
        output, said = taker.communicate()
        packed = packer.stderr.read()
        packer.wait()
    if taker.returncode:
        raise proc.failed(argv, taker.returncode, said or output, EngineError)
    if packer.returncode:
        raise proc.failed(["tar", "-C", str(tree)], packer.returncode, packed, EngineError)
    return (output.decode(errors="replace").strip().splitlines() or [""])[-1]
