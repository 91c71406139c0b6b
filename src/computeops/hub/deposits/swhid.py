"""Names of content by the SWHID specification 1.2 (ISO/IEC 18670): `swh:1:cnt:` of bytes, `swh:1:dir:` of a folder.

They are the hashes that Git gives to blobs and trees, so that anybody can compute them again, without us.
"""

import hashlib
import os
from pathlib import Path

_CHUNK = 1 << 20


def content(file: Path) -> str:
    """Return the SWHID of the bytes of a file."""
    return f"swh:1:cnt:{_blob(file).hex()}"


def directory(folder: Path) -> str:
    """Return the SWHID of all that is in a folder: names, bytes, links, and which files can be executed.

    Empty folders count, as the specification has it; Git knows none, and has another hash where there is one.
    """
    return f"swh:1:dir:{_tree(folder).hex()}"


def _blob(file: Path) -> bytes:
    with file.open("rb") as stream:
        made = hashlib.sha1(b"blob %d\0" % os.fstat(stream.fileno()).st_size, usedforsecurity=False)
        while chunk := stream.read(_CHUNK):
            made.update(chunk)
    return made.digest()


def _tree(folder: Path) -> bytes:
    entries: list[tuple[bytes, bytes]] = []
    for path in folder.iterdir():
        name = os.fsencode(path.name)
        if path.is_symlink():
            entries.append((name, b"120000 %b\0%b" % (name, _object(b"blob", os.fsencode(path.readlink())))))
        elif path.is_dir():
            entries.append((name + b"/", b"40000 %b\0%b" % (name, _tree(path))))  # folders are sorted as if so named
        else:
            mode = b"100755" if path.stat().st_mode & 0o100 else b"100644"
            entries.append((name, b"%b %b\0%b" % (mode, name, _blob(path))))
    return _object(b"tree", b"".join(entry for _, entry in sorted(entries)))


def _object(kind: bytes, data: bytes) -> bytes:
    return hashlib.sha1(b"%b %d\0" % (kind, len(data)) + data, usedforsecurity=False).digest()
