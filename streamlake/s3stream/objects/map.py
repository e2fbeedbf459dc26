"""Which committed object holds which offsets: per stream packed, sorted arrays, in memory.

Loaded from the metadata store for the streams that this broker opens, moved on by each of its commits, trims and
compactions. The ranges of a stream
adjoin. How many bytes of a stream a range holds, and its greatest timestamp, are known exactly for what this process
committed or whose index it has read (`learn`); until then the size is the object's, apportioned by offsets.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from streamlake.core.errors import Corrupt
from streamlake.s3stream.metadata import ObjectRanges, StreamState

UNKNOWN_TIMESTAMP = -(1 << 63)


class RangeInObject(NamedTuple):
    start_offset: int
    end_offset: int
    object_id: int
    object_size: int
    size_bytes: int  # of the stream's chunks in it
    max_timestamp: int  # UNKNOWN_TIMESTAMP until learnt


class StreamObjects:
    __slots__ = ("columns", "ends", "max_timestamps", "sizes", "starts")

    def __init__(self, ranges: Iterable[RangeInObject] = ()) -> None:
        self.columns: tuple[array[int], ...] = tuple(array("q") for _ in RangeInObject._fields)
        self.starts, self.ends, _, _, self.sizes, self.max_timestamps = self.columns
        for entry in ranges:
            self.append(entry)

    def append(self, entry: RangeInObject) -> None:
        for column, value in zip(self.columns, entry, strict=True):
            column.append(value)

    def at(self, row: int) -> RangeInObject:
        return RangeInObject(*(column[row] for column in self.columns))


class ObjectMap:
    def __init__(self) -> None:
        self._streams: dict[int, StreamObjects] = {}

    def load(self, objects: Iterable[ObjectRanges], states: Mapping[int, StreamState]) -> None:
        """Replace what is known of the streams in `states`. Corrupt if their ranges have a gap, or stop short."""
        found: dict[int, list[RangeInObject]] = {stream_id: [] for stream_id in states}
        for item in objects:
            offsets = item.given_offsets + sum(r.end_offset - r.start_offset for r in item.ranges) or 1
            for r in item.ranges:
                state = states.get(r.stream_id)
                if state is not None and r.end_offset > state.start_offset:
                    share = item.size * (r.end_offset - r.start_offset) // offsets
                    found[r.stream_id].append(
                        RangeInObject(r.start_offset, r.end_offset, item.object_id, item.size, share, UNKNOWN_TIMESTAMP)
                    )
        for stream_id, ranges in found.items():
            ranges.sort()
            _check(states[stream_id], ranges)
            self._streams[stream_id] = StreamObjects(ranges)

    def add(self, stream_id: int, entry: RangeInObject) -> None:
        """A range that was just committed. Known ones are ignored, so that a commit may be applied twice."""
        stream = self._streams.setdefault(stream_id, StreamObjects())
        if not stream.ends or stream.ends[-1] <= entry.start_offset:
            stream.append(entry)

    def find(self, stream_id: int, offset: int) -> RangeInObject | None:
        """The range that holds `offset`."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return None
        row = bisect_right(stream.starts, offset) - 1
        if row < 0 or offset >= stream.ends[row]:
            return None
        return stream.at(row)

    def learn(self, stream_id: int, entry: RangeInObject, size_bytes: int, max_timestamp: int) -> None:
        """Exact facts about a range, read from its object's index."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        row = bisect_left(stream.starts, entry.start_offset)
        if row < len(stream.starts) and stream.at(row)[:3] == entry[:3]:  # else it was replaced meanwhile
            stream.sizes[row] = size_bytes
            stream.max_timestamps[row] = max_timestamp

    def ranges(self, stream_id: int) -> list[RangeInObject]:
        """All of a stream, by offset."""
        stream = self._streams.get(stream_id)
        return [stream.at(row) for row in range(len(stream.starts))] if stream is not None else []

    def replace(self, stream_id: int, entry: RangeInObject) -> None:
        """One range instead of those that it is made of; they may be trimmed meanwhile, some or all of them."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            first = bisect_right(stream.ends, entry.start_offset)
            last = bisect_left(stream.starts, entry.end_offset)
            if first < last:
                for column, value in zip(stream.columns, entry, strict=True):
                    column[first:last] = array("q", (value,))

    def end_offset(self, stream_id: int) -> int | None:
        stream = self._streams.get(stream_id)
        return stream.ends[-1] if stream and stream.ends else None

    def size_bytes(self, stream_id: int, start_offset: int) -> int:
        """Bytes in objects from `start_offset` on; a range that it cuts counts by its share of offsets."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        row = bisect_right(stream.ends, start_offset)
        if row == len(stream.ends):
            return 0
        start, end = stream.starts[row], stream.ends[row]
        below = stream.sizes[row] * max(start_offset - start, 0) // (end - start)
        return sum(stream.sizes[row:]) - below

    def trim(self, stream_id: int, start_offset: int) -> None:
        """Drop ranges that end at or below `start_offset`."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            count = bisect_right(stream.ends, start_offset)
            for column in stream.columns:
                del column[:count]

    def remove(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)


def _check(state: StreamState, ranges: list[RangeInObject]) -> None:
    covered = state.start_offset
    for entry in ranges:
        if entry.start_offset > covered:
            break
        covered = entry.end_offset
    if covered < state.end_offset:
        raise Corrupt(
            f"stream {state.stream_id}: the metadata store lists no object for offset {covered}, though data up to"
            f" {state.end_offset} was committed: its database was damaged or replaced; restore it from a backup"
        )
