"""The history of the tables: one module `vNNNN_what` for each step, applied in their order when a hub starts.

Each has the function `upgrade(op)`, which is given Alembic's operations (https://alembic.sqlalchemy.org/en/latest/ops.html);
one that was released never changes. The number of the last step is kept in the database, so that a start has nothing
else to do than to compare it; a database from a newer hub is refused rather than misunderstood.
"""

import time
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from computeops import __version__
from computeops.errors import StorageError, UnavailableError

if TYPE_CHECKING:
    from computeops.hub.dialects import Dialect

STEPS = {int(path.stem[1:5]): path.stem for path in sorted(Path(__file__).parent.glob("v[0-9][0-9][0-9][0-9]_*.py"))}
NEWEST = max(STEPS)
_VERSION = sa.Table("schema_version", sa.MetaData(), sa.Column("number", sa.Integer, primary_key=True))
_WAIT_SECONDS = 300.0
_PAUSE_SECONDS = 0.2


def upgrade(dialect: "Dialect", newest: int = NEWEST) -> bool:
    """Bring the tables to the step `newest`, one process at a time; return whether there were none.

    Raises:
        StorageError: they are from a newer hub.
        UnavailableError: the database does not answer, or another process has been at it for minutes.
    """
    if (found := version(dialect)) == newest:
        return False
    _require_known(found)
    end = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < end:
        with dialect.exclusive("migration") as free:
            if free:
                return _apply(dialect, newest)
        time.sleep(_PAUSE_SECONDS)
    raise UnavailableError("another process is changing the tables and does not end")


def version(dialect: "Dialect") -> int:
    """Return the number of the last step that was applied; 0: none, the database is empty.

    Raises:
        UnavailableError: it does not answer.
    """
    from computeops.hub.dialects import told

    try:
        with dialect.engine.begin() as connection:
            if not sa.inspect(connection).has_table(_VERSION.name):
                return 0
            return int(connection.execute(sa.select(sa.func.max(_VERSION.c.number))).scalar() or 0)
    except sa.exc.DBAPIError as error:
        raise told(error) from error


def _require_known(found: int) -> None:
    if found > NEWEST:
        raise StorageError(
            f"the database has version {found} of the tables; computeops {__version__} knows {NEWEST}",
            hint="a newer hub has used it: install that version, or restore a backup made before",
        )


def _apply(dialect: "Dialect", newest: int) -> bool:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    found = version(dialect)  # again: now nobody else is at it
    _require_known(found)
    for number in range(found + 1, newest + 1):
        with closing(dialect.writing.connect()) as connection, connection.begin():
            _VERSION.create(connection, checkfirst=True)
            step = import_module(f"{__name__}.{STEPS[number]}")
            step.upgrade(Operations(MigrationContext.configure(connection)))
            connection.execute(sa.insert(_VERSION).values(number=number))
    return found == 0
