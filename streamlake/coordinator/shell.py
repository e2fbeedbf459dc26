"""All groups of this broker: routes events to their machines, keeps their time, makes their generations durable.

The machines (classic/group.py) are pure; here are the futures of waiting members, one timer per group on the loop, and
the rows in the metadata store. Events are plain calls without an await before the machine has seen them, so requests of
one connection act in their order. Whatever writes a group's row holds the group's lock, so rows are written in order
and a deletion cannot overtake a save; everything else of a group needs no lock: it happens between two awaits.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import structlog

from streamlake.cluster.store.groups import GroupRow, GroupStore
from streamlake.coordinator.classic.api import (
    GroupDescription,
    GroupError,
    GroupListing,
    JoinAnswer,
    JoinRequest,
    LeavingMember,
    Save,
    State,
    SyncAnswer,
    SyncRequest,
)
from streamlake.coordinator.classic.group import Group
from streamlake.coordinator.classic.join_phase import NEVER_MS
from streamlake.coordinator.classic.member import decode_members, protocols_size_bytes
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.clock import Clock
from streamlake.core.errors import Closed, Corrupt, Fenced, StreamLakeError
from streamlake.core.ids import Ids
from streamlake.core.tasks import Supervisor
from streamlake.telemetry.metric import Metric, counter, gauge

CLASSIC = "classic"
EXPIRY_INTERVAL_S = 600.0  # offsets.retention.check.interval.ms
TIMER_MAX_S = 3_600.0  # far deadlines are looked at again after this: a loop's timer need not bear any number
log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Entry:
    """A group and what keeps it running."""

    group: Group
    stored: bool = False  # it has a row, or is about to have one
    empty_since_ms: int = 0  # wall clock
    last_commit_ms: int = 0  # wall clock, of the last commit of offsets that this process has seen
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    timer: asyncio.TimerHandle | None = None
    timer_at_ms: int = NEVER_MS
    counted_bytes: int = 0


class Groups:
    def __init__(self, store: GroupStore, clock: Clock, ids: Ids, settings: GroupSettings | None = None) -> None:
        self.settings = settings or GroupSettings()
        self.expired_members = 0
        self.failed_saves = 0
        self.refused_joins = 0
        self.metadata_bytes = 0
        self._store = store
        self._clock = clock
        self._ids = ids
        self._entries: dict[str, Entry] = {}
        self._tasks = Supervisor()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def member_count(self) -> int:
        return sum(entry.group.member_count for entry in list(self._entries.values()))  # scraped on another thread

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
        """Load all groups. Their members go on without a rebalance if they heartbeat within their session timeout."""
        for row in await self._store.load_groups():
            entry = Entry(self._restore(row), stored=True, empty_since_ms=row.updated_ms)
            self._entries[row.group_id] = entry
            self._settle(entry)
        self._tasks.start("expire groups", self._expire_forever())

    async def stop(self) -> None:
        """Members that still wait are answered: their coordinator goes away."""
        await self._tasks.stop()
        for entry in self._entries.values():
            entry.group.abandon(GroupError.NOT_COORDINATOR)
            self._answer_all(entry)
            if entry.timer is not None:
                entry.timer.cancel()

    # --- members

    async def join(self, request: JoinRequest) -> JoinAnswer:
        """Waits until the rebalance that it starts or joins is over."""
        if not request.group_id:
            return JoinAnswer(GroupError.INVALID_GROUP_ID, request.member_id)
        entry = self._entries.get(request.group_id)
        if entry is None and request.member_id:
            return JoinAnswer(GroupError.UNKNOWN_MEMBER_ID, request.member_id)
        if not self._has_room(entry, protocols_size_bytes(request.protocols)):
            return JoinAnswer(GroupError.COORDINATOR_NOT_AVAILABLE, request.member_id)
        entry = entry or self._create(request.group_id)
        token: asyncio.Future[JoinAnswer] = asyncio.get_running_loop().create_future()
        entry.group.join(request, token, self._now_ms())
        self._settle(entry)
        return await token

    async def sync(self, request: SyncRequest) -> SyncAnswer:
        """Waits until the leader's assignment is durable."""
        entry = self._entries.get(request.group_id)
        if entry is None:
            return SyncAnswer(_unknown(request.group_id))
        if not self._has_room(entry, sum(map(len, request.assignments.values()))):
            return SyncAnswer(GroupError.COORDINATOR_NOT_AVAILABLE)
        token: asyncio.Future[SyncAnswer] = asyncio.get_running_loop().create_future()
        entry.group.sync(request, token, self._now_ms())
        self._settle(entry)
        return await token

    def heartbeat(self, group_id: str, member_id: str, group_instance_id: str | None, generation: int) -> GroupError:
        entry = self._entries.get(group_id)
        if entry is None:
            return _unknown(group_id)
        error = entry.group.heartbeat(member_id, group_instance_id, generation, self._now_ms())
        self._set_timer(entry)
        return error

    async def leave(self, group_id: str, leaving: Sequence[LeavingMember]) -> tuple[GroupError, list[GroupError]]:
        """The error of the request, and one per member."""
        if not group_id:
            return GroupError.INVALID_GROUP_ID, []
        entry = self._entries.get(group_id)
        if entry is None:
            return GroupError.NONE, [GroupError.UNKNOWN_MEMBER_ID] * len(leaving)
        now_ms = self._now_ms()
        results = [entry.group.leave(member, now_ms) for member in leaving]
        self._settle(entry)
        return GroupError.NONE, results

    # --- administration

    def describe(self, group_id: str) -> GroupDescription | None:
        """None: there is no such group."""
        entry = self._entries.get(group_id)
        return None if entry is None else entry.group.describe()

    def list(self, states: Collection[str] = (), types: Collection[str] = ()) -> list[GroupListing]:
        """By id; `states` and `types` choose, in any case of letters, all if empty (KIP-518, KIP-848)."""
        wanted = {state.lower() for state in states}
        if types and CLASSIC not in {kind.lower() for kind in types}:
            return []
        return [
            GroupListing(group_id, entry.group.protocol_type, entry.group.state.value)
            for group_id, entry in sorted(self._entries.items())
            if not wanted or entry.group.state.value.lower() in wanted
        ]

    async def delete(self, group_ids: Collection[str]) -> dict[str, GroupError]:
        """Delete empty groups with their offsets. One result per id."""
        distinct = list(dict.fromkeys(group_ids))
        return dict(zip(distinct, await asyncio.gather(*map(self._delete, distinct)), strict=True))

    async def expire(self) -> int:
        """Delete groups that have been empty, and whose offsets are older, than the retention (KIP-211); how many."""
        deleted = 0
        for group_id, entry in list(self._entries.items()):
            if entry.group.vacant and await self._is_stale(entry):
                deleted += await self._delete(group_id, only_if_stale=True) is GroupError.NONE
        return deleted

    # --- for offsets.py

    def check_commit(
        self, group_id: str, member_id: str, group_instance_id: str | None, generation: int, creates: bool
    ) -> tuple[GroupError, Entry | None]:
        """May it commit now? A consumer without a group (generation -1) makes an empty group that holds its offsets,
        if there is something to hold (`creates`); the caller stores it before it awaits anything else."""
        entry = self._entries.get(group_id)
        if entry is None:
            if generation >= 0:
                return GroupError.GROUP_ID_NOT_FOUND, None
            if not creates:
                return GroupError.NONE, None
            if not self._has_room(None, 0):
                return GroupError.COORDINATOR_NOT_AVAILABLE, None
            entry = self._create(group_id)
        error = entry.group.check_commit(member_id, group_instance_id, generation, self._now_ms())
        if error is GroupError.NONE:
            entry.last_commit_ms = self._clock.now_ms()
        self._set_timer(entry)
        return error, entry

    def row_of_new(self, entry: Entry) -> GroupRow | None:
        """The row that a group which has none yet needs beside its first offsets; ask while holding the lock."""
        if entry.stored:
            return None
        entry.stored = True
        return entry.group.row(self._clock.now_ms())

    # --- the shell of the machines

    def _now_ms(self) -> int:
        return int(self._clock.boottime() * 1000)

    def _restore(self, row: GroupRow) -> Group:
        now_ms = self._now_ms()
        try:
            members = decode_members(row.members, now_ms)
        except Corrupt as error:
            log.error("members of a group lost; they must join again", group=row.group_id, error=str(error))
            members = []
        return Group.restored(row, members, now_ms, self.settings, self._ids.uuid)

    def _create(self, group_id: str) -> Entry:
        entry = Entry(Group(group_id, self.settings, self._ids.uuid), empty_since_ms=self._clock.now_ms())
        self._entries[group_id] = entry
        return entry

    def _has_room(self, entry: Entry | None, size_bytes: int) -> bool:
        full = self.metadata_bytes + size_bytes > self.settings.metadata_bytes_max
        if full or (entry is None and len(self._entries) >= self.settings.groups_max):
            self.refused_joins += 1
            return False
        return True

    def _settle(self, entry: Entry) -> None:
        """After each event: deliver answers, start saves, forget what is nobody's, set the timer."""
        group = entry.group
        self._answer_all(entry)
        self.metadata_bytes += group.size_bytes - entry.counted_bytes
        entry.counted_bytes = group.size_bytes
        if group.vacant and not entry.stored:
            self._forget(entry)  # made by a join that failed or lapsed: nothing of it was ever promised
        else:
            self._set_timer(entry)

    def _answer_all(self, entry: Entry) -> None:
        for effect in entry.group.take_effects():
            if isinstance(effect, Save):
                entry.stored = True
                if entry.group.state is State.EMPTY:
                    entry.empty_since_ms = self._clock.now_ms()
                row = entry.group.row(self._clock.now_ms())
                self._tasks.start(f"save group {row.group_id}", self._save(entry, effect, row))
            elif not effect.token.done():  # else its connection is gone
                effect.token.set_result(effect.answer)

    async def _save(self, entry: Entry, save: Save, row: GroupRow) -> None:
        error = GroupError.COORDINATOR_NOT_AVAILABLE
        try:
            async with entry.lock:
                await self._store.save_group(row)
            error = GroupError.NONE
            log.info("group saved", group=row.group_id, generation=row.generation, reason=entry.group.reason)
        except StreamLakeError as failed:
            self.failed_saves += 1
            error = store_error(failed)
            log.warning("group not saved", group=row.group_id, generation=row.generation, error=str(failed))
        finally:  # also if we are cancelled: members wait for it
            entry.group.saved(save, error, self._now_ms())
            self._settle(entry)

    def _set_timer(self, entry: Entry) -> None:
        """Only an earlier deadline needs a new timer: one that comes too early finds nothing due and is set again."""
        if entry.group.wake_ms >= entry.timer_at_ms:
            return
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer_at_ms = entry.group.wake_ms
        delay_s = min(max(entry.timer_at_ms - self._now_ms(), 0) / 1000, TIMER_MAX_S)
        entry.timer = asyncio.get_running_loop().call_later(delay_s, self._tick, entry)

    def _tick(self, entry: Entry) -> None:
        before = entry.group.expired_members
        entry.group.tick(self._now_ms())
        self.expired_members += entry.group.expired_members - before
        entry.timer_at_ms = NEVER_MS
        entry.timer = None
        self._settle(entry)

    def _forget(self, entry: Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
        self._entries.pop(entry.group.group_id, None)

    async def _delete(self, group_id: str, only_if_stale: bool = False) -> GroupError:
        entry = self._entries.get(group_id)
        if entry is None:
            return GroupError.GROUP_ID_NOT_FOUND
        async with entry.lock:  # behind any save, so that no row comes back after it was deleted
            if self._entries.get(group_id) is not entry:
                return GroupError.GROUP_ID_NOT_FOUND
            if not entry.group.vacant or (only_if_stale and not self._looks_stale(entry)):
                return GroupError.NON_EMPTY_GROUP
            # From here to the store's queue nothing is awaited: whoever commits or joins next makes a new group, and
            # its writes queue behind this deletion. If the broker dies first, the group is simply still there.
            entry.group.die()
            self._forget(entry)
            try:
                await self._store.delete_groups([group_id])
            except StreamLakeError as failed:
                entry.group.revive()
                self._entries.setdefault(group_id, entry)
                return store_error(failed)
        return GroupError.NONE

    async def _expire_forever(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_S)
            try:
                await self.expire()
            except StreamLakeError as error:
                log.warning("empty groups could not be expired; retrying later", error=str(error))

    async def _is_stale(self, entry: Entry) -> bool:
        if not self._looks_stale(entry):
            return False
        newest_ms = max((o.commit_ms for o in await self._store.fetch_offsets(entry.group.group_id)), default=0)
        entry.last_commit_ms = max(entry.last_commit_ms, newest_ms)
        return self._looks_stale(entry)

    def _looks_stale(self, entry: Entry) -> bool:
        """By what is in memory: a commit of a former life of this broker may be younger."""
        active_ms = max(entry.empty_since_ms, entry.last_commit_ms)
        return active_ms + self.settings.offsets_retention_ms <= self._clock.now_ms()


def store_error(error: StreamLakeError) -> GroupError:
    """A zombie is no coordinator any more; everything else passes, and clients try again."""
    return GroupError.NOT_COORDINATOR if isinstance(error, Fenced | Closed) else GroupError.COORDINATOR_NOT_AVAILABLE


def _unknown(group_id: str) -> GroupError:
    return GroupError.UNKNOWN_MEMBER_ID if group_id else GroupError.INVALID_GROUP_ID
