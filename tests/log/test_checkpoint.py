import struct

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.errors import Corrupt
from streamlake.log.checkpoint import decode, encode
from streamlake.log.producers import ProducedBatch, Producer, Producers

GOLDEN = bytes.fromhex(
    "534c4c43 0001 00000002"
    "0000000000000009 0002 000000000000012c 01"
    "7fffffff 00000003 0000000000000064 00000000000003e8"
    "0000000000000007 0000 0000000000000190 02"
    "00000000 00000001 0000000000000067 00000000000003e9"
    "00000001 00000001 0000000000000068 ffffffffffffffff"
    "e1bca323"
)


def golden() -> Producers:
    producers = Producers(10)
    producers.apply(9, 2, (ProducedBatch(2**31 - 1, 3, 100, 1000),), 300)
    producers.apply(7, 0, (ProducedBatch(0, 1, 103, 1001), ProducedBatch(1, 1, 104, -1)), 400)
    return producers


def test_golden_bytes():
    assert encode(golden()).hex() == GOLDEN.hex()
    assert list(decode(GOLDEN, 10).items()) == list(golden().items())


INT64 = st.integers(-(2**63), 2**63 - 1)
BATCHES = st.builds(ProducedBatch, st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1), INT64, INT64)
PRODUCERS = st.builds(Producer, st.integers(0, 2**15 - 1), INT64, st.lists(BATCHES, min_size=1, max_size=5).map(tuple))


@given(st.dictionaries(INT64, PRODUCERS, max_size=20))
def test_round_trip(states):
    producers = Producers(100)
    for producer_id, producer in states.items():
        producers.apply(producer_id, producer.epoch, producer.batches, producer.last_append_ms)
    assert list(decode(encode(producers), 100).items()) == list(states.items())


def test_empty_blob_is_a_new_stream():
    assert len(decode(b"", 10)) == 0


@given(st.binary(min_size=1, max_size=200) | st.integers(0, len(GOLDEN) - 1).map(lambda n: GOLDEN[:n] or b"x"))
def test_foreign_or_torn_bytes_are_corrupt(blob):
    with pytest.raises(Corrupt):
        decode(blob, 10)


@given(st.integers(0, len(GOLDEN) - 5), st.integers(1, 255))
def test_a_signed_lie_is_corrupt_or_another_state(at, change):
    body = bytearray(GOLDEN[:-4])
    body[at] ^= change
    try:
        decode(bytes(body) + struct.pack(">I", crc32c(body)), 10)
    except Corrupt:
        pass


def test_other_version_says_upgrade():
    body = GOLDEN[:4] + b"\0\x02" + GOLDEN[6:-4]
    with pytest.raises(Corrupt, match="version 2"):
        decode(body + struct.pack(">I", crc32c(body)), 10)
