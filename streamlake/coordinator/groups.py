"""All groups of this broker: routes requests to their machines, limits them, deletes and expires empty ones.

The machines (classic/group.py) are pure, the shell (shell.py) runs them; here are the requests, what all groups
together may take, and the rows in the metadata store.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from streamlake.cluster.store.groups import GroupRow, GroupStore
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
from streamlake.coordinator.classic.group import Group
from streamlake.coordinator.classic.member import encode_members, protocols_size_bytes
from streamlake.coordinator.classic.stored import CLASSIC, SavedGroup
from streamlake.coordinator.machine import Saved
from streamlake.coordinator.settings import GroupSettings
from streamlake.coordinator.shell import Entry, Shell
from streamlake.core.clock import Clock
from streamlake.core.errors import Corrupt, StreamLakeError
from streamlake.core.ids import Ids
from streamlake.core.tasks import Supervisor
from streamlake.telemetry.metric import Metric, counter, gauge

EXPIRY_INTERVAL_S = 600.0  # offsets.retention.check.interval.ms
log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class GroupEntry(Entry[Group]):
    empty_since_ms: int = 0  # wall clock
    last_commit_ms: int = 0  # wall clock, of the last commit of offsets that this process has seen
    counted_bytes: int = 0
    counted_members: int = 0
    counted_expired: int = 0


class Groups:
    def __init__(self, store: GroupStore, clock: Clock, ids: Ids, settings: GroupSettings | None = None) -> None:
        self.settings = settings or GroupSettings()
        self.expired_members = 0
        self.refused_joins = 0
        self.metadata_bytes = 0
        self._store = store
        self._clock = clock
        self._ids = ids
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
        """Load all groups. Members that heartbeat within their session timeout continue without a rebalance."""
        for row in await self._store.load_groups():
            entry = GroupEntry(row.group_id, self._restore(row), stored=True, empty_since_ms=row.updated_ms)
            self._entries[row.group_id] = entry
            self._shell.settle(entry)
        self._tasks.start("expire groups", self._expire_forever())

    async def stop(self) -> None:
        """Members that still wait are answered: this is no longer their coordinator."""
        await self._tasks.stop()
        await self._shell.stop(list(self._entries.values()))

    # --- members

    async def join(self, request: JoinRequest) -> JoinAnswer:
        """Waits until the rebalance that it starts or joins is over."""
        if not request.group_id:
            return JoinAnswer(GroupError.INVALID_GROUP_ID, request.member_id)
        entry = self._entries.get(request.group_id)
        if entry is None and request.member_id:
            return JoinAnswer(GroupError.UNKNOWN_MEMBER_ID, request.member_id)
        if not self._has_capacity(entry, protocols_size_bytes(request.protocols)):
            return JoinAnswer(GroupError.COORDINATOR_NOT_AVAILABLE, request.member_id)
        entry = entry or self._create(request.group_id)
        token: asyncio.Future[JoinAnswer] = asyncio.get_running_loop().create_future()
        entry.machine.join(request, token, self._shell.now_ms())
        self._shell.settle(entry)
        return await token

    async def sync(self, request: SyncRequest) -> SyncAnswer:
        """Waits until the leader's assignment is durable."""
        entry = self._entries.get(request.group_id)
        if entry is None:
            return SyncAnswer(_unknown(request.group_id))
        if not self._has_capacity(entry, sum(map(len, request.assignments.values()))):
            return SyncAnswer(GroupError.COORDINATOR_NOT_AVAILABLE)
        token: asyncio.Future[SyncAnswer] = asyncio.get_running_loop().create_future()
        entry.machine.sync(request, token, self._shell.now_ms())
        self._shell.settle(entry)
        return await token

    def heartbeat(self, group_id: str, member_id: str, group_instance_id: str | None, generation: int) -> GroupError:
        entry = self._entries.get(group_id)
        if entry is None:
            return _unknown(group_id)
        error = entry.machine.heartbeat(member_id, group_instance_id, generation, self._shell.now_ms())
        self._shell.set_timer(entry)
        return error

    async def leave(self, group_id: str, leaving: Sequence[LeavingMember]) -> tuple[GroupError, list[GroupError]]:
        """The error of the request, and one per member."""
        if not group_id:
            return GroupError.INVALID_GROUP_ID, []
        entry = self._entries.get(group_id)
        if entry is None:
            return GroupError.NONE, [GroupError.UNKNOWN_MEMBER_ID] * len(leaving)
        now_ms = self._shell.now_ms()
        results = [entry.machine.leave(member, now_ms) for member in leaving]
        self._shell.settle(entry)
        return GroupError.NONE, results

    # --- administration

    def describe(self, group_id: str) -> GroupDescription | None:
        """None: there is no such group."""
        entry = self._entries.get(group_id)
        return None if entry is None else entry.machine.describe()

    def list(self, states: Collection[str] = (), types: Collection[str] = ()) -> list[GroupListing]:
        """By id; `states` and `types` select, in any case of letters, all if empty (KIP-518, KIP-848)."""
        wanted = {state.lower() for state in states}
        if types and CLASSIC not in {kind.lower() for kind in types}:
            return []
        return [
            GroupListing(group_id, entry.machine.protocol_type, entry.machine.state.value)
            for group_id, entry in sorted(self._entries.items())
            if not wanted or entry.machine.state.value.lower() in wanted
        ]

    async def delete(self, group_ids: Collection[str]) -> dict[str, GroupError]:
        """Delete empty groups with their offsets. One result per id."""
        distinct = list(dict.fromkeys(group_ids))
        return dict(zip(distinct, await asyncio.gather(*map(self._delete, distinct)), strict=True))

    async def expire(self) -> int:
        """Delete groups that have been empty, and whose offsets are older, than the retention (KIP-211); how many."""
        deleted = 0
        for group_id, entry in list(self._entries.items()):
            if entry.machine.vacant and await self._is_stale(entry):
                deleted += await self._delete(group_id, only_if_stale=True) is GroupError.NONE
        return deleted

    # --- for offsets.py

    def check_commit(
        self, group_id: str, member_id: str, group_instance_id: str | None, generation: int, creates: bool
    ) -> tuple[GroupError, GroupEntry | None]:
        """Whether this member may commit now. A consumer without a group (generation -1) creates an empty group that
        holds its offsets, if it has any (`creates`); the caller stores it before it awaits anything else."""
        entry = self._entries.get(group_id)
        if entry is None:
            if generation >= 0:
                return GroupError.GROUP_ID_NOT_FOUND, None
            if not creates:
                return GroupError.NONE, None
            if not self._has_capacity(None, 0):
                return GroupError.COORDINATOR_NOT_AVAILABLE, None
            entry = self._create(group_id)
        error = entry.machine.check_commit(member_id, group_instance_id, generation, self._shell.now_ms())
        if error is GroupError.NONE:
            entry.last_commit_ms = self._clock.now_ms()
        self._shell.set_timer(entry)
        return error, entry

    def row_of_new(self, entry: GroupEntry) -> GroupRow | None:
        """The row to store with the first offsets of a group that has none yet; None if it has. Call it with the lock
        held."""
        if entry.stored:
            return None
        entry.stored = True
        return entry.machine.snapshot().row(entry.key, self._clock.now_ms())

    # --- one group

    def _restore(self, row: GroupRow) -> Group:
        saved, now_ms = SavedGroup.of(row), self._shell.now_ms()
        try:
            return Group.restored(row.group_id, saved, now_ms, self.settings, self._ids.uuid)
        except Corrupt as error:
            log.error("members of a group lost; they must join again", group=row.group_id, error=str(error))
            return Group.restored(
                row.group_id, replace(saved, blob=encode_members(())), now_ms, self.settings, self._ids.uuid
            )

    def _create(self, group_id: str) -> GroupEntry:
        machine = Group(group_id, self.settings, self._ids.uuid)
        entry = self._entries[group_id] = GroupEntry(group_id, machine, empty_since_ms=self._clock.now_ms())
        return entry

    async def _write(self, entry: GroupEntry, saved: Saved, now_ms: int) -> None:
        assert isinstance(saved, SavedGroup), f"groups of kind {saved.kind} have no table yet"
        await self._store.save_group(saved.row(entry.key, now_ms))

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

    async def _delete(self, group_id: str, only_if_stale: bool = False) -> GroupError:
        entry = self._entries.get(group_id)
        if entry is None:
            return GroupError.GROUP_ID_NOT_FOUND
        async with entry.lock:  # behind any save, so that no row comes back after it was deleted
            if self._entries.get(group_id) is not entry:
                return GroupError.GROUP_ID_NOT_FOUND
            if not entry.machine.vacant or (only_if_stale and not self._looks_stale(entry)):
                return GroupError.NON_EMPTY_GROUP
            # Nothing is awaited from here to the queue of the store: the next commit or join creates a new group, and
            # its writes are queued behind this deletion. If the broker dies first, the group still exists.
            entry.machine.die()
            self._drop(entry)
            try:
                await self._store.delete_groups([group_id])
            except StreamLakeError as failed:
                entry.machine.revive()
                self._entries.setdefault(group_id, entry)
                return store_error(failed)
        return GroupError.NONE

    # --- expiry

    async def _expire_forever(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_S)
            try:
                await self.expire()
            except StreamLakeError as error:
                log.warning("empty groups could not be expired; retrying later", error=str(error))

    async def _is_stale(self, entry: GroupEntry) -> bool:
        if not self._looks_stale(entry):
            return False
        newest_ms = max((o.commit_ms for o in await self._store.fetch_offsets(entry.key)), default=0)
        entry.last_commit_ms = max(entry.last_commit_ms, newest_ms)
        return self._looks_stale(entry)

    def _looks_stale(self, entry: GroupEntry) -> bool:
        """As far as memory shows: a commit of an earlier life of this broker may be more recent."""
        active_ms = max(entry.empty_since_ms, entry.last_commit_ms)
        return active_ms + self.settings.offsets_retention_ms <= self._clock.now_ms()


def _unknown(group_id: str) -> GroupError:
    return GroupError.UNKNOWN_MEMBER_ID if group_id else GroupError.INVALID_GROUP_ID
