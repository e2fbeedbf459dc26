"""JoinTransactions (20003), version 0: the leader of a partition, or the coordinator of a group, asks the coordinator
of a transactional id whether the producer's transaction is open and includes it, or has it join.

Kafka's AddPartitionsToTxn 4 and 5 with what they lack: the number of the transaction within its transactional id.
"""

from typing import Annotated
from uuid import UUID

from msgspec import Struct


class Join(Struct, frozen=True):
    """Of a partition, or of a group if it has a name."""

    transactional_id: Annotated[str, "string 0+"] = ""
    producer_id: Annotated[int, "int64 0+"] = -1
    producer_epoch: Annotated[int, "int16 0+"] = -1
    may_add: Annotated[bool, "bool 0+"] = False
    topic_id: Annotated[UUID | None, "uuid 0+"] = None
    partition: Annotated[int, "int32 0+"] = -1
    group_id: Annotated[str | None, "string 0+ null=0+"] = None


class JoinTransactionsRequest(Struct, frozen=True):
    joins: Annotated[tuple[Join, ...], "[]struct 0+"] = ()


class JoinResult(Struct, frozen=True):
    error_code: Annotated[int, "int16 0+"] = 0
    number: Annotated[int, "int64 0+"] = -1  # of the transaction


class JoinTransactionsResponse(Struct, frozen=True):
    """In the order of the request's joins; none, and an error, if the asking broker is not taken for one."""

    error_code: Annotated[int, "int16 0+"] = 0
    results: Annotated[tuple[JoinResult, ...], "[]struct 0+"] = ()


KEY = 20_003
VERSIONS = range(1)
FLEXIBLE_FROM = 0
REQUEST = JoinTransactionsRequest
RESPONSE = JoinTransactionsResponse
