"""SIF, the Singularity Image Format, version 01: strict reading, deterministic writing, appending of signatures.

Little-endian and packed (github.com/apptainer/sif, pkg/sif): a header of 128 bytes, a table of descriptors of 585 bytes
at 4096, data objects. What we write has the squashfs at 32768, written in its place, then the other objects.
"""

import hashlib
import json
import os
import struct
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from computeops.errors import FormatError, LimitError
from computeops.limits import LIMITS
from computeops.model import Digest

PARTITION_OFFSET = 32768
LAUNCH = b"#!/usr/bin/env run-singularity\n"
MAGIC = b"SIF_MAGIC\0"
VERSION = b"01\0"
TABLE_OFFSET = 4096
SLOTS = 48
NO_GROUP = 0xF0000000

DEFINITION, LABELS, PARTITION, SIGNATURE, JSON, GENERIC, SBOM = 0x4001, 0x4003, 0x4004, 0x4005, 0x4006, 0x4007, 0x4009
TYPES = {
    DEFINITION: "Def.FILE",
    0x4002: "Env.Vars",
    LABELS: "JSON.Labels",
    PARTITION: "FS",
    SIGNATURE: "Signature",
    JSON: "JSON.Generic",
    GENERIC: "Generic/Raw",
    0x4008: "Cryptographic Message",
    SBOM: "SBOM",
    0x400A: "OCI.RootIndex",
    0x400B: "OCI.Blob",
}
FILESYSTEMS = {1: "squashfs", 2: "ext3", 3: "archive", 4: "raw", 5: "encrypted squashfs", 6: "gocryptfs squashfs"}
_SQUASHFS, _PRIMARY, _OVERLAY = 1, 2, 4
ARCHITECTURES = {
    "386": "01",
    "amd64": "02",
    "arm": "03",
    "arm64": "04",
    "ppc64": "05",
    "ppc64le": "06",
    "mips": "07",
    "mipsle": "08",
    "mips64": "09",
    "mips64le": "10",
    "s390x": "11",
    "riscv64": "12",
    "loong64": "13",
}
"""OCI architecture to the code in a SIF."""
_OCI_NAMES = {code: name for name, code in ARCHITECTURES.items()}

_HEADER = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<i?III3q4q128s384s")
_NAMESPACE = uuid.UUID("6f1c2a52-3b0e-5d53-9a37-6c0a4d4a9d10")


@dataclass(frozen=True, slots=True)
class Object:
    """One data object of a SIF, as its descriptor tells."""

    id: int
    type: int
    name: str
    group: int
    """Group number, 0 for none."""
    link: int
    offset: int
    size: int
    extra: bytes
    """384 bytes whose meaning depends on the type."""
    created: int = 0
    modified: int = 0
    uid: int = 0
    gid: int = 0
    raw_name: bytes = b""

    @property
    def end(self) -> int:
        """The first byte after the data."""
        return self.offset + self.size

    @property
    def filesystem(self) -> str:
        """Of a partition: squashfs, ext3 ..."""
        return FILESYSTEMS.get(struct.unpack_from("<i", self.extra)[0], "unknown")

    @property
    def primary(self) -> bool:
        """Whether this is the partition that containers start from."""
        return self.type == PARTITION and bool(struct.unpack_from("<i", self.extra, 4)[0] == _PRIMARY)

    @property
    def overlay(self) -> bool:
        """Whether this is a partition whose content Apptainer lays over the primary one."""
        return self.type == PARTITION and bool(struct.unpack_from("<i", self.extra, 4)[0] == _OVERLAY)

    @property
    def arch(self) -> str:
        """Of a partition: OCI architecture, or "" if the code is not known."""
        return _OCI_NAMES.get(self.extra[8:10].decode("ascii", "replace"), "")


@dataclass(frozen=True, slots=True)
class Sif:
    """The header and the descriptors of a SIF file."""

    path: Path
    header: bytes
    """The 128 bytes at the start."""
    uuid: uuid.UUID
    created: int
    modified: int
    arch: str
    """OCI architecture of the primary partition, or ""."""
    objects: tuple[Object, ...]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read header and table of `path`.

        Raises:
            FormatError: it is not a SIF, is cut short, or its parts overlap.
            LimitError: its table is larger than we read.
        """
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size or header[32:42] != MAGIC:
                raise FormatError(f"{path} is not a SIF file: no SIF_MAGIC at byte 32")
            fields = _HEADER.unpack(header)
            if fields[2] != VERSION:
                raise FormatError(f"{path}: SIF version {fields[2]!r}; only 01 is known")
            created, modified, free, total, offset, size, *_ = fields[5:]
            objects = tuple(_table(file, path, length, free, total, offset, size))
        primary = [one for one in objects if one.primary]
        if len(primary) > 1:
            raise FormatError(f"{path}: {len(primary)} primary partitions; a SIF has at most one")
        _check_places(path, objects, length)
        arch = primary[0].arch if primary else ""
        code = fields[3][:2].decode("ascii", "replace")
        if arch and code not in {"00", ARCHITECTURES[arch]}:
            raise FormatError(
                f"{path}: the header says architecture {_OCI_NAMES.get(code, code)}, the partition {arch}"
            )
        return cls(path, header, uuid.UUID(bytes=fields[4]), created, modified, arch, objects)

    @property
    def partition(self) -> Object:
        """The primary partition.

        Raises:
            FormatError: there is none.
        """
        for one in self.objects:
            if one.primary:
                return one
        raise FormatError(f"{self.path} has no primary partition to start a container from")

    def named(self, name: str) -> Object | None:
        """Return the first object called `name`."""
        return next((one for one in self.objects if one.name == name), None)

    def read(self, one: Object, limit: int = LIMITS.config_bytes) -> bytes:
        """Return the data of an object.

        Raises:
            LimitError: it is larger than `limit` bytes.
        """
        if one.size > limit:
            raise LimitError(f"{self.path}: object {one.id} ({one.name!r}) has {one.size} bytes; at most {limit}")
        with self.path.open("rb") as file:
            file.seek(one.offset)
            data = file.read(one.size)
        if len(data) != one.size:
            raise FormatError(f"{self.path} ends in the middle of object {one.id}")
        return data

    @property
    def signatures(self) -> tuple[Object, ...]:
        """The signature objects."""
        return tuple(one for one in self.objects if one.type == SIGNATURE)


def _table(file: BinaryIO, path: Path, length: int, free: int, total: int, offset: int, size: int) -> Iterator[Object]:
    if not 0 < total <= LIMITS.sif_descriptors:
        raise LimitError(f"{path}: a table of {total} descriptors; 1 to {LIMITS.sif_descriptors} are read")
    if size != total * _DESCRIPTOR.size or offset < _HEADER.size or offset + size > length:
        raise FormatError(f"{path}: descriptor table of {size} bytes at {offset} in a file of {length} bytes")
    if not 0 <= free <= total:
        raise FormatError(f"{path}: {free} of {total} descriptors free")
    file.seek(offset)
    table = file.read(size)
    for slot in range(total):
        raw = table[slot * _DESCRIPTOR.size : (slot + 1) * _DESCRIPTOR.size]
        if raw[4]:
            yield _object(path, slot, raw, length)


def _object(path: Path, slot: int, raw: bytes, length: int) -> Object:
    kind, _, number, group, link, offset, size, padded, created, modified, uid, gid, name, extra = _DESCRIPTOR.unpack(
        raw
    )
    if kind not in TYPES:
        raise FormatError(f"{path}: descriptor {slot + 1} has unknown type {kind:#x}")
    if number == 0 or offset < _HEADER.size or size < 0 or padded < size or offset + size > length:
        raise FormatError(
            f"{path}: descriptor {slot + 1} points to {size} bytes at {offset} in a file of {length} bytes"
        )
    text = name.rstrip(b"\0")
    if b"\0" in text:
        raise FormatError(f"{path}: descriptor {slot + 1} has a name with a NUL byte inside")
    shown = text.decode("utf-8", "replace")
    return Object(number, kind, shown, group & ~NO_GROUP, link, offset, size, extra, created, modified, uid, gid, name)


def _check_places(path: Path, objects: Sequence[Object], length: int) -> None:
    end, last = _HEADER.size, 0
    for one in sorted(objects, key=lambda found: (found.offset, found.size)):
        if one.size and one.offset < end:
            raise FormatError(f"{path}: objects {last} and {one.id} overlap at byte {one.offset} of {length}")
        if one.size:
            end, last = one.end, one.id
    if len({one.id for one in objects}) != len(objects):
        raise FormatError(f"{path}: two objects have the same id")


@dataclass(frozen=True, slots=True)
class New:
    """An object to be put into a SIF."""

    type: int
    name: str
    data: bytes
    extra: bytes = b""


def finish(path: Path, *, arch: str, identity: str, epoch: int, objects: Sequence[New]) -> None:
    """Make a SIF of `path`, which holds a squashfs at PARTITION_OFFSET up to its end.

    The UUID is a function of `identity`, all times are `epoch`: equal input gives equal bytes.

    Raises:
        FormatError: SIF has no code for `arch`.
    """
    if arch not in ARCHITECTURES:
        raise FormatError(f"SIF has no code for architecture {arch!r}", hint=f"it knows {', '.join(ARCHITECTURES)}")
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        extra = struct.pack("<ii3s", _SQUASHFS, _PRIMARY, ARCHITECTURES[arch].encode() + b"\0")
        table = [_descriptor(1, PARTITION, PARTITION_OFFSET, end - PARTITION_OFFSET, 592, epoch, "rootfs", extra)]
        for number, new in enumerate(objects, start=2):
            file.write(new.data)
            table.append(_descriptor(number, new.type, end, len(new.data), 0, epoch, new.name, new.extra))
            end += len(new.data)
        header = _header(arch, named_for(identity).bytes, epoch, epoch, len(table), end)
        file.seek(0)
        file.write(header.ljust(TABLE_OFFSET, b"\0") + b"".join(table).ljust(SLOTS * _DESCRIPTOR.size, b"\0"))
        file.flush()
        os.fsync(file.fileno())


def named_for(identity: str) -> uuid.UUID:
    """Return the UUID of the SIF that `finish` makes for `identity`."""
    return uuid.uuid5(_NAMESPACE, identity)


def _header(arch: str, name: bytes, created: int, modified: int, used: int, end: int) -> bytes:
    data_offset = TABLE_OFFSET + SLOTS * _DESCRIPTOR.size
    counts = (SLOTS - used, SLOTS, TABLE_OFFSET, SLOTS * _DESCRIPTOR.size, data_offset, end - data_offset)
    code = ARCHITECTURES[arch].encode() + b"\0"
    return _HEADER.pack(LAUNCH, MAGIC, VERSION, code, name, created, modified, *counts)


def _descriptor(
    number: int,
    kind: int,
    offset: int,
    size: int,
    gap: int,
    time: int,
    name: str,
    extra: bytes,
    group: int = 1,
    link: int = 0,
) -> bytes:
    return _DESCRIPTOR.pack(
        kind, True, number, NO_GROUP | group, link, offset, size, size + gap, time, time, 0, 0, name.encode(), extra
    )


def signed_message(sif: Sif, group: int = 1) -> bytes:
    """Return the JSON whose signature covers every object of `group` (github.com/apptainer/sif, pkg/integrity)."""
    members = sorted((one for one in sif.objects if one.group == group), key=lambda one: one.id)
    if not members:
        raise FormatError(f"{sif.path} has no objects in group {group} to sign")
    first = members[0].id
    header = sif.header[:45] + sif.header[48:64]
    with sif.path.open("rb") as file:
        listed: list[dict[str, Any]] = [
            {
                "relativeId": one.id - first,
                "descriptorDigest": str(Digest.of(_signed_descriptor(one, one.id - first))),
                "objectDigest": str(_digest_of(file, one)),
            }
            for one in members
        ]
    message = {"version": 1, "header": {"digest": str(Digest.of(header))}, "objects": listed}
    return json.dumps(message, separators=(",", ":")).encode()


def _signed_descriptor(one: Object, relative: int) -> bytes:
    fixed = struct.pack("<i?IIqqqq", one.type, True, relative, one.link, one.size, one.created, one.uid, one.gid)
    return fixed + one.raw_name + one.extra


def _digest_of(file: BinaryIO, one: Object) -> Digest:
    known = hashlib.sha256()
    file.seek(one.offset)
    left = one.size
    while left:
        chunk = file.read(min(left, 1024 * 1024))
        if not chunk:
            raise FormatError(f"object {one.id} ends too early")
        known.update(chunk)
        left -= len(chunk)
    return Digest("sha256", known.hexdigest())


def add_signature(path: Path, data: bytes, fingerprint: bytes, time: int) -> None:
    """Append a PGP signature of group 1 by the key with the 20-byte `fingerprint`.

    The data goes behind the end of the file and is synced before the table names it: an interrupted call leaves the
    file as it was for every reader.

    Raises:
        FormatError: it is not a SIF, or its table is full.
    """
    sif = Sif.open(path)
    fields = list(_HEADER.unpack(sif.header))
    total, table = fields[8], fields[9]
    taken = {one.id for one in sif.objects}
    number = next((slot + 1 for slot in range(total) if slot + 1 not in taken), 0)
    if not number:
        raise FormatError(f"{path}: no free descriptor for a signature")
    end = max([PARTITION_OFFSET, *(one.end for one in sif.objects)])
    extra = struct.pack("<i", 1) + fingerprint
    entry = _descriptor(number, SIGNATURE, end, len(data), 0, time, "", extra, group=0, link=NO_GROUP | 1)
    fields[6], fields[7], fields[12] = time, fields[7] - 1, end + len(data) - fields[11]
    with path.open("r+b") as file:
        file.seek(table + (number - 1) * _DESCRIPTOR.size)
        if file.read(5)[4:] != b"\0":  # ids are the numbers of the slots, except in a file made to hurt
            raise FormatError(f"{path}: descriptor {number} is taken by an object with another id")
        file.seek(end)
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
        file.seek(table + (number - 1) * _DESCRIPTOR.size)
        file.write(entry)
        file.seek(0)
        file.write(_HEADER.pack(*fields))
        file.flush()
        os.fsync(file.fileno())


def unsigned_digest(path: Path) -> Digest:
    """Return the sha256 of the SIF as it was before its signatures, which stand at the end, were appended.

    Signing changes the table, the header's counts and time, and appends: undoing that in memory while the file is
    hashed gives the digest that evidence names, whether the file was signed since or not.
    """
    sif = Sif.open(path)
    fields = list(_HEADER.unpack(sif.header))
    end = max((one.end for one in sif.objects if one.type != SIGNATURE), default=PARTITION_OFFSET)
    with path.open("rb") as file:
        front = bytearray(file.read(fields[9] + fields[10]))
        if sif.signatures:
            fields[6], fields[7], fields[12] = fields[5], fields[7] + len(sif.signatures), end - fields[11]
            front[: _HEADER.size] = _HEADER.pack(*fields)
            _blank_signatures(front, fields[9], fields[8])
            stop = end
        else:
            stop = os.fstat(file.fileno()).st_size
        known = hashlib.sha256(front)
        left = stop - len(front)
        while left > 0 and (chunk := file.read(min(left, 1024 * 1024))):
            known.update(chunk)
            left -= len(chunk)
    return Digest("sha256", known.hexdigest())


def _blank_signatures(front: bytearray, table: int, total: int) -> None:
    for at in range(table, table + total * _DESCRIPTOR.size, _DESCRIPTOR.size):
        if struct.unpack_from("<i", front, at)[0] == SIGNATURE:
            front[at : at + _DESCRIPTOR.size] = bytes(_DESCRIPTOR.size)
