"""A hub copied into a folder while it serves, and made again from it, on SQLite or PostgreSQL, in a folder or a bucket.

    backup.json      when and by which version; written last: without it a backup is not whole
    tables.jsonl     every row of the database, seen in one moment
    records.jsonl    what the storage says of repositories and tags
    objects/blobs/   content by digest; what is there from the last time is not copied again
    session.key, hub.toml

The tables come first and the blobs last. Nothing is removed from the storage meanwhile, so whatever a row or a record
needs is among the blobs. A restored hub is indexed anew, which makes the three agree.
"""

import base64
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from computeops import __version__
from computeops.errors import ConflictError, FormatError, NotFoundError, UsageError
from computeops.hub import db, migrations, records
from computeops.hub.dialects import open_dialect
from computeops.hub.rebuild import Rebuilt, rebuild
from computeops.hub.settings import FILE_NAME
from computeops.hub.settings import in_folder as settings_in
from computeops.hub.state import Hub
from computeops.hub.storage import Entry, open_storage

_MADE_ANEW = frozenset({"releases", "recipes", "evidence"})  # by the reindexing that ends a restore
_SUMMARY, _TABLES, _RECORDS, _KEY = "backup.json", "tables.jsonl", "records.jsonl", "session.key"
_ROWS = 500


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied."""

    rows: int
    records: int
    blobs: int
    blob_bytes: int
    already: int
    """Blobs that were there from the last time."""


def backup(hub: Hub, target: Path, *, blobs: bool = True, progress: Callable[[str], None] = lambda _: None) -> Copied:
    """Copy the hub into the folder `target`, into which it may have been copied before.

    `blobs`: whether to copy them too; a bucket may be kept safe by its provider.

    Raises:
        ConflictError: `hub gc` or another backup is at work.
        UsageError: `target` is another folder than one for a backup.
    """
    _require_place(hub, target)
    with hub.database.exclusive("storage") as free:
        if not free:
            raise ConflictError("another verb works on the storage of this hub", hint="try again when it has ended")
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        (target / _SUMMARY).unlink(missing_ok=True)
        progress("tables")
        rows = _write_lines(target / _TABLES, _rows(hub))
        progress("records")
        found = _write_lines(target / _RECORDS, _records(hub))
        for name in (_KEY, FILE_NAME):
            if (hub.data / name).exists():
                _copy_small(hub.data / name, target / name)
        done = _copy_blobs(hub, target, progress) if blobs else (0, 0, 0)
        summary = {"format": 1, "computeops": __version__, "schema": migrations.NEWEST, "made": int(time.time())}
        _write(target / _SUMMARY, json.dumps(summary | {"rows": rows, "blobs": blobs}).encode())
    return Copied(rows, found, *done)


def _require_place(hub: Hub, target: Path) -> None:
    if target.resolve().is_relative_to(hub.data.resolve()):
        raise UsageError(f"{target} is inside the hub's own folder", hint="choose a folder on another disk")
    if target.exists() and any(target.iterdir()) and not (target / _TABLES).exists():
        raise UsageError(f"{target} has something else in it", hint="choose a new folder, or that of an older backup")


def _rows(hub: Hub) -> Iterator[Mapping[str, Any]]:
    with hub.database.read() as connection:
        for table in db.metadata.sorted_tables:
            if table.name in _MADE_ANEW:
                continue
            for row in connection.execution_options(yield_per=_ROWS).execute(sa.select(table)).mappings():
                yield {"table": table.name, "row": {name: _plain(value) for name, value in row.items()}}


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _records(hub: Hub) -> Iterator[Mapping[str, Any]]:
    storage = hub.blobs.storage
    for one in records.find(storage):
        try:
            yield {"key": one.key, "text": storage.read(one.key).decode("utf-8", "replace")}
        except NotFoundError:
            continue  # deleted in this moment


def _write_lines(file: Path, lines: Iterator[Mapping[str, Any]]) -> int:
    count = 0
    temporary = _temporary(file)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        for line in lines:
            stream.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            count += 1
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    return count


def _write(file: Path, data: bytes) -> None:
    temporary = _temporary(file)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def _copy_small(source: Path, target: Path) -> None:
    _write(target, source.read_bytes())


def _temporary(file: Path) -> Path:
    return file.with_name(f".{file.name}-{secrets.token_hex(8)}")


def _copy_blobs(hub: Hub, target: Path, progress: Callable[[str], None]) -> tuple[int, int, int]:
    copied = size = already = 0
    for bucket in range(256):
        progress(f"blobs {bucket:02x}")
        for algorithm in ("sha256", "sha512"):
            for entry in hub.blobs.storage.entries(f"blobs/{algorithm}/{bucket:02x}/"):
                file = target / "objects" / entry.key
                if file.exists() and file.stat().st_size == entry.size:
                    already += 1
                elif _copy_blob(hub, entry, file, algorithm):
                    copied, size = copied + 1, size + entry.size
    return copied, size, already


def _copy_blob(hub: Hub, entry: Entry, file: Path, algorithm: str) -> bool:
    """Copy a blob; one that is damaged is not, because it would look whole there."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = _temporary(file)
    found = hashlib.new(algorithm)
    try:
        with temporary.open("xb") as stream:
            for chunk in hub.blobs.storage.chunks(entry.key):
                found.update(chunk)
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        if found.hexdigest() != file.name:
            return False
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def restore(source: Path, data: Path, *, progress: Callable[[str], None] = lambda _: None) -> Rebuilt:
    """Make the hub in the folder `data` from a backup.

    Where hub.toml is in `data` already, it says which database and storage; else that of the backup is used.

    Raises:
        FormatError: `source` is no whole backup.
        ConflictError: there is a hub already.
    """
    summary = _summary(source)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (data / FILE_NAME).exists() and (source / FILE_NAME).exists():
        _copy_small(source / FILE_NAME, data / FILE_NAME)
    settings = settings_in(data)
    storage = open_storage(data, settings.storage, settings.storage_options)
    progress("tables")
    _restore_tables(source / _TABLES, settings.database or f"sqlite:///{data / 'hub.sqlite'}", summary["schema"])
    if (source / _KEY).exists():
        _copy_small(source / _KEY, data / _KEY)
    progress("blobs")
    for file in (source / "objects").rglob("*") if summary["blobs"] else ():
        key = str(file.relative_to(source / "objects"))
        if file.is_file() and not file.name.startswith(".") and storage.stat(key) is None:
            copy = data / "uploads" / secrets.token_hex(16)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
            storage.take(copy, key)
            copy.unlink(missing_ok=True)
    progress("records")
    for line in _lines(source / _RECORDS):
        storage.write(line["key"], line["text"].encode())
    return rebuild(Hub.open(data, rebuilding=True), progress)


def _summary(source: Path) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads((source / _SUMMARY).read_bytes())
        known = summary["format"] == 1 and summary["schema"] > 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{source} is no whole backup: {error}", hint="run hub backup again") from None
    if not known or summary["schema"] > migrations.NEWEST:
        raise FormatError(f"{source} was made by computeops {summary.get('computeops')}, which is newer")
    return summary


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as stream:
        for line in stream:
            yield json.loads(line)


def _restore_tables(file: Path, url: str, schema: int) -> None:
    dialect = open_dialect(url)
    try:
        migrations.upgrade(dialect, max(schema, migrations.version(dialect)))
        known = sa.MetaData()
        known.reflect(dialect.engine)
        with dialect.writing.begin() as connection:
            for name in ("repositories", "tokens", "people"):
                if connection.execute(sa.select(sa.func.count()).select_from(known.tables[name])).scalar():
                    raise ConflictError("there is a hub already", hint="restore into a new folder and a new database")
            for line in _lines(file):
                row = {name: _value(value) for name, value in line["row"].items()}
                connection.execute(sa.insert(known.tables[line["table"]]).values(**row))
            if connection.dialect.name == "postgresql":
                _go_on_counting(connection, known)
    finally:
        dialect.close()
        dialect.engine.dispose()


def _value(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"base64"}:
        return base64.b64decode(value["base64"])
    return value


def _go_on_counting(connection: sa.Connection, known: sa.MetaData) -> None:
    """Let new rows have ids behind those that were inserted with theirs."""
    for table in known.sorted_tables:
        if "id" in table.c:
            query = "SELECT setval(pg_get_serial_sequence(%s, 'id'), (SELECT max(id) FROM {}))"
            name = connection.dialect.identifier_preparer.quote(table.name)
            connection.exec_driver_sql(query.format(name), (table.name,))
