import pytest

from streamlake.core.errors import Corrupt
from streamlake.s3stream.metadata import ObjectRanges, StreamRange, StreamState
from streamlake.s3stream.objects.map import UNKNOWN_TIMESTAMP, ObjectMap, RangeInObject


def state(stream_id: int, start: int, end: int) -> StreamState:
    return StreamState(stream_id, 1, start, end, b"", 0, ())


def loaded(*ranges: tuple[int, int, int], start: int = 0, end: int = 0) -> ObjectMap:
    """Ranges (object, start, end) of stream 1."""
    objects = [ObjectRanges(o, 100, (StreamRange(1, 1, a, b),)) for o, a, b in ranges]
    result = ObjectMap()
    result.load(objects, {1: state(1, start, end)})
    return result


def test_an_offset_is_found_in_its_range_only() -> None:
    ranges = loaded((7, 10, 20), (4, 0, 10), end=20)
    assert [ranges.find(1, o).object_id for o in (0, 9, 10, 19)] == [4, 4, 7, 7]  # type: ignore[union-attr]
    assert ranges.find(1, 20) is None
    assert ranges.find(1, -1) is None
    assert ranges.find(2, 0) is None
    assert ranges.end_offset(1) == 20


def test_sizes_are_shared_out_by_offsets_until_learnt() -> None:
    objects = ObjectMap()
    item = ObjectRanges(3, 1000, (StreamRange(1, 1, 0, 30), StreamRange(2, 1, 0, 10)))
    objects.load([item], {1: state(1, 0, 30), 2: state(2, 0, 10)})
    assert objects.size_bytes(1, 0) == 750
    assert objects.size_bytes(1, 10) == 500
    entry = objects.find(1, 0)
    assert entry is not None and entry.max_timestamp == UNKNOWN_TIMESTAMP
    objects.learn(1, entry, 900, 55)
    assert objects.size_bytes(1, 0) == 900
    assert objects.find(1, 5) == RangeInObject(0, 30, 3, 1000, 900, 55)


def test_a_commit_may_be_applied_twice() -> None:
    ranges = loaded((4, 0, 10), end=10)
    entry = RangeInObject(10, 20, 5, 100, 60, 1)
    ranges.add(1, entry)
    ranges.add(1, entry)
    assert ranges.find(1, 10) == entry
    assert ranges.size_bytes(1, 10) == 60


def test_trim_and_forget() -> None:
    ranges = loaded((4, 0, 10), (5, 10, 20), end=20)
    ranges.trim(1, 10)
    assert ranges.find(1, 9) is None and ranges.find(1, 10) is not None
    ranges.remove(1)
    assert ranges.find(1, 10) is None


@pytest.mark.parametrize(
    ("ranges", "start", "end"),
    [([(4, 0, 10), (5, 11, 20)], 0, 20), ([(4, 0, 10)], 0, 20), ([(5, 11, 20)], 10, 20), ([], 0, 1)],
)
def test_lost_objects_are_noticed_at_start(ranges: list[tuple[int, int, int]], start: int, end: int) -> None:
    with pytest.raises(Corrupt, match="restore it from a backup"):
        loaded(*ranges, start=start, end=end)


def test_ranges_below_the_start_are_left_out() -> None:
    ranges = loaded((4, 0, 10), (5, 10, 20), start=10, end=20)
    assert ranges.find(1, 5) is None
    assert loaded((4, 0, 10), start=15, end=10).end_offset(1) is None


def test_one_range_stands_for_those_that_it_is_made_of() -> None:
    objects = loaded((7, 0, 10), (8, 10, 20), (9, 20, 30), (10, 30, 40), end=40)
    objects.replace(1, RangeInObject(10, 30, 11, 500, 450, 77))
    assert [(r.start_offset, r.end_offset, r.object_id) for r in objects.ranges(1)] == [
        (0, 10, 7),
        (10, 30, 11),
        (30, 40, 10),
    ]
    assert [objects.find(1, o).object_id for o in (9, 10, 29, 30)] == [7, 11, 11, 10]  # type: ignore[union-attr]
    assert objects.ranges(2) == []


def test_what_was_trimmed_or_dropped_meanwhile_does_not_come_back() -> None:
    objects = loaded((7, 0, 10), (8, 10, 20), (9, 20, 30), end=30)
    objects.trim(1, 12)
    objects.replace(1, RangeInObject(0, 20, 11, 500, 450, 77))
    assert [(r.start_offset, r.end_offset, r.object_id) for r in objects.ranges(1)] == [(0, 20, 11), (20, 30, 9)]
    objects.trim(1, 20)
    objects.replace(1, RangeInObject(0, 20, 12, 500, 450, 77))
    assert [r.object_id for r in objects.ranges(1)] == [9]
    objects.remove(1)
    objects.replace(1, RangeInObject(20, 30, 13, 500, 450, 77))
    assert objects.ranges(1) == []


def test_facts_about_a_range_that_was_replaced_are_not_learnt() -> None:
    objects = loaded((7, 0, 10), (8, 10, 20), end=20)
    old = objects.ranges(1)[0]
    objects.replace(1, RangeInObject(0, 20, 11, 500, 450, 77))
    objects.learn(1, old, 5, 6)
    assert objects.ranges(1) == [RangeInObject(0, 20, 11, 500, 450, 77)]


def test_an_object_that_gave_ranges_away_has_only_its_share_left() -> None:
    objects = ObjectMap()
    objects.load([ObjectRanges(3, 1000, (StreamRange(1, 1, 0, 30),), given_offsets=70)], {1: state(1, 0, 30)})
    assert objects.size_bytes(1, 0) == 300
