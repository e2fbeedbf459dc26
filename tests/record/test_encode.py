import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st
from support.records import batches_of_records

from streamlake.core.errors import Invalid
from streamlake.record.batch import frames
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch

GOLDEN = bytes.fromhex(
    "0000000000000005 00000045 00000003 02 4a8dbccb 0000 00000001 0000018bcfe56800 0000018bcfe56805"
    "0000000000000007 0001 00000064 00000002"
    "10 00 00 00 02 6b 02 76 00"
    "14 00 0a 02 01 02 77 02 02 68 01".replace(" ", "")
)


def test_golden_bytes():
    records = [Record(5, 1700000000000, b"k", b"v"), Record(6, 1700000000005, None, b"w", (("h", None),))]
    assert (
        encode_batch(records, leader_epoch=3, producer_id=7, producer_epoch=1, base_sequence=100).hex() == GOLDEN.hex()
    )


@given(batches_of_records(gaps=False))
def test_equal_to_a_client_s_encoder(records):
    theirs = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=True,
        producer_id=9,
        producer_epoch=2,
        base_sequence=3,
        batch_size=1 << 24,
    )
    base = 1700000000000  # their encoder keeps deltas within 64 bits only
    records = [r._replace(timestamp=base + r.timestamp % 10**9) for r in records]
    for r in records:
        theirs.append(r.offset, timestamp=r.timestamp, key=r.key, value=r.value, headers=list(r.headers))
    ours = encode_batch(records, leader_epoch=0, producer_id=9, producer_epoch=2, base_sequence=3, transactional=True)
    built = bytes(theirs.build())
    assert ours[:12] + ours[16:] == built[:12] + built[16:]  # they write another leader epoch


@pytest.mark.parametrize("codec", list(Compression))
def test_a_client_reads_it(codec):
    records = [Record(i, 1000 + i, b"k%d" % i, b"v" * i, (("h", b"1"),)) for i in range(100)]
    batch = DefaultRecordBatch(bytearray(encode_batch(records, compression=codec)))
    assert batch.validate_crc()
    assert [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in batch] == [tuple(r) for r in records]


@given(st.booleans(), st.booleans(), st.none() | st.integers(0, 2**40))
def test_attributes(transactional, control, append_time_ms):
    data = encode_batch(
        [Record(0, 5, b"", b"")], transactional=transactional, control=control, append_time_ms=append_time_ms
    )
    ((header, _),) = frames(data)
    assert (header.is_transactional, header.is_control) == (transactional, control)
    assert header.is_log_append_time == (append_time_ms is not None)
    assert header.max_timestamp == (5 if append_time_ms is None else append_time_ms)


def test_no_records():
    with pytest.raises(Invalid, match="at least one"):
        encode_batch([])
