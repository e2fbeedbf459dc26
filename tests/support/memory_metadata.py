"""Stream metadata in memory that enforces every rule of the port, with answers that can be made to go wrong.

`MetadataTables` is the database; `MemoryMetadata` is one broker's handle with its epoch, bound to a WAL. Registering a
newer epoch of the node fences the older handle. `fail("commit_object", "applied_then_unknown")` plans a fault for the
next call.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from streamlake.cluster.store.wals import WalKey
from streamlake.core.errors import Conflict, Fenced, NotFound, OutcomeUnknown, StreamLakeError, Unavailable
from streamlake.s3stream.metadata import (
    Checkpoint,
    Closing,
    ObjectRanges,
    OpenAt,
    StreamRange,
    StreamState,
    StreamTrim,
)

Fault = Literal["unavailable", "unknown", "applied_then_unknown"]


@dataclass(slots=True)
class ObjectRow:
    state: str  # prepared, committed, destroyed
    deadline_ms: int
    size: int = 0
    ranges: tuple[StreamRange, ...] = ()
    given_offsets: int = 0


@dataclass(slots=True)
class WalEntry:
    epoch: int
    trim: int = 0
    since_epoch: int = 0


@dataclass(slots=True)
class MetadataTables:
    broker_epochs: dict[int, int] = field(default_factory=dict)
    wals: dict[tuple[int, str], WalEntry] = field(default_factory=dict)
    next_object_id: int = 1
    streams: dict[int, StreamState] = field(default_factory=dict)
    owners: dict[int, tuple[int, int]] = field(default_factory=dict)  # of streams: node and broker epoch
    objects: dict[int, ObjectRow] = field(default_factory=dict)
    holds: dict[int, int] = field(default_factory=dict)  # by stream: of its table
    notes: dict[int, dict[int, bytes]] = field(default_factory=dict)  # by stream, and end offset
    now_ms: Callable[[], int] = lambda: 0  # the clock of the store

    @property
    def wal_trim(self) -> int:
        """Of the WAL of node 0, where there is only that; 0 before it registers."""
        return self.wals.get((0, WAL_URI), WalEntry(0)).trim

    def create(self, *stream_ids: int) -> None:
        for stream_id in stream_ids:
            self.streams[stream_id] = StreamState(stream_id, 0, 0, 0, b"", 0, ())

    def register(self, node: int = 0) -> "MemoryMetadata":
        """The next life of the node, on the WAL of the one before."""
        epoch = self.broker_epochs[node] = self.broker_epochs.get(node, 0) + 1
        self.wals.setdefault((node, WAL_URI), WalEntry(epoch, since_epoch=epoch)).epoch = epoch
        return MemoryMetadata(self, node, epoch, WalKey(node, WAL_URI, epoch))

    def forget(self, wal: WalKey) -> None:
        """It is drained."""
        entry = self.wals.pop((wal.node, wal.uri))
        for stream_id, (node, epoch) in list(self.owners.items()):
            if node == wal.node and entry.since_epoch <= epoch <= entry.epoch:
                del self.owners[stream_id]

    def drainer(self, node: int, wal: WalKey) -> "MemoryMetadata":
        """A new life of `node`, which drains that WAL."""
        epoch = self.broker_epochs[node] = self.broker_epochs.get(node, 0) + 1
        return MemoryMetadata(self, node, epoch, wal, drains=True)


WAL_URI = "memory:"


class MemoryMetadata:
    def __init__(
        self, tables: MetadataTables, node: int, broker_epoch: int, wal: WalKey, *, drains: bool = False
    ) -> None:
        self.tables = tables
        self.drains = drains  # the WAL is another life's: its trim stays
        self.node = node
        self.broker_epoch = broker_epoch
        self.wal = wal
        self.gate: asyncio.Event | None = None  # commits wait for it, before they are looked at
        self._planned: list[tuple[str, Fault]] = []

    def fail(self, operation: str, fault: Fault, times: int = 1) -> None:
        self._planned.extend([(operation, fault)] * times)

    async def _enter(self, operation: str) -> Fault | None:
        await asyncio.sleep(0)
        for planned in self._planned:
            if planned[0] == operation:
                self._planned.remove(planned)
                if planned[1] == "unavailable":
                    raise Unavailable(f"{operation}: planned")
                if planned[1] == "unknown":
                    raise OutcomeUnknown(f"{operation}: planned, not applied")
                return planned[1]
        return None

    def _check_epoch(self) -> None:
        ruling = self.tables.broker_epochs[self.node]
        if self.broker_epoch != ruling:
            raise Fenced(f"broker epoch {self.broker_epoch} is over, {ruling} rules")

    def _wal_entry(self) -> WalEntry:
        entry = self.tables.wals.get((self.wal.node, self.wal.uri))
        if entry is None or entry.epoch != self.wal.epoch:
            raise Fenced(f"{self.wal} is {f'adopted by {entry.epoch}' if entry else 'forgotten'}")
        return entry

    async def open_streams(self, openings: Sequence[OpenAt]) -> list[StreamState | StreamLakeError]:
        await self._enter("open_streams")
        self._check_epoch()
        return [self._open(opening.stream_id, opening.start_offset) for opening in openings]

    def _open(self, stream_id: int, start: int) -> StreamState | StreamLakeError:
        if stream_id not in self.tables.streams:
            return NotFound(f"stream {stream_id} does not exist")
        owner, epoch = self.tables.owners.get(stream_id, (self.node, self.broker_epoch))
        entry = self.tables.wals.get((self.wal.node, self.wal.uri))
        since = entry.since_epoch if entry is not None and entry.epoch == self.wal.epoch else self.wal.epoch
        if owner != self.node or not since <= epoch <= self.broker_epoch:
            return Unavailable(f"stream {stream_id} belongs to epoch {epoch} of broker {owner}")
        old = self.tables.streams[stream_id]
        if old.end_offset > start:
            return Conflict(f"stream {stream_id} ends at {old.end_offset}, not at {start}")
        opened = replace(old, epoch=old.epoch + 1, epochs=(*old.epochs, (old.epoch + 1, start)))
        self.tables.streams[stream_id] = opened
        self.tables.owners[stream_id] = self.node, self.broker_epoch
        noted = self.tables.notes.get(stream_id, {})
        return replace(opened, notes=b"".join(noted[end] for end in sorted(noted)))

    async def close_streams(self, closings: Sequence[Closing]) -> None:
        fault = await self._enter("close_streams")
        self._check_epoch()
        ours = [c for c in closings if c.stream_id in self.tables.owners and c.stream_id in self.tables.streams]
        ours = [c for c in ours if self.tables.streams[c.stream_id].epoch == c.stream_epoch]
        for closing in ours:
            if (end := self.tables.streams[closing.stream_id].end_offset) != closing.end_offset:
                raise Conflict(f"stream {closing.stream_id} ends at {end}, not {closing.end_offset}")
        for closing in ours:
            del self.tables.owners[closing.stream_id]
        if fault == "applied_then_unknown":
            raise OutcomeUnknown("close_streams: planned, applied")

    async def stream_states(self, stream_ids: Sequence[int] | None = None) -> list[StreamState]:
        await self._enter("stream_states")
        wanted = self.tables.streams if stream_ids is None else stream_ids
        return [self.tables.streams[s] for s in wanted if s in self.tables.streams]

    async def objects(self) -> list[ObjectRanges]:
        await self._enter("objects")
        return [
            ObjectRanges(object_id, row.size, row.ranges, row.given_offsets)
            for object_id, row in sorted(self.tables.objects.items())
            if row.state == "committed"
        ]

    async def prepare_object(self, ttl_ms: int) -> int:
        await self._enter("prepare_object")
        self._check_epoch()
        object_id = self.tables.next_object_id
        self.tables.next_object_id += 1
        self.tables.objects[object_id] = ObjectRow("prepared", self.tables.now_ms() + ttl_ms)
        return object_id

    async def commit_object(
        self, object_id: int, size: int, ranges: Sequence[StreamRange], checkpoints: Sequence[Checkpoint], wal_trim: int
    ) -> None:
        if self.gate is not None:
            await self.gate.wait()
        fault = await self._enter("commit_object")
        self._check_epoch()
        wal = self._wal_entry()
        row = self.tables.objects.get(object_id)
        if row is None or row.state != "prepared":
            raise Conflict(f"object {object_id} is {row.state if row else 'gone'}")
        assert list(ranges) == sorted(ranges, key=lambda r: (r.stream_id, r.start_offset)), "sorted"
        kept = [r for r in ranges if r.stream_id in self.tables.streams]
        streams = dict(self.tables.streams)
        for r in kept:
            state = streams[r.stream_id]
            if state.epoch != r.stream_epoch:
                raise Fenced(f"stream {r.stream_id} has epoch {state.epoch}, not {r.stream_epoch}")
            if r.stream_id not in self.tables.owners:
                raise Fenced(f"stream {r.stream_id} was closed")
            if state.end_offset != r.start_offset:
                raise Conflict(f"stream {r.stream_id} ends at {state.end_offset}, not {r.start_offset}")
            streams[r.stream_id] = replace(state, end_offset=r.end_offset)
        for c in checkpoints:
            if c.stream_id in streams:
                assert streams[c.stream_id].end_offset == c.offset, "a checkpoint lies at the end of its range"
                streams[c.stream_id] = self._with_checkpoint(streams[c.stream_id], c)
        self.tables.streams = streams
        if not self.drains:
            wal.trim = max(wal_trim, wal.trim)
        self.tables.objects[object_id] = ObjectRow("committed", 0, size, tuple(kept))
        if fault == "applied_then_unknown":
            raise OutcomeUnknown("commit_object: planned, applied")

    async def replace_ranges(
        self, object_id: int, size: int, ranges: Sequence[StreamRange], sources: Sequence[int]
    ) -> None:
        if self.gate is not None:
            await self.gate.wait()
        fault = await self._enter("replace_ranges")
        self._check_epoch()
        row = self.tables.objects.get(object_id)
        if row is None or row.state != "prepared":
            raise Conflict(f"object {object_id} is {row.state if row else 'gone'}")
        kept = [r for r in ranges if r.stream_id in self.tables.streams]
        assert len({r.stream_id for r in kept}) == len(kept), "one range of a stream"
        givers = [o for i in sources if (o := self.tables.objects.get(i)) is not None and o.state == "committed"]
        given: dict[int, set[StreamRange]] = {id(giver): set() for giver in givers}
        for r in kept:
            state = self.tables.streams[r.stream_id]
            if state.epoch != r.stream_epoch or r.stream_id not in self.tables.owners:
                raise Fenced(f"stream {r.stream_id} has epoch {state.epoch}, not {r.stream_epoch}, or was closed")
            taken = set[int]()
            for giver in givers:
                for old in giver.ranges:
                    if old.stream_id == r.stream_id and set(_offsets(old)) & set(_offsets(r)):
                        given[id(giver)].add(old)
                        taken |= set(_offsets(old))
            if {o for o in taken if o >= state.start_offset} != {o for o in _offsets(r) if o >= state.start_offset}:
                raise Conflict(f"the sources do not hold {r}")
        for giver in givers:
            gone = given[id(giver)]
            giver.given_offsets += sum(len(_offsets(old)) for old in gone)
            giver.ranges = tuple(r for r in giver.ranges if r not in gone)
            giver.state = "destroyed" if gone and not giver.ranges else giver.state
        self.tables.objects[object_id] = ObjectRow("committed", 0, size, tuple(kept))
        if fault == "applied_then_unknown":
            raise OutcomeUnknown("replace_ranges: planned, applied")

    async def trim_streams(self, trims: Sequence[StreamTrim]) -> None:
        await self._enter("trim_streams")
        self._check_epoch()
        known = [t for t in trims if t.stream_id in self.tables.streams]
        for trim in known:
            if (epoch := self.tables.streams[trim.stream_id].epoch) != trim.stream_epoch:
                raise Fenced(f"stream {trim.stream_id} is at epoch {epoch}, not {trim.stream_epoch}")
        if held := [
            t for t in known if t.spares_held and t.start_offset > self.tables.holds.get(t.stream_id, t.start_offset)
        ]:
            raise Conflict(f"streams are held: {held}")
        for trim in known:
            state = self.tables.streams[trim.stream_id]
            state = replace(state, start_offset=max(trim.start_offset, state.start_offset))
            self.tables.streams[trim.stream_id] = self._with_checkpoint(state, trim.checkpoint)

    def _with_checkpoint(self, state: StreamState, checkpoint: Checkpoint | None) -> StreamState:
        noted = self.tables.notes.setdefault(state.stream_id, {})
        if checkpoint is not None and checkpoint.notes:
            noted[checkpoint.offset] = checkpoint.notes
        for end in [end for end in noted if end <= state.start_offset]:
            del noted[end]
        if checkpoint is None or checkpoint.offset < state.checkpoint_offset:
            return state
        return replace(state, checkpoint=checkpoint.blob, checkpoint_offset=checkpoint.offset)

    async def trim_wal(self, position: int) -> None:
        await self._enter("trim_wal")
        self._check_epoch()
        wal = self._wal_entry()
        if not self.drains:
            wal.trim = max(position, wal.trim)

    async def wal_trim(self) -> int:
        await self._enter("wal_trim")
        return self._wal_entry().trim

    async def destroyable_objects(self) -> list[int]:
        await self._enter("destroyable_objects")
        self._check_epoch()
        for row in self.tables.objects.values():
            if (row.state == "prepared" and row.deadline_ms < self.tables.now_ms()) or (
                row.state == "committed" and not any(self._lives(r) for r in row.ranges)
            ):
                row.state = "destroyed"
        return sorted(i for i, row in self.tables.objects.items() if row.state == "destroyed")

    def _lives(self, r: StreamRange) -> bool:
        state = self.tables.streams.get(r.stream_id)
        return state is not None and r.end_offset > state.start_offset

    async def forget_objects(self, object_ids: Sequence[int]) -> None:
        await self._enter("forget_objects")
        self._check_epoch()
        for object_id in object_ids:
            if object_id in self.tables.objects and self.tables.objects[object_id].state == "destroyed":
                del self.tables.objects[object_id]


def _offsets(r: StreamRange) -> range:
    return range(r.start_offset, r.end_offset)
