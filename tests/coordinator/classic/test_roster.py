from hypothesis import given
from hypothesis import strategies as st

from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.classic.member import Member
from streamlake.coordinator.classic.roster import Roster


def member(member_id: str, protocols="a", instance: str | None = None, waits: bool = False) -> Member:
    spoken = tuple((p, p.encode()) for p in protocols)
    return Member(member_id, instance, "c", "h", 1, 1, spoken, b"", 0, False, 1 if waits else None)


def roster(*members: Member) -> Roster:
    built = Roster()
    for m in members:
        built.add(m)
    return built


def test_the_first_leads_then_the_oldest():
    a, b, c = member("a"), member("b"), member("c")
    members = roster(a, b, c)
    assert members.leader == "a"
    members.remove(b)
    assert members.leader == "a"
    members.remove(a)
    assert members.leader == "c"
    members.remove(c)
    assert members.leader is None


def test_the_leader_is_elected_among_those_who_wait():
    a, b = member("a"), member("b", waits=True)
    members = roster(a, b)
    assert members.elect()
    assert members.leader == "b"
    b.join_token = None
    assert not members.elect()
    assert list(members.absent()) == [a, b]


def test_who_is_who():
    members = roster(member("a"), member("b", instance="i"))
    assert members.check("a", None) is GroupError.NONE
    assert members.check("x", None) is GroupError.UNKNOWN_MEMBER_ID
    assert members.check("b", "i") is GroupError.NONE
    assert members.check("a", "i") is GroupError.FENCED_INSTANCE_ID
    assert members.check("b", "x") is GroupError.UNKNOWN_MEMBER_ID
    assert members.by_instance("i") is members["b"]
    assert members.by_instance("x") is None


def test_a_replaced_member_keeps_its_place():
    a, b = member("a", instance="i"), member("b")
    members = roster(a, b)
    members.replace(a, "new")
    assert members.leader == "new"
    assert [m.member_id for m in members] == ["new", "b"]
    assert "a" not in members
    assert members.check("a", "i") is GroupError.FENCED_INSTANCE_ID


def test_votes():
    assert roster(member("a", "xy"), member("b", "yx"), member("c", "yx")).vote() == "y"
    assert roster(member("a", "xy"), member("b", "yx")).vote() == "x", "a tie goes to the earliest voter"
    assert roster(member("a", "xy"), member("b", "y")).vote() == "y"
    assert not roster(member("a", "x")).have_in_common((("y", b""),))


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["", "x", "xy", "yz", "xx"]), st.binary(max_size=3))))
def test_counts_follow_every_change(changes):
    members = Roster()
    for n, protocols, assignment in changes:
        member_id = str(n)
        if member_id not in members:
            members.add(member(member_id, protocols))
        elif not protocols:
            members.remove(members[member_id])
            continue
        else:
            members.set_protocols(members[member_id], tuple((p, b"m") for p in protocols))
        members.set_assignment(members[member_id], assignment)
        for name in "xyz":
            everybody = all(any(p == name for p, _ in m.protocols) for m in members)
            assert members.have_in_common(((name, b""),)) == everybody
        assert members.size_bytes == sum(m.size_bytes for m in members)
