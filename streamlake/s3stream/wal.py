"""The write-ahead log as a port. Every implementation runs tests/contracts/wal_contract.py.

One WAL per broker holds the batches of all its streams in append order. A *position* numbers records:
it starts above the last trimmed one, grows by one with each record and never repeats, restarts included.

Life: `recover` once, then `start`, then append / trim / read until `close`. Room is reserved before
offsets are given, so `append` cannot fail for lack of space and the WAL never skips a record: either every
record up to a position becomes durable, or the whole WAL fails and says so once, and nothing more is acked.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class WalRecord:
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

    def recover(self, trim_position: int) -> AsyncIterator[tuple[int, WalRecord]]:
        """Replay the durable records at positions > trim_position, in order, up to the first that is torn,
        missing or left over from a former use. Corrupt if damage lies before records that were acked."""
        ...

    async def start(self, on_durable: Callable[[int], None], on_failed: Callable[[BaseException], None]) -> None:
        """Begin to accept records. `on_durable(position)` is called on the loop, positions growing;
        `on_failed(error)` at most once, after which nothing more becomes durable."""
        ...

    def try_reserve(self, size_bytes: int) -> bool:
        """Set aside room for records of this many data bytes; False if the WAL is full (trim makes room)."""
        ...

    async def reserve(self, size_bytes: int, timeout_s: float) -> None:
        """Wait for room; Full after `timeout_s`."""
        ...

    def release(self, size_bytes: int) -> None:
        """Give back room that was reserved and not used."""
        ...

    def append(self, record: WalRecord) -> int:
        """Queue a record whose bytes were reserved; its position. Plain def: never awaits, never fails
        except Closed after `on_failed`. Durable when on_durable reports this position or a later one."""
        ...

    async def read(self, position: int) -> WalRecord:
        """A durable record that is not trimmed, read back (verified by its CRCs); NotFound, Corrupt."""
        ...

    async def trim(self, position: int) -> None:
        """Forget records at positions <= position; their data is durable elsewhere. Idempotent."""
        ...

    async def close(self) -> None:
        """Make queued records durable, then stop."""
        ...
