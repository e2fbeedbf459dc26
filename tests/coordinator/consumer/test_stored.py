from dataclasses import replace

import pytest
from coordinator.consumer.test_member import member, of

from streamlake.cluster.store.groups import GroupRow
from streamlake.coordinator.consumer.api import TopicShape
from streamlake.coordinator.consumer.member import MemberState
from streamlake.coordinator.consumer.stored import NO_MEMBERS, SavedConsumerGroup, StoredGroup, decode, encode
from streamlake.core.errors import Corrupt

MEMBERS = (
    member(),
    member(
        member_id="n",
        instance_id="one",
        rack_id="r",
        regex="a.*",
        assignor="range",
        epoch=5,
        previous_epoch=4,
        state=MemberState.UNREVOKED,
        assigned=of(0, 2),
        revoking=of(1),
        target=of(0),
    ),
)
SHAPES = {"t": TopicShape(b"t" * 16, 3)}
MATCHES = {"a.*": frozenset(["a1", "a2"])}


def test_what_is_stored_is_read_again() -> None:
    assert decode(encode(7, SHAPES, MATCHES, MEMBERS)) == StoredGroup(7, SHAPES, MATCHES, MEMBERS)
    assert decode(NO_MEMBERS) == StoredGroup(0, {}, {}, ())


def test_deadlines_are_not_stored() -> None:
    late = [replace(each, session_deadline_ms=1, revoke_deadline_ms=2, is_untold=False) for each in MEMBERS]
    assert encode(7, SHAPES, MATCHES, late) == encode(7, SHAPES, MATCHES, MEMBERS)


@pytest.mark.parametrize("at", [0, 5, 20, -1])
def test_damage_is_noticed(at: int) -> None:
    blob = bytearray(encode(7, SHAPES, MATCHES, MEMBERS))
    blob[at] ^= 1
    with pytest.raises(Corrupt, match="consumer group"):
        decode(bytes(blob))


def test_a_group_as_a_row() -> None:
    row = SavedConsumerGroup("consumer", 7, b"\x00members", "range").row("g", 5)
    assert row == GroupRow("g", 7, "consumer", "range", None, b"\x00members", 5, "consumer")
    assert SavedConsumerGroup.of(row) == SavedConsumerGroup("consumer", 7, b"\x00members", "range")
