"""What the benchmarks work on: a root filesystem taken from this machine, an OCI archive of it, and an ordinary user.

The tree is real software (libraries, headers, documentation, interpreters of the host), so that compression behaves as
it does on a scientist's image. Two machines do not have the same files; a ratio compares two programs on one machine.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import pwd
import resource
import shutil
import statistics
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_SMALL = 64 * 1024
_LARGEST = 32 * 1024 * 1024  # one giant file would be most of the tree, and of what a layer whites out
_GONE = 50
_TOPS = ("/usr/share", "/usr/include", "/usr/lib", "/usr/bin", "/usr/local", "/opt", "/root/.cargo", "/root/.rustup")


def tree(into: Path, *, files: int = 22_000, size: int = 600_000_000) -> tuple[int, int]:
    """Copy about `files` files of together about `size` bytes into `into`; return what it became."""
    found = sorted({p for top in _TOPS for p in _regular(Path(top))})
    small = [(p, n) for p, n in found if n <= _SMALL][:files]
    chosen, total = list(small), sum(n for _, n in small)
    for path, length in ((p, n) for p, n in found if _SMALL < n <= _LARGEST):
        if total + length <= size:
            chosen.append((path, length))
            total += length
    for path, _ in chosen:
        target = into / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(path.stat().st_mode & 0o755 | 0o444)
    shell = into / "bin/sh"
    shell.parent.mkdir(exist_ok=True)
    shutil.copy("/bin/sh", shell)
    return len(chosen), total


def _regular(top: Path) -> list[tuple[Path, int]]:
    found = []
    for folder, _, names in os.walk(top):
        for name in names:
            path = Path(folder, name)
            try:
                if not path.is_symlink() and path.is_file():
                    found.append((path, path.stat().st_size))
            except OSError:
                continue
    return found


def oci_archive(root: Path, archive: Path, *, layers: int = 3) -> None:
    """Write an OCI archive of `root` in gzip layers; upper layers white out and hard-link files of the lower ones."""
    paths = sorted(p for p in root.rglob("*") if p.is_file())
    step = -(-len(paths) // layers)
    blobs: dict[str, bytes] = {}
    descriptors, diff_ids = [], []
    for number in range(layers):
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as tar:
            for path in paths[number * step : (number + 1) * step]:
                tar.add(path, str(path.relative_to(root)), recursive=False)
            if number:
                below = paths[(number - 1) * step : number * step]
                for path in below[:: max(1, step // _GONE)][:_GONE]:
                    gone = tarfile.TarInfo(str(path.relative_to(root).parent / f".wh.{path.name}"))
                    tar.addfile(gone)
                first = paths[number * step]
                link = tarfile.TarInfo(f"links/{number}")
                link.type, link.linkname = tarfile.LNKTYPE, str(first.relative_to(root))
                tar.addfile(link)
        diff_ids.append(_digest(plain.getvalue()))
        packed = gzip.compress(plain.getvalue(), 6, mtime=0)
        descriptors.append(_blob(blobs, packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    config = {"architecture": arch, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    config_descriptor = _blob(blobs, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
    media_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config_descriptor, "layers": descriptors}
    index = {"schemaVersion": 2, "manifests": [_blob(blobs, json.dumps(manifest).encode(), media_type)]}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    with tarfile.open(archive, "w") as tar:
        for name in ("blobs", "blobs/sha256"):  # Apptainer does not make the folders itself
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
        for name, data in {**files, **{f"blobs/sha256/{hex_}": blob for hex_, blob in blobs.items()}}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _blob(blobs: dict[str, bytes], data: bytes, media_type: str) -> dict[str, object]:
    digest = _digest(data)
    blobs[digest.removeprefix("sha256:")] = data
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def as_user(argv: Sequence[str | Path]) -> list[str]:
    """Return `argv` as an ordinary user runs it: as root, through setpriv as the user `sci`.

    A program that this user may not execute, as a Python in root's home, runs as root.
    """
    words = list(map(str, argv))
    if os.geteuid() != 0:
        return words
    user = pwd.getpwnam("sci")
    ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
    command = ["setpriv", *ids, "env", f"HOME={user.pw_dir}", f"USER={user.pw_name}"]
    may = subprocess.run([*command, "sh", "-c", 'command -v "$0"', words[0]], capture_output=True, check=False)
    return [*command, *words] if may.returncode == 0 else words


def give(folder: Path) -> None:
    """Let the ordinary user write in `folder`."""
    if os.geteuid() == 0:
        user = pwd.getpwnam("sci")
        os.chown(folder, user.pw_uid, user.pw_gid)
        folder.chmod(0o755)


def timed(argv: Sequence[str | Path], **environ: str) -> float:
    """Run `argv` to its end and return its seconds; stop the benchmark with its output if it fails."""
    began = time.perf_counter()
    done = subprocess.run(list(map(str, argv)), env={**os.environ, **environ}, capture_output=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(f"{argv} exited with {done.returncode}\n{done.stderr.decode()}")
    return seconds


def rounds(count: int, **ways: Callable[[], float]) -> dict[str, float]:
    """Run every way once per round, in turn, and return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(count):
        for name, way in ways.items():
            seconds[name].append(way())
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_children_bytes() -> int:
    """Return the largest resident set of any child so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
