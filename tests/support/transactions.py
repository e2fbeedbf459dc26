"""Transactions as a log sees them: coordinators whose answers a test sets, and markers."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from streamlake.log.partition import Ended, Partition
from streamlake.log.transactions import TransactionEnd
from streamlake.log.transactions_port import Outcome, Told, Verdict, Verified

EPOCH = 0


class KnownTransactions:
    """Implements `TransactionsPort`. Every question is kept; what was not set is OPEN, and ONGOING, of number 1."""

    def __init__(self) -> None:
        self.verified = Verified(Verdict.OPEN, 1)
        self.told: dict[int, Told] = {}  # by producer id
        self.asked: list[tuple[str, int, int, int, bool]] = []
        self.asked_outcomes: list[tuple[int, int, int]] = []
        self.before_answer: Callable[[], None] = lambda: None

    async def verify(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        topic_id: UUID,
        partition: int,
        *,
        may_add: bool,
    ) -> Verified:
        self.asked.append((transactional_id, producer_id, producer_epoch, partition, may_add))
        await asyncio.sleep(0)
        self.before_answer()
        return self.verified

    async def outcome(self, producer_id: int, producer_epoch: int, topic_id: UUID, partition: int) -> Told:
        self.asked_outcomes.append((producer_id, producer_epoch, partition))
        await asyncio.sleep(0)
        self.before_answer()
        return self.told.get(producer_id, Told(Outcome.ONGOING, 1))


def begin(partition: Partition, producer: int = 1, epoch: int = EPOCH, number: int = 1) -> None:
    """The partition knows that it is part of an open transaction."""
    guard = partition.transactions.guards.take(producer, epoch, 0)
    partition.transactions.guards.confirm(guard, number)


def end(partition: Partition, producer: int = 1, *, commit: bool, epoch: int = EPOCH, **rest: Any) -> Ended:
    return partition.end_transaction(TransactionEnd(producer, epoch, rest.pop("coordinator_epoch", 0), commit, **rest))
