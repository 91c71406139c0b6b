"""The keyring: a folder of keys, our own with their secret halves, and the public halves of people we trust.

KEYS/              mode 0700
    NAME/          0700, made whole: it appears with all its files or not at all
        public     0600, the public halves in one text; this is what `export` gives
        secret     0600, the secret halves in one text; only of our own keys
"""

import errno
import os
import re
import shlex
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from computeops.errors import (
    ConflictError,
    FormatError,
    LimitError,
    NotFoundError,
    StorageError,
    UsageError,
    did_you_mean,
)
from computeops.limits import LIMITS
from computeops.sign.key import Key

__all__ = ["Key", "Keyring"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_PUBLIC, _SECRET = "public", "secret"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys in one folder. Every key in it is trusted: what it signs counts."""

    folder: Path

    def new(self, name: str, user_id: str = "") -> Key:
        """Make a key of our own; `user_id` ("Name <mail>") is for the OpenPGP half.

        Raises:
            UsageError: `name` or `user_id` cannot be used.
            ConflictError: there is a key of this name.
        """
        if not user_id.isprintable() or len(user_id) > 256:
            raise UsageError(f"not a user id: {user_id[:80]!r}", hint='write it as "Ada Lovelace <ada@example.org>"')
        self._free(name)
        key = Key.generate(name, user_id)
        self._keep(key)
        return key

    def add(self, name: str, data: bytes) -> Key:
        """Trust somebody's public key: PEM, OpenPGP, or both in one text. Nothing changes if it is here by this name.

        Raises:
            UsageError: `name` cannot be used.
            ConflictError: there is another key of this name, or this key under another name.
            FormatError: `data` is no public key.
        """
        self._place(name)
        key = Key.read(name, data)
        for other in self.list():
            if (other.name, other.keyid, other.fingerprint) == (name, key.keyid, key.fingerprint):
                return other
            # One key under two names would let one person count as two.
            if {key.keyid, key.fingerprint} & {other.keyid, other.fingerprint} - {""}:
                raise ConflictError(
                    f"this key is in the keyring as {other.name!r}", hint=f"computeops key remove {other.name}"
                )
        self._free(name)
        self._keep(key)
        return key

    def restore(self, name: str, data: bytes) -> Key:
        """Keep a key of our own that was made elsewhere; `data` is the file `secret` of a keyring.

        Raises:
            UsageError: `name` cannot be used.
            ConflictError: there is a key of this name.
            FormatError: `data` has not both secret halves.
        """
        self._free(name)
        key = Key.read_secret(name, data)
        self._keep(key)
        return key

    def names(self) -> Sequence[str]:
        """Return the names of all keys, sorted.

        Raises:
            StorageError: others may write to the folder.
        """
        if not self.folder.exists():
            return []
        self._safe(self.folder.stat(), self.folder, _OTHERS_WRITE)
        with os.scandir(self.folder) as entries:
            return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False) and _NAME.fullmatch(e.name))

    def list(self) -> Sequence[Key]:
        """Return the public halves of all keys in the order of their names."""
        return [self.get(name) for name in self.names()]

    def get(self, name: str) -> Key:
        """Return the public halves of key `name`; secrets are not read, `has_secret` tells whether there are any.

        Raises:
            NotFoundError: there is no such key.
            StorageError: others may write to its file.
        """
        place = self._place(name)
        if name not in self.names():
            raise self._missing(name)
        key = Key.read(name, self._read(place / _PUBLIC, _OTHERS_WRITE))
        return replace(key, has_secret=(place / _SECRET).exists())

    def own(self, name: str) -> Key:
        """Return our own key `name`, which can sign.

        Raises:
            NotFoundError: there is no such key, or only its public halves are here.
            StorageError: others may read the secret.
            FormatError: the public halves are not those of the secret.
        """
        public = self.get(name)
        file = self._place(name) / _SECRET
        if not public.has_secret:
            raise NotFoundError(
                f"key {name} is somebody else's: there is no secret half of it here",
                hint="sign with a key of your own; `computeops key new NAME` makes one",
            )
        self._safe(file.parent.stat(), file.parent, _OTHERS_WRITE)
        key = Key.read_secret(name, self._read(file, _OTHERS))
        if (key.keyid, key.fingerprint) != (public.keyid, public.fingerprint):
            raise FormatError(f"the public file of key {name} does not belong to its secret", hint=str(file.parent))
        return key

    def public(self) -> Mapping[str, Key]:
        """Return id to key of all that are trusted; the id is the keyid, or the fingerprint of an OpenPGP key alone."""
        return {key.id: key for key in self.list()}

    def export(self, name: str) -> bytes:
        """Return the public halves of key `name` in one text, never anything secret.

        Raises:
            NotFoundError: there is no such key.
        """
        return self.get(name).public_text()

    def remove(self, name: str) -> None:
        """Remove key `name`, whole; a secret half cannot be had again.

        Raises:
            NotFoundError: there is no such key.
        """
        place = self._place(name)
        if name not in self.names():
            raise self._missing(name)
        gone = Path(tempfile.mkdtemp(dir=self.folder, prefix=".removed-"))
        place.rename(gone / name)
        shutil.rmtree(gone)

    def _place(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"not the name of a key: {name[:80]!r}", hint="a name has up to 64 letters, digits and . _ @ + -"
            )
        return self.folder / name

    def _free(self, name: str) -> None:
        if os.path.lexists(self._place(name)):
            raise self._taken(name)

    def _taken(self, name: str) -> ConflictError:
        return ConflictError(
            f"there is a key {name!r} already", hint=f"choose another name, or `computeops key remove {name}`"
        )

    def _missing(self, name: str) -> NotFoundError:
        known = self.names()
        hint = f"there are: {', '.join(known)}" if known else "`computeops key new NAME` makes one"
        return NotFoundError(f"there is no key {name!r}{did_you_mean(name, known)}", hint=hint)

    def _keep(self, key: Key) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._safe(self.folder.stat(), self.folder, _OTHERS_WRITE)
        new = Path(tempfile.mkdtemp(dir=self.folder, prefix=".new-"))  # mode 0700
        try:
            _write(new / _PUBLIC, key.public_text())
            if key.has_secret:
                _write(new / _SECRET, key.secret_text())
            _sync(new)
            new.rename(self.folder / key.name)  # fails on a folder that has files: nothing is ever overwritten
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                raise self._taken(key.name) from None
            raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
        _sync(self.folder)

    def _read(self, file: Path, refused: int) -> bytes:
        try:
            handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"cannot read {file}: {error.strerror}") from error
        with open(handle, "rb") as opened:  # noqa: PTH123  a descriptor, opened without following a link
            self._safe(os.fstat(handle), file, refused)
            data = opened.read(LIMITS.key_bytes + 1)
        if len(data) > LIMITS.key_bytes:
            raise LimitError(f"{file} is larger than {LIMITS.key_bytes} bytes")
        return data

    def _safe(self, status: os.stat_result, path: Path, refused: int) -> None:
        """Refuse what others may change (or read, of a secret): they could add or take a key."""
        if stat.S_IMODE(status.st_mode) & refused:
            verb = "read" if refused == _OTHERS else "change"
            raise StorageError(f"others may {verb} {path}", hint=f"chmod -R go-rwx {shlex.quote(str(self.folder))}")
        if os.geteuid() != 0 and status.st_uid not in {os.geteuid(), 0}:
            raise StorageError(f"{path} belongs to another user", hint="use a keyring of your own: COMPUTEOPS_KEYS")


def _write(file: Path, data: bytes) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as opened:  # noqa: PTH123  a descriptor, made with its mode
        opened.write(data)
        opened.flush()
        os.fsync(handle)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
