from uuid import UUID

import pytest
from contracts.stream_metadata_contract import StreamMetadataContract, by_id, opened, upload
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, insert
from support.members import drained, given_to_drain
from support.memory_metadata import MemoryMetadata, MetadataTables

from streamlake.cluster.store import schema
from streamlake.cluster.store.schema import stream
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata, create_streams, next_history
from streamlake.core.errors import Invalid
from streamlake.s3stream.metadata import Checkpoint, Closing, StreamRange, StreamTrim


class SqlStreams:
    def __init__(self, cluster) -> None:
        self.cluster = cluster
        self.database = cluster.database

    async def create(self, count: int) -> list[int]:
        return list(await self.database.write(lambda c: create_streams(c, count)))

    async def delete(self, stream_id: int) -> None:
        await self.database.write(lambda c: c.execute(delete(stream).where(stream.c.id == stream_id)).rowcount)

    async def register(self) -> SqlStreamMetadata:
        self.wal = await self.cluster.adopt(identity := await self.cluster.register())
        return SqlStreamMetadata(self.database, identity, self.wal)

    async def drainer(self, node: int) -> SqlStreamMetadata:
        member = await self.cluster.member(node)
        return SqlStreamMetadata(self.database, member.identity, None, await given_to_drain(member, self.wal))

    def pass_time(self, ms: int) -> None:
        self.cluster.clock.milliseconds += ms

    async def forget_wal(self) -> None:
        await drained(await self.cluster.member(9), self.wal)

    async def hold(self, stream_id: int, offset: int) -> None:
        topic = UUID(int=stream_id)
        held = {"topic_id": topic, "committed_offset": 0, "committed_once": False, "updated_ms": 0, "incarnation": 1}

        def run(connection) -> None:
            connection.execute(insert(schema.topic).values(id=topic, name=f"t{stream_id}"))
            connection.execute(insert(schema.partition).values(topic_id=topic, index=3, stream_id=stream_id))
            connection.execute(insert(schema.table_progress).values(partition=3, hold_offset=offset, **held))

        await self.database.write(run)

    async def elsewhere(self, node: int) -> SqlStreamMetadata:
        identity = await self.cluster.register(node)
        return SqlStreamMetadata(self.database, identity, await self.cluster.adopt(identity))


class MemoryStreams:
    """The fake that s3stream's tests lean on must keep the same promises."""

    def __init__(self) -> None:
        self.tables = MetadataTables()

    def pass_time(self, ms: int) -> None:
        now_ms = self.tables.now_ms() + ms
        self.tables.now_ms = lambda: now_ms

    async def create(self, count: int) -> list[int]:
        ids = [len(self.tables.streams) + 1 + at for at in range(count)]
        self.tables.create(*ids)
        return ids

    async def delete(self, stream_id: int) -> None:
        del self.tables.streams[stream_id]

    async def register(self) -> MemoryMetadata:
        metadata = self.tables.register()
        self.wal = metadata.wal
        return metadata

    async def drainer(self, node: int) -> MemoryMetadata:
        return self.tables.drainer(node, self.wal)

    async def forget_wal(self) -> None:
        self.tables.forget(self.wal)

    async def hold(self, stream_id: int, offset: int) -> None:
        self.tables.holds[stream_id] = offset

    async def elsewhere(self, node: int) -> MemoryMetadata:
        return self.tables.register(node)


@pytest.fixture
def sql_streams(cluster) -> SqlStreams:
    return SqlStreams(cluster)


class TestSql(StreamMetadataContract):
    @pytest.fixture
    def streams(self, sql_streams) -> SqlStreams:
        return sql_streams


class TestMemory(StreamMetadataContract):
    @pytest.fixture
    def streams(self) -> MemoryStreams:
        return MemoryStreams()


async def test_leader_epochs_begin_at_zero_as_in_kafka(sql_streams) -> None:
    (s,) = await sql_streams.create(1)
    (state,) = await opened(await sql_streams.register(), [s], [0])
    assert state.epoch == 0


async def test_restarts_without_data_do_not_grow_the_history(sql_streams) -> None:
    (s,) = await sql_streams.create(1)
    metadata = await sql_streams.register()
    for _ in range(5):
        (state,) = await opened(metadata, [s], [0])
    assert state.epochs == ((4, 0),)
    await upload(metadata, StreamRange(s, 4, 0, 10))
    for _ in range(3):
        (state,) = await opened(metadata, [s], [10])
    assert state.epochs == ((4, 0), (7, 10))
    await metadata.trim_streams([StreamTrim(s, state.epoch, 10, None)])
    (state,) = await opened(metadata, [s], [20])
    assert state.epochs == ((7, 10), (8, 20))
    assert (await metadata.stream_states())[0].epochs == state.epochs


def epoch_of(history, offset: int) -> int | None:
    return max((epoch for epoch, start in history if start <= offset), default=None)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_the_history_names_the_epoch_of_every_offset_that_is_left(steps) -> None:
    full, kept, log_start, end = [], (), 0, 0
    for epoch, (written, trimmed) in enumerate(steps):
        full.append((epoch, end))
        kept = next_history(kept, log_start, epoch, end)
        end += written
        log_start = min(end, log_start + trimmed)
        assert [s for _, s in kept] == sorted({s for _, s in kept})
    for offset in range(log_start, end):
        assert epoch_of(kept, offset) == epoch_of(full, offset)


async def test_a_checkpoint_belongs_to_the_end_of_its_range(sql_streams) -> None:
    first, second = await sql_streams.create(2)
    metadata = await sql_streams.register()
    await opened(metadata, [first, second], [0, 0])
    with pytest.raises(Invalid, match="at 5, not at its end 10"):
        await upload(metadata, StreamRange(first, 0, 0, 10), checkpoints=[Checkpoint(first, 5, b"early")])
    await upload(metadata, StreamRange(first, 0, 0, 10), checkpoints=[Checkpoint(second, 0, b"no range")])
    assert by_id(await metadata.stream_states())[second].checkpoint == b""


async def test_without_a_wal_nothing_is_committed(sql_streams, cluster) -> None:
    (s,) = await sql_streams.create(1)
    metadata = SqlStreamMetadata(cluster.database, await cluster.register(), None)
    (state,) = await opened(metadata, [s], [0])
    for attempt in (
        lambda: upload(metadata, StreamRange(s, state.epoch, 0, 10)),
        lambda: metadata.trim_wal(1),
        lambda: metadata.wal_trim(),
    ):
        with pytest.raises(Invalid, match="adopted no WAL"):
            await attempt()


async def test_brokers_share_streams_and_have_their_own_trim(sql_streams, cluster) -> None:
    (s,) = await sql_streams.create(1)
    a, b = await cluster.metadata(1), await cluster.metadata(2)
    (old,) = await opened(a, [s], [0])
    await upload(a, StreamRange(s, old.epoch, 0, 10), wal_trim=7)
    await a.close_streams([Closing(s, old.epoch, 10)])
    (new,) = await opened(b, [s], [10])
    await upload(b, StreamRange(s, new.epoch, 10, 20), wal_trim=3)
    assert (await a.wal_trim(), await b.wal_trim()) == (7, 3)
    assert await a.objects() == await b.objects()


async def test_many_streams_at_once(sql_streams) -> None:
    ids = await sql_streams.create(1_203)
    metadata = await sql_streams.register()
    states = await opened(metadata, ids, [0] * len(ids))
    assert [state.stream_id for state in states] == ids
    await upload(metadata, *[StreamRange(s, 0, 0, 10) for s in ids])
    assert {state.end_offset for state in await metadata.stream_states(ids)} == {10}
