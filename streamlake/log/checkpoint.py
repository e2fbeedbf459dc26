"""The state of a log that a replay would rebuild, as bytes that the stream keeps beside its data.

It is taken exactly at the end of an upload and committed with it, so that a partition opens from this blob and the
batches after it, never by a scan of the log. Bytes: docs/formats/log-checkpoint.md.
"""

import struct

from crc32c import crc32c

from streamlake.core.errors import Corrupt
from streamlake.log.producers import ProducedBatch, Producers

MAGIC = b"SLLC"
VERSION = 1
_HEAD = struct.Struct(">4sHI")  # magic, version, producers
_PRODUCER = struct.Struct(">qhqB")  # producer id, epoch, last append (ms), batches
_BATCH = struct.Struct(">iiqq")  # base sequence, count, base offset, max timestamp (ms)
_CRC = struct.Struct(">I")


def encode(producers: Producers) -> bytes:
    parts = [_HEAD.pack(MAGIC, VERSION, len(producers))]
    for producer_id, producer in producers.items():
        parts.append(_PRODUCER.pack(producer_id, producer.epoch, producer.last_append_ms, len(producer.batches)))
        parts += [_BATCH.pack(*batch) for batch in producer.batches]
    body = b"".join(parts)
    return body + _CRC.pack(crc32c(body))


def decode(blob: bytes, producers_max: int) -> Producers:
    """The producers in `blob`; no producers if it is empty, as that of a new stream. Corrupt if it is damaged."""
    producers = Producers(producers_max)
    if not blob:
        return producers
    try:
        (crc,) = _CRC.unpack_from(blob, len(blob) - _CRC.size)
        magic, version, count = _HEAD.unpack_from(blob)
        if magic != MAGIC or crc != crc32c(blob[: -_CRC.size]):
            raise Corrupt("the checkpoint of a log is damaged: its magic or CRC-32C is wrong")
        if version != VERSION:
            raise Corrupt(f"the checkpoint of a log has version {version}, this program reads {VERSION}: upgrade it")
        position = _HEAD.size
        for _ in range(count):
            producer_id, epoch, last_append_ms, batch_count = _PRODUCER.unpack_from(blob, position)
            position += _PRODUCER.size
            end = position + batch_count * _BATCH.size
            batches = tuple(
                ProducedBatch._make(_BATCH.unpack_from(blob, at)) for at in range(position, end, _BATCH.size)
            )
            producers.apply(producer_id, epoch, batches, last_append_ms)
            position = end
    except struct.error:
        raise Corrupt("the checkpoint of a log is cut off") from None
    if position != len(blob) - _CRC.size:
        raise Corrupt("the checkpoint of a log is longer than its content")
    return producers
