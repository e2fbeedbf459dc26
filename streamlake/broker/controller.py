"""The controller: one broker at a time that fences dead brokers, gives out their WALs and assigns partitions.

Every broker watches the others (cluster/watch.py), and begins the next term when the broker of the current one has left
or is dead. What the controller does it reads from the metadata store and writes there, so that its successor goes on
where it stopped; messages are not needed. A round does, in order:

    who is dead      its epoch is raised, so that it changes nothing any more
    its WALs         are given to brokers that serve, in parts if they are large, to be drained (takeover.py)
    its partitions   are assigned to others, which open them when the WAL is drained (ownership.py)
    its slots        are assigned to others, which read the groups at once (coordinator/groups.py)

A broker that is drained, or about to stop (departure.py), keeps its epoch and its WAL; what it has is assigned to
others. If it is the controller it stays that until it has left: the next one begins its term then.

A broker is silent when it has served, stopped to beat, and its port refuses: it has most likely ended. Nobody waits a
whole lease for a silent controller: a term may end at any time. Nor is a silent broker waited for that is behind an
object WAL: it may be fenced at any time, as the fence in the WAL keeps it from acknowledging. Where a WAL is on a disk
of a broker's own nobody else can drain it: its partitions stay assigned to it until it returns.

A look is due after a pause, or when a poke tells of a change that this broker has not seen: then somebody may have been
fenced, and clients must not be sent there any more.

SQLite has one process: this broker is its own controller, and whoever else is listed has ended.
"""

import asyncio
import contextlib
import math
from uuid import UUID

import structlog

from streamlake.broker.takeover import Takeover
from streamlake.broker.wal import WalOpener
from streamlake.cluster.brokers import Brokers
from streamlake.cluster.placement import place
from streamlake.cluster.secret import Life
from streamlake.cluster.store.administration import pinned_partitions
from streamlake.cluster.store.controllers import Term, elect
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.drains import Drains, orphaned
from streamlake.cluster.store.fences import BrokerIdentity
from streamlake.cluster.store.membership import BEAT_INTERVAL_S, BeatView, BrokerInfo, Membership
from streamlake.cluster.store.schema import FENCED, STARTING
from streamlake.cluster.store.slots import SLOTS, SlotStore
from streamlake.cluster.store.view import ClusterView, read_view
from streamlake.cluster.store.wals import WalRow
from streamlake.cluster.topics import Topics
from streamlake.cluster.watch import LOOK_INTERVAL_S
from streamlake.core.clock import Clock
from streamlake.core.errors import Conflict, NotFound
from streamlake.core.retry import TRANSIENT
from streamlake.core.sockets import may_be_elsewhere, refuses
from streamlake.s3stream.settings import MIB
from streamlake.s3stream.wal.object.recovery import size_bytes

log = structlog.get_logger(__name__)

FOLLOW_INTERVAL_S = 0.5  # between two looks of a broker that is not the controller; below watch.GAP_S
POKED_INTERVAL_S = 0.05  # however many changes there are
SUSPECT_S = 1.0  # without a beat
UNNAMED_S = 2.0  # without a beat: then clients are not sent there any more
PROBE_S = 0.3  # for the answer of a suspect's port; with LOOK_INTERVAL_S well below watch.GAP_S
PART_BYTES = 64 * MIB  # of a WAL that one broker drains


class Controller:
    """`revision` and `stale`: as those of an image (cluster/image.py), so that changes are looked at soon."""

    def __init__(
        self,
        opener: WalOpener,
        takeover: Takeover,
        database: Database,
        beats: Database,
        membership: Membership,
        brokers: Brokers,
        topics: Topics,
        clock: Clock,
        host: str,
    ) -> None:
        """`beats`: a connection for short reads. `host`: where clients find this broker."""
        self.term: Term | None = None  # the current one, as of the last look
        self.revision = -1
        self.stale = asyncio.Event()
        self._opener = opener
        self._takeover = takeover
        self._database = database
        self._beats = beats
        self._membership = membership
        self._identity = membership.identity
        self._brokers = brokers
        self._topics = topics
        self._clock = clock
        self._host = host
        self._drains = Drains(database, membership.identity)
        self._slots = SlotStore(database, membership.identity)
        self._awaited: set[int] = set()  # nodes that have their WALs on disks of their own, and are not there
        self._failing = False  # the last round was not finished
        self._pins: tuple[int, set[tuple[UUID, int]]] | None = None  # as read at this revision, or later
        self._slots_placed: tuple[int, set[int]] | None = None  # at this revision, for these available nodes

    @property
    def is_active(self) -> bool:
        return self.term is not None and self.term.is_of(self._identity)

    async def run(self) -> None:
        """A broker alone has nothing to watch once a round is finished: nothing changes but by itself."""
        while not self._database.is_ours_alone or self._failing:
            await asyncio.sleep(POKED_INTERVAL_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s() - POKED_INTERVAL_S):
                    await self.stale.wait()
            await self.round()

    def _interval_s(self) -> float:
        if self.is_active or (self.term is not None and self._is_late(self.term.node)):
            return LOOK_INTERVAL_S
        return FOLLOW_INTERVAL_S

    async def round(self) -> None:
        """One look, and what follows from it. What fails is tried again in the next one."""
        try:
            await self._round()
        except (Conflict, NotFound, *TRANSIENT) as error:
            if not self._failing:
                log.info("a round of the controller was not finished, trying again", reason=str(error))
            self._failing = True
        else:
            self._failing = False

    async def _round(self) -> None:
        view = await self._look()
        if not self.is_active and not await self._begin_term(view):
            return
        if await self._fence_dead(view):
            view = await self._look()
            if not self.is_active:
                return  # another one began the next term meanwhile: what follows is written under that one's number
        await self._give_drains(view)
        await self._assign(view)
        await self._assign_slots(view)

    async def _look(self) -> ClusterView:
        asked_at = self._clock.boottime()
        self.stale.clear()
        view = await read_view(self._beats)
        self.revision = view.revision
        # Beats read on the same connection, so this is newer than what the last one saw.
        self._brokers.seen(BeatView(view.revision, tuple(view.brokers.values())))
        signs = {node: broker.sign for node, broker in view.brokers.items()}
        self._membership.watch.look(signs, asked_at, self._clock.boottime())
        still_s = self._membership.watch.stood_still_s
        others = [broker for broker in view.brokers.values() if broker.node != self._identity.node]
        self._brokers.stand_still(Life(b.node, b.epoch) for b in others if still_s(b.node) >= UNNAMED_S)
        self.term = view.term
        return view

    async def _begin_term(self, view: ClusterView) -> bool:
        term = view.term
        # Safe at any time, should it live: from here on what it writes as the controller is refused.
        if (
            term is not None
            and view.is_running(term.node, term.broker_epoch)
            and not self._has_ended(term.node)
            and not await self._is_silent(view.brokers[term.node])
        ):
            return False
        self.term = await elect(self._database, self._identity, term)
        log.info("this broker is the controller", node=self._identity.node, term=self.term.epoch)
        return True

    def _has_ended(self, node: int) -> bool:
        return self._database.is_ours_alone or self._membership.watch.is_dead(node)

    # -- dead brokers --------------------------------------------------------------------------------------------------

    async def _fence_dead(self, view: ClusterView) -> bool:
        """Whether anybody was fenced."""
        assert self.term is not None
        others = [broker for broker in view.brokers.values() if broker.node != self._identity.node]
        # All at once: a look that comes late begins the watch of everybody anew.
        found = await asyncio.gather(*(self._is_to_be_fenced(view, broker) for broker in others))
        fenced = False
        for broker in [broker for broker, is_over in zip(others, found, strict=True) if is_over]:
            # Durable before its WALs are read and its partitions opened: what it writes from here on changes nothing.
            await self._membership.take_over(self.term, broker.node, broker.sign)
            silent_s = round(self._membership.watch.stood_still_s(broker.node), 2)
            log.warning(
                "a broker was fenced", node=broker.node, epoch=broker.epoch, state=broker.state, silent_s=silent_s
            )
            fenced = True
        return fenced

    async def _is_to_be_fenced(self, view: ClusterView, broker: BrokerInfo) -> bool:
        wals = [row for row in view.wals if (row.node, row.epoch) == (broker.node, broker.epoch)]
        if not broker.may_run:
            # It stopped cleanly, and its WAL is still listed: nobody may write to it any more.
            return any(self._can_be_drained(row) for row in wals)
        if self._has_ended(broker.node):
            return True
        if not wals or any(self._opener.parse(row.uri).kind != "object" for row in wals):
            return False
        return await self._is_silent(broker)

    def _is_late(self, node: int) -> bool:
        return self._membership.watch.stood_still_s(node) > BEAT_INTERVAL_S

    async def _is_silent(self, broker: BrokerInfo) -> bool:
        if self._membership.watch.stood_still_s(broker.node) < SUSPECT_S:
            return False
        if broker.state == STARTING:
            return False  # its port refuses until it serves; on a busy machine a start does not beat in time
        if may_be_elsewhere(broker.host, self._host):
            return False
        return await refuses(broker.host, broker.port, PROBE_S)

    # -- their WALs ----------------------------------------------------------------------------------------------------

    async def _give_drains(self, view: ClusterView) -> None:
        assert self.term is not None
        for row in view.wals:
            if self._is_waiting(view, row):
                takers = self._takers(view)
                parts = min(len(takers), await self._parts(row))
                await self._drains.give(self.term, row.key, takers[:parts])
                log.info("a WAL was given out to be drained", node=row.node, wal=row.uri, to=[t.node for t in takers])
                self._takeover.look()

    def _is_waiting(self, view: ClusterView, row: WalRow) -> bool:
        """Whether somebody has to be given this WAL, or a part of it."""
        owner = view.brokers.get(row.node)
        if owner is None or owner.epoch <= row.epoch or not self._can_be_drained(row):
            return False
        drains = [d for d in view.drains if d.part.wal == row.key]
        if not drains:
            return not owner.may_run  # else its next life takes it
        return bool(orphaned(drains, view.is_running))

    def _can_be_drained(self, row: WalRow) -> bool:
        uri = self._opener.parse(row.uri)
        return uri.kind == "object" or uri.shared or row.node == self._identity.node

    def _takers(self, view: ClusterView) -> list[BrokerIdentity]:
        """This broker first, unless it drains, then the others."""
        ours, available = self._identity, self._available(view)
        others = [BrokerIdentity(ours.cluster_id, n, view.brokers[n].epoch) for n in available if n != ours.node]
        return [ours, *others] if ours.node in available or not others else others

    async def _parts(self, row: WalRow) -> int:
        uri = self._opener.parse(row.uri)
        if uri.kind != "object":
            return 1  # one process locks its directory
        try:
            size = await size_bytes(await self._opener.store_at(uri.place), row.node, row.epoch)
        except TRANSIENT:
            return 1
        return max(1, math.ceil(size / PART_BYTES))

    # -- partitions ----------------------------------------------------------------------------------------------------

    async def _assign(self, view: ClusterView) -> None:
        assert self.term is not None
        if self._topics.revision < view.revision:
            await self._topics.refresh()  # not by an old picture
        available = self._available(view)
        kept = {row.node for row in view.wals if row.node not in available and self._must_return(view, row)}
        if kept != self._awaited:
            self._awaited = kept
            if kept:
                log.warning(
                    "partitions wait for their brokers, whose WALs are on disks of their own", nodes=sorted(kept)
                )
        if not place(self._assigned(), available, kept):
            return
        pinned = await self._pinned(view.revision)
        # By the image as `assign` finds it: nothing is awaited in between.
        if changes := place(self._assigned(), available, kept, pinned):
            await self._topics.assign(self.term, changes)
            log.info("partitions were assigned", partitions=len(changes), nodes=sorted(set(changes.values())))

    def _assigned(self) -> dict[tuple[UUID, int], int | None]:
        return {(topic.id, p.index): p.node for topic in self._topics.all() for p in topic.partitions}

    async def _pinned(self, revision: int) -> set[tuple[UUID, int]]:
        """The partitions that operators have put where they are, read when something may have changed."""
        if self._pins is None or self._pins[0] != revision:
            self._pins = revision, await self._beats.read(pinned_partitions)
        return self._pins[1]

    def _must_return(self, view: ClusterView, row: WalRow) -> bool:
        """Whether only its node can open what this WAL holds. One that left has given its streams up; one that serves
        closes those that are assigned away."""
        broker = view.brokers.get(row.node)
        return broker is not None and broker.state in (STARTING, FENCED) and not self._can_be_drained(row)

    async def _assign_slots(self, view: ClusterView) -> None:
        """Also to brokers that have come: a group stays stable when its slot moves."""
        assert self.term is not None
        available = self._available(view)
        if self._slots_placed == (view.revision, available):
            return  # nobody has assigned any since
        _, rows = await self._slots.load()
        slots: dict[int, int | None] = dict.fromkeys(range(SLOTS)) | {row.id: row.node for row in rows}
        if changes := place(slots, available):
            await self._slots.assign(self.term, changes)
            log.info("slots of groups were assigned", slots=len(changes), nodes=sorted(set(changes.values())))
        self._slots_placed = view.revision, available

    def _available(self, view: ClusterView) -> set[int]:
        """The nodes that anything may be assigned to. This one before it serves, too: if it is alone it must have what
        there is when its port opens."""
        own = self._identity.node
        starting = {b.node for b in view.brokers.values() if b.node == own and b.state == STARTING and not b.drained}
        return starting | {b.node for b in view.brokers.values() if b.is_available}
