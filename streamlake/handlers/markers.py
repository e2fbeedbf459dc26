"""Appends markers to partitions, for coordinators of transactions and for administrators, and waits until they are
durable."""

import asyncio
from collections.abc import Sequence

from streamlake.core.errors import StreamLakeError
from streamlake.handlers.context import Located
from streamlake.handlers.error_codes import LOG, RESERVATION, failure
from streamlake.log.transactions import TransactionEnd
from streamlake.protocol.errors import ErrorCode
from streamlake.record.control import MARKER_BYTES
from streamlake.s3stream.streams import Streams

MARKER_WAIT_S = 20.0  # for room, and then for durability: who asked asks again


async def end_transactions(streams: Streams, wanted: Sequence[tuple[Located, TransactionEnd]]) -> list[ErrorCode]:
    """What became of each: NONE once its marker is durable, or nothing was there to end. Repeats do no harm."""
    room_bytes = MARKER_BYTES * len(wanted)
    try:
        await streams.reserve(room_bytes, MARKER_WAIT_S)
    except StreamLakeError as error:
        return [failure(error, RESERVATION).code for _ in wanted]
    results: list[ErrorCode | asyncio.Future[None]] = []
    unused_bytes = room_bytes
    try:
        for (code, partition), end in wanted:  # nothing is awaited, as in the first stage of Produce
            if partition is None:
                results.append(code)
                continue
            try:
                ended = partition.end_transaction(end)
            except StreamLakeError as error:
                results.append(failure(error, LOG).code)
            else:
                unused_bytes -= ended.appended_bytes
                results.append(ended.durable or ErrorCode.NONE)
    finally:
        if unused_bytes:
            streams.release(unused_bytes)
    # Only a durable marker is told: the coordinator forgets the transaction once all of its markers are.
    if pending := [r for r in results if isinstance(r, asyncio.Future) and not r.done()]:
        await asyncio.wait(pending, timeout=MARKER_WAIT_S)
    return [_code(r) if isinstance(r, asyncio.Future) else r for r in results]


def _code(durable: "asyncio.Future[None]") -> ErrorCode:
    if not durable.done():
        return ErrorCode.REQUEST_TIMED_OUT
    error = durable.exception()
    if error is None:
        return ErrorCode.NONE
    return failure(error, LOG).code if isinstance(error, StreamLakeError) else ErrorCode.UNKNOWN_SERVER_ERROR
