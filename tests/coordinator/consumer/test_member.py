"""One member's steps towards its target. test_group.py has them all together."""

from dataclasses import replace

from streamlake.coordinator.consumer.api import NO_PLACES, Place, Places
from streamlake.coordinator.consumer.member import Member, MemberState

TOPIC = b"t" * 16


def of(*partitions: int) -> Places:
    return frozenset((TOPIC, partition) for partition in partitions)


def member(**fields: object) -> Member:
    made = Member("m", None, None, "c", "h", 1_000, frozenset(["t"]), None, None)
    return replace(made, **fields)


def owned_by(**members: Places) -> dict[Place, str]:
    return {place: name for name, places in members.items() for place in places}


def test_a_new_member_gets_what_is_free_and_the_rest_later() -> None:
    new, owners = member(target=of(0, 1)), owned_by(other=of(1))
    assert new.reconcile(3, NO_PLACES, owners)
    assert (new.state, new.epoch, new.previous_epoch, new.assigned) == (MemberState.UNRELEASED, 3, 0, of(0))
    assert not new.reconcile(3, None, owners), "the other one still has it"
    del owners[(TOPIC, 1)]
    assert new.reconcile(3, None, owners)
    assert (new.state, new.assigned, owners) == (MemberState.STABLE, of(0, 1), owned_by(m=of(0, 1)))
    assert not new.reconcile(3, None, owners)


def test_a_member_stays_in_its_epoch_until_it_has_given_up() -> None:
    owners = owned_by(m=of(0, 1))
    it = member(epoch=2, assigned=of(0, 1), target=of(0))
    assert it.reconcile(3, None, owners)
    assert (it.state, it.epoch, it.assigned, it.revoking) == (MemberState.UNREVOKED, 2, of(0), of(1))
    assert owners == owned_by(m=of(0, 1)), "nobody gets it yet"
    assert not it.reconcile(3, None, owners)
    assert not it.reconcile(3, of(0, 1), owners)
    assert it.reconcile(3, of(0), owners)
    assert (it.state, it.epoch, it.revoking, owners) == (MemberState.STABLE, 3, NO_PLACES, owned_by(m=of(0)))


def test_what_is_its_own_again_it_gets_after_it_has_given_it_up() -> None:
    owners = owned_by(m=of(0, 1))
    it = member(epoch=2, state=MemberState.UNREVOKED, assigned=of(0), revoking=of(1), target=of(0, 1))
    assert not it.reconcile(4, of(0, 1), owners), "it was told to give it up, and may be closing it"
    assert it.reconcile(4, of(0), owners)
    assert (it.state, it.epoch, it.assigned) == (MemberState.STABLE, 4, of(0, 1))


def test_what_it_does_not_have_need_not_be_given_up() -> None:
    owners = owned_by(m=of(0, 1))
    it = member(epoch=2, assigned=of(0, 1), target=of(2))
    assert it.reconcile(3, NO_PLACES, owners)
    assert (it.state, it.assigned, owners) == (MemberState.STABLE, of(2), owned_by(m=of(2)))


def test_size() -> None:
    assert member(target=of(0, 1)).size_bytes > member(target=of(0)).size_bytes > member().size_bytes > 0
