import pytest
from sqlalchemy import select

from streamlake.cluster.store.schema import (
    IN_LIST_MAX,
    broker_config,
    in_lists,
    take_ids,
    upsert,
)


def test_in_lists_cover_all() -> None:
    values = list(range(2 * IN_LIST_MAX + 1))
    slices = list(in_lists(values))
    assert [len(s) for s in slices] == [IN_LIST_MAX, IN_LIST_MAX, 1]
    assert [v for s in slices for v in s] == values
    assert list(in_lists([])) == []


async def test_ids_are_never_given_twice(database) -> None:
    assert await database.write(lambda c: take_ids(c, "stream", 3)) == 1
    assert await database.write(lambda c: take_ids(c, "stream", 1)) == 4
    assert await database.write(lambda c: take_ids(c, "object", 1)) == 1

    def taken_and_undone(connection) -> None:
        take_ids(connection, "stream", 10)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(taken_and_undone)
    assert await database.write(lambda c: take_ids(c, "stream", 1)) == 5


async def test_upsert_inserts_and_replaces(database) -> None:
    def rows(*values):
        return [{"node": 0, "key": key, "value": value} for key, value in values]

    await database.write(lambda c: upsert(c, broker_config, rows(("a", "1"), ("b", "2"))))
    await database.write(lambda c: upsert(c, broker_config, rows(("b", "3"), ("c", "4"))))
    await database.write(lambda c: upsert(c, broker_config, []))
    stored = await database.read(lambda c: c.execute(select(broker_config.c.key, broker_config.c.value)).all())
    assert sorted(stored) == [("a", "1"), ("b", "3"), ("c", "4")]
