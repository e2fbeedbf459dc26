"""The consumer group protocol (KIP-848) as a sans-IO machine: an event and the time in, effects out.

One ConsumerGroup is one group, and implements coordinator/machine.Machine. Whatever changes who is in it, or what they
want, raises the group's epoch; a target assignment is made for the epoch, and each member comes closer to its target
with its heartbeats (member.py).

What members are told is durable first: all requests that come while a state is being saved are looked at when that is
over, and are answered when what they have changed, together, is saved. So a group that starts costs few saves, and one
in which nothing changes none. States: Empty, Assigning, Reconciling, Stable; Dead: deleted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from streamlake.coordinator.classic.api import GroupError, store_error
from streamlake.coordinator.consumer.api import (
    JOIN_EPOCH,
    LEAVE_EPOCH,
    NO_PLACES,
    STATIC_LEAVE_EPOCH,
    ConsumerGroupDescription,
    ConsumerMemberDescription,
    GroupState,
    HeartbeatAnswer,
    HeartbeatRequest,
    Shapes,
    TopicShape,
)
from streamlake.coordinator.consumer.assignors import ASSIGNORS
from streamlake.coordinator.consumer.member import Member, MemberState
from streamlake.coordinator.consumer.roster import Roster, topics_of
from streamlake.coordinator.consumer.stored import CONSUMER, SavedConsumerGroup, decode, encode
from streamlake.coordinator.machine import NEVER_MS, Answer, Effect, Save
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.errors import StreamLakeError

SAVE_RETRY_MS = 500
WAITING_PER_MEMBER_MAX = 2  # requests while a save takes long: clients that time out ask again
REASON_MAX = 255


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that has been accepted."""

    token: Any
    member_id: str
    request: HeartbeatRequest
    has_left: bool = False


@dataclass(frozen=True, slots=True)
class _Saving:
    save: Save
    answers: Sequence[tuple[Answer, str]]  # to give when it is durable, and to which members


class ConsumerGroup:
    protocol_type = CONSUMER

    def __init__(self, group_id: str, settings: GroupSettings, shapes: Shapes, new_uuid: Callable[[], UUID]) -> None:
        self.group_id = group_id
        self.epoch = 0
        self.assignment_epoch = 0
        self.assignor = next(iter(ASSIGNORS))  # that made the target
        self.size_bytes = 0
        self.expired_members = 0
        self.wake_ms = NEVER_MS
        self._settings = settings
        self._shapes_now = shapes
        self._new_uuid = new_uuid
        self._roster = Roster()
        self._shapes: Mapping[str, TopicShape] = {}  # that the target is for
        self._matches: dict[str, frozenset[str]] = {}  # pattern → names of topics
        self._waiting: list[_Waiting] = []
        self._saving: _Saving | None = None
        self._is_changed = False  # since the state was handed over to be saved
        self._is_over = False  # this coordinator is not that of the group any more
        self._is_dead = False
        self._retry_ms = NEVER_MS
        self._reason = ""
        self._effects: list[Effect] = []

    @classmethod
    def restored(
        cls,
        group_id: str,
        saved: SavedConsumerGroup,
        now_ms: int,
        settings: GroupSettings,
        shapes: Shapes,
        new_uuid: Callable[[], UUID],
    ) -> "ConsumerGroup":
        """The group as it was saved. Members that heartbeat within the session timeout remain; what they are answered
        may have been lost, so they are told again. Corrupt if the blob cannot be read."""
        stored = decode(saved.blob)
        group = cls(group_id, settings, shapes, new_uuid)
        group.epoch, group.assignment_epoch, group.assignor = saved.epoch, stored.assignment_epoch, saved.assignor
        group._shapes, group._matches = stored.shapes, dict(stored.matches)
        group._roster = Roster(stored.members)
        for member in stored.members:
            group._touch(member, now_ms)
            if member.state is MemberState.UNREVOKED:
                member.revoke_deadline_ms = now_ms + member.rebalance_timeout_ms
                group._wake_by(member.revoke_deadline_ms)
        group._count_bytes()
        return group

    # --- for the shell

    @property
    def state(self) -> GroupState:
        if self._is_dead:
            return GroupState.DEAD
        if not len(self._roster):
            return GroupState.EMPTY
        if self.epoch > self.assignment_epoch:
            return GroupState.ASSIGNING
        reconciled = all(member.is_reconciled(self.assignment_epoch) for member in self._roster)
        return GroupState.STABLE if reconciled else GroupState.RECONCILING

    @property
    def vacant(self) -> bool:
        """It has no members, and no save is under way or due that would bring back its row after it was deleted."""
        return not len(self._roster) and self._saving is None and not self._is_changed

    @property
    def member_count(self) -> int:
        return len(self._roster)

    @property
    def patterns(self) -> frozenset[str]:
        """That members have subscribed to."""
        return frozenset(member.regex for member in self._roster if member.regex)

    def knows(self, pattern: str) -> bool:
        """Whether it knows which topics match now: of what nobody subscribes to any more it is not told."""
        return pattern in self._matches and pattern in self.patterns

    def subscribes(self) -> frozenset[str]:
        """The topics whose offsets its members rely on."""
        return frozenset(self._roster.topics(self._matches))

    def take_effects(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        return effects

    def snapshot(self) -> SavedConsumerGroup:
        blob = encode(self.assignment_epoch, self._shapes, self._matches, self._roster)
        return SavedConsumerGroup(CONSUMER, self.epoch, blob, self.assignor)

    def describe(self) -> ConsumerGroupDescription:
        members = tuple(
            ConsumerMemberDescription(
                member_id=m.member_id,
                instance_id=m.instance_id,
                rack_id=m.rack_id,
                epoch=m.epoch,
                client_id=m.client_id,
                client_host=m.client_host,
                topics=tuple(sorted(m.topics)),
                regex=m.regex,
                assigned=m.assigned,
                target=m.target,
            )
            for m in self._roster
        )
        return ConsumerGroupDescription(
            self.group_id, self.state.value, self.epoch, self.assignment_epoch, self.assignor, members
        )

    def abandon(self) -> None:
        self._is_over = True
        answers = self._saving.answers if self._saving is not None else ()
        tokens = [answer.token for answer, _ in answers] + [each.token for each in self._waiting]
        self._waiting, self._saving = [], None
        for token in tokens:
            self._effects.append(Answer(token, HeartbeatAnswer(GroupError.NOT_COORDINATOR)))

    def die(self) -> None:
        """The group is deleted. It must be vacant, so no request waits."""
        assert self.vacant, "only an empty group can be deleted"
        self._is_dead = True

    def revive(self) -> None:
        """The deletion failed: the group exists again."""
        self._is_dead = False

    # --- events

    def heartbeat(
        self, request: HeartbeatRequest, token: Any, now_ms: int, matched: frozenset[str] | None = None
    ) -> None:
        """`matched` are the names of topics that match the request's pattern, if the group does not know them."""
        found: Member | HeartbeatAnswer
        if len(self._waiting) >= WAITING_PER_MEMBER_MAX * self._settings.group_size_max:
            found = HeartbeatAnswer(
                GroupError.COORDINATOR_NOT_AVAILABLE, "the group's state is being stored: ask again"
            )
        else:
            found = self._leave(request) if request.epoch < JOIN_EPOCH else self._find(request)
        if isinstance(found, HeartbeatAnswer):
            self._effects.append(Answer(token, found))
            return
        if request.epoch >= JOIN_EPOCH:
            if request.regex and matched is not None:
                self._matches[request.regex] = matched
            self._update(found, request)
            self._touch(found, now_ms)
        self._waiting.append(_Waiting(token, found.member_id, request, has_left=request.epoch < JOIN_EPOCH))
        self._flush(now_ms)

    def topics_changed(self, matched: Mapping[str, frozenset[str]], now_ms: int) -> None:
        """Topics, or their partitions, have come or gone; `matched` has the names that match `patterns` now."""
        known = {pattern: names for pattern, names in matched.items() if pattern in self.patterns}
        self._matches.update(known)
        if len(self._roster) and self._shapes_of_all() != self._shapes:
            self._bump("its topics have changed")
            self._flush(now_ms)

    def check_commit(self, member_id: str, group_instance_id: str | None, epoch: int, now_ms: int) -> GroupError:
        """Whether this member may commit offsets now. A negative epoch: a consumer without a group."""
        if epoch < 0 and not len(self._roster):
            return GroupError.NONE
        return self.check_fetch(member_id, epoch)

    def check_fetch(self, member_id: str, epoch: int) -> GroupError:
        member = self._roster.get(member_id)
        if member is None:
            return GroupError.UNKNOWN_MEMBER_ID
        return GroupError.NONE if epoch == member.epoch else GroupError.STALE_MEMBER_EPOCH

    def saved(self, save: Save, error: StreamLakeError | None, now_ms: int) -> None:
        if self._saving is None or self._saving.save is not save:
            return  # of a classic group of this name, that has ended
        answers, self._saving = self._saving.answers, None
        if error is None:
            # What these answers tell is durable: after a crash right here, the next coordinator holds nothing else.
            self._effects.extend(answer for answer, _ in answers)
            self._flush(now_ms)
            return
        self._is_changed = True
        self._retry_ms = now_ms + SAVE_RETRY_MS
        self._wake_by(self._retry_ms)
        for answer, member_id in answers:
            self._effects.append(Answer(answer.token, HeartbeatAnswer(store_error(error))))
            if (member := self._roster.get(member_id)) is not None:
                member.is_untold = True
        if self._waiting:
            self._flush(now_ms)

    def tick(self, now_ms: int) -> None:
        """Remove members whose heartbeats, or revocations, are overdue; try again what could not be saved."""
        for member in [m for m in self._roster if m.session_deadline_ms <= now_ms]:
            self._expire(member, f"{member.member_id} sent no heartbeat")
        for member in [m for m in self._roster if m.revoke_deadline_ms <= now_ms]:
            self._expire(member, f"{member.member_id} did not give up its partitions")
        if self._retry_ms <= now_ms:
            self._retry_ms = NEVER_MS
        if self._retry_ms == NEVER_MS:
            self._flush(now_ms)
        deadlines = (min(m.session_deadline_ms, m.revoke_deadline_ms) for m in self._roster)
        self.wake_ms = min(self._retry_ms, min(deadlines, default=NEVER_MS))

    # --- members

    def _find(self, request: HeartbeatRequest) -> Member | HeartbeatAnswer:
        """Whose heartbeat it is; a new member's, if it joins."""
        if request.instance_id is not None:
            return self._find_static(request, request.instance_id)
        member = self._roster.get(request.member_id)
        if member is not None:
            return _checked(member, request)
        return self._join(request) if request.epoch == JOIN_EPOCH else _unknown(request.member_id)

    def _find_static(self, request: HeartbeatRequest, instance_id: str) -> Member | HeartbeatAnswer:
        member = self._roster.by_instance(instance_id)
        if request.epoch != JOIN_EPOCH:
            return _unknown(instance_id) if member is None else _checked_static(member, request)
        if member is None:
            return self._join(request)
        if member.member_id == request.member_id:
            return member
        if member.epoch != STATIC_LEAVE_EPOCH:
            text = f"the static member {instance_id} is in use by member {member.member_id}"
            return HeartbeatAnswer(GroupError.UNRELEASED_INSTANCE_ID, text)
        self._changed(f"the static member {instance_id} has returned")
        return self._roster.replace(member, request.member_id or str(self._new_uuid()))

    def _join(self, request: HeartbeatRequest) -> Member | HeartbeatAnswer:
        if len(self._roster) >= self._settings.group_size_max:
            text = f"the group has {self._settings.group_size_max} members, and may not have more"
            return HeartbeatAnswer(GroupError.GROUP_MAX_SIZE_REACHED, text)
        member = Member(
            member_id=request.member_id or str(self._new_uuid()),
            instance_id=request.instance_id,
            rack_id=request.rack_id,
            client_id=request.client_id,
            client_host=request.client_host,
            rebalance_timeout_ms=request.rebalance_timeout_ms or 0,
            topics=frozenset(),
            regex=None,
            assignor=None,
        )
        self._roster.add(member)
        self._bump(f"{member.member_id} joins")
        return member

    def _update(self, member: Member, request: HeartbeatRequest) -> None:
        """Take over what the request says of the member, and raise the epoch if it wants other topics."""
        topics = member.topics if request.topics is None else frozenset(request.topics)
        regex = member.regex if request.regex is None else request.regex or None
        if (topics, regex) != (member.topics, member.regex):
            member.topics, member.regex = topics, regex
            self._bump(f"{member.member_id} subscribes to other topics")
        before = (member.rack_id, member.client_id, member.client_host, member.rebalance_timeout_ms, member.assignor)
        after = (
            member.rack_id if request.rack_id is None else request.rack_id,
            request.client_id,
            request.client_host,
            member.rebalance_timeout_ms if request.rebalance_timeout_ms is None else request.rebalance_timeout_ms,
            member.assignor if request.assignor is None else request.assignor,
        )
        if before != after:
            member.rack_id, member.client_id, member.client_host, member.rebalance_timeout_ms, member.assignor = after
            self._changed(f"{member.member_id} has changed")

    def _leave(self, request: HeartbeatRequest) -> Member | HeartbeatAnswer:
        member: Member | HeartbeatAnswer | None
        if request.instance_id is None:
            member = self._roster.get(request.member_id)
        else:
            member = self._roster.by_instance(request.instance_id)
            if member is not None:
                member = _fenced_instance(member, request) or member
        if member is None:
            return _unknown(request.instance_id or request.member_id)
        if isinstance(member, HeartbeatAnswer):
            return member
        if request.epoch == LEAVE_EPOCH:
            self._roster.remove(member)
            self._bump(f"{member.member_id} leaves")
        else:
            # It keeps what it is to have until its session times out; what it was to give up it has closed.
            self._roster.remove(member)
            member.epoch, member.revoking, member.revoke_deadline_ms = STATIC_LEAVE_EPOCH, NO_PLACES, NEVER_MS
            self._roster.add(member)
            self._changed(f"the static member {member.instance_id} leaves for a while")
        return member

    def _expire(self, member: Member, reason: str) -> None:
        self.expired_members += 1
        self._roster.remove(member)
        self._bump(reason)

    # --- what follows from it

    def _flush(self, now_ms: int) -> None:
        """Unless a save is under way: assign, look at all requests that wait, and save or answer."""
        if self._saving is not None or self._is_over:
            return
        if self.epoch > self.assignment_epoch and len(self._roster):
            self._assign()
        waiting, self._waiting = self._waiting, []
        answers = [(Answer(each.token, self._answer(each, now_ms)), each.member_id) for each in waiting]
        if not self._is_changed:
            # They tell nothing that is not saved.
            self._effects.extend(answer for answer, _ in answers)
            return
        patterns = self.patterns
        self._matches = {pattern: names for pattern, names in self._matches.items() if pattern in patterns}
        save = Save(self.snapshot(), self._reason)
        self._is_changed, self._saving, self._retry_ms = False, _Saving(save, answers), NEVER_MS
        self._count_bytes()
        self._effects.append(save)

    def _assign(self) -> None:
        names = list(ASSIGNORS)
        self._shapes = self._shapes_of_all()
        self.assignor = self._roster.assignor(names)
        subscriptions = {
            member.member_id: frozenset(
                self._shapes[name].id for name in topics_of(member, self._matches) if name in self._shapes
            )
            for member in self._roster
        }
        partitions = {shape.id: shape.partitions for shape in self._shapes.values()}
        before = {member.member_id: member.target for member in self._roster}
        target = ASSIGNORS[self.assignor](subscriptions, partitions, before)
        for member in self._roster:
            member.target = target[member.member_id]
        self.assignment_epoch = self.epoch

    def _answer(self, waiting: _Waiting, now_ms: int) -> HeartbeatAnswer:
        request = waiting.request
        if waiting.has_left:
            return HeartbeatAnswer(GroupError.NONE, None, waiting.member_id, request.epoch)
        member = self._roster.get(waiting.member_id)
        if member is None:  # it left, or was removed, while its request waited
            return _unknown(waiting.member_id)
        joins = request.epoch == JOIN_EPOCH
        if member.reconcile(self.assignment_epoch, NO_PLACES if joins else request.owned, self._roster.owners):
            self._changed(f"{member.member_id} reconciles")
            unrevoked = member.state is MemberState.UNREVOKED
            member.revoke_deadline_ms = now_ms + member.rebalance_timeout_ms if unrevoked else NEVER_MS
            self._wake_by(member.revoke_deadline_ms)
        tells = joins or request.is_full or member.is_untold
        member.is_untold = False
        return HeartbeatAnswer(
            GroupError.NONE,
            None,
            member.member_id,
            member.epoch,
            self._settings.consumer_heartbeat_interval_ms,
            member.assigned if tells else None,
        )

    def _shapes_of_all(self) -> dict[str, TopicShape]:
        shapes = ((name, self._shapes_now(name)) for name in self._roster.topics(self._matches))
        return {name: shape for name, shape in shapes if shape is not None}

    def _bump(self, reason: str) -> None:
        self.epoch = max(self.epoch, self.assignment_epoch) + 1
        self._changed(reason)

    def _changed(self, reason: str) -> None:
        self._is_changed = True
        self._reason = reason[:REASON_MAX]

    def _count_bytes(self) -> None:
        self.size_bytes = sum(member.size_bytes for member in self._roster)

    def _touch(self, member: Member, now_ms: int) -> None:
        member.session_deadline_ms = now_ms + self._settings.consumer_session_timeout_ms
        self._wake_by(member.session_deadline_ms)

    def _wake_by(self, when_ms: int) -> None:
        self.wake_ms = min(self.wake_ms, when_ms)


def _unknown(who: str) -> HeartbeatAnswer:
    return HeartbeatAnswer(GroupError.UNKNOWN_MEMBER_ID, f"{who} is not a member of this group")


def _fenced_instance(member: Member, request: HeartbeatRequest) -> HeartbeatAnswer | None:
    if member.member_id == request.member_id:
        return None
    text = f"the static member {member.instance_id} is member {member.member_id} now"
    return HeartbeatAnswer(GroupError.FENCED_INSTANCE_ID, text)


def _checked_static(member: Member, request: HeartbeatRequest) -> Member | HeartbeatAnswer:
    return _fenced_instance(member, request) or _checked(member, request)


def _checked(member: Member, request: HeartbeatRequest) -> Member | HeartbeatAnswer:
    """A member that joins again has given up all it had. One that comes with the epoch before its own has not got the
    answer that raised it, if it owns nothing else than it may."""
    if request.epoch in (JOIN_EPOCH, member.epoch):
        return member
    owned = request.owned
    is_previous = request.epoch == member.previous_epoch < member.epoch
    if is_previous and owned is not None and owned <= member.assigned:
        return member
    text = f"the member's epoch is {member.epoch}, and not {request.epoch}: it must give up its partitions and join"
    return HeartbeatAnswer(GroupError.FENCED_MEMBER_EPOCH, text)
