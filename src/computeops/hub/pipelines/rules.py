"""What a collection asks for before its releases are published: rebuilds by so many different workers."""

import sqlalchemy as sa

from computeops.hub.db import Database, upsert
from computeops.hub.pipelines.tables import rebuild_rules

MOST = 20


def rebuilds(database: Database, collection: str) -> int:
    """Return how many workers must have rebuilt a release of the collection; 0: none."""
    query = sa.select(rebuild_rules.c.rebuilds).where(rebuild_rules.c.collection == collection)
    with database.read() as connection:
        return int(connection.execute(query).scalar() or 0)


def set_rebuilds(database: Database, collection: str, count: int) -> None:
    """Ask for `count` rebuilds from now on."""
    with database.write() as connection:
        upsert(connection, rebuild_rules, {"collection": collection, "rebuilds": count})
