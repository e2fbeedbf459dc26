"""Strikes: trouble for which several things must come together that seldom do by themselves, so it makes them.

Most kinds are one sequence that would lose something, had the product one of its fences less (bugs/); others are what
operators do. Strikes fall beside all other trouble (trouble.py), in lives whose plans have any, and draw from a source of
their own: all other lives stay what they were.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from simulation.actors.moments import HANDLED_S, Moments
from simulation.cluster import BrokerLife
from simulation.plan.plan import LOCAL_WAL
from simulation.world.metadata import Stop
from simulation.world.process import Process

from streamlake.broker.services import Services
from streamlake.cluster.store.slots import SlotStore, slot_of
from streamlake.core.errors import StreamLakeError

if TYPE_CHECKING:
    from simulation.life import Life

T = TypeVar("T")
KNOWN_S = 1.0  # then every broker that beats has seen a change of the metadata store
CALM_S = 10.0  # until all brokers serve; then it strikes those that do
STOPPED_S = 12.0  # the longest time that a group of writes is on its way; a connection is cut later than that
GROUP = "group"


class Strikes(Moments):
    def __init__(self, life: "Life", happened: dict[str, int]) -> None:
        super().__init__(life)
        self._happened = happened
        self._random = life.loop.derived("strikes")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._random.uniform(1, 4))
            await self._moment(lambda: len(self._serving) == self._life.supervisor.together, CALM_S, 0.05)
            kind = self._random.choice(self._life.plan.strikes)
            self._loop.event(f"strike: {kind}")
            method: Callable[[], Coroutine[Any, Any, bool]] = getattr(self, kind)
            if await method():
                self._happened[kind] = self._happened.get(kind, 0) + 1

    # -- kinds: True if it came to all of it ---------------------------------------------------------------------------

    async def sent_again(self) -> bool:
        """Nothing becomes durable for a while. Producers, whose connections break, send again what is under way. Then
        the broker dies: nothing of that may have been acknowledged."""
        life = self._any([life for life in self._serving if self._wal(life) == "object"])
        if life is None:
            return False
        self._life.bucket.outage(self._random.uniform(2, 5))
        if not await self._moment(lambda: self._in_flight(life), 2.0):
            return False
        await asyncio.sleep(self._random.expovariate(1 / 0.1))
        self._life.cluster.net.reset(life.host.name, "clients")
        await asyncio.sleep(self._random.uniform(0.3, 2))
        life.process.kill()
        return True

    async def followed_controller(self) -> bool:
        """The controller stops right before it assigns partitions of a broker that died, and goes on in the moment in
        which another one begins its term: it is alive then, not fenced, and not the controller."""
        controller = self._controller()
        victim = self._any([life for life in self._serving if life is not controller and self._wal(life) != LOCAL_WAL])
        if controller is None or victim is None:
            return False
        metadata, followed = self._life.metadata, False

        def go_on() -> None:
            nonlocal followed
            followed = True
            stop.release()
            controller.process.resume()

        with self._stopped([controller], "Topics.assign") as (stop,):
            self._life.supervisor.end_for_a_while(victim, STOPPED_S)
            if not await self._moment(lambda: stop.reached, STOPPED_S):
                return False
            controller.process.pause()
            metadata.on_term = lambda: self._loop.in_world(0, go_on) and None
            try:
                await self._moment(lambda: followed or not controller.process.alive, HANDLED_S, 0.01)
            finally:
                metadata.on_term = lambda: None
                controller.process.resume()
            return followed

    async def late_commit_of_offsets(self) -> bool:
        """It is long on its way to the metadata store. Meanwhile the slot of the group moves to another broker, the
        members follow it, commit there, and fall asleep. Then it arrives, from a broker that is alive."""
        group, slot = self._life.world.ledger.group(GROUP), slot_of(GROUP)
        owners = {node for (node,) in self._life.metadata.query("SELECT node FROM slot WHERE id = ?", slot)}
        coordinator = self._any([life for life in self._serving if life.node in owners])
        successor = self._any([life for life in self._serving if life.node not in owners])
        if coordinator is None or successor is None:
            return False
        with self._stopped([coordinator], "GroupStore.commit_offsets") as (stop,):
            if not await self._moment(lambda: stop.reached, STOPPED_S, 0.01):
                return False
            generation = group.sent_generation
            if not await self._move_slot(slot, successor.node):
                return False
            await asyncio.sleep(KNOWN_S)
            self._life.cluster.net.reset(coordinator.host.name, "clients")
            if not await self._moment(lambda: group.acked_generation > generation, STOPPED_S, 0.01):
                return False
            await asyncio.sleep(self._random.uniform(0, 1))
            for member in self._members():
                member.pause()
                self._loop.in_world(self._random.uniform(2, 5), member.resume)
        return True

    async def late_end_of_drain(self) -> bool:
        """A broker has drained a part of the WAL of a dead one, and stops cleanly. That it has ended the drain is long
        on its way: meanwhile another one is given the part. (One whose own WAL others can drain would be fenced.)"""
        drainers = [life for life in self._serving if self._wal(life) == LOCAL_WAL]
        victim = self._any([life for life in self._serving if self._wal(life) != LOCAL_WAL])
        if not drainers or victim is None or len(self._serving) < 3:
            return False
        with self._stopped(drainers, "Drains.finish") as stops:
            self._life.supervisor.end_for_a_while(victim, STOPPED_S)
            if not await self._moment(lambda: any(stop.reached for stop in stops), STOPPED_S, 0.01):
                return False
            drainer = next(life for life, stop in zip(drainers, stops, strict=True) if stop.reached)
            drainer.shut_down()
            has_a_part = "SELECT 1 FROM drain WHERE by_node = ? AND by_epoch = ? AND NOT done"
            who = (drainer.node, drainer.epoch)
            return await self._moment(lambda: not self._life.metadata.query(has_a_part, *who), 2 * STOPPED_S, 0.01)

    async def late_table(self) -> bool:
        """A topic becomes a table by another broker than the one that leads it, which does not hear of that at once, and
        whose retention goes on."""
        topic = "strict"
        query = "SELECT p.node FROM partition p JOIN topic t ON t.id = p.topic_id WHERE t.name = ?"
        leaders = {node for (node,) in self._life.metadata.query(query, topic)}
        leading = [life for life in self._serving if life.node in leaders]
        if topic in self._life.tables or not leading or len(self._serving) < 2:
            return False
        if not await self._altered(self._any(self._serving), self._life.shorten_retention, topic):
            return False
        await asyncio.sleep(self._random.uniform(3, 6))  # retention has something to do, again and again
        leader = self._any([life for life in leading if life.serving])
        other = self._any([life for life in self._serving if life is not leader])
        if leader is None or other is None:
            return False
        leader.lose_beats(2.5)  # it is not taken for dead by that
        await asyncio.sleep(0.05)
        return await self._altered(other, self._life.begin_table, topic)

    # -- operators -----------------------------------------------------------------------------------------------------

    async def moved_partitions(self) -> bool:
        """An operator moves partitions to and fro, by any broker. Pokes between two brokers are lost meanwhile, and
        others come late and again."""
        hosts = [life.host.name for life in self._random.sample(self._serving, min(2, len(self._serving)))]
        if len(hosts) < 2:
            return False
        net, moved = self._life.cluster.net, False
        net.partition(*hosts, both=self._random.random() < 0.5)
        self._loop.in_world(self._random.uniform(1, 4), net.heal, *hosts)
        for _ in range(self._random.randint(1, 5)):
            asked, target = self._any(self._serving), self._any(self._serving)
            if asked is None or target is None:
                break
            keys = [(topic.id, p.index) for topic in asked.services.topics.all() for p in topic.partitions]
            some = self._random.sample(keys, min(len(keys), self._random.randint(1, 3)))
            moved = await self._ask_operator(asked, "move", dict.fromkeys(some, target.node)) or moved
            pokes = target.services.pokes
            target.process.call_soon(pokes.tell, asked.services.topics.revision - self._random.randrange(3))
            await asyncio.sleep(self._random.choice((0.0, 0.1, 1.5)) * self._random.random())
        return moved

    async def drained_node(self) -> bool:
        """An operator drains a broker, and changes its mind soon."""
        asked, drained = self._any(self._serving), self._any(self._serving)
        if asked is None or drained is None or not await self._ask_operator(asked, "drain", drained.node):
            return False
        await asyncio.sleep(self._random.choice((0.1, 2, 6)) * self._random.random())
        while (asked := self._any(self._serving)) is None or not await self._ask_operator(
            asked, "undrain", drained.node
        ):
            await asyncio.sleep(0.5)
        return True

    # -- means ---------------------------------------------------------------------------------------------------------

    @property
    def _serving(self) -> list[BrokerLife]:
        return self._life.cluster.serving

    def _wal(self, life: BrokerLife) -> str:
        return str(life.config.storage.wal)

    def _any(self, found: Sequence[T]) -> T | None:
        return self._random.choice(found) if found else None

    def _members(self) -> list[Process]:
        return [process for process in self._life.actors if process.alive and process.name.startswith("member")]

    @contextmanager
    def _stopped(self, brokers: Sequence[BrokerLife], act: str) -> Iterator[list[Stop]]:
        """Their next groups of writes with this act are stopped on their way, until the end of the block."""
        stops = [self._life.metadata.stop(broker.process, act) for broker in brokers]
        try:
            yield stops
        finally:
            for stop in stops:
                stop.release()

    async def _move_slot(self, slot: int, node: int) -> bool:
        async def move(services: Services) -> None:
            term = services.controller.term
            assert term is not None
            await SlotStore(services.database, services.identity).assign(term, {slot: node})

        controller = self._controller()
        try:
            if controller is not None:
                await controller.ask(move)
        except StreamLakeError:
            return False
        return controller is not None

    async def _ask_operator(self, life: BrokerLife, act: str, *args: Any) -> bool:
        """True if it was done; else perhaps."""
        try:
            await life.ask(lambda services: getattr(services.administration, act)(*args))
        except StreamLakeError:
            return False
        return True

    async def _altered(
        self, life: BrokerLife | None, alter: Callable[[BrokerLife, str], Coroutine[Any, Any, None]], topic: str
    ) -> bool:
        try:
            if life is not None:
                await alter(life, topic)
        except StreamLakeError:
            return False
        return life is not None
