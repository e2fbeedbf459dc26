from dataclasses import replace

from coordinator.consumer.test_member import member, of

from streamlake.coordinator.consumer.roster import Roster, topics_of


def test_who_holds_what() -> None:
    roster = Roster([member(assigned=of(0), revoking=of(1))])
    assert roster.owners == dict.fromkeys(of(0, 1), "m")
    roster.remove(next(iter(roster)))
    assert (len(roster), roster.owners) == (0, {})


def test_a_static_instance_goes_on_under_another_id() -> None:
    roster = Roster([member(instance_id="one", epoch=-2, assigned=of(0), target=of(0))])
    old = roster.by_instance("one")
    assert old is not None
    new = roster.replace(old, "n")
    assert new == replace(old, member_id="n", epoch=0, previous_epoch=0)
    assert (roster.get("m"), roster.get("n"), roster.by_instance("one")) == (None, new, new)
    assert roster.owners == dict.fromkeys(of(0), "n")
    roster.remove(new)
    assert roster.by_instance("one") is None


def test_topics_by_name_and_by_pattern() -> None:
    matches = {"u.*": frozenset(["u1", "u2"])}
    one, two = member(regex="u.*"), member(member_id="n", regex="unknown")
    assert topics_of(one, matches) == {"t", "u1", "u2"}
    assert topics_of(two, matches) == {"t"}
    assert Roster([one, two]).topics(matches) == {"t", "u1", "u2"}


def test_votes_for_assignors() -> None:
    known = ["uniform", "range"]
    assert Roster().assignor(known) == "uniform"
    some = [member(member_id=str(n), assignor=name) for n, name in enumerate(["range", None, "gone", "gone"])]
    assert Roster(some).assignor(known) == "range"
