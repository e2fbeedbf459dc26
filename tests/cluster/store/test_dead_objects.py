"""That gc takes what is dead and nothing else: tests/contracts/stream_metadata_contract.py. Here: at what cost, beside whom."""

import asyncio

from contracts.stream_metadata_contract import opened, upload

from streamlake.cluster.store import object_ranges
from streamlake.cluster.store.stream_metadata import create_streams
from streamlake.s3stream.metadata import StreamRange, StreamTrim


async def create(cluster, count: int) -> list[int]:
    return list(await cluster.database.write(lambda c: create_streams(c, count)))


async def test_gc_reads_an_object_again_only_when_its_witness_is_gone(cluster, monkeypatch) -> None:
    read = []
    real = object_ranges.rows
    monkeypatch.setattr(object_ranges, "rows", lambda blob: read.append(blob) or real(blob))
    first, second = await create(cluster, 2)
    metadata = await cluster.metadata(1)
    await opened(metadata, [first, second], [0, 0])
    await upload(metadata, StreamRange(first, 0, 0, 10), StreamRange(second, 0, 0, 10))
    await upload(metadata, StreamRange(second, 0, 10, 20))
    for expected in (2, 2):
        assert await metadata.destroyable_objects() == []
        assert len(read) == expected
    await metadata.trim_streams([StreamTrim(first, 0, 10, None)])
    assert await metadata.destroyable_objects() == []
    assert len(read) == 3


async def test_gc_reads_an_object_again_when_it_gave_ranges_away(cluster, monkeypatch) -> None:
    first, second = await create(cluster, 2)
    metadata = await cluster.metadata(1)
    await opened(metadata, [first, second], [0, 0])
    one = await upload(metadata, StreamRange(first, 0, 0, 10), StreamRange(second, 0, 0, 10))
    assert await metadata.destroyable_objects() == []
    await metadata.replace_ranges(await metadata.prepare_object(1000), 1, [StreamRange(first, 0, 0, 10)], [one])
    read = []
    real = object_ranges.rows
    monkeypatch.setattr(object_ranges, "rows", lambda blob: read.append(blob) or real(blob))
    for _ in range(2):
        assert await metadata.destroyable_objects() == []
        assert len(read) == 2, "this one, and the new one"


async def test_gc_beside_uploads_takes_nothing_that_lives(cluster, monkeypatch) -> None:
    monkeypatch.setattr("streamlake.cluster.store.dead_objects.GC_OBJECTS_PER_READ", 2)
    metadata = await cluster.metadata(1)
    living: set[int] = set()

    async def uploads() -> None:
        for _ in range(20):
            (s,) = await create(cluster, 1)
            await opened(metadata, [s], [0])
            living.add(await upload(metadata, StreamRange(s, 0, 0, 10)))

    async def collect() -> None:
        for _ in range(20):
            assert await metadata.destroyable_objects() == []

    await asyncio.gather(uploads(), collect())
    assert {o.object_id for o in await metadata.objects()} == living
