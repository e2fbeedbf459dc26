import asyncio
from dataclasses import replace

import pytest
from support.group_rows import GroupRows

from streamlake.cluster.store.groups import GroupRow, OffsetRow
from streamlake.cluster.store.slots import SLOTS, slot_of
from streamlake.core.errors import Fenced

GROUP = GroupRow("g", 3, "consumer", "range", "member-1", b"\x00members", 1_000)


def at(topic: str, partition: int, offset: int, **facts) -> OffsetRow:
    return OffsetRow(topic, partition, offset, **({"leader_epoch": -1, "metadata": "", "commit_ms": 5} | facts))


@pytest.fixture
async def store(cluster) -> GroupRows:
    topics = await cluster.topics()
    await topics.create("a", 3, {})
    await topics.create("b", 1, {})
    return await GroupRows.of(cluster.database, cluster.identity)


async def test_groups_are_saved_whole_and_replaced(store) -> None:
    assert await store.all() == []
    empty = GroupRow("empty", 0, "", None, None, b"", 2_000)
    await store.save(GROUP)
    await store.save(empty)
    assert await store.all() == [empty, GROUP]
    newer = replace(GROUP, generation=4, protocol=None, leader=None, members=b"")
    await store.save(newer)
    assert await store.all() == [empty, newer]


async def test_offsets_are_committed_and_fetched(store) -> None:
    await store.commit("g", [at("b", 0, 7), at("a", 2, 5, leader_epoch=3, metadata="note"), at("a", 0, 1)])
    await store.commit("g", [at("a", 2, 6), at("a", 2, 8, commit_ms=9)])
    await store.commit("other", [at("a", 0, 100)])
    await store.commit("g", [])
    mine = [at("a", 0, 1), at("a", 2, 8, commit_ms=9), at("b", 0, 7)]
    assert await store.fetch_offsets("g") == mine
    assert await store.fetch_offsets("none") == []
    assert await store.fetch_offsets("other") == [at("a", 0, 100)]


async def test_a_commit_may_go_back_if_the_consumer_says_so(store) -> None:
    await store.commit("g", [at("a", 0, 10)])
    await store.commit("g", [at("a", 0, 5)])
    assert await store.fetch_offsets("g") == [at("a", 0, 5)]


async def test_offsets_of_unknown_topics_are_dropped(store) -> None:
    await store.commit("g", [at("gone", 0, 1), at("a", 0, 2)])
    await store.commit("g", [at("gone", 0, 1)])
    assert await store.fetch_offsets("g") == [at("a", 0, 2)]


async def test_a_commit_of_more_topics_than_fit_one_statement(store, cluster, monkeypatch) -> None:
    monkeypatch.setattr("streamlake.cluster.store.schema.IN_LIST_MAX", 7)
    topics = await cluster.topics()
    names = [f"topic-{i}" for i in range(20)]
    await asyncio.gather(*[topics.create(name, 2, {}) for name in names])
    rows = [at(name, partition, 1) for name in sorted(names) for partition in range(2)]
    await store.commit("g", rows)
    assert await store.fetch_offsets("g") == rows


async def test_commits_of_many_groups_share_a_disk_sync(store, cluster) -> None:
    before = cluster.database.commits
    await asyncio.gather(*[store.commit(f"g{i}", [at("a", 0, i)]) for i in range(40)])
    assert cluster.database.commits == before + 1
    assert await store.fetch_offsets("g39") == [at("a", 0, 39)]


async def test_delete_groups(store) -> None:
    await store.save(GROUP)
    for group in ("g", "kept"):
        await store.commit(group, [at("a", 0, 1)])
    await store.delete("g")
    await store.delete("none")
    assert await store.all() == []
    assert [len(await store.fetch_offsets(group)) for group in ("g", "kept")] == [0, 1]


async def test_a_group_is_deleted_only_without_offsets(store) -> None:
    await store.save(GROUP)
    await store.commit("g", [at("a", 0, 1)])
    assert not await store.delete("g", only_without_offsets=True)
    assert (await store.all(), await store.fetch_offsets("g")) == ([GROUP], [at("a", 0, 1)])
    await store.delete_offsets("g", ("a", 0))
    assert await store.delete("g", only_without_offsets=True)
    assert await store.all() == []


async def test_offsets_are_deleted_one_by_one(store) -> None:
    for group in ("g", "kept"):
        await store.commit(group, [at("a", 0, 1), at("a", 1, 2), at("b", 0, 3)])
    await store.delete_offsets("g", ("a", 0), ("b", 0), ("b", 7), ("gone", 0), ("a", 0))
    await store.delete_offsets("none", ("a", 0))
    assert await store.fetch_offsets("g") == [at("a", 1, 2)]
    assert len(await store.fetch_offsets("kept")) == 3


async def test_offsets_expire_by_their_age_and_topic(store, monkeypatch) -> None:
    monkeypatch.setattr("streamlake.cluster.store.schema.IN_LIST_MAX", 1)
    rows = [at("a", 0, 1, commit_ms=9), at("a", 1, 2, commit_ms=10), at("a", 2, 2, commit_ms=11), at("b", 0, 3)]
    for group in ("g", "other"):
        await store.save(replace(GROUP, group_id=group))
        await store.commit(group, rows)
    await store.save(replace(GROUP, group_id="bare"))
    assert await store.store.oldest_commits(range(SLOTS)) == {"g": 5, "other": 5}
    assert await store.store.oldest_commits([slot_of("g")]) == {"g": 5}
    assert await store.store.oldest_commits([]) == {}
    assert await store.expire("g", 10, "b", "gone") == (2, False)
    assert await store.fetch_offsets("g") == rows[2:]
    assert await store.expire("g", 10) == (1, False)
    assert await store.expire("g", 10) == (0, False)
    assert await store.expire("g", 11) == (1, True)
    assert await store.fetch_offsets("other") == rows


async def test_a_zombie_changes_nothing(store, cluster) -> None:
    await store.save(GROUP)
    await store.commit("g", [at("a", 0, 1)])
    await cluster.register()
    before = await cluster.dump()
    for attempt in (
        lambda: store.save(replace(GROUP, generation=9)),
        lambda: store.delete("g"),
        lambda: store.commit("g", [at("a", 0, 2)]),
        lambda: store.delete_offsets("g", ("a", 0)),
        lambda: store.expire("g", 1_000),
    ):
        with pytest.raises(Fenced):
            await attempt()
    assert await cluster.dump() == before
