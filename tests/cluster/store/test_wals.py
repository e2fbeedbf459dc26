import pytest
from contracts.stream_metadata_contract import opened
from sqlalchemy import select, update

from streamlake.cluster.store import schema
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.store.wals import WalKey, WalRow, Wals, all_wals
from streamlake.core.errors import Fenced

FILE, BUCKET = "file:///data/wal", "object+s3://bucket"


async def life(cluster, node: int = 0) -> Wals:
    """The list as the next process of the node sees it."""
    return Wals(cluster.database, await cluster.register(node))


async def trimmed(cluster, wals: Wals, key: WalKey, position: int) -> None:
    await SqlStreamMetadata(cluster.database, wals._identity, key).trim_wal(position)


async def test_a_file_wal_goes_on_where_the_previous_life_stopped(cluster) -> None:
    first = await life(cluster)
    key = await first.adopt(FILE, continues=True)
    epoch = first._identity.epoch
    assert key == WalKey(0, FILE, epoch)
    assert await all_wals(cluster.database) == [WalRow(0, FILE, epoch, 0)]
    await trimmed(cluster, first, key, 42)
    second = await life(cluster)
    assert await all_wals(cluster.database) == [WalRow(0, FILE, epoch, 42)]
    key = await second.adopt(FILE, continues=True)
    (row,) = await all_wals(cluster.database)
    assert (row, row.key) == (WalRow(0, FILE, epoch + 1, 42), key)


async def test_each_life_has_an_object_wal_of_its_own(cluster) -> None:
    """A node that returns need not wait until its former life is drained."""
    first = await life(cluster)
    key = await first.adopt(BUCKET, continues=False)
    await trimmed(cluster, first, key, 42)
    second = await life(cluster)
    await second.adopt(BUCKET, continues=False)
    assert await all_wals(cluster.database) == [WalRow(0, BUCKET, key.epoch, 42), WalRow(0, BUCKET, key.epoch + 1, 0)]


@pytest.mark.parametrize("continues", [True, False])
async def test_adopting_again_after_a_lost_answer_changes_nothing(cluster, continues: bool) -> None:
    wals = await life(cluster)
    key = await wals.adopt(FILE, continues=continues)
    await trimmed(cluster, wals, key, 7)
    assert await wals.adopt(FILE, continues=continues) == key
    assert await all_wals(cluster.database) == [WalRow(0, FILE, key.epoch, 7)]


async def test_a_node_may_have_several_and_nodes_have_their_own(cluster) -> None:
    first, other = await life(cluster), await life(cluster, 5)
    await first.adopt(FILE, continues=True)
    await first.adopt(BUCKET, continues=False)
    await other.adopt(FILE, continues=True)
    assert [(r.node, r.uri) for r in await all_wals(cluster.database)] == [(0, FILE), (0, BUCKET), (5, FILE)]


async def test_a_zombie_changes_nothing(cluster) -> None:
    zombie = await life(cluster)
    key = await zombie.adopt(FILE, continues=True)
    await cluster.register()
    before = await cluster.dump()
    for attempt in (
        lambda: zombie.adopt(FILE, continues=True),
        lambda: zombie.adopt(BUCKET, continues=False),
        lambda: zombie.release_unrecovered(key, []),
    ):
        with pytest.raises(Fenced):
            await attempt()
    assert await cluster.dump() == before


async def test_streams_without_a_record_in_a_wal_that_goes_on_are_given_up_if_they_belong_elsewhere(cluster) -> None:
    """Their partitions were assigned to another node while this one was away. One with a record is kept, as are those
    that are still assigned here, and those of a life whose WAL is another one."""
    topics = await cluster.topics()
    topic = await topics.create("t", 4, {})
    ids = [p.stream_id for p in topic.partitions]
    object_wal = await (await life(cluster)).adopt(BUCKET, continues=False)
    drained_later = SqlStreamMetadata(cluster.database, await cluster.register(), object_wal)
    await opened(drained_later, ids[3:], [0])
    first = await life(cluster)
    await opened(
        SqlStreamMetadata(cluster.database, first._identity, await first.adopt(FILE, continues=True)), ids[:3], [0] * 3
    )
    p, s = schema.partition.c, schema.stream.c
    moved = update(schema.partition).where(p.stream_id != ids[0]).values(node=5)
    await cluster.database.write(lambda c: c.execute(moved).rowcount)
    second = await life(cluster)
    await second.release_unrecovered(await second.adopt(FILE, continues=True), [ids[1]])
    owners = dict(await cluster.database.read(lambda c: c.execute(select(s.id, s.owner)).all()))
    assert owners == {ids[0]: 0, ids[1]: 0, ids[2]: None, ids[3]: 0}
