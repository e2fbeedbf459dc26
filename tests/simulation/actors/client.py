"""A Kafka client below all actors: finds brokers and leaders, keeps one connection to each, never repeats a request.

Brokers are found by `addresses()`, which may name dead ones, and by what they tell of each other. As real clients do
(KIP-320), it never goes back from a leader epoch that it knows to an older one: metadata of a broker that does not
know that it was superseded is ignored. `call` raises Unavailable for a request whose outcome nobody knows.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from msgspec import Struct
from simulation.checks.ledger import Ledger, Place

from streamlake.core.clock import Clock
from streamlake.core.errors import Unavailable
from streamlake.peers.kafka import KafkaPeer
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse

METADATA_VERSION = 12
REQUEST_TIMEOUT_S = 10.0
BACKOFF_S = 0.05, 0.5

Address = tuple[str, int]


class Leader(NamedTuple):
    address: Address
    epoch: int


@dataclass(frozen=True)
class World:
    """What every actor is given. `addresses` names the brokers that may be asked first; `stop` ends the run."""

    addresses: Callable[[], Sequence[Address]]
    ledger: Ledger
    clock: Clock
    stop: asyncio.Event
    request_timeout_s: float = REQUEST_TIMEOUT_S

    async def pause(self, seconds: float) -> None:
        """Until the run is to end, at most so long."""
        if self.stop.is_set():
            return
        try:
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        except TimeoutError:
            pass


class Client:
    def __init__(self, world: World, name: str, rng: random.Random, request_timeout_s: float | None = None) -> None:
        self.world = world
        self.name = name
        self.rng = rng
        self.ids: dict[str, Any] = {}  # topic name → id, as last heard
        self.leaders: dict[Place, Leader] = {}
        self.refreshes = 0
        self._request_timeout_s = request_timeout_s or world.request_timeout_s
        self._peers: dict[Address, KafkaPeer] = {}
        self._brokers: dict[Address, None] = {}  # learned from metadata

    async def call(self, address: Address, key: ApiKey, request: Struct, max_version: int) -> Any:
        """The answer of the broker there. Unavailable: it may have done it, or not, or do it later."""
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = KafkaPeer(*address, self.name, self._request_timeout_s)
        return await peer.call(key, request, max_version)

    async def refresh(self, names: Sequence[str]) -> bool:
        """Ask brokers, in any order, for the leaders of these topics until one answers. False if none does."""
        self.refreshes += 1
        for address in self._shuffled():
            request = MetadataRequest(
                topics=tuple(MetadataRequestTopic(name=name) for name in names), allow_auto_topic_creation=False
            )
            try:
                answer = await self.call(address, ApiKey.METADATA, request, METADATA_VERSION)
            except Unavailable:
                continue
            self._learn(answer)
            return True
        return False

    async def now_and_then(self, names: Sequence[str]) -> None:
        """Refresh without a reason, as clients do, in one of 50 calls: there may be new topics and partitions."""
        if self.rng.random() < 0.02:
            await self.refresh(names)

    async def backoff(self) -> None:
        await asyncio.sleep(self.rng.uniform(*BACKOFF_S))

    async def find(self, names: Sequence[str]) -> None:
        """Refresh after a pause: for when something failed. Goes on as long as no broker answers and nobody stops."""
        await self.backoff()
        while not await self.refresh(names) and not self.world.stop.is_set():
            await self.backoff()

    def places(self, names: Sequence[str]) -> list[Place]:
        """All partitions that are known of these topics."""
        ids = [self.ids[name] for name in names if name in self.ids]
        topics = [self.world.ledger.topics[topic_id] for topic_id in ids]
        return [Place(topic.id, index) for topic in topics for index in range(topic.partitions)]

    def topic_name(self, place: Place) -> str:
        return self.world.ledger.topics[place.topic_id].name

    def some_address(self) -> Address | None:
        """Any broker: for requests that every broker answers."""
        return next(iter(self._shuffled()), None)

    async def drop(self) -> None:
        """Close all connections without waiting for answers."""
        peers, self._peers = self._peers, {}
        for peer in peers.values():
            await peer.close()

    def _shuffled(self) -> list[Address]:
        addresses = list(dict.fromkeys([*self.world.addresses(), *self._brokers]))
        self.rng.shuffle(addresses)
        return addresses

    def _learn(self, answer: MetadataResponse) -> None:
        brokers = {broker.node_id: (broker.host, broker.port) for broker in answer.brokers}
        self._brokers = dict.fromkeys(brokers.values())
        for topic in answer.topics:
            if topic.error_code != ErrorCode.NONE or topic.name is None or topic.topic_id is None:
                if topic.name in self.ids and self.world.ledger.may_be_gone(self.ids[topic.name]):
                    del self.ids[topic.name]
                continue
            self.world.ledger.saw_topic(topic.topic_id, topic.name, len(topic.partitions))
            self.ids[topic.name] = topic.topic_id
            for partition in topic.partitions:
                place = Place(topic.topic_id, partition.partition_index)
                known = self.leaders.get(place)
                if partition.leader_id in brokers and (known is None or partition.leader_epoch >= known.epoch):
                    self.leaders[place] = Leader(brokers[partition.leader_id], partition.leader_epoch)


class Flights:
    """Requests under way, at most `limit`, each a task. What one of them raises, the next method called here raises.

    They are sent in the order of `start`: on an open connection a call writes before it awaits anything, and while a
    connection is opened its calls queue. So `make()` must call before it awaits anything else."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    async def start(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for room, then send."""
        while len(self._tasks) >= self._limit:
            await self.changed()
        begun = asyncio.Event()

        async def run() -> None:
            begun.set()
            await make()

        task = asyncio.get_running_loop().create_task(run())
        self._tasks[task] = None
        task.add_done_callback(self._landed)
        await begun.wait()
        self._raise()

    async def changed(self, timeout_s: float | None = None) -> None:
        """Until a flight has landed since the last call, at most so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()
        self._raise()

    async def drain(self) -> None:
        while self._tasks:
            await self.changed()
        self._raise()

    def give_up(self) -> None:
        """Nobody listens to what is under way any more."""
        for task in self._tasks:
            task.cancel()

    def _landed(self, task: "asyncio.Task[None]") -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
        self._changed.set()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure
