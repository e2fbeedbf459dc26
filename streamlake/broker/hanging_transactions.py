"""No transaction stays open in a partition for ever.

Whoever opens a partition asks the coordinators about each transaction that is open there. One that is ongoing, or whose
end is decided, waits for its marker. Any other cannot have been committed, and nobody will end it: the leader does, by
an abort. A transaction that is still open after CHECK_INTERVAL_S is asked about, too, whatever went wrong with it.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import structlog

from streamlake.handlers.context import Located
from streamlake.handlers.markers import end_transactions
from streamlake.log.manager import LogManager
from streamlake.log.open_transactions import UNKNOWN_NUMBER, OpenTransaction
from streamlake.log.partition import Partition
from streamlake.log.transactions import TransactionEnd
from streamlake.log.transactions_port import Outcome, TransactionsPort
from streamlake.protocol.errors import ErrorCode
from streamlake.s3stream.streams import Streams

log = structlog.get_logger(__name__)

CHECK_INTERVAL_S = 60.0
RETRY_S = 0.5  # of questions that could not be asked
ASKED_TOGETHER = 64


class Asked(NamedTuple):
    partition: Partition
    producer_id: int
    transaction: OpenTransaction


class HangingTransactions:
    """Counter: `aborted`."""

    def __init__(self, logs: LogManager, streams: Streams, port: TransactionsPort) -> None:
        self.aborted = 0
        self._logs = logs
        self._streams = streams
        self._port = port
        self._seen: set[tuple[int, int, int]] = set()  # open at the last check: stream, producer id, first offset
        self._unasked: dict[Partition, None] = {}  # partitions that were opened with open transactions
        self._wake = asyncio.Event()
        logs.opened.append(self._opened)
        for partition in logs:
            self._opened(partition)

    def _opened(self, partition: Partition) -> None:
        if len(partition.transactions.open):
            self._unasked[partition] = None
            self._wake.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        check_at, pause_s = loop.time() + CHECK_INTERVAL_S, 0.0
        while True:
            try:
                async with asyncio.timeout(pause_s or max(check_at - loop.time(), 0)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            unasked = list(self._unasked)
            found = _open_in(partition for partition in unasked if not partition.is_closed)
            if loop.time() >= check_at:
                found += self._open_for_long()
                check_at = loop.time() + CHECK_INTERVAL_S
            if await self._ask_all(found):
                pause_s = 0.0
                for partition in unasked:
                    del self._unasked[partition]
            else:
                pause_s = RETRY_S

    def _open_for_long(self) -> list[Asked]:
        before, found = self._seen, {_key(asked): asked for asked in _open_in(self._logs)}
        self._seen = set(found)
        return [asked for key, asked in found.items() if key in before and asked.partition not in self._unasked]

    async def _ask_all(self, found: Sequence[Asked]) -> bool:
        """What the coordinators say about them is done. False if one could not be asked, or not aborted yet."""
        done = True
        for at in range(0, len(found), ASKED_TOGETHER):
            some = found[at : at + ASKED_TOGETHER]
            done = all(await asyncio.gather(*map(self._ask, some))) and done
        return done

    async def _ask(self, asked: Asked) -> bool:
        partition, producer_id, transaction = asked
        told = await self._port.outcome(producer_id, transaction.epoch, partition.topic_id, partition.index)
        if told.outcome == Outcome.UNAVAILABLE:
            return False
        is_other = transaction.number != UNKNOWN_NUMBER and told.number > transaction.number
        if told.outcome != Outcome.ENDED and not is_other:
            partition.transactions.open.number_told(producer_id, transaction.epoch, told.number)
            return True
        # Safe if a marker comes meanwhile, or the producer begins its next transaction: only the one that was asked
        # about is ended. The coordinator has told what is durable, so no later process commits it.
        end = TransactionEnd(
            producer_id,
            transaction.epoch,
            partition.coordinator_epoch(producer_id),
            commit=False,
            first_offset=transaction.first_offset,
        )
        (code,) = await end_transactions(self._streams, [(Located(ErrorCode.NONE, partition), end)])
        if code != ErrorCode.NONE:
            return partition.is_closed  # then its next leader asks
        self.aborted += 1
        log.warning(
            "a transaction that nobody would have ended was aborted",
            topic_id=str(partition.topic_id),
            partition=partition.index,
            producer_id=producer_id,
            first_offset=transaction.first_offset,
        )
        return True


def _open_in(partitions: Iterable[Partition]) -> list[Asked]:
    return [Asked(partition, *item) for partition in partitions for item in partition.transactions.open.items()]


def _key(asked: Asked) -> tuple[int, int, int]:
    return asked.partition.stream.stream_id, asked.producer_id, asked.transaction.first_offset
