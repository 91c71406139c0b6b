"""The tables that the migrations make are those that the code uses, on both databases."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from backends import postgresql
from computeops.errors import StorageError
from computeops.hub import migrations, tables, terms
from computeops.hub.dialects import Dialect, open_dialect


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def dialect(request: pytest.FixtureRequest, tmp_path: Path) -> Dialect:
    if request.param == "sqlite":
        return open_dialect(f"sqlite:///{tmp_path / 'hub.sqlite'}")
    return open_dialect(postgresql().database(f"migrations{os.urandom(6).hex()}"))


def test_they_make_what_the_code_uses(dialect: Dialect) -> None:
    assert migrations.upgrade(dialect)
    assert not migrations.upgrade(dialect)
    assert migrations.version(dialect) == migrations.NEWEST
    try:
        with dialect.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            found = compare_metadata(context, tables.metadata)
            shadows = {
                "words",
                "words_data",
                "words_idx",
                "words_content",
                "words_docsize",
                "words_config",
                "schema_version",
            }
            different = [
                one for one in found if not (one[0] == "remove_table" and one[1].name in shadows | {"sqlite_sequence"})
            ]
            assert [one for one in different if not (one[0] == "remove_index" and one[1].name == "words_terms")] == []
    finally:
        dialect.close()
        dialect.engine.dispose()


def test_the_audit_log_is_only_added_to(dialect: Dialect) -> None:
    migrations.upgrade(dialect)
    row = {"at": 1, "who": "x", "token": 0, "address": "", "action": "push", "target": "t", "status": 201}
    try:
        with dialect.writing.begin() as connection:
            connection.execute(sa.insert(tables.audit).values(**row))
        for change in (sa.delete(tables.audit), sa.update(tables.audit).values(who="y")):
            with pytest.raises(sa.exc.DBAPIError, match="only added to"), dialect.writing.begin() as connection:
                connection.execute(change)
    finally:
        dialect.close()
        dialect.engine.dispose()


def test_a_newer_database_is_refused(dialect: Dialect) -> None:
    migrations.upgrade(dialect)
    try:
        with dialect.writing.begin() as connection:
            connection.exec_driver_sql(f"INSERT INTO schema_version VALUES ({migrations.NEWEST + 1})")
        with pytest.raises(StorageError, match="knows"):
            migrations.upgrade(dialect)
    finally:
        dialect.close()
        dialect.engine.dispose()


@pytest.mark.postgresql
def test_beginnings_are_added_to_the_words_of_before() -> None:
    dialect = open_dialect(postgresql().database(f"migrations{os.urandom(6).hex()}"))
    before = "@tool tool =9d071bda5eedd67f 3"
    try:
        migrations.upgrade(dialect, 4)
        with dialect.writing.begin() as connection:
            made = "INSERT INTO words VALUES (7, array_to_tsvector(string_to_array(%s, ' '))), (8, '')"
            connection.exec_driver_sql(made, (before,))
        migrations.upgrade(dialect)
        with dialect.engine.begin() as connection:
            asked = connection.exec_driver_sql("SELECT tsvector_to_array(terms) FROM words ORDER BY rowid")
            found = [set(one) for one in asked.scalars()]
        assert found == [terms.beginnings(before), set()]
        assert {"@t", "too", "=9d071bda5eedd67f", "3"} < found[0]
        assert found[0].isdisjoint({"@", "=", "=9"})
    finally:
        dialect.close()
        dialect.engine.dispose()


def test_the_steps_have_no_gap() -> None:
    assert list(migrations.STEPS) == list(range(1, migrations.NEWEST + 1))
