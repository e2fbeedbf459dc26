"""The real metadata store, with a clock that only moves when told to."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from support.members import next_process

from streamlake.cluster.slots import Slots
from streamlake.cluster.store.database import Database
from streamlake.cluster.store.fences import BrokerIdentity, SlotEpoch
from streamlake.cluster.store.groups import GroupRow, GroupStore
from streamlake.cluster.store.producer_ids import ProducerIdBlocks
from streamlake.cluster.store.slots import SLOTS, SlotStore, slot_of
from streamlake.cluster.topics import Topics
from streamlake.coordinator.classic.api import JoinRequest
from streamlake.core.ids import Ids
from streamlake.core.tasks import InlineExecutor


@dataclass
class ManualClock:
    ms: int = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def boottime(self) -> float:
        return self.ms / 1000


@dataclass
class Metadata:
    database: Database
    identity: BrokerIdentity
    clock: ManualClock
    ids: Ids
    topics: Topics
    slots: Slots
    groups: GroupStore
    blocks: ProducerIdBlocks

    async def stored_groups(self) -> list[GroupRow]:
        """All that are in the store, by id."""
        return await self.groups.load_groups(range(SLOTS))

    def slot(self, group_id: str) -> SlotEpoch:
        """That fences what this broker writes to the group."""
        return self.slots.ours[slot_of(group_id)]

    def has_partition(self, topic: str, partition: int) -> bool:
        found = self.topics.get(topic)
        return found is not None and 0 <= partition < len(found.partitions)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def metadata(clock: ManualClock) -> AsyncIterator[Metadata]:
    """With topic `t` of 3 partitions, and all slots at one broker."""
    ids = Ids(7)
    database = await Database.open("sqlite://", InlineExecutor(), clock)
    identity = (await next_process(database, clock, ids)).identity
    topics = Topics(database, identity, clock, ids)
    await topics.refresh()
    await topics.create("t", 3, {})
    slots = Slots(SlotStore(database, identity), identity.node)
    await slots.take_free()
    groups = GroupStore(database, identity, slots.stale.set)
    yield Metadata(database, identity, clock, ids, topics, slots, groups, ProducerIdBlocks(database, identity))
    await database.close()


@pytest.fixture
def join_request() -> Callable[..., JoinRequest]:
    def build(member_id: str = "", **changes: object) -> JoinRequest:
        values: dict[str, object] = {
            "group_id": "g",
            "member_id": member_id,
            "group_instance_id": None,
            "client_id": "c",
            "client_host": "/127.0.0.1",
            "session_timeout_ms": 10_000,
            "rebalance_timeout_ms": 30_000,
            "protocol_type": "consumer",
            "protocols": (("range", b"r"), ("sticky", b"s")),
            "require_known_member_id": True,
            "supports_skip_assignment": True,
        }
        return JoinRequest(**{**values, **changes})

    return build
