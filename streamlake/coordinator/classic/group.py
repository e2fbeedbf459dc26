"""The classic group protocol as a sans-IO machine: an event and the time in, effects out.

One Group is one consumer group, and implements coordinator/machine.Machine. Requests that must wait carry a token, for
the `Answer` to name. The assignment of a generation is saved before members hear of it. Time is in ms of any clock that
does not go back. Rules: Kafka's GroupCoordinator, KIP-345 (static members), KIP-394
(member id first), KIP-814 (a static leader that returns skips the assignment).

States: Empty → PreparingRebalance (members join) → CompletingRebalance (the leader assigns) → Stable; Dead: deleted.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from streamlake.coordinator.classic.api import (
    GroupDescription,
    GroupError,
    JoinAnswer,
    JoinedMember,
    JoinRequest,
    LeavingMember,
    State,
    SyncAnswer,
    SyncRequest,
    store_error,
)
from streamlake.coordinator.classic.join_phase import JoinPhase
from streamlake.coordinator.classic.member import Member, decode_members, encode_members
from streamlake.coordinator.classic.roster import Roster
from streamlake.coordinator.classic.stored import CLASSIC, SavedGroup
from streamlake.coordinator.classic.subscription import topics_of
from streamlake.coordinator.machine import NEVER_MS, Answer, Effect, Save
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.errors import StreamLakeError

NEW_MEMBER_JOIN_TIMEOUT_MS = 300_000  # Kafka's: a new member whose client is gone may hold a rebalance this long
MEMBER_ID_PREFIX_MAX = 200
CONSUMERS = "consumer"  # the protocol type of groups whose members' metadata Kafka knows, too
REASON_MAX = 255


class Group:
    def __init__(self, group_id: str, settings: GroupSettings, new_uuid: Callable[[], UUID]) -> None:
        self.group_id = group_id
        self.state = State.EMPTY
        self.generation = 0
        self.protocol_type = ""
        self.protocol: str | None = None
        self.wake_ms = NEVER_MS
        self.reason = ""  # of the last rebalance
        self.expired_members = 0
        self._settings = settings
        self._new_uuid = new_uuid
        self._roster = Roster()
        self._pending: dict[str, int] = {}  # assigned member ids that have not joined → expiry (KIP-394)
        self._pending_sync: set[str] = set()  # members of this generation that have not asked for their assignment
        self._join_phase = JoinPhase(settings.initial_rebalance_delay_ms)
        self._sync_deadline_ms = NEVER_MS
        self._saving = False  # the assignment of this generation is being stored
        self._effects: list[Effect] = []

    @classmethod
    def restored(
        cls,
        group_id: str,
        saved: SavedGroup,
        now_ms: int,
        settings: GroupSettings,
        new_uuid: Callable[[], UUID],
    ) -> "Group":
        """The group as of its last durable generation. Members that heartbeat within their session timeout remain.
        Corrupt if the stored members cannot be read."""
        members = decode_members(saved.blob, now_ms)
        group = cls(group_id, settings, new_uuid)
        group.generation = saved.epoch
        group.protocol_type = saved.protocol_type
        for member in members:
            group._roster.add(member)
            group._touch(member, now_ms)
        if members:
            group.protocol = saved.protocol
            group.state = State.STABLE
            if saved.leader is not None and saved.leader in group._roster:
                group._roster.leader = saved.leader
        return group

    # --- for the shell

    @property
    def vacant(self) -> bool:
        """It has no members, and no assigned member id may still join."""
        return self.state is State.EMPTY and not self._pending

    @property
    def size_bytes(self) -> int:
        return self._roster.size_bytes

    @property
    def member_count(self) -> int:
        return len(self._roster)

    def take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def snapshot(self) -> SavedGroup:
        """The generation as it is stored. It is consistent between rebalances only, when a Save is made."""
        members = encode_members(self._roster)
        return SavedGroup(CLASSIC, self.generation, members, self.protocol_type, self.protocol, self._roster.leader)

    def describe(self) -> GroupDescription:
        protocol = (self.protocol or "") if self.state is State.STABLE else ""
        members = tuple(m.describe(protocol) for m in self._roster)
        return GroupDescription(self.group_id, self.state.value, self.protocol_type, protocol, members)

    def subscribes(self) -> frozenset[str] | None:
        """The topics whose offsets its members rely on; None: that could be any."""
        if self.state is State.EMPTY:
            return frozenset()
        if self.protocol_type != CONSUMERS or self.protocol is None:
            return None
        return topics_of(member.metadata(self.protocol) for member in self._roster)

    def abandon(self) -> None:
        error = GroupError.NOT_COORDINATOR
        for member in self._roster:
            self._answer_join(member, JoinAnswer(error, member.member_id))
            self._answer_sync(member, SyncAnswer(error))

    def die(self) -> None:
        """The group is deleted. It must be empty, so no request waits."""
        assert self.state is State.EMPTY, "only an empty group can be deleted"
        self.state = State.DEAD

    def revive(self) -> None:
        """The deletion failed: the group exists again."""
        self.state = State.EMPTY

    # --- events

    def join(self, request: JoinRequest, token: Any, now_ms: int) -> None:
        error = self._refuse_join(request)
        if error is not GroupError.NONE:
            self._answer(token, JoinAnswer(error, request.member_id))
        elif request.member_id:
            self._rejoin(request, token, now_ms)
        elif request.group_instance_id is not None:
            self._join_static(request, request.group_instance_id, token, now_ms)
        else:
            self._join_dynamic(request, token, now_ms)

    def sync(self, request: SyncRequest, token: Any, now_ms: int) -> None:
        error = self._refuse_sync(request)
        if error is not GroupError.NONE:
            self._answer(token, SyncAnswer(error))
            return
        member = self._roster[request.member_id]
        self._pending_sync.discard(member.member_id)
        if not self._pending_sync:
            self._sync_deadline_ms = NEVER_MS
        if self.state is State.STABLE:
            self._touch(member, now_ms)
            self._answer(token, self._assigned(member))
            return
        self._answer_sync(member, SyncAnswer(GroupError.REBALANCE_IN_PROGRESS))  # to an earlier request
        member.sync_token = token
        if member.member_id == self._roster.leader and not self._saving:
            for other in self._roster:
                self._roster.set_assignment(other, request.assignments.get(other.member_id, b""))
            self._saving = True
            self._save()

    def saved(self, save: Save, error: StreamLakeError | None, now_ms: int) -> None:
        if save.then is not None:
            answer = JoinAnswer(store_error(error), "") if error else save.then.answer
            self._answer(save.then.token, answer)
        elif self._saving and save.saved.epoch == self.generation:
            self._saving = False
            if error is None:
                # The generation and its assignments are durable: after a crash right here the members find it restored.
                # A crash before may use its number again, but no member has acted on this one.
                self.state = State.STABLE
                self._answer_syncs(now_ms)
            else:
                self._prepare("the assignment could not be saved", now_ms, store_error(error))

    def heartbeat(self, member_id: str, group_instance_id: str | None, generation: int, now_ms: int) -> GroupError:
        error = self._check(member_id, group_instance_id, generation)
        if error is not GroupError.NONE:
            return error
        self._touch(self._roster[member_id], now_ms)
        return GroupError.REBALANCE_IN_PROGRESS if self.state is State.PREPARING else GroupError.NONE

    def leave(self, leaving: LeavingMember, now_ms: int) -> GroupError:
        """Remove a member. For a static one the instance id is enough: administrators remove members in this way."""
        if self._pending.pop(leaving.member_id, None) is not None:
            self._try_complete(now_ms)
            return GroupError.NONE
        member_id = leaving.member_id
        if not member_id and leaving.group_instance_id is not None:
            member = self._roster.by_instance(leaving.group_instance_id)
            member_id = member.member_id if member else ""
        error = self._roster.check(member_id, leaving.group_instance_id)
        if error is GroupError.NONE:
            self._remove(self._roster[member_id], f"{member_id} leaves: {leaving.reason}", now_ms)
        return error

    def check_commit(self, member_id: str, group_instance_id: str | None, generation: int, now_ms: int) -> GroupError:
        """Whether this member may commit offsets now; it counts as a heartbeat. Generation -1: a consumer without a
        group."""
        if generation < 0 and self.state is State.EMPTY:
            return GroupError.NONE
        error = self._check(member_id, group_instance_id, generation)
        if error is not GroupError.NONE:
            return error
        if self.state is State.COMPLETING:
            return GroupError.REBALANCE_IN_PROGRESS
        self._touch(self._roster[member_id], now_ms)
        return GroupError.NONE

    def tick(self, now_ms: int) -> None:
        """Expire member ids, members and waits whose deadlines have passed."""
        for member_id, deadline_ms in list(self._pending.items()):
            if deadline_ms <= now_ms:
                del self._pending[member_id]
        for member in [m for m in self._roster if _expiry_ms(m) <= now_ms]:
            self.expired_members += 1
            self._remove(member, f"{member.member_id} sent no heartbeat", now_ms)
        if self._sync_deadline_ms <= now_ms:
            for member_id in sorted(self._pending_sync):
                self._remove(self._roster[member_id], f"{member_id} did not ask for its assignment", now_ms)
        if self._join_phase.over(now_ms):
            self._join_is_over(now_ms)
        self._try_complete(now_ms)
        self.wake_ms = min(
            self._join_phase.deadline_ms,
            self._sync_deadline_ms,
            min(self._pending.values(), default=NEVER_MS),
            min((_expiry_ms(m) for m in self._roster), default=NEVER_MS),
        )

    # --- joining

    def _refuse_join(self, request: JoinRequest) -> GroupError:
        settings = self._settings
        if not settings.session_timeout_min_ms <= request.session_timeout_ms <= settings.session_timeout_max_ms:
            return GroupError.INVALID_SESSION_TIMEOUT
        if not self._has_room(request.member_id):
            return GroupError.GROUP_MAX_SIZE_REACHED
        if not request.protocol_type or not request.protocols:
            return GroupError.INCONSISTENT_GROUP_PROTOCOL
        if len(self._roster) and (
            request.protocol_type != self.protocol_type or not self._roster.have_in_common(request.protocols)
        ):
            return GroupError.INCONSISTENT_GROUP_PROTOCOL
        return GroupError.NONE

    def _has_room(self, member_id: str) -> bool:
        """During a rebalance only members that have joined count: the others may never return."""
        known = member_id in self._roster
        if self.state is not State.PREPARING:
            return known or len(self._roster) < self._settings.group_size_max
        joined = len(self._roster) - len(self._roster.absent())
        return (known and self._roster[member_id].join_token is not None) or joined < self._settings.group_size_max

    def _join_dynamic(self, request: JoinRequest, token: Any, now_ms: int) -> None:
        member_id = self._new_member_id(request.client_id)
        if not request.require_known_member_id:
            self._add(request, member_id, token, now_ms)
        elif len(self._pending) >= self._settings.group_size_max:
            self._answer(token, JoinAnswer(GroupError.GROUP_MAX_SIZE_REACHED, ""))
        else:
            # KIP-394: a client that times out here and starts again leaves no member that others would wait for.
            self._pending[member_id] = now_ms + request.session_timeout_ms
            self._wake_by(self._pending[member_id])
            self._answer(token, JoinAnswer(GroupError.MEMBER_ID_REQUIRED, member_id))

    def _join_static(self, request: JoinRequest, group_instance_id: str, token: Any, now_ms: int) -> None:
        member_id = self._new_member_id(group_instance_id)
        member = self._roster.by_instance(group_instance_id)
        if member is None:
            self._add(request, member_id, token, now_ms)
        else:
            self._replace(member, request, member_id, token, now_ms)

    def _rejoin(self, request: JoinRequest, token: Any, now_ms: int) -> None:
        if self._pending.pop(request.member_id, None) is not None:
            self._add(request, request.member_id, token, now_ms)
            return
        error = self._roster.check(request.member_id, request.group_instance_id)
        if error is not GroupError.NONE:
            self._answer(token, JoinAnswer(error, request.member_id))
            return
        member = self._roster[request.member_id]
        same = member.protocols == request.protocols
        if self.state is State.COMPLETING:
            current = same  # the answer to its first JoinGroup was lost
        else:
            # A follower without changes receives the current generation. A leader that joins again wants a rebalance:
            # it has seen a change, such as new partitions, that needs a new assignment.
            current = self.state is State.STABLE and same and member.member_id != self._roster.leader
        if current:
            self._touch(member, now_ms)
            self._answer(token, self._joined(member))
        else:
            self._update(member, request, token)
            self._rebalance(f"{member.member_id} joins again: {request.reason}", now_ms)

    def _add(self, request: JoinRequest, member_id: str, token: Any, now_ms: int) -> None:
        member = Member.joining(request, member_id, token, now_ms + NEW_MEMBER_JOIN_TIMEOUT_MS)
        self._wake_by(member.deadline_ms)
        self.protocol_type = request.protocol_type
        self._roster.add(member)
        self._join_phase.newcomer()
        self._rebalance(f"{member_id} joins: {request.reason}", now_ms)

    def _update(self, member: Member, request: JoinRequest, token: Any) -> None:
        lost = JoinAnswer(GroupError.REBALANCE_IN_PROGRESS, member.member_id)
        self._answer_join(member, lost)  # an earlier request, of a lost connection
        self._roster.set_protocols(member, request.protocols)
        member.joins_again(request, token)

    def _replace(self, member: Member, request: JoinRequest, member_id: str, token: Any, now_ms: int) -> None:
        """A static instance has restarted: its previous member id is fenced from now on."""
        fenced, old_id = GroupError.FENCED_INSTANCE_ID, member.member_id
        self._answer_join(member, JoinAnswer(fenced, old_id))
        self._answer_sync(member, SyncAnswer(fenced))
        if old_id in self._pending_sync:
            self._pending_sync.remove(old_id)
            self._pending_sync.add(member_id)
        self._roster.replace(member, member_id)
        self._update(member, request, token)
        if self.state is not State.STABLE or self._roster.vote() != self.protocol:
            self._rebalance(f"the static member {request.group_instance_id} restarted", now_ms)
            return
        member.join_token = None
        self._touch(member, now_ms)
        leads = self._roster.leader == member_id
        answer = self._joined(member, members=leads and request.supports_skip_assignment)
        if leads and not request.supports_skip_assignment:
            answer = self._joined(member, members=False, leader=old_id)  # or it would assign again
        # Answered only when the new member id is durable: after a crash the previous one must still be fenced.
        self._save(Answer(token, answer))

    # --- rebalancing

    def _rebalance(self, reason: str, now_ms: int) -> None:
        if self.state is State.PREPARING:
            self._try_complete(now_ms)
        else:
            self._prepare(reason, now_ms)

    def _prepare(self, reason: str, now_ms: int, sync_error: GroupError = GroupError.REBALANCE_IN_PROGRESS) -> None:
        self.reason = reason[:REASON_MAX]
        if self.state is State.COMPLETING:
            for member in self._roster:
                self._roster.set_assignment(member, b"")
                self._touch(member, now_ms)
                self._answer_sync(member, SyncAnswer(sync_error))
        self._saving = False
        self._pending_sync.clear()
        self._sync_deadline_ms = NEVER_MS
        self._join_phase.begin(self.state is State.EMPTY, self._rebalance_timeout_ms(), now_ms)
        self._wake_by(self._join_phase.deadline_ms)
        self.state = State.PREPARING
        self._try_complete(now_ms)

    def _try_complete(self, now_ms: int) -> None:
        waiting = self._join_phase.initial or self._pending
        if self.state is State.PREPARING and not waiting and not self._roster.absent():
            self._complete_join(now_ms)

    def _join_is_over(self, now_ms: int) -> None:
        for member in self._roster.absent():
            if member.group_instance_id is None:  # static members may return within their session timeout
                self._roster.remove(member)
        if len(self._roster) and not self._roster.elect():
            self._join_phase.prolong(self._rebalance_timeout_ms(), now_ms)
        else:
            self._complete_join(now_ms)

    def _complete_join(self, now_ms: int) -> None:
        self.generation += 1
        self._join_phase.end()
        if not len(self._roster):
            self.state = State.EMPTY
            self.protocol = None
            self._save()
            return
        self._roster.elect()
        self.protocol = self._roster.vote()
        self.state = State.COMPLETING
        self._sync_deadline_ms = now_ms + self._rebalance_timeout_ms()
        self._wake_by(self._sync_deadline_ms)
        for member in self._roster:
            self._pending_sync.add(member.member_id)
            member.is_new = False
            self._touch(member, now_ms)
            self._answer_join(member, self._joined(member))

    def _remove(self, member: Member, reason: str, now_ms: int) -> None:
        self._answer_join(member, JoinAnswer(GroupError.UNKNOWN_MEMBER_ID, ""))
        self._answer_sync(member, SyncAnswer(GroupError.UNKNOWN_MEMBER_ID))
        self._roster.remove(member)
        self._pending_sync.discard(member.member_id)
        self._rebalance(reason, now_ms)

    # --- helpers

    def _check(self, member_id: str, group_instance_id: str | None, generation: int) -> GroupError:
        error = self._roster.check(member_id, group_instance_id)
        if error is GroupError.NONE and generation != self.generation:
            return GroupError.ILLEGAL_GENERATION
        return error

    def _refuse_sync(self, request: SyncRequest) -> GroupError:
        error = self._check(request.member_id, request.group_instance_id, request.generation)
        if error is not GroupError.NONE:
            return error
        if request.protocol_type is not None and request.protocol_type != self.protocol_type:
            return GroupError.INCONSISTENT_GROUP_PROTOCOL
        if request.protocol is not None and request.protocol != self.protocol:
            return GroupError.INCONSISTENT_GROUP_PROTOCOL
        return GroupError.REBALANCE_IN_PROGRESS if self.state is State.PREPARING else GroupError.NONE

    def _new_member_id(self, prefix: str) -> str:
        return f"{prefix[:MEMBER_ID_PREFIX_MAX]}-{self._new_uuid()}"

    def _rebalance_timeout_ms(self) -> int:
        return max((m.rebalance_timeout_ms for m in self._roster), default=0)

    def _touch(self, member: Member, now_ms: int) -> None:
        member.deadline_ms = now_ms + member.session_timeout_ms
        self._wake_by(member.deadline_ms)

    def _wake_by(self, when_ms: int) -> None:
        self.wake_ms = min(self.wake_ms, when_ms)

    def _joined(self, member: Member, members: bool | None = None, leader: str | None = None) -> JoinAnswer:
        """The current generation, for `member`. By default the leader receives the list of members, and assigns. With
        `members` it receives the list, and keeps the assignment (KIP-814)."""
        leads = member.member_id == self._roster.leader
        listed = leads if members is None else members
        return JoinAnswer(
            error=GroupError.NONE,
            member_id=member.member_id,
            generation=self.generation,
            protocol_type=self.protocol_type,
            protocol=self.protocol,
            leader=leader or self._roster.leader or "",
            skip_assignment=bool(members),
            members=self._joined_members() if listed else (),
        )

    def _joined_members(self) -> tuple[JoinedMember, ...]:
        return tuple(JoinedMember(m.member_id, m.group_instance_id, m.metadata(self.protocol)) for m in self._roster)

    def _assigned(self, member: Member) -> SyncAnswer:
        return SyncAnswer(GroupError.NONE, self.protocol_type, self.protocol, member.assignment)

    def _save(self, then: Answer | None = None) -> None:
        self._effects.append(Save(self.snapshot(), self.reason, then))

    def _answer(self, token: Any, answer: JoinAnswer | SyncAnswer) -> None:
        self._effects.append(Answer(token, answer))

    def _answer_join(self, member: Member, answer: JoinAnswer) -> None:
        if member.join_token is not None:
            self._answer(member.join_token, answer)
            member.join_token = None

    def _answer_sync(self, member: Member, answer: SyncAnswer) -> None:
        if member.sync_token is not None:
            self._answer(member.sync_token, answer)
            member.sync_token = None

    def _answer_syncs(self, now_ms: int) -> None:
        for member in self._roster:
            if member.sync_token is not None:
                self._touch(member, now_ms)
                self._answer_sync(member, self._assigned(member))


def _expiry_ms(member: Member) -> int:
    """A member that waits for an answer cannot heartbeat, so it does not expire. A new member does: its client may have
    ended for ever, and the member would stay."""
    waits = member.join_token is not None or member.sync_token is not None
    return NEVER_MS if waits and not member.is_new else member.deadline_ms
