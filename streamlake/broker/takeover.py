"""Drains WALs that no living process writes to: those of earlier lives of this node, and those of dead brokers.

Which broker drains what is a row of the metadata store (cluster/store/drains.py). Before this broker serves it claims
the WALs of its earlier lives that nobody was given, but for its own file WAL, which continues as it is. The others are
given by the controller (controller.py), which has fenced their owners before, and are drained while this broker serves.

A WAL is fenced (s3stream/wal/object/recovery.py) and drained into objects (s3stream/drain.py); then nobody owns its
streams, and whoever is to have them opens them. The last of several drainers discards it. A crash anywhere in between
repeats what was not finished.
"""

import asyncio
import contextlib
from dataclasses import replace

import structlog

from streamlake.broker.machine import Machine
from streamlake.broker.wal import WalOpener
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.drains import DrainPart, Drains
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.stream_metadata import SqlStreamMetadata
from streamlake.cluster.store.wals import WalKey, WalRow, all_wals
from streamlake.core.errors import Fenced, StreamLakeError, Unavailable
from streamlake.core.retry import TRANSIENT
from streamlake.s3stream.drain import drain
from streamlake.s3stream.settings import MIB, StreamsSettings
from streamlake.s3stream.store.cluster_marker import claim
from streamlake.s3stream.store.port import ObjectStore
from streamlake.s3stream.wal.object.recovery import ObjectWalRecovery, sweep
from streamlake.s3stream.wal.port import DrainableWal
from streamlake.s3stream.wal.uri import WalUri

log = structlog.get_logger(__name__)

LOOK_FOR_DRAINS_S = 0.25
RETRY_S = 5.0  # a WAL that cannot be read
DRAIN_CACHE_BYTES = 64 * MIB


class Takeover:
    def __init__(
        self,
        opener: WalOpener,
        machine: Machine,
        database: Database,
        identity: BrokerIdentity,
        store: ObjectStore,
        settings: StreamsSettings,
    ) -> None:
        self.failing: dict[DrainPart, StreamLakeError] = {}  # what cannot be drained now, and why
        self._opener = opener
        self._machine = machine
        self._database = database
        self._identity = identity
        self._store = store
        self._settings = replace(settings, log_cache_bytes=min(DRAIN_CACHE_BYTES, settings.log_cache_bytes))
        self._drains = Drains(database, identity)
        self._wake = asyncio.Event()

    async def drain_own(self) -> WalRow | None:
        """Drain the WALs of earlier lives of this node, if nobody else was given them, but for a file WAL that goes on
        in this life. The row of the latest one at the place of this life's WAL, if there is one. Unavailable, Corrupt,
        Fenced."""
        uri = self._opener.uri
        own: WalRow | None = None
        former = []
        for row in await all_wals(self._database):
            if row.node != self._identity.node or row.epoch >= self._identity.epoch:
                continue  # a later life has overtaken this start, whose first write is Fenced
            if self._parsed(row.uri) == uri:
                own = row
                if uri.continues:
                    continue
            former.append(row.key)
        await self._drains.claim_own(former)
        for part in await self._drains.mine():
            await self._drain(part)
        return own

    async def run(self) -> None:
        """Drain what this broker is given, until cancelled. Raises Fenced when this broker is."""
        while True:
            self._wake.clear()
            with contextlib.suppress(*TRANSIENT):
                await self.drain_given()
            pause_s = RETRY_S if self.failing else None if self._database.is_ours_alone else LOOK_FOR_DRAINS_S
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def drain_given(self) -> None:
        """All that this broker is given now. What fails is told, and tried again by `run`: also what is done already,
        as far as others know, when it failed after that: the WAL may have to be discarded."""
        for part in dict.fromkeys([*self.failing, *await self._drains.mine()]):
            await self._try(part)

    def look(self) -> None:
        """Something may have been given to this broker."""
        self._wake.set()

    async def _try(self, part: DrainPart) -> None:
        try:
            await self._drain(part)
        except Fenced as error:
            log.info("another broker has taken this drain", node=part.wal.node, wal=part.wal.uri, reason=str(error))
        except StreamLakeError as error:
            if part not in self.failing:
                log.error("a WAL cannot be drained; its partitions wait", node=part.wal.node, error=str(error))
            self.failing[part] = error
            return
        self.failing.pop(part, None)

    async def _drain(self, part: DrainPart) -> None:
        key = part.wal
        wal = await self._open(key)
        metadata = SqlStreamMetadata(self._database, self._identity, None, part)
        log.info("draining a WAL", node=key.node, wal=key.uri, epoch=key.epoch, part=part.part, parts=part.parts)
        try:
            done = await drain(wal, self._store, metadata, self._machine.ids, self._settings, part.has)
            if await self._drains.finish(part):
                # Safe at a crash: all records of all parts are in committed objects. What is discarded is never looked
                # for again, but by a drain that begins anew and finds the mark of this one.
                await wal.discard()
                await self._drains.forget(key)
        finally:
            await wal.close()
        log.info("WAL drained", node=key.node, wal=key.uri, records=done.records, skipped_records=done.skipped_records)
        await self._sweep(key.node, self._parsed(key.uri))

    async def _open(self, key: WalKey) -> DrainableWal:
        uri = self._parsed(key.uri)
        if uri.kind == "object":
            store = await self._opener.store_at(uri.place)
            await claim(store, self._identity.cluster_id, uri.place, used_before=True)
            return ObjectWalRecovery(
                store,
                node=key.node,
                epoch=key.epoch,
                fencing_epoch=key.epoch + 1,  # of all who drain it: which of them may commit is decided in SQL
                ids=self._machine.ids,
            )
        if key.node != self._identity.node and not uri.shared:
            raise Unavailable(
                f"{key.uri} of broker {key.node} may hold records that are in no object, and is on that broker's own"
                f" disk: start with node_id {key.node} on its machine"
            )
        return self._opener.file_wal(key, must_exist=True)

    async def sweep_own(self) -> None:
        """Delete strays of earlier lives from the object WAL of this one."""
        await self._sweep(self._identity.node, self._opener.uri)

    async def _sweep(self, node: int, uri: WalUri) -> None:
        """Delete strays of drained lives of a node from its object WAL. If it fails, the next start tries again."""
        if uri.kind != "object":
            return
        try:
            # Safe, whatever is begun or given meanwhile: an epoch that is not listed now, below one that is, or below
            # that of a life that may run, has been drained, and never returns to the list.
            before = await self._drains.first_undrained(node)
            deleted = await sweep(await self._opener.store_at(uri.place), node, before)
        except TRANSIENT as error:
            log.warning("could not look for stray objects of earlier WALs", reason=str(error))
        else:
            log.info("stray objects of earlier WALs deleted", node=node, objects=deleted)

    def _parsed(self, text: str) -> WalUri:
        return self._opener.parse(text)
