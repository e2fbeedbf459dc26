"""A member of a consumer group, and how it comes closer to its target without two members owning a partition.

`reconcile` is one step, taken with each heartbeat. A member first gives up what is not of its target any more, and
stays in its epoch until its heartbeats show that it has. Then it goes to the epoch of the target, with all of it that
nobody else owns; the rest follows when it is released. Rules: KIP-848.
"""

from dataclasses import dataclass
from enum import IntEnum

from streamlake.coordinator.consumer.api import NO_PLACES, Place, Places
from streamlake.coordinator.machine import NEVER_MS


class MemberState(IntEnum):
    """Stored: docs/formats/consumer-group-members.md."""

    STABLE = 0  # it has its target, as of its epoch
    UNREVOKED = 1  # it is to give up places
    UNRELEASED = 2  # others are to give up places of its target


@dataclass(slots=True)
class Member:
    member_id: str
    instance_id: str | None
    rack_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    topics: frozenset[str]  # subscribed by name
    regex: str | None
    assignor: str | None
    epoch: int = 0
    previous_epoch: int = 0
    state: MemberState = MemberState.STABLE
    assigned: Places = NO_PLACES
    revoking: Places = NO_PLACES  # it was told to give these up
    target: Places = NO_PLACES
    session_deadline_ms: int = NEVER_MS
    revoke_deadline_ms: int = NEVER_MS  # it must have given up `revoking` by then
    is_untold: bool = True  # no answer with `assigned` has been given

    @property
    def held(self) -> Places:
        """What nobody else may be given."""
        return self.assigned | self.revoking

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        names = (self.member_id, self.instance_id, self.rack_id, self.client_id, self.client_host, self.regex)
        texts = sum(map(len, self.topics)) + sum(len(name or "") for name in names)
        return texts + 64 * (len(self.assigned) + len(self.revoking) + len(self.target))

    def is_reconciled(self, epoch: int) -> bool:
        return self.state is MemberState.STABLE and self.epoch == epoch

    def reconcile(self, epoch: int, owned: Places | None, owners: dict[Place, str]) -> bool:
        """One step towards the target of `epoch`; whether anything changed. `owned` is what the member says that it
        has, None: as before. `owners` has who holds which place."""
        if self.is_reconciled(epoch):
            return False
        if self.state is MemberState.UNREVOKED and _still_has(owned, self.revoking):
            return False
        before = (self.state, self.epoch, self.assigned, self.revoking)
        held = self.assigned | self.revoking
        kept = self.assigned & self.target
        revoking = self.assigned - kept
        if revoking and _still_has(owned, revoking):
            self.state, self.assigned, self.revoking = MemberState.UNREVOKED, kept, revoking
            self.previous_epoch = self.epoch
        else:
            wanted = self.target - kept
            # What it gives up just now is its own: nobody has got it since.
            free = {place for place in wanted if place in held or place not in owners}
            self.state = MemberState.STABLE if len(free) == len(wanted) else MemberState.UNRELEASED
            self.assigned, self.revoking = kept | free, NO_PLACES
            self.previous_epoch, self.epoch = self.epoch, epoch
        if self.assigned != before[2]:
            self.is_untold = True
        for place in held - self.held:
            del owners[place]
        for place in self.held - held:
            owners[place] = self.member_id
        return before != (self.state, self.epoch, self.assigned, self.revoking)


def _still_has(owned: Places | None, revoking: Places) -> bool:
    return owned is None or not owned.isdisjoint(revoking)
