"""The one `MetaData` of the index: `tables` and the modules with tables of their own put their tables into it."""

import sqlalchemy as sa

metadata = sa.MetaData()
Sorted = sa.String().with_variant(sa.String(collation="C"), "postgresql")
"""In lists the order is that of the bytes, whatever language the server speaks."""
