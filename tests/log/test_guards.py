from streamlake.log import guards
from streamlake.log.guards import Guards


def test_a_guard_counts_once_it_is_confirmed():
    held = Guards()
    guard = held.take(1, 0, 5)
    assert held.confirmed(1, 0) is None
    held.confirm(guard, 9)
    assert held.confirmed(1, 0).number == 9
    assert (held.confirmed(1, 1), held.confirmed(2, 0)) == (None, None)


def test_a_broken_guard_is_not_confirmed():
    held = Guards()
    guard = held.take(1, 0, 5)
    held.drop(1)
    held.confirm(guard, 9)
    assert held.confirmed(1, 0) is None


def test_a_newer_epoch_breaks_and_an_older_one_is_broken_from_the_start():
    held = Guards()
    old = held.take(1, 0, 5)
    new = held.take(1, 1, 0)
    late = held.take(1, 0, 6)
    held.confirm(old, 9)
    held.confirm(late, 9)
    assert (held.confirmed(1, 0), held.confirmed(1, 1)) == (None, None)
    held.confirm(new, 10)
    assert held.confirmed(1, 1) is new


def test_the_lowest_sequence_that_came_is_remembered():
    held = Guards()
    assert held.take(1, 0, 5) is held.take(1, 0, 3) is held.take(1, 0, 9)
    assert held.take(1, 0, 7).lowest_sequence == 3


def test_the_oldest_gives_way(monkeypatch):
    monkeypatch.setattr(guards, "GUARDS_MAX", 2)
    held = Guards()
    first, second, third = (held.take(n, 0, 0) for n in range(3))
    for guard in (first, second, third):
        held.confirm(guard, 1)
    assert [held.confirmed(n, 0) for n in range(3)] == [None, second, third]
