import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.core.errors import Corrupt
from streamlake.log.aborted import Aborted, AbortedTransaction

A = AbortedTransaction(producer_id=1, first_offset=0, last_offset=10, last_stable_offset=2)
B = AbortedTransaction(producer_id=2, first_offset=2, last_offset=12, last_stable_offset=13)
C = AbortedTransaction(producer_id=1, first_offset=20, last_offset=25, last_stable_offset=26)


def filled() -> Aborted:
    aborted = Aborted()
    for entry in (A, B, C):
        aborted.add(entry)
    return aborted


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        (0, 100, [(1, 0), (2, 2), (1, 20)]),
        (0, 1, [(1, 0)]),
        (0, 2, [(1, 0)]),
        (0, 3, [(1, 0), (2, 2)]),
        (10, 11, [(1, 0), (2, 2)]),
        (11, 12, [(2, 2)]),
        (13, 20, []),
        (13, 21, [(1, 20)]),
        (25, 26, [(1, 20)]),
        (26, 99, []),
    ],
)
def test_those_that_overlap_are_found(start, end, found):
    assert filled().within(start, end) == found


def test_trimmed_entries_are_gone():
    aborted = filled()
    aborted.trim(10)
    assert len(aborted) == 3, "a marker at the start may still be read"
    aborted.trim(11)
    assert aborted.within(0, 100) == [(2, 2), (1, 20)]
    aborted.trim(1000)
    assert (len(aborted), aborted.within(0, 100)) == (0, [])


def test_notes_may_come_twice_and_in_any_order():
    notes = B.encoded() + C.encoded() + A.encoded() + B.encoded()
    assert Aborted(notes).within(0, 100) == filled().within(0, 100)
    assert len(Aborted(b"")) == 0
    with pytest.raises(Corrupt, match="notes"):
        Aborted(notes[:-1])


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.booleans()), max_size=40), st.data())
def test_as_a_plain_search_would(steps, data):
    """Producers begin and end transactions in a log; some of the ends are aborts."""
    opened, entries, offset = {}, [], 0
    aborted = Aborted()
    for producer, step, commit in steps:
        if producer in opened:
            first = opened.pop(producer)
            if not commit:
                stable = min(opened.values(), default=offset + 1)
                entries.append(AbortedTransaction(producer, first, offset, stable))
                aborted.add(entries[-1])
        else:
            opened[producer] = offset
        offset += step
    start = data.draw(st.integers(0, offset))
    end = data.draw(st.integers(start, offset + 1))
    expected = [(e.producer_id, e.first_offset) for e in entries if e.last_offset >= start and e.first_offset < end]
    assert aborted.within(start, end) == expected
