"""Asks whether the transactions of a produce request are open in its partitions (log/transactions_port.py).

Only before the first batch of a transaction in a partition. The whole connection waits meanwhile, as for capacity; all
questions of a request are asked together. From Produce 12 on the client leaves it to the leader to add the partition to
the transaction (KIP-890).
"""

import asyncio
from collections.abc import Iterator

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Context, find_topic
from streamlake.handlers.error_codes import Failure
from streamlake.log.partition import Partition
from streamlake.log.transactions_port import Verdict
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.produce import ProduceRequest
from streamlake.record.batch import ATTRIBUTES_LOW_AT, HEADER, HEADER_BYTES, TRANSACTIONAL_BIT, BatchHeader
from streamlake.record.run import Run

At = tuple[int, int]  # topic and partition of the request: numbers of the order they stand in

ABORTABLE_FROM = 11  # the version whose clients know TRANSACTION_ABORTABLE
LEADER_ADDS_FROM = 12


def must_ask(ctx: Context, request: ProduceRequest) -> bool:
    """Whether a coordinator must be asked before the batches of this request are taken."""
    for _, partition, records in _transactional(ctx, request):
        header = BatchHeader(*HEADER.unpack_from(records))
        if partition.transactions.must_ask(header.producer_id, header.producer_epoch):
            return True
    return False


async def verify(
    ctx: Context, request: ProduceRequest, version: int, verdicts: dict[At, Run | StreamLakeError | Failure]
) -> None:
    """Ask, and add to `verdicts`, which has the compressed batches: the other transactional ones, too, and a Failure
    for each whose transaction is not open."""
    questions = []
    for at, partition, records in _transactional(ctx, request):
        if at not in verdicts:  # nobody is asked about damaged data
            try:
                verdicts[at] = partition.check(records)
            except StreamLakeError as error:
                verdicts[at] = error
        run = verdicts[at]
        if isinstance(run, StreamLakeError | Failure):
            continue
        if partition.transactions.must_ask(run.producer_id, run.producer_epoch):
            questions.append((at, _ask(ctx, request.transactional_id or "", partition, run, version)))
    answers = await asyncio.gather(*(question for _, question in questions))
    verdicts.update((at, failed) for (at, _), failed in zip(questions, answers, strict=True) if failed is not None)


async def _ask(ctx: Context, transactional_id: str, partition: Partition, run: Run, version: int) -> Failure | None:
    producer = run.producer_id, run.producer_epoch
    # Taken before the question: a marker that comes while we wait breaks it, and what we are told is then no longer so.
    guard = partition.transactions.guards.take(*producer, run.base_sequence)
    place = partition.topic_id, partition.index
    found = await ctx.transactions_port.verify(transactional_id, *producer, *place, may_add=version >= LEADER_ADDS_FROM)
    if found.verdict == Verdict.OPEN:
        partition.transactions.guards.confirm(guard, found.number)
        return None
    return Failure(_code(found.verdict, version), _WHY[found.verdict])


_WHY = {
    Verdict.NOT_OPEN: "the producer has no transaction open that includes this partition",
    Verdict.ENDING: "the producer's last transaction is still being ended: try again",
    Verdict.FENCED: "a newer producer with the same transactional id has taken over",
    Verdict.UNKNOWN_PRODUCER: "the transactional id does not have this producer id",
    Verdict.UNAVAILABLE: "the transaction coordinator could not be asked: try again",
}


def _code(verdict: Verdict, version: int) -> ErrorCode:
    """As Kafka: older clients get errors that they know, and try again after."""
    if verdict == Verdict.NOT_OPEN:
        return ErrorCode.TRANSACTION_ABORTABLE if version >= ABORTABLE_FROM else ErrorCode.INVALID_TXN_STATE
    if verdict == Verdict.FENCED:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    if verdict == Verdict.UNKNOWN_PRODUCER:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    if verdict == Verdict.ENDING and version >= LEADER_ADDS_FROM:
        return ErrorCode.CONCURRENT_TRANSACTIONS
    return ErrorCode.NOT_ENOUGH_REPLICAS


def _transactional(ctx: Context, request: ProduceRequest) -> Iterator[tuple[At, Partition, memoryview]]:
    """The transactional batches for partitions that are here; a batch is as long as a header at least."""
    for t, topic_data in enumerate(request.topic_data):
        topic = find_topic(ctx, topic_data.name, topic_data.topic_id)
        if isinstance(topic, ErrorCode):
            continue
        for p, data in enumerate(topic_data.partition_data):
            records = data.records
            if records is None or len(records) < HEADER_BYTES or not records[ATTRIBUTES_LOW_AT] & TRANSACTIONAL_BIT:
                continue
            partition = ctx.logs.get(topic.id, data.index)
            if partition is not None:
                yield (t, p), partition, memoryview(records)
