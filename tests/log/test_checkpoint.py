import struct

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.errors import Corrupt
from streamlake.log.checkpoint import LogState, decode, encode
from streamlake.log.open_transactions import OpenTransaction, OpenTransactions
from streamlake.log.producers import ProducedBatch, Producer, Producers

BEFORE_TRANSACTIONS = bytes.fromhex(
    "534c4c43 0001 00000002"
    "0000000000000009 0002 000000000000012c 01"
    "7fffffff 00000003 0000000000000064 00000000000003e8"
    "0000000000000007 0000 0000000000000190 02"
    "00000000 00000001 0000000000000067 00000000000003e9"
    "00000001 00000001 0000000000000068 ffffffffffffffff"
    "e1bca323"
)
GOLDEN = bytes.fromhex(
    "534c4c43 0002 00000003"
    "0000000000000009 0002 000000000000012c 01"
    "7fffffff 00000003 0000000000000064 00000000000003e8"
    "ffffffff"
    "0000000000000007 0000 0000000000000190 02"
    "00000000 00000001 0000000000000067 00000000000003e9"
    "00000001 00000001 0000000000000068 ffffffffffffffff"
    "ffffffff"
    "0000000000000008 0005 00000000000001f4 00"
    "00000102"
    "00000001"
    "0000000000000009 0002 0000000000000064 0000000000000003"
    "6b6297b4"
)


def golden() -> LogState:
    transactions = OpenTransactions()
    producers = Producers(10, transactions)
    producers.apply(9, 2, (ProducedBatch(2**31 - 1, 3, 100, 1000),), 300)
    producers.apply(7, 0, (ProducedBatch(0, 1, 103, 1001), ProducedBatch(1, 1, 104, -1)), 400)
    producers.ended(8, 5, 258, 500)
    transactions.begin(9, OpenTransaction(2, 100, 3))
    return LogState(producers, transactions)


def content(state: LogState) -> tuple[list, list]:
    return list(state.producers.items()), list(state.transactions.items())


def test_golden_bytes():
    assert encode(*golden()).hex() == GOLDEN.hex()
    assert content(decode(GOLDEN, 10)) == content(golden())


def test_a_checkpoint_from_before_transactions_is_read():
    producers, transactions = decode(BEFORE_TRANSACTIONS, 10)
    assert (list(producers.items()), len(transactions)) == (list(golden().producers.items())[:2], 0)


INT64 = st.integers(-(2**63), 2**63 - 1)
BATCHES = st.builds(ProducedBatch, st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1), INT64, INT64)
PRODUCERS = st.builds(
    Producer,
    st.integers(0, 2**15 - 1),
    INT64,
    st.lists(BATCHES, max_size=5).map(tuple),
    st.integers(-(2**31), 2**31 - 1),
)
OPEN = st.builds(OpenTransaction, st.integers(0, 2**15 - 1), INT64, INT64)


@given(st.dictionaries(INT64, PRODUCERS, max_size=20), st.dictionaries(INT64, OPEN, max_size=5))
def test_round_trip(states, opened):
    transactions = OpenTransactions()
    producers = Producers(100, transactions)
    for producer_id, producer in states.items():
        producers.restore(producer_id, producer)
    for producer_id, transaction in opened.items():
        transactions.begin(producer_id, transaction)
    found = decode(encode(producers, transactions), 100)
    assert content(found) == (list(states.items()), list(opened.items()))


def test_empty_blob_is_a_new_stream():
    assert content(decode(b"", 10)) == ([], [])


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
    body = GOLDEN[:4] + b"\0\x03" + GOLDEN[6:-4]
    with pytest.raises(Corrupt, match="version 3"):
        decode(body + struct.pack(">I", crc32c(body)), 10)
