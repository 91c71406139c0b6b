"""What an operator can do wrong with a hub, looked for: each finding says what is wrong and how to mend it."""

import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from computeops.errors import ComputeOpsError
from computeops.http import get_json
from computeops.hub.settings import in_folder
from computeops.hub.state import Hub
from computeops.hub.storage import Storage
from computeops.hub.tables import repositories

_LITTLE_BYTES = 5 * 1024**3
_CLOCK_SECONDS = 30
_SLOW_SECONDS = 1.0
_EXPIRES_DAYS = 14
_YEAR_2024 = 1_704_067_200


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question."""

    name: str
    fault: str
    """Empty: all is well."""
    mend: str = ""
    """What to do."""
    facts: str = ""
    """What was seen."""


def check(data: Path, *, external: str = "", certificate: Path | None = None) -> Iterator[Finding]:
    """Look at the hub in `data`; `external`: the address that the world knows."""
    yield _guarded("folder", lambda: _folder(data))
    yield _guarded("disk", lambda: _disk(data))
    yield _guarded("clock", _clock)
    yield _guarded("settings", lambda: _settings(data))
    try:
        hub = Hub.open(data)
    except ComputeOpsError as error:
        yield Finding("hub", error.message, error.hint)
        return
    try:
        yield _guarded("database", lambda: _database(hub))
        yield _guarded("storage", lambda: _storage(hub.blobs.storage))
    finally:
        hub.database.close()
    if certificate is not None:
        yield _guarded("certificate", lambda: _certificate(certificate))
    if external:
        yield _guarded("address", lambda: _address(external))


def _guarded(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except ComputeOpsError as error:
        return Finding(name, error.message, error.hint)
    except OSError as error:
        return Finding(name, f"{error.strerror or error}", "see that the hub's user may use it")


def _folder(data: Path) -> Finding:
    if not data.is_dir():
        return Finding("folder", f"{data} is not there", f"computeops hub serve --data {data} makes it")
    found = data.stat()
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        return Finding("folder", f"{data} belongs to another user", f"run the hub as its owner, or chown -R it: {data}")
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Finding("folder", f"others may look into {data}", f"chmod 700 {data}")
    key = data / "session.key"
    if key.exists() and key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Finding("folder", f"others can read {key}", f"chmod 600 {key}; better remove it: sessions end then")
    probe = data / f".probe-{secrets.token_hex(4)}"
    probe.touch()
    probe.unlink()
    return Finding("folder", "", facts=str(data))


def _disk(data: Path) -> Finding:
    free = shutil.disk_usage(data).free
    files = os.statvfs(data)
    if free < _LITTLE_BYTES:
        return Finding("disk", f"only {free / 1024**3:.1f} GiB are free", "add space, or run computeops hub gc")
    if files.f_files and files.f_favail < files.f_files // 50:
        return Finding("disk", "almost no inodes are free", "use a file system with more of them, or run hub gc")
    return Finding("disk", "", facts=f"{free / 1024**3:.1f} GiB free")


def _clock() -> Finding:
    if time.time() < _YEAR_2024:
        return Finding("clock", f"it is {time.strftime('%Y-%m-%d')} here", "set the clock; run chrony or timesyncd")
    return Finding("clock", "", facts=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()))


def _settings(data: Path) -> Finding:
    settings = in_folder(data)
    database = "PostgreSQL" if settings.database else "SQLite"
    return Finding("settings", "", facts=f"{database}, {settings.storage or 'files in the folder'}")


def _database(hub: Hub) -> Finding:
    began = time.monotonic()
    with hub.database.read() as connection:
        count = int(connection.scalar(sa.select(sa.func.count()).select_from(repositories)) or 0)
        if connection.dialect.name == "postgresql":
            there = float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
            if abs(there - time.time()) > _CLOCK_SECONDS:
                return Finding("database", f"its clock is {there - time.time():+.0f} s off", "set both clocks by NTP")
        else:
            said = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
            if said != "ok":
                return Finding("database", f"it is damaged: {said}", "restore a backup, or run computeops hub reindex")
    with hub.database.write():
        pass
    if (seconds := time.monotonic() - began) > _SLOW_SECONDS * 5:
        return Finding("database", f"it took {seconds:.1f} s to answer", "look at its disk and its network")
    return Finding("database", "", facts=f"{count} repositories")


def _storage(storage: Storage) -> Finding:
    key, text = f"uploads/.probe-{secrets.token_hex(4)}", secrets.token_bytes(16)
    began = time.monotonic()
    storage.write(key, text)
    entry, read = storage.stat(key), storage.read(key)
    storage.delete(key)
    seconds = time.monotonic() - began
    if read != text or entry is None:
        return Finding(
            "storage", "what was written cannot be read", "use a storage that is consistent, or another disk"
        )
    if abs(entry.modified - time.time()) > _CLOCK_SECONDS:
        return Finding("storage", f"its clock is {entry.modified - time.time():+.0f} s off", "set both clocks by NTP")
    if seconds > _SLOW_SECONDS * 5:
        return Finding("storage", f"a small file took {seconds:.1f} s", "look at its disk and its network")
    return Finding("storage", "", facts=f"a small file takes {seconds * 1000:.0f} ms")


def _certificate(file: Path) -> Finding:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())[0]
    except (ValueError, IndexError) as error:
        return Finding("certificate", f"{file} cannot be read: {error}", "give a chain in PEM, the own one first")
    days = (found.not_valid_after_utc.timestamp() - time.time()) / 86400
    if days < _EXPIRES_DAYS:
        return Finding("certificate", f"{file} ends in {days:.0f} days", "renew it and start the hub again")
    return Finding("certificate", "", facts=f"good for {days:.0f} days")


def _address(external: str) -> Finding:
    """Ask the hub as the world does: by its name, through its proxy, with its certificate."""
    try:
        said = str(get_json(f"{external.rstrip('/')}/assets/config/config.prod.json")["libraryAPI"]["uri"])
    except (KeyError, TypeError):
        return Finding("address", f"{external} is not this hub", "look at the proxy in front of it")
    if said.rstrip("/") != external.rstrip("/"):
        return Finding(
            "address",
            f"clients that ask {external} are sent to {said}",
            f"start the hub with --external-url {external}",
        )
    return Finding("address", "", facts=f"{external} answers")
