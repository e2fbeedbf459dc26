"""What S3Stream needs from the metadata store, as a port; cluster/ implements it on SQL.

An implementation is bound to one broker and its epoch. Every write checks, in its own transaction, that this
broker epoch is current, so a zombie changes nothing: Fenced. It is also bound to one WAL, that of this broker, or one
of before or of a dead broker that this one drains; what moves the trim of that WAL checks that it still is the WAL's
entry. Contract: tests/contracts/stream_metadata_contract.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streamlake.core.errors import StreamLakeError


@dataclass(frozen=True, slots=True)
class StreamState:
    stream_id: int
    epoch: int  # bumped at each open; Kafka's leader epoch
    start_offset: int
    end_offset: int  # end of what lies in committed objects
    checkpoint: bytes  # opaque to s3stream; state of the log layer exactly at checkpoint_offset
    checkpoint_offset: int
    epochs: tuple[tuple[int, int], ...]  # (epoch, start offset) history, oldest first
    notes: bytes = b""  # of the log layer, one after the other; given by open_streams only


@dataclass(frozen=True, slots=True)
class StreamRange:
    """Offsets [start_offset, end_offset) of one stream in one object."""

    stream_id: int
    stream_epoch: int
    start_offset: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """State of the log layer exactly at `offset`. `notes`: what came to it up to there, and must outlive the next
    checkpoint; some may have been committed before."""

    stream_id: int
    offset: int
    blob: bytes
    notes: bytes = b""


@dataclass(frozen=True, slots=True)
class StreamTrim:
    """The stream begins at `start_offset` now. `checkpoint` lies at or above it, at a durable offset: what is below the
    start can never be read again to rebuild the state of the log layer. `spares_held`: not if somebody still needs what
    is below."""

    stream_id: int
    stream_epoch: int
    start_offset: int
    checkpoint: Checkpoint | None
    spares_held: bool = False


@dataclass(frozen=True, slots=True)
class OpenAt:
    """A stream that is to be opened, with its end as the opener found it, WAL tail included."""

    stream_id: int
    start_offset: int


@dataclass(frozen=True, slots=True)
class Closing:
    """The stream is given up, with all that it holds in committed objects: up to `end_offset`."""

    stream_id: int
    stream_epoch: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class ObjectRanges:
    """A committed stream-set object and what it holds, sorted by stream, then offset. `given_offsets`: how many more it
    held at first, which are read from other objects now (`replace_ranges`)."""

    object_id: int
    size: int
    ranges: tuple[StreamRange, ...]
    given_offsets: int = 0


class StreamMetadata(Protocol):
    async def open_streams(self, openings: Sequence[OpenAt]) -> list[StreamState | StreamLakeError]:
        """Take ownership of each stream, or say why not: epoch + 1, owner = this broker; the new epoch starts at
        `start_offset` in the epoch history. NotFound if a stream does not exist. Unavailable if a stream has an owner,
        unless that is this node in a life whose records the WAL of this one holds. Conflict if its committed end is
        beyond `start_offset`: it was written to since its end was read."""
        ...

    async def close_streams(self, closings: Sequence[Closing]) -> None:
        """Give up ownership: nobody owns these streams any more, and nothing can be committed to them until they are
        opened again. Conflict, for all, if the committed end of a stream is another. Deleted streams and those that
        are closed already, or opened again since, are ignored: the call may be repeated."""
        ...

    async def stream_states(self, stream_ids: Sequence[int] | None = None) -> list[StreamState]:
        """The current states, without taking ownership; of all streams if None. Unknown ids are left out."""
        ...

    async def objects(self) -> list[ObjectRanges]:
        """All committed stream-set objects, by object id."""
        ...

    async def prepare_object(self, ttl_ms: int) -> int:
        """A new object id in state `prepared`. After so much time gc may destroy it. The clock is that of the metadata
        store: that of another broker, which may run gc, may differ from ours."""
        ...

    async def commit_object(
        self,
        object_id: int,
        size: int,
        ranges: Sequence[StreamRange],
        checkpoints: Sequence[Checkpoint],
        wal_trim: int,
    ) -> None:
        """prepared → committed; stream ends, checkpoints and the WAL trim move with it, all or nothing.
        Requires: broker epoch current (Fenced); the WAL still ours to trim (Fenced: another broker has drained it, or a
        newer life of its node writes to it); object still prepared (Conflict); per range the stream's epoch equal
        (Fenced) and range.start_offset == stream end_offset (Conflict). Deleted streams' ranges are dropped.
        A checkpoint lies at the end of its stream's range; one below the stored one is dropped, but not its notes."""
        ...

    async def replace_ranges(
        self, object_id: int, size: int, ranges: Sequence[StreamRange], sources: Sequence[int]
    ) -> None:
        """prepared → committed, and all that lies in `ranges`, one of a stream, is read from this object from now on:
        the sources give it up, all or nothing. A source that has nothing left is destroyed. Ends, starts and
        checkpoints of streams, and the trim of the WAL, stay as they are.
        Requires: broker epoch current (Fenced); per range the stream open in this epoch (Fenced); object still prepared
        (Conflict); each range, but for what lies below the start of its stream, made of whole ranges of the sources
        (Conflict: somebody replaced them before). Deleted streams' ranges are dropped."""
        ...

    async def trim_streams(self, trims: Sequence[StreamTrim]) -> None:
        """Move starts and checkpoints forward, never back; notes of checkpoints at or below the start go. Requires each
        stream's epoch equal (Fenced); unknown streams are ignored. Conflict, for all, if a stream is held below a start
        that spares what is held."""
        ...

    async def trim_wal(self, position: int) -> None:
        """Move the WAL trim forward without an object: the records up to `position` that no object holds belong to
        deleted streams. Never back. Fenced as in commit_object."""
        ...

    async def wal_trim(self) -> int:
        """The trim position of the WAL as of the last commit_object or trim_wal; 0 at first. Fenced if the WAL is no
        longer ours, as in commit_object."""
        ...

    async def destroyable_objects(self) -> list[int]:
        """gc, phase one: mark destroyed (durably) and return ids of objects that are prepared for too long, or
        committed with no range that still lies in a stream, and ids marked so before, here or by `replace_ranges`:
        their bytes may be deleted."""
        ...

    async def forget_objects(self, object_ids: Sequence[int]) -> None:
        """gc, phase two: the bytes are gone, drop the rows of destroyed objects."""
        ...
