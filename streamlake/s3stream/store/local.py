"""Objects as files of a local disk, durable when a call returns.

A put writes a temporary file, syncs it, renames it into place and syncs the directory; a create does the same with a
hard link, which fails if the name is taken. So after a power cut an object is whole or absent. (obstore's local store
syncs nothing: docs/adr/0003.) Temporary files live in one directory beside the objects, never listed, swept at open.

Brokers of a cluster may share a root, so a temporary file is locked until it has its name: whoever opens the store
sweeps only those that nobody holds. Directories are not removed when they become empty.
"""

import errno
import posixpath
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

from streamlake.core.disk import Disk, DiskFile, is_full
from streamlake.core.errors import (
    Corrupt,
    Exists,
    Full,
    Invalid,
    NotFound,
    OutcomeUnknown,
    StreamLakeError,
    Unavailable,
)
from streamlake.core.ids import Ids
from streamlake.core.tasks import Executor
from streamlake.s3stream.store.key import RESERVED_NAME, checked_key
from streamlake.s3stream.store.port import Buffer, ObjectMeta

# A name that cannot be made: a file is where the key needs a directory, or the other way round.
KEY_CLASHES = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
CACHED_BYTES_MAX = 2 << 20  # of one read on the event loop: a copy of some 0.3 ms
OPENED_MAX = 256


class LocalStore:
    """Make one with `open`."""

    requests_cost = False

    def __init__(self, root: str, disk: Disk, executor: Executor, ids: Ids) -> None:
        self._root = root
        self._temporary = posixpath.join(root, RESERVED_NAME)
        self._disk = disk
        self._executor = executor
        self._ids = ids
        self._opened: OrderedDict[str, None] = OrderedDict()  # the keys whose files were opened last
        self.puts = 0
        self.gets = 0
        self.lists = 0
        self.deletes = 0
        self.bytes_in = 0
        self.bytes_out = 0

    @classmethod
    async def open(cls, root: str, disk: Disk, executor: Executor, ids: Ids) -> "LocalStore":
        """The store in the directory `root`, which is made if need be. Left-over temporary files are removed."""
        store = cls(root, disk, executor, ids)
        try:
            await executor.run(store._sweep)
        except OSError as error:
            raise failure(f"open the object store in {root}", error) from error
        return store

    async def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ObjectStore.put."""
        await self._executor.run(self._store, checked_key(key), parts, True)
        self._count_put(parts)

    async def create(self, key: str, parts: Sequence[Buffer]) -> None:
        """See ObjectStore.create. Exists even if the object holds the same bytes."""
        await self._executor.run(self._store, checked_key(key), parts, False)
        self._count_put(parts)

    async def get(self, key: str) -> bytes:
        """See ObjectStore.get."""
        return await self._counted_read(checked_key(key), 0, None)

    async def get_range(self, key: str, start: int, length: int) -> Buffer:
        """See ObjectStore.get_range."""
        if start < 0 or length < 0:
            raise Invalid(f"range of {length} bytes from {start} of object {key}")
        key = checked_key(key)
        if (data := self._cached(key, start, length)) is None:
            return await self._counted_read(key, start, length)
        self.gets += 1
        self.bytes_out += length
        return data

    async def delete(self, keys: Sequence[str]) -> None:
        """See ObjectStore.delete."""
        self.deletes += len(keys)
        await self._executor.run(self._delete, [checked_key(key) for key in keys])

    async def list(self, prefix: str) -> AsyncIterator[ObjectMeta]:
        """See ObjectStore.list. Objects that come or go meanwhile may be seen or not."""
        self.lists += 1
        folder = posixpath.dirname(prefix)
        pending: list[ObjectMeta | str] = [folder + "/" if folder else ""]  # still to give, the next one last
        while pending:
            entry = pending.pop()
            if isinstance(entry, ObjectMeta):
                if entry.key.startswith(prefix):
                    yield entry
            elif entry.startswith(prefix) or prefix.startswith(entry):
                children = await self._executor.run(self._children, entry)
                pending += reversed(children)

    async def close(self) -> None:
        """See ObjectStore.close."""

    def _cached(self, key: str, start: int, length: int) -> Buffer | None:
        """What the system has in memory, without the way to a thread and back, which costs more than the copy. To open
        a file for the first time may read from the disk: a thread does that."""
        if length > CACHED_BYTES_MAX:
            return None
        opened = key in self._opened
        self._opened[key] = None
        self._opened.move_to_end(key)
        if len(self._opened) > OPENED_MAX:
            self._opened.popitem(last=False)
        return self._disk.read_cached(posixpath.join(self._root, key), length, start) if opened else None

    # -- blocking, in the executor -------------------------------------------------------------------------------------

    def _store(self, key: str, parts: Sequence[Buffer], replace: bool) -> None:
        path = posixpath.join(self._root, key)
        try:
            temporary, file = self._temporary_file()
        except OSError as error:
            raise failure(f"store object {key}", error) from error
        try:
            try:
                self._write(file, parts)
                self._disk.makedirs(posixpath.dirname(path))
            except OSError as error:
                raise failure(f"store object {key}", error) from error
            try:
                self._give_name(temporary, path, key, replace)
            finally:
                # Returning is the ack, and so is Exists for a caller that finds its own bytes. Safe: the bytes were
                # synced under the temporary name before they got this name, and the name is synced here; a power cut
                # before it leaves the old state or the new one, both whole.
                self._sync_name(path, key)
        finally:
            self._remove(temporary)
            file.close()

    def _temporary_file(self) -> tuple[str, DiskFile]:
        """A new one, which no other process sweeps until it is closed."""
        while True:
            path = posixpath.join(self._temporary, self._ids.uuid().hex)
            file = self._disk.open(path, create=True)
            try:
                if file.lock() and self._disk.size(path) == 0:
                    return path, file
            except FileNotFoundError:
                pass  # it was swept before it was locked
            except BaseException:
                self._remove(path)
                file.close()
                raise
            file.close()

    def _sync_name(self, path: str, key: str) -> None:
        try:
            self._disk.sync_dir(posixpath.dirname(path))
        except OSError as error:
            raise OutcomeUnknown(f"object {key} is stored, but perhaps not durably: {error}") from error

    def _write(self, file: DiskFile, parts: Sequence[Buffer]) -> None:
        file.fill(parts)
        file.sync()

    def _give_name(self, temporary: str, path: str, key: str, replace: bool) -> None:
        try:
            if replace:
                self._disk.rename(temporary, path)
            else:
                self._disk.link(temporary, path)
        except FileExistsError as error:
            if self._disk.is_dir(path):
                raise failure(f"store object {key}", error) from error
            raise Exists(f"object {key} exists already") from None
        except OSError as error:
            if is_full(error) or error.errno in KEY_CLASHES:
                raise failure(f"store object {key}", error) from error
            raise OutcomeUnknown(f"object {key} may or may not be stored: {error}") from error

    def _remove(self, temporary: str) -> None:
        try:
            self._disk.unlink(temporary)
        except OSError:
            pass  # renamed away, or left for the sweep at the next open

    def _read(self, key: str, start: int, length: int | None) -> bytes:
        try:
            file = self._disk.open(posixpath.join(self._root, key))
            try:
                wanted = file.size() if length is None else length
                data = file.pread(wanted, start)
            finally:
                file.close()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(f"there is no object {key}") from None
        except OSError as error:
            raise failure(f"read object {key}", error) from error
        if len(data) < wanted:
            raise Corrupt(f"object {key} ends before byte {start + wanted}: it is shorter than it should be")
        return data

    def _delete(self, keys: Sequence[str]) -> None:
        folders = set()
        try:
            for key in keys:
                path = posixpath.join(self._root, key)
                try:
                    self._disk.unlink(path)
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    continue
                folders.add(posixpath.dirname(path))
            for folder in sorted(folders):
                self._disk.sync_dir(folder)
        except OSError as error:
            raise OutcomeUnknown(
                f"some of {len(keys)} objects may not be deleted: {error}. Delete them again"
            ) from error

    def _children(self, folder: str) -> Sequence[ObjectMeta | str]:
        """The objects in a folder, and its folders with a slash at the end, in key order."""
        found: dict[str, ObjectMeta | str] = {}
        try:
            for name in self._disk.listdir(posixpath.join(self._root, folder)):
                key = folder + name
                path = posixpath.join(self._root, key)
                if key == RESERVED_NAME:
                    continue
                if self._disk.is_dir(path):
                    found[key + "/"] = key + "/"
                    continue
                try:
                    found[key] = ObjectMeta(key, self._disk.size(path))
                except FileNotFoundError:
                    continue  # deleted since the folder was listed
        except OSError as error:
            raise failure(f"list the objects in {folder or 'the root'}", error) from error
        return [found[key] for key in sorted(found)]

    def _sweep(self) -> None:
        self._disk.makedirs(self._temporary)
        for name in self._disk.listdir(self._temporary):
            path = posixpath.join(self._temporary, name)
            try:
                file = self._disk.open(path)
            except FileNotFoundError:
                continue  # it has its name, or another process sweeps, too
            try:
                # Nobody writes to it: a lock dies with its process.
                if file.lock():
                    self._remove(path)
            finally:
                file.close()

    # -- counting ------------------------------------------------------------------------------------------------------

    def _count_put(self, parts: Sequence[Buffer]) -> None:
        self.puts += 1
        self.bytes_in += sum(len(part) for part in parts)

    async def _counted_read(self, key: str, start: int, length: int | None) -> bytes:
        self.gets += 1
        data = await self._executor.run(self._read, key, start, length)
        self.bytes_out += len(data)
        return data


def failure(what: str, error: OSError) -> StreamLakeError:
    """The error for an operation that certainly did nothing."""
    if is_full(error):
        return Full(f"cannot {what}: the disk is full ({error}). Free some space; nothing was stored")
    if error.errno in KEY_CLASHES:
        return Invalid(f"cannot {what}: a name in its path is taken by another object ({error})")
    return Unavailable(f"cannot {what}: {error}")
