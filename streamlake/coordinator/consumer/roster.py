"""The members of a consumer group: static instances, and who holds which place.

It has no states and no time: group.py decides what a change means.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from streamlake.coordinator.consumer.api import Place
from streamlake.coordinator.consumer.member import Member


class Roster:
    def __init__(self, members: Iterable[Member] = ()) -> None:
        self.owners: dict[Place, str] = {}  # member ids
        self._members: dict[str, Member] = {}
        self._static: dict[str, str] = {}  # instance id → member id
        for member in members:
            self.add(member)

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members.values())

    def get(self, member_id: str) -> Member | None:
        return self._members.get(member_id)

    def by_instance(self, instance_id: str) -> Member | None:
        member_id = self._static.get(instance_id)
        return None if member_id is None else self._members[member_id]

    def add(self, member: Member) -> None:
        self._members[member.member_id] = member
        if member.instance_id is not None:
            self._static[member.instance_id] = member.member_id
        self.owners.update(dict.fromkeys(member.held, member.member_id))

    def remove(self, member: Member) -> None:
        """What it held is free."""
        del self._members[member.member_id]
        if member.instance_id is not None:
            del self._static[member.instance_id]
        for place in member.held:
            del self.owners[place]

    def replace(self, member: Member, member_id: str) -> Member:
        """A static instance has returned under another member id, and begins at epoch 0 with what it was to have."""
        self.remove(member)
        returned = replace(member, member_id=member_id, epoch=0, previous_epoch=0)
        self.add(returned)
        return returned

    def topics(self, matches: Mapping[str, frozenset[str]]) -> set[str]:
        """All that anybody has subscribed to, by name or by a pattern, of which `matches` has the names."""
        names: set[str] = set()
        for member in self._members.values():
            names |= topics_of(member, matches)
        return names

    def assignor(self, known: Sequence[str]) -> str:
        """The one that most members prefer; the first one if nobody prefers any."""
        votes = Counter(member.assignor for member in self._members.values() if member.assignor in known)
        return max(known, key=lambda name: votes[name])


def topics_of(member: Member, matches: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return member.topics | matches.get(member.regex or "", frozenset())
