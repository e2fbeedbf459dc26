"""Who is to get which partition: the assignors that the coordinator has, pure functions by name.

Each is given which topics a member has subscribed to, how many partitions a topic has, and the target before; it
returns a target for every member, in which every partition of a subscribed topic has one member.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from streamlake.coordinator.consumer.api import NO_PLACES, Place, Places

Subscriptions: TypeAlias = Mapping[str, frozenset[bytes]]  # member → ids of topics that exist
Target: TypeAlias = dict[str, Places]
Assignor: TypeAlias = Callable[[Subscriptions, Mapping[bytes, int], Mapping[str, Places]], Target]


def assign_range(subscriptions: Subscriptions, partitions: Mapping[bytes, int], before: Mapping[str, Places]) -> Target:
    """Each topic is cut into ranges, one for each of its members by their order: members of topics with as many
    partitions get the same ones of each, so that joins find their records at one member."""
    found: dict[str, set[Place]] = {member: set() for member in subscriptions}
    for topic, members in _members_by_topic(subscriptions).items():
        size, larger = divmod(partitions[topic], len(members))
        start = 0
        for number, member in enumerate(members):
            end = start + size + (number < larger)
            found[member].update((topic, index) for index in range(start, end))
            start = end
    return {member: frozenset(places) for member, places in found.items()}


def assign_uniform(
    subscriptions: Subscriptions, partitions: Mapping[bytes, int], before: Mapping[str, Places]
) -> Target:
    """As even as it can be, and as few partitions as possible move."""
    members = _members_by_topic(subscriptions)
    if len(set(subscriptions.values())) <= 1:
        return _even(list(subscriptions), members, partitions, before)
    return _Balance(subscriptions, members, partitions, before).target()


def _even(
    order: Sequence[str],
    members: Mapping[bytes, Sequence[str]],
    partitions: Mapping[bytes, int],
    before: Mapping[str, Places],
) -> Target:
    """All have subscribed to the same: each keeps what it has up to its share, and the rest fills the others up."""
    unassigned = {(topic, index) for topic in members for index in range(partitions[topic])}
    if not order:
        return {}
    share, larger = divmod(len(unassigned), len(order))
    target: dict[str, set[Place]] = {}
    for member in sorted(order, key=lambda member: (-len(before.get(member, NO_PLACES) & unassigned), member)):
        had = sorted(before.get(member, NO_PLACES) & unassigned)
        kept = set(had[: share + (larger > 0)])
        larger -= len(kept) > share
        target[member] = kept
        unassigned -= kept
    left = iter(sorted(unassigned))
    for member in sorted(order, key=lambda member: (len(target[member]), member)):
        size = share + (larger > 0 and len(target[member]) <= share)
        larger -= size > share
        target[member].update(next(left) for _ in range(size - len(target[member])))
    return {member: frozenset(places) for member, places in target.items()}


class _Balance:
    """Members have subscribed to different topics. Everyone keeps what it has, what is left goes to who has least, and
    then partitions move from those who have two more than another one of the same topic."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        members: Mapping[bytes, Sequence[str]],
        partitions: Mapping[bytes, int],
        before: Mapping[str, Places],
    ) -> None:
        self._subscriptions = subscriptions
        self._members = members
        self._partitions = partitions
        self._places: dict[str, set[Place]] = {member: set() for member in subscriptions}
        self._by_topic: dict[str, dict[bytes, set[Place]]] = {member: defaultdict(set) for member in subscriptions}
        taken: set[Place] = set()
        for member, topics in subscriptions.items():
            for place in before.get(member, NO_PLACES):
                topic, index = place
                if topic in topics and index < partitions[topic] and place not in taken:
                    taken.add(place)
                    self._add(member, place)
        self._fill(taken)

    def target(self) -> Target:
        # Each move makes the sum of the squares of all sizes smaller, so it ends.
        moved = True
        while moved:
            moved = False
            for topic in sorted(self._members):
                moved |= self._level(topic)
        return {member: frozenset(places) for member, places in self._places.items()}

    def _fill(self, taken: set[Place]) -> None:
        """What few can have goes first."""
        for topic in sorted(self._members, key=lambda topic: (len(self._members[topic]), topic)):
            heap = [(len(self._places[member]), member) for member in self._members[topic]]
            heapify(heap)
            for index in range(self._partitions[topic]):
                if (topic, index) not in taken:
                    size, member = heappop(heap)
                    self._add(member, (topic, index))
                    heappush(heap, (size + 1, member))

    def _level(self, topic: bytes) -> bool:
        """Move partitions of the topic from who has most to who has least."""
        least = [(len(self._places[member]), member) for member in self._members[topic]]
        most = [(-size, member) for size, member in least if self._by_topic[member][topic]]
        heapify(least)
        heapify(most)
        moved = False
        while most:
            (size, to), (negative, of) = least[0], most[0]
            if size != len(self._places[to]):
                heappop(least)  # there is a later entry
            elif -negative != len(self._places[of]) or not self._by_topic[of][topic]:
                heappop(most)
            elif -negative - size < 2:
                break
            else:
                place = max(self._by_topic[of][topic])
                self._places[of].remove(place)
                self._by_topic[of][topic].remove(place)
                self._add(to, place)
                for member in (of, to):
                    heappush(least, (len(self._places[member]), member))
                    heappush(most, (-len(self._places[member]), member))
                moved = True
        return moved

    def _add(self, member: str, place: Place) -> None:
        self._places[member].add(place)
        self._by_topic[member][place[0]].add(place)


def _members_by_topic(subscriptions: Subscriptions) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = {}
    for member in sorted(subscriptions):
        for topic in subscriptions[member]:
            found.setdefault(topic, []).append(member)
    return found


ASSIGNORS: Mapping[str, Assignor] = {"uniform": assign_uniform, "range": assign_range}
