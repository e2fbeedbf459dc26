"""Bugs of transactions (docs/adr/0028)."""

import asyncio
import dataclasses

from simulation.bugs.planting import Replace, bug

from streamlake.log.guards import Guards
from streamlake.log.open_transactions import OpenTransaction, OpenTransactions
from streamlake.log.transactions import TransactionEnd, Transactions
from streamlake.s3stream.log_cache import StreamLog
from streamlake.s3stream.metadata import Checkpoint

NOT_WHOLE = ("is there in part", "and it is not so", "has seen", "is there more than once")
WENT_BACK = ("the last stable offset went back",)


@bug(*NOT_WHOLE)
def notes_not_committed(replace: Replace) -> None:
    """A checkpoint knows of no aborted transactions: whoever opens the partition from it shows their records."""
    checkpoint = StreamLog.checkpoint

    def without_notes(self: StreamLog) -> Checkpoint | None:
        made = checkpoint(self)
        return None if made is None else dataclasses.replace(made, notes=b"")

    replace(StreamLog, "checkpoint", without_notes)


@bug(*NOT_WHOLE, *WENT_BACK)
def lso_before_durable(replace: Replace) -> None:
    """The last stable offset passes a transaction as soon as its marker is appended, and goes back if that is lost."""
    end = OpenTransactions.end

    def at_once(
        self: OpenTransactions, producer_id: int, end_offset: int, durable: "asyncio.Future[None] | None"
    ) -> OpenTransaction:
        return end(self, producer_id, end_offset, None)

    replace(OpenTransactions, "end", at_once)


@bug(*NOT_WHOLE)
def late_write(replace: Replace) -> None:
    """A marker does not break what was verified before it: a batch that comes late opens the transaction again."""
    ends = Transactions.ends

    def without_breaking(self: Transactions, end: TransactionEnd) -> TransactionEnd | None:
        guards, self.guards = self.guards, Guards()
        try:
            return ends(self, end)
        finally:
            self.guards = guards

    replace(Transactions, "ends", without_breaking)


@bug(*NOT_WHOLE)
def marker_of_older_transaction(replace: Replace) -> None:
    """A marker ends whatever its producer has open, also the transaction after the one that it was made for."""

    def any_of_them(self: Transactions, end: TransactionEnd, found: OpenTransaction) -> TransactionEnd:
        return end

    replace(Transactions, "_told_apart", any_of_them)
