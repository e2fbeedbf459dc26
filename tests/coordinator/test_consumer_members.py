"""Consumer groups over the real metadata store: what is stored, topics that change, and the two kinds of groups."""

import asyncio

import pytest
from support.wait import turns, until

from streamlake.coordinator.classic.api import GroupError, LeavingMember, SyncRequest
from streamlake.coordinator.consumer.api import NO_PLACES, HeartbeatRequest, Places
from streamlake.coordinator.consumer_members import ConsumerMembers, shape_of
from streamlake.coordinator.groups import Groups
from streamlake.coordinator.settings import GroupSettings
from streamlake.core.errors import Fenced, Unavailable
from streamlake.core.tasks import InlineExecutor

E = GroupError


def heartbeat(member_id: str = "m", epoch: int = 0, **fields: object) -> HeartbeatRequest:
    joining = {"rebalance_timeout_ms": 5_000, "topics": ("t",), "owned": NO_PLACES} if epoch == 0 else {}
    values: dict[str, object] = {
        "group_id": "g",
        "instance_id": None,
        "rack_id": None,
        "client_id": "c",
        "client_host": "h",
        "rebalance_timeout_ms": None,
        "topics": None,
        "regex": None,
        "assignor": None,
        "owned": None,
        **joining,
        **fields,
    }
    return HeartbeatRequest(member_id=member_id, epoch=epoch, **values)


class Broker:
    def __init__(self, metadata, store=None, settings: GroupSettings | None = None) -> None:
        self.topics = metadata.topics
        settings = settings or GroupSettings(initial_rebalance_delay_ms=0)
        self.groups = Groups(
            store or metadata.groups,
            metadata.slots,
            metadata.clock,
            metadata.ids,
            settings,
            lambda name: shape_of(metadata.topics, name),
        )
        self.members = ConsumerMembers(self.groups, metadata.topics, InlineExecutor())

    async def start(self) -> "Broker":
        await self.groups.start()
        await self.members.start()
        return self

    async def stop(self) -> None:
        await self.members.stop()
        await self.groups.stop()

    def all_of(self, *names: str) -> Places:
        found = [topic for name in names if (topic := self.topics.get(name)) is not None]
        return frozenset((topic.id.bytes, part.index) for topic in found for part in topic.partitions)

    async def told(self, epoch: int, wanted: Places) -> None:
        """The member's assignment becomes this; it gives up what it has to."""
        owned: Places | None = None
        async with asyncio.timeout(60):
            while owned != wanted:
                answer = await self.members.heartbeat(heartbeat(epoch=epoch, owned=owned))
                assert answer.error is E.NONE, answer
                epoch = answer.epoch
                owned = owned if answer.assignment is None else answer.assignment
                await asyncio.sleep(0)


@pytest.fixture
async def broker(metadata):
    broker = await Broker(metadata).start()
    yield broker
    await broker.stop()


class Gated:
    """The real store; saves of groups wait, or fail."""

    def __init__(self, store) -> None:
        self.store = store
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    def __getattr__(self, name: str):
        return getattr(self.store, name)

    async def save_group(self, row, slot) -> None:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        await self.store.save_group(row, slot)


async def test_a_member_is_answered_when_the_group_is_stored(metadata) -> None:
    store = Gated(metadata.groups)
    broker = await Broker(metadata, store).start()
    joining = asyncio.create_task(broker.members.heartbeat(heartbeat()))
    await turns()
    assert not joining.done()
    store.gate.set()
    answer = await joining
    assert (answer.error, answer.assignment) == (E.NONE, broker.all_of("t"))
    (row,) = await metadata.stored_groups()
    assert (row.kind, row.generation, row.protocol_type, row.protocol) == ("consumer", 2, "consumer", "uniform")
    await broker.stop()


@pytest.mark.parametrize(
    ("error", "code"),
    [(Unavailable("disk"), E.COORDINATOR_NOT_AVAILABLE), (Fenced("another broker"), E.NOT_COORDINATOR)],
)
async def test_a_save_that_fails_is_told(metadata, error: Exception, code: GroupError) -> None:
    store = Gated(metadata.groups)
    store.gate.set()
    store.error = error
    broker = await Broker(metadata, store).start()
    assert (await broker.members.heartbeat(heartbeat())).error is code
    await broker.stop()


async def test_the_next_coordinator_goes_on_with_the_members(metadata, broker) -> None:
    joined = await broker.members.heartbeat(heartbeat())
    again = await Broker(metadata).start()
    answer = await again.members.heartbeat(heartbeat(epoch=joined.epoch))
    assert (answer.error, answer.epoch, answer.assignment) == (E.NONE, joined.epoch, broker.all_of("t"))
    assert again.groups.describe_consumer("g") == broker.groups.describe_consumer("g")
    await again.stop()


async def test_topics_change_while_nobody_coordinates(metadata, broker) -> None:
    joined = await broker.members.heartbeat(heartbeat())
    await broker.stop()
    await metadata.topics.add_partitions("t", 5)
    again = await Broker(metadata).start()
    await again.told(joined.epoch, again.all_of("t"))
    assert len(again.all_of("t")) == 5
    await again.stop()


async def test_topics_come_and_get_partitions_and_go(metadata, broker) -> None:
    joined = await broker.members.heartbeat(heartbeat(topics=("t", "u")))
    await metadata.topics.create("u", 2, {})
    await broker.told(joined.epoch, broker.all_of("t", "u"))
    await metadata.topics.add_partitions("u", 4)
    assert len(broker.all_of("u")) == 4
    group = broker.groups.describe_consumer("g")
    await broker.told(group.members[0].epoch, broker.all_of("t", "u"))
    await metadata.topics.delete("t")
    await broker.told(broker.groups.describe_consumer("g").members[0].epoch, broker.all_of("u"))


async def test_a_pattern_follows_topics(metadata, broker) -> None:
    joined = await broker.members.heartbeat(heartbeat(topics=None, regex="[tu].*"))
    assert joined.assignment == broker.all_of("t")
    await metadata.topics.create("u1", 2, {})
    await metadata.topics.create("v1", 2, {})
    await broker.told(joined.epoch, broker.all_of("t", "u1"))


async def test_a_stored_pattern_that_is_none_any_more_keeps_its_topics(metadata, broker) -> None:
    entry = broker.groups.of_members("g", 0, joins=True)
    joined = await broker.groups.consumer_heartbeat(entry, heartbeat(topics=("u",), regex="(a"), frozenset(["t"]))
    assert joined.assignment == broker.all_of("t")
    await metadata.topics.create("u", 2, {})
    await broker.told(joined.epoch, broker.all_of("t", "u"))


async def test_what_is_refused(broker) -> None:
    ask = broker.members.heartbeat
    assert (await ask(heartbeat(regex="(a"))).error is E.INVALID_REGULAR_EXPRESSION
    unsupported = await ask(heartbeat(assignor="sticky"))
    assert (unsupported.error, unsupported.message) == (
        E.UNSUPPORTED_ASSIGNOR,
        "there is no assignor sticky: use one of uniform, range",
    )
    assert (await ask(heartbeat(epoch=3))).error is E.GROUP_ID_NOT_FOUND
    assert (await ask(heartbeat(epoch=-1))).error is E.GROUP_ID_NOT_FOUND
    assert len(broker.groups) == 0, "who is refused leaves nothing"


async def test_groups_of_all_kinds_have_one_limit(metadata) -> None:
    settings = GroupSettings(groups_max=1, metadata_bytes_max=1_000)
    broker = await Broker(metadata, settings=settings).start()
    assert (await broker.members.heartbeat(heartbeat())).error is E.NONE
    assert (await broker.members.heartbeat(heartbeat(group_id="h"))).error is E.COORDINATOR_NOT_AVAILABLE
    for large in (heartbeat("n", topics=("x" * 2_000,)), heartbeat("n" * 2_000)):
        assert (await broker.members.heartbeat(large)).error is E.COORDINATOR_NOT_AVAILABLE
    await broker.stop()


async def test_an_empty_group_becomes_one_of_the_other_kind(metadata, broker, join_request) -> None:
    groups = broker.groups

    async def classic() -> None:
        joined = await groups.join(join_request(require_known_member_id=False))
        assert joined.error is E.NONE
        assert (await broker.members.heartbeat(heartbeat())).error is E.GROUP_ID_NOT_FOUND
        assert groups.describe_consumer("g") is E.GROUP_ID_NOT_FOUND
        await groups.leave("g", [LeavingMember(joined.member_id, None)])

    await classic()
    joined = await broker.members.heartbeat(heartbeat())
    assert joined.error is E.NONE
    assert (await groups.join(join_request())).error is E.INCONSISTENT_GROUP_PROTOCOL
    assert groups.heartbeat("g", "m", None, 1) is E.UNKNOWN_MEMBER_ID
    assert (await groups.sync(SyncRequest("g", "m", None, 1, None, None, {}))).error is E.UNKNOWN_MEMBER_ID
    assert await groups.leave("g", [LeavingMember("m", None)]) == (E.NONE, [E.UNKNOWN_MEMBER_ID])
    assert groups.describe("g") is E.GROUP_ID_NOT_FOUND
    assert [each.group_type for each in groups.list(types=["Consumer"])] == ["consumer"]
    assert groups.list(types=["classic"]) == []
    assert await groups.delete(["g"]) == {"g": E.NON_EMPTY_GROUP}
    await broker.members.heartbeat(heartbeat(epoch=-1))
    await classic()
    await until(lambda: groups.describe("g").state == "Empty")
    assert await groups.delete(["g"]) == {"g": E.NONE}
    assert await metadata.stored_groups() == []


async def test_commits_and_fetches_need_the_members_epoch(broker) -> None:
    groups = broker.groups
    joined = await broker.members.heartbeat(heartbeat())

    def commits(member_id: str, epoch: int) -> GroupError:
        return groups.check_commit("g", member_id, None, epoch, creates=True)[0]

    assert commits("m", joined.epoch) is groups.check_fetch("g", "m", joined.epoch) is E.NONE
    assert commits("m", joined.epoch - 1) is groups.check_fetch("g", "m", 0) is E.STALE_MEMBER_EPOCH
    assert commits("", -1) is groups.check_fetch("g", "n", joined.epoch) is E.UNKNOWN_MEMBER_ID
    assert groups.check_fetch("nowhere", "m", 1) is E.NONE
    await broker.members.heartbeat(heartbeat(epoch=-1))
    assert commits("", -1) is E.NONE, "nobody is there"
