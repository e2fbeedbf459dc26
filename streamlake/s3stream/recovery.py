"""What a broker does before it serves: the state of its streams from committed objects and the rest of its WAL.

The metadata store says up to which offset each stream lies in committed objects, and from which position on the WAL
is needed. Records below a stream's committed end are skipped: a crash came between commit and trim, or the record was
appended while its upload was being cut. Records beyond go to the log cache; if memory does not suffice, its oldest
part is left in the WAL. No log is scanned, no object is read.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from streamlake.core.errors import Corrupt, Full
from streamlake.s3stream.log_cache import ACCOUNT, LogCache, StreamLog
from streamlake.s3stream.metadata import StreamMetadata, StreamState
from streamlake.s3stream.objects.map import ObjectMap
from streamlake.s3stream.wal.port import Wal, WalRecord

RECORDS_PER_SLICE = 128


@dataclass(frozen=True, slots=True)
class Recovered:
    logs: dict[int, StreamLog]  # streams with chunks beyond their committed end
    last_position: int
    skipped_records: int  # lie in objects already, or belong to deleted streams


async def recover(wal: Wal, metadata: StreamMetadata, cache: LogCache, objects: ObjectMap) -> Recovered:
    """Corrupt if the WAL and the metadata store contradict each other."""
    states = {state.stream_id: state for state in await metadata.stream_states()}
    replay = Replay(states, cache)
    last_position = await metadata.wal_trim()
    records = 0
    async for position, record in wal.recover(last_position):
        last_position = position
        replay.take(position, record)
        records += 1
        if records % RECORDS_PER_SLICE == 0:
            await asyncio.sleep(0)
    if replay.logs:  # of other streams whoever opens them learns the objects: until then others may replace them
        objects.load(await metadata.objects(), {stream_id: states[stream_id] for stream_id in replay.logs})
    return Recovered(replay.logs, last_position, replay.skipped_records)


class Replay:
    """Takes the records of a WAL in order, and keeps what lies beyond the committed end of its stream."""

    def __init__(self, states: Mapping[int, StreamState], cache: LogCache) -> None:
        self.logs: dict[int, StreamLog] = {}
        self.skipped_records = 0
        self._states = states
        self._cache = cache

    def take(self, position: int, record: WalRecord) -> StreamLog | None:
        """The log that the record went to; None if it was skipped. Corrupt; Full if memory does not suffice."""
        state = self._states.get(record.stream_id)
        if state is None or record.base_offset + record.count <= state.end_offset:
            self.skipped_records += 1
            return None
        log = self.logs.get(record.stream_id)
        if log is None:
            log = self.logs[record.stream_id] = StreamLog(state)
        _check(log, state, record)
        self._add(log, record, position)
        return log

    def _add(self, log: StreamLog, record: WalRecord, position: int) -> None:
        cache, size = self._cache, len(record.data)
        cache.evict(size, position)
        if not cache.capacity.try_take(ACCOUNT, size):
            raise Full(
                f"the WAL holds more than the log cache of {cache.capacity.total_bytes} bytes can take:"
                " raise its limit and start again"
            )
        cache.copy_in(log, record.data)
        cache.add(log, record.count, record.max_timestamp, position, size)
        log.durable_offset = log.next_offset


def _check(log: StreamLog, state: StreamState, record: WalRecord) -> None:
    if record.stream_epoch > state.epoch:
        raise Corrupt(
            f"stream {record.stream_id}: the WAL has a record of epoch {record.stream_epoch}, the metadata store knows"
            f" epochs up to {state.epoch}: its database is older than the WAL; restore the newest backup"
        )
    if record.base_offset != log.next_offset:
        raise Corrupt(
            f"stream {record.stream_id}: the WAL continues at offset {record.base_offset}, expected"
            f" {log.next_offset} (committed up to {state.end_offset}): records are missing or repeated;"
            " the WAL or the metadata database is not the one this broker used last"
        )
