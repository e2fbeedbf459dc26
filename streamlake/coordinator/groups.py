"""The groups of this broker's slots: routes requests to their machines, limits them, deletes and expires empty ones.

The machines (classic/group.py, consumer/group.py) are pure, the shell (shell.py) runs them; here are the requests, what
all groups together may take, and the rows in the metadata store. A group is of the kind of its members: an empty one
becomes a group of the other kind with the first member that joins.

A broker that gets a slot (cluster/slots.py) reads its groups: stable ones go on without a rebalance. When it loses one
it drops them, and their members look for the new coordinator. A group keeps the epoch that its slot had when it was
read, which fences all that it writes: what was decided on a state that another broker may have changed since, or by a
broker that does not know yet that it has lost the slot, changes nothing.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from streamlake.cluster.slots import Slots
from streamlake.cluster.store.fences import SlotEpoch
from streamlake.cluster.store.groups import GroupRow, GroupStore
from streamlake.cluster.store.slots import slot_of
from streamlake.coordinator.classic.api import (
    GroupDescription,
    GroupError,
    GroupListing,
    JoinAnswer,
    JoinRequest,
    LeavingMember,
    SyncAnswer,
    SyncRequest,
    store_error,
)
from streamlake.coordinator.classic.group import CONSUMERS, Group
from streamlake.coordinator.classic.member import protocols_size_bytes
from streamlake.coordinator.classic.stored import SavedGroup
from streamlake.coordinator.consumer.api import ConsumerGroupDescription, HeartbeatAnswer, HeartbeatRequest, Shapes
from streamlake.coordinator.consumer.group import ConsumerGroup
from streamlake.coordinator.consumer.stored import SavedConsumerGroup
from streamlake.coordinator.held_slots import HeldSlots, load_in_the_end
from streamlake.coordinator.kinds import AnyGroup, Kinds, kind_of
from streamlake.coordinator.machine import Saved
from streamlake.coordinator.settings import GroupSettings
from streamlake.coordinator.shell import Entry, Shell
from streamlake.core.clock import Clock
from streamlake.core.errors import StreamLakeError
from streamlake.core.ids import Ids
from streamlake.core.tasks import Supervisor
from streamlake.telemetry.metric import Metric, counter, gauge

EXPIRY_INTERVAL_S = 600.0  # offsets.retention.check.interval.ms
SETTLED = ("Empty", "Stable")  # states of both kinds of groups
log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class GroupEntry(Entry[AnyGroup]):
    slot: SlotEpoch = field(kw_only=True)  # as of when the group was read, or created
    empty_since_ms: int = 0  # wall clock
    counted_bytes: int = 0
    counted_members: int = 0
    counted_expired: int = 0


class Groups:
    """After `start` the groups of our slots are there; those of slots that become ours later are read in the
    background."""

    def __init__(
        self,
        store: GroupStore,
        slots: Slots,
        clock: Clock,
        ids: Ids,
        settings: GroupSettings | None = None,
        shapes: Shapes = lambda name: None,
    ) -> None:
        """`shapes` has the topics that consumer groups assign."""
        self.loaded: list[Callable[[], None]] = []  # called when groups have been read that were elsewhere
        self.settings = settings or GroupSettings()
        self.expired_members = 0
        self.refused_joins = 0
        self.metadata_bytes = 0
        self._store = store
        self._slots = slots
        self._held = HeldSlots(slots)
        self._clock = clock
        self._kinds = Kinds(self.settings, shapes, ids.uuid)
        self._entries: dict[str, GroupEntry] = {}
        self._shell = Shell[GroupEntry](clock, self._write, self._settled)
        self._tasks = Supervisor()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def member_count(self) -> int:
        return sum(entry.machine.member_count for entry in list(self._entries.values()))  # scraped on another thread

    @property
    def failed_saves(self) -> int:
        return self._shell.failed_saves

    def metrics(self) -> Iterable[Metric]:
        return (
            gauge("streamlake_groups", "Consumer groups.", lambda: len(self)),
            gauge("streamlake_group_members", "Members of consumer groups.", lambda: self.member_count),
            counter("streamlake_group_saves_failed", "Group generations that could not be stored.",
                lambda: self.failed_saves),
            counter("streamlake_group_joins_refused", "JoinGroup requests refused because the coordinator is full.",
                lambda: self.refused_joins),
            counter("streamlake_group_members_expired", "Group members removed because their session timed out.",
                lambda: self.expired_members),
        )  # fmt: skip

    async def start(self) -> None:
        """Load the groups of our slots. Members that heartbeat within their session timeout continue without a
        rebalance."""
        self._slots.listeners.append(self._slots_changed)
        await self._load(self._follow())
        self._tasks.start("expire offsets", self._expire_forever())

    async def stop(self) -> None:
        """Members that still wait are answered: this is no longer their coordinator."""
        self._slots.listeners[:] = [each for each in self._slots.listeners if each != self._slots_changed]
        await self._tasks.stop()
        await self._shell.stop(list(self._entries.values()))

    # --- members

    async def join(self, request: JoinRequest) -> JoinAnswer:
        """Waits until the rebalance that it starts or joins is over."""
        if not request.group_id:
            return JoinAnswer(GroupError.INVALID_GROUP_ID, request.member_id)
        entry = self._entries.get(request.group_id)
        if entry is None and (refused := self.refusal(request.group_id)) is not None:
            return JoinAnswer(refused, request.member_id)
        if entry is None and request.member_id:
            return JoinAnswer(GroupError.UNKNOWN_MEMBER_ID, request.member_id)
        if not self._has_capacity(entry, protocols_size_bytes(request.protocols)):
            return JoinAnswer(GroupError.COORDINATOR_NOT_AVAILABLE, request.member_id)
        entry = entry or self._create(request.group_id)
        if isinstance(entry.machine, ConsumerGroup):
            if not entry.machine.vacant:  # there is no migration of groups with members
                return JoinAnswer(GroupError.INCONSISTENT_GROUP_PROTOCOL, request.member_id)
            self._change_kind(entry, self._kinds.classic(request.group_id))
        assert isinstance(entry.machine, Group)
        token: asyncio.Future[JoinAnswer] = asyncio.get_running_loop().create_future()
        entry.machine.join(request, token, self._shell.now_ms())
        self._shell.settle(entry)
        return await token

    async def sync(self, request: SyncRequest) -> SyncAnswer:
        """Waits until the leader's assignment is durable."""
        entry = self._entries.get(request.group_id)
        if entry is None:
            return SyncAnswer(self._unknown(request.group_id))
        if not isinstance(entry.machine, Group):
            return SyncAnswer(GroupError.UNKNOWN_MEMBER_ID)
        if not self._has_capacity(entry, sum(map(len, request.assignments.values()))):
            return SyncAnswer(GroupError.COORDINATOR_NOT_AVAILABLE)
        token: asyncio.Future[SyncAnswer] = asyncio.get_running_loop().create_future()
        entry.machine.sync(request, token, self._shell.now_ms())
        self._shell.settle(entry)
        return await token

    def heartbeat(self, group_id: str, member_id: str, group_instance_id: str | None, generation: int) -> GroupError:
        entry = self._entries.get(group_id)
        if entry is None:
            return self._unknown(group_id)
        if not isinstance(entry.machine, Group):
            return GroupError.UNKNOWN_MEMBER_ID
        error = entry.machine.heartbeat(member_id, group_instance_id, generation, self._shell.now_ms())
        self._shell.set_timer(entry)
        return error

    async def leave(self, group_id: str, leaving: Sequence[LeavingMember]) -> tuple[GroupError, list[GroupError]]:
        """The error of the request, and one per member."""
        if not group_id:
            return GroupError.INVALID_GROUP_ID, []
        entry = self._entries.get(group_id)
        if entry is None and (refused := self.refusal(group_id)):
            return refused, []
        if entry is None or not isinstance(entry.machine, Group):
            return GroupError.NONE, [GroupError.UNKNOWN_MEMBER_ID] * len(leaving)
        now_ms = self._shell.now_ms()
        results = [entry.machine.leave(member, now_ms) for member in leaving]
        self._shell.settle(entry)
        return GroupError.NONE, results

    # --- for consumer_members.py

    def of_members(self, group_id: str, size_bytes: int, joins: bool) -> GroupEntry | GroupError:
        """The consumer group; if its first member joins, a new one, or what was an empty classic group."""
        entry = self._entries.get(group_id)
        if entry is None and (refused := self.refusal(group_id)) is not None:
            return refused
        if entry is None and not joins:
            return GroupError.GROUP_ID_NOT_FOUND
        if not self._has_capacity(entry, size_bytes):
            return GroupError.COORDINATOR_NOT_AVAILABLE
        if entry is None:
            return self._add(group_id, self._kinds.consumer(group_id))
        if isinstance(entry.machine, Group):
            if not joins or not entry.machine.vacant:
                return GroupError.GROUP_ID_NOT_FOUND
            self._change_kind(entry, self._kinds.consumer(group_id))
        return entry

    async def consumer_heartbeat(
        self, entry: GroupEntry, request: HeartbeatRequest, matched: frozenset[str] | None
    ) -> HeartbeatAnswer:
        """Call it without an await since `of_members`. Waits until what it is answered is durable."""
        assert isinstance(entry.machine, ConsumerGroup)
        token: asyncio.Future[HeartbeatAnswer] = asyncio.get_running_loop().create_future()
        entry.machine.heartbeat(request, token, self._shell.now_ms(), matched)
        self._shell.settle(entry)
        return await token

    def consumer_entries(self) -> list[GroupEntry]:
        return [entry for entry in self._entries.values() if isinstance(entry.machine, ConsumerGroup)]

    def topics_changed(self, entry: GroupEntry, matched: Mapping[str, frozenset[str]]) -> None:
        if isinstance(entry.machine, ConsumerGroup) and not entry.dropped:
            entry.machine.topics_changed(matched, self._shell.now_ms())
            self._shell.settle(entry)

    def knows_pattern(self, group_id: str, pattern: str) -> bool:
        entry = self._entries.get(group_id)
        return entry is not None and isinstance(entry.machine, ConsumerGroup) and entry.machine.knows(pattern)

    # --- administration

    def describe(self, group_id: str) -> GroupDescription | GroupError:
        """GROUP_ID_NOT_FOUND: there is no such classic group."""
        entry = self._entries.get(group_id)
        if entry is None or not isinstance(entry.machine, Group):
            return self.refusal(group_id) or GroupError.GROUP_ID_NOT_FOUND
        return entry.machine.describe()

    def describe_consumer(self, group_id: str) -> ConsumerGroupDescription | GroupError:
        """GROUP_ID_NOT_FOUND: there is no such consumer group."""
        entry = self._entries.get(group_id)
        if entry is None or not isinstance(entry.machine, ConsumerGroup):
            return self.refusal(group_id) or GroupError.GROUP_ID_NOT_FOUND
        return entry.machine.describe()

    def list(self, states: Collection[str] = (), types: Collection[str] = ()) -> list[GroupListing] | GroupError:
        """The groups of our slots, by id; COORDINATOR_LOAD_IN_PROGRESS if not all of them are here yet. `states` and
        `types` select, in any case of letters, all if empty (KIP-518, KIP-848)."""
        if self._held.loading:
            return GroupError.COORDINATOR_LOAD_IN_PROGRESS
        wanted, kinds = {state.lower() for state in states}, {kind.lower() for kind in types}
        listings = (
            GroupListing(group_id, entry.machine.protocol_type, entry.machine.state.value, kind_of(entry.machine))
            for group_id, entry in sorted(self._entries.items())
            if not kinds or kind_of(entry.machine) in kinds
        )
        return [listing for listing in listings if not wanted or listing.state.lower() in wanted]

    async def delete(self, group_ids: Collection[str]) -> dict[str, GroupError]:
        """Delete empty groups with their offsets. One result per id."""
        distinct = list(dict.fromkeys(group_ids))
        return dict(zip(distinct, await asyncio.gather(*map(self._delete, distinct)), strict=True))

    async def expire(self) -> int:
        """Delete committed offsets that are older than the retention (KIP-211): those of groups that have been empty
        for as long, and of topics to which a group of consumers does not subscribe (any more). Then empty groups that
        have no offsets; how many."""
        until_ms = self._clock.now_ms() - self.settings.offsets_retention_ms
        oldest_ms = await self._store.oldest_commits(self._held.epochs)
        deleted = 0
        for group_id, entry in list(self._entries.items()):
            has_none = group_id not in oldest_ms
            if oldest_ms.get(group_id, until_ms + 1) <= until_ms:
                has_none = await self._expire_offsets(entry, until_ms)
            if has_none and entry.machine.vacant:
                deleted += await self._delete(group_id, only_without_offsets=True) is GroupError.NONE
        return deleted

    # --- for offsets.py

    def check_commit(
        self,
        group_id: str,
        member_id: str,
        group_instance_id: str | None,
        generation: int,
        creates: bool,
        is_transactional: bool = False,
    ) -> tuple[GroupError, GroupEntry | None]:
        """Whether this member may commit now. A consumer without a group (generation -1) creates an empty group that
        holds its offsets, if it has any (`creates`); the caller stores it before it awaits anything else. In a
        transaction (`is_transactional`) producers may commit that know the group's name only (before KIP-447), and
        members while the group rebalances: its generation is still theirs."""
        entry = self._entries.get(group_id)
        if entry is None:
            if refused := self.refusal(group_id):
                return refused, None
            if generation >= 0:
                return GroupError.GROUP_ID_NOT_FOUND, None
            if not creates:
                return GroupError.NONE, None
            if not self._has_capacity(None, 0):
                return GroupError.COORDINATOR_NOT_AVAILABLE, None
            entry = self._create(group_id)
        if is_transactional and generation < 0 and not member_id and group_instance_id is None:
            error = GroupError.NONE
        else:
            error = entry.machine.check_commit(member_id, group_instance_id, generation, self._shell.now_ms())
            if is_transactional and error is GroupError.REBALANCE_IN_PROGRESS:
                error = GroupError.NONE
        self._shell.set_timer(entry)
        return error, entry

    def check_deletion(self, group_id: str) -> tuple[GroupError, GroupEntry | None]:
        """Whether committed offsets of this group may be deleted now; the caller does that before it awaits anything
        else. Those of topics to which it subscribes may not."""
        entry = self._entries.get(group_id)
        if not group_id:
            return GroupError.INVALID_GROUP_ID, None
        if entry is None:
            return self.refusal(group_id) or GroupError.GROUP_ID_NOT_FOUND, None
        may_not = entry.machine.member_count and entry.machine.protocol_type != CONSUMERS
        return (GroupError.NON_EMPTY_GROUP if may_not else GroupError.NONE), entry

    def check_fetch(self, group_id: str, member_id: str, epoch: int) -> GroupError:
        """Whether who is this member, in this epoch, may know the offsets (KIP-848). Members of classic groups do not
        say who they are, and a group that does not exist has none, as in Kafka."""
        entry = self._entries.get(group_id)
        if entry is None:
            return self.refusal(group_id) or GroupError.NONE
        machine = entry.machine
        return machine.check_fetch(member_id, epoch) if isinstance(machine, ConsumerGroup) else GroupError.NONE

    def refusal(self, group_id: str) -> GroupError | None:
        """Why nothing can be said of a group that is not here; None: it does not exist."""
        slot = slot_of(group_id)
        if slot not in self._held.epochs:
            return GroupError.NOT_COORDINATOR
        return GroupError.COORDINATOR_LOAD_IN_PROGRESS if slot in self._held.loading else None

    def row_of_new(self, entry: GroupEntry) -> GroupRow | None:
        """The row to store with the first offsets of a group that has none yet; None if it has. Call it with the lock
        held."""
        if entry.stored:
            return None
        entry.stored = True
        return entry.machine.snapshot().row(entry.key, self._clock.now_ms())

    async def make_durable(self, entry: GroupEntry) -> None:
        """Before something else refers to the group: it has a row on return."""
        if entry.stored:
            return
        async with entry.lock:
            if (row := self.row_of_new(entry)) is None:
                return
            try:
                await self._store.save_group(row, entry.slot)
            except BaseException:
                entry.stored = False
                raise

    # --- slots

    def _slots_changed(self) -> None:
        gained = self._follow()
        log.info("slots of groups changed", gained=len(gained), held=len(self._held.epochs))
        if gained:
            self._tasks.start("load groups", load_in_the_end(self._load, gained, "groups"))

    def _follow(self) -> Sequence[SlotEpoch]:
        """Drop the groups of slots that were lost; the slots to load."""
        lost, gained = self._held.follow()
        for entry in [entry for entry in self._entries.values() if entry.slot.slot in lost]:
            self._shell.drop(entry)  # requests that wait are answered
            self.metadata_bytes -= entry.counted_bytes
            del self._entries[entry.key]
        return gained

    async def _load(self, slots: Sequence[SlotEpoch]) -> None:
        """Read the groups of these slots. Their rows are as the former owner has left them: its later writes are
        Fenced since before we had the slots."""
        rows: dict[int, list[GroupRow]] = {epoch.slot: [] for epoch in slots}
        for row in await self._store.load_groups(rows):
            rows[slot_of(row.group_id)].append(row)
        for epoch in slots:
            if not self._held.has(epoch):
                continue  # lost meanwhile; should it be ours again, it is loaded again
            for row in rows[epoch.slot]:
                group, is_whole = self._kinds.restored(row, self._shell.now_ms())
                # Whose members were lost may be in use: its offsets wait for them.
                empty_since_ms = row.updated_ms if is_whole else self._clock.now_ms()
                entry = GroupEntry(row.group_id, group, stored=True, slot=epoch, empty_since_ms=empty_since_ms)
                self._entries[row.group_id] = entry
                self._shell.settle(entry)
            self._held.loaded(epoch)
            if rows[epoch.slot]:
                await asyncio.sleep(0)  # thousands of groups in one go would block the loop
        for tell in self.loaded:
            tell()

    def _unknown(self, group_id: str) -> GroupError:
        if not group_id:
            return GroupError.INVALID_GROUP_ID
        return self.refusal(group_id) or GroupError.UNKNOWN_MEMBER_ID

    # --- one group

    def _create(self, group_id: str) -> GroupEntry:
        return self._add(group_id, self._kinds.classic(group_id))

    def _add(self, group_id: str, machine: AnyGroup) -> GroupEntry:
        slot = self._held.epochs[slot_of(group_id)]
        entry = GroupEntry(group_id, machine, slot=slot, empty_since_ms=self._clock.now_ms())
        self._entries[group_id] = entry
        return entry

    def _change_kind(self, entry: GroupEntry, machine: AnyGroup) -> None:
        """It is empty: nothing of what it was remains but its offsets."""
        self._shell.release(entry)
        entry.machine, entry.counted_expired = machine, 0

    async def _write(self, entry: GroupEntry, saved: Saved, now_ms: int) -> None:
        assert isinstance(saved, SavedGroup | SavedConsumerGroup), f"groups of kind {saved.kind} have no table yet"
        await self._store.save_group(saved.row(entry.key, now_ms), entry.slot)

    def _has_capacity(self, entry: GroupEntry | None, size_bytes: int) -> bool:
        full = self.metadata_bytes + size_bytes > self.settings.metadata_bytes_max
        if full or (entry is None and len(self._entries) >= self.settings.groups_max):
            self.refused_joins += 1
            return False
        return True

    def _settled(self, entry: GroupEntry) -> None:
        """Count what an event has changed, and drop a group that has no members and nothing stored."""
        group = entry.machine
        self.metadata_bytes += group.size_bytes - entry.counted_bytes
        entry.counted_bytes = group.size_bytes
        self.expired_members += group.expired_members - entry.counted_expired
        entry.counted_expired = group.expired_members
        if entry.counted_members and not group.member_count:
            entry.empty_since_ms = self._clock.now_ms()
        entry.counted_members = group.member_count
        if group.vacant and not entry.stored:
            self._drop(entry)  # created by a join that failed or expired: no client was promised anything

    def _drop(self, entry: GroupEntry) -> None:
        self._shell.release(entry)
        self._entries.pop(entry.key, None)

    async def _delete(self, group_id: str, only_without_offsets: bool = False) -> GroupError:
        entry = self._entries.get(group_id)
        if entry is None:
            return self.refusal(group_id) or GroupError.GROUP_ID_NOT_FOUND
        async with entry.lock:  # behind any save, so that no row comes back after it was deleted
            if self._entries.get(group_id) is not entry:
                return GroupError.NOT_COORDINATOR if entry.dropped else GroupError.GROUP_ID_NOT_FOUND
            if not entry.machine.vacant:
                return GroupError.NON_EMPTY_GROUP
            # Nothing is awaited from here to the queue of the store: the next commit or join creates a new group, and
            # its writes are queued behind this deletion. If the broker dies first, the group still exists.
            entry.machine.die()
            self._drop(entry)
            try:
                deleted = await self._store.delete_group(group_id, entry.slot, only_without_offsets)
                # It may have offsets, or a transaction is to commit some.
                error = GroupError.NONE if deleted else GroupError.NON_EMPTY_GROUP
            except StreamLakeError as failed:
                error = store_error(failed)
            if error is not GroupError.NONE and self._held.has(entry.slot):
                entry.machine.revive()
                self._entries.setdefault(group_id, entry)
        return error

    # --- expiry

    async def _expire_forever(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_S)
            try:
                await self.expire()
            except StreamLakeError as error:
                log.warning("offsets could not be expired; retrying later", error=str(error))

    async def _expire_offsets(self, entry: GroupEntry, until_ms: int) -> bool:
        """Of one group, those that nobody relies on. Whether it has none now."""
        machine = entry.machine
        topics = machine.subscribes() if machine.state.value in SETTLED else None
        recently_empty = not machine.member_count and entry.empty_since_ms > until_ms
        if entry.dropped or topics is None or recently_empty:
            return False
        # Nothing is awaited from here to the queue of the store. What is decided on this state of the group is fenced
        # by the epoch of the slot under which it was read: if another broker has the slot by now, nothing is deleted.
        # A member that joins from here on hears of its generation when that is durable, which is behind this; and a
        # commit that overtakes this is younger than `until_ms`, and stays.
        count, has_none = await self._store.expire_offsets(entry.key, until_ms, topics, entry.slot)
        if count:
            log.info("offsets expired", group=entry.key, offsets=count, state=machine.state.value)
        return has_none
