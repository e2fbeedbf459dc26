"""Opens write-ahead logs: the one that this life of the broker writes to, and file WALs that are to be drained.

A file WAL on a disk of its own continues where the previous life stopped; every other one is new and empty. It is
entered in the metadata store's list before its first record is written, so that who takes over after a crash looks
there.
"""

from streamlake.broker.machine import Machine, store_url, wal_uri
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.wals import WalKey, WalRow, Wals
from streamlake.config import Config
from streamlake.s3stream.store.cluster_marker import claim
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.store.probe import probe_conditional_writes
from streamlake.s3stream.wal.file.native_flusher import NativeFlusher
from streamlake.s3stream.wal.file.settings import FileWalSettings
from streamlake.s3stream.wal.file.wal import FileWal
from streamlake.s3stream.wal.object.settings import ObjectWalSettings
from streamlake.s3stream.wal.object.wal import ObjectWal
from streamlake.s3stream.wal.uri import WalUri, parse

IDENTITY = "#"  # in the list, between the URI of a file WAL and the identity of its directory


def listed_uri(config: Config, text: str) -> WalUri:
    """A URI of the list, as this broker reads it: `file` and `object` are its own places. The identity of the directory
    is not part of the place."""
    place = text.partition(IDENTITY)[0]
    return parse(place, str(config.storage.data_dir.absolute()), store_url(config))


class WalOpener:
    """Owns the stores and flushers of the WALs that it opens; `store` stays the caller's."""

    def __init__(
        self, config: Config, machine: Machine, database: Database, membership: Membership, store: ObjectStore
    ) -> None:
        self.uri = wal_uri(config)  # of the WAL of this life
        self._config = config
        self._machine = machine
        self._membership = membership
        self._identity = membership.identity
        self._store = store
        self._wals = Wals(database, self._identity)
        self._stores = {store_url(config): store}
        self._flushers: list[NativeFlusher] = []

    async def open_wal(self, entry: WalRow | None) -> "tuple[FileWal | ObjectWal, WalKey]":
        """The WAL of this life, not yet recovered. `entry`: the row of the latest WAL of this node at the same place,
        as it was found at the start; None if there was none.

        Unavailable, Corrupt, Invalid, Fenced.
        """
        return await (self._open_file(entry) if self.uri.kind == "file" else self._open_object(entry))

    async def close(self) -> None:
        """Call it after all WALs that were opened here are closed."""
        for flusher in self._flushers:
            await flusher.close()
        for store in self._stores.values():
            if store is not self._store:
                await store.close()

    def parse(self, text: str) -> WalUri:
        return listed_uri(self._config, text)

    async def store_at(self, url: str) -> ObjectStore:
        if url not in self._stores:
            self._stores[url] = await self._machine.open_store(url)
        return self._stores[url]

    def file_wal(self, key: WalKey, *, must_exist: bool) -> FileWal:
        machine, storage = self._machine, self._config.storage
        return FileWal(
            self._directory(key),
            machine.disk,
            executor=machine.executor("wal-files"),
            flusher=self._flusher(),
            ids=machine.ids,
            broker_epoch=self._identity.epoch,
            # On a disk of our own nobody can replay what we acknowledge, unless we are dead: the lock proves it.
            lease=self._membership if self.parse(key.uri).shared else None,
            must_exist=must_exist,
            identity=key.uri.partition(IDENTITY)[2] if must_exist else None,
            settings=FileWalSettings(
                capacity_bytes=storage.wal_capacity_bytes, segment_bytes=storage.wal_segment_bytes
            ),
        )

    async def _open_file(self, entry: WalRow | None) -> tuple[FileWal, WalKey]:
        identity, continues = self._identity, self.uri.continues and entry is not None
        text = entry.uri if entry and continues else str(self.uri)
        wal = self.file_wal(WalKey(identity.node, text, identity.epoch), must_exist=continues)
        if not continues:
            # Before it is entered in the list: a listed WAL that is missing, or another one, has lost records.
            text += IDENTITY + await wal.create()
        return wal, await self._wals.adopt(text, continues=continues)

    async def _open_object(self, entry: WalRow | None) -> tuple[ObjectWal, WalKey]:
        identity, storage, uri = self._identity, self._config.storage, self.uri
        store = await self.store_at(uri.place)
        await claim(store, identity.cluster_id, uri.place, used_before=entry is not None)
        await probe_conditional_writes(store, self._machine.ids, uri.place)
        key = await self._wals.adopt(str(uri), continues=False)
        unflushed_bytes_max = min(storage.wal_unflushed_bytes, storage.wal_capacity_bytes)
        settings = ObjectWalSettings(
            object_bytes=min(storage.wal_object_bytes, unflushed_bytes_max),
            linger_ms=storage.wal_linger_ms,
            unflushed_bytes_max=unflushed_bytes_max,
            capacity_bytes=storage.wal_capacity_bytes,
        )
        wal = ObjectWal(
            store, node=identity.node, broker_epoch=identity.epoch, ids=self._machine.ids, settings=settings
        )
        return wal, key

    def _directory(self, key: WalKey) -> str:
        """On a shared disk each life has its own: a zombie that wakes writes where nobody looks any more."""
        uri = self.parse(key.uri)
        return uri.place if uri.continues else f"{uri.place}/{key.node}-{key.epoch}"

    def _flusher(self) -> NativeFlusher:
        flusher = NativeFlusher(self._machine.executor("wal-sync"), self._machine.clock)
        self._flushers.append(flusher)
        return flusher
