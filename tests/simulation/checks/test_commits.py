"""What a group may have committed, and the lies that must be caught."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation.checks.commits import NOTHING, GroupHistory, Intervals
from simulation.checks.history import Place, Violation
from simulation.plan.story import TOPIC_ID

PLACE = Place(TOPIC_ID, 0)


def group(processed: int = 1000) -> GroupHistory:
    history = GroupHistory("g")
    history.begins(PLACE, 0)
    history.processed(PLACE, 0, processed)
    return history


def fetch(history: GroupHistory, offset: int) -> None:
    history.fetched(PLACE, offset, history.ask())


def test_nothing_then_what_was_acknowledged_last() -> None:
    history = group()
    fetch(history, NOTHING)
    for offset in (10, 20):
        history.committing(PLACE, offset, generation=1).acked()
        fetch(history, offset)


@pytest.mark.parametrize("lie", [NOTHING, 10, 15, 21])
def test_an_acknowledged_commit_never_goes_back(lie: int) -> None:
    history = group()
    for offset in (10, 20):
        history.committing(PLACE, offset, generation=1).acked()
    with pytest.raises(Violation, match="committed for"):
        fetch(history, lie)


def test_a_fetch_that_crossed_a_commit_may_show_either() -> None:
    history = group()
    history.committing(PLACE, 10, 1).acked()
    asked = history.ask()
    history.committing(PLACE, 20, 1).acked()
    for offset in (10, 20):
        history.fetched(PLACE, offset, asked)


def test_a_commit_of_an_older_generation_must_not_be_taken() -> None:
    history = group()
    crossed = history.committing(PLACE, 10, generation=1)
    history.committing(PLACE, 20, generation=2).acked()
    crossed.acked()
    with pytest.raises(Violation, match="takes a commit of generation 1"):
        history.committing(PLACE, 30, generation=1).acked()
    assert (history.sent_generation, history.acked_generation) == (2, 2)


def test_a_commit_without_an_answer_may_land_late_but_not_in_a_later_generation() -> None:
    history = group()
    history.committing(PLACE, 10, generation=1)
    history.committing(PLACE, 20, generation=1).acked()
    for offset in (20, 10):
        fetch(history, offset)
    history.committing(PLACE, 30, generation=2).acked()
    with pytest.raises(Violation):
        fetch(history, 10)


def test_a_refused_commit_is_never_there() -> None:
    history = group()
    history.committing(PLACE, 10, 1).refused = True
    with pytest.raises(Violation):
        fetch(history, 10)


def test_nothing_below_a_committed_offset_is_unprocessed() -> None:
    history = group(processed=5)
    history.processed(PLACE, 7, 20)
    history.committing(PLACE, 10, 1).acked()
    with pytest.raises(Violation, match="processed offset 5"):
        fetch(history, 10)
    history.processed(PLACE, 4, 8)
    fetch(history, 10)


def test_a_partition_has_one_owner_in_a_generation() -> None:
    history = group()
    history.assigned(1, "a", [PLACE])
    history.assigned(1, "a", [PLACE])
    history.assigned(2, "b", [PLACE])
    with pytest.raises(Violation, match="belongs to a and to b"):
        history.assigned(1, "b", [PLACE])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))), st.integers(0, 30), st.integers(0, 30))
def test_intervals_are_a_set(spans: list[tuple[int, int]], start: int, end: int) -> None:
    intervals, plain = Intervals(), set[int]()
    for left, right in spans:
        intervals.add(left, right)
        plain |= set(range(left, right))
    missing = sorted(set(range(start, end)) - plain)
    assert intervals.first_gap(start, end) == (missing[0] if missing else None)
