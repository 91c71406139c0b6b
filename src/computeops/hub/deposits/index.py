"""The rows of deposits, each of which the storage knows too (`records.Deposit`), so that they can be made anew."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from computeops.hub import records
from computeops.hub.db import Database, upsert
from computeops.hub.deposits.tables import deposits
from computeops.hub.storage import Storage

_SAME = ["repository", "tree"]


def note(database: Database, row: Mapping[str, Any]) -> sa.Row[Any]:
    """Write down a deposit, and return its row; of a tree that is kept already only what was said of it changes.

    Two at once keep the archive of one.
    """
    with database.write() as connection:
        upsert(connection, deposits, row, on=_SAME, keep=True)
        here = (deposits.c.repository == row["repository"]) & (deposits.c.tree == row["tree"])
        said = {name: row[name] for name in ("origin", "found")}
        connection.execute(sa.update(deposits).where(here).values(**said))
        made = connection.execute(sa.select(deposits).where(here)).one()
        _record(database.storage, made)
        return made


def restore(database: Database, repository: str, record: records.Deposit) -> None:
    """Make a row anew of what the storage says; one that is there stays."""
    row = {name: getattr(record, name) for name in records.Deposit.__struct_fields__}
    with database.write() as connection:
        upsert(connection, deposits, row | {"repository": repository}, on=_SAME, keep=True)


def record_all(database: Database) -> None:
    """Let the storage know of the deposits that were kept before it was told."""
    with database.write() as connection:
        for row in connection.execute(sa.select(deposits)):
            if database.storage.stat(records.deposit_key(row.repository, row.tree)) is None:
                _record(database.storage, row)


def _record(storage: Storage, row: sa.Row[Any]) -> None:
    told = records.Deposit(**{name: getattr(row, name) for name in records.Deposit.__struct_fields__})
    records.write(storage, records.deposit_key(row.repository, row.tree), told)
