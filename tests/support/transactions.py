"""The side of the transaction coordinators, as a log's tests need it: what is told is set here."""

from uuid import UUID

from streamlake.log.transactions_port import Outcome, Told, Verdict, Verified


class KnownTransactions:
    """Implements `TransactionsPort`. Every question is kept; what was not set is OPEN, and ONGOING, of number 1."""

    def __init__(self) -> None:
        self.verified = Verified(Verdict.OPEN, 1)
        self.told: dict[int, Told] = {}  # by producer id
        self.asked: list[tuple[str, int, int, int, bool]] = []
        self.asked_outcomes: list[tuple[int, int, int]] = []

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
        return self.verified

    async def outcome(self, producer_id: int, producer_epoch: int, topic_id: UUID, partition: int) -> Told:
        self.asked_outcomes.append((producer_id, producer_epoch, partition))
        return self.told.get(producer_id, Told(Outcome.ONGOING, 1))
