"""The directory of a file WAL: its lock, its segment files, and what recovery finds in them.

    data/wal/lock                 held as long as the process lives; says which WAL this is
    data/wal/000000000001.wal     segments; a file keeps its name when it is recycled for the next use

Segments are used in the order of their generations, and a group of records lies within one segment, so all records but
those of the last group are known to have been durable; whatever is wrong with them is damage, never a torn tail.

Everything here blocks: FileWal calls it through its executor, one call at a time.
"""

import posixpath
from dataclasses import dataclass

from streamlake.core.disk import Disk, DiskFile
from streamlake.core.errors import Corrupt, Unavailable
from streamlake.core.ids import Ids
from streamlake.s3stream.wal.file.format import SegmentHeader
from streamlake.s3stream.wal.file.segment import (
    Segment,
    Tail,
    create_segment,
    harden_segment,
    open_segment,
    recycle_segment,
    scan_segment,
)

LOCK_NAME = "lock"
SEGMENT_SUFFIX = ".wal"
IDENTITY_BYTES_MAX = 64


@dataclass(frozen=True, slots=True)
class Recovered:
    live: list[Segment]  # hold records above the trim position, in order; the last one can be filled further
    spares: list[Segment]  # empty, recycled
    next_position: int


class WalDirectory:
    def __init__(self, path: str, disk: Disk, ids: Ids, segment_bytes: int) -> None:
        self.path = path
        self._disk = disk
        self._ids = ids
        self._segment_bytes = segment_bytes
        self._generation = 0
        self._lock: DiskFile | None = None

    def lock(self, must_exist: bool = False) -> None:
        """Keep every other server out; durably make the directory if it is not there. Unavailable if a server is in,
        or if the directory `must_exist` and this is none in which a WAL ever was: a disk may not be mounted."""
        if self._lock:
            return
        path = posixpath.join(self.path, LOCK_NAME)
        if must_exist and (not self._disk.is_dir(self.path) or LOCK_NAME not in self._disk.listdir(self.path)):
            raise Unavailable(
                f"the WAL in {self.path} is not there (no {path}), and it may hold records that are nowhere else: bring"
                " it back (mount its disk), or create that file, empty, to go on without them"
            )
        self._disk.makedirs(self.path)
        lock = self._disk.open(path, create=True)
        if not lock.lock():
            lock.close()
            raise Unavailable(
                f"the WAL directory {self.path} is in use by another server: stop that one, or give this one "
                "a data directory of its own"
            )
        self._lock = lock
        self._disk.sync_dir(self.path)

    def is_abandoned(self, identity: str) -> bool:
        """Whether the WAL of this identity is here and no process has it open: whoever wrote to it has ended, as the
        lock lasts as long as the process. Changes nothing; False also if that cannot be found out."""
        try:
            if not self._disk.is_dir(self.path) or LOCK_NAME not in self._disk.listdir(self.path):
                return False
            lock = self._disk.open(posixpath.join(self.path, LOCK_NAME))
        except OSError:
            return False
        try:
            return lock.lock() and lock.pread(IDENTITY_BYTES_MAX, 0) == identity.encode()
        except OSError:
            return False
        finally:
            lock.close()

    def create(self) -> str:
        """Write a new identity to the lock file, durably. Unavailable if there are segments: they are not ours."""
        if any(name.endswith(SEGMENT_SUFFIX) for name in self._disk.listdir(self.path)):
            raise Unavailable(
                f"{self.path} holds a write-ahead log that the metadata store does not know of: it is another broker's,"
                " or the metadata are older; give this broker another directory, or move that one away"
            )
        identity = self._ids.uuid().hex
        self._write_identity(identity)
        return identity

    def check_identity(self, expected: str) -> None:
        """`expected`: the identity in the metadata store ("" if it was entered before there were any). Unavailable if
        this WAL has another one: every machine has such a directory, and a broker that is started on another machine
        must not use the WAL that it finds there.

        An empty lock file, made by hand, says that the WAL is lost and the broker shall go on without it."""
        found = self._read_identity()
        if expected and found and found != expected:
            raise Unavailable(
                f"the WAL in {self.path} is not the one that this broker wrote last: that one is on another machine, or"
                " its directory was moved. It may hold records that are nowhere else: start the broker where it is"
            )
        if expected and not found:
            self._write_identity(expected)

    def _read_identity(self) -> str:
        assert self._lock, "lock comes first"
        return self._lock.pread(IDENTITY_BYTES_MAX, 0).decode("ascii", "replace")

    def _write_identity(self, identity: str) -> None:
        assert self._lock, "lock comes first"
        self._lock.pwrite([identity.encode()], 0)
        self._lock.sync()  # durable before the metadata store hears of it

    def unlock(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    def recover(self, trim_position: int) -> Recovered:
        """Find, check and index the records above `trim_position`; make the found end the durable end."""
        segments = self._open_segments(trim_position)
        try:
            live, tail, next_position = scan_segments(segments, trim_position)
            spares = self._harden([s for s in segments if s not in live], live[-1] if live else None, tail)
        except BaseException:
            close_segments(segments)
            raise
        return Recovered(live, spares, next_position)

    def discard(self, segments: list[Segment]) -> None:
        """Remove the files of these segments, given in the order of their use, durably; one that is gone already is no
        error. They stay open.

        Safe because all their records are in committed objects, and the newest goes first, each durably before the
        next. If the machine dies in between, the next drain, which begins at the same trim as this one, finds the
        first of the records and no hole; all of them are in objects, and it comes here again.
        """
        for segment in reversed(segments):
            try:
                self._disk.unlink(segment.path)
            except FileNotFoundError:
                pass
            self._disk.sync_dir(self.path)

    def make_segment(self) -> Segment:
        """A new file of zeros with a header; all of it durable."""
        header = self._next_header()
        path = posixpath.join(self.path, f"{header.generation:012d}{SEGMENT_SUFFIX}")
        try:
            return create_segment(self._disk, path, header)
        except OSError:
            self._remove(path)
            raise

    def reuse(self, segment: Segment) -> Segment | None:
        """The segment, recycled; None if it is of another size than is wanted now: its file is removed."""
        try:
            if segment.header.segment_bytes == self._segment_bytes:
                return recycle_segment(segment, self._next_header())
        except OSError:
            segment.file.close()
            self._remove(segment.path)  # after a failed sync nobody knows its content: never use it again
            raise
        segment.file.close()
        self._disk.unlink(segment.path)
        return None

    def _open_segments(self, trim_position: int) -> list[Segment]:
        """All whole segments in order of use. Files whose making never ended are removed."""
        segments: dict[int, Segment] = {}
        try:
            for name in self._disk.listdir(self.path):
                if not name.endswith(SEGMENT_SUFFIX):
                    continue
                path = posixpath.join(self.path, name)
                segment = open_segment(self._disk, path, trim_position)
                if segment is None:
                    self._disk.unlink(path)
                    continue
                twin = segments.setdefault(segment.header.generation, segment)
                if twin is not segment:
                    segment.file.close()
                    raise Corrupt(f"{path} and {twin.path} claim the same place in the WAL: remove the copy")
        except BaseException:
            close_segments(list(segments.values()))
            raise
        self._generation = max(segments, default=0)
        return [segments[generation] for generation in sorted(segments)]

    def _harden(self, free: list[Segment], last: Segment | None, tail: Tail | None) -> list[Segment]:
        """Make what was found durable before anybody hears of it, and before any new record is written.

        Every segment without live records is recycled: a torn group in it could else be taken for the
        continuation of what is appended from now on.
        """
        if last and tail:
            harden_segment(last, tail)
        spares = [spare for segment in free if (spare := self.reuse(segment))]
        self._disk.sync_dir(self.path)  # a killed predecessor may have made files and not got this far
        return spares

    def _next_header(self) -> SegmentHeader:
        self._generation += 1
        return SegmentHeader(self._generation, self._segment_bytes, self._ids.random.getrandbits(32))

    def _remove(self, path: str) -> None:
        """Remove a file that holds nothing; if that fails too, the next recovery finds it without records."""
        try:
            self._disk.unlink(path)
        except OSError:
            pass


def scan_segments(segments: list[Segment], trim_position: int) -> tuple[list[Segment], Tail | None, int]:
    """Index the segments, given in order of use: the live ones, the tail of the last live one, the next position."""
    live: list[Segment] = []
    tail: Tail | None = None
    next_position = trim_position + 1
    for segment in segments:
        found = scan_segment(segment, next_position, trim_position)
        if not segment.offsets or segment.last_position <= trim_position:
            continue
        if segment.first_position > next_position:
            after = f" at offset {live[-1].end} of {live[-1].path}" if live else ""
            raise Corrupt(
                f"records {next_position} to {segment.first_position - 1} of the WAL are missing{after}, but "
                f"{segment.path} goes on with record {segment.first_position}: acknowledged data is lost or damaged"
            )
        if live and segment.first_position < next_position:
            raise Corrupt(
                f"{segment.path} has record {segment.first_position}, which {live[-1].path} holds too: one of them is "
                "a copy from another time, or another server wrote here; move the wrong one away"
            )
        live.append(segment)
        tail = found
        next_position = segment.last_position + 1
    return live, tail, next_position


def close_segments(segments: list[Segment]) -> None:
    for segment in segments:
        segment.file.close()
