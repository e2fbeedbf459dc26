"""Which WALs hold records that are in no object yet, and who brings them there: done before a broker serves.

A broker that starts looks through the metadata store's list of WALs. Its own file WAL, on a disk of its own, goes on as
it is. All others are drained into objects (s3stream/drain.py), then discarded: its own WAL of another place or kind,
the WAL of its former life in a bucket or on a shared disk (each life has keys, or a directory, of its own), and the
WALs of dead brokers, which are fenced first. Only then is the WAL of this life entered in the list and written to. A
crash anywhere in between repeats what was not finished.

One broker at a time serves a metadata store yet: while another one is alive, this one refuses to start.
"""

import asyncio

import structlog

from streamlake.cluster.database import Database
from streamlake.cluster.membership import BrokerIdentity, Membership
from streamlake.cluster.stream_metadata import SqlStreamMetadata
from streamlake.cluster.wals import WalKey, WalRow, Wals
from streamlake.config import Config
from streamlake.core.errors import Conflict, Full, OutcomeUnknown, Unavailable
from streamlake.machine import Machine, store_url, wal_uri
from streamlake.s3stream.drain import drain
from streamlake.s3stream.file_wal import FileWal, FileWalSettings
from streamlake.s3stream.native_flusher import NativeFlusher
from streamlake.s3stream.object_wal import ObjectWal, ObjectWalSettings
from streamlake.s3stream.object_wal_remains import ObjectWalRemains, sweep
from streamlake.s3stream.objectstore import ObjectStore
from streamlake.s3stream.probe import probe_conditional_writes
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.wal import FormerWal
from streamlake.s3stream.wal_uri import WalUri, parse

log = structlog.get_logger(__name__)

TAKE_OVER_MARGIN_MS = 1_000  # more than clocks of one machine drift apart within a lease
TAKE_OVER_PATIENCE_S = 30.0  # a broker that is dead by then has no lease any more
TAKE_OVER_PAUSE_S = 0.5


class FormerWals:
    def __init__(
        self,
        config: Config,
        machine: Machine,
        database: Database,
        membership: Membership,
        store: ObjectStore,
        settings: StreamsSettings,
        former_lease_ms: int,
    ) -> None:
        self._config = config
        self._machine = machine
        self._database = database
        self._membership = membership
        self._identity = membership.identity
        self._store = store
        self._settings = settings
        self._former_lease_ms = former_lease_ms
        self._wals = Wals(database, self._identity)
        self._uri = wal_uri(config)
        self._stores = {store_url(config): store}
        self._flushers: list[NativeFlusher] = []

    async def replace(self) -> "tuple[FileWal | ObjectWal, WalKey]":
        """The WAL of this life, all others drained. Unavailable, Corrupt, Fenced."""
        uri = self._uri
        acting = await self._take_over()
        own: WalRow | None = None
        for row in await self._wals.all():
            if row.node not in acting:
                raise Unavailable(f"broker {row.node} has started at the same time: start one of the two again")
            if row.node == self._identity.node and row.uri == str(uri):
                own = row
                if uri.continues:
                    continue
            await self._drain(row, acting[row.node])
            if row is not own:
                # Safe at a crash before: the drain is repeated, and finds nothing that is not in objects. Its owner's
                # zombie can add nothing: it is fenced in the metadata store and in the WAL itself.
                await Wals(self._database, acting[row.node]).forget(row.node, row.uri, row.epoch)
        return await self._adopt(uri, own)

    async def sweep(self) -> None:
        """Delete strays of former lives in the object WAL of this one; after `replace`. Another start tries again."""
        if self._uri.kind == "object":
            try:
                deleted = await sweep(await self._store_at(self._uri.place), self._identity.node, self._identity.epoch)
            except (Unavailable, OutcomeUnknown, Full) as error:
                log.warning("strays of former write-ahead logs were not looked for", reason=str(error))
            else:
                log.info("strays of former write-ahead logs deleted", objects=deleted)

    async def close(self) -> None:
        """After the WALs that came from here."""
        for flusher in self._flushers:
            await flusher.close()
        for store in self._stores.values():
            if store is not self._store:
                await store.close()

    # -- dead brokers --------------------------------------------------------------------------------------------------

    async def _take_over(self) -> dict[int, BrokerIdentity]:
        """Fence all other nodes; as whom we act for each node from now on.

        Under the identity of the node's next life, so that whoever takes that life, be it the node itself, fences us.
        """
        ours = self._identity
        acting = {ours.node: ours}
        nodes = {row.node for row in await self._wals.all()} | set(await self._membership.others_alive())
        for node in sorted(nodes - {ours.node}):
            acting[node] = BrokerIdentity(ours.cluster_id, node, await self._fence(node) + 1)
        return acting

    async def _fence(self, node: int) -> int:
        loop = asyncio.get_running_loop()
        until = loop.time() + TAKE_OVER_PATIENCE_S
        told = False
        while True:
            try:
                return await self._membership.take_over(node, TAKE_OVER_MARGIN_MS)
            except Conflict as error:
                if loop.time() >= until:
                    raise Unavailable(
                        f"broker {node} is running on this metadata store: {error}. One broker at a time serves it yet:"
                        " stop that one first, or give this one a metadata store of its own"
                    ) from None
                if not told:
                    log.info("another broker holds its lease; waiting for its end", node=node, reason=str(error))
                told = True
            await asyncio.sleep(TAKE_OVER_PAUSE_S)

    # -- draining ------------------------------------------------------------------------------------------------------

    async def _drain(self, row: WalRow, acting: BrokerIdentity) -> None:
        wal = await self._former(row, acting)
        metadata = SqlStreamMetadata(self._database, acting, row.key)
        machine = self._machine
        log.info("a former write-ahead log goes into objects", node=row.node, wal=row.uri)
        try:
            done = await drain(wal, self._store, metadata, machine.clock, machine.ids, self._settings)
            # Safe at a crash: all records are in committed objects and the trim says so. What is discarded is never
            # looked for again, but by a drain that begins at that very trim.
            await wal.discard()
        finally:
            await wal.close()
        log.info(
            "it is empty now", node=row.node, wal=row.uri, records=done.records, skipped_records=done.skipped_records
        )

    async def _former(self, row: WalRow, acting: BrokerIdentity) -> FormerWal:
        uri = parse(row.uri, "", "")
        if uri.kind == "object":
            return ObjectWalRemains(
                await self._store_at(uri.place),
                node=row.node,
                epoch=row.epoch,
                fencing_epoch=acting.epoch,
                ids=self._machine.ids,
            )
        if row.node == self._identity.node and uri.shared and self._former_lease_ms > 0:
            # Our former life may be alive on another machine: until its lease ends it acknowledges what it syncs (C4).
            # In a bucket the fence keeps it out, and on a disk of its own the lock proves that it is dead.
            await asyncio.sleep((self._former_lease_ms + TAKE_OVER_MARGIN_MS) / 1000)
        if row.node != self._identity.node and not uri.shared:
            raise Unavailable(
                f"{row.uri} of broker {row.node} may hold records that are in no object, and is on that broker's own"
                f" disk: start with node_id {row.node} on its machine, once with `wal` set to what this one uses"
            )
        return self._file_wal(row.key, must_exist=True)

    # -- this life -----------------------------------------------------------------------------------------------------

    async def _adopt(self, uri: WalUri, own: WalRow | None) -> "tuple[FileWal | ObjectWal, WalKey]":
        identity, storage = self._identity, self._config.storage
        if uri.kind == "file":
            key = WalKey(identity.node, str(uri), identity.epoch)
            wal = self._file_wal(key, must_exist=own is not None and uri.continues)
            await wal.prepare()  # before it is entered in the list: a listed WAL that is missing has lost records
            return wal, await self._wals.adopt(
                str(uri), keep_trim=uri.continues, drained_epoch=own.epoch if own else None
            )
        store = await self._store_at(uri.place)
        await probe_conditional_writes(store, self._machine.ids, uri.place)
        # Durable before the first record is written under the new epoch: from then on recovery looks there.
        key = await self._wals.adopt(str(uri), keep_trim=False, drained_epoch=own.epoch if own else None)
        unflushed_bytes_max = min(storage.wal_unflushed_bytes, storage.wal_capacity_bytes)
        settings = ObjectWalSettings(
            object_bytes=min(storage.wal_object_bytes, unflushed_bytes_max),
            linger_ms=storage.wal_linger_ms,
            unflushed_bytes_max=unflushed_bytes_max,
            capacity_bytes=storage.wal_capacity_bytes,
        )
        return (
            ObjectWal(store, node=identity.node, broker_epoch=identity.epoch, ids=self._machine.ids, settings=settings),
            key,
        )

    def _directory(self, key: WalKey) -> str:
        """On a shared disk each life has its own: a zombie that wakes writes where nobody looks any more."""
        uri = parse(key.uri, "", "")
        return uri.place if uri.continues else f"{uri.place}/{key.node}-{key.epoch}"

    def _file_wal(self, key: WalKey, *, must_exist: bool) -> FileWal:
        machine, storage = self._machine, self._config.storage
        return FileWal(
            self._directory(key),
            machine.disk,
            executor=machine.executor("wal-files"),
            flusher=self._flusher(),
            ids=machine.ids,
            broker_epoch=self._identity.epoch,
            lease=self._membership,
            must_exist=must_exist,
            settings=FileWalSettings(
                capacity_bytes=storage.wal_capacity_bytes, segment_bytes=storage.wal_segment_bytes
            ),
        )

    def _flusher(self) -> NativeFlusher:
        flusher = NativeFlusher(self._machine.executor("wal-sync"), self._machine.clock)
        self._flushers.append(flusher)
        return flusher

    async def _store_at(self, url: str) -> ObjectStore:
        if url not in self._stores:
            self._stores[url] = await self._machine.open_store(url)
        return self._stores[url]
