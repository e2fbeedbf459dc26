from hypothesis import given
from hypothesis import strategies as st

from streamlake.table.commit.progress import beginning
from streamlake.table.task.settled import NONE_SETTLED, SettledDeadLetters, read_settled

RANGES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60), st.integers(0, 9)), max_size=12)


@given(RANGES)
def test_is_the_set_of_all_offsets(ranges: list[tuple[int, int, int]]) -> None:
    settled = SettledDeadLetters((p, first, first + length) for p, first, length in ranges)
    expected = {(p, o) for p, first, length in ranges for o in range(first, first + length + 1)}
    assert set(settled) == expected
    assert len(settled) == len(expected)
    assert {(p, o) for p in range(4) for o in range(80) if (p, o) in settled} == expected


def test_a_hostile_range_costs_nothing() -> None:
    settled = SettledDeadLetters([(0, 5, 5 + 2**31)])
    assert (0, 2**31) in settled
    assert (0, 4) not in settled
    assert "x" not in settled
    assert len(settled) == 2**31 + 1


def test_nothing_is_read_when_the_main_table_is_not_behind() -> None:
    progress = beginning("c", "t", "i", 1).advanced(1, {0: 5}, {})
    assert read_settled(None, progress, progress) is NONE_SETTLED
