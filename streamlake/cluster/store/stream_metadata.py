"""S3Stream's metadata (s3stream/metadata.py) in SQL: streams, objects and the states of objects.

The epoch of this broker fences every write (fences.py). A commit also checks the row of the WAL and the epoch and end
of each stream, so that a zombie, a drain that was overtaken, or an upload that missed its deadline changes nothing.
Rows are locked in a fixed order (revision, WAL, object, streams by id, broker), so two of these writes cannot deadlock
on PostgreSQL; groups of them can, and are then retried (database.py).

The states of an object: prepared → committed → destroyed → forgotten. Its row exists before the bytes and longer than
the bytes, so no crash leaks an object or loses one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection, RowMapping, bindparam, delete, insert, select, update

from streamlake.cluster.store import object_ranges, schema
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.dead_objects import DeadObjects
from streamlake.cluster.store.drains import DrainPart, has_ended, require_drainer
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.range_sources import RangeSources
from streamlake.cluster.store.revision import Kind, lock_revision, next_revision
from streamlake.cluster.store.schema import COMMITTED, DESTROYED, PREPARED, in_lists, take_ids, upsert
from streamlake.cluster.store.wals import WalKey, move_trim, since_epoch_of, trim_of
from streamlake.core.errors import Conflict, Fenced, Invalid, NotFound, StreamLakeError, Unavailable
from streamlake.s3stream.metadata import Checkpoint, Closing, ObjectRanges, OpenAt, StreamRange, StreamState, StreamTrim

NEVER_OPENED = -1  # epoch of a new stream: the first open makes it 0, the first leader epoch in Kafka

Epochs = tuple[tuple[int, int], ...]


def create_streams(connection: Connection, count: int) -> range:
    """Ids of `count` new, empty streams; part of the transaction that creates their topic."""
    first = take_ids(connection, "stream", count)
    empty = {"epoch": NEVER_OPENED, "owner": None, "owner_epoch": 0, "start_offset": 0, "end_offset": 0}
    rows = [{"id": first + at, "checkpoint": b"", "checkpoint_offset": 0, **empty} for at in range(count)]
    connection.execute(insert(schema.stream), rows)
    return range(first, first + count)


class SqlStreamMetadata:
    """Implements `StreamMetadata` for one broker and its epoch."""

    def __init__(
        self, database: Database, identity: BrokerIdentity, wal: WalKey | None, drained: DrainPart | None = None
    ) -> None:
        """`wal`: the WAL whose trim moves with commits. None if there is none yet: commits, and all operations on the
        trim, are then Invalid. `drained`: the part of another life's WAL that this broker drains, instead."""
        self.commits = 0
        self._database = database
        self._identity = identity
        self._wal = wal if drained is None else drained.wal
        self._drained = drained
        self._dead_objects = DeadObjects(database)

    async def open_streams(self, openings: Sequence[OpenAt]) -> list[StreamState | StreamLakeError]:
        def run(connection: Connection) -> list[StreamState | StreamLakeError]:
            ids = sorted(opening.stream_id for opening in openings)
            since = self._identity.epoch if self._wal is None else since_epoch_of(connection, self._wal)
            # Those that wait for their owner are asked for again and again: they lock nothing that the owner needs.
            looked = _rows_by_id(connection, ids)
            free = [i for i, row in looked.items() if not _is_elsewhere(row, self._identity, since)]
            if free:
                lock_revision(connection)
            found = looked | _rows_by_id(connection, free, lock=True)
            history, notes = _histories(connection, free), _notes(connection, free)
            results: list[StreamState | StreamLakeError] = []
            for opening in openings:
                row = found.get(opening.stream_id)
                if row is None:
                    results.append(NotFound(f"stream {opening.stream_id} does not exist: its topic was deleted"))
                elif (refusal := _refusal(row, opening.start_offset, self._identity, since)) is not None:
                    results.append(refusal)
                else:
                    state = _opened(row, history.get(opening.stream_id, ()), opening.start_offset)
                    results.append(replace(state, notes=notes.get(opening.stream_id, b"")))
            opened = [state for state in results if isinstance(state, StreamState)]
            _store_opened(connection, self._identity, opened, history)
            if opened and not self._database.is_ours_alone:  # other brokers tell clients who leads, under which epoch
                next_revision(connection, Kind.PARTITIONS, [state.stream_id for state in opened])
            return results

        # Durable before the opener appends under the new epoch; commits under an older one are Fenced from here on.
        return await self._database.write(run, self._identity)

    async def close_streams(self, closings: Sequence[Closing]) -> None:
        s = schema.stream.c

        def run(connection: Connection) -> None:
            lock_revision(connection)
            found = _rows_by_id(connection, sorted({c.stream_id for c in closings}), lock=True)
            ours = [c for c in closings if c.stream_id in found and _is_open(found[c.stream_id], c.stream_epoch)]
            for c in ours:
                if (end := found[c.stream_id]["end_offset"]) != c.end_offset:
                    raise Conflict(f"stream {c.stream_id} ends at {end}, not at {c.end_offset}: upload the rest first")
            for ids in in_lists([c.stream_id for c in ours]):
                connection.execute(update(schema.stream).where(s.id.in_(ids)).values(owner=None))
            if ours and not self._database.is_ours_alone:  # who is to open them next need not ask again and again
                next_revision(connection, Kind.PARTITIONS, [c.stream_id for c in ours])

        # Durable before another broker opens the stream, because only this says that it may. All records of the stream
        # are in objects: whoever opens it next begins at its true end, and our WAL holds nothing of it beyond.
        await self._database.write(run, self._identity)

    async def stream_states(self, stream_ids: Sequence[int] | None = None) -> list[StreamState]:
        def run(connection: Connection) -> list[StreamState]:
            ids = None if stream_ids is None else sorted(set(stream_ids))
            history = _histories(connection, ids)
            rows = self._of_drained(connection, _rows_by_id(connection, ids))
            return [_state(row, history.get(i, ())) for i, row in rows.items()]

        return await self._database.read(run)

    async def objects(self) -> list[ObjectRanges]:
        o = schema.object_.c
        query = select(o.id, o.size, o.ranges).where(o.state == COMMITTED).order_by(o.id)

        def run(connection: Connection) -> list[ObjectRanges]:
            decode, given = object_ranges.decode, object_ranges.given_offsets
            return [ObjectRanges(i, size, decode(blob), given(blob)) for i, size, blob in connection.execute(query)]

        return await self._database.read(run)

    async def prepare_object(self, ttl_ms: int) -> int:
        def run(connection: Connection) -> int:
            deadline_ms = self._database.now_ms(connection) + ttl_ms
            object_id = take_ids(connection, "object", 1)
            row = {"id": object_id, "state": PREPARED, "deadline_ms": deadline_ms, "size": 0, "ranges": None}
            connection.execute(insert(schema.object_).values(owner=self._identity.node, **row))
            return object_id

        # Durable before the first byte is uploaded: gc finds the object, whatever happens next.
        return await self._database.write(run, self._identity)

    async def commit_object(
        self,
        object_id: int,
        size: int,
        ranges: Sequence[StreamRange],
        checkpoints: Sequence[Checkpoint],
        wal_trim: int,
    ) -> None:
        wal = self._bound_wal()

        def run(connection: Connection) -> None:
            self._move_trim(connection, wal, wal_trim)
            _require_prepared(connection, object_id)
            streams = _rows_by_id(connection, sorted({r.stream_id for r in ranges}), lock=True)
            kept = [r for r in ranges if r.stream_id in streams]
            if lost := streams.keys() - self._of_drained(connection, streams).keys():
                raise Fenced(f"streams {sorted(lost)} do not belong to the lives whose WAL is drained any more")
            ends = _new_ends(streams, kept)
            _commit_prepared(connection, object_id, size, kept)
            _move_streams(connection, ends, checkpoints)

        # One transaction: after a crash either all of it is there (the WAL may be trimmed) or nothing (the WAL still
        # has all records). The checks hold row locks of the same transaction: a zombie that wakes here gets Fenced or
        # Conflict.
        await self._database.write(run, self._identity)
        self.commits += 1

    async def replace_ranges(
        self, object_id: int, size: int, ranges: Sequence[StreamRange], sources: Sequence[int]
    ) -> None:
        def run(connection: Connection) -> None:
            found = RangeSources(
                connection, sources
            )  # their rows before that of the new object, whose id is the greatest
            _require_prepared(connection, object_id)
            streams = _rows_by_id(connection, sorted({r.stream_id for r in ranges}), lock=True)
            kept = [r for r in ranges if r.stream_id in streams]
            for r in kept:
                _require_open(streams[r.stream_id], r.stream_epoch)
            found.give(kept, {i: row["start_offset"] for i, row in streams.items()})
            _commit_prepared(connection, object_id, size, kept)

        # One transaction: after a crash readers find all of it in the sources, which gc then keeps, or all of it in the
        # new object, which is durable. Row locks and fences hold off whoever opens, closes or replaces the same.
        await self._database.write(run, self._identity)

    async def trim_streams(self, trims: Sequence[StreamTrim]) -> None:
        def run(connection: Connection) -> None:
            streams = _rows_by_id(connection, sorted({t.stream_id for t in trims}), lock=True)
            kept = [t for t in trims if t.stream_id in streams]
            for t in kept:
                if (epoch := streams[t.stream_id]["epoch"]) != t.stream_epoch:
                    raise Fenced(f"stream {t.stream_id} is at epoch {epoch}, the trim has {t.stream_epoch}")
            _require_unheld(connection, [t for t in kept if t.spares_held])
            behind = (schema.stream.c.id == bindparam("stream")) & (schema.stream.c.start_offset < bindparam("start"))
            if kept:
                rows = [{"stream": t.stream_id, "start": t.start_offset} for t in kept]
                connection.execute(update(schema.stream).where(behind).values(start_offset=bindparam("start")), rows)
                n = schema.stream_note.c
                passed = (n.stream_id == bindparam("stream")) & (n.end_offset <= bindparam("start"))
                connection.execute(delete(schema.stream_note).where(passed), rows)
            _move_checkpoints(connection, [t.checkpoint for t in kept if t.checkpoint is not None])

        # Durable before gc may regard the ranges below as dead: a start never goes back after data was deleted.
        await self._database.write(run, self._identity)

    async def trim_wal(self, position: int) -> None:
        wal = self._bound_wal()

        def run(connection: Connection) -> None:
            if self._drained is None:
                move_trim(connection, wal, position)
            else:
                # As in a commit, the trim stays. A part that is done may be drained again, to discard the WAL.
                has_ended(connection, self._drained, self._identity)

        # Durable before the WAL deletes the records: recovery never looks for deleted ones.
        await self._database.write(run, self._identity)

    async def wal_trim(self) -> int:
        wal = self._bound_wal()
        return await self._database.read(lambda connection: trim_of(connection, wal, lock=False))

    def _of_drained(self, connection: Connection, rows: dict[int, RowMapping]) -> dict[int, RowMapping]:
        """A drain is about the streams that the lives on its WAL have open, and no others. On a shared disk a zombie of
        theirs may still add records, which it never acknowledges, after a first drain has given its streams free: a
        drain that is done again must not put them into a stream that somebody else has opened since."""
        if self._drained is None:
            return rows
        wal = self._drained.wal
        since = since_epoch_of(connection, wal)
        return {i: row for i, row in rows.items() if _is_open_in(row, wal.node, since, wal.epoch)}

    def _move_trim(self, connection: Connection, wal: WalKey, position: int) -> None:
        if self._drained is None:
            move_trim(connection, wal, position)
        else:
            # The trim stays: what one part has drained, the others may still need. A drain that begins again skips what
            # lies below the streams' ends.
            require_drainer(connection, self._drained, self._identity)

    def _bound_wal(self) -> WalKey:
        if self._wal is None:
            raise Invalid("this broker has adopted no WAL yet: it cannot commit objects, nor read or move a trim")
        return self._wal

    async def destroyable_objects(self) -> list[int]:
        dead = await self._dead_objects.find()
        o = schema.object_.c

        def run(connection: Connection) -> list[int]:
            late = (o.state == PREPARED) & (o.deadline_ms < self._database.now_ms(connection))
            connection.execute(update(schema.object_).where(late).values(state=DESTROYED))
            for ids in in_lists(dead):
                gone = o.id.in_(ids) & (o.state == COMMITTED)
                connection.execute(update(schema.object_).where(gone).values(state=DESTROYED))
            marked = select(o.id).where(o.state == DESTROYED).order_by(o.id)
            return list(connection.execute(marked).scalars())

        # The mark is durable before any byte is deleted: the commit of a slow uploader finds it and gets Conflict, and
        # after a crash gc finds the object again by its mark.
        return await self._database.write(run, self._identity)

    async def forget_objects(self, object_ids: Sequence[int]) -> None:
        o = schema.object_.c

        def run(connection: Connection) -> None:
            for ids in in_lists(object_ids):
                connection.execute(delete(schema.object_).where(o.id.in_(ids) & (o.state == DESTROYED)))

        await self._database.write(run, self._identity)


def _require_unheld(connection: Connection, trims: Sequence[StreamTrim]) -> None:
    """Conflict if a table has not got what one of these trims would delete. The rows of the streams are locked: a table
    that is enabled at this moment reads their starts after us (topics.py)."""
    p, held = schema.partition.c, schema.table_progress.c
    starts = {t.stream_id: t.start_offset for t in trims}
    for ids in in_lists(sorted(starts)):
        same = (held.topic_id == p.topic_id) & (held.partition == p.index)
        query = select(p.stream_id, held.hold_offset).join(schema.table_progress, same).where(p.stream_id.in_(ids))
        for stream_id, hold in connection.execute(query.where(held.hold_offset.is_not(None))):
            if starts[stream_id] > hold:
                raise Conflict(f"stream {stream_id} is held at {hold} by its table: retention must not pass that")


def _rows_by_id(connection: Connection, ids: Sequence[int] | None, lock: bool = False) -> dict[int, RowMapping]:
    """Rows of these streams (of all if None) by id; unknown ids are omitted."""
    query = select(schema.stream).order_by(schema.stream.c.id)
    if lock:
        query = query.with_for_update()
    queries = [query] if ids is None else [query.where(schema.stream.c.id.in_(some)) for some in in_lists(ids)]
    return {row["id"]: row for q in queries for row in connection.execute(q).mappings()}


def _histories(connection: Connection, ids: Sequence[int] | None) -> dict[int, Epochs]:
    """stream → its epochs, oldest first."""
    e = schema.stream_epoch.c
    query = select(e.stream_id, e.epoch, e.start_offset).order_by(e.stream_id, e.epoch)
    queries = [query] if ids is None else [query.where(e.stream_id.in_(some)) for some in in_lists(ids)]
    found: dict[int, list[tuple[int, int]]] = {}
    for q in queries:
        for stream_id, epoch, start_offset in connection.execute(q):
            found.setdefault(stream_id, []).append((epoch, start_offset))
    return {stream_id: tuple(epochs) for stream_id, epochs in found.items()}


def _notes(connection: Connection, ids: Sequence[int]) -> dict[int, bytes]:
    """stream → its notes, one after the other; without streams that have none."""
    n = schema.stream_note.c
    query = select(n.stream_id, n.notes).order_by(n.stream_id, n.end_offset)
    found: dict[int, list[bytes]] = {}
    for some in in_lists(ids):
        for stream_id, notes in connection.execute(query.where(n.stream_id.in_(some))):
            found.setdefault(stream_id, []).append(notes)
    return {stream_id: b"".join(notes) for stream_id, notes in found.items()}


def _state(row: RowMapping, epochs: Epochs) -> StreamState:
    return StreamState(
        stream_id=row["id"],
        epoch=row["epoch"],
        start_offset=row["start_offset"],
        end_offset=row["end_offset"],
        checkpoint=row["checkpoint"],
        checkpoint_offset=row["checkpoint_offset"],
        epochs=epochs,
    )


def _opened(row: RowMapping, epochs: Epochs, start_offset: int) -> StreamState:
    """The stream in its next epoch."""
    epoch = row["epoch"] + 1
    return replace(_state(row, next_history(epochs, row["start_offset"], epoch, start_offset)), epoch=epoch)


def next_history(epochs: Epochs, log_start: int, epoch: int, start_offset: int) -> Epochs:
    """The history with a new epoch, as in Kafka's LeaderEpochFileCache: epochs without records, and epochs that are
    wholly below the log start, are removed, so that it does not grow with every restart."""
    history = [*(e for e in epochs if e[1] < start_offset), (epoch, start_offset)]
    while len(history) > 1 and history[1][1] <= log_start:
        del history[0]
    return tuple(history)


def _refusal(row: RowMapping, start_offset: int, identity: BrokerIdentity, since_epoch: int) -> StreamLakeError | None:
    """A stream is opened only if no WAL holds records of it beyond its committed end: nobody owns it, or this broker,
    whose WAL has the records of its lives since that epoch."""
    if _is_elsewhere(row, identity, since_epoch):
        return Unavailable(
            f"stream {row['id']} belongs to epoch {row['owner_epoch']} of broker {row['owner']}, whose WAL may hold"
            " records of it: it can be opened when that broker has closed it, or when its WAL is drained"
        )
    if (end := row["end_offset"]) > start_offset:
        return Conflict(f"stream {row['id']} ends at {end}, not at {start_offset}: look again, then open")
    return None


def _is_elsewhere(row: RowMapping, identity: BrokerIdentity, since_epoch: int) -> bool:
    return row["owner"] is not None and not _is_open_in(row, identity.node, since_epoch, identity.epoch)


def _is_open_in(row: RowMapping, node: int, first_epoch: int, last_epoch: int) -> bool:
    """Whether one of these lives of the node has the stream open."""
    return bool(row["owner"] == node and first_epoch <= row["owner_epoch"] <= last_epoch)


def _is_open(row: RowMapping, stream_epoch: int) -> bool:
    """Whether the stream is still open in that epoch. A later one exists only if it was closed before."""
    return row["owner"] is not None and row["epoch"] == stream_epoch


def _store_opened(
    connection: Connection, owner: BrokerIdentity, opened: Iterable[StreamState], history: Mapping[int, Epochs]
) -> None:
    """Write the new epochs of the streams, and the changes of their histories."""
    owned, gained, lost = [], [], []
    for state in opened:
        owned.append({"stream": state.stream_id, "next": state.epoch})
        gained.append({"stream_id": state.stream_id, "epoch": state.epoch, "start_offset": state.epochs[-1][1]})
        gone = set(history.get(state.stream_id, ())) - set(state.epochs)
        lost += [{"stream": state.stream_id, "old": epoch} for epoch, _ in sorted(gone)]
    if not owned:
        return
    taking = update(schema.stream).where(schema.stream.c.id == bindparam("stream"))
    ownership = {"owner": owner.node, "owner_epoch": owner.epoch}
    connection.execute(taking.values(epoch=bindparam("next"), **ownership), owned)
    connection.execute(insert(schema.stream_epoch), gained)
    if lost:
        e = schema.stream_epoch.c
        this = (e.stream_id == bindparam("stream")) & (e.epoch == bindparam("old"))
        connection.execute(delete(schema.stream_epoch).where(this), lost)


def _require_prepared(connection: Connection, object_id: int) -> None:
    o = schema.object_.c
    state = connection.execute(select(o.state).where(o.id == object_id).with_for_update()).scalar()
    if state != PREPARED:
        raise Conflict(
            f"object {object_id} is {state or 'forgotten'}, not prepared: it was committed before, or the upload "
            "outlived its deadline and gc took the object; upload the data again as a new object"
        )


def _commit_prepared(connection: Connection, object_id: int, size: int, ranges: Sequence[StreamRange]) -> None:
    committed = {"state": COMMITTED, "size": size, "ranges": object_ranges.encode(ranges)}
    connection.execute(update(schema.object_).where(schema.object_.c.id == object_id).values(committed))


def _require_open(row: RowMapping, stream_epoch: int) -> None:
    if row["epoch"] != stream_epoch:
        raise Fenced(f"stream {row['id']} is at epoch {row['epoch']}, this object has {stream_epoch}")
    if row["owner"] is None:
        raise Fenced(f"stream {row['id']} was closed at {row['end_offset']}: what holds it is left to its next owner")


def _new_ends(streams: Mapping[int, RowMapping], ranges: Iterable[StreamRange]) -> dict[int, int]:
    """stream → its end after these ranges, each of which must start at the end of the stream (no gap, no overlap)."""
    ends: dict[int, int] = {}
    for r in ranges:
        row = streams[r.stream_id]
        _require_open(row, r.stream_epoch)
        end = ends.get(r.stream_id, row["end_offset"])
        if r.start_offset != end:
            raise Conflict(f"stream {r.stream_id} ends at {end}, the upload begins at {r.start_offset}: read again")
        ends[r.stream_id] = r.end_offset
    return ends


def _move_streams(connection: Connection, ends: Mapping[int, int], checkpoints: Sequence[Checkpoint]) -> None:
    """Store new ends and their checkpoints. A stream without a range in this commit keeps its old checkpoint: the
    commit has not checked that this broker still owns the stream."""
    moved = [{"stream": stream_id, "end": end} for stream_id, end in ends.items()]
    for c in checkpoints:
        if c.offset != ends.get(c.stream_id, c.offset):
            raise Invalid(
                f"the checkpoint of stream {c.stream_id} is at {c.offset}, not at its end {ends[c.stream_id]}"
            )
    this = update(schema.stream).where(schema.stream.c.id == bindparam("stream"))
    if moved:
        connection.execute(this.values(end_offset=bindparam("end")), moved)
    _move_checkpoints(connection, [c for c in checkpoints if c.stream_id in ends])


def _move_checkpoints(connection: Connection, checkpoints: Sequence[Checkpoint]) -> None:
    """Checkpoints never go back: an upload that was cut before a trim may be committed after it. Its notes are those
    of the later checkpoint, too, and are kept."""
    behind = (schema.stream.c.id == bindparam("stream")) & (schema.stream.c.checkpoint_offset <= bindparam("at"))
    if checkpoints:
        rows = [{"stream": c.stream_id, "at": c.offset, "blob": c.blob} for c in checkpoints]
        moving = update(schema.stream).where(behind)
        connection.execute(moving.values(checkpoint=bindparam("blob"), checkpoint_offset=bindparam("at")), rows)
    # In the transaction of the checkpoint: what it counts on is there whenever it is.
    noted = [{"stream_id": c.stream_id, "end_offset": c.offset, "notes": c.notes} for c in checkpoints if c.notes]
    upsert(connection, schema.stream_note, noted)
