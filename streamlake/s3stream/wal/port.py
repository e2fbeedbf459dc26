"""The write-ahead log as a port. Every implementation runs tests/contracts/wal_contract.py.

One WAL per broker holds the batches of all its streams in append order. A *position* is an integer that grows
with each record and never repeats within a WAL: 0 is before all of them. Kinds count in their own way.

Life: `recover` once, then `start`, then append / trim / read until `close`. Capacity is reserved before
offsets are given, so `append` cannot fail for lack of space and the WAL never skips a record: either every
record up to a position becomes durable, or the whole WAL fails and says so once, and nothing more is acked.

What an earlier life, another kind or another broker left is a `DrainableWal`: replayed into objects, then discarded.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from enum import Enum, auto
from typing import Protocol

import msgspec

from streamlake.s3stream.wal.writes import Writes
from streamlake.telemetry.metric import Metric, Sample, counter

Buffer = bytes | memoryview
CAPACITY_BYTES = 2 << 30  # of records that are not trimmed, unless the settings of a WAL say otherwise


class State(Enum):
    """Where a WAL is in its life, in this order; after FAILED only CLOSED follows."""

    NEW = auto()
    RECOVERED = auto()
    RUNNING = auto()
    FAILED = auto()
    CLOSED = auto()


class WalRecord(msgspec.Struct, frozen=True, gc=False):
    """One or more whole batches of one stream: offsets [base_offset, base_offset + count)."""

    stream_id: int
    stream_epoch: int
    base_offset: int
    count: int
    max_timestamp: int  # an opaque sort key to s3stream; milliseconds to the log above it
    data: Buffer  # immutable


class Wal(Protocol):
    durable_position: int
    """All records at positions <= this one survive a crash."""
    appended_records: int
    appended_bytes: int
    writes: Writes
    read_cache_bytes: int
    """Memory for what `read` fetched and may need again."""

    def recover(self, trim_position: int) -> AsyncIterator[tuple[int, WalRecord]]:
        """Replay the durable records at positions > trim_position, in order, up to the first that is torn,
        missing or left over from an earlier use. Corrupt if damage lies before records that were acked."""
        ...

    async def start(self, on_durable: Callable[[int], None], on_failed: Callable[[BaseException], None]) -> None:
        """Begin to accept records. `on_durable(position)` is called on the loop, positions growing;
        `on_failed(error)` at most once, after which nothing more becomes durable."""
        ...

    def try_reserve(self, size_bytes: int) -> bool:
        """Reserve capacity for records of this many data bytes; False if the WAL is full (a trim frees capacity)."""
        ...

    async def reserve(self, size_bytes: int, timeout_s: float) -> None:
        """Wait for capacity; Full after `timeout_s`."""
        ...

    def release(self, size_bytes: int) -> None:
        """Give back what was reserved and not used."""
        ...

    def append(self, record: WalRecord) -> int:
        """Queue a record whose bytes were reserved; its position. Plain def: never awaits, never fails
        except Closed after `on_failed`. Durable when on_durable reports this position or a later one."""
        ...

    def hurry(self) -> None:
        """Do not wait for more records before those that were appended are made durable."""
        ...

    async def read(self, position: int) -> WalRecord:
        """A durable record that is not trimmed, read back (verified by its CRCs); NotFound, Corrupt."""
        ...

    def readable_together(self, after: int) -> int:
        """Up to which position the records after `after` can be read in any order without anything being fetched
        twice: durable ones, or all where that makes no difference. Beyond `after` if a record there is durable."""
        ...

    async def trim(self, position: int) -> None:
        """Drop records at positions <= position; their data is durable elsewhere. Idempotent."""
        ...

    async def close(self) -> None:
        """Make queued records durable, then stop."""
        ...


class DrainableWal(Protocol):
    """A WAL that nobody may append to any more: its records go into objects (recovery.py), then it is discarded."""

    def recover(self, trim_position: int) -> AsyncIterator[tuple[int, WalRecord]]:
        """See Wal.recover. The previous owner is kept out before the end is decided (by a fence, a lock, a lease that
        ran out), so that no record is acknowledged that this replay did not see."""
        ...

    async def trim(self, position: int) -> None:
        """See Wal.trim."""
        ...

    async def discard(self) -> None:
        """All records lie in committed objects: free their space, but leave what keeps a zombie out. Idempotent."""
        ...

    async def close(self) -> None: ...


class Lease(Protocol):
    """The right to acknowledge what others could replay without asking us (DESIGN section 5, `file` WAL)."""

    def held(self) -> bool:
        """True as long as nobody can have taken this broker over."""
        ...

    async def until_held(self) -> None:
        """Returns once it is held (again). If it never is, the task that renews it ends the process."""
        ...


def wal_metrics(wal: Wal) -> Iterable[Metric]:
    def buckets() -> list[Sample]:
        return [(count, {"le_ms": bound}) for bound, count in wal.writes.cumulative()]

    return (
        counter("streamlake_wal_records", "Records appended to the write-ahead log, each one or more record batches.",
            lambda: wal.appended_records),
        counter("streamlake_wal_bytes", "Bytes of record batches appended to the write-ahead log.",
            lambda: wal.appended_bytes),
        counter("streamlake_wal_syncs",
            "Writes that made records durable: syncs of a file WAL, uploads of an object WAL.",
            lambda: wal.writes.count),
        counter("streamlake_wal_sync_milliseconds", "Total duration of WAL syncs (or uploads), in milliseconds.",
            lambda: wal.writes.sum_ms),
        Metric("counter", "streamlake_wal_sync_bucket", "WAL syncs (or uploads) that took at most le_ms milliseconds.",
            buckets),
    )  # fmt: skip
