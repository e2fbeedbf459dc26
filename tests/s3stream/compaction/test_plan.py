from hypothesis import given
from hypothesis import strategies as st

from streamlake.s3stream.compaction.plan import FAN_IN, RANGES_MAX, Run, runs
from streamlake.s3stream.objects.map import UNKNOWN_TIMESTAMP, RangeInObject

OBJECT = 1 << 20


def adjoining(sizes: list[int], object_size: int = OBJECT) -> list[RangeInObject]:
    return [RangeInObject(at, at + 1, 100 + at, object_size, size, UNKNOWN_TIMESTAMP) for at, size in enumerate(sizes)]


def planned(sizes: list[int], sparse: tuple[int, ...] = ()) -> list[tuple[int, int]]:
    """The offsets of the runs."""
    found = runs(7, adjoining(sizes), OBJECT, lambda entry: entry.start_offset in sparse)
    return [(run.entries[0].start_offset, run.entries[-1].end_offset) for run in found]


def test_eight_small_ones_become_one_and_sixteen_larger_ones() -> None:
    for size, fan_in in ((1000, 8), (OBJECT // 500, 8), (OBJECT // 31, 16)):
        assert planned([size] * (fan_in - 1)) == []
        assert planned([size] * fan_in) == [(0, fan_in)]


def test_enough_for_an_object_becomes_one() -> None:
    assert planned([OBJECT // 3] * 3) == []
    assert planned([OBJECT // 3 + 1] * 4) == [(0, 2)]
    assert planned([OBJECT // 4] * 4 + [10]) == [(0, 4)]


def test_large_ones_stay_and_part_their_neighbours() -> None:
    assert planned([OBJECT // 2] * 40) == []
    assert planned([1000] * 7 + [OBJECT // 2] + [1000] * 7) == []
    assert planned([1000] * 20 + [OBJECT] + [1000] * 16) == [(0, 20), (21, 37)]


def test_what_was_merged_waits_for_its_like() -> None:
    """Else each byte would be written anew as often as something comes."""
    assert planned([OBJECT // 20, *[1000] * 7]) == []
    assert planned([OBJECT // 20, *[1000] * 8]) == [(1, 9)]
    assert planned([OBJECT // 20] * 15 + [1000] * 8) == [(15, 23)]
    assert planned([OBJECT // 20] * 16 + [1000]) == [(0, 17)]


def test_a_sparse_object_is_left_whatever_the_size() -> None:
    assert planned([OBJECT // 2, OBJECT // 3, OBJECT // 2], sparse=(1,)) == [(1, 2)]
    assert planned([10] * 5, sparse=(1, 2, 4)) == [(1, 3), (4, 5)]
    assert planned([OBJECT, OBJECT], sparse=(0, 1)) == [(0, 1)]


@given(st.lists(st.integers(1, OBJECT * 2), max_size=200), st.sets(st.integers(0, 199), max_size=20))
def test_runs_adjoin_do_not_overlap_and_fit(sizes, sparse) -> None:
    entries = adjoining(sizes)
    seen: set[int] = set()
    for run in runs(7, entries, OBJECT, lambda entry: entry.start_offset in sparse):
        assert run.stream_id == 7 and 1 <= len(run.entries) <= RANGES_MAX
        assert run.size_bytes <= OBJECT or len(run.entries) == 1
        first = run.entries[0].start_offset
        assert list(run.entries) == entries[first : first + len(run.entries)]
        assert len(run.entries) > 1 or first in sparse
        offsets = {entry.start_offset for entry in run.entries}
        assert not offsets & seen
        seen |= offsets


@given(st.lists(st.integers(1, OBJECT // 8), min_size=1, max_size=400))
def test_a_stream_is_soon_in_few_objects_and_each_byte_written_few_times(sizes) -> None:
    """However it came: after each upload all is merged that is worth it."""
    entries: list[RangeInObject] = []
    rewritten = 0
    for at, size in enumerate(sizes):
        entries.append(RangeInObject(at, at + 1, at, OBJECT, size, UNKNOWN_TIMESTAMP))
        while found := list(runs(7, entries, OBJECT, lambda entry: False)):
            run: Run = found[0]
            where = entries.index(run.entries[0])
            end = run.entries[-1].end_offset
            merged = RangeInObject(run.entries[0].start_offset, end, 0, OBJECT, run.size_bytes, UNKNOWN_TIMESTAMP)
            entries[where : where + len(run.entries)] = [merged]
            rewritten += run.size_bytes
    assert rewritten <= 6 * sum(sizes)
    assert len(entries) <= sum(sizes) / (OBJECT // 2) + FAN_IN[0] * FAN_IN[1]
