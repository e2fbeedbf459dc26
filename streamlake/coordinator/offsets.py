"""Committed offsets of consumer groups: durable before they are acknowledged, read from where they are durable.

The metadata store is the only copy. Commits that arrive while one transaction is under way share the next one
(`Database`). A fetch sees committed rows only, so an offset that a consumer has seen never goes back. Whether a member
may commit is decided before the first await: a LeaveGroup or JoinGroup that follows a commit on the same connection
cannot make it fail.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from streamlake.cluster.store.groups import GroupStore, OffsetRow
from streamlake.coordinator.classic.api import GroupError, store_error
from streamlake.coordinator.groups import GroupEntry, Groups
from streamlake.core.clock import Clock
from streamlake.core.errors import StreamLakeError
from streamlake.telemetry.metric import Metric, counter


@dataclass(frozen=True, slots=True)
class CommitRequest:
    group_id: str  # empty for a consumer without a group, as in Kafka
    member_id: str
    group_instance_id: str | None
    generation: int  # -1: a consumer without a group
    offsets: Sequence[OffsetRow]  # `Offsets.commit` sets commit_ms


class Offsets:
    """`has_partition(topic, partition)` says whether offsets may be committed for it."""

    def __init__(
        self, groups: Groups, store: GroupStore, clock: Clock, has_partition: Callable[[str, int], bool]
    ) -> None:
        self.commits = 0
        self.failed_commits = 0
        self._groups = groups
        self._store = store
        self._clock = clock
        self._has_partition = has_partition

    def metrics(self) -> Iterable[Metric]:
        return (
            counter("streamlake_offset_commits", "OffsetCommit requests stored.", lambda: self.commits),
            counter("streamlake_offset_commits_failed", "OffsetCommit requests that could not be stored.",
                lambda: self.failed_commits),
        )  # fmt: skip

    async def commit(self, request: CommitRequest) -> list[GroupError]:
        """One result per offset, in order. NONE: it is durable. COORDINATOR_NOT_AVAILABLE: it may be."""
        results, accepted = self.accept(request.offsets)
        error, entry = self._groups.check_commit(
            request.group_id, request.member_id, request.group_instance_id, request.generation, creates=bool(accepted)
        )
        if error is not GroupError.NONE:
            return [error] * len(results)
        if entry is None or not accepted:
            return results
        try:
            await self._write(entry, request.group_id, accepted)
        except StreamLakeError as failed:
            self.failed_commits += 1
            return [store_error(failed) if result is GroupError.NONE else result for result in results]
        # The rows are on stable storage: after a crash right here the group continues from these offsets.
        self.commits += 1
        return results

    async def fetch(
        self, group_id: str, partitions: Collection[tuple[str, int]] | None = None
    ) -> list[OffsetRow] | GroupError:
        """Committed offsets by topic and partition, of all partitions if None; those without an offset are omitted. Of
        any group: they are read where its coordinator, whoever that is, has made them durable."""
        try:
            rows = await self._store.fetch_offsets(group_id)
        except StreamLakeError as failed:
            return store_error(failed)
        return _wanted(rows, partitions)

    async def fetch_stable(
        self, group_id: str, partitions: Collection[tuple[str, int]] | None = None
    ) -> tuple[list[OffsetRow], set[tuple[str, int]]] | GroupError:
        """As `fetch`, and the topics and partitions of which a transaction that is open is to commit an offset: what
        is committed of them may change without a word of the group's members (KIP-447)."""
        try:
            rows, pending = await self._store.fetch_with_pending(group_id)
        except StreamLakeError as failed:
            return store_error(failed)
        return _wanted(rows, partitions), pending if partitions is None else pending & set(partitions)

    async def delete(
        self, group_id: str, partitions: Sequence[tuple[str, int]]
    ) -> tuple[GroupError, Sequence[GroupError]]:
        """Delete what is committed for these topics and partitions. The error of the request, and if there is none one
        per partition: those of topics to which the group subscribes remain."""
        error, entry = self._groups.check_deletion(group_id)
        if error is not GroupError.NONE or entry is None:
            return error, []
        topics = entry.machine.subscribes()
        kept = {topic for topic, _ in partitions if topics is None or topic in topics}
        gone = [each for each in partitions if each[0] not in kept]
        try:
            if gone:
                await self._store.delete_offsets(group_id, gone, entry.slot)
        except StreamLakeError as failed:
            return store_error(failed), []
        # Durable: after a crash right here the group continues without them.
        refused = GroupError.GROUP_SUBSCRIBED_TO_TOPIC
        return GroupError.NONE, [refused if topic in kept else GroupError.NONE for topic, _ in partitions]

    def accept(self, offsets: Sequence[OffsetRow]) -> tuple[list[GroupError], list[OffsetRow]]:
        """Why each of these is not committed, whoever commits it, or NONE; and those, as they are to be committed."""
        results, now_ms = [self._refusal(offset) for offset in offsets], self._clock.now_ms()
        pairs = zip(offsets, results, strict=True)
        return results, [replace(offset, commit_ms=now_ms) for offset, result in pairs if result is GroupError.NONE]

    def _refusal(self, offset: OffsetRow) -> GroupError:
        if not self._has_partition(offset.topic, offset.partition):
            return GroupError.UNKNOWN_TOPIC_OR_PARTITION
        if len(offset.metadata.encode()) > self._groups.settings.offset_metadata_bytes_max:
            return GroupError.OFFSET_METADATA_TOO_LARGE
        return GroupError.NONE

    async def _write(self, entry: GroupEntry, group_id: str, offsets: Sequence[OffsetRow]) -> None:
        if entry.stored:
            await self._store.commit_offsets(group_id, offsets, entry.slot)
            return
        async with entry.lock:
            row = self._groups.row_of_new(entry)
            writes = [self._store.commit_offsets(group_id, offsets, entry.slot)]
            if row is not None:  # without its row the group would not be listed, and its offsets would never expire
                writes.append(self._store.save_group(row, entry.slot))
            for outcome in await asyncio.gather(*writes, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    entry.stored = row is None
                    raise outcome


def _wanted(rows: list[OffsetRow], partitions: Collection[tuple[str, int]] | None) -> list[OffsetRow]:
    if partitions is None:
        return rows
    wanted = set(partitions)
    return [row for row in rows if (row.topic, row.partition) in wanted]
