import pytest
from alembic import op
from sqlalchemy import text

from streamlake.cluster import migrations
from streamlake.cluster.database import Database
from streamlake.cluster.tables import metadata
from streamlake.core.errors import Invalid
from streamlake.core.tasks import InlineExecutor

SCHEMA = text("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE '%alembic%'")


def schema(connection) -> set[tuple]:
    return {
        (row.type, row.name, row.tbl_name, " ".join(row.sql.split()) if row.sql else None)
        for row in connection.execute(SCHEMA)
    }


async def test_migrations_end_where_tables_py_says(tmp_path, clock) -> None:
    """A table that was changed without a new revision fails here."""
    migrated = await Database.open("sqlite://", InlineExecutor(), clock)
    created = await Database.open("sqlite://", InlineExecutor(), clock)

    def create_anew(connection) -> set[tuple]:
        metadata.drop_all(connection)
        metadata.create_all(connection)
        return schema(connection)

    assert await migrated.read(schema) == await created.write(create_anew)
    await migrated.close()
    await created.close()


async def test_upgrading_twice_changes_nothing(database) -> None:
    before = await database.read(schema)
    await database.write(migrations.upgrade)
    assert await database.read(schema) == before


async def test_a_crash_while_migrating_leaves_the_former_revision(tmp_path, clock, monkeypatch) -> None:
    real, calls = op.create_table, []

    def create_table(name, *columns):
        calls.append(name)
        if len(calls) == 5:
            raise ZeroDivisionError
        return real(name, *columns)

    url = f"sqlite:///{tmp_path}/metadata.db"
    monkeypatch.setattr(op, "create_table", create_table)
    with pytest.raises(ZeroDivisionError):
        await Database.open(url, InlineExecutor(), clock)
    monkeypatch.undo()
    database = await Database.open(url, InlineExecutor(), clock)
    assert {row[1] for row in await database.read(schema) if row[0] == "table"} >= set(metadata.tables)
    await database.close()


async def test_a_newer_store_is_refused(tmp_path, clock) -> None:
    url = f"sqlite:///{tmp_path}/metadata.db"
    database = await Database.open(url, InlineExecutor(), clock)
    await database.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = 'later'")).rowcount)
    await database.close()
    with pytest.raises(Invalid, match="newer StreamLake"):
        await Database.open(url, InlineExecutor(), clock)
