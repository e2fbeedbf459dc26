"""What a log asks about transactions of producers, as a port: the side of the transaction coordinators implements it.

A partition takes a transactional batch only while its transaction is open and includes the partition, durably, so that
the transaction's end reaches it (KIP-890). It asks once per transaction and partition. Whoever opens a partition asks
about each transaction that is open there: one that nobody will ever end is aborted.

All calls wait, and may be repeated. A fake for tests: tests/support/transactions.py.
"""

from enum import Enum
from typing import NamedTuple, Protocol
from uuid import UUID


class Verdict(Enum):
    """Whether a batch belongs to a transaction that is open and includes its partition."""

    OPEN = "open"  # yes, and that was durable before the answer
    NOT_OPEN = "not open"  # the producer has no transaction, or the transaction does not include the partition
    ENDING = "ending"  # the producer's transaction before this one still waits for its markers: try again soon
    FENCED = "fenced"  # a newer epoch of the producer id is known
    UNKNOWN_PRODUCER = "unknown producer"  # the transactional id is not known, or has another producer id
    UNAVAILABLE = "unavailable"  # the coordinator cannot be asked now: nothing is known, try again


class Verified(NamedTuple):
    verdict: Verdict
    number: int = -1  # of the transaction within its transactional id, if it is OPEN


class Outcome(Enum):
    """What has become of a transaction that is open in a partition."""

    ONGOING = "ongoing"  # it includes the partition, and will be ended: the partition waits for a marker
    PREPARED = "prepared"  # its end is decided, and the partition's marker is on its way
    ENDED = "ended"  # nobody will end it here, and it cannot have been committed: the leader aborts it
    UNAVAILABLE = "unavailable"  # the coordinator cannot be asked now: ask again


class Told(NamedTuple):
    outcome: Outcome
    number: int = -1  # as in Verified, if it is ONGOING or PREPARED


class TransactionsPort(Protocol):
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
        """Whether the producer's transaction is open and includes the partition. `may_add`: the client relies on the
        partition's leader to add it (Produce from version 12): then it is added to the open transaction, or begins one.

        A batch is appended after OPEN only if no marker and no newer epoch of the producer came to the partition since
        the question. Raises nothing: what cannot be asked is UNAVAILABLE."""
        ...

    async def outcome(self, producer_id: int, producer_epoch: int, topic_id: UUID, partition: int) -> Told:
        """What became of a transaction of this epoch that is open in the partition, for whoever opens the partition.

        ENDED only by what is durable: the transactional id of `producer_id` is unknown, or its transaction is neither
        Ongoing nor Prepared, or is one that does not include the partition. Raises nothing, as `verify`."""
        ...
