"""Produce (0).

Behavior: room in memory and WAL is reserved first, while the whole connection waits. Stage one is then a plain
function: it checks, orders and numbers every batch and hands it to the WAL, with nothing awaited in between, so two
requests of one connection can never swap places (DESIGN rule 3). Only then may the connection's next request start.
The answer waits until all is durable; a duplicate's answer waits for the original's durability. acks=0 has no answer.
Version notes: topic ids instead of names from version 13; error messages from 8.
"""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from streamlake.core.errors import Full, Invalid, StreamLakeError, Unavailable
from streamlake.handlers.context import TIMEOUT_MS_MAX, Context, Exchange, Failure, find_partition, find_topic
from streamlake.handlers.log_failures import log_failure
from streamlake.log.partition import Appended
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.produce import (
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)


@dataclass(frozen=True, slots=True)
class Part:
    """One partition of the request, and what stage one made of it."""

    name: str
    topic_id: UUID | None
    index: int
    outcome: Appended | Failure


async def handle(ctx: Context, exchange: Exchange) -> ProduceResponse | None:
    request: ProduceRequest = exchange.body
    timeout_s = min(max(request.timeout_ms, 1), TIMEOUT_MS_MAX) / 1000
    size_bytes = sum(len(p.records or b"") for t in request.topic_data for p in t.partition_data)
    refused = _refusal(request)
    if refused is None and size_bytes:
        try:
            await ctx.streams.reserve(size_bytes, timeout_s)
        except Invalid as error:
            refused = Failure(ErrorCode.MESSAGE_TOO_LARGE, str(error))
        except (Full, Unavailable) as error:
            refused = Failure(ErrorCode.REQUEST_TIMED_OUT, str(error))
        except StreamLakeError as error:
            refused = log_failure(error)
    parts = stage_one(ctx, request, size_bytes, refused)
    exchange.release()
    if request.acks == 0:
        return None
    pending = [p.outcome.durable for p in parts if isinstance(p.outcome, Appended) and not p.outcome.durable.done()]
    if pending:
        # asyncio.wait and not wait_for: a timeout must not cancel futures that duplicates wait for too.
        await asyncio.wait(pending, timeout=timeout_s)
    return _response(parts)


def _refusal(request: ProduceRequest) -> Failure | None:
    if request.acks not in (-1, 0, 1):
        return Failure(ErrorCode.INVALID_REQUIRED_ACKS, f"acks must be -1 (all), 0 or 1, not {request.acks}")
    if request.transactional_id is not None:
        return Failure(ErrorCode.INVALID_REQUEST, "transactions are not supported yet: leave transactional.id unset")
    return None


def stage_one(ctx: Context, request: ProduceRequest, reserved_bytes: int, refused: Failure | None) -> list[Part]:
    """Give offsets and queue for the WAL. Nothing is awaited: the absence of `await` is the lock."""
    parts = []
    used_bytes = 0
    try:
        for topic_data in request.topic_data:
            topic = find_topic(ctx, topic_data.name, topic_data.topic_id)
            for data in topic_data.partition_data:
                outcome: Appended | Failure
                code, partition = find_partition(ctx, topic, data.index)
                if refused is not None:
                    outcome = refused
                elif partition is None:
                    outcome = Failure(code, "")
                else:
                    try:
                        outcome = partition.append(memoryview(data.records or b""))
                        used_bytes += outcome.appended_bytes
                    except StreamLakeError as error:
                        outcome = log_failure(error)
                parts.append(Part(topic_data.name, topic_data.topic_id, data.index, outcome))
    finally:  # after a bug, too: room that nobody gives back would be gone until the next start
        if refused is None and reserved_bytes > used_bytes:
            ctx.streams.release(reserved_bytes - used_bytes)
    return parts


def _response(parts: list[Part]) -> ProduceResponse:
    topics: dict[tuple[str, UUID | None], list[PartitionProduceResponse]] = {}
    for part in parts:
        topics.setdefault((part.name, part.topic_id), []).append(_answer(part))
    return ProduceResponse(
        responses=tuple(
            TopicProduceResponse(name=name, topic_id=topic_id, partition_responses=tuple(answers))
            for (name, topic_id), answers in topics.items()
        )
    )


def _answer(part: Part) -> PartitionProduceResponse:
    outcome = part.outcome
    if isinstance(outcome, Appended):
        if not outcome.durable.done():
            # It may still become durable. An idempotent producer's retry is recognised as a duplicate.
            text = "not durable within the request's timeout: try again"
            outcome = Failure(ErrorCode.REQUEST_TIMED_OUT, text)
        elif (error := outcome.durable.exception()) is not None:
            outcome = (
                log_failure(error)
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
    )
