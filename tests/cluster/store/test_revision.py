"""What each revision changed: listed whole, or said not to be."""

from uuid import UUID

import pytest
from sqlalchemy import event, func, insert, select

from streamlake.cluster.store import revision as module
from streamlake.cluster.store import schema
from streamlake.cluster.store.revision import Changes, Kind, changes_since, current_revision, next_revision

TOPIC, OTHER = UUID(int=7), UUID(int=1 << 127)


@pytest.fixture
async def store(database):
    await database.write(lambda c: c.execute(insert(schema.cluster).values(id=1, cluster_id="x", revision=0)).rowcount)
    return database


async def change(store, *changed) -> int:
    return await store.write(lambda connection: next_revision(connection, *changed))


async def since(store, seen: int) -> Changes:
    return await store.read(lambda connection: changes_since(connection, seen))


async def test_revisions_count(store) -> None:
    assert [await change(store, Kind.SLOTS) for _ in range(3)] == [1, 2, 3]
    assert await store.read(current_revision) == 3


async def test_what_changed_since_a_revision(store) -> None:
    await change(store, Kind.TOPICS, [TOPIC])
    await change(store, Kind.PARTITIONS, [1, 2, 1 << 62])
    await change(store, Kind.TOPICS, [OTHER, TOPIC])
    await change(store, Kind.SLOTS)
    assert await since(store, 4) == Changes(4)
    assert await since(store, 3) == Changes(4, kinds=frozenset({Kind.SLOTS}))
    found = await since(store, 1)
    assert (found.topics, found.streams) == ({OTHER, TOPIC}, {1, 2, 1 << 62})
    assert found.kinds == {Kind.PARTITIONS, Kind.TOPICS, Kind.SLOTS}
    assert found.may_concern(Kind.SLOTS) and not found.may_concern(Kind.BROKER_CONFIGS)
    assert await since(store, 0) == Changes(
        4, kinds=found.kinds, topics=frozenset({OTHER, TOPIC}), streams=frozenset({1, 2, 1 << 62})
    )


async def test_one_statement_tells(store) -> None:
    await change(store, Kind.PARTITIONS, [1])
    statements: list[str] = []

    def executed(connection, cursor, statement, *_) -> None:
        statements.append(statement)

    event.listen(store._engine, "before_cursor_execute", executed)
    await since(store, 0)
    event.remove(store._engine, "before_cursor_execute", executed)
    assert len([s for s in statements if s.startswith("SELECT")]) == 1


async def test_who_has_seen_nothing_reads_everything(store) -> None:
    await change(store, Kind.SLOTS)
    nothing_known = await since(store, -1)
    assert nothing_known == Changes(1, is_complete=False)
    assert nothing_known.may_concern(Kind.TOPICS)


async def test_the_list_is_short_and_says_where_it_begins(store, monkeypatch) -> None:
    monkeypatch.setattr(module, "LISTED_MAX", 10)
    monkeypatch.setattr(module, "CLEARED_EACH", 5)
    for _ in range(22):
        await change(store, Kind.PARTITIONS, [1])
    assert await store.read(lambda c: c.execute(select(func.count()).select_from(schema.change)).scalar()) == 12
    assert (await since(store, 12)).streams == {1}
    assert await since(store, 9) == Changes(22, is_complete=False)


@pytest.mark.parametrize("spread", [True, False])
async def test_where_much_has_changed_all_is_read(store, monkeypatch, spread: bool) -> None:
    monkeypatch.setattr(module, "IDS_MAX", 5)
    for ids in ([1, 2, 3], [4, 5, 6]) if spread else ([1, 2, 3, 4, 5, 6],):
        await change(store, Kind.PARTITIONS, ids)
    assert not (await since(store, 0)).is_complete


async def test_what_a_newer_release_lists_may_be_anything(store) -> None:
    await change(store, Kind.SLOTS)
    await store.write(lambda c: c.execute(schema.change.update().values(kind="acls")).rowcount)
    assert await since(store, 0) == Changes(1, is_complete=False)


async def test_who_changed_something_hears_of_it_when_it_is_committed(store) -> None:
    heard: list[int] = []
    store.listeners.append(heard.append)
    await change(store, Kind.SLOTS)
    await store.write(lambda c: c.execute(select(1)).scalar())

    def undone(connection) -> None:
        next_revision(connection, Kind.SLOTS)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.write(undone)
    await change(store, Kind.SLOTS)
    assert await store.read(current_revision) == 2
    assert set(heard) == {1, 2}
