"""A new object of blocks that were read from others: small blocks of a stream that follow each other become one."""

from array import array
from dataclasses import dataclass

from streamlake.s3stream.objects.format import Block, ObjectEncoder
from streamlake.s3stream.wal.port import Buffer


@dataclass(slots=True)
class DraftRange:
    stream_id: int
    start_offset: int
    end_offset: int
    data_bytes: int
    max_timestamp: int


class Draft:
    """Takes blocks by stream, then offset. It holds their bytes, and copies none."""

    def __init__(self, block_bytes: int) -> None:
        self.ranges: list[DraftRange] = []
        self._encoder = ObjectEncoder()
        self._block_bytes = block_bytes
        self._begin_block()

    @property
    def size_bytes(self) -> int:
        return self._encoder.size_bytes

    def add(self, stream_id: int, block: Block) -> None:
        last = self.ranges[-1] if self.ranges else None
        if last is None or last.stream_id != stream_id:
            self._end_block()
            last = DraftRange(stream_id, block.start_offset, block.start_offset, 0, max(block.timestamps))
            self.ranges.append(last)
        elif self._size + len(block.data) > self._block_bytes:
            self._end_block()
        assert block.start_offset == last.end_offset, "blocks of a stream adjoin"
        self._bases.extend(block.bases)
        self._timestamps.extend(block.timestamps)
        self._ends.extend(array("I", [self._size + end for end in block.ends]) if self._size else block.ends)
        self._parts.append(block.data)
        self._size += len(block.data)
        last.end_offset = block.end_offset
        last.data_bytes += len(block.data)
        last.max_timestamp = max(last.max_timestamp, max(block.timestamps))

    def finish(self) -> list[Buffer]:
        """All bytes of the object, in order."""
        self._end_block()
        return self._encoder.finish()

    def _begin_block(self) -> None:
        self._bases: array[int] = array("q")
        self._timestamps: array[int] = array("q")
        self._ends: array[int] = array("I")
        self._parts: list[Buffer] = []
        self._size = 0

    def _end_block(self) -> None:
        if self._parts:
            last = self.ranges[-1]
            self._encoder.add_block(
                last.stream_id, last.end_offset, self._bases, self._timestamps, self._ends, self._parts
            )
            self._begin_block()
