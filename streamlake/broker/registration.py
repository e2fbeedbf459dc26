"""Registers a broker: the id of a living node is refused, and a dead one is waited for no longer than needed.

Two servers with one node id, of which one has a copied configuration, would fence each other in turns. So the next
process of a node registers only if the former one left cleanly or was fenced, or if one of these says that it is dead:

    WAL of the former process             waits              why it is safe
    file, on a disk of this machine       not at all         we could lock its directory: the process that held the lock
                                                             has ended, and acknowledges nothing
    object, and its port refuses          not at all         it serves nobody; should it live all the same, the fence in
                                                             the WAL keeps it from acknowledging (ADR 0009)
    object or none, metadata on SQLite    not at all         the same; and the file of the metadata store would be
                                                             locked by a process that lives
    any other                             a lease            its beat stood still for a whole lease (watch.py), so that
                                                             it does not hold its lease any more

A process that died before it had a WAL of its own counts as one with an object WAL: nothing of it was acknowledged, and
it cannot enter a WAL any more once it is fenced.
"""

import asyncio
import contextlib

import structlog

from streamlake.broker.machine import Machine
from streamlake.broker.wal import IDENTITY, listed_uri
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BrokerInfo, Membership
from streamlake.cluster.store.wals import WalRow, all_wals
from streamlake.cluster.watch import LOOK_INTERVAL_S
from streamlake.config import AUTO, Config
from streamlake.core.errors import Conflict, Unavailable
from streamlake.core.retry import TRANSIENT
from streamlake.core.sockets import is_loopback, refuses
from streamlake.s3stream.wal.file.directory import WalDirectory

log = structlog.get_logger(__name__)

PATIENCE_S = 30.0  # for a metadata store that does not let us watch


class Registration:
    def __init__(self, config: Config, machine: Machine, database: Database, membership: Membership) -> None:
        self._config = config
        self._machine = machine
        self._database = database
        self._membership = membership

    async def register(self, host: str, port: int) -> BrokerIdentity:
        """Unavailable if another process of this node is alive. With node_id `auto` there is none."""
        node = self._config.server.node_id
        if node == AUTO:
            return await self._membership.register(None, host, port)
        return await self._register(int(node), host, port)

    async def _register(self, node: int, host: str, port: int) -> BrokerIdentity:
        loop = asyncio.get_running_loop()
        watch, until = self._membership.watch, loop.time() + PATIENCE_S
        asked: int | None = None  # the epoch of the process that we have looked for
        while True:
            former = await self._former(node, until)
            ended = former is None or not former.may_run or watch.is_dead(node)
            if former is not None and not ended and asked != former.epoch:
                asked = former.epoch
                ended = await self._has_ended(former)
            if ended:
                with contextlib.suppress(Conflict):  # it beat, or another one registered, since we looked
                    return await self._membership.register(node, host, port, former.sign if former else None)
            elif former is not None and (watch.is_alive(node) or loop.time() >= until):
                raise Unavailable(
                    f"another server with node_id {node} is running, at {former.host}:{former.port}: stop that"
                    " one first, or give this one a node_id of its own (server.node_id)"
                )
            await self._pause(LOOK_INTERVAL_S)

    async def _former(self, node: int, until: float) -> BrokerInfo | None:
        """The process that registered last."""
        while True:
            try:
                return (await self._membership.look()).get(node)
            except TRANSIENT:
                if asyncio.get_running_loop().time() >= until:
                    raise
            await self._pause(LOOK_INTERVAL_S)

    async def _has_ended(self, former: BrokerInfo) -> bool:
        """Whether something but time says that it is dead, or can do no harm if it lives."""
        rows = await all_wals(self._database)
        wals = [(listed_uri(self._config, r.uri), r) for r in rows if (r.node, r.epoch) == (former.node, former.epoch)]
        if any(uri.shared for uri, _ in wals):
            return False  # it acknowledges what it syncs as long as it holds its lease, and locks prove nothing there
        own_disk = [(uri.place, row) for uri, row in wals if uri.continues]
        if own_disk:
            return all([await self._is_abandoned(place, row) for place, row in own_disk])
        return self._database.is_ours_alone or await _refuses(former.host, former.port)

    async def _is_abandoned(self, place: str, row: WalRow) -> bool:
        machine = self._machine
        directory = WalDirectory(place, machine.disk, machine.ids, segment_bytes=0)
        identity = row.uri.partition(IDENTITY)[2]
        return await machine.executor("wal-files").run(directory.is_abandoned, identity)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _refuses(host: str, port: int) -> bool:
    """Whether nobody listens at this address of another process. Of a loopback address nothing is known: it may be that
    of another machine."""
    return not is_loopback(host) and await refuses(host, port)
