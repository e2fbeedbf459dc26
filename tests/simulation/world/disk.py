"""A disk in memory that loses what was not synced: the oracle for every claim of durability.

A file's writes are durable only after its `sync`, a directory's entries only after `sync_dir` (makedirs is durable by
the port's contract). `crash(random)` is a power cut: it returns the disk as the next boot finds it. Each 512-byte page
then holds some version it had since the last sync, so un-synced writes are lost, kept or torn, out of order; each un-synced
creation, rename, link or unlink happened or did not. `kill()` is the end of the process only: the page cache survives, locks do not.
Handles of a disk that crashed or was killed are dead: every call on them fails, as the process behind them is gone.

A SimDisk is what one process sees of the platters under it; `session()` is another process's view of the same files, and
`kill()` of one leaves the others alone. A crash is everybody's.

Faults: `capacity_bytes` (ENOSPC beyond it), and `before`, called with (operation, path) ahead of every operation: it
may raise an OSError, or end the run. A `sync` that raises drops its pages as Linux does: still visible, never durable.
"""

import errno
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from streamlake.core.disk import Buffer

PAGE_BYTES = 512


@dataclass(eq=False, slots=True)
class Inode:
    visible: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)
    locked_by: "SimFile | None" = None

    def write(self, data: bytes, offset: int) -> None:
        overlay(self.visible, data, offset)
        self.unsynced.append((offset, data))

    def sync(self) -> None:
        for offset, data in self.unsynced:
            overlay(self.durable, data, offset)
        self.unsynced.clear()

    def after_power_cut(self, random: Random) -> "Inode":
        """The durable bytes, and of each page some version that it had since the last sync."""
        content = bytearray(self.durable)
        versions: dict[int, list[tuple[int, bytes]]] = {}
        for offset, data in self.unsynced:
            for page in range(offset // PAGE_BYTES, (offset + len(data) - 1) // PAGE_BYTES + 1):
                start = max(offset, page * PAGE_BYTES)
                end = min(offset + len(data), (page + 1) * PAGE_BYTES)
                versions.setdefault(page, []).append((start, data[start - offset : end - offset]))
        keep = random.choice((0.0, 0.1, 0.5, 0.9, 1.0))  # whole crashes that lose nothing or all matter too
        for page in sorted(versions):
            writes = versions[page]
            kept = sum(random.random() < keep for _ in writes)
            for offset, data in writes[:kept]:
                overlay(content, data, offset)
        if random.random() < keep:  # the size is metadata of its own: the file may have grown without its data
            content.extend(bytes(max(0, len(self.visible) - len(content))))
        return Inode(bytearray(content), content)


def overlay(target: bytearray, data: bytes, offset: int) -> None:
    if len(target) < offset:
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data


@dataclass(slots=True)
class Change:
    """One atomic change of names, durable once `directory` is synced."""

    directory: str
    entries: dict[str, Inode | None]  # path → what it names from now on; None: nothing


@dataclass(slots=True)
class Platters:
    """What is on a disk and in its cache, whoever looks."""

    capacity_bytes: int | None
    syncs: bool
    powered: bool = True
    directories: set[str] = field(default_factory=lambda: {"/"})
    names: dict[str, Inode] = field(default_factory=dict)  # what the running system sees
    durable_names: dict[str, Inode] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)


class SimDisk:
    def __init__(
        self, capacity_bytes: int | None = None, *, syncs: bool = True, platters: Platters | None = None
    ) -> None:
        """`syncs=False` makes a disk that lies: sync returns and does nothing. Whoever is tested on it must fail."""
        self.before: Callable[[str, str], None] | None = None
        self.operations = 0
        self._killed = False
        self._successor: SimDisk | None = None
        self._platters = platters or Platters(capacity_bytes, syncs)

    # -- the port ---------------------------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False) -> "SimFile":
        path = self._enter("open", path)
        if path in self._platters.directories:
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        inode = self._platters.names.get(path)
        if inode is None:
            if not create:
                self._check_parent(path)
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            inode = Inode()
            self._change(path, {path: inode})
        return SimFile(self, inode, path)

    def read_cached(self, path: str, size: int, offset: int) -> None:
        """All is read from the platters."""

    def makedirs(self, path: str) -> None:
        path = self._enter("makedirs", path)
        while path not in self._platters.directories:
            if path in self._platters.names:
                raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", path)
            self._platters.directories.add(path)
            path = posixpath.dirname(path)

    def rename(self, source: str, target: str) -> None:
        source, target = normal(source), self._enter("rename", target)
        inode = self._inode(source)
        if target in self._platters.directories:
            raise IsADirectoryError(errno.EISDIR, "is a directory", target)
        self._change(target, {source: None, target: inode})

    def link(self, source: str, target: str) -> None:
        source, target = normal(source), self._enter("link", target)
        inode = self._inode(source)
        if target in self._platters.names or target in self._platters.directories:
            raise FileExistsError(errno.EEXIST, "file exists", target)
        self._change(target, {target: inode})

    def unlink(self, path: str) -> None:
        path = self._enter("unlink", path)
        self._inode(path)
        self._change(path, {path: None})

    def sync_dir(self, path: str) -> None:
        path = self._enter("sync_dir", path)
        if path not in self._platters.directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        disk = self._platters
        for change in disk.changes:
            if change.directory == path:
                apply(disk.durable_names, change)
        disk.changes = [c for c in disk.changes if c.directory != path]

    def listdir(self, path: str) -> list[str]:
        path = self._enter("listdir", path)
        children = (
            p for p in (*self._platters.names, *self._platters.directories) if p != "/" and posixpath.dirname(p) == path
        )
        return sorted(posixpath.basename(child) for child in children)

    def is_dir(self, path: str) -> bool:
        return self._enter("is_dir", path) in self._platters.directories

    def size(self, path: str) -> int:
        return len(self._inode(self._enter("size", path)).visible)

    # -- what happens to disks ---------------------------------------------------------------------------------------

    def crash(self, random: Random) -> "SimDisk":
        """Cut the power; the disk as the next boot finds it. Old handles are dead."""
        self._platters.powered = False
        names = dict(self._platters.durable_names)
        keep = random.choice((0.0, 0.5, 1.0))
        for change in self._platters.changes:
            if random.random() < keep:
                apply(names, change)
        survivors: dict[int, Inode] = {}  # two names of one inode stay two names of one inode
        after = Platters(self._platters.capacity_bytes, self._platters.syncs)
        after.directories = set(self._platters.directories)
        for path in sorted(names):
            inode = names[path]
            after.names[path] = survivors.setdefault(id(inode), inode.after_power_cut(random))
        after.durable_names = dict(after.names)
        return SimDisk(platters=after)

    def kill(self) -> "SimDisk":
        """Kill the process only: all that was written stays visible, what was not synced stays un-synced, its locks are
        free. Returns the view of the process that comes after it; one that did before is gone, too."""
        if self._successor is not None:
            self._successor.kill()
        self._killed = True
        for inode in self._platters.names.values():
            if inode.locked_by is not None and inode.locked_by.disk is self:
                inode.locked_by = None
        self._successor = self.session()
        return self._successor

    def session(self) -> "SimDisk":
        """What another process sees: the same files, locks and hooks of its own."""
        return SimDisk(platters=self._platters)

    @property
    def dead(self) -> bool:
        """For the process that looks: killed, or without power."""
        return self._killed or not self._platters.powered

    @property
    def capacity_bytes(self) -> int | None:
        return self._platters.capacity_bytes

    @capacity_bytes.setter
    def capacity_bytes(self, value: int | None) -> None:
        self._platters.capacity_bytes = value

    @property
    def used_bytes(self) -> int:
        return sum(len(inode.visible) for inode in {id(i): i for i in self._platters.names.values()}.values())

    def flip(self, path: str, offset: int, mask: int = 0xFF) -> None:
        """Damage one byte, durably and unseen."""
        inode = self._platters.names[normal(path)]
        inode.visible[offset] ^= mask
        if offset < len(inode.durable):
            inode.durable[offset] ^= mask

    # -- inside --------------------------------------------------------------------------------------------------------

    def _enter(self, operation: str, path: str) -> str:
        path = normal(path)
        if self.dead:
            raise OSError(errno.EIO, "this disk lost its power", path)
        self.operations += 1
        if self.before:
            self.before(operation, path)
        return path

    def _inode(self, path: str) -> Inode:
        self._check_parent(path)
        if path not in self._platters.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self._platters.names[path]

    def _check_parent(self, path: str) -> None:
        parent = posixpath.dirname(path)
        if parent in self._platters.names:
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", parent)
        if parent not in self._platters.directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", parent)

    def _change(self, path: str, entries: dict[str, Inode | None]) -> None:
        self._check_parent(path)
        change = Change(posixpath.dirname(path), entries)
        apply(self._platters.names, change)
        self._platters.changes.append(change)


class SimFile:
    def __init__(self, disk: SimDisk, inode: Inode, path: str) -> None:
        self.disk = disk
        self._inode = inode
        self._path = path

    def pread(self, size: int, offset: int) -> bytes:
        self.disk._enter("pread", self._path)
        return bytes(self._inode.visible[offset : offset + size])

    def write_zeros(self, size_bytes: int, offset: int) -> None:
        self.pwrite([bytes(size_bytes)], offset)

    def fill(self, parts: Sequence[Buffer]) -> None:
        self.pwrite(parts, 0)

    def pwrite(self, buffers: Sequence[Buffer], offset: int) -> int:
        self.disk._enter("pwrite", self._path)
        data = b"".join(buffers)
        room = len(data)
        if self.disk.capacity_bytes is not None:
            growth = max(0, offset + len(data) - len(self._inode.visible))
            room -= max(0, growth - (self.disk.capacity_bytes - self.disk.used_bytes))
        if room > 0:
            self._inode.write(data[:room], offset)
        if room < len(data):
            raise OSError(errno.ENOSPC, "no space left on device", self._path)
        return len(data)

    def sync(self) -> None:
        try:
            self.disk._enter("sync", self._path)
        except OSError:
            self._inode.unsynced.clear()  # the kernel marks the failed pages clean: a later sync will not write them
            raise
        if self.disk._platters.syncs:
            self._inode.sync()

    def size(self) -> int:
        self.disk._enter("size", self._path)
        return len(self._inode.visible)

    def lock(self) -> bool:
        self.disk._enter("lock", self._path)
        if self._inode.locked_by not in (None, self):
            return False
        self._inode.locked_by = self
        return True

    def close(self) -> None:
        if self._inode.locked_by is self:
            self._inode.locked_by = None


def normal(path: str) -> str:
    return posixpath.normpath(posixpath.join("/", path))


def apply(names: dict[str, Inode], change: Change) -> None:
    for path, inode in change.entries.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode
