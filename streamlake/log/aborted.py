"""Which transactions of a partition were aborted: readers of committed records leave their records out (KIP-98).

As Kafka's transaction index: one entry per aborted transaction, in the order of the abort markers. An entry is also a
note of the stream (stream_port.py): it is committed with the first checkpoint after its marker, lives as long as the
marker does, and what is not committed yet is found again by replay. 32 bytes in memory, and as many in a note.
"""

import struct
from array import array
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from streamlake.core.errors import Corrupt

_ENTRY = struct.Struct(">qqqq")


class AbortedTransaction(NamedTuple):
    producer_id: int
    first_offset: int
    last_offset: int  # of its marker
    last_stable_offset: int  # once the marker was durable: no later entry begins below

    def encoded(self) -> bytes:
        return _ENTRY.pack(*self)


class Aborted:
    def __init__(self, notes: bytes = b"") -> None:
        """`notes`: encoded entries, in any order; an entry may be there twice. Corrupt."""
        if len(notes) % _ENTRY.size:
            raise Corrupt(f"the notes of a log are {len(notes)} bytes, not a multiple of {_ENTRY.size}")
        self._producer_ids, self._firsts, self._lasts, self._stables = (array("q") for _ in range(4))
        found = {entry[2]: entry for entry in _ENTRY.iter_unpack(notes)}
        for last_offset in sorted(found):
            self.add(AbortedTransaction._make(found[last_offset]))

    def __len__(self) -> int:
        return len(self._lasts)

    def add(self, entry: AbortedTransaction) -> None:
        """Its marker lies above all others."""
        self._producer_ids.append(entry.producer_id)
        self._firsts.append(entry.first_offset)
        self._lasts.append(entry.last_offset)
        self._stables.append(entry.last_stable_offset)

    def within(self, start_offset: int, end_offset: int) -> list[tuple[int, int]]:
        """(producer id, first offset) of each aborted transaction that lies in part in [start_offset, end_offset)."""
        at = bisect_left(self._lasts, start_offset)
        # An entry whose stable offset reaches the end may itself begin below it; what comes later does not.
        stop = min(bisect_left(self._stables, end_offset, at) + 1, len(self._lasts))
        pairs = zip(self._producer_ids[at:stop], self._firsts[at:stop], strict=True)
        return [(producer_id, first) for producer_id, first in pairs if first < end_offset]

    def trim(self, start_offset: int) -> None:
        """The log begins at `start_offset` now."""
        gone = bisect_right(self._lasts, start_offset - 1)
        for column in (self._producer_ids, self._firsts, self._lasts, self._stables):
            del column[:gone]
