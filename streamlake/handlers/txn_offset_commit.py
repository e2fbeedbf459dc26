"""TxnOffsetCommit (28): offsets of a group that are committed with a transaction, or not at all.

Behavior: the group's coordinator stores them beside the committed ones, if the transaction is open and includes the
group; who wants stable offsets is told UNSTABLE_OFFSET_COMMIT until it is decided. A partition that does not exist
fails alone.
Version notes: member and generation come from version 3 (KIP-447); without them nobody checks that the consumer is
still a member. From version 5 (KIP-890) this has the group join the transaction, and it begins one if none is open.
"""

from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.offsets import CommitRequest
from streamlake.coordinator.transaction import Producer, TxnError
from streamlake.coordinator.txn_offsets import InTransaction
from streamlake.handlers.committed_offsets import commit_known, rows_of
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code, txn_code
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages.txn_offset_commit import (
    TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)


async def handle(ctx: Context, exchange: Exchange) -> TxnOffsetCommitResponse:
    request: TxnOffsetCommitRequest = exchange.body
    rows = rows_of(request.topics)
    if request.transactional_id:
        member = request.member_id, request.group_instance_id, request.generation_id
        commit = CommitRequest(request.group_id, *member, rows)
        producer = Producer(request.producer_id, request.producer_epoch)
        within = InTransaction(request.transactional_id, producer, may_add=exchange.version >= 5)
        errors = await commit_known(ctx, commit, lambda some: ctx.txn_offsets.commit(some, within))
        codes = [_code(exchange.version, error) for error in errors]
    else:
        codes = [ErrorCode.INVALID_REQUEST] * len(rows)
    results = iter(codes)
    return TxnOffsetCommitResponse(
        topics=tuple(
            TxnOffsetCommitResponseTopic(
                name=topic.name,
                partitions=tuple(
                    TxnOffsetCommitResponsePartition(partition_index=p.partition_index, error_code=next(results))
                    for p in topic.partitions
                ),
            )
            for topic in request.topics
        )
    )


def _code(version: int, error: GroupError | TxnError) -> ErrorCode:
    if error in (GroupError.GROUP_ID_NOT_FOUND, GroupError.STALE_MEMBER_EPOCH):
        return ErrorCode.ILLEGAL_GENERATION
    if isinstance(error, GroupError):
        return group_code(error)
    if error is TxnError.CONCURRENT_TRANSACTIONS and version < 5:
        return ErrorCode.COORDINATOR_LOAD_IN_PROGRESS  # for which all clients ask again
    if error is TxnError.NOT_COORDINATOR:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE  # that of the transaction: this one is the group's
    return txn_code(error, knows_fenced=False)
