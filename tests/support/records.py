"""Random Kafka records for property tests."""

from hypothesis import strategies as st

from streamlake.record.decode import Record

TIMESTAMPS = st.integers(-(2**62), 2**62 - 1)  # two of them never differ by more than a varint holds
SOME_BYTES = st.none() | st.binary(max_size=20) | st.integers(60, 9000).map(lambda n: b"x" * n)
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3).map(tuple)


@st.composite
def batches_of_records(draw: st.DrawFn, gaps: bool = True) -> list[Record]:
    """One batch's records: offsets grow, with gaps if asked for; timestamps are any 63-bit numbers."""
    offset = draw(st.integers(0, 2**40)) if gaps else 0
    records = []
    for _ in range(draw(st.integers(1, 8))):
        records.append(Record(offset, draw(TIMESTAMPS), draw(SOME_BYTES), draw(SOME_BYTES), draw(HEADERS)))
        offset += draw(st.integers(1, 200)) if gaps else 1
    return records
