from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from streamlake.cluster.placement import place

NODES = st.integers(0, 5)


def spread(partitions, changes) -> Counter:
    return Counter((partitions | changes).values())


def test_partitions_without_a_broker_go_where_fewest_are() -> None:
    partitions = {"a": 1, "b": 1, "c": 2, "d": None, "e": 9}
    assert place(partitions, {1, 2}) == {"d": 2, "e": 1}


def test_whoever_keeps_its_disk_keeps_its_partitions() -> None:
    assert place({"a": 9, "b": 8, "c": 1}, {1}, kept={9}) == {"b": 1}


def test_a_new_broker_gets_its_share() -> None:
    partitions: dict[int, int | None] = {n: n % 2 for n in range(30)}
    changes = place(partitions, {0, 1, 2})
    assert set(changes.values()) == {2}
    counts = spread(partitions, changes)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_what_is_pinned_stays_where_it_is() -> None:
    partitions: dict[int, int | None] = {n: n % 2 for n in range(30)} | dict.fromkeys(range(30, 45), 0)
    pinned = set(range(30, 45))
    changes = place(partitions, {0, 1}, pinned=pinned)
    assert not changes.keys() & pinned
    assert spread(partitions, changes) == {0: 23, 1: 22}
    assert place(partitions, {0, 1}, pinned=partitions) == {}
    assert place(partitions, {1}, pinned=partitions) == {n: 1 for n, node in partitions.items() if node == 0}


def test_small_differences_are_left_alone() -> None:
    partitions: dict[int, int | None] = {n: n % 2 for n in range(100)} | dict.fromkeys(range(100, 104), 0)
    assert place(partitions, {0, 1}) == {}


def test_without_a_broker_nothing_changes() -> None:
    assert place({"a": None}, ()) == {}


@given(
    st.dictionaries(st.integers(0, 200), st.none() | NODES, max_size=80),
    st.sets(NODES, min_size=1),
    st.sets(NODES),
    st.sets(st.integers(0, 200)),
)
def test_every_partition_has_a_broker_and_the_next_decision_changes_nothing(
    partitions, available, kept, pinned
) -> None:
    changes = place(partitions, available, kept - available, pinned)
    after = partitions | changes
    for partition, node in after.items():
        assert node in available or (node in kept and partition not in changes)
    assert set(changes.values()) <= available
    assert all(partitions[p] != node for p, node in changes.items())
    assert not any(partitions[p] in available for p in changes.keys() & pinned)
    assert place(after, available, kept - available, pinned - changes.keys()) == {}
