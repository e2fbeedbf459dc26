import asyncio

import pytest
from alembic import command, op
from sqlalchemy import inspect, text

from streamlake.cluster.store import migrations
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.groups import GroupStore
from streamlake.cluster.store.membership import BrokerInfo, Membership
from streamlake.cluster.store.schema import LEFT, STARTING, metadata
from streamlake.cluster.store.slots import slot_of
from streamlake.cluster.store.wals import WalRow, all_wals
from streamlake.core.errors import Invalid
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor, ThreadExecutor


def schema(connection) -> dict[str, object]:
    """Columns, keys and indexes of every table, as the database itself tells them."""
    found = inspect(connection)
    return {
        table: (
            [(c["name"], repr(c["type"]), c["nullable"], c["default"]) for c in found.get_columns(table)],
            found.get_pk_constraint(table),
            sorted(found.get_foreign_keys(table), key=str),
            sorted(found.get_unique_constraints(table), key=str),
            sorted(found.get_indexes(table), key=str),
        )
        for table in found.get_table_names()
        if table != "alembic_version"
    }


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request, tmp_path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/metadata.db"
    request.getfixturevalue("patient")
    server = request.getfixturevalue("server")
    return server.url(server.database())


async def test_migrations_end_where_tables_py_says(empty_url, clock) -> None:
    """A table that was changed without a new revision fails here."""
    database = await Database.open(empty_url, InlineExecutor(), clock)

    def create_anew(connection) -> dict[str, object]:
        metadata.drop_all(connection)
        metadata.create_all(connection)
        return schema(connection)

    migrated = await database.read(schema)
    assert migrated.keys() == set(metadata.tables)
    assert migrated == await database.write(create_anew)
    await database.close()


async def test_texts_sort_by_code_points_on_postgresql(postgres) -> None:
    """As Python does, whatever language the database was made for."""
    query = text("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
                 "AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'")  # fmt: skip
    assert (await (await postgres.open()).read(lambda c: c.execute(query).all())) == []


async def test_upgrading_twice_changes_nothing(database) -> None:
    before = await database.read(schema)
    await database.write(migrations.upgrade)
    assert await database.read(schema) == before


def upgrade_to(revision: str, monkeypatch) -> None:
    """Let the code know no newer revision than this one."""
    real = command.upgrade
    monkeypatch.setattr(command, "upgrade", lambda config, head: real(config, revision))


async def test_wals_and_leases_of_the_first_revision_are_carried_over(empty_url, clock, monkeypatch) -> None:
    upgrade_to("0001", monkeypatch)
    database = await Database.open(empty_url, InlineExecutor(), clock)
    old = "INSERT INTO broker (node, epoch, lease_until_ms, host, port, wal_uri, wal_trim) VALUES "
    rows = "(0, 7, 100, 'a', 9092, 'file:///data/wal', 42), (3, 1, 0, 'b', 9093, 'file:///other', 0)"
    await database.write(lambda c: c.execute(text(old + rows)).rowcount)
    await database.close()
    monkeypatch.undo()
    database = await Database.open(empty_url, InlineExecutor(), clock)
    wals = await all_wals(database)
    assert wals == [WalRow(0, "file", 7, 42), WalRow(3, "file", 1, 0)]
    brokers = await Membership(database, database, clock, Ids(1)).brokers()
    assert brokers == [BrokerInfo(0, 7, 0, STARTING, "a", 9092), BrokerInfo(3, 1, 0, LEFT, "b", 9093)]
    await database.close()


async def test_groups_get_their_slots(empty_url, clock, monkeypatch) -> None:
    upgrade_to("0006", monkeypatch)
    database = await Database.open(empty_url, InlineExecutor(), clock)
    insert = text("INSERT INTO consumer_group (group_id, generation, protocol_type, members, updated_ms) "
                  "VALUES (:group_id, 1, 'consumer', :members, 1)")  # fmt: skip
    names = sorted(["orders", "", "grüße", *(f"group-{number}" for number in range(50))])
    rows = [{"group_id": name, "members": b"m"} for name in names]
    await database.write(lambda c: c.execute(insert, rows).rowcount)
    await database.close()
    monkeypatch.undo()
    database = await Database.open(empty_url, InlineExecutor(), clock)
    groups = GroupStore(database, BrokerIdentity("", 0, 1), lambda: None)
    for slot in {slot_of(name) for name in names}:
        found = [row.group_id for row in await groups.load_groups([slot])]
        assert found == [name for name in names if slot_of(name) == slot]
    await database.close()


async def test_two_servers_that_start_at_once_migrate_once(server, clock) -> None:
    url = server.url(server.database())
    executors = [ThreadExecutor("metadata") for _ in range(4)]
    databases = await asyncio.gather(*[Database.open(url, executor, clock) for executor in executors])
    versions = text("SELECT version_num FROM alembic_version")
    assert [await d.read(lambda c: c.execute(versions).scalars().all()) for d in databases] == [["0014"]] * 4
    for database, executor in zip(databases, executors, strict=True):
        await database.close()
        executor.close()


async def test_a_crash_while_migrating_leaves_the_former_revision(empty_url, clock, monkeypatch) -> None:
    real, calls = op.create_table, []

    def create_table(name, *columns):
        calls.append(name)
        if len(calls) == 5:
            raise ZeroDivisionError
        return real(name, *columns)

    monkeypatch.setattr(op, "create_table", create_table)
    with pytest.raises(ZeroDivisionError):
        await Database.open(empty_url, InlineExecutor(), clock)
    monkeypatch.undo()
    database = await Database.open(empty_url, InlineExecutor(), clock)
    assert (await database.read(schema)).keys() == set(metadata.tables)
    await database.close()


async def test_a_newer_store_is_refused(empty_url, clock) -> None:
    database = await Database.open(empty_url, InlineExecutor(), clock)
    await database.write(lambda c: c.execute(text("UPDATE alembic_version SET version_num = 'later'")).rowcount)
    await database.close()
    with pytest.raises(Invalid, match="newer StreamLake"):
        await Database.open(empty_url, InlineExecutor(), clock)
