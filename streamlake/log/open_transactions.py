"""The transactions that are open in a partition, and how far readers of committed records may read.

The last stable offset is the lowest first offset of the open transactions, and of those that have ended but whose
marker is not durable yet: were the marker lost with this broker, the transaction would be open again, and a reader must
not have passed it. With none of both it is the high watermark.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

UNKNOWN_NUMBER = -1


class OpenTransaction(NamedTuple):
    epoch: int  # of the producer
    first_offset: int
    number: int  # within its transactional id; UNKNOWN_NUMBER until the coordinator has told it


class _Ending(NamedTuple):
    producer_id: int
    first_offset: int
    end_offset: int  # of its marker
    durable: "asyncio.Future[None]"


class OpenTransactions:
    def __init__(self) -> None:
        self._open: dict[int, OpenTransaction] = {}  # by producer id; the one that began first is first
        self._ending: deque[_Ending] = deque()  # in the order of their markers
        self.unstable_offset: int | None = None  # lowest first offset, see above

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def __contains__(self, producer_id: object) -> bool:
        return producer_id in self._open

    def items(self) -> Iterator[tuple[int, OpenTransaction]]:
        """(producer id, its transaction), the one that began first first."""
        return iter(self._open.items())

    def get(self, producer_id: int) -> OpenTransaction | None:
        return self._open.get(producer_id)

    def begin(self, producer_id: int, transaction: OpenTransaction) -> None:
        """At an offset above all others. The producer has no open transaction."""
        self._open[producer_id] = transaction
        if self.unstable_offset is None:
            self.unstable_offset = transaction.first_offset

    def number_told(self, producer_id: int, epoch: int, number: int) -> None:
        """The coordinator has told the number of a transaction that was open when the partition was."""
        found = self._open.get(producer_id)
        if found is not None and found.epoch == epoch and found.number == UNKNOWN_NUMBER:
            self._open[producer_id] = found._replace(number=number)

    def end(self, producer_id: int, end_offset: int, durable: "asyncio.Future[None] | None") -> OpenTransaction:
        """A marker that ends at `end_offset` was appended, durable once `durable` is (None: it is)."""
        ended = self._open.pop(producer_id)
        if durable is not None:
            self._ending.append(_Ending(producer_id, ended.first_offset, end_offset, durable))
        self._look()
        return ended

    def stable_after(self, end_offset: int) -> int:
        """The last stable offset once all up to `end_offset`, the end of the log, is durable."""
        return next((found.first_offset for found in self._open.values()), end_offset)

    def ending(self, producer_id: int) -> "asyncio.Future[None] | None":
        """What the producer's last marker waits for; None if it is durable."""
        found = [ending.durable for ending in self._ending if ending.producer_id == producer_id]
        return found[-1] if found else None

    def durable(self, offset: int) -> None:
        """All below `offset` is durable."""
        if self._ending and self._ending[0].end_offset <= offset:
            while self._ending and self._ending[0].end_offset <= offset:
                self._ending.popleft()
            self._look()

    def _look(self) -> None:
        first = [found.first_offset for found in self._ending]
        if self._open:
            first.append(next(iter(self._open.values())).first_offset)
        self.unstable_offset = min(first, default=None)
