"""Produce (0).

Behavior: large compressed batches are checked in a thread and capacity of memory and WAL is reserved first, while the
whole connection waits. Stage one is then a plain function: it checks, orders and numbers every batch and hands it to
the WAL, with nothing awaited in between, so two requests of one connection can never swap places (DESIGN rule 3). Only
then may the connection's next request start.
The answer waits until all is durable; a duplicate's answer waits for the original's durability. acks=0 has no answer.
If there is capacity already and little to decompress, `begin` does all that without a task; `handle` is for the others.
Most requests of a producer follow others with the same head, and are begun together: produce_runs.py reads them and
writes their answers, and shares all that lies between with this file.
A partition that moves at this moment is refused when its next broker has opened it (handovers.py). Before the first
batch of a transaction in a partition its coordinator is asked, and the connection waits (verification.py).
A topic whose `compression.type` names a codec has batches of another one compressed again, in a thread, once there is
capacity for what they can become at most.
Version notes: topic ids instead of names from version 13; error messages from 8; who asks the wrong broker is told the
right one from 10 (KIP-951).
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar
from uuid import UUID

import msgspec

from streamlake.core.deadlines import Deadlines
from streamlake.core.errors import StreamLakeError
from streamlake.handlers import verification
from streamlake.handlers.context import (
    TIMEOUT_MS_MAX,
    Context,
    Exchange,
    find_partition,
    find_topic,
)
from streamlake.handlers.error_codes import LOG, RESERVATION, Failure, failure
from streamlake.handlers.handovers import REFUSAL_WAIT_S
from streamlake.handlers.leaders import hinted_brokers, leader_hint
from streamlake.handlers.recompression import Batch, Recompression, Verdicts, recompressed, to_recompress
from streamlake.log.partition import Appended, Partition
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.produce import (
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)
from streamlake.record.run import Run
from streamlake.record.validate import AT_ONCE_BYTES, check_at_once, is_compressed
from streamlake.s3stream.streams import Streams

B = TypeVar("B", Batch, Recompression)

WITHOUT_ID = Failure(
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "a transactional batch came without its transactional id"
)


class Reservation:
    """Capacity of memory and WAL for records. What is not used when the block ends is given back, after a bug too: else
    it would be gone until the next start."""

    __slots__ = ("_streams", "_unused_bytes")

    def __init__(self, streams: Streams, size_bytes: int) -> None:
        """`size_bytes` were reserved just now."""
        self._streams = streams
        self._unused_bytes = size_bytes

    def append(self, partition: Partition, run: Run) -> Appended:
        """Raises as Partition.append."""
        appended = partition.append(run)
        self._unused_bytes -= appended.appended_bytes
        return appended

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        if self._unused_bytes:
            self._streams.release(self._unused_bytes)


class Part(msgspec.Struct, frozen=True):
    """One partition of the request, and what stage one made of it."""

    name: str
    topic_id: UUID | None
    index: int
    outcome: Appended | Failure


def begin(ctx: Context, exchange: Exchange) -> bool:
    request: ProduceRequest = exchange.body
    refused, size_bytes = refusal(ctx, request), 0
    if refused is None and request.transactional_id is not None and verification.must_ask(ctx, request):
        return False
    if refused is None:
        size_bytes = _size_bytes(request)
        try:
            if size_bytes and not ctx.streams.try_reserve(size_bytes):
                return False
        except StreamLakeError as error:
            refused, size_bytes = failure(error, RESERVATION), 0
    with Reservation(ctx.streams, size_bytes) as reservation:
        verdicts = _verdicts_at_once(ctx, exchange) if refused is None else {}
        if verdicts is None:
            return False
        parts = stage_one(ctx, request, reservation, refused, verdicts)
    exchange.body = None  # the records were copied: what they were received into is free
    exchange.release()
    if request.acks == 0:
        exchange.answer(None)
    elif moving := _moving(ctx, parts):
        when_known = partial(_answer_when_durable, ctx, exchange, parts, timeout_s(request))
        Later(moving, REFUSAL_WAIT_S, ctx.deadlines, when_known)
    else:
        _answer_when_durable(ctx, exchange, parts, timeout_s(request))
    return True


def _answer_when_durable(ctx: Context, exchange: Exchange, parts: list[Part], wait_s: float) -> None:
    if pending := _pending(parts):
        Later(pending, wait_s, ctx.deadlines, partial(_answer, ctx, exchange, parts))
    else:
        _answer(ctx, exchange, parts)


async def handle(ctx: Context, exchange: Exchange) -> ProduceResponse | None:
    """What `begin` could not begin: a request with records that nothing speaks against but the want of capacity, of a
    thread to decompress them, or of an answer about their transactions."""
    request: ProduceRequest = exchange.body
    wait_s = timeout_s(request)
    size_bytes = _size_bytes(request)
    refused, verdicts = None, Verdicts()
    if large := [each for each in _batches(ctx, request) if is_compressed(each[2]) or each[1].must_recompress(each[2])]:
        verdicts = await _in_thread(ctx, exchange, _verdicts, large)
    if request.transactional_id is not None:
        await verification.verify(ctx, request, exchange.version, verdicts)
    again = list(to_recompress(large, verdicts))
    size_bytes += sum(max(each.bytes_max - len(each.records), 0) for each in again)
    try:
        await ctx.streams.reserve(size_bytes, wait_s)
    except StreamLakeError as error:
        refused, size_bytes, again = failure(error, RESERVATION), 0, []
    with Reservation(ctx.streams, size_bytes) as reservation:
        if again:
            verdicts |= await _in_thread(ctx, exchange, recompressed, again)
        parts = stage_one(ctx, request, reservation, refused, verdicts)
    acks, exchange.body = request.acks, None
    del request, large, again, verdicts
    exchange.release()
    if acks == 0:
        return None
    if moving := _moving(ctx, parts):
        await asyncio.wait(moving, timeout=REFUSAL_WAIT_S)
    if pending := _pending(parts):
        # asyncio.wait and not wait_for: a timeout must not cancel futures that duplicates wait for too.
        await asyncio.wait(pending, timeout=wait_s)
    return response(ctx, parts)


async def _in_thread(
    ctx: Context, exchange: Exchange, work: Callable[[list[B]], Verdicts], batches: list[B]
) -> Verdicts:
    exchange.thread_started()
    try:
        return await ctx.checks.run(work, batches)
    finally:
        exchange.thread_ended()


class Later:
    """Calls `then` when all is done (batches are durable, partitions have moved), or when the timeout is over."""

    __slots__ = ("_deadlines", "_pending", "_then", "_tick")

    def __init__(
        self,
        pending: "list[asyncio.Future[None]]",
        timeout_s: float,
        deadlines: Deadlines,
        then: Callable[[], None],
    ) -> None:
        self._then = then
        self._deadlines = deadlines
        self._pending = len(pending)
        self._tick = deadlines.add(self, timeout_s)
        for future in pending:
            future.add_done_callback(self._one_done)

    def _one_done(self, future: "asyncio.Future[None]") -> None:
        self._pending -= 1
        if self._pending == 0:
            self._deadlines.remove(self, self._tick)
            self._then()

    def time_is_up(self) -> None:
        self._pending = -1  # whatever becomes durable now comes too late for this answer
        self._then()


def _answer(ctx: Context, exchange: Exchange, parts: list[Part]) -> None:
    try:
        found = response(ctx, parts)
    except Exception as error:
        exchange.fail(error)
    else:
        exchange.answer(found)


def timeout_s(request: ProduceRequest) -> float:
    return min(max(request.timeout_ms, 1), TIMEOUT_MS_MAX) / 1000


def _size_bytes(request: ProduceRequest) -> int:
    size_bytes = 0
    for topic_data in request.topic_data:
        for data in topic_data.partition_data:
            if data.records is not None:
                size_bytes += len(data.records)
    return size_bytes


def _pending(parts: list[Part]) -> "list[asyncio.Future[None]]":
    return [p.outcome.durable for p in parts if isinstance(p.outcome, Appended) and not p.outcome.durable.done()]


def _moving(ctx: Context, parts: list[Part]) -> "list[asyncio.Future[None]]":
    """What the refusal of these parts waits for: others are about to open their partitions."""
    moving = []
    for part in parts:
        if isinstance(part.outcome, Failure) and part.outcome.code == ErrorCode.NOT_LEADER_OR_FOLLOWER:
            topic = find_topic(ctx, part.name, part.topic_id)
            if not isinstance(topic, ErrorCode) and (over := ctx.handovers.until_over(topic.id, part.index)):
                moving.append(over)
    return moving


def refusal(ctx: Context, request: ProduceRequest) -> Failure | None:
    if request.acks not in (-1, 0, 1):
        return Failure(ErrorCode.INVALID_REQUIRED_ACKS, f"acks must be -1 (all), 0 or 1, not {request.acks}")
    return None


def _batches(ctx: Context, request: ProduceRequest) -> Iterator[Batch]:
    """Those for partitions that are here."""
    for t, topic_data in enumerate(request.topic_data):
        for p, data in enumerate(topic_data.partition_data):
            if data.records is not None:
                topic = find_topic(ctx, topic_data.name, topic_data.topic_id)
                partition = None if isinstance(topic, ErrorCode) else ctx.logs.get(topic.id, data.index)
                if partition is not None:
                    yield (t, p), partition, memoryview(data.records)


def _verdicts_at_once(ctx: Context, exchange: Exchange) -> Verdicts | None:
    """None: to decompress all that, or to compress some of it again, takes longer than the event loop can spare."""
    verdicts: Verdicts = {}
    room_bytes = AT_ONCE_BYTES
    for at, partition, records in _batches(ctx, exchange.body):
        if partition.must_recompress(records):
            return None
        if not is_compressed(records):
            continue
        try:
            run = check_at_once(records, partition.settings.max_message_bytes, room_bytes)
        except StreamLakeError as error:
            verdicts[at] = error
            continue
        if run is None:
            return None
        verdicts[at] = run
        room_bytes -= run.unpacked_bytes
        exchange.work_bytes += run.unpacked_bytes
    return verdicts


def _verdicts(batches: list[Batch]) -> Verdicts:
    """In a thread, one batch after the other: each thread decompresses into the same memory again."""
    verdicts: Verdicts = {}
    for at, partition, records in batches:
        try:
            verdicts[at] = partition.check(records)
        except StreamLakeError as error:
            verdicts[at] = error
    return verdicts


def stage_one(
    ctx: Context, request: ProduceRequest, reservation: Reservation, refused: Failure | None, verdicts: Verdicts
) -> list[Part]:
    """Give offsets and queue for the WAL. Nothing is awaited: the absence of `await` is the lock."""
    parts = []
    for t, topic_data in enumerate(request.topic_data):
        topic = find_topic(ctx, topic_data.name, topic_data.topic_id)
        for p, data in enumerate(topic_data.partition_data):
            outcome: Appended | Failure
            partition = None if isinstance(topic, ErrorCode) else ctx.logs.get(topic.id, data.index)
            verdict = verdicts.get((t, p)) if verdicts else None
            if refused is not None:
                outcome = refused
            elif partition is None:
                outcome = Failure(find_partition(ctx, topic, data.index).code, "")
            elif isinstance(verdict, StreamLakeError):
                outcome = failure(verdict, LOG)
            elif isinstance(verdict, Failure):
                outcome = verdict
            elif verdict is None and is_compressed(data.records):  # it was opened while the others were checked
                outcome = Failure(ErrorCode.NOT_LEADER_OR_FOLLOWER, "the partition has just been opened: try again")
            else:
                try:
                    run = verdict or partition.check(memoryview(data.records or b""))
                    if run.is_transactional and request.transactional_id is None:
                        outcome = WITHOUT_ID
                    else:
                        outcome = reservation.append(partition, run)
                except StreamLakeError as error:
                    outcome = failure(error, LOG)
            parts.append(Part(topic_data.name, topic_data.topic_id, data.index, outcome))
    return parts


def response(ctx: Context, parts: list[Part]) -> ProduceResponse:
    topics: dict[tuple[str, UUID | None], list[PartitionProduceResponse]] = {}
    leaders = set()
    for part in parts:
        answer = _part(ctx, part)
        if answer.error_code:
            leaders.add(answer.current_leader.leader_id)
        topics.setdefault((part.name, part.topic_id), []).append(answer)
    return ProduceResponse(
        responses=tuple(
            TopicProduceResponse(name=name, topic_id=topic_id, partition_responses=tuple(answers))
            for (name, topic_id), answers in topics.items()
        ),
        node_endpoints=tuple(
            NodeEndpoint(node_id=b.node, host=b.host, port=b.port) for b in hinted_brokers(ctx, leaders)
        ),
    )


def _part(ctx: Context, part: Part) -> PartitionProduceResponse:
    outcome = part.outcome
    if isinstance(outcome, Appended):
        if not outcome.durable.done():
            # It may still become durable. An idempotent producer's retry is recognised as a duplicate.
            text = "not durable within the request's timeout: try again"
            outcome = Failure(ErrorCode.REQUEST_TIMED_OUT, text)
        elif (error := outcome.durable.exception()) is not None:
            outcome = (
                failure(error, LOG)
                if isinstance(error, StreamLakeError)
                else Failure(ErrorCode.UNKNOWN_SERVER_ERROR, repr(error))
            )
        else:
            return PartitionProduceResponse(
                index=part.index,
                base_offset=outcome.base_offset,
                log_append_time_ms=outcome.log_append_time_ms,
                log_start_offset=outcome.log_start_offset,
            )
    return PartitionProduceResponse(
        index=part.index,
        error_code=outcome.code,
        base_offset=-1,
        error_message=outcome.message or None,
        current_leader=LeaderIdAndEpoch(
            *leader_hint(ctx, outcome.code, find_topic(ctx, part.name, part.topic_id), part.index)
        ),
    )
