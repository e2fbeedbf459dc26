"""The members of a classic group: static instances, the leader, and the protocols that all members support.

It has no states and no time: group.py decides what a change means. It updates its counts of protocols and bytes with
each change, so that a join costs the same in a large group as in a small one.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.classic.member import Member, Protocols


class Roster:
    def __init__(self) -> None:
        self.leader: str | None = None  # member id
        self.size_bytes = 0
        self._members: dict[str, Member] = {}
        self._static: dict[str, str] = {}  # group instance id → member id
        self._support: Counter[str] = Counter()  # protocol → members that support it

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def __contains__(self, member_id: str) -> bool:
        return member_id in self._members

    def __getitem__(self, member_id: str) -> Member:
        return self._members[member_id]

    def by_instance(self, group_instance_id: str) -> Member | None:
        member_id = self._static.get(group_instance_id)
        return None if member_id is None else self._members[member_id]

    def check(self, member_id: str, group_instance_id: str | None) -> GroupError:
        """Whether this member exists. A static member whose instance id has a newer member is fenced (KIP-345)."""
        if group_instance_id is not None:
            current = self._static.get(group_instance_id)
            if current is None:
                return GroupError.UNKNOWN_MEMBER_ID
            return GroupError.NONE if current == member_id else GroupError.FENCED_INSTANCE_ID
        return GroupError.NONE if member_id in self._members else GroupError.UNKNOWN_MEMBER_ID

    def add(self, member: Member) -> None:
        """Add a member. The first one becomes the leader."""
        self._members[member.member_id] = member
        if member.group_instance_id is not None:
            self._static[member.group_instance_id] = member.member_id
        if self.leader is None:
            self.leader = member.member_id
        self._count(member, 1)

    def remove(self, member: Member) -> None:
        """Remove a member. If it was the leader, the oldest remaining member becomes the leader."""
        del self._members[member.member_id]
        if member.group_instance_id is not None:
            del self._static[member.group_instance_id]
        if self.leader == member.member_id:
            self.leader = next(iter(self._members), None)
        self._count(member, -1)

    def replace(self, member: Member, member_id: str) -> None:
        """A static instance returned with a new member id: it keeps its position, assignment and leadership."""
        if self.leader == member.member_id:
            self.leader = member_id
        self._members = {
            (member_id if known == member.member_id else known): other for known, other in self._members.items()
        }
        member.member_id = member_id
        if member.group_instance_id is not None:
            self._static[member.group_instance_id] = member_id

    def set_protocols(self, member: Member, protocols: Protocols) -> None:
        self._count(member, -1)
        member.protocols = protocols
        self._count(member, 1)

    def set_assignment(self, member: Member, assignment: bytes) -> None:
        self.size_bytes += len(assignment) - len(member.assignment)
        member.assignment = assignment

    def have_in_common(self, protocols: Protocols) -> bool:
        """Whether there is one of these protocols that all members support."""
        return any(self._support[name] == len(self._members) for name, _ in protocols)

    def vote(self) -> str:
        """The protocol with the most votes. Each member votes for its first one that all support; the first vote wins a
        tie."""
        votes: Counter[str] = Counter()
        for member in self._members.values():
            favourite = next(name for name, _ in member.protocols if self._support[name] == len(self._members))
            votes[favourite] += 1
        return votes.most_common(1)[0][0]

    def elect(self) -> bool:
        """Make a member whose JoinGroup request waits the leader. False if there is none."""
        joined = [m.member_id for m in self._members.values() if m.join_token is not None]
        if joined and self.leader not in joined:
            self.leader = joined[0]
        return bool(joined)

    def absent(self) -> Sequence[Member]:
        """The members that have not joined: none of their JoinGroup requests waits."""
        return [m for m in self._members.values() if m.join_token is None]

    def _count(self, member: Member, change: int) -> None:
        self.size_bytes += change * member.size_bytes
        for name in {name for name, _ in member.protocols}:
            self._support[name] += change
