import struct
import subprocess
import sys

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from support.records import HEADERS, SOME_BYTES

from streamlake.record.arrow import RECORDS_SCHEMA, decode_fetched
from streamlake.record.batch import CorruptBatch
from streamlake.record.compression import Compression
from streamlake.record.decode import Record
from streamlake.record.encode import encode_batch

MIB = 1024 * 1024
NOTHING = {"control": 0, "aborted": 0, "compacted": 0}


def rows(base: int, count: int) -> list[Record]:
    return [Record(base + i, 1000 + i, b"k", b"v%d" % (base + i)) for i in range(count)]


def marker(offset: int, producer_id: int, *, commit: bool) -> bytes:
    key = b"\0\0" + (b"\0\x01" if commit else b"\0\0")
    return encode_batch(
        [Record(offset, 1, key, b"\0" * 6)], producer_id=producer_id, producer_epoch=0, transactional=True, control=True
    )


def txn(base: int, count: int, producer_id: int) -> bytes:
    return encode_batch(
        rows(base, count), producer_id=producer_id, producer_epoch=0, base_sequence=0, transactional=True
    )


def offsets(decoded):
    return decoded.table.column("offset").to_pylist()


def test_columns():
    data = encode_batch(
        [Record(7, 5, None, b"v", (("a", b"1"), ("a", None))), Record(8, 6, b"", None)], compression=Compression.LZ4
    )
    data += encode_batch([Record(9, 6, b"k", b"")], append_time_ms=77)
    decoded = decode_fetched(data, 7, (), MIB)
    assert decoded.table.schema == RECORDS_SCHEMA
    assert decoded.table.to_pylist() == [
        {
            "offset": 7,
            "timestamp": 5,
            "timestamp_type": 0,
            "key": None,
            "value": b"v",
            "headers": [{"key": b"a", "value": b"1"}, {"key": b"a", "value": None}],
        },
        {"offset": 8, "timestamp": 6, "timestamp_type": 0, "key": b"", "value": None, "headers": []},
        {"offset": 9, "timestamp": 77, "timestamp_type": 1, "key": b"k", "value": b"", "headers": []},
    ]
    assert (decoded.next_offset, decoded.skipped, decoded.bad_batches) == (10, NOTHING, ())


def test_nothing_fetched():
    decoded = decode_fetched(b"", 5, (), MIB)
    assert (decoded.table.num_rows, decoded.next_offset, decoded.skipped) == (0, 5, NOTHING)
    assert decoded.table.schema == RECORDS_SCHEMA


def test_starts_within_a_batch_and_leaves_a_torn_one():
    data = encode_batch(rows(0, 3)) + encode_batch(rows(3, 5)) + encode_batch(rows(8, 2))[:-1]
    decoded = decode_fetched(memoryview(data), 5, (), MIB)
    assert offsets(decoded) == [5, 6, 7]
    assert (decoded.next_offset, decoded.skipped) == (8, NOTHING)


def test_gaps_between_and_inside_batches():
    inside = [r for r in rows(10, 10) if r.offset in (10, 14, 19)]
    data = encode_batch(rows(2, 2)) + encode_batch(inside)
    decoded = decode_fetched(data, 0, (), MIB)
    assert offsets(decoded) == [2, 3, 10, 14, 19]
    assert (decoded.next_offset, decoded.skipped["compacted"]) == (20, 2 + 6 + 7)
    assert decode_fetched(data, 12, (), MIB).skipped["compacted"] == 6  # of 12..19 only 14 and 19 are there


def test_aborted_transactions():
    """Producer 1 aborts, then commits; producer 2 commits in between; both interleave with plain batches."""
    data = b"".join(
        [
            txn(0, 2, 1),
            txn(2, 2, 2),
            encode_batch(rows(4, 1)),
            txn(5, 1, 1),
            marker(6, 2, commit=True),
            marker(7, 1, commit=False),
            txn(8, 2, 1),
            marker(10, 1, commit=True),
        ]
    )
    decoded = decode_fetched(data, 0, [(1, 0)], MIB)
    assert offsets(decoded) == [2, 3, 4, 8, 9]
    assert (decoded.next_offset, decoded.skipped) == (11, {"control": 3, "aborted": 3, "compacted": 0})
    assert offsets(decode_fetched(data, 0, [], MIB)) == [0, 1, 2, 3, 4, 5, 8, 9]


def test_two_aborted_transactions_of_one_producer():
    data = txn(0, 1, 1) + marker(1, 1, commit=False) + txn(2, 1, 1) + marker(3, 1, commit=True) + txn(4, 1, 1)
    decoded = decode_fetched(data, 0, [(1, 4), (1, 0)], MIB)
    assert offsets(decoded) == [2]


def poison(base: int, count: int, claimed: int, **kind) -> bytes:
    """A compressed batch, rightly signed, that claims more records than it has (hazard C19)."""
    data = bytearray(encode_batch(rows(base, count), compression=Compression.ZSTD, **kind))
    struct.pack_into(">i", data, 57, claimed)
    struct.pack_into(">i", data, 23, claimed - 1)
    struct.pack_into(">I", data, 17, crc32c(data[21:]))
    return bytes(data)


def test_a_batch_that_does_not_parse_is_one_bad_unit():
    bad = poison(3, 2, 5)
    decoded = decode_fetched(encode_batch(rows(0, 3)) + bad + encode_batch(rows(8, 2)), 0, (), MIB)
    assert offsets(decoded) == [0, 1, 2, 8, 9]
    assert (decoded.next_offset, decoded.skipped) == (10, NOTHING)
    (found,) = decoded.bad_batches
    assert (found.base_offset, found.last_offset, found.raw) == (3, 7, bad)
    assert "5 records" in found.error


def test_bad_batches_before_the_start_or_aborted_are_not_reported():
    data = poison(0, 1, 3) + poison(3, 1, 3, producer_id=1, transactional=True) + marker(6, 1, commit=False)
    decoded = decode_fetched(data, 3, [(1, 3)], MIB)
    assert decoded.bad_batches == ()
    assert (decoded.next_offset, decoded.skipped) == (7, {"control": 1, "aborted": 3, "compacted": 0})


def test_control_batch_that_makes_no_sense_is_bad():
    data = encode_batch([Record(0, 1, b"\0", b"")], producer_id=1, control=True)
    decoded = decode_fetched(data, 0, (), MIB)
    assert (decoded.next_offset, len(decoded.bad_batches)) == (1, 1)


def test_a_bomb_is_bad_and_the_next_batch_is_read():
    bomb = encode_batch([Record(0, 1, None, bytes(2 * MIB))], compression=Compression.ZSTD)
    decoded = decode_fetched(bomb + encode_batch(rows(1, 1)), 0, (), MIB)
    assert [b.base_offset for b in decoded.bad_batches] == [0]
    assert (offsets(decoded), decoded.next_offset) == ([1], 2)


def test_stops_early_once_enough_came_out():
    big = [encode_batch([Record(i, 1, None, bytes(600_000))], compression=Compression.ZSTD) for i in range(10)]
    seen, position = [], 0
    while position < 10:
        decoded = decode_fetched(b"".join(big[position:]), position, (), MIB)
        assert decoded.table.num_rows == 2
        seen += offsets(decoded)
        position = decoded.next_offset
    assert seen == list(range(10))


def test_wrong_crc_or_order_stops_everything():
    good = encode_batch(rows(0, 2))
    with pytest.raises(CorruptBatch, match="CRC"):
        decode_fetched(good + good[:-1] + b"?", 0, (), MIB)
    with pytest.raises(CorruptBatch, match="does not follow"):
        decode_fetched(good + good, 0, (), MIB)


@st.composite
def logs(draw: st.DrawFn) -> tuple[bytes, int, list[tuple[int, int]]]:
    """Batches of every kind with gaps between and inside them; (bytes, end offset, aborted transactions)."""
    data, offset, aborted = b"", draw(st.integers(0, 50)), []
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["plain", "compacted", "bad", "aborted", "control"]))
        count = draw(st.integers(1, 4))
        if kind == "plain":
            records = [Record(offset + i, 5, draw(SOME_BYTES), draw(SOME_BYTES), draw(HEADERS)) for i in range(count)]
            data += encode_batch(records, compression=draw(st.sampled_from(list(Compression))))
        elif kind == "compacted":
            data += encode_batch([r for r in rows(offset, count + 2) if r.offset != offset + 1])
            count += 2
        elif kind == "bad":
            data += poison(offset, 1, count + 1)
            count += 1
        elif kind == "aborted":
            producer_id = len(aborted) + 1
            aborted.append((producer_id, offset))
            data += txn(offset, count, producer_id) + marker(offset + count, producer_id, commit=False)
            count += 1
        else:
            data, count = data + marker(offset, 99, commit=True), 1
        offset += count + draw(st.integers(0, 3))
    return data, offset, aborted


@settings(deadline=None)  # the first call makes pyarrow load what it needs
@given(logs(), st.data())
def test_every_position_is_counted_once_however_it_is_cut(log, data):
    """From any start, through any torn end, in as many fetches as it takes: the same rows and the same counts."""
    content, end, aborted = log
    start = data.draw(st.integers(0, max(end - 1, 0)))
    whole = decode_fetched(content, start, aborted, 64 * MIB)
    bad = sum(b.last_offset - max(b.base_offset, start) + 1 for b in whole.bad_batches)
    assert whole.table.num_rows + sum(whole.skipped.values()) + bad == whole.next_offset - start
    everything = decode_fetched(content, 0, aborted, 64 * MIB)
    assert offsets(whole) == [o for o in offsets(everything) if o >= start]

    torn = decode_fetched(content[: data.draw(st.integers(0, len(content)))], start, aborted, 64 * MIB)
    rest = decode_fetched(content, torn.next_offset, aborted, 64 * MIB)
    assert offsets(torn) + offsets(rest) == offsets(whole)
    assert {k: torn.skipped[k] + rest.skipped[k] for k in NOTHING} == whole.skipped


def test_the_rest_of_record_needs_no_pyarrow():
    """The server process must not pay for pyarrow (hazards, section 3)."""
    modules = ["batch", "compression", "decode", "encode", "validate"]
    code = (
        f"import sys; {'; '.join(f'import streamlake.record.{m}' for m in modules)}; sys.exit('pyarrow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
