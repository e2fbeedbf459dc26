"""What the outside world knows of one consumer group: what was committed, processed and assigned.

Promised, and checked, is: a committed offset that was acknowledged is what a later OffsetFetch answers, whoever
coordinates then, unless another commit may have landed after it; every record below a committed offset was processed
by some member; a partition belongs to one member of a generation.

A commit without an answer may still land later, even after a newer one of the same generation was acknowledged: its
bytes may have been under way on a connection that is gone. A newer generation ends that: the coordinator refuses the
commits of older ones.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from simulation.checks.history import Place, Violation

NOTHING = -1  # what OffsetFetch answers when nothing is committed


@dataclass(slots=True, eq=False)
class Commit:
    """One committed offset on its way. Say how it ended, or nothing: then nobody knows."""

    group: "GroupHistory"
    place: Place
    offset: int
    generation: int
    sent_at: int
    acked_at: int | None = None
    refused: bool = False

    def acked(self) -> None:
        """Violation if a newer generation had an acknowledged commit before this one was even sent."""
        for other in self.group.commits[self.place]:
            if other.generation > self.generation and other.acked_at is not None and other.acked_at < self.sent_at:
                raise Violation(
                    f"group {self.group.name} takes a commit of generation {self.generation} for {self.place}, after "
                    f"one of generation {other.generation}"
                )
        self.acked_at = self.group.tick()
        self.group.acked_generation = max(self.group.acked_generation, self.generation)


@dataclass(slots=True)
class Intervals:
    """Sets of offsets as disjoint [start, end), sorted."""

    spans: list[tuple[int, int]] = field(default_factory=list)

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        spans = sorted([*self.spans, (start, end)])
        merged = [spans[0]]
        for left, right in spans[1:]:
            if left <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(merged[-1][1], right)
            else:
                merged.append((left, right))
        self.spans = merged

    def first_gap(self, start: int, end: int) -> int | None:
        """The first offset of [start, end) that is not in it."""
        if start >= end:
            return None
        at = bisect_right(self.spans, (start, 2**63)) - 1
        reached = self.spans[at][1] if at >= 0 and self.spans[at][1] > start else start
        return None if reached >= end else reached


class GroupHistory:
    def __init__(self, name: str) -> None:
        self.name = name
        self.commits: dict[Place, list[Commit]] = {}
        self.done: dict[Place, Intervals] = {}
        self._base: dict[Place, int] = {}  # where the group began; what lies below was never its business
        self._owners: dict[tuple[int, Place], str] = {}  # (generation, partition) → member id
        self._ticks = 0
        self.sent_generation = self.acked_generation = 0  # the newest whose commits were sent, were acknowledged
        self.under_way = 0  # commits that members wait for

    def tick(self) -> int:
        self._ticks += 1
        return self._ticks

    # -- commits -----------------------------------------------------------------------------------------------------

    def committing(self, place: Place, offset: int, generation: int) -> Commit:
        commit = Commit(self, place, offset, generation, self.tick())
        self.sent_generation = max(self.sent_generation, generation)
        self.commits.setdefault(place, []).append(commit)
        return commit

    def ask(self) -> int:
        """Take it when an OffsetFetch is sent, give it to `fetched` with the answer."""
        return self.tick()

    def fetched(self, place: Place, offset: int, asked: int) -> None:
        """OffsetFetch answered `offset`. Violation if no commit explains it or an acknowledged one is forgotten."""
        allowed = self.may_be_committed(place, asked)
        if offset not in allowed:
            last = [(c.offset, c.generation, c.acked_at is not None) for c in self.commits.get(place, ())][-6:]
            raise Violation(
                f"group {self.name} has {offset} committed for {place}, it may be {sorted(allowed)}; its last commits, "
                f"(offset, generation, acked): {last}"
            )
        if offset != NOTHING:
            self._check_processed(place, offset)

    def may_be_committed(self, place: Place, asked: int) -> set[int]:
        """Every offset that an OffsetFetch sent at `asked` may answer."""
        commits = self.commits.get(place, ())
        known = [c for c in commits if c.acked_at is not None and c.acked_at < asked]
        latest = max((c.sent_at for c in known), default=0)
        generation = max((c.generation for c in known), default=-(2**63))
        allowed = set() if known else {NOTHING}
        for commit in commits:
            if commit.refused:
                continue
            if commit.acked_at is not None:
                superseded = commit.acked_at < latest
            else:
                superseded = commit.generation < generation
            if not superseded:
                allowed.add(commit.offset)
        return allowed

    # -- processing --------------------------------------------------------------------------------------------------

    def begins(self, place: Place, offset: int) -> None:
        """A member starts here because nothing is committed."""
        self._base[place] = min(self._base.get(place, offset), offset)

    def processed(self, place: Place, start: int, end: int) -> None:
        """Handled by a member, or skipped because retention took them."""
        self.done.setdefault(place, Intervals()).add(start, end)

    def _check_processed(self, place: Place, committed: int) -> None:
        base = self._base.get(place, committed)
        gap = self.done.get(place, Intervals()).first_gap(base, committed)
        if gap is not None:
            raise Violation(
                f"group {self.name} has {committed} committed for {place}, but no member has processed offset {gap}"
            )

    # -- assignments -------------------------------------------------------------------------------------------------

    def assigned(self, generation: int, member_id: str, places: list[Place]) -> None:
        for place in places:
            owner = self._owners.setdefault((generation, place), member_id)
            if owner != member_id:
                raise Violation(
                    f"{place} belongs to {owner} and to {member_id} in generation {generation} of group {self.name}"
                )
