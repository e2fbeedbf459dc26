"""What it costs to catch up on one of a hundred partitions, with all sizes of the defaults divided by SCALE. The numbers
of docs/adr/0032 come from here, with `SCALE, GIB = 1024, 1`."""

from itertools import pairwise

from streamlake.s3stream.settings import StreamsSettings

SCALE, GIB = 256, 0.25  # GIB: of a partition, before it is divided
DEFAULTS = StreamsSettings()
SCALED = {
    name: getattr(DEFAULTS, name) // SCALE
    for name in ("object_bytes", "block_bytes", "read_ahead_bytes", "block_cache_bytes")
}
STREAMS = 100
CHUNK_BYTES = DEFAULTS.upload_bytes // STREAMS // SCALE  # of a stream in each upload
ROUNDS = int(GIB * (1 << 30)) // SCALE // CHUNK_BYTES
ROUNDS_PER_COMPACTION = 10  # at 21 MB/s
FETCH_BYTES = (1 << 20) // SCALE  # as consumers ask
GETS_PER_GIB, GETS_MORE = 40, 50  # of large ranges; and for the first ones, and the newest, which are small still


async def test_catching_up_on_one_of_a_hundred_takes_few_requests(media) -> None:
    media.tables.create(*range(1, STREAMS + 1))
    broker = media.broker(**SCALED, compaction_bytes_per_s=1 << 40)
    streams = await broker.start(*range(1, STREAMS + 1))
    for at in range(ROUNDS):
        for stream in streams:
            acked = broker.append(stream, bytes(CHUNK_BYTES), 1)
        await acked
        await broker.streams.flush()
        if at == ROUNDS // 4:
            before = await gets_per_gib(media, broker, streams[50])
        if at >= ROUNDS // 4 and (ROUNDS - at) % ROUNDS_PER_COMPACTION == ROUNDS_PER_COMPACTION // 2:
            await broker.streams.compactor.compact()
            await broker.streams.gc.collect()
    after = await gets_per_gib(media, broker, streams[50])
    rewritten = broker.streams.compactor.compacted_bytes / broker.streams.uploader.upload_bytes
    print(f"GET a GiB: {before:.0f} before, {after:.0f} after; rewritten {rewritten:.1f} times")
    assert before > 1500
    assert after * GIB <= GETS_PER_GIB * GIB + GETS_MORE
    assert rewritten <= 2.5


async def gets_per_gib(media, broker, stream) -> float:
    broker.streams.cache.evict(broker.streams.cache.capacity.total_bytes, 0)
    while broker.streams.blocks.used_bytes:
        broker.streams.blocks._drop_one()
    media.store.calls.clear()
    size, offset, offsets = 0, stream.start_offset, [stream.start_offset]
    while offset < stream.next_offset:
        parts = await stream.read(offset, stream.next_offset, FETCH_BYTES)
        read = sum(len(part) for part in parts)
        size, offset = size + read, offset + read // CHUNK_BYTES
        offsets.append(offset)
    assert all(a < b for a, b in pairwise(offsets)) and size == stream.next_offset * CHUNK_BYTES
    return sum(operation == "get_range" for operation, _ in media.store.calls) / (size * SCALE) * (1 << 30)
