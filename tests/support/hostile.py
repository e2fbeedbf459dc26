"""Bytes that were changed on purpose, for tests that two readers agree on them. All chance comes from the `rng`."""

import random

import msgspec

from streamlake.record.batch import HEADER_BYTES, BatchHeader, frames
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch

EDGES = [0, 1, 2, 3, 0x7E, 0x7F, 0x80, 0x81, 0xFE, 0xFF]


def mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(3)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                del changed[at:]
            case 1:
                changed[at:at] = bytes(rng.choice(EDGES) for _ in range(rng.randrange(1, 11)))
            case 2:
                del changed[at : at + 1]
            case _ if at < len(changed):
                changed[at] = rng.choice((rng.choice(EDGES), rng.randrange(256)))
    return bytes(changed)


def some_batch(rng: random.Random) -> tuple[BatchHeader, bytes, int]:
    """(header, payload, first offset wanted); about half are what they claim."""
    offset, records = rng.choice((0, 7, 2**40)), []
    for _ in range(rng.randrange(1, 5)):
        key, value = (rng.choice((None, b"", b"k" * rng.randrange(100))) for _ in range(2))
        headers = tuple((rng.choice("aé\U00010330") * rng.randrange(3), key) for _ in range(rng.randrange(3)))
        records.append(Record(offset, rng.choice((-1, 0, 1_700_000_000_000, 2**62)), key, value, headers))
        offset += rng.choice((1, 1, 1, 3))
    header, payload = split(encode_batch(records, append_time_ms=rng.choice((None, None, 77))))
    if rng.random() < 0.2:
        count = header.count + rng.choice((-header.count, -header.count - 1, -1, 1, 2**30))
        header = msgspec.structs.replace(header, count=count)
    if rng.random() < 0.2:
        delta = rng.choice((0, 1, 2**31 - 1))
        header = msgspec.structs.replace(header, last_offset_delta=delta)
    if rng.random() < 0.1:
        header = msgspec.structs.replace(header, base_timestamp=rng.choice((2**63 - 1, -(2**63))))
    return header, mutated(rng, payload), header.base_offset + rng.choice((0, 0, 1, 2**20))


def split(batch: bytes) -> tuple[BatchHeader, bytes]:
    """A batch's header and its payload."""
    ((header, whole),) = frames(batch)
    return header, bytes(whole[HEADER_BYTES:])
