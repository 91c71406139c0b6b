"""The first tables."""

from alembic.operations import Operations


def upgrade(op: Operations) -> None:
    """Make them."""
    from computeops.hub import db

    db.metadata.create_all(op.get_bind())
