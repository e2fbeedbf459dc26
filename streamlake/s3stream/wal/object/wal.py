"""The WAL on an object store: batches of all streams, one object each, put in parallel, acknowledged in order.

    append ─► open batch ─► closed: full, or a linger after the last one ─► create-if-absent ─► landed ─► acked in order
    trim   ─► objects below the trimmed position ─► deleted in the background

Each life of a broker has a broker epoch and so keys of its own: wal/<node>/<broker epoch>/<seq>, seq from 1 without a
gap. A new ObjectWal is therefore empty; earlier epochs are left to recovery.py. A put is repeated with
the same bytes until it has landed, or until another object is found at its key: a successor's fence.

It keeps no copies: the parts of an object are the buffers that were appended. It deletes only what is trimmed.
"""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import structlog

from streamlake.core.errors import (
    Closed,
    Corrupt,
    Exists,
    Fenced,
    Invalid,
    NotFound,
    OutcomeUnknown,
    StreamLakeError,
)
from streamlake.core.ids import Ids
from streamlake.core.retry import TRANSIENT
from streamlake.core.tasks import Supervisor
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.wal.object.format import (
    NONCE_BYTES,
    DataEncoder,
    ObjectKind,
    WalObject,
    index_of,
    object_wal_key,
    position_of,
    seq_of,
)
from streamlake.s3stream.wal.object.settings import ObjectWalSettings
from streamlake.s3stream.wal.object.space import ObjectWalSpace
from streamlake.s3stream.wal.port import Buffer, State, WalRecord
from streamlake.s3stream.wal.writes import Writes

KEYS_PER_DELETE = 1000
WARN_AT_FAILURE = 5
# What an object counts beside its bytes, so that the capacity bounds their number too: recovery gets them one by one.
OBJECT_OVERHEAD_BYTES = 16 << 10
log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Batch:
    """Records that become one object. Its place in the WAL is decided when it opens."""

    seq: int
    encoder: DataEncoder = field(default_factory=DataEncoder)
    due: bool = False  # a linger has passed since the last one went
    landed: bool = False

    @property
    def last_position(self) -> int:
        return position_of(self.seq, self.encoder.records)


class ObjectWal:
    """Implements s3stream.wal.Wal. Tasks are its own; the store stays the caller's."""

    def __init__(
        self, store: ObjectStore, *, node: int, broker_epoch: int, ids: Ids, settings: ObjectWalSettings | None = None
    ) -> None:
        self.settings = settings or ObjectWalSettings()
        self.durable_position = 0
        self.appended_records = 0
        self.appended_bytes = 0
        self.writes = Writes()
        self.read_cache_bytes = self.settings.read_cache_bytes
        self.upload_bytes = 0
        self.retries = 0
        self.deleted_objects = 0
        self._store = store
        self._node = node
        self._broker_epoch = broker_epoch
        self._ids = ids
        self._nonce = ids.random.getrandbits(8 * NONCE_BYTES).to_bytes(NONCE_BYTES, "big")
        self._state = State.NEW
        self._space = ObjectWalSpace(self.settings.unflushed_bytes_max, self.settings.capacity_bytes)
        self._next_seq = 1
        self._open: Batch | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._sent_at = -math.inf  # when the last object went, by the loop's time
        self._active_at = -math.inf  # when the last record came, or answers went
        self._send_scheduled = False
        self._closed: deque[Batch] = deque()  # wait for a free upload
        self._uploads: dict[int, asyncio.Task[None]] = {}  # by seq
        self._unacked: deque[Batch] = deque()  # in order of seq, the open one included
        self._kept: deque[tuple[int, int]] = deque()  # (last position, bytes counted) of durable objects not trimmed
        self._trimmed_position = 0
        self._deleted_seq = 0  # all objects up to this one
        self._deleting: asyncio.Task[None] | None = None
        self._read: OrderedDict[int, WalObject] = OrderedDict()  # by seq, what was asked for last at the end
        self._reading = asyncio.Lock()
        self._settled = asyncio.Event()  # nothing is on its way any more, or the WAL failed
        self._failure: StreamLakeError | None = None
        self._tasks = Supervisor(self._task_failed)
        self._on_durable: Callable[[int], None] = lambda position: None
        self._on_failed: Callable[[BaseException], None] = lambda error: None

    @property
    def unflushed_bytes(self) -> int:
        """Reserved, or appended and not yet durable."""
        return self._space.unflushed_bytes

    @property
    def used_bytes(self) -> int:
        """Reserved, or appended and not trimmed."""
        return self._space.used_bytes

    # -- life ----------------------------------------------------------------------------------------------------------

    async def recover(self, trim_position: int) -> AsyncIterator[tuple[int, WalRecord]]:
        """See Wal.recover. Nothing: the keys of this broker epoch are new."""
        assert self._state is State.NEW, "recover is called once"
        self._state = State.RECOVERED
        nothing: tuple[tuple[int, WalRecord], ...] = ()
        for entry in nothing:
            yield entry

    async def start(self, on_durable: Callable[[int], None], on_failed: Callable[[BaseException], None]) -> None:
        """See Wal.start."""
        assert self._state is State.RECOVERED, "start follows recover"
        self._on_durable, self._on_failed = on_durable, on_failed
        self._loop = asyncio.get_running_loop()
        self._state = State.RUNNING

    async def close(self) -> None:
        """See Wal.close. Waits for ever if the store is away; when cancelled, it stops without."""
        if self._state is State.CLOSED:
            return
        self._state = State.CLOSED
        self._space.fail(Closed("the WAL is closed"))
        try:
            if self._unacked:
                self._settled.clear()
                self._send()
                await self._settled.wait()
        finally:
            self._drop_queued()
            await self._tasks.stop()

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._fail(
            OutcomeUnknown(f"{name}: {error}. Records not acknowledged may be lost. Restart the server to recover")
        )

    def _fail(self, failure: StreamLakeError) -> None:
        """The end: whatever is not acked by now never will be. Puts in flight may still land, which does no harm: they
        lie behind a fence, or are replayed by the next life as records that nobody was promised."""
        if self._failure:
            return
        self._failure = Closed(f"the WAL failed: {failure}")
        if self._state is not State.CLOSED:
            self._state = State.FAILED
        self._drop_queued()
        for task in self._uploads.values():
            if task is not asyncio.current_task():
                task.cancel()
        self._space.fail(self._failure)
        self._settled.set()
        self._on_failed(failure)

    def _drop_queued(self) -> None:
        self._stop_lingering()
        self._closed.clear()
        self._unacked.clear()
        self._open = None

    # -- capacity ------------------------------------------------------------------------------------------------------

    def try_reserve(self, size_bytes: int) -> bool:
        """See Wal.try_reserve. Invalid if this size could never fit."""
        return self._space.try_reserve(size_bytes)

    async def reserve(self, size_bytes: int, timeout_s: float) -> None:
        """See Wal.reserve."""
        await self._space.reserve(size_bytes, timeout_s)

    def release(self, size_bytes: int) -> None:
        """See Wal.release."""
        self._space.release(size_bytes)

    # -- batching ------------------------------------------------------------------------------------------------------

    def append(self, record: WalRecord) -> int:
        """See Wal.append."""
        if self._state is not State.RUNNING:
            raise self._failure or Closed("the WAL is not running")
        size_bytes = len(record.data)
        batch = self._open or Batch(self._next_seq)
        first = batch.encoder.records == 0
        before = 0 if first else batch.encoder.size_bytes
        batch.encoder.add(record)  # it may fail: before anything is changed
        if first:
            self._open_batch(batch)
        self._space.use(size_bytes, batch.encoder.size_bytes - before, OBJECT_OVERHEAD_BYTES if first else 0)
        self.appended_records += 1
        self.appended_bytes += size_bytes
        position = batch.last_position
        if batch.encoder.size_bytes >= self.settings.object_bytes:
            self._close_batch(batch)
        if self._closed or batch.due:
            self._send_soon()
        else:
            self._active_at = self._loop.time()
        return position

    def hurry(self) -> None:
        """See Wal.hurry."""
        if self._open is not None:
            self._open.due = True
            self._send_soon()

    def _open_batch(self, batch: Batch) -> None:
        self._open = batch
        self._next_seq += 1
        self._unacked.append(batch)
        self._active_at = self._loop.time()
        if self._active_at >= self._sent_at + self.settings.linger_ms / 1000:
            batch.due = True
        else:
            self._wait(batch, self._active_at)

    def _wait(self, batch: Batch, now: float) -> None:
        """Until the batch is due: a linger after the last object that went, so that a steady load makes few of them,
        each of which costs a request. Sooner if all is quiet: nothing is on its way, and for a tenth of a linger
        nothing came. Then those who produce most likely wait for their answers, and nothing more will come."""
        linger_s = self.settings.linger_ms / 1000
        due_at = self._sent_at + linger_s
        if not self._uploads:
            due_at = min(due_at, self._active_at + linger_s / 10)
        if now >= due_at:
            batch.due = True
            self._send()
        else:
            self._linger = self._loop.call_later(due_at - now, self._look, batch)

    def _look(self, batch: Batch) -> None:
        self._wait(batch, self._loop.time())

    def _close_batch(self, batch: Batch) -> None:
        self._stop_lingering()
        self._open = None
        self._closed.append(batch)

    def _stop_lingering(self) -> None:
        if self._linger:
            self._linger.cancel()
            self._linger = None

    def _send_soon(self) -> None:
        """In the next tick, so that what this tick appends travels together."""
        if not self._send_scheduled:
            self._send_scheduled = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        """Start as many uploads as may run. The open batch goes too if it is due."""
        self._send_scheduled = False
        while len(self._uploads) < self.settings.uploads_max:
            if not self._closed:
                batch = self._open
                if batch is None or not (batch.due or self._state is State.CLOSED):
                    return
                self._close_batch(batch)
            batch = self._closed.popleft()
            self._sent_at = self._loop.time()
            self._uploads[batch.seq] = self._tasks.start("upload to the WAL", self._upload(batch))

    # -- uploading -----------------------------------------------------------------------------------------------------

    async def _upload(self, batch: Batch) -> None:
        started = self._loop.time()
        parts = batch.encoder.finish(node=self._node, broker_epoch=self._broker_epoch, seq=batch.seq, nonce=self._nonce)
        try:
            await self._put(batch.seq, parts)
        except (Fenced, Corrupt) as error:
            self._fail(error)
            return
        finally:
            del self._uploads[batch.seq]
        self.writes.add((self._loop.time() - started) * 1000)
        self.upload_bytes += batch.encoder.size_bytes
        batch.landed = True
        self._ack()
        self._send()
        if self._open and not self._uploads:  # from now on quiet may be a reason to send
            self._stop_lingering()
            self._active_at = self._loop.time()
            self._wait(self._open, self._active_at)

    async def _put(self, seq: int, parts: list[Buffer]) -> None:
        """Returns when the object has landed. Fenced, Corrupt: another one is at its key.

        A put is never given up and never changed: whatever became of an earlier attempt, one of them lands, and all
        have the same bytes.
        """
        key = object_wal_key(self._node, self._broker_epoch, seq)
        backoff = self.settings.backoff(self._ids)
        while True:
            try:
                await self._store.create(key, parts)
                return
            except Exists:
                if await self._is_ours(key, seq):
                    return
                reason = "it exists, and cannot be read back"
            except TRANSIENT as error:
                reason = str(error)
            self.retries += 1
            delay_s = backoff.next_delay_s()
            if backoff.failures == WARN_AT_FAILURE:
                log.warning("cannot write the WAL, retrying", key=key, attempts=backoff.failures, reason=reason)
            await asyncio.sleep(delay_s)

    async def _is_ours(self, key: str, seq: int) -> bool:
        """True if an attempt of this life has landed at the key; False if that is not known. Fenced, Corrupt.

        AlreadyExists says nothing: it may be the answer to our own put that landed after its first answer was lost.
        """
        try:
            data = await self._store.get(key)
        except (NotFound, Corrupt, *TRANSIENT):  # Corrupt: cut short on its way
            return False
        found = self._decoded(key, data)
        header = found.header
        if header.kind is ObjectKind.DATA and header.nonce == self._nonce:
            if header.seq != seq:
                raise Corrupt(f"object {key} is number {header.seq} of this WAL: the store mixes up objects")
            return True
        raise Fenced(
            f"broker epoch {header.writer_epoch} has taken over node {self._node} from epoch {self._broker_epoch}"
            f" ({header.kind.name} at {key}): this process must end, or start anew"
        )

    def _ack(self) -> None:
        """Acknowledge what has landed up to the first batch that has not."""
        position = 0
        while self._unacked and self._unacked[0].landed:
            batch = self._unacked.popleft()
            position = batch.last_position
            self._kept.append((position, batch.encoder.size_bytes + OBJECT_OVERHEAD_BYTES))
            self._space.flushed(batch.encoder.size_bytes)
        if position:
            # Safe to ack: this object and all before it are in the store, under keys that never held anything else. A
            # successor fences at the first gap, so it has replayed or will replay them; if it was there before us, its
            # fence is at a key at or below ours, and we would have found it instead of landing.
            self.durable_position = position
            self._on_durable(position)
        if not self._unacked:
            self._settled.set()

    # -- reading -------------------------------------------------------------------------------------------------------

    async def read(self, position: int) -> WalRecord:
        """See Wal.read. One object at a time; the last ones stay in memory, as neighbours are asked for together."""
        async with self._reading:
            if self._state is State.CLOSED:
                raise Closed("the WAL is closed")
            if not self._trimmed_position < position <= self.durable_position:
                raise NotFound(
                    f"the WAL holds records {self._trimmed_position + 1} to {self.durable_position}, not {position}"
                )
            seq, index = seq_of(position), index_of(position)
            key = object_wal_key(self._node, self._broker_epoch, seq)
            found = self._read.get(seq) or await self._fetched(key, seq)
            self._read.move_to_end(seq)
            if not 1 <= index <= found.header.records:
                raise NotFound(f"the WAL has no record {position}")
            try:
                record = found.record(index)
            except Corrupt as error:
                raise Corrupt(f"object {key}: {error}") from None
            # Copied, so that a reader that keeps one record does not keep the whole object.
            return WalRecord(
                record.stream_id, record.stream_epoch, record.base_offset, record.count, record.max_timestamp,
                bytes(record.data),
            )  # fmt: skip

    async def _fetched(self, key: str, seq: int) -> WalObject:
        """An object of this WAL, which is kept; older ones go, so that all fit."""
        found = self._decoded(key, await self._store.get(key))
        if found.header.kind is not ObjectKind.DATA or found.header.nonce != self._nonce:
            raise Corrupt(f"object {key} is not the one that was written to the WAL")
        self._read[seq] = found
        while len(self._read) > 1 and sum(each.size_bytes for each in self._read.values()) > self.read_cache_bytes:
            self._read.popitem(last=False)
        return found

    def readable_together(self, after: int) -> int:
        """See Wal.readable_together. As many objects as are kept when they have been read, at least one."""
        last, size = after, 0
        for position, size_bytes in self._kept:
            if position > after:
                size += size_bytes
                if last > after and size > self.read_cache_bytes:
                    break
                last = position
        return last

    def _decoded(self, key: str, data: bytes) -> WalObject:
        try:
            return WalObject(data)
        except Corrupt as error:
            raise Corrupt(f"object {key}: {error}") from None

    # -- trimming ------------------------------------------------------------------------------------------------------

    async def trim(self, position: int) -> None:
        """See Wal.trim. Objects are deleted in the background.

        Safe because the caller trims only what a committed metadata transaction holds in objects, this position
        included. The object that holds the position is kept: recovery starts at its computed key, and takes an absent
        first object for the loss of records. A zombie deletes no more than it trimmed while it was the owner.
        """
        if position > self.durable_position:
            raise Invalid(f"cannot trim the WAL to {position}: it is durable to {self.durable_position} only")
        self._trimmed_position = max(self._trimmed_position, position)
        while self._kept and self._kept[0][0] <= self._trimmed_position:
            self._space.trimmed(self._kept.popleft()[1])
        if self._state is State.RUNNING and self._deleting is None and self._deletable_seq > self._deleted_seq:
            self._deleting = self._tasks.start("trim of the WAL", self._delete_trimmed())

    @property
    def _deletable_seq(self) -> int:
        return seq_of(self._trimmed_position) - 1

    async def _delete_trimmed(self) -> None:
        """Delete until all is deleted. What is left at a crash is found by the sweep of a later life."""
        backoff = self.settings.backoff(self._ids)
        while self._deleted_seq < self._deletable_seq:
            last = min(self._deletable_seq, self._deleted_seq + KEYS_PER_DELETE)
            seqs = range(self._deleted_seq + 1, last + 1)
            try:
                await self._store.delete([object_wal_key(self._node, self._broker_epoch, seq) for seq in seqs])
            except TRANSIENT as error:
                delay_s = backoff.next_delay_s()
                if backoff.failures == WARN_AT_FAILURE:
                    log.warning("cannot delete objects of the WAL, retrying", error=str(error))
                await asyncio.sleep(delay_s)
                continue
            backoff.reset()
            self.deleted_objects += len(seqs)
            self._deleted_seq = last
        self._deleting = None
