"""Control batches: the markers that end a transaction in a partition, by commit or abort (KIP-98).

A marker is a transactional control batch of one record under the producer's id and epoch, without a sequence number.
Its key is (version, type), two int16; its value (version, coordinator epoch), int16 and int32. Bytes as Kafka's
EndTransactionMarker writes them: docs/formats/record-batch.md.
"""

import struct
from typing import NamedTuple

from streamlake.record.batch import BatchHeader, Buffer, InvalidRecord
from streamlake.record.decode import Record, decode_batch
from streamlake.record.encode import encode_batch

MARKER_BYTES = 78  # of any marker
_VERSION = 0
_ABORT, _COMMIT = 0, 1
_KEY = struct.Struct(">hh")  # version, type
_VALUE = struct.Struct(">hi")  # version, coordinator epoch


class Marker(NamedTuple):
    commit: bool  # else abort
    coordinator_epoch: int  # -1: not told


def encode_marker(
    marker: Marker, producer_id: int, producer_epoch: int, offset: int, leader_epoch: int, timestamp_ms: int
) -> bytes:
    """The batch, at its place in a log."""
    key = _KEY.pack(_VERSION, _COMMIT if marker.commit else _ABORT)
    record = Record(offset, timestamp_ms, key, _VALUE.pack(_VERSION, marker.coordinator_epoch))
    return encode_batch(
        [record],
        leader_epoch=leader_epoch,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        transactional=True,
        control=True,
    )


def decode_marker(header: BatchHeader, batch: Buffer, max_decompressed_bytes: int) -> Marker | None:
    """The marker in a control batch whose CRC was checked. None if it is no marker but a control record of another
    kind, or if compaction took the marker and with it the whole transaction. InvalidRecord."""
    for _, _, key, value, _ in decode_batch(header, batch, max_decompressed_bytes):
        if key is None or len(key) < _KEY.size:
            raise InvalidRecord("the key of a control record is shorter than four bytes")
        _, kind = _KEY.unpack_from(key)
        if kind not in (_ABORT, _COMMIT):
            return None
        told = value is not None and len(value) >= _VALUE.size
        return Marker(kind == _COMMIT, _VALUE.unpack_from(value)[1] if told and value is not None else -1)
    return None
