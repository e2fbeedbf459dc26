"""A tailer against a real server whose answers are turned into lies on the way."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from simulation.actors.consumers import Tailer, decode
from simulation.actors.producers import IdempotentProducer
from simulation.checks.history import Violation
from simulation.real import lie, new_topic, run_on, run_until, world_of
from support.server import Server

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.record.batch import frames
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch


def changed(change: Callable[[Any], dict[str, Any]]) -> Any:
    """An answer to Fetch in which partitions that were read say something else."""

    def partition(data: Any) -> Any:
        return msgspec.structs.replace(data, **change(data)) if not data.error_code else data

    def topic(data: Any) -> Any:
        return msgspec.structs.replace(data, partitions=tuple(map(partition, data.partitions)))

    return lambda answer: msgspec.structs.replace(answer, responses=tuple(map(topic, answer.responses)))


def without_first_batch(data: Any) -> dict[str, Any]:
    batches = [bytes(batch) for _, batch in frames(data.records)]
    return {"records": b"".join(batches[1:])} if len(batches) > 1 else {}


def cut(data: Any) -> dict[str, Any]:
    return {"records": bytes(data.records[:-1])} if data.records else {}


def flipped(data: Any) -> dict[str, Any]:
    return {"records": bytes(data.records[:-1]) + bytes([data.records[-1] ^ 1])} if data.records else {}


def forged(data: Any) -> dict[str, Any]:
    """The right offsets, records that nobody sent."""
    header = next((header for header, _ in frames(data.records)), None)
    if header is None:
        return {}
    records = [Record(offset, 1, b"forged", b"", ()) for offset in range(header.base_offset, header.next_offset)]
    return {"records": encode_batch(records)}


LIES = {
    "the high watermark goes back": lambda d: {"high_watermark": max(0, 50 - d.high_watermark), "records": b""},
    "the last stable offset goes back": lambda d: {"last_stable_offset": 0, "records": b""} if d.high_watermark > 50 else {},
    "the log start moves": lambda d: {"log_start_offset": 1},
    "a batch is left out": without_first_batch,
    "more than is durable": lambda d: {"high_watermark": 1, "last_stable_offset": 1},
    "a batch is cut": cut,
    "a bit is flipped": flipped,
    "a forged batch": forged,
    "out of range": lambda d: {"error_code": ErrorCode.OFFSET_OUT_OF_RANGE, "log_start_offset": 0} if d.high_watermark > 50 else {},
    "unreadable": lambda d: {"error_code": ErrorCode.KAFKA_STORAGE_ERROR},
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_is_caught(server: Server, name: str) -> None:
    world = world_of(server)
    topics = [await new_topic(world)]
    producer = IdempotentProducer(world, "p", random.Random(1), topics)
    tailer = Tailer(world, "t", random.Random(2), topics, pace_s=0.02, stray_share=0, waits_ms=(0, 10))
    lie(tailer.client, ApiKey.FETCH, changed(LIES[name]))
    with pytest.raises(Violation):
        await run_on(world, producer, tailer)


def test_a_batch_has_a_record_for_each_offset() -> None:
    with pytest.raises(Violation, match=r"holds \[0, 2\]"):
        decode(encode_batch([Record(0, 1, b"a", b""), Record(2, 1, b"b", b"")]))


@pytest.mark.parametrize("seed", range(4))
async def test_sessions_and_isolation_levels_see_everything(server: Server, seed: int) -> None:
    """Over the seeds a tailer is with and without a session, committed and uncommitted."""
    world = world_of(server)
    topics = [await new_topic(world, 3)]
    producer = IdempotentProducer(world, "p", random.Random(seed), topics)
    tailer = Tailer(world, "t", random.Random(seed), topics, pace_s=0.01, stray_share=0.3, waits_ms=(0, 50))
    await run_until(world, lambda: world.ledger.records_read > 200, producer, tailer)
    assert len(world.ledger.partitions) == 3
