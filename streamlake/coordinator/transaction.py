"""A transaction of a producer with a transactional id, as a pure state machine: Kafka's rules, without I/O.

    Empty ─┬─► Ongoing ─┬─► PrepareCommit ──► CompleteCommit ─┐
           ▲            └─► PrepareAbort ───► CompleteAbort ──┤
           └───────────────── the next one begins ◄───────────┘

Each function takes the transaction as it is durable, and a request, and returns a Step: the answer, and the
transaction as it must be durable *before* that answer is given. None is changed in place. A decision (Prepare) is
final: from there on the only way is to Complete, when every participant has its marker.

What tells producers apart is the producer id and the epoch: InitProducerId raises the epoch, which fences whoever had
the one before. `number` tells the transactions of one epoch apart; it grows with each that begins. With transaction
version 2 (KIP-890) each end raises the epoch, too, so that a late write of one transaction never joins the next one.

A retry is told from a new request by `last_epoch` (KIP-360, KIP-890): the epoch that the producer had when it sent the
request for which it got the present one. It is -1 after another producer has raised the epoch: that was no retry.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple
from uuid import UUID

from streamlake.core.errors import Closed, Fenced, StreamLakeError

NO_ID = NO_EPOCH = -1
EPOCH_LAST = 2**15 - 2  # no producer has a higher one: the last int16 is for markers and fences
GROUPS_MAX = 1_000  # whose offsets one transaction commits
V1, V2 = 1, 2  # transaction.version: without and with KIP-890's second part


class TxnError(Enum):
    """Named as in Kafka's list of error codes."""

    NONE = auto()
    CONCURRENT_TRANSACTIONS = auto()
    COORDINATOR_LOAD_IN_PROGRESS = auto()
    COORDINATOR_NOT_AVAILABLE = auto()
    INVALID_PRODUCER_ID_MAPPING = auto()
    INVALID_REQUEST = auto()
    INVALID_TRANSACTION_TIMEOUT = auto()
    INVALID_TXN_STATE = auto()
    NOT_COORDINATOR = auto()
    PRODUCER_FENCED = auto()
    TRANSACTIONAL_ID_NOT_FOUND = auto()
    TRANSACTION_ABORTABLE = auto()


class State(Enum):
    """Named as in Kafka."""

    EMPTY = "Empty"
    ONGOING = "Ongoing"
    PREPARE_COMMIT = "PrepareCommit"
    PREPARE_ABORT = "PrepareAbort"
    COMPLETE_COMMIT = "CompleteCommit"
    COMPLETE_ABORT = "CompleteAbort"


PREPARED = (State.PREPARE_COMMIT, State.PREPARE_ABORT)
OPEN = (State.ONGOING, *PREPARED)  # somebody waits for its end, or for its markers
_COMPLETE = {State.PREPARE_COMMIT: State.COMPLETE_COMMIT, State.PREPARE_ABORT: State.COMPLETE_ABORT}


class Producer(NamedTuple):
    id: int
    epoch: int


class Participant(NamedTuple):
    """A partition that gets a marker."""

    topic_id: UUID
    partition: int


@dataclass(frozen=True, slots=True)
class Transaction:
    producer_id: int
    epoch: int
    timeout_ms: int
    last_id: int = NO_ID  # the producer id before this one, which ran out of epochs
    last_epoch: int = NO_EPOCH
    next_id: int = NO_ID  # of a prepared transaction: the producer goes on with it, at epoch 0
    number: int = 0
    state: State = State.EMPTY
    version: int = V1  # transaction.version by which it was ended, or is used
    started_ms: int = -1  # wall clock
    partitions: frozenset[Participant] = frozenset()
    groups: frozenset[str] = frozenset()  # whose offsets it commits

    @property
    def producer(self) -> Producer:
        """As its client knows it, or is told next."""
        return Producer(self.producer_id, self.epoch) if self.next_id == NO_ID else Producer(self.next_id, 0)

    @property
    def is_exhausted(self) -> bool:
        """The producer id has no further epoch: the next raise needs another id."""
        return self.epoch >= EPOCH_LAST

    @property
    def is_commit(self) -> bool:
        return self.state in (State.PREPARE_COMMIT, State.COMPLETE_COMMIT)

    def includes(self, participant: Participant) -> bool:
        return participant in self.partitions

    def completed(self) -> "Transaction":
        """Of a prepared one: every participant has its marker."""
        done = replace(self, state=_COMPLETE[self.state], partitions=frozenset(), groups=frozenset())
        if self.next_id == NO_ID:
            return done
        return replace(
            done, producer_id=self.next_id, epoch=0, last_id=self.producer_id, last_epoch=EPOCH_LAST, next_id=NO_ID
        )


class Step(NamedTuple):
    error: TxnError
    after: Transaction | None = None  # to be durable before the answer; None: nothing changes


_FENCED = Step(TxnError.PRODUCER_FENCED)


def init(known: Transaction | None, timeout_ms: int, expected: Producer | None, new_id: int) -> Step:
    """InitProducerId: fences whoever has the transactional id, and aborts what that one left open: the answer is
    CONCURRENT_TRANSACTIONS until it is aborted. `expected`: what the producer had, if it goes on after an error
    (KIP-360). `new_id`: a producer id that nobody has; used if `known` is None or exhausted."""
    if known is None:
        return Step(TxnError.NONE, Transaction(new_id, 0, timeout_ms))
    is_current = expected is None or expected == known.producer
    if not (is_current or _asked_before(known, expected)):
        return _FENCED
    if known.state in PREPARED:
        return Step(TxnError.CONCURRENT_TRANSACTIONS)
    last_epoch = NO_EPOCH if expected is None else expected.epoch
    if known.state is State.ONGOING:
        if not is_current:
            return _FENCED  # its producer has heard of the present epoch, and works with it
        return Step(TxnError.CONCURRENT_TRANSACTIONS, _fenced(known, last_epoch))
    after = replace(known, state=State.EMPTY, timeout_ms=timeout_ms, started_ms=-1)
    if not is_current and known.epoch <= EPOCH_LAST:
        return Step(TxnError.NONE, after)
    if known.is_exhausted:
        after = replace(after, producer_id=new_id, epoch=0, last_id=known.producer_id, last_epoch=last_epoch)
    else:
        after = replace(after, epoch=known.epoch + 1, last_epoch=last_epoch)
    return Step(TxnError.NONE, after)


def add(
    known: Transaction | None,
    producer: Producer,
    partitions: frozenset[Participant],
    groups: frozenset[str],
    now_ms: int,
    version: int,
) -> Step:
    """Partitions and groups join the transaction of this producer, which begins unless it is there."""
    error = _check(known, producer)
    if error is not TxnError.NONE:
        return Step(error)
    assert known is not None
    if known.state is State.ONGOING:
        if partitions <= known.partitions and groups <= known.groups:
            return Step(TxnError.NONE)
        partitions, groups = partitions | known.partitions, groups | known.groups
    if len(groups) > GROUPS_MAX:
        return Step(TxnError.INVALID_REQUEST)
    after = replace(known, partitions=partitions, groups=groups, version=version)
    if known.state is not State.ONGOING:
        after = replace(after, state=State.ONGOING, number=known.number + 1, started_ms=now_ms)
    return Step(TxnError.NONE, after)


def verify(known: Transaction | None, producer: Producer, participant: Participant) -> TxnError:
    """Whether the transaction of this producer is open and includes the partition (KIP-890, first part)."""
    error = _check(known, producer)
    if error is not TxnError.NONE:
        return error
    assert known is not None
    joined = known.state is State.ONGOING and known.includes(participant)
    return TxnError.NONE if joined else TxnError.TRANSACTION_ABORTABLE


def verify_group(known: Transaction | None, producer: Producer, group_id: str) -> TxnError:
    """As `verify`, for the offsets of a group."""
    error = _check(known, producer)
    if error is not TxnError.NONE:
        return error
    assert known is not None
    joined = known.state is State.ONGOING and group_id in known.groups
    return TxnError.NONE if joined else TxnError.INVALID_TXN_STATE


def fate(known: Transaction | None, producer: Producer, participant: Participant) -> Transaction | None:
    """The open transaction to which batches of this producer in the partition belong, as far as no marker has come
    there. None: nobody ends it any more, and it cannot have been committed. `known` has the producer's id."""
    if known is None or known.state not in OPEN or not known.includes(participant):
        return None
    raised = known.epoch - producer.epoch  # by a decision
    belongs = raised == 0 or (raised == 1 and known.state in PREPARED)
    return known if belongs and known.producer_id == producer.id else None


def end(known: Transaction | None, producer: Producer, commit: bool, version: int, new_id: int, now_ms: int) -> Step:
    """EndTxn: the decision. `new_id` as in `init`; used by version 2, which raises the epoch, if `known` is
    exhausted."""
    if known is None:
        return Step(TxnError.INVALID_PRODUCER_ID_MAPPING)
    is_retry = version >= V2 and _asked_before(known, producer)
    if known.producer_id != producer.id and not is_retry:
        return Step(TxnError.INVALID_PRODUCER_ID_MAPPING)
    if known.state in PREPARED:
        if not (is_retry if version >= V2 else producer.epoch == known.epoch):
            return _FENCED
        return Step(TxnError.CONCURRENT_TRANSACTIONS if commit is known.is_commit else TxnError.INVALID_TXN_STATE)
    if known.state in _COMPLETE.values() and (is_retry or (version < V2 and producer.epoch == known.epoch)):
        return Step(TxnError.NONE if commit is known.is_commit else TxnError.INVALID_TXN_STATE)
    if producer.epoch != known.epoch:
        return _FENCED
    if known.state is State.ONGOING:
        return Step(TxnError.NONE, _decided(known, commit, version, new_id))
    if version < V2 or commit:
        return Step(TxnError.INVALID_TXN_STATE)
    # With version 2 a client need not know whether its broken transaction has begun: it is to get its next epoch.
    return Step(TxnError.NONE, _decided(replace(known, started_ms=now_ms), commit, version, new_id))


def expire(known: Transaction, now_ms: int) -> Step:
    """Abort it if it has been open for longer than its producer said."""
    if known.state is State.ONGOING and known.started_ms + known.timeout_ms <= now_ms:
        return Step(TxnError.NONE, _fenced(known, NO_EPOCH))
    return Step(TxnError.NONE)


def _check(known: Transaction | None, producer: Producer) -> TxnError:
    """Of what a producer does within its transaction."""
    if known is None:
        return TxnError.INVALID_PRODUCER_ID_MAPPING
    if known.state in PREPARED and producer == known.producer:
        return TxnError.CONCURRENT_TRANSACTIONS  # its transaction before this one still waits for its markers
    if known.producer_id != producer.id:
        return TxnError.INVALID_PRODUCER_ID_MAPPING
    return TxnError.NONE if known.producer == producer else TxnError.PRODUCER_FENCED


def _asked_before(known: Transaction, expected: Producer | None) -> bool:
    """Whether the producer got its present epoch by a request that named `expected`."""
    if expected is None or expected.epoch != known.last_epoch:
        return False
    return expected.id == known.producer_id or expected == Producer(known.last_id, EPOCH_LAST)


def _decided(known: Transaction, commit: bool, version: int, new_id: int) -> Transaction:
    state = State.PREPARE_COMMIT if commit else State.PREPARE_ABORT
    after = replace(known, state=state, version=version)
    if version >= V2:
        # The marker has the raised epoch: from it on, partitions refuse what still comes of this transaction.
        next_id = new_id if known.is_exhausted else NO_ID
        after = replace(after, epoch=known.epoch + 1, last_epoch=known.epoch, next_id=next_id)
    return after if after.partitions else after.completed()


def _fenced(known: Transaction, last_epoch: int) -> Transaction:
    """Aborted under an epoch that its producer does not have."""
    after = replace(known, state=State.PREPARE_ABORT, epoch=known.epoch + 1, last_epoch=last_epoch)
    return after if after.partitions else after.completed()


def store_error(error: StreamLakeError) -> TxnError:
    """A broker that is fenced, or has lost the slot, is no longer the coordinator; all other errors are transient, and
    clients retry."""
    return TxnError.NOT_COORDINATOR if isinstance(error, Fenced | Closed) else TxnError.COORDINATOR_NOT_AVAILABLE
