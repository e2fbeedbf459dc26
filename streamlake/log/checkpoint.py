"""The state of a log that a replay would rebuild, as bytes that the stream keeps beside its data.

It is taken exactly at the end of an upload and committed with it, so that a partition opens from this blob and the
batches after it, never by a scan of the log. Bytes: docs/formats/log-checkpoint.md.
"""

import struct
from typing import NamedTuple

from crc32c import crc32c

from streamlake.core.errors import Corrupt
from streamlake.log.open_transactions import OpenTransaction, OpenTransactions
from streamlake.log.producers import ProducedBatch, Producer, Producers

MAGIC = b"SLLC"
VERSION = 2
BEFORE_TRANSACTIONS = 1  # a version that is read, too
_HEAD = struct.Struct(">4sHI")  # magic, version, producers
_PRODUCER = struct.Struct(">qhqB")  # producer id, epoch, last append (ms), batches
_BATCH = struct.Struct(">iiqq")  # base sequence, count, base offset, max timestamp (ms)
_COORDINATOR = struct.Struct(">i")  # epoch of the coordinator of a producer's last marker
_OPEN_COUNT = struct.Struct(">I")
_OPEN = struct.Struct(">qhqq")  # producer id, epoch, first offset, number
_CRC = struct.Struct(">I")


class LogState(NamedTuple):
    producers: Producers  # never forgets who has a transaction open
    transactions: OpenTransactions


def encode(producers: Producers, transactions: OpenTransactions) -> bytes:
    parts = [_HEAD.pack(MAGIC, VERSION, len(producers))]
    for producer_id, producer in producers.items():
        parts.append(_PRODUCER.pack(producer_id, producer.epoch, producer.last_append_ms, len(producer.batches)))
        parts += [_BATCH.pack(*batch) for batch in producer.batches]
        parts.append(_COORDINATOR.pack(producer.coordinator_epoch))
    parts.append(_OPEN_COUNT.pack(len(transactions)))
    parts += [_OPEN.pack(producer_id, *transaction) for producer_id, transaction in transactions.items()]
    body = b"".join(parts)
    return body + _CRC.pack(crc32c(body))


def decode(blob: bytes, producers_max: int) -> LogState:
    """The state in `blob`; none if it is empty, as that of a new stream. Corrupt if it is damaged."""
    transactions = OpenTransactions()
    producers = Producers(producers_max, transactions)
    if not blob:
        return LogState(producers, transactions)
    try:
        (crc,) = _CRC.unpack_from(blob, len(blob) - _CRC.size)
        magic, version, count = _HEAD.unpack_from(blob)
        if magic != MAGIC or crc != crc32c(blob[: -_CRC.size]):
            raise Corrupt("the checkpoint of a log is damaged: its magic or CRC-32C is wrong")
        if version not in (BEFORE_TRANSACTIONS, VERSION):
            raise Corrupt(f"the checkpoint of a log has version {version}, this program reads {VERSION}: upgrade it")
        position, found = _producers(blob, _HEAD.size, count, version)
        if version != BEFORE_TRANSACTIONS:
            position = _add_open(blob, position, transactions)
    except struct.error:
        raise Corrupt("the checkpoint of a log is cut off") from None
    if position != len(blob) - _CRC.size:
        raise Corrupt("the checkpoint of a log is longer than its content")
    for producer_id, producer in found:
        producers.restore(producer_id, producer)
    return LogState(producers, transactions)


def _producers(blob: bytes, position: int, count: int, version: int) -> tuple[int, list[tuple[int, Producer]]]:
    """Where they end, and the producers, the longest silent first."""
    found = []
    for _ in range(count):
        producer_id, epoch, last_append_ms, batch_count = _PRODUCER.unpack_from(blob, position)
        position += _PRODUCER.size
        end = position + batch_count * _BATCH.size
        batches = tuple(ProducedBatch._make(_BATCH.unpack_from(blob, at)) for at in range(position, end, _BATCH.size))
        position, coordinator_epoch = end, -1
        if version != BEFORE_TRANSACTIONS:
            (coordinator_epoch,) = _COORDINATOR.unpack_from(blob, position)
            position += _COORDINATOR.size
        found.append((producer_id, Producer(epoch, last_append_ms, batches, coordinator_epoch)))
    return position, found


def _add_open(blob: bytes, position: int, transactions: OpenTransactions) -> int:
    """Where the open transactions end."""
    (count,) = _OPEN_COUNT.unpack_from(blob, position)
    position += _OPEN_COUNT.size
    for _ in range(count):
        producer_id, *transaction = _OPEN.unpack_from(blob, position)
        position += _OPEN.size
        transactions.begin(producer_id, OpenTransaction._make(transaction))
    return position
