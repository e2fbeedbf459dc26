"""AddPartitionsToTxn (24): partitions join a transaction, durably before the answer: its end reaches all of them.

Behavior: all or none of a transaction's partitions. If one does not exist it is told so, and the others
OPERATION_NOT_ATTEMPTED.
Version notes: one transaction of a client until version 3. Versions 4 and 5 are what Kafka's brokers ask one another,
with several transactions, and can ask whether partitions have joined (`verify_only`); that one has not is
TRANSACTION_ABORTABLE from version 5, INVALID_TXN_STATE in 4. PRODUCER_FENCED is INVALID_PRODUCER_EPOCH before 2.
"""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from streamlake.coordinator.transaction import V1, V2, Participant, Producer
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import txn_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.add_partitions_to_txn import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTopicResult,
)

Codes = dict[tuple[str, int], ErrorCode]


class Asked(NamedTuple):
    transactional_id: str
    producer: Producer
    topics: Sequence[AddPartitionsToTxnTopic]
    verify_only: bool = False


async def handle(ctx: Context, exchange: Exchange) -> AddPartitionsToTxnResponse:
    request: AddPartitionsToTxnRequest = exchange.body
    if exchange.version < 4:
        producer = Producer(request.v3_and_below_producer_id, request.v3_and_below_producer_epoch)
        asked = Asked(request.v3_and_below_transactional_id, producer, request.v3_and_below_topics)
        codes = await _serve(ctx, exchange.version, asked)
        return AddPartitionsToTxnResponse(results_by_topic_v3_and_below=_results(asked, codes))
    transactions = [
        Asked(t.transactional_id, Producer(t.producer_id, t.producer_epoch), t.topics, t.verify_only)
        for t in request.transactions
    ]
    answers = await asyncio.gather(*(_serve(ctx, exchange.version, asked) for asked in transactions))
    return AddPartitionsToTxnResponse(
        results_by_transaction=tuple(
            AddPartitionsToTxnResult(transactional_id=asked.transactional_id, topic_results=_results(asked, codes))
            for asked, codes in zip(transactions, answers, strict=True)
        )
    )


async def _serve(ctx: Context, version: int, asked: Asked) -> Codes:
    names = [(topic.name, index) for topic in asked.topics for index in topic.partitions]
    if not asked.transactional_id:
        return dict.fromkeys(names, ErrorCode.INVALID_REQUEST)
    found = {name: participant for name in names if (participant := _find(ctx, *name))}
    if len(found) < len(set(names)) and await ctx.catch_up():  # another broker may have made it a moment ago
        found = {name: participant for name in names if (participant := _find(ctx, *name))}
    if missing := set(names) - found.keys():
        unknown, others = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.OPERATION_NOT_ATTEMPTED
        return {name: unknown if name in missing else others for name in names}
    knows_fenced = version >= 2
    if asked.verify_only:
        checks = (ctx.transactions.verify(asked.transactional_id, asked.producer, p) for p in found.values())
        errors = [txn_code(error, knows_fenced) for error, _ in await asyncio.gather(*checks)]
        older = ErrorCode.INVALID_TXN_STATE
        abortable = ErrorCode.TRANSACTION_ABORTABLE
        codes = [older if code is abortable and version < 5 else code for code in errors]
        return dict(zip(found, codes, strict=True))
    version_of_use = V2 if version >= 5 else V1
    error, _ = await ctx.transactions.add(
        asked.transactional_id, asked.producer, tuple(found.values()), (), version_of_use
    )
    return dict.fromkeys(names, txn_code(error, knows_fenced))


def _find(ctx: Context, topic: str, index: int) -> Participant | None:
    found = ctx.topics.get(topic)
    return Participant(found.id, index) if found is not None and 0 <= index < len(found.partitions) else None


def _results(asked: Asked, codes: Codes) -> tuple[AddPartitionsToTxnTopicResult, ...]:
    return tuple(
        AddPartitionsToTxnTopicResult(
            name=topic.name,
            results_by_partition=tuple(
                AddPartitionsToTxnPartitionResult(partition_index=i, partition_error_code=codes[topic.name, i])
                for i in topic.partitions
            ),
        )
        for topic in asked.topics
    )
