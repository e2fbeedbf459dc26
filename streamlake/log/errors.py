"""Errors of the log: one kind for each reaction of a client. Errors of a batch itself are those of `record`."""

from streamlake.core.errors import Invalid
from streamlake.record.batch import CorruptBatch, InvalidRecord, RecordTooLarge, UnsupportedFormat

__all__ = [
    "CoordinatorFenced",
    "CorruptBatch",
    "InvalidProducerEpoch",
    "InvalidRecord",
    "InvalidTimestamp",
    "InvalidTransactionState",
    "NotVerified",
    "OffsetOutOfRange",
    "OutOfOrderSequence",
    "RecordTooLarge",
    "UnsupportedFormat",
]


class AppendOneByOne(Invalid):
    """Several batches cannot be appended together. No client sees this error: each batch is appended by itself, and
    gets its own answer."""


class OffsetOutOfRange(Invalid):
    """The offset is below the log start or above the high watermark: the client resets its position."""

    def __init__(self, offset: int, log_start_offset: int, high_watermark: int) -> None:
        super().__init__(f"offset {offset} is not within the log: it spans {log_start_offset} to {high_watermark}")
        self.offset = offset
        self.log_start_offset = log_start_offset
        self.high_watermark = high_watermark


class OutOfOrderSequence(Invalid):
    """The sequence number does not follow the last one of the producer: batches in between are missing."""


class InvalidProducerEpoch(Invalid):
    """A newer producer with the same id has taken over: this one must stop."""


class InvalidTimestamp(Invalid):
    """A record's timestamp is too far from now for this topic, or of a kind that only the broker sets."""


class InvalidTransactionState(Invalid):
    """A batch that does not belong to the open transaction of its producer, or to none although one is open."""


class NotVerified(Invalid):
    """A transactional batch whose transaction is not known to be open in the partition, as it may have ended since its
    coordinator was asked: the producer sends the batch again, and the coordinator is asked again."""


class CoordinatorFenced(Invalid):
    """A marker from a coordinator that another one has replaced since."""
