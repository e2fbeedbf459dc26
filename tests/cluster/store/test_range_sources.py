"""The rules of the port: tests/contracts/stream_metadata_contract.py. Here: that no replacement loses what can be read."""

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, insert, select

from streamlake.cluster.store import object_ranges, schema
from streamlake.cluster.store.range_sources import RangeSources
from streamlake.core.errors import Conflict
from streamlake.s3stream.metadata import StreamRange

Held = dict[int, list[tuple[int, int, int]]]  # object → (stream, start, end)


def stored(connection: Connection) -> dict[int, tuple[str, tuple[StreamRange, ...], int]]:
    o = schema.object_.c
    rows = connection.execute(select(o.id, o.state, o.ranges).order_by(o.id))
    return {i: (state, object_ranges.decode(b), object_ranges.given_offsets(b)) for i, state, b in rows}


def readable(ranges, starts) -> list[tuple[int, int]]:
    """Each offset of each stream as often as something holds it."""
    return sorted(
        (r.stream_id, at) for r in ranges for at in range(r.start_offset, r.end_offset) if at >= starts[r.stream_id]
    )


@st.composite
def layouts(draw) -> tuple[Held, dict[int, int]]:
    """Streams whose ranges adjoin, spread over objects, and how far each was trimmed."""
    held: Held = {i: [] for i in (1, 2, 3)}
    starts = {}
    for stream in (1, 2):
        at = 0
        for size in draw(st.lists(st.integers(1, 5), min_size=1, max_size=6)):
            held[draw(st.sampled_from([1, 2, 3]))].append((stream, at, at + size))
            at += size
        starts[stream] = draw(st.integers(0, at))
    return held, starts


edges = st.tuples(st.integers(0, 25), st.integers(0, 25)).filter(lambda edge: edge[0] < edge[1])


@given(layouts(), edges, st.none() | edges, st.sets(st.sampled_from([1, 2, 3, 4])))
def test_what_can_be_read_is_held_once_before_and_after(layout, first, second, sources) -> None:
    held, starts = layout
    wanted = [StreamRange(stream, 0, *edge) for stream, edge in ((1, first), (2, second)) if edge is not None]
    engine = create_engine("sqlite://")
    schema.metadata.create_all(engine, tables=[schema.object_])
    with engine.begin() as connection:
        for object_id, rows in held.items():
            blob = object_ranges.encode([StreamRange(stream, 0, start, end) for stream, start, end in sorted(rows)])
            row = {"id": object_id, "state": "committed", "deadline_ms": 0, "owner": 0, "size": 100, "ranges": blob}
            connection.execute(insert(schema.object_).values(row))
        before = stored(connection)
        try:
            RangeSources(connection, sorted(sources)).give(wanted, starts)
        except Conflict:
            assert stored(connection) == before
            return
        after = stored(connection)
    old = readable((r for _, ranges, _ in before.values() for r in ranges), starts)
    left = [r for _, ranges, _ in after.values() for r in ranges]
    assert readable([*left, *wanted], starts) == old
    for object_id, (state, ranges, given_offsets) in after.items():
        assert (state == "destroyed") == (not ranges and bool(given_offsets))
        lost = sum(r.end_offset - r.start_offset for r in before[object_id][1] if r not in ranges)
        assert given_offsets == lost
        assert object_id in sources or ranges == before[object_id][1]
    engine.dispose()
