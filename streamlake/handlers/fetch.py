"""Fetch (1): plan, read, and if there is too little, wait.

Behavior: partitions are read in the session's order until max_bytes; the first partition with data gives at least one
batch, however large, so a consumer cannot get stuck (KIP-74). With less than min_bytes the answer waits until a
partition's high watermark moves or max_wait passes; while it waits the connection may start its next request. So it
does, for a shorter time, while a partition that was asked for moves to another broker (handovers.py).
While the connections hold much memory an answer is as small as what is left of it, but never less than that batch.
Readers see durable offsets only; read_committed readers only up to the last stable offset, and are told which aborted
transactions lie in what they get. They wait for the last stable offset, which moves when a marker is durable.
Version notes: sessions from 7, topic ids from 13; who asks the wrong broker, or with the epoch of an earlier leader, is
told the right one from 16 (KIP-951). Record bytes go to the socket uncopied.
"""

import asyncio
from collections.abc import Sequence
from typing import cast
from uuid import UUID

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, Exchange, find_partition, find_topic
from streamlake.handlers.error_codes import FETCH, failure
from streamlake.handlers.fetch_session import Key, Session, Wanted, to_send
from streamlake.handlers.handovers import REFUSAL_WAIT_S
from streamlake.handlers.leaders import hinted_brokers, leader_hint
from streamlake.log.partition import Partition
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.fetch import (
    AbortedTransaction,
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionData,
)
from streamlake.protocol.wire import Buffer, Chunks

READ_S_MAX = 1.0  # after so long, what was read goes out: the client asks again before it gives the request up
RESPONSE_BYTES_MAX = 64 * 1024 * 1024
WAIT_MS_MAX = 300_000
READ_COMMITTED = 1
HINTS_FROM = 16  # the version
NO_RECORDS = b""  # and not null: librdkafka cannot parse null records, and then asks again without a pause

Answers = list[tuple[Key, PartitionData]]


async def handle(ctx: Context, exchange: Exchange) -> FetchResponse:
    request: FetchRequest = exchange.body
    session = ctx.fetch_sessions.resolve(request)
    if session.error:
        return FetchResponse(error_code=session.error)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + min(max(request.max_wait_ms, 0), WAIT_MS_MAX) / 1000
    refusal_deadline = min(deadline, loop.time() + REFUSAL_WAIT_S)
    # A copy: the session's next request may start (and change it) while this one waits.
    wanted = list(session.wanted.items())
    while True:
        woken = loop.create_future()
        watched = _watch(ctx, wanted, woken)  # before reading, so that no append can fall in between
        try:
            answers, enough, refused = await _read(ctx, exchange, wanted)
            moving = _moving(ctx, answers) if refused else []
            left_s = (refusal_deadline if moving else deadline) - loop.time()
            if enough or (refused and not moving) or left_s <= 0:
                return _response(ctx, session, answers)
            # Only now: were the connection's next fetches read too, their answers would pile up in memory.
            exchange.release()
            await asyncio.wait([woken, *moving], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for partition in watched:
                partition.waiters.discard(woken)


def _watch(ctx: Context, wanted: list[tuple[Key, Wanted]], woken: "asyncio.Future[None]") -> list[Partition]:
    watched = []
    for (name, topic_id, index), _ in wanted:
        topic = find_topic(ctx, name, topic_id)
        partition = None if isinstance(topic, ErrorCode) else ctx.logs.get(topic.id, index)
        if partition is not None:
            partition.waiters.add(woken)
            watched.append(partition)
    return watched


def _moving(ctx: Context, answers: Answers) -> "list[asyncio.Future[None]]":
    """What the answer waits for: others are about to open the partitions that it refuses. Nothing if it has any other
    error."""
    moving = []
    for (name, topic_id, index), answer in answers:
        if answer.error_code:
            topic = find_topic(ctx, name, topic_id)
            found = None if isinstance(topic, ErrorCode) else ctx.handovers.until_over(topic.id, index)
            if found is None or answer.error_code != ErrorCode.NOT_LEADER_OR_FOLLOWER:
                return []
            moving.append(found)
    return moving


async def _read(ctx: Context, exchange: Exchange, wanted: list[tuple[Key, Wanted]]) -> tuple[Answers, bool, bool]:
    """All partitions once. Whether the answer should go out now, as it has enough bytes; whether it has an error."""
    request: FetchRequest = exchange.body
    free_bytes = ctx.connection_memory.free_bytes
    room = min(max(request.max_bytes, 0), RESPONSE_BYTES_MAX, free_bytes)
    loop = asyncio.get_running_loop()
    until = loop.time() + READ_S_MAX
    total, refused = 0, False
    answers: Answers = []
    for key, want in wanted:
        if total and loop.time() > until:
            room = 0
        answer = await _read_one(ctx, exchange, key, want, room, first=total == 0)
        size = len(answer.records or b"")
        total += size
        room = max(room - size, 0)
        refused = refused or answer.error_code != ErrorCode.NONE
        answers.append((key, answer))
    no_more_fits = total > 0 and total >= free_bytes
    return answers, total >= request.min_bytes or no_more_fits or not wanted, refused


async def _read_one(
    ctx: Context, exchange: Exchange, key: Key, want: Wanted, room: int, *, first: bool
) -> PartitionData:
    name, topic_id, index = key
    epoch = want.request.current_leader_epoch
    code, partition = find_partition(ctx, find_topic(ctx, name, topic_id), index, epoch)
    if partition is None:
        fenced = code in (ErrorCode.FENCED_LEADER_EPOCH, ErrorCode.UNKNOWN_LEADER_EPOCH)
        return PartitionData(
            partition_index=index,
            error_code=code,
            high_watermark=-1,
            current_leader=_hint(ctx, exchange, key, code),
            aborted_transactions=None if fenced else (),  # as Kafka, which finds these only when it reads
            records=NO_RECORDS,
        )
    committed = exchange.body.isolation_level == READ_COMMITTED
    limit = min(max(want.request.partition_max_bytes, 0), room)
    try:
        result = await partition.read(want.request.fetch_offset, limit, committed=committed, at_least_one=first)
    except StreamLakeError as error:
        code = failure(error, FETCH).code
        return PartitionData(
            partition_index=index,
            error_code=code,
            high_watermark=-1,
            current_leader=_hint(ctx, exchange, key, code),
            log_start_offset=partition.log_start_offset,  # more than Kafka tells: why the offset is out of range
            aborted_transactions=None,
            records=NO_RECORDS,
        )
    return PartitionData(
        partition_index=index,
        high_watermark=result.high_watermark,
        last_stable_offset=result.last_stable_offset,
        log_start_offset=result.log_start_offset,
        aborted_transactions=tuple(AbortedTransaction(*found) for found in result.aborted) if committed else None,
        records=_uncopied(result.chunks),
    )


def _hint(ctx: Context, exchange: Exchange, key: Key, code: ErrorCode) -> LeaderIdAndEpoch:
    if exchange.version < HINTS_FROM:
        return LeaderIdAndEpoch()
    name, topic_id, index = key
    return LeaderIdAndEpoch(*leader_hint(ctx, code, find_topic(ctx, name, topic_id), index))


def _uncopied(chunks: Sequence[Buffer]) -> Buffer:
    if len(chunks) == 1:
        return chunks[0]
    return cast(Buffer, Chunks(chunks)) if chunks else NO_RECORDS  # the encoder, which alone looks at it, knows both


def _response(ctx: Context, session: Session, answers: Answers) -> FetchResponse:
    topics: dict[tuple[str, UUID | None], list[PartitionData]] = {}
    leaders = set()
    for (name, topic_id, _), answer in to_send(session, answers):
        if answer.error_code:
            leaders.add(answer.current_leader.leader_id)
        topics.setdefault((name, topic_id), []).append(answer)
    return FetchResponse(
        session_id=session.session_id,
        responses=tuple(
            FetchableTopicResponse(topic=name, topic_id=topic_id, partitions=tuple(partitions))
            for (name, topic_id), partitions in topics.items()
        ),
        node_endpoints=tuple(
            NodeEndpoint(node_id=b.node, host=b.host, port=b.port) for b in hinted_brokers(ctx, leaders)
        ),
    )
