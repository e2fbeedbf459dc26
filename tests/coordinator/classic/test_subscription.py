from hypothesis import given
from hypothesis import strategies as st
from support.subscriptions import subscription

from streamlake.coordinator.classic import subscription as sut
from streamlake.coordinator.classic.subscription import topics_of

TOPICS = st.lists(st.text("abä.", min_size=1, max_size=5), max_size=6)


@given(st.lists(st.tuples(TOPICS, st.integers(0, 9), st.binary(max_size=20)), max_size=6))
def test_all_topics_of_all_members(members) -> None:
    metadata = [subscription(*topics, version=version, rest=rest) for topics, version, rest in members]
    assert topics_of(metadata) == {topic for topics, _, _ in members for topic in topics}


@given(st.binary(max_size=40))
def test_any_bytes(metadata: bytes) -> None:
    found = topics_of([metadata])
    assert found is None or len(found) <= len(metadata)


@given(TOPICS.filter(bool), st.data())
def test_what_is_cut_off_could_be_anything(topics, data) -> None:
    whole = subscription(*topics, rest=b"")
    assert topics_of([whole[: data.draw(st.integers(0, len(whole) - 1))]]) is None


def test_numbers_that_cannot_be() -> None:
    assert topics_of([subscription("t", version=-1)]) is None
    assert topics_of([b"\0\0" + b"\xff" * 8]) is None, "a number of topics below zero"
    assert topics_of([b"\0\0" + b"\0\0\0\1" + b"\xff\xff" + b"t"]) is None, "a name without a length"


def test_a_group_may_not_keep_the_broker_busy() -> None:
    names = [f"t{n}" for n in range(sut.NAMES_MAX)]
    same = subscription(*names)
    assert topics_of([same] * 1_000) == set(names), "an array that all have is read once"
    assert topics_of([same, subscription("one more")]) is None
