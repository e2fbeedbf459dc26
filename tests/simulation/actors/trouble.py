"""What befalls a cluster while it lives: one method for each kind of trouble, drawn again and again by the plan.

Blind chance seldom hits the moments that matter. So some kinds wait for theirs, by looking into the broker as nobody
outside could: when something was just acknowledged or is on its way to the WAL, while a broker starts, when a commit
has landed in the catalog, when the successor of a zombie is ready.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotsUpdate,
    SetSnapshotRefUpdate,
)
from simulation.actors.moments import HANDLED_S, Moments
from simulation.actors.strikes import Strikes
from simulation.cluster import BrokerLife
from simulation.plan.plan import LOCAL_WAL
from simulation.world import metadata
from simulation.world.machine import MachineFaults

from streamlake.s3stream.objects.format import object_key

if TYPE_CHECKING:
    from simulation.life import Life

UPLOAD_S = 0.02  # about as long as it takes to store an object
COMMIT_S = 0.001  # … and for the metadata store to commit something
MOVED_ON_S = 120.0  # members lose a request timeout to each broker that is paused before they commit elsewhere


# Nodes that have a part in what is under way between brokers.
WITH_A_PART = """
SELECT node FROM controller
UNION SELECT by_node FROM drain WHERE NOT done
UNION SELECT p.node FROM partition p JOIN stream s ON s.id = p.stream_id WHERE s.owner <> p.node
UNION SELECT s.owner FROM partition p JOIN stream s ON s.id = p.stream_id WHERE s.owner <> p.node
"""


class Trouble(Moments):
    def __init__(self, life: "Life") -> None:
        super().__init__(life)
        self.happened: dict[str, int] = {}
        self._random = life.loop.derived("trouble")
        self._random_of_beats = life.loop.derived("beats of zombies")
        self._later: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        plan, random = self._life.plan, self._random
        until = self._loop.time() + plan.trouble_s
        if plan.strikes:
            self._later.append(self._loop.create_task(Strikes(self._life, self.happened).run()))
        while self._loop.time() < until:
            await asyncio.sleep(random.expovariate(1 / plan.gap_s))
            self._life.cluster.check_images()
            kind = random.choice(plan.troubles)
            self.happened[kind] = self.happened.get(kind, 0) + 1
            self._loop.event(f"trouble: {kind}")
            method: Callable[[], Coroutine[Any, Any, None]] = getattr(self, kind)
            await method()
        for task in self._later:
            task.cancel()

    # -- ends ----------------------------------------------------------------------------------------------------------

    async def kill(self) -> None:
        if (life := self._some_broker()) is not None:
            life.process.kill_in(self._some_callbacks(2000))

    async def kill_at_ack(self) -> None:
        """Right when something is durable or acknowledged, or a few steps later."""
        if (life := self._some_broker()) is not None and await self._moment(self._durable_moves(life)):
            life.process.kill_in(self._some_callbacks(30))

    async def kill_at_gap(self) -> None:
        """When an object of the WAL has landed before one that belongs in front of it."""
        if (life := self._some_broker()) is not None and await self._moment(lambda: life.wal_has_gap, 3.0):
            life.process.kill()

    async def kill_at_upload(self) -> None:
        """Between what belongs together: object prepared, stored, committed, WAL trimmed."""
        if (life := self._some_broker()) is not None and await self._moment(self._uploading, 4.0):
            await asyncio.sleep(self._random.expovariate(1 / UPLOAD_S))
            life.process.kill()

    async def kill_at_start(self) -> None:
        """While a broker starts: it registers, fences, drains, opens."""
        if (life := self._some_broker()) is not None:
            life.process.kill()
        lives = self._life.cluster.lives
        seen = len(lives)
        if await self._moment(lambda: len(lives) > seen and lives[-1].process.alive, 3.0):
            lives[-1].process.kill_in(self._some_callbacks(600))

    async def kill_at_disk(self) -> None:
        """In the middle of a function that works on the disk."""
        if (life := self._some_broker()) is not None:
            life.machine.kill_at_disk_operation(self._some_callbacks(60))

    async def power_cut(self) -> None:
        if (life := self._some_broker()) is not None:
            life.host.power_cut()
            await asyncio.sleep(self._random.uniform(0.1, 3))
            life.host.power_on()

    async def power_cut_at_ack(self) -> None:
        if (life := self._some_broker()) is not None and await self._moment(self._durable_moves(life)):
            await asyncio.sleep(self._random.expovariate(1 / 0.01))
            await self.power_cut()

    async def bad_disk(self) -> None:
        """Syncs fail for a moment; then perhaps the power does, and shows what the failed ones had promised."""
        self._life.outside.faults = MachineFaults(sync_error=0.3)
        await asyncio.sleep(self._random.uniform(0.1, 1))
        self._life.outside.faults = MachineFaults()
        if self._random.random() < 0.7:
            await self.power_cut()

    async def clean_stop(self) -> None:
        if (life := self._some_broker()) is not None:
            life.shut_down()

    # -- zombies -------------------------------------------------------------------------------------------------------

    async def zombie(self) -> None:
        """It stops in the middle of something, another process is started in its place, and it wakes: soon, much later,
        just when its successor is ready, or when a group whose commit it holds has gone on elsewhere."""
        await self._moment(lambda: bool(self._life.cluster.serving), 3.0)
        life = self._some_broker()
        if life is None:
            return
        asleep_s = self._random.choice((0.5, 5, 15)) * self._random.uniform(0.5, 1.5)
        until_ready = self._random.random() < 0.6
        until: Callable[[], bool] | None = None
        match self._random.randrange(4):
            case 0:
                await self._moment(lambda: self._in_flight(life))
            case 1:
                await self._moment(self._uploading, 4.0)
                await asyncio.sleep(self._random.expovariate(1 / UPLOAD_S))
            case 2 if self._life.plan.groups:
                group = self._life.world.ledger.group("group")
                if await self._moment(lambda: group.under_way > 0 and life.writes_wait, 10.0, COMMIT_S / 2):
                    generation = group.sent_generation
                    until = lambda: group.acked_generation > generation  # noqa: E731
        life.process.pause()
        if self._life.plan.embedded or self._life.supervisor.seat(life).wal == LOCAL_WAL:
            # Nobody else can serve its disk: whoever tries finds it locked.
            self._loop.in_world(asleep_s, life.process.resume)
            return
        successor = self._heir() or self._start_in_place_of(life)
        if until:
            await self._moment(until, MOVED_ON_S, 0.01)
            self._wake(life)
        elif self._random.random() < 0.5:
            # Just when its successor sees it stand still for long enough: its beat may come between look and fence.
            self._later.append(self._loop.create_task(self._wake_when_judged(life, successor)))
        elif until_ready:
            self._later.append(self._loop.create_task(self._wake_when_ready(life, successor)))
        else:
            self._loop.in_world(asleep_s, self._wake, life)

    async def late_commit(self) -> None:
        """It stops when an object is stored and not committed, and wakes when its successor has gone on. What only the
        memory of that one knew better is gone soon after."""
        life = self._some_broker()
        if life is None or not await self._moment(self._stored_and_not_committed, 4.0):
            return
        life.process.pause()
        if self._life.supervisor.seat(life).wal == LOCAL_WAL:
            self._loop.in_world(self._random.uniform(0, 10), life.process.resume)
            return
        successor = self._heir() or self._start_in_place_of(life)
        await self._moment(lambda: self._has_succeeded(successor, life), HANDLED_S, 0.01)
        await asyncio.sleep(self._random.expovariate(1.0))
        self._wake(life)
        await asyncio.sleep(self._random.uniform(0.02, 0.5))
        successor.process.kill()

    async def paused_controller(self) -> None:
        """It stops in the middle of what it does about a broker that has died, and wakes when another one followed it."""
        controller, term, running = self._controller(), self._term(), self._life.supervisor.running
        if controller is None or len(running) < 3:
            return
        victim = self._random.choice([life for life in running if life is not controller])
        victim.process.kill()
        if not await self._moment(lambda: victim.was_fenced or not controller.process.alive, 6.0):
            return
        controller.process.pause()

        # Early enough, its beat comes between the election and the fence: then it lives, and is not the controller.
        if self._random.random() < 0.3:
            others = [life for life in self._life.supervisor.running if life.ready]
            await self._moment(lambda: any(life.judges(controller.node) for life in others), HANDLED_S)
        else:
            await self._moment(lambda: self._term() > term, HANDLED_S)
            await asyncio.sleep(self._random.choice((0.0, 0.0, 0.005, 1.0)) * self._random.random())
        self._wake(controller)

    def _heir(self) -> BrokerLife | None:
        """A broker that will notice by itself. None if there is none, or a new one shall be started."""
        others = [life for life in self._life.supervisor.running if life.ready]
        if not others or self._life.supervisor.together == 1 or self._random.random() < 0.4:
            return None
        return self._random.choice(others)

    def _start_in_place_of(self, life: BrokerLife) -> BrokerLife:
        wals = [wal for wal in self._life.plan.wals if wal != LOCAL_WAL] or ["object"]
        node = self._random.choice((life.node, life.node, life.node, self._another_node(life)))
        return self._life.supervisor.start(self._random.choice(self._life.hosts), self._random.choice(wals), node)

    async def frozen(self) -> None:
        """It stops in the middle of a transaction of the metadata store, whose locks it holds."""
        life = self._some_broker()
        if life is None:
            return
        self._life.metadata.freeze(life.process)
        if await self._moment(lambda: life.process.paused or not life.process.alive, 4.0):
            asleep_s = self._random.choice((0.3, 5, 15)) * self._random.uniform(0.5, 1.5)
            self._loop.in_world(asleep_s, self._wake, life)

    async def rival(self) -> None:
        """A second server is started while the first one lives: by a copied configuration, or as another node. It must
        give way. Often nobody sees a beat for a while, as the metadata store is away."""
        life = self._some_broker()
        others = [host for host in self._life.hosts if life is not None and host != life.host.name]
        if life is None or not others or not await self._moment(lambda: life.serving, 3.0):
            return
        wals = [wal for wal in self._life.plan.wals if wal != LOCAL_WAL] or ["object"]
        node = self._random.choice((life.node, self._another_node(life), self._another_node(life)))
        rival = self._life.supervisor.start(self._random.choice(others), self._random.choice(wals), node)
        if self._random.random() < 0.8:
            await asyncio.sleep(self._random.uniform(0.2, 2))
            self._life.metadata.outage(self._random.uniform(2, 8))
        await asyncio.sleep(self._random.uniform(2, 12))
        rival.shut_down()

    def _wake(self, zombie: BrokerLife) -> None:
        """Its first beat tells it that it is fenced, within milliseconds. So its beats often have no connection yet, as
        after a long sleep they well may: what it does until then must be harmless by itself."""
        zombie.lose_beats(self._random_of_beats.choice((0, 1, 4)) * self._random_of_beats.random())
        zombie.process.resume()

    async def _wake_when_judged(self, zombie: BrokerLife, successor: BrokerLife) -> None:
        await self._moment(lambda: successor.judges(zombie.node) or not successor.process.alive, HANDLED_S)
        zombie.process.resume()

    async def _wake_when_ready(self, zombie: BrokerLife, successor: BrokerLife) -> None:
        await self._moment(lambda: self._has_succeeded(successor, zombie), HANDLED_S, 0.01)
        await asyncio.sleep(self._random.expovariate(1 / self._random.choice((0.3, 0.3, 4.0, 12.0))))
        self._wake(zombie)
        if self._random.random() < 0.4:  # what only the successor's memory knew better is gone
            await asyncio.sleep(self._random.expovariate(1.0))
            successor.process.kill()

    def _has_succeeded(self, successor: BrokerLife, zombie: BrokerLife) -> bool:
        """Or has failed to."""
        return not successor.process.alive or (successor.ready and not zombie.owns_streams)

    async def pause_client(self) -> None:
        """A producer or a reader becomes a zombie; most often a member of the group."""
        if actors := [process for process in self._life.actors if process.alive]:
            members = [process for process in actors if process.name.startswith("member")]
            process = self._random.choice(members if members and self._random.random() < 0.5 else actors)
            process.pause()
            self._loop.in_world(self._random.choice((2, 8, 20)) * self._random.uniform(0.5, 1.5), process.resume)

    # -- what brokers need ---------------------------------------------------------------------------------------------

    async def metadata_outage(self) -> None:
        """Many an outage ends for the broker by kill -9: what it had not stored is then gone."""
        if self._random.random() < 0.5:
            await self._moment(self._uploading, 4.0)
        length_s = self._random.uniform(0.5, 15)
        self._life.metadata.outage(length_s)
        await self._perhaps_kill_within(length_s)

    async def bucket_outage(self) -> None:
        length_s = self._random.uniform(0.5, 12)
        self._life.bucket.outage(length_s)
        await self._perhaps_kill_within(length_s)

    async def bucket_storm(self) -> None:
        length_s = self._random.uniform(2, 15)
        self._life.bucket.storm(length_s)
        await self._perhaps_kill_within(length_s)

    async def _perhaps_kill_within(self, length_s: float) -> None:
        if self._random.random() < 0.6:
            await asyncio.sleep(self._random.uniform(0.3, 1) * length_s)
            await self.kill()

    async def failover(self) -> None:
        """The metadata store moves to a standby that has all that was committed."""
        length_s = self._random.uniform(0.2, 8)
        self._life.metadata.fail_over(length_s)
        await self._perhaps_kill_within(length_s)

    async def parted(self) -> None:
        """A broker loses something that it needs, or that needs it, or only one of the two hears the other."""
        life, net = self._some_broker(), self._life.cluster.net
        if life is None:
            return
        others = [host for host in self._life.hosts if host != life.host.name]
        far = self._random.choice((metadata.HOST, metadata.HOST, self._life.bucket.name, "clients", *others[:2]))
        pair = [life.host.name, far]
        self._random.shuffle(pair)
        net.partition(*pair, both=self._random.random() < 0.5)
        length_s = self._random.choice((1, 5, 20)) * self._random.uniform(0.5, 1.5)
        self._loop.in_world(length_s, net.heal, *pair)
        await self._perhaps_kill_within(length_s / 2)

    async def partition(self) -> None:
        net, host = self._life.cluster.net, self._random.choice(self._life.hosts)
        net.partition(host, "clients")
        self._loop.in_world(self._random.uniform(0.5, 10), net.heal, host, "clients")

    # -- tables --------------------------------------------------------------------------------------------------------

    async def kill_worker(self) -> None:
        if (life := self._some_broker()) is not None and life.worker is not None:
            life.worker.process.kill_in(self._some_callbacks(1000))

    async def kill_worker_at_commit(self) -> None:
        """A commit has landed, and whoever sent it never hears of it; of two that belong together, perhaps the first."""
        history = self._life.catalog.history
        for _ in range(self._random.randint(1, 3)):
            seen = len(history)
            if not await self._moment(lambda: len(history) > seen, 5.0, 0.005):  # noqa: B023
                return
        if (life := self._some_broker()) is not None and life.worker is not None:
            life.worker.process.kill_in(self._some_callbacks(10))

    async def pause_worker(self) -> None:
        if (life := self._some_broker()) is not None and life.worker is not None:
            process = life.worker.process
            process.pause()
            self._loop.in_world(self._random.uniform(1, 30), process.resume)

    async def catalog_outage(self) -> None:
        fail = self._random.choice((self._life.catalog.outage, self._life.catalog.read_only))
        fail(self._random.uniform(0.5, 20))

    async def foreign_commits(self) -> None:
        """Somebody else's maintenance: two compactions, after which only what a branch or a tag names is kept. Our
        newest snapshot is then no ancestor of the current one any more."""
        server = self._life.catalog
        for identifier in self._life.table_identifiers():
            for _ in range(2):
                table = server.catalog.load_table(identifier)
                head = table.metadata.current_snapshot()
                if head is None:
                    break
                snapshot_id = self._random.getrandbits(62)
                summary = Summary(Operation.REPLACE, **_totals(head))
                sequence = table.metadata.next_sequence_number()
                changes = {"snapshot_id": snapshot_id, "parent_snapshot_id": head.snapshot_id, "summary": summary,
                           "sequence_number": sequence, "timestamp_ms": table.metadata.last_updated_ms}  # fmt: skip
                main = SetSnapshotRefUpdate(  # type: ignore[call-arg]
                    ref_name=MAIN_BRANCH, type=SnapshotRefType.BRANCH, snapshot_id=snapshot_id
                )
                kept = {ref.snapshot_id for name, ref in table.metadata.refs.items() if name != MAIN_BRANCH}
                gone = [s.snapshot_id for s in table.metadata.snapshots if s.snapshot_id not in kept]
                updates = [AddSnapshotUpdate(snapshot=head.model_copy(update=changes)), main]
                if gone:
                    updates.append(RemoveSnapshotsUpdate(snapshot_ids=gone))  # type: ignore[call-arg]
                required = (
                    AssertTableUUID(uuid=table.metadata.table_uuid),
                    AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=head.snapshot_id),  # type: ignore[call-arg]
                )
                with server.seeded():
                    server.catalog.commit_table(table, required, tuple(updates))

    async def fade_schema(self) -> None:
        """The worker's schema registry forgets a schema, or knows it again: what is good today was bad yesterday."""
        ids, hidden = self._life.values.ids[1:], self._life.cluster.hidden_schemas
        if ids:
            hidden ^= {self._random.choice(ids)}

    # -- moments -------------------------------------------------------------------------------------------------------

    def _some_broker(self) -> BrokerLife | None:
        """One that runs, ready or not; the newest, if there should be no more than one. Of many often one on which
        others wait: the controller, a drainer, source or target of a move."""
        running = self._life.supervisor.running
        if len(self._life.supervisor.seats) == 1 or not running:
            return running[-1] if running else None
        if self._random.random() < 0.5:
            nodes = {node for (node,) in self._life.metadata.query(WITH_A_PART)}
            running = [life for life in running if life.node in nodes] or running
        return self._random.choice(running)

    def _another_node(self, life: BrokerLife) -> int:
        """The next one; there is none where a plan has one broker."""
        return (life.node + 1) % len(self._life.supervisor.seats)

    @staticmethod
    def _durable_moves(life: BrokerLife) -> Callable[[], bool]:
        before = life.durable_position
        return lambda: life.durable_position > before

    def _uploading(self) -> bool:
        """An object is on its way, and not committed."""
        return bool(self._life.metadata.query("SELECT 1 FROM object WHERE state = 'prepared'"))

    def _stored_and_not_committed(self) -> bool:
        rows = self._life.metadata.query("SELECT id FROM object WHERE state = 'prepared'")
        return any(f"lake/{object_key(i)}" in self._life.bucket.objects for (i,) in rows)

    def _some_callbacks(self, most: int) -> int:
        """Often few, sometimes many."""
        return int(most ** self._random.random())


def _totals(head: Snapshot) -> dict[str, str]:
    before = head.summary.additional_properties if head.summary else {}
    return {key: value for key, value in before.items() if key.startswith("total-")}
