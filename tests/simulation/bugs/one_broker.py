"""Bugs that one broker can have, or a zombie of it."""

import asyncio
import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
from pyiceberg.exceptions import CommitFailedException
from simulation.bugs.planting import DAMAGED, LOST, MISSING, TWICE, Replace, bug
from sqlalchemy import update

from streamlake.cluster import watch
from streamlake.cluster.store import membership, object_ranges, schema, stream_metadata
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.groups import GroupStore
from streamlake.cluster.store.range_sources import RangeSources
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.topics import Topics, _alike
from streamlake.cluster.watch import Sign, Watch
from streamlake.coordinator.classic.api import GroupError
from streamlake.coordinator.classic.group import Group
from streamlake.core.disk import DiskFile
from streamlake.core.errors import Exists, Fenced, OutcomeUnknown
from streamlake.core.retry import TRANSIENT
from streamlake.log.partition import Partition
from streamlake.s3stream.objects.map import ObjectMap
from streamlake.s3stream.store.bucket import S3Store
from streamlake.s3stream.store.client import RequestFailed
from streamlake.s3stream.store.local import LocalStore
from streamlake.s3stream.stream import Stream
from streamlake.s3stream.uploader import Uploader
from streamlake.s3stream.wal.file import flusher
from streamlake.s3stream.wal.file.wal import FileWal
from streamlake.s3stream.wal.object.format import ObjectKind, encode_mark, object_wal_key, seq_of
from streamlake.s3stream.wal.object.recovery import ObjectWalRecovery
from streamlake.s3stream.wal.object.wal import ObjectWal
from streamlake.table.commit import committer
from streamlake.table.commit.iceberg import IcebergTable
from streamlake.table.commit.machine import resume_from
from streamlake.table.commit.progress import PROGRESS, _progress
from streamlake.table.task import topic_table
from streamlake.table.task.settled import NONE_SETTLED
from streamlake.table.task.task import TableTask
from streamlake.table.task.topic_table import TopicTable

# -- write-ahead logs and objects --------------------------------------------------------------------------------------


@bug(*DAMAGED, *LOST)
def no_fsync_before_trim(replace: Replace) -> None:
    """An object on a local disk is not synced before the WAL that holds the same data is trimmed (C1)."""

    def write(self: LocalStore, file: DiskFile, parts: Any) -> None:
        file.pwrite(parts, 0)

    replace(LocalStore, "_write", write)


@bug("fenced, by nobody")
def exists_is_fenced(replace: Replace) -> None:
    """AlreadyExists, of our own put that landed before its answer was lost, is read as: another broker is here (C2)."""

    async def create(self: S3Store, key: str, parts: Any) -> None:
        body = b"".join(parts)
        backoff = self._backoff()
        for _ in range(6):
            try:
                return await self._send_put(key, body, create=True)
            except RequestFailed as failure:
                if failure.status == 412:
                    raise Exists(f"object {key} exists") from None
            await self._pause(backoff)
        raise OutcomeUnknown(f"create object {key}")

    async def fenced(self: ObjectWal, key: str, seq: int) -> bool:
        raise Fenced(f"{key} exists, so another broker has fenced us")

    replace(S3Store, "create", create)
    replace(ObjectWal, "_is_ours", fenced)


@bug(*LOST)
def exists_is_ours(replace: Replace) -> None:
    """AlreadyExists, of a successor's fence, is read as: our put has landed. So a zombie acknowledges (C2)."""

    async def ours(self: ObjectWal, key: str, seq: int) -> bool:
        return True

    replace(ObjectWal, "_is_ours", ours)


@bug(*LOST)
def fence_deleted(replace: Replace) -> None:
    """The fence goes with the WAL that was recovered, so a zombie's late put lands and is acknowledged (C3)."""
    discard = ObjectWalRecovery.discard

    async def all_of_it(self: ObjectWalRecovery) -> None:
        await discard(self)
        assert self._fence_seq is not None
        await self._delete([self._key(self._fence_seq)])

    replace(ObjectWalRecovery, "discard", all_of_it)


@bug(*LOST)
def recovery_without_fence(replace: Replace) -> None:
    """Recovery ends at the first absent object, and puts no fence there (C3)."""

    async def no_fence(self: ObjectWalRecovery, seq: int) -> bytes:
        return encode_mark(self._mark(ObjectKind.FENCE, seq))

    replace(ObjectWalRecovery, "_fence", no_fence)


@bug(*LOST)
def ack_after_lease(replace: Replace) -> None:
    """What a zombie has synced to a shared disk is acknowledged, though its lease has run out (C4)."""

    def acknowledge(self: FileWal) -> None:
        if self._synced_position > self.durable_position:
            self.durable_position = self._synced_position
            self._on_durable(self.durable_position)

    replace(FileWal, "_acknowledge", acknowledge)


@bug(*LOST)
def replay_before_lease_ends(replace: Replace) -> None:
    """A WAL on a shared disk is replayed at once, though its owner may still acknowledge what it adds (C4)."""
    replace(Watch, "is_dead", lambda self, node: True)


@bug("while it held its lease", *LOST)
def fence_ignores_beat(replace: Replace) -> None:
    """Who was watched is fenced though it has beaten since: it holds its lease, and acknowledges."""

    class AnyBeat(Sign):
        def __ne__(self, other: object) -> bool:
            return not isinstance(other, Sign) or self.epoch != other.epoch

    replace(membership, "_sign", lambda row: AnyBeat(row["epoch"], row["beat"]))


@bug("after an outage")
def judge_after_outage(replace: Replace) -> None:
    """Beats that nobody could write or read, as the metadata store was away, count as missed."""
    replace(watch, "GAP_S", float("inf"))


@bug(*LOST, *DAMAGED)
def commit_without_cas(replace: Replace) -> None:
    """An upload is committed whoever else committed in between: no epoch, no state, no end is compared (C5)."""

    async def commit_object(
        self: SqlStreamMetadata, object_id: int, size: int, ranges: Any, checkpoints: Any, wal_trim: int
    ) -> None:
        def run(connection: Any) -> None:
            known = stream_metadata._rows_by_id(connection, sorted({r.stream_id for r in ranges}))
            kept = [r for r in ranges if r.stream_id in known]
            blob = object_ranges.encode(kept)
            this = schema.object_.c.id == object_id
            connection.execute(update(schema.object_).where(this).values(state="committed", size=size, ranges=blob))
            ends = {r.stream_id: r.end_offset for r in kept}
            stream_metadata._move_streams(
                connection, ends, [c for c in checkpoints if c.offset == ends.get(c.stream_id)]
            )
            mine = (schema.wal.c.node == self._wal.node) & (schema.wal.c.uri == self._wal.uri)  # type: ignore[union-attr]
            connection.execute(update(schema.wal).where(mine & (schema.wal.c.trim < wal_trim)).values(trim=wal_trim))

        await self._database.write(run)

    replace(SqlStreamMetadata, "commit_object", commit_object)


@bug(*LOST, *DAMAGED)
def map_left_behind(replace: Replace) -> None:
    """Ranges are replaced, and this broker goes on reading them from the objects that gave them away."""
    replace(ObjectMap, "replace", lambda self, stream_id, entry: None)


@bug(*LOST, *DAMAGED)
def sources_give_all(replace: Replace) -> None:
    """Who replaces some ranges of an object takes all others of it away, too."""
    give = RangeSources.give

    def all_of_it(self: RangeSources, ranges: Any, starts: Any) -> None:
        give(self, ranges, starts)
        this = schema.object_.c.id.in_(self._blobs)
        self._connection.execute(update(schema.object_).where(this).values(state="destroyed"))

    replace(RangeSources, "give", all_of_it)


@bug(*LOST, *DAMAGED)
def map_outlives_ownership(replace: Replace) -> None:
    """A broker that had a stream before reads it by its old map, though others have replaced the objects since."""
    replace(ObjectMap, "remove", lambda self, stream_id: None)


@bug(*LOST, *DAMAGED)
def wal_trimmed_before_commit(replace: Replace) -> None:
    """The WAL lets go of records whose object is stored, but not committed yet."""
    commit = Uploader._commit

    async def trim_first(self: Uploader, object_id: int, draft: Any, wal_trim: int) -> bool:
        await self._wal.trim(wal_trim)
        return await commit(self, object_id, draft, wal_trim)

    replace(Uploader, "_commit", trim_first)


@bug(*DAMAGED)
def trim_deletes_its_holder(replace: Replace) -> None:
    """The object that holds the trim position is deleted too, where the next recovery begins."""
    replace(ObjectWal, "_deletable_seq", property(lambda self: seq_of(self._trimmed_position)))


@bug(*LOST)
def acks_out_of_order(replace: Replace) -> None:
    """An object of the WAL is acknowledged when it has landed, whether or not those before it have (C6)."""
    ack = ObjectWal._ack

    def at_once(self: ObjectWal) -> None:
        ack(self)
        if landed := [batch.last_position for batch in self._unacked if batch.landed]:
            self.durable_position = max(landed)
            self._on_durable(self.durable_position)

    replace(ObjectWal, "_ack", at_once)


@bug(*LOST)
def wal_skips_a_failed_object(replace: Replace) -> None:
    """An object that could not be put is given up, and the WAL goes on behind it (C6)."""

    async def put(self: ObjectWal, seq: int, parts: Any) -> None:
        with contextlib.suppress(*TRANSIENT):
            await self._store.create(object_wal_key(self._node, self._broker_epoch, seq), parts)

    replace(ObjectWal, "_put", put)


@bug(*LOST, *DAMAGED)
def failed_sync_is_retried(replace: Replace) -> None:
    """A sync that failed is repeated: it then succeeds, and the pages that the first one dropped are lost (C6)."""

    def write_and_sync(file: Any, buffers: Any, offset: int) -> int:
        written: int = file.pwrite(buffers, offset)
        try:
            file.sync()
        except OSError:
            file.sync()
        return written

    replace(flusher, "write_and_sync", write_and_sync)


# -- the log -----------------------------------------------------------------------------------------------------------


@bug(*LOST)
def duplicate_before_original(replace: Replace) -> None:
    """A batch that is sent again is acknowledged at once, though the original is not durable and may fail (C6)."""

    answer = Partition._repeat

    def repeat(self: Partition, earlier: Any) -> Any:
        durable = asyncio.get_running_loop().create_future()
        durable.set_result(None)
        return msgspec.structs.replace(answer(self, earlier), durable=durable)

    replace(Partition, "_repeat", repeat)


@bug(*LOST)
def readers_see_what_is_not_durable(replace: Replace) -> None:
    """The high watermark is the end of what was appended (rule 4 of the design)."""
    replace(Stream, "durable_offset", property(lambda self: self._log.next_offset))


@bug("at most", "out of order")
def producers_forgotten(replace: Replace) -> None:
    """A partition that is opened does not learn from its tail which batches were here before."""

    async def nothing(self: Partition) -> None:
        pass

    replace(Partition, "_replay", nothing)


@bug(*MISSING)
def retention_ignores_the_hold(replace: Replace) -> None:
    """Retention takes what a table has not translated yet (C12)."""
    replace(Partition, "deletable_offset", property(lambda self: self.high_watermark))


# -- groups and topics -------------------------------------------------------------------------------------------------


@bug("committed for", "takes a commit", "belongs to")
def zombie_commits_offsets(replace: Replace) -> None:
    """Offset commits are fenced neither by the broker's epoch nor by that of the slot."""
    init = GroupStore.__init__

    def unfenced(self: GroupStore, database: Database, identity: BrokerIdentity, fenced: Callable[[], None]) -> None:
        open_to_all: Any = SimpleNamespace(read=database.read, write=lambda run, *fences: database.write(run))
        init(self, open_to_all, identity, fenced)

    replace(GroupStore, "__init__", unfenced)


@bug("committed for", "takes a commit")
def stale_generation_commits(replace: Replace) -> None:
    """A member commits offsets whatever generation it thinks it is of."""
    replace(Group, "check_commit", lambda self, member_id, instance_id, generation, now_ms: GroupError.NONE)


@bug("committed for")
def offsets_acked_before_durable(replace: Replace) -> None:
    """An offset commit is acknowledged when it was handed to the metadata store."""
    commit = GroupStore.commit_offsets
    under_way: list[Any] = []

    async def begin(self: GroupStore, group_id: str, offsets: Any, slot: Any) -> None:
        task = asyncio.ensure_future(commit(self, group_id, offsets, slot))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        under_way.append(task)
        del under_way[:-100]

    replace(GroupStore, "commit_offsets", begin)


@bug("and other topics", "is now", "is back", "is gone")
def revision_out_of_order(replace: Replace) -> None:
    """Changes of topics are applied to the broker's image when word of them arrives, not in their order, and nobody
    reads all of it again (C20)."""
    reloaded = Topics._reloaded

    def read_once(self: Topics, reading: Any) -> None:
        if "was_read" not in self.__dict__:
            reloaded(self, reading)
        self.stale.clear()
        self.__dict__["was_read"] = True

    def apply(topics: Topics, change: Any) -> None:
        topics.revision = max(topics.revision, change.revision)
        for gone in (change.before, change.after):
            if gone is not None:
                topics._by_name.pop(gone.name, None)
                topics._by_id.pop(gone.id, None)
                topics._by_alike.pop(_alike(gone.name), None)
        if change.after is not None:
            topics._by_name[change.after.name] = topics._by_id[change.after.id] = change.after
            topics._by_alike[_alike(change.after.name)] = change.after.name
        for listener in topics.listeners:
            listener(change)

    def committed(self: Topics, writing: Any) -> None:
        if not writing.cancelled() and writing.exception() is None:
            asyncio.get_running_loop().call_later(self._ids.random.uniform(0, 3), apply, self, writing.result())

    async def change(self: Topics, run: Any) -> Any:
        writing = self._database.write(run)
        writing.add_done_callback(self._committed)
        try:
            return await asyncio.shield(writing)
        except OutcomeUnknown:
            await self.refresh()
            raise

    replace(Topics, "_reloaded", read_once)
    replace(Topics, "_committed", committed)
    replace(Topics, "_change", change)


# -- tables ------------------------------------------------------------------------------------------------------------


@bug(*MISSING)
def main_before_dead_letters(replace: Replace) -> None:
    """The main table commits first: a crash in between loses the dead letters (C8)."""
    commit_main, commit_dead_letters = TopicTable._commit_main, TopicTable._commit_dead_letters

    async def postpone(self: TopicTable, *args: Any) -> None:
        self.__dict__["postponed"] = args

    async def main_first(self: TopicTable, *args: Any, **options: Any) -> bool:
        committed = await commit_main(self, *args, **options)
        if (postponed := self.__dict__.pop("postponed", None)) is not None:
            await commit_dead_letters(self, *postponed)
        return committed

    replace(TopicTable, "_commit_dead_letters", postpone)
    replace(TopicTable, "_commit_main", main_first)


@bug(*TWICE)
def dead_letters_not_final(replace: Replace) -> None:
    """After a crash between the two commits all records are judged anew, by the schemas of that day (C8)."""
    replace(topic_table, "read_settled", lambda dead_letters, decided, main: NONE_SETTLED)


@bug(*TWICE)
def progress_not_found_is_zero(replace: Replace) -> None:
    """Progress is looked for in the snapshots' ancestry only, and where it is not found it is zero (C9)."""

    def find(metadata: Any) -> Any:
        snapshots = {s.snapshot_id: s for s in metadata.snapshots}
        snapshot = metadata.current_snapshot()
        while snapshot is not None:
            if snapshot.summary is not None and (text := snapshot.summary.additional_properties.get(PROGRESS)):
                return _progress(text)
            snapshot = snapshots.get(snapshot.parent_snapshot_id)
        return None

    replace(committer, "find", find)
    replace(
        committer,
        "resume_from",
        lambda observed, owner, committed_once, table: resume_from(observed, owner, False, table),
    )


@bug(*TWICE)
def retry_of_pyiceberg(replace: Replace) -> None:
    """After a conflict the same files are committed again on top of whatever the table is then (C10)."""
    once = IcebergTable.put_and_commit

    async def again_and_again(self: IcebergTable, table: Any, change: Any) -> Any:
        for _ in range(4):
            try:
                return await once(self, table, change)
            except CommitFailedException:
                table = await self.load()
        return await once(self, table, change)

    replace(IcebergTable, "put_and_commit", again_and_again)


@bug(*MISSING)
def hold_released_before_the_commit_landed(replace: Replace) -> None:
    """The log may let go of records as soon as their commit begins, though it may never land (C11)."""
    commit, report = TopicTable.commit, TableTask.report

    async def remembering(self: TopicTable, done: Any) -> bool:
        self.__dict__["begun"] = self.reached.advanced(self._owner.epoch, done.positions, {})
        return await commit(self, done)

    def hopeful(self: TableTask) -> Any:
        begun = self.table.__dict__.get("begun", self.table.main.seen)
        return msgspec.structs.replace(report(self), hold=begun.next)

    replace(TopicTable, "commit", remembering)
    replace(TableTask, "report", hopeful)
