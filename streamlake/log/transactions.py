"""The transactions of one partition: which batches they take, how they end, who reads them.

A transaction begins here with its first batch, which is taken only if the transaction is known to include the partition
(guards.py, transactions_port.py), and ends with a marker. Rules as in Kafka's ProducerAppendInfo, with the number of
each transaction beside its epochs, so that a marker that comes late ends no later transaction.
"""

import asyncio
from typing import NamedTuple

from streamlake.core.errors import Full, Unavailable
from streamlake.log.aborted import Aborted, AbortedTransaction
from streamlake.log.errors import InvalidProducerEpoch, InvalidTransactionState, NotVerified, OutOfOrderSequence
from streamlake.log.guards import Guards
from streamlake.log.open_transactions import UNKNOWN_NUMBER, OpenTransaction, OpenTransactions
from streamlake.record.run import Run

EPOCH_GROWS_FROM = 2  # the version of transactions: the marker has a later epoch than the records (KIP-890)


class TransactionEnd(NamedTuple):
    """How a transaction ends in a partition, as its coordinator has decided."""

    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    commit: bool
    number: int = UNKNOWN_NUMBER  # of the transaction; unknown to administrators, who end what is open
    version: int = 0  # of transactions
    first_offset: int | None = None  # only the transaction that begins there; None: the one that is open


class Transactions:
    def __init__(self, opened: OpenTransactions, notes: bytes, open_max: int) -> None:
        """As of the checkpoint: what is open, and the notes about what was aborted. Corrupt."""
        self.open = opened
        self.aborted = Aborted(notes)
        self.guards = Guards()
        self._open_max = open_max

    def must_ask(self, producer_id: int, epoch: int) -> bool:
        """Whether the coordinator must be asked before a batch of this producer is taken."""
        found = self.open.get(producer_id)
        is_open = found is not None and found.epoch == epoch
        return not is_open and self.guards.confirmed(producer_id, epoch) is None

    def check(self, run: Run, *, is_known: bool) -> None:
        """Before a run is appended that is transactional, or whose producer has a transaction open. `is_known`: earlier
        batches of the producer are known. Raises InvalidTransactionState, NotVerified, OutOfOrderSequence, Full."""
        found = self.open.get(run.producer_id)
        if not run.is_transactional:
            if found is not None:
                raise InvalidTransactionState(
                    f"producer {run.producer_id} has a transaction open, and sent a batch that belongs to none"
                )
            return
        if found is not None and found.epoch == run.producer_epoch:
            return
        guard = self.guards.confirmed(run.producer_id, run.producer_epoch)
        if guard is None or found is not None:
            raise NotVerified(
                f"the transaction of producer {run.producer_id} (epoch {run.producer_epoch}) is not known to be open"
                " in this partition: send the batch again"
            )
        if not is_known and run.base_sequence > guard.lowest_sequence:
            raise OutOfOrderSequence(
                f"producer {run.producer_id} sent sequence {run.base_sequence} before sequence {guard.lowest_sequence}"
            )
        if len(self.open) >= self._open_max:
            raise Full(f"{len(self.open)} transactions are open in this partition: wait until some have ended")

    def appended(self, producer_id: int, epoch: int, base_offset: int) -> None:
        """A transactional batch is in the log at `base_offset`; it begins its transaction if none is open."""
        if producer_id not in self.open:
            guard = self.guards.confirmed(producer_id, epoch)  # none in a replay
            number = guard.number if guard is not None and guard.number is not None else UNKNOWN_NUMBER
            self.open.begin(producer_id, OpenTransaction(epoch, base_offset, number))
            # What comes after the end of this transaction is asked about anew.
            self.guards.drop(producer_id)

    def ends(self, end: TransactionEnd) -> TransactionEnd | None:
        """The marker that `end` writes; None if there is nothing to end. Breaks the producer's guard in any case.

        Raises Unavailable (send it again), InvalidProducerEpoch."""
        self.guards.drop(end.producer_id)
        found = self.open.get(end.producer_id)
        if found is None or end.first_offset not in (None, found.first_offset):
            return None
        if end.number != UNKNOWN_NUMBER:
            return self._told_apart(end, found)
        too_low = end.producer_epoch < found.epoch
        if too_low or (end.version >= EPOCH_GROWS_FROM and end.producer_epoch == found.epoch):
            raise InvalidProducerEpoch(
                f"producer {end.producer_id} has a transaction of epoch {found.epoch} open, the marker has epoch"
                f" {end.producer_epoch}"
            )
        return end

    def _told_apart(self, end: TransactionEnd, found: OpenTransaction) -> TransactionEnd | None:
        """By the number, which alone decides: what a coordinator has decided stays true, whoever sends it."""
        if found.number == UNKNOWN_NUMBER:
            raise Unavailable("the partition was opened just now, and asks for its open transactions: try again")
        if end.number < found.number:
            return None  # it comes late: that transaction has ended before this one could begin
        if end.number > found.number:
            # All participants of a transaction have its marker before the next one begins. This one was none, so its
            # batches came late, and nobody has committed them.
            return end._replace(commit=False)
        return end

    def ended(
        self, end: TransactionEnd, offset: int, durable: "asyncio.Future[None] | None"
    ) -> AbortedTransaction | None:
        """The marker is in the log at `offset`, durable once `durable` is. What it has aborted, if it has."""
        if end.producer_id not in self.open:
            return None
        transaction = self.open.end(end.producer_id, offset + 1, durable)
        if end.commit:
            return None
        stable_offset = self.open.stable_after(offset + 1)
        aborted = AbortedTransaction(end.producer_id, transaction.first_offset, offset, stable_offset)
        self.aborted.add(aborted)
        return aborted
