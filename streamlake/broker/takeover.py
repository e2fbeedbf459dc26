"""Takes over the WALs that hold records in no object yet, and drains them: done before a broker serves.

A broker that starts reads the metadata store's list of WALs. Its own file WAL, on a disk of its own, continues as it
is. All others are drained into objects (s3stream/drain.py), then discarded: its own WAL of another place or kind, the
WAL of its previous life in a bucket or on a shared disk (each life has keys, or a directory, of its own), and the WALs
of dead brokers, which are fenced first. Only then is the WAL of this life opened (wal.py). A crash anywhere in between
repeats what was not finished.

One broker at a time serves a metadata store yet: while another one is alive, this one refuses to start.
"""

import asyncio
import contextlib

import structlog

from streamlake.broker.machine import Machine
from streamlake.broker.wal import WalOpener
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import Membership
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.store.wals import WalRow, Wals
from streamlake.cluster.watch import LOOK_INTERVAL_S
from streamlake.core.errors import Conflict, Unavailable
from streamlake.core.retry import TRANSIENT
from streamlake.s3stream.drain import drain
from streamlake.s3stream.settings import StreamsSettings
from streamlake.s3stream.store.cluster_marker import claim
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.wal.object.recovery import ObjectWalRecovery, sweep
from streamlake.s3stream.wal.port import DrainableWal
from streamlake.s3stream.wal.uri import WalUri

log = structlog.get_logger(__name__)

TAKE_OVER_PATIENCE_S = 30.0  # a broker that is to stop has stopped by then


class Takeover:
    def __init__(
        self,
        opener: WalOpener,
        machine: Machine,
        database: Database,
        membership: Membership,
        store: ObjectStore,
        settings: StreamsSettings,
    ) -> None:
        self._opener = opener
        self._machine = machine
        self._database = database
        self._membership = membership
        self._identity = membership.identity
        self._store = store
        self._settings = settings
        self._wals = Wals(database, self._identity)

    async def drain_others(self) -> WalRow | None:
        """Drain every WAL but the one of this life; the entry of that one, if it is listed. Unavailable, Corrupt,
        Fenced."""
        uri = self._opener.uri
        acting = await self._take_over()
        own: WalRow | None = None
        for row in await self._wals.all():
            if row.node not in acting:
                raise Unavailable(f"broker {row.node} has started at the same time: start one of the two again")
            if row.node == self._identity.node and self._parsed(row) == uri:
                own = None if uri.shared else row
                if uri.continues:
                    continue
            if row.node != self._identity.node:
                # Again: while we waited for others, another broker may have begun to take it over, and given up.
                acting[row.node] = await self._act_for(row.node)
            await self._drain(row, acting[row.node])
            if row is not own:
                # Safe at a crash before: the drain is repeated, and finds nothing that is not in objects. Its owner's
                # zombie can add nothing: it is fenced in the metadata store and in the WAL itself.
                await Wals(self._database, acting[row.node]).forget(row.node, row.uri, row.epoch)
                await self._sweep(self._parsed(row), acting[row.node])
        return own

    async def sweep(self) -> None:
        """Delete strays of earlier broker epochs from the object WAL of this one; after `drain_others`. If it fails,
        the next start tries again."""
        await self._sweep(self._opener.uri, self._identity)

    async def _sweep(self, uri: WalUri, acting: BrokerIdentity) -> None:
        if uri.kind == "object":
            try:
                deleted = await sweep(await self._opener.store_at(uri.place), acting.node, acting.epoch)
            except TRANSIENT as error:
                log.warning("could not look for stray objects of earlier WALs", reason=str(error))
            else:
                log.info("stray objects of earlier WALs deleted", objects=deleted)

    # -- dead brokers --------------------------------------------------------------------------------------------------

    async def _take_over(self) -> dict[int, BrokerIdentity]:
        """Fence all other nodes; the identity under which we act for each node from now on.

        Under the identity of the node's next life: another broker that takes that life, or the node itself, fences us.
        """
        ours = self._identity
        acting = {ours.node: ours}
        for broker in await self._membership.brokers():
            if broker.node != ours.node:
                # Whether it has a WAL or not: one that sleeps just before it makes one would wake up while we serve.
                acting[broker.node] = await self._act_for(broker.node)
        return acting

    async def _act_for(self, node: int) -> BrokerIdentity:
        return BrokerIdentity(self._identity.cluster_id, node, await self._fence(node) + 1)

    async def _fence(self, node: int) -> int:
        """Fence the node once it has left or is dead, whatever WAL it has. While one is watched, all are."""
        loop = asyncio.get_running_loop()
        until = loop.time() + TAKE_OVER_PATIENCE_S
        logged = False
        while True:
            with contextlib.suppress(Conflict, *TRANSIENT):  # it beat a moment ago; or we see nothing, and judge nobody
                broker = (await self._membership.look())[node]
                if not broker.may_run or self._membership.watch.is_dead(node):
                    return await self._membership.take_over(node, broker.sign)
            if loop.time() >= until:
                raise Unavailable(
                    f"broker {node} is running on this metadata store: it beats. One broker at a time serves it yet:"
                    " stop that one first, or give this one a metadata store of its own"
                )
            if not logged:
                log.info("another broker may be alive; watching it", node=node)
            logged = True
            await self._pause(LOOK_INTERVAL_S)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    # -- draining ------------------------------------------------------------------------------------------------------

    async def _drain(self, row: WalRow, acting: BrokerIdentity) -> None:
        wal = await self._open(row, acting)
        metadata = SqlStreamMetadata(self._database, acting, row.key)
        machine = self._machine
        log.info("draining the WAL of an earlier broker epoch", node=row.node, wal=row.uri, epoch=row.epoch)
        try:
            done = await drain(wal, self._store, metadata, machine.ids, self._settings)
            # Safe at a crash: all records are in committed objects and the trim says so. What is discarded is never
            # looked for again, but by a drain that begins at that very trim.
            await wal.discard()
        finally:
            await wal.close()
        log.info("WAL drained", node=row.node, wal=row.uri, records=done.records, skipped_records=done.skipped_records)

    async def _open(self, row: WalRow, acting: BrokerIdentity) -> DrainableWal:
        uri = self._parsed(row)
        if uri.kind == "object":
            store = await self._opener.store_at(uri.place)
            await claim(store, self._identity.cluster_id, uri.place, used_before=True)
            return ObjectWalRecovery(
                store,
                node=row.node,
                epoch=row.epoch,
                fencing_epoch=acting.epoch,
                ids=self._machine.ids,
            )
        if row.node != self._identity.node and not uri.shared:
            raise Unavailable(
                f"{row.uri} of broker {row.node} may hold records that are in no object, and is on that broker's own"
                f" disk: start with node_id {row.node} on its machine, once with `wal` set to what this one uses"
            )
        return self._opener.file_wal(row.key, must_exist=True)

    def _parsed(self, row: WalRow) -> WalUri:
        return self._opener.parse(row.uri)
