"""A hub copied while it serves, and made again from the copy, on SQLite or PostgreSQL, in a folder or a bucket.

The copy is a folder or one file (`computeops.hub.copies`). The tables come first, seen in one moment, and the blobs
last. Nothing is removed from the storage meanwhile, so whatever a row or a record needs is among the blobs. A restore
goes the other way: until the tables are there, in one transaction, there is no hub, and it may be begun again. It ends
with indexing anew, which makes the three agree.
"""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from computeops import __version__
from computeops.errors import ConflictError, FormatError, NotFoundError
from computeops.files import whole_file
from computeops.hub import copies, migrations, records
from computeops.hub.copies import KEY, RECORDS, TABLES, Reader, Writer
from computeops.hub.dialects import open_dialect
from computeops.hub.rebuild import Rebuilt, rebuild
from computeops.hub.schema import metadata
from computeops.hub.settings import FILE_NAME
from computeops.hub.settings import in_folder as settings_in
from computeops.hub.state import Hub
from computeops.hub.storage import Storage, open_storage

_MADE_ANEW = frozenset({"releases", "recipes", "evidence"})  # by the reindexing that ends a restore
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
    """Copy the hub into the folder `target`, into which it may have been copied before, or the file `*.tar.zst`.

    `blobs`: whether to copy them too; a bucket may be kept safe by its provider.

    Raises:
        ConflictError: `hub gc` or another backup is at work.
        UsageError: `target` is another folder than one for a backup.
    """
    with hub.database.exclusive("storage") as free, copies.writing(target, inside=hub.data) as copy:
        if not free:
            raise ConflictError("another verb works on the storage of this hub", hint="try again when it has ended")
        progress("tables")
        rows = copy.lines(TABLES, _rows(hub))
        progress("records")
        found = copy.lines(RECORDS, _records(hub))
        for name in (KEY, FILE_NAME):
            if (hub.data / name).exists():
                copy.small(name, (hub.data / name).read_bytes())
        done = _copy_blobs(hub, copy, progress) if blobs else (0, 0, 0)
        summary = {"format": 2, "computeops": __version__, "schema": migrations.NEWEST, "made": int(time.time())}
        copy.finish(summary | {"rows": rows, "blobs": blobs})
    return Copied(rows, found, *done)


def _rows(hub: Hub) -> Iterator[Mapping[str, Any]]:
    with hub.database.read() as connection:
        for table in metadata.sorted_tables:
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


def _copy_blobs(hub: Hub, copy: Writer, progress: Callable[[str], None]) -> tuple[int, int, int]:
    copied = size = already = 0
    storage = hub.blobs.storage
    for bucket in range(256):
        progress(f"blobs {bucket:02x}")
        for algorithm in ("sha256", "sha512"):
            for entry in storage.entries(f"blobs/{algorithm}/{bucket:02x}/"):
                if copy.has(entry):
                    already += 1
                elif copy.blob(entry, storage.chunks(entry.key)):
                    copied, size = copied + 1, size + entry.size
    return copied, size, already


def restore(source: Path, data: Path, *, progress: Callable[[str], None] = lambda _: None) -> Rebuilt:
    """Make the hub in the folder `data` from a backup.

    Where hub.toml is in `data` already, it says which database and storage; else that of the backup is used.

    Raises:
        FormatError: `source` is no whole backup, or damaged anywhere: then nothing is restored.
        ConflictError: there is a hub already.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with copies.reading(source, data, progress) as (copy, summary):
        if summary["schema"] > migrations.NEWEST:
            raise FormatError(f"{source} was made by computeops {summary.get('computeops')}, which is newer")
        if not (data / FILE_NAME).exists() and (copy.folder / FILE_NAME).exists():
            _write(data / FILE_NAME, (copy.folder / FILE_NAME).read_bytes())
        settings = settings_in(data)
        url = settings.database or f"sqlite:///{data / 'hub.sqlite'}"
        _restore_tables(None, url, summary["schema"])  # is it a new one?
        storage = open_storage(data, settings.storage, settings.storage_options)
        progress("blobs")
        _restore_blobs(copy, storage, data / "uploads")
        progress("records")
        for line in _lines(copy.folder / RECORDS):
            storage.write(line["key"], line["text"].encode())
        if (copy.folder / KEY).exists():
            _write(data / KEY, (copy.folder / KEY).read_bytes())
        progress("tables")
        _restore_tables(copy.folder / TABLES, url, summary["schema"])
    return rebuild(Hub.open(data, rebuilding=True), progress)


def _restore_blobs(copy: Reader, storage: Storage, work: Path) -> None:
    work.mkdir(exist_ok=True)
    for key, chunks in copy.blobs():
        if storage.stat(key) is not None:
            continue
        file = work / secrets.token_hex(16)
        found = hashlib.new(key.split("/")[1])
        try:
            with file.open("xb") as stream:
                for chunk in chunks:
                    found.update(chunk)
                    stream.write(chunk)
            if found.hexdigest() != key.rpartition("/")[2]:
                raise FormatError(f"{key} of the backup has changed while it was read", hint="begin again")
            storage.take(file, key)
        finally:
            file.unlink(missing_ok=True)


def _write(file: Path, data: bytes) -> None:
    with whole_file(file, 0o600) as stream:
        stream.write(data)


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open("rb") as stream:
        for line in stream:
            try:
                yield json.loads(line)
            except ValueError:
                raise FormatError(f"{file.name} of the backup is damaged", hint="use another backup") from None


def _restore_tables(file: Path | None, url: str, schema: int) -> None:
    """Insert the rows of `file`, in one transaction, into a database that must have none."""
    dialect = open_dialect(url)
    try:
        migrations.upgrade(dialect, max(schema, migrations.version(dialect)))
        known = sa.MetaData()
        known.reflect(dialect.engine)
        with dialect.writing.begin() as connection:
            for name in ("repositories", "tokens", "people"):
                if connection.execute(sa.select(sa.func.count()).select_from(known.tables[name])).scalar():
                    raise ConflictError("there is a hub already", hint="restore into a new folder and a new database")
            for line in _lines(file) if file else ():
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
