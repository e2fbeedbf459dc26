"""Every partition gets exactly one member that wants it, evenly, and little moves."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlake.coordinator.consumer.api import NO_PLACES, Places
from streamlake.coordinator.consumer.assignors import ASSIGNORS, assign_range, assign_uniform

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
TOPICS = st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, 9), max_size=3)


@st.composite
def groups(draw):
    partitions = draw(TOPICS)
    some = st.frozensets(st.sampled_from(sorted(partitions))) if partitions else st.just(frozenset())
    same = draw(st.booleans())
    names = draw(st.lists(st.sampled_from("klmnopqr"), unique=True, max_size=7))
    topics = draw(some)
    return {name: topics if same else draw(some) for name in names}, partitions


def check_complete(subscriptions: Mapping[str, frozenset[bytes]], partitions, target: Mapping[str, Places]) -> None:
    assert set(target) == set(subscriptions)
    given_out = [place for places in target.values() for place in places]
    wanted = {topic for topics in subscriptions.values() for topic in topics}
    assert sorted(given_out) == sorted((topic, i) for topic in wanted for i in range(partitions[topic]))
    assert all(place[0] in subscriptions[member] for member, places in target.items() for place in places)


@pytest.mark.parametrize("name", ASSIGNORS)
@given(first=groups(), second=groups())
def test_every_partition_gets_one_member(name: str, first, second) -> None:
    target: Mapping[str, Places] = {}
    for subscriptions, partitions in (first, second):
        target = ASSIGNORS[name](subscriptions, partitions, target)
        check_complete(subscriptions, partitions, target)
        assert ASSIGNORS[name](subscriptions, partitions, target) == target, "what is right stays as it is"


@given(first=groups(), second=groups())
def test_uniform_is_as_even_as_it_can_be(first, second) -> None:
    target: Mapping[str, Places] = {}
    for subscriptions, partitions in (first, second):
        target = assign_uniform(subscriptions, partitions, target)
        for member, places in target.items():
            for topic, _ in places:
                others = [m for m, topics in subscriptions.items() if topic in topics]
                assert all(len(target[other]) >= len(places) - 1 for other in others), member


@given(st.integers(1, 8), st.integers(1, 40), st.integers(0, 7))
def test_uniform_moves_no_more_than_it_must(members: int, count: int, leaving: int) -> None:
    names = [f"m{number}" for number in range(members + 1)]
    everyone = dict.fromkeys(names[:members], frozenset([A]))
    before = assign_uniform(everyone, {A: count}, {})
    joined = assign_uniform(dict.fromkeys(names, frozenset([A])), {A: count}, before)
    kept = sum(len(before[name] & joined[name]) for name in names[:members])
    assert kept == count - len(joined[names[-1]]), "only what the new member gets has moved"
    rest = {name: topics for name, topics in everyone.items() if name != f"m{leaving % members}"}
    after = assign_uniform(rest, {A: count}, before)
    assert all(before[name] <= after[name] for name in rest), "what the others had they keep"


def test_range_gives_members_the_same_partitions_of_every_topic() -> None:
    both = dict.fromkeys(("m1", "m2"), frozenset([A, B]))
    target = assign_range(both, {A: 3, B: 3}, {"m2": frozenset([(A, 0)])})
    assert target["m1"] == frozenset((topic, index) for topic in (A, B) for index in (0, 1))
    assert target["m2"] == frozenset((topic, 2) for topic in (A, B))


def test_who_has_subscribed_to_nothing_that_exists_gets_nothing() -> None:
    for assign in ASSIGNORS.values():
        assert assign({"m": frozenset()}, {}, {}) == {"m": NO_PLACES}
        assert assign({}, {}, {}) == {}
