"""Recovers an object WAL of an earlier broker epoch: fences it, replays it, discards it.

First a fence is put far ahead, so that an owner that is alive cannot run away from its recovery. Objects are read from
the trim position on, some at a time, in order. At the first key that is absent a fence is created, if absent: either
it lands, and the previous owner can never get an object stored there, nor acknowledge what lies behind;
or its object was there first, and is replayed like the others. So what was acknowledged, or ever will be, is replayed.

A fence is never deleted: without it an owner that wakes late could store and acknowledge (hazards C3). Before
anything else is deleted a mark says so, so that an absent object is told from a lost one.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import structlog

from streamlake.core.errors import Corrupt, Exists, Fenced, Invalid, NotFound
from streamlake.core.ids import Ids
from streamlake.core.retry import TRANSIENT
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.wal.object.format import (
    HEADER_BYTES,
    NONCE_BYTES,
    ObjectHeader,
    ObjectKind,
    WalObject,
    discarded_key,
    encode_mark,
    epoch_and_seq,
    epoch_prefix,
    node_prefix,
    object_wal_key,
    seq_of,
)
from streamlake.s3stream.wal.object.settings import ObjectWalSettings
from streamlake.s3stream.wal.object.wal import KEYS_PER_DELETE, WARN_AT_FAILURE
from streamlake.s3stream.wal.port import WalRecord

T = TypeVar("T")
OBJECTS_AHEAD = 8  # read while the one before them is replayed
FENCE_AHEAD = 256  # objects: more than an owner puts while the fence is on its way
log = structlog.get_logger(__name__)


class ObjectWalRecovery:
    """Implements s3stream.wal.DrainableWal for one broker epoch of one node. The store stays the caller's.

    The store may throttle, lose answers or be away: all requests are retried for ever, so callers set a timeout.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        node: int,
        epoch: int,
        fencing_epoch: int,
        ids: Ids,
        settings: ObjectWalSettings | None = None,
    ) -> None:
        """`fencing_epoch`: the broker epoch that recovers; of two recoveries the higher one wins."""
        if fencing_epoch <= epoch:
            raise Invalid(f"the WAL of broker epoch {epoch} is recovered under a newer one, not {fencing_epoch}")
        self.settings = settings or ObjectWalSettings()
        self.replayed_records = 0
        self.retries = 0
        self._store = store
        self._node = node
        self._epoch = epoch
        self._fencing_epoch = fencing_epoch
        self._ids = ids
        self._nonce = ids.random.getrandbits(8 * NONCE_BYTES).to_bytes(NONCE_BYTES, "big")
        self._owner_nonce: bytes | None = None  # of the life that wrote the objects
        self._first_seq = 1
        self._fence_seq: int | None = None
        self._fence_ahead_seq = 0
        self._warned = False

    async def recover(self, trim_position: int) -> AsyncIterator[tuple[int, WalRecord]]:
        """See DrainableWal.recover. Fenced if a newer broker recovers this WAL too; Corrupt names the object."""
        self._first_seq = max(1, seq_of(trim_position))
        ahead: deque[asyncio.Task[bytes | None]] = deque()
        try:
            if await self._find_discarded():
                return
            await self._fence_ahead()
            seq = self._first_seq
            while True:
                while len(ahead) < OBJECTS_AHEAD:
                    ahead.append(asyncio.create_task(self._get(self._key(seq + len(ahead)))))
                data = await ahead.popleft()
                if data is None:
                    if trim_position and seq == self._first_seq:
                        await self._explain_missing(seq)
                        return
                    data = await self._fence(seq)
                found = self._checked(seq, data)
                if found.header.kind is ObjectKind.FENCE:
                    await self._end_at(found.header)
                    return
                for position, record in self._replay(found):
                    if position > trim_position:
                        self.replayed_records += 1
                        yield position, record
                seq += 1
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def trim(self, position: int) -> None:
        """See DrainableWal.trim. Nothing is deleted before `discard`: another broker that recovers this WAL at the same
        time, rightly or not, must never take a deleted object for the end."""

    async def discard(self) -> None:
        """See DrainableWal.discard. The fence stays."""
        if self._fence_seq is None:
            raise Invalid("a WAL can be discarded when it was recovered to its end")
        header = self._mark(ObjectKind.DISCARDED, self._fence_seq)
        # Durable before the first object goes. If we die in between, the next recovery finds the mark and knows that
        # nothing is missing; without it, half of the objects would look like a WAL that ends early.
        await self._create(discarded_key(self._node, self._epoch), encode_mark(header))
        # Safe to delete: all records below the fence lie in committed objects. The owner's zombie may put one of them
        # again and rightly acknowledge it, and nobody replays it; or one behind the fence, which it cannot acknowledge
        # as it holds its acks in order. Such strays are for the sweep.
        strays = range(self._fence_seq + 1, self._fence_seq + 1 + self.settings.uploads_max)
        keys = [self._key(seq) for seq in (*range(self._first_seq, self._fence_seq), *strays)]
        for at in range(0, len(keys), KEYS_PER_DELETE):
            await self._delete(keys[at : at + KEYS_PER_DELETE])

    async def close(self) -> None:
        """See DrainableWal.close. Nothing runs between calls."""

    # -- replaying -----------------------------------------------------------------------------------------------------

    def _key(self, seq: int) -> str:
        return object_wal_key(self._node, self._epoch, seq)

    def _checked(self, seq: int, data: bytes) -> WalObject:
        """The object at the key of `seq`, if it is what belongs there; Corrupt."""
        try:
            found = WalObject(data)
        except Corrupt as error:
            raise self._damaged(seq, str(error)) from None
        header = found.header
        if (header.node, header.broker_epoch, header.seq) != (self._node, self._epoch, seq):
            what = f"node {header.node}, broker epoch {header.broker_epoch}, number {header.seq}"
            raise self._damaged(seq, f"it says it is of {what}")
        if header.kind is ObjectKind.DATA:
            if self._owner_nonce not in (None, header.nonce):
                raise self._damaged(seq, "another process wrote it than the ones before")
            self._owner_nonce = header.nonce
        elif header.kind is not ObjectKind.FENCE:
            raise self._damaged(seq, f"a {header.kind.name} has no place here")
        return found

    def _replay(self, found: WalObject) -> Iterator[tuple[int, WalRecord]]:
        try:
            yield from found.records()
        except Corrupt as error:
            raise self._damaged(found.header.seq, str(error)) from None

    def _damaged(self, seq: int, what: str) -> Corrupt:
        return Corrupt(
            f"object {self._key(seq)} of the WAL: {what}. Acknowledged records may be in it and behind it: restore it"
            " from a version or a copy of the bucket, then start again"
        )

    # -- the end -------------------------------------------------------------------------------------------------------

    async def _fence(self, seq: int) -> bytes:
        """Create a fence at the key, which was absent; the object that is there then: our fence or an earlier one."""
        await self._create(self._key(seq), encode_mark(self._mark(ObjectKind.FENCE, seq)))
        while (data := await self._get(self._key(seq))) is None:
            await self._create(self._key(seq), encode_mark(self._mark(ObjectKind.FENCE, seq)))
        return data

    async def _fence_ahead(self) -> None:
        """Bound what the owner can still write, should it be alive: it cannot get past a fence far ahead of it, while
        a recovery that follows it object by object might never catch up. The first gap ends the WAL all the same."""
        seq = self._first_seq + FENCE_AHEAD
        while self._checked(seq, await self._fence(seq)).header.kind is ObjectKind.DATA:
            seq += seq - self._first_seq
        self._fence_ahead_seq = seq

    async def _end_at(self, fence: ObjectHeader) -> None:
        """The WAL ends at this fence, of ours or of an equal. Fenced if a newer broker was there before us."""
        self._raise_if_newer(fence)
        self._fence_seq = fence.seq
        if self._fence_ahead_seq > fence.seq:
            # Safe to delete: the owner cannot get past the fence before it, which is never deleted.
            await self._delete([self._key(self._fence_ahead_seq)])
        # If a newer broker has discarded while we read, we took the first object that it deleted for the end.
        await self._find_discarded()

    async def _find_discarded(self) -> bool:
        """True if an earlier recovery has committed all records; its mark says where the fence is."""
        data = await self._get(discarded_key(self._node, self._epoch))
        if data is None:
            return False
        try:
            header = WalObject(data).header
        except Corrupt as error:
            raise Corrupt(f"object {discarded_key(self._node, self._epoch)}: {error}: delete it") from None
        self._raise_if_newer(header)
        self._fence_seq = header.seq
        return True

    async def _explain_missing(self, seq: int) -> None:
        """The object that holds the trim position is absent: fine if it was discarded meanwhile. Corrupt, Fenced."""
        if not await self._find_discarded():
            raise self._damaged(seq, "it is missing, though nobody has deleted it who should")

    def _raise_if_newer(self, header: ObjectHeader) -> None:
        if header.writer_epoch > self._fencing_epoch:
            raise Fenced(
                f"broker epoch {header.writer_epoch} has recovered the WAL of node {self._node}, epoch {self._epoch};"
                f" epoch {self._fencing_epoch} must stop"
            )

    def _mark(self, kind: ObjectKind, seq: int) -> ObjectHeader:
        return ObjectHeader(kind, self._node, self._epoch, seq, self._fencing_epoch, self._nonce)

    # -- through throttling and lost answers ---------------------------------------------------------------------------

    async def _get(self, key: str) -> bytes | None:
        """None if it is absent."""
        try:
            return await self._persist(f"get {key}", lambda: self._store.get(key))
        except NotFound:
            return None

    async def _create(self, key: str, data: bytes) -> None:
        """Returns when there is an object at the key, of ours or another."""
        try:
            await self._persist(f"create {key}", lambda: self._store.create(key, [data]))
        except Exists:
            pass

    async def _delete(self, keys: Sequence[str]) -> None:
        await self._persist(f"delete {len(keys)} objects", lambda: self._store.delete(keys))

    async def _persist(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """For calls that do no harm when repeated: create too, as what is at the key is read afterwards."""
        backoff = self.settings.backoff(self._ids)
        while True:
            try:
                return await call()
            except (Corrupt, *TRANSIENT) as error:
                delay_s = backoff.next_delay_s()
                if isinstance(error, Corrupt) and backoff.failures == WARN_AT_FAILURE:  # not just cut short on its way
                    raise
                self.retries += 1
                if backoff.failures == WARN_AT_FAILURE and not self._warned:
                    self._warned = True  # once: there may be thousands of objects
                    log.warning("recovery of a WAL is held up, retrying", what=what, error=str(error))
            await asyncio.sleep(delay_s)


async def size_bytes(store: ObjectStore, node: int, epoch: int) -> int:
    """How much the objects of this WAL hold. Unavailable."""
    return sum([meta.size async for meta in store.list(epoch_prefix(node, epoch))])


async def sweep(store: ObjectStore, node: int, before_epoch: int) -> int:
    """Delete the data objects of broker epochs before `before_epoch`, fences and marks excepted; how many.

    When all these epochs are recovered and discarded: for strays that landed late, and for what was
    trimmed but not yet deleted at a crash. Unavailable, OutcomeUnknown: some may be left for the next time.
    """
    deleted = 0
    keys: list[str] = []
    async for meta in store.list(node_prefix(node)):
        found = epoch_and_seq(meta.key)
        # A fence has the size of a header, a data object at least an entry more: no need to read it.
        if found is None or found[0] >= before_epoch or meta.size <= HEADER_BYTES:
            continue
        keys.append(meta.key)
        if len(keys) == KEYS_PER_DELETE:
            await store.delete(keys)
            deleted += len(keys)
            keys = []
    if keys:
        await store.delete(keys)
        deleted += len(keys)
    return deleted
