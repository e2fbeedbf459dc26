import pytest

from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.store.wals import WalKey, WalRow, Wals
from streamlake.core.errors import Conflict, Fenced

FILE, BUCKET = "file:///data/wal", "object+s3://bucket"


async def life(cluster, node: int = 0) -> Wals:
    """The list as the next process of the node sees it."""
    return Wals(cluster.database, await cluster.register(node))


async def trimmed(cluster, wals: Wals, key: WalKey, position: int) -> None:
    await SqlStreamMetadata(cluster.database, wals._identity, key).trim_wal(position)


async def test_a_file_wal_goes_on_where_the_previous_life_stopped(cluster) -> None:
    first = await life(cluster)
    key = await first.adopt(FILE, keep_trim=True)
    epoch = first._identity.epoch
    assert key == WalKey(0, FILE, epoch)
    assert await first.all() == [WalRow(0, FILE, epoch, 0)]
    await trimmed(cluster, first, key, 42)
    second = await life(cluster)
    assert await second.all() == [WalRow(0, FILE, epoch, 42)]
    key = await second.adopt(FILE, keep_trim=True)
    assert await second.all() == [WalRow(0, FILE, epoch + 1, 42)]
    assert (await second.all())[0].key == key


async def test_an_object_wal_begins_anew_once_its_remains_are_drained(cluster) -> None:
    first = await life(cluster)
    key = await first.adopt(BUCKET, keep_trim=False)
    await trimmed(cluster, first, key, 42)
    second = await life(cluster)
    before = await cluster.dump()
    for drained_epoch in (None, key.epoch - 1, key.epoch + 1):
        with pytest.raises(Conflict, match=f"may hold records of broker epoch {key.epoch}"):
            await second.adopt(BUCKET, keep_trim=False, drained_epoch=drained_epoch)
    assert await cluster.dump() == before
    await second.adopt(BUCKET, keep_trim=False, drained_epoch=key.epoch)
    assert await second.all() == [WalRow(0, BUCKET, key.epoch + 1, 0)]


@pytest.mark.parametrize("keep_trim", [True, False])
async def test_adopting_again_after_a_lost_answer_changes_nothing(cluster, keep_trim: bool) -> None:
    wals = await life(cluster)
    key = await wals.adopt(FILE, keep_trim=keep_trim)
    await trimmed(cluster, wals, key, 7)
    assert await wals.adopt(FILE, keep_trim=keep_trim) == key
    assert await wals.all() == [WalRow(0, FILE, key.epoch, 7)]


async def test_a_node_may_have_several_and_nodes_have_their_own(cluster) -> None:
    first, other = await life(cluster), await life(cluster, 5)
    await first.adopt(FILE, keep_trim=True)
    await first.adopt(BUCKET, keep_trim=False)
    await other.adopt(FILE, keep_trim=True)
    assert [(row.node, row.uri) for row in await other.all()] == [(0, FILE), (0, BUCKET), (5, FILE)]


async def test_a_drained_wal_is_forgotten_by_whoever_drained_it(cluster) -> None:
    dead, drainer = await life(cluster, 5), await life(cluster)
    key = await dead.adopt(FILE, keep_trim=True)
    await drainer.forget(key.node, key.uri, key.epoch)
    await drainer.forget(key.node, key.uri, key.epoch)
    assert await drainer.all() == []


async def test_a_wal_that_was_adopted_meanwhile_is_not_forgotten(cluster) -> None:
    dead, drainer = await life(cluster, 5), await life(cluster)
    key = await dead.adopt(FILE, keep_trim=True)
    back = await life(cluster, 5)
    adopted = await back.adopt(FILE, keep_trim=True)
    await drainer.forget(key.node, key.uri, key.epoch)
    assert [row.key for row in await drainer.all()] == [adopted]


async def test_a_zombie_changes_nothing(cluster) -> None:
    zombie = await life(cluster)
    key = await zombie.adopt(FILE, keep_trim=True)
    await cluster.register()
    before = await cluster.dump()
    for attempt in (
        lambda: zombie.adopt(FILE, keep_trim=True),
        lambda: zombie.adopt(BUCKET, keep_trim=False),
        lambda: zombie.forget(key.node, key.uri, key.epoch),
    ):
        with pytest.raises(Fenced):
            await attempt()
    assert await cluster.dump() == before
