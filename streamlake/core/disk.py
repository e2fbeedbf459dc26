"""The disk as a port: the operations whose order decides what survives a power cut.

Rules every implementation keeps and every user may count on:
- `pwrite` and `rename` are visible at once but durable only after `sync` of the file and `sync_dir` of its
  directory, in that order (POSIX fsync; see research on un-synced local stores in docs/adr/0003).
- a failed `sync` leaves the file's durable content unknown for ever: the caller must not retry it (fsyncgate).

All methods block: call them through an Executor. The simulated disk in tests/simulation loses what was not synced.
"""

import errno
import fcntl
import mmap
import os
from collections.abc import Sequence
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class DiskFile(Protocol):
    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        ...

    def pwrite(self, buffers: Sequence[Buffer], offset: int) -> int:
        """Write all buffers one after the other at `offset`; bytes written. OSError if not all could be."""
        ...

    def write_zeros(self, size_bytes: int, offset: int) -> None:
        """Write zeros, past the page cache where that is possible: nobody reads them soon. OSError."""
        ...

    def fill(self, parts: Sequence[Buffer]) -> None:
        """Write a new file's whole content, past the page cache as far as that is possible: a sync then has little left
        to do, and syncs of other files need not wait for it. OSError."""
        ...

    def sync(self) -> None:
        """fdatasync: returns when all that was written is on stable storage."""
        ...

    def size(self) -> int: ...

    def lock(self) -> bool:
        """Take an exclusive lock that dies with the process; False if another process holds it (flock)."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    def open(self, path: str, *, create: bool = False) -> DiskFile:
        """Open for reading and writing; FileNotFoundError unless it exists or `create`."""
        ...

    def read_cached(self, path: str, size: int, offset: int) -> memoryview | None:
        """`size` bytes of a file if the system has all of them in memory. None if not, or if that cannot be told: this
        never waits for the disk."""
        ...

    def makedirs(self, path: str) -> None:
        """Create the directory and its parents, durably; no error if it exists."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomically replace `target`."""
        ...

    def link(self, source: str, target: str) -> None:
        """Atomically create `target`; FileExistsError if it exists."""
        ...

    def unlink(self, path: str) -> None: ...

    def sync_dir(self, path: str) -> None:
        """fsync the directory: creations, renames and unlinks in it are durable."""
        ...

    def listdir(self, path: str) -> list[str]:
        """Names of the entries, sorted; empty if the directory does not exist."""
        ...

    def is_dir(self, path: str) -> bool: ...

    def size(self, path: str) -> int:
        """Size in bytes; FileNotFoundError if it does not exist."""
        ...


IOV_MAX = 1024
DIRECT_BYTES = 512 * 1024  # of one write past the page cache: what syncs of others may have to wait for
ZEROS = mmap.mmap(-1, DIRECT_BYTES)  # aligned to pages, as O_DIRECT wants it
O_DIRECT = getattr(os, "O_DIRECT", None)  # Linux
RWF_NOWAIT = getattr(os, "RWF_NOWAIT", None)  # Linux
BLOCK_BYTES = 4096
DIRECT_MIN_BYTES = 4 << 20  # smaller files are soon written, and perhaps soon read


def is_full(error: OSError) -> bool:
    """True if the operation failed because the disk, or the user's share of it, is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class RealFile:
    def __init__(self, path: str, flags: int) -> None:
        self._fd = os.open(path, flags, 0o644)

    def pread(self, size: int, offset: int) -> bytes:
        parts = []
        while size > 0:
            part = os.pread(self._fd, size, offset)
            if not part:
                break
            parts.append(part)
            size -= len(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def pwrite(self, buffers: Sequence[Buffer], offset: int) -> int:
        total = 0
        for at in range(0, len(buffers), IOV_MAX):
            chunk = buffers[at : at + IOV_MAX]
            want = sum(len(b) for b in chunk)
            done = os.pwritev(self._fd, chunk, offset + total)
            if done < want:  # interrupted or nearly full disk: the rest in one buffer, which raises the real error
                rest = memoryview(b"".join(chunk))[done:]
                while rest:
                    n = os.pwrite(self._fd, rest, offset + total + done)
                    done += n
                    rest = rest[n:]
            total += want
        return total

    def write_zeros(self, size_bytes: int, offset: int) -> None:
        direct = self._open_direct()
        done = 0
        try:
            while done < size_bytes:
                zeros = memoryview(ZEROS)[: size_bytes - done]
                done += _write_direct(direct, zeros, offset + done) or self.pwrite([zeros], offset + done)
        finally:
            if direct is not None:
                os.close(direct)

    def fill(self, parts: Sequence[Buffer]) -> None:
        size_bytes = sum(map(len, parts))
        direct = self._open_direct() if size_bytes >= DIRECT_MIN_BYTES else None
        if direct is None:
            self.pwrite(parts, 0)
            return
        stage = mmap.mmap(-1, DIRECT_BYTES)  # goes with its last view: one may be held by the traceback of an error
        try:
            self._fill(direct, parts, stage)
        finally:
            os.close(direct)

    def _fill(self, fd: int, parts: Sequence[Buffer], stage: mmap.mmap) -> None:
        """Through an aligned buffer. Its last, partly filled block goes through the page cache."""
        offset = filled = 0
        for part in parts:
            left = memoryview(part)
            while left:
                taken = min(len(left), DIRECT_BYTES - filled)
                stage[filled : filled + taken] = left[:taken]
                left, filled = left[taken:], filled + taken
                if filled == DIRECT_BYTES:
                    self._write_stage(fd, stage, filled, offset)
                    offset, filled = offset + filled, 0
        self._write_stage(fd, stage, filled, offset)

    def _write_stage(self, fd: int, stage: mmap.mmap, filled: int, offset: int) -> None:
        with memoryview(stage) as view:
            done = _write_direct(fd, view[: filled - filled % BLOCK_BYTES], offset)
            if done < filled:
                self.pwrite([view[done:filled]], offset + done)

    def _open_direct(self) -> int | None:
        """The same file, past the page cache; None where the system or the file system has no such thing."""
        if O_DIRECT is None:
            return None
        try:
            return os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC | O_DIRECT)
        except OSError:
            return None

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def fileno(self) -> int:
        return self._fd

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def lock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self._fd)


def _write_direct(fd: int | None, data: memoryview, offset: int) -> int:
    """Bytes written past the page cache; 0 if that cannot be: no such `fd`, no whole blocks, or the file system wants
    larger ones."""
    if fd is None:
        return 0
    try:
        return os.pwrite(fd, data, offset)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return 0


class RealDisk:
    def __init__(self) -> None:
        self._durable: set[str] = set()  # directories whose names are known to be on stable storage

    def open(self, path: str, *, create: bool = False) -> RealFile:
        return RealFile(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0))

    def read_cached(self, path: str, size: int, offset: int) -> memoryview | None:
        if RWF_NOWAIT is None or size == 0:
            return None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            # The system reads ahead, so that the last byte comes last: without it no memory is taken.
            if os.preadv(fd, [bytearray(1)], offset + size - 1, RWF_NOWAIT) == 0:
                return None
            data = memoryview(bytearray(size))
            return data if os.preadv(fd, [data], offset, RWF_NOWAIT) == size else None
        except OSError:  # it would have to wait, or the file system cannot tell
            return None
        finally:
            os.close(fd)

    def makedirs(self, path: str) -> None:
        path = os.path.abspath(path)
        there = os.path.isdir(path)
        if there and path in self._durable:
            return
        parent = os.path.dirname(path)
        if parent != path:
            self.makedirs(parent)
            os.makedirs(path, exist_ok=True)
            try:
                # Also if it was there: its maker, another thread or a process that was killed, may not have synced it.
                self.sync_dir(parent)
            except PermissionError:
                if not there:
                    raise
        self._durable.add(path)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def sync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def listdir(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def is_dir(self, path: str) -> bool:
        return os.path.isdir(path)

    def size(self, path: str) -> int:
        return os.stat(path).st_size
