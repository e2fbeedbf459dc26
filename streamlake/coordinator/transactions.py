"""The transactional ids of this broker's slots: runs their machines, makes durable what they decide, ends transactions.

The machine (transaction.py) is pure. A request of an id runs alone: with the lock of its entry held, the machine is
asked, its new state is made durable, and only then the answer is given. So the state in memory is the durable one, but
for two moments. After a write whose outcome is unknown it is read back before anything else is decided. And that all
markers are written (Complete) is stored with the next write of the id or within seconds, for markers do no harm when
they are sent again.

A broker that gets a slot (cluster/slots.py) reads its open transactions: it sends markers for those that are decided,
and watches over the time of the others. Ids without an open transaction are read when they are asked for. All writes
are fenced by the epoch that the slot had when the entry was made, so nothing moves behind the back of its new owner.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import structlog

from streamlake.cluster.slots import Slots
from streamlake.cluster.store.fences import SlotEpoch
from streamlake.cluster.store.slots import slot_of
from streamlake.cluster.store.transactions import TransactionStore, TxnRow
from streamlake.coordinator import transaction as machine
from streamlake.coordinator.held_slots import HeldSlots, load_in_the_end
from streamlake.coordinator.producer_ids import ProducerIds
from streamlake.coordinator.settings import TransactionSettings
from streamlake.coordinator.stored_transaction import row_of, transaction_of
from streamlake.coordinator.transaction import (
    NO_ID,
    OPEN,
    PREPARED,
    Participant,
    Producer,
    State,
    Step,
    Transaction,
    TxnError,
    store_error,
)
from streamlake.core.clock import Clock
from streamlake.core.errors import OutcomeUnknown, StreamLakeError
from streamlake.core.ids import Ids
from streamlake.core.retry import Backoff
from streamlake.core.tasks import Supervisor
from streamlake.telemetry.metric import Metric, counter, gauge

TICK_S = 1.0
COMPLETE_STORED_S = 5.0  # at the latest
IDLE_S = 60.0  # then an id without an open transaction is read again when it is used
EXPIRY_INTERVAL_S = 3_600.0  # transaction.remove.expired.transaction.cleanup.interval.ms
ENDING_PATIENCE_S = 1.0  # a request waits so long for markers of the transaction before; then its client asks again
MARKER_RETRY_FIRST_S, MARKER_RETRY_MAX_S = 0.05, 2.0
CHUNK = 500  # entries that a tick looks at without letting others run
IDLE_STATES = [state.value for state in State if state not in OPEN]
OPEN_STATES = [state.value for state in OPEN]
log = structlog.get_logger(__name__)


class Ending(NamedTuple):
    """A transaction that is decided, for the partitions that are to learn of it."""

    transactional_id: str
    producer: Producer  # under the epoch of the marker
    number: int
    coordinator_epoch: int
    commit: bool
    version: int


class Markers(Protocol):
    async def write(self, ending: Ending, partitions: Collection[Participant]) -> Collection[Participant]:
        """Try once to end the transaction in these partitions: those where it is durably ended, or that do not exist
        any more. Raises nothing; may be repeated."""
        ...


class Listing(NamedTuple):
    transactional_id: str
    producer_id: int
    state: State
    started_ms: int  # wall clock; -1 if none is open


@dataclass(slots=True, eq=False)
class _Entry:
    transactional_id: str
    slot: SlotEpoch  # as of when the entry was made
    used_at: float
    txn: Transaction | None = None
    is_known: bool = False  # `txn` is what is durable
    is_in_doubt: bool = False  # a write may still be about to be committed
    completed_at: float | None = None  # `txn` is Complete here, and Prepared in its row
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    over: asyncio.Event = field(default_factory=asyncio.Event)  # cleared while markers are on their way
    wanted: list[tuple[Producer, frozenset[Participant]]] = field(default_factory=list)  # by requests that wait
    ending: asyncio.Task[None] | None = None
    is_busy: bool = False  # a tick has something under way for it
    is_dropped: bool = False


class Transactions:
    """After `start` the open transactions of our slots are there."""

    def __init__(
        self,
        store: TransactionStore,
        slots: Slots,
        producer_ids: ProducerIds,
        markers: Markers,
        clock: Clock,
        ids: Ids,
        settings: TransactionSettings | None = None,
    ) -> None:
        self.settings = settings or TransactionSettings()
        self.commits = self.aborts = self.timeouts = self.failures = 0
        self._store = store
        self._slots = slots
        self._producer_ids = producer_ids
        self._markers = markers
        self._clock = clock
        self._ids = ids
        self._held = HeldSlots(slots)
        self._entries: dict[str, _Entry] = {}
        self._tasks = Supervisor()

    def metrics(self) -> Iterable[Metric]:
        return (
            gauge("streamlake_transactions_open", "Transactions that are ongoing or wait for their markers.",
                lambda: sum(1 for entry in list(self._entries.values()) if _is_open(entry))),
            counter("streamlake_transactions_committed", "Transactions committed.", lambda: self.commits),
            counter("streamlake_transactions_aborted", "Transactions aborted.", lambda: self.aborts),
            counter("streamlake_transactions_timed_out", "Transactions aborted because they took too long.",
                lambda: self.timeouts),
            counter("streamlake_transaction_requests_failed",
                "Requests of transactional ids that failed because the metadata store did.", lambda: self.failures),
        )  # fmt: skip

    async def start(self) -> None:
        self._slots.listeners.append(self._slots_changed)
        await self._load(self._follow())
        self._tasks.start("transactions", self._tick_forever())
        self._tasks.start("expire transactional ids", self._expire_forever())

    async def stop(self) -> None:
        """What is decided and not carried out is carried out by the next owner of its slot."""
        self._slots.listeners[:] = [each for each in self._slots.listeners if each != self._slots_changed]
        for entry in self._entries.values():
            self._drop(entry)
        await self._tasks.stop()

    # --- producers

    async def init(
        self, transactional_id: str, timeout_ms: int, expected: Producer | None
    ) -> tuple[TxnError, Producer]:
        """InitProducerId. An open transaction is aborted first, which the answer waits for a moment."""
        none = Producer(NO_ID, machine.NO_EPOCH)
        if not 0 < timeout_ms <= self.settings.timeout_max_ms:
            return TxnError.INVALID_TRANSACTION_TIMEOUT, none

        async def step(known: Transaction | None) -> Step:
            return machine.init(known, timeout_ms, expected, await self._new_id(known))

        error, txn = await self._run(transactional_id, step)
        return error, txn.producer if error is TxnError.NONE and txn else none

    async def add(
        self,
        transactional_id: str,
        producer: Producer,
        partitions: Collection[Participant],
        groups: Collection[str],
        version: int,
    ) -> tuple[TxnError, int]:
        """Partitions and groups join the producer's transaction, which begins unless it is open: its number. Requests
        that wait for one another share a write."""
        entry = self._entry(transactional_id)
        if isinstance(entry, TxnError):
            return entry, -1
        mine = (producer, frozenset(partitions))
        entry.wanted.append(mine)

        async def step(known: Transaction | None) -> Step:
            wanted = frozenset[Participant]().union(*(each for by, each in entry.wanted if by == producer))
            return machine.add(known, producer, wanted, frozenset(groups), self._clock.now_ms(), version)

        try:
            error, txn = await self._run(transactional_id, step)
        finally:
            entry.wanted.remove(mine)
        return error, txn.number if error is TxnError.NONE and txn else -1

    async def verify(self, transactional_id: str, producer: Producer, participant: Participant) -> tuple[TxnError, int]:
        """Whether the partition is in the open transaction of this producer, and the transaction's number."""

        async def step(known: Transaction | None) -> Step:
            return Step(machine.verify(known, producer, participant))

        error, txn = await self._run(transactional_id, step)
        return error, txn.number if error is TxnError.NONE and txn else -1

    async def end(
        self, transactional_id: str, producer: Producer, commit: bool, version: int
    ) -> tuple[TxnError, Producer]:
        """EndTxn: NONE as soon as the decision is durable; and the producer as it goes on."""

        async def step(known: Transaction | None) -> Step:
            new_id = await self._new_id(known) if known is not None else NO_ID
            return machine.end(known, producer, commit, version, new_id, self._clock.now_ms())

        error, txn = await self._run(transactional_id, step)
        ok = error is TxnError.NONE and txn is not None
        return error, txn.producer if ok and txn else Producer(NO_ID, machine.NO_EPOCH)

    # --- administration

    async def describe(self, transactional_id: str) -> Transaction | TxnError:
        async def step(known: Transaction | None) -> Step:
            return Step(TxnError.NONE if known is not None else TxnError.TRANSACTIONAL_ID_NOT_FOUND)

        error, txn = await self._run(transactional_id, step)
        return txn if error is TxnError.NONE and txn is not None else error

    async def list(self) -> Sequence[Listing] | TxnError:
        """All ids of our slots, by id."""
        if self._held.loading:
            return TxnError.COORDINATOR_LOAD_IN_PROGRESS
        try:
            rows = await self._store.load(self._held.epochs)
        except StreamLakeError as error:
            return store_error(error)
        found: dict[str, Listing] = {}
        for row in rows:
            state = State(row.state)
            found[row.transactional_id] = Listing(row.transactional_id, row.producer_id, state, row.started_ms)
        for key, entry in self._entries.items():
            if entry.is_known and entry.txn is not None:
                txn = entry.txn
                found[key] = Listing(key, txn.producer_id, txn.state, txn.started_ms)
        return [
            listing if listing.state in OPEN else listing._replace(started_ms=-1)
            for _, listing in sorted(found.items())
        ]

    # --- one id

    def _entry(self, transactional_id: str) -> _Entry | TxnError:
        slot = self._held.epochs.get(slot_of(transactional_id))
        if slot is None:
            return TxnError.NOT_COORDINATOR
        entry = self._entries.get(transactional_id)
        if entry is None:
            if len(self._entries) >= self.settings.transactions_max:
                return TxnError.COORDINATOR_NOT_AVAILABLE
            entry = _Entry(transactional_id, slot, self._clock.boottime())
            entry.over.set()
            self._entries[transactional_id] = entry
        entry.used_at = self._clock.boottime()
        return entry

    async def _run(
        self, transactional_id: str, decide: Callable[[Transaction | None], Awaitable[Step]]
    ) -> tuple[TxnError, Transaction | None]:
        """The answer, and the transaction that is durable with it. While markers of the transaction before are on their
        way, most answers are CONCURRENT_TRANSACTIONS: it is worth a moment's wait."""
        entry = self._entry(transactional_id)
        if isinstance(entry, TxnError):
            return entry, None
        loop = asyncio.get_running_loop()
        until = loop.time() + ENDING_PATIENCE_S
        while True:
            async with entry.lock:
                if entry.is_dropped:
                    return TxnError.NOT_COORDINATOR, None
                try:
                    await self._read(entry)
                    step = await decide(entry.txn)
                    if step.after is not None:
                        # Durable before the answer: after a crash right here its client asks again, and the next owner
                        # of the slot knows what was decided.
                        await self._save(entry, step.after)
                except StreamLakeError as error:
                    self.failures += 1
                    return store_error(error), None
                txn = entry.txn
            waits = step.after is not None or not entry.over.is_set()
            if step.error is not TxnError.CONCURRENT_TRANSACTIONS or not waits or loop.time() >= until:
                return step.error, txn
            try:
                async with asyncio.timeout_at(until):
                    await entry.over.wait()
            except TimeoutError:
                return step.error, txn

    async def _new_id(self, known: Transaction | None) -> int:
        if known is not None and not known.is_exhausted:
            return NO_ID
        producer_id, _ = await self._producer_ids.init()
        return producer_id

    async def _read(self, entry: _Entry) -> None:
        """Call it with the lock held, as `_save`."""
        if entry.is_known:
            return
        if entry.is_in_doubt:
            row = await self._store.read_back(entry.transactional_id, entry.slot)
        else:
            row = await self._store.get(entry.transactional_id)
        self._take(entry, None if row is None else transaction_of(row))

    async def _save(self, entry: _Entry, after: Transaction) -> None:
        before = entry.txn
        row = row_of(entry.transactional_id, after, self._clock.now_ms())
        decides = before is not None and before.state is State.ONGOING and after.state is not State.ONGOING
        entry.is_known, entry.is_in_doubt = False, True  # also if this is cancelled
        try:
            if decides:
                await self._store.decide(row, after.is_commit, entry.slot)
            else:
                await self._store.save(row, entry.slot)
        except OutcomeUnknown:
            raise
        except StreamLakeError:
            entry.is_known, entry.is_in_doubt = True, False  # nothing was done
            raise
        if decides:
            self.commits += after.is_commit
            self.aborts += not after.is_commit
        self._take(entry, after)

    def _take(self, entry: _Entry, txn: Transaction | None) -> None:
        """It is durable."""
        entry.txn, entry.is_known, entry.is_in_doubt, entry.completed_at = txn, True, False, None
        if txn is not None and txn.state in PREPARED and entry.ending is None and not entry.is_dropped:
            entry.over.clear()
            entry.ending = self._tasks.start(f"end transaction of {entry.transactional_id}", self._end(entry, txn))

    async def _end(self, entry: _Entry, txn: Transaction) -> None:
        """Send the markers of a decided transaction until all of them are durable. Repeats do no harm: in a partition
        where it is not open any more, nothing is written."""
        producer = Producer(txn.producer_id, txn.epoch)
        ending = Ending(entry.transactional_id, producer, txn.number, entry.slot.epoch, txn.is_commit, txn.version)
        left, backoff = set(txn.partitions), Backoff(self._ids, MARKER_RETRY_FIRST_S, MARKER_RETRY_MAX_S)
        while True:
            left -= set(await self._markers.write(ending, frozenset(left)))
            if not left:
                break
            await backoff.pause()
        # Every marker is durable. If this broker dies now, the row still says Prepared: they are sent once more.
        entry.ending = None
        if not entry.is_dropped and entry.txn == txn:
            entry.txn, entry.completed_at = txn.completed(), self._clock.boottime()
        entry.over.set()

    def _drop(self, entry: _Entry) -> None:
        """Another broker has its slot, or this one stops. Whoever waits is answered with that."""
        entry.is_dropped = True
        entry.over.set()
        if entry.ending is not None:
            entry.ending.cancel()

    # --- slots

    def _slots_changed(self) -> None:
        gained = self._follow()
        if gained:
            self._tasks.start("load transactions", load_in_the_end(self._load, gained, "transactions"))

    def _follow(self) -> Sequence[SlotEpoch]:
        """Drop what is of slots that were lost; the slots to load."""
        lost, gained = self._held.follow()
        for entry in [entry for entry in self._entries.values() if entry.slot.slot in lost]:
            self._drop(entry)
            del self._entries[entry.transactional_id]
        return gained

    async def _load(self, slots: Sequence[SlotEpoch]) -> None:
        """Go on with the open transactions of these slots. Their rows are as the former owner has left them: its later
        writes are Fenced since before we had the slots."""
        rows = await self._store.load([epoch.slot for epoch in slots], OPEN_STATES)
        for row in rows:
            epoch = next(epoch for epoch in slots if epoch.slot == slot_of(row.transactional_id))
            if self._held.has(epoch) and row.transactional_id not in self._entries:
                self._resume(row, epoch)
        for epoch in slots:
            self._held.loaded(epoch)

    def _resume(self, row: TxnRow, slot: SlotEpoch) -> None:
        try:
            txn = transaction_of(row)
        except StreamLakeError as error:
            log.error("an open transaction cannot be read", id=row.transactional_id, error=str(error))
            return
        entry = _Entry(row.transactional_id, slot, self._clock.boottime())
        entry.over.set()
        self._entries[row.transactional_id] = entry
        self._take(entry, txn)

    # --- time

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self.tick()

    async def tick(self) -> None:
        """Abort what takes too long, store what is complete, and forget ids that are not used."""
        for number, entry in enumerate(list(self._entries.values())):
            if number % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
            if entry.is_busy or entry.is_dropped or entry.lock.locked():
                continue
            now_s, now_ms = self._clock.boottime(), self._clock.now_ms()
            stored = entry.completed_at is None or entry.completed_at + COMPLETE_STORED_S > now_s
            expired = entry.txn is not None and machine.expire(entry.txn, now_ms).after is not None
            if not entry.is_known or expired or not stored:
                entry.is_busy = True
                self._tasks.start(f"time of {entry.transactional_id}", self._attend(entry))
            elif entry.completed_at is None and not _is_open(entry) and entry.used_at + IDLE_S <= now_s:
                del self._entries[entry.transactional_id]

    async def _attend(self, entry: _Entry) -> None:
        try:
            async with entry.lock:
                if entry.is_dropped:
                    return
                await self._read(entry)
                if entry.txn is None:
                    return
                step = machine.expire(entry.txn, self._clock.now_ms())
                if step.after is not None:
                    facts = {"id": entry.transactional_id, "timeout_ms": entry.txn.timeout_ms}
                    await self._save(entry, step.after)
                    self.timeouts += 1
                    log.info("a transaction took too long and was aborted", **facts)
                elif entry.completed_at is not None:
                    await self._save(entry, entry.txn)
        except StreamLakeError as error:
            log.warning("a transaction could not be stored; retrying", id=entry.transactional_id, error=str(error))
        finally:
            entry.is_busy = False

    async def _expire_forever(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL_S)
            try:
                await self.expire()
            except StreamLakeError as error:
                log.warning("transactional ids could not be expired; retrying later", error=str(error))

    async def expire(self) -> int:
        """Forget ids of our slots that nobody has used for as long as the settings say; how many."""
        until_ms = self._clock.now_ms() - self.settings.id_expiration_ms
        count = 0
        while self._held.epochs:
            found = await self._store.delete_expired(list(self._held.epochs.values()), IDLE_STATES, until_ms)
            for transactional_id in found:
                entry = self._entries.get(transactional_id)
                if entry is not None and not entry.lock.locked():
                    entry.is_known = False  # who has the lock knows, or writes the row again
            count += len(found)
            if not found:
                break
        return count


def _is_open(entry: _Entry) -> bool:
    return entry.txn is not None and entry.txn.state in OPEN
