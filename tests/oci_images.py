"""OCI images made for tests: layers from a few words, in any compressor, as layout or archive or `docker save`."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from computeops.image.layer import zstd

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
Member = tuple[str, str] | tuple[str, str, bytes]
"""Name, what it is (`file`, `dir`, `link TARGET`, `hard TARGET`, `char MAJOR MINOR`, `pipe`), and a file's content."""


def tar(members: Sequence[Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, what, *content in members:
            one = tarfile.TarInfo(name)
            word, _, rest = what.partition(" ")
            types = {"dir": "5", "link": "2", "hard": "1", "char": "3", "pipe": "6"}
            one.type = types.get(word, "0").encode()
            one.mode, one.mtime = 0o755 if word == "dir" else 0o644, 1_000_000
            if word in {"link", "hard"}:
                one.linkname = rest
            elif word == "char":
                one.devmajor, one.devminor = map(int, rest.split())
            data = content[0] if content else b""
            one.size = len(data)
            archive.addfile(one, io.BytesIO(data))
    return out.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def image(
    layers: Sequence[Sequence[Member]], *, compression: str = "", config: Mapping[str, Any] | None = None
) -> dict[str, bytes]:
    """Name and content of every file of a layout."""
    pack = {"": bytes, "gzip": lambda data: gzip.compress(data, mtime=0), "zstd": zstd.compress}[compression]
    plain = [tar(one) for one in layers]
    packed = [pack(one) for one in plain]
    about = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": list(map(digest, plain))},
    }
    blobs = [json.dumps(about).encode()]
    kind = LAYER + (f"+{compression}" if compression else "")
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, blobs[0]),
        "layers": [descriptor(kind, one) for one in packed],
    }
    blobs += [*packed, json.dumps(manifest).encode()]
    named = descriptor(MANIFEST, blobs[-1]) | {"annotations": {"org.opencontainers.image.ref.name": "x"}}
    index = {"schemaVersion": 2, "manifests": [named]}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    return files | {f"blobs/sha256/{digest(one).partition(':')[2]}": one for one in blobs}


def descriptor(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(data), "size": len(data)}


def layout(files: Mapping[str, bytes], folder: Path) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def archive(files: Mapping[str, bytes], path: Path) -> Path:
    with tarfile.open(path, "w") as out:
        for name, data in files.items():
            one = tarfile.TarInfo(name)
            one.size = len(data)
            out.addfile(one, io.BytesIO(data))
    return path


def saved_by_old_docker(layers: Sequence[Sequence[Member]], path: Path) -> Path:
    """What `docker save` wrote before version 25; a layer that is there twice is a symbolic link."""
    plain = [tar(one) for one in layers]
    config = {"architecture": "amd64", "config": {"Cmd": ["sh"]}, "rootfs": {"diff_ids": list(map(digest, plain))}}
    data = json.dumps(config).encode()
    name = f"{digest(data).partition(':')[2]}.json"
    names = [f"{number}/layer.tar" for number in range(len(plain))]
    listed = [{"Config": name, "RepoTags": ["x:latest"], "Layers": names}]
    with tarfile.open(path, "w") as out:
        for number, one in enumerate(plain):
            member = tarfile.TarInfo(names[number])
            if one in plain[:number]:
                member.type, member.linkname = tarfile.SYMTYPE, f"../{names[plain.index(one)]}"
                out.addfile(member)
                continue
            member.size = len(one)
            out.addfile(member, io.BytesIO(one))
        for file, content in {name: data, "manifest.json": json.dumps(listed).encode()}.items():
            member = tarfile.TarInfo(file)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path
