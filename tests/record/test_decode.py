import itertools

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPythonBuilder
from support.records import batches_of_records

from streamlake.record.batch import BatchHeader, InvalidRecord, frames, scan_batches
from streamlake.record.compression import Compression
from streamlake.record.decode import Record, decode_batch, parse_records
from streamlake.record.encode import encode_batch

MIB = 1024 * 1024
SAMPLE = [
    (1000, b"k", b"v", [("h", b"1"), ("h", b"")]),
    (999, None, b"x" * 300, []),
    (2000, b"", None, [("π", b"\xff")]),
]


def decode(data: bytes) -> list[Record]:
    scan_batches(data, 64 * MIB)
    ((header, batch),) = frames(data)
    return decode_batch(header, batch, MIB)


def header_of(count: int, last_delta: int | None = None, **fields: int) -> BatchHeader:
    facts = {
        "base_offset": 100, "length_bytes": 0, "leader_epoch": 0, "magic": 2, "crc": 0, "attributes": 0,
        "last_offset_delta": count - 1 if last_delta is None else last_delta, "base_timestamp": 1000,
        "max_timestamp": 1000, "producer_id": -1, "producer_epoch": -1, "base_sequence": -1, "count": count,
    }  # fmt: skip
    return BatchHeader(**(facts | fields))


@given(batches_of_records(), st.sampled_from(list(Compression)))
def test_round_trip(records, codec):
    assert decode(encode_batch(records, compression=codec)) == records


@pytest.mark.parametrize(
    ("builder", "codec"),
    [
        *[(DefaultRecordBatchBuilder, codec) for codec in Compression],
        (KafkaPythonBuilder, Compression.NONE),  # its other codecs need packages that we do not use
        (KafkaPythonBuilder, Compression.GZIP),
    ],
)
def test_reads_what_other_clients_write(builder, codec):
    b = builder(
        magic=2,
        compression_type=int(codec),
        is_transactional=False,
        producer_id=3,
        producer_epoch=1,
        base_sequence=0,
        batch_size=MIB,
    )
    for i, (timestamp, key, value, headers) in enumerate(SAMPLE * 50):
        b.append(i, timestamp=timestamp, key=key, value=value, headers=headers)
    records = decode(bytes(b.build()))
    assert records == [Record(i, t, k, v, tuple(h)) for i, (t, k, v, h) in enumerate(SAMPLE * 50)]


def test_log_append_time_wins():
    assert [
        r.timestamp for r in decode(encode_batch([Record(0, 1, b"", b""), Record(1, 2, b"", b"")], append_time_ms=9))
    ] == [9, 9]


def test_header_key_that_is_not_utf8_comes_out_as_it_went_in():
    record = bytes.fromhex("12 00 00 00 01 01 02 02 ff 00")
    ((_, _, _, _, headers),) = parse_records(header_of(1), record)
    assert headers == (("\udcff", b""),)
    batch = encode_batch([Record(0, 0, None, None, headers)])
    assert decode(batch) == [Record(0, 0, None, None, headers)]
    assert b"\x02\xff\x00" in batch


# A record without key, value and headers: length 6, attributes, timestamp +0, offset +0, key null, value null, no headers
EMPTY = bytes.fromhex("0c 00 00 00 01 01 00")
LIES = {
    "length is negative": (1, "0b 00 00 00 01 01 00"),
    "length beyond the batch": (1, "0e 00 00 00 01 01 00"),
    "length short of the record": (1, "0a 00 00 00 01 01 00"),
    "length beyond the record": (1, "0e 00 00 00 01 01 00 00"),
    "offset delta negative": (1, "0c 00 00 01 01 01 00"),
    "offset delta beyond the header's": (1, "0c 00 00 02 01 01 00"),
    "offset delta repeated": (2, "0c 00 00 00 01 01 00" * 2),
    "count more than there are": (2, "0c 00 00 00 01 01 00"),
    "count less than there are": (1, "0c 00 00 00 01 01 00 0c 00 00 02 01 01 00"),
    "key longer than the record": (1, "0c 00 00 00 08 01 00"),
    "key length -2": (1, "0c 00 00 00 03 01 00"),
    "value longer than the record": (1, "0c 00 00 00 01 08 00"),
    "value length -2": (1, "0c 00 00 00 01 03 00"),
    "header count negative": (1, "0c 00 00 00 01 01 01"),
    "header count beyond the record": (1, "0c 00 00 00 01 01 02"),
    "header count huge": (1, "14 00 00 00 01 01 fe ff ff ff 0f"),
    "header key null": (1, "10 00 00 00 01 01 02 01 01"),
    "header value too long": (1, "10 00 00 00 01 01 02 00 08"),
    "key reaches into the next record": (2, "0c 00 00 00 0a 01 00 0c 00 00 02 01 01 00"),
    "number without end": (1, "80" * 11),
    "number over 64 bits": (1, "1e 00 ff ff ff ff ff ff ff ff ff 7f 00 01 01 00"),
    "ends within a number": (1, "0c 00 80"),
    "nothing at all": (1, ""),
}


def test_the_honest_one_passes():
    assert parse_records(header_of(1), EMPTY) == [(100, 1000, None, None, ())]


@pytest.mark.parametrize("lie", LIES)
def test_lies(lie):
    count, payload = LIES[lie]
    with pytest.raises(InvalidRecord):
        parse_records(header_of(count), bytes.fromhex(payload))


def test_timestamp_that_leaves_64_bits():
    record = bytes.fromhex("0c 00 02 00 01 01 00")
    assert parse_records(header_of(1, base_timestamp=2**63 - 2), record)[0][1] == 2**63 - 1
    with pytest.raises(InvalidRecord, match="64 bits"):
        parse_records(header_of(1, base_timestamp=2**63 - 1), record)


def test_compacted_batch_keeps_its_offsets():
    records = [Record(10, 1, b"a", b""), Record(15, 1, b"b", b""), Record(19, 1, b"c", b"")]
    assert decode(encode_batch(records)) == records


@given(batches_of_records(), st.data())
def test_changed_payloads_parse_or_raise_invalid_record(records, data):
    payload = bytearray(encode_batch(records)[61:])
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    header = header_of(len(records), last_delta=records[-1].offset - records[0].offset)
    try:
        parsed = parse_records(header, bytes(payload))
    except InvalidRecord:
        return
    assert len(parsed) == len(records)
    offsets = [r[0] for r in parsed]
    assert all(a < b for a, b in itertools.pairwise(offsets))
    assert 100 <= offsets[0] <= offsets[-1] <= 100 + header.last_offset_delta
