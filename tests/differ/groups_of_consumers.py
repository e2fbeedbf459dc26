"""Groups of the consumer protocol (KIP-848): ConsumerGroupHeartbeat, ConsumerGroupDescribe, and offsets with epochs."""

from typing import Any

from differ.groups import committing
from differ.groups import joined as classic_joined
from differ.scenario import scenario
from differ.side import Side

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages import offset_fetch as of
from streamlake.protocol.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from streamlake.protocol.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest, TopicPartitions
from streamlake.protocol.messages.delete_groups import DeleteGroupsRequest
from streamlake.protocol.messages.describe_groups import DescribeGroupsRequest
from streamlake.protocol.messages.find_coordinator import FindCoordinatorRequest
from streamlake.protocol.messages.heartbeat import HeartbeatRequest

BEAT, DESCRIBE = ApiKey.CONSUMER_GROUP_HEARTBEAT, ApiKey.CONSUMER_GROUP_DESCRIBE


def joining(group: str, *topics: str, member: str = "m1", **fields: Any) -> ConsumerGroupHeartbeatRequest:
    values = {"rebalance_timeout_ms": 60_000, "subscribed_topic_names": topics, **fields}
    return ConsumerGroupHeartbeatRequest(group_id=group, member_id=member, **values)


def beating(group: str, epoch: int, member: str = "m1", **fields: Any) -> ConsumerGroupHeartbeatRequest:
    values = {"topic_partitions": None, **fields}
    return ConsumerGroupHeartbeatRequest(group_id=group, member_id=member, member_epoch=epoch, **values)


def coordinated(side: Side, *groups: str) -> None:
    """Each has a coordinator: Kafka's makes its internal topic when somebody asks first."""
    for group in groups:
        asked = FindCoordinatorRequest(coordinator_keys=(group,))
        side.wait(lambda: side.quietly(ApiKey.FIND_COORDINATOR, asked).coordinators[0].error_code == 0, group)  # noqa: B023
        side.wait(lambda: side.quietly(BEAT, beating(group, 1)).error_code not in (14, 15, 16), group)  # noqa: B023


def member_of(side: Side, group: str, *topics: str, member: str = "m1", **fields: Any) -> int:
    """Its epoch."""
    answer = side.quietly(BEAT, joining(group, *topics, member=member, **fields))
    assert answer.error_code == 0, answer
    epoch: int = answer.member_epoch
    return epoch


@scenario
def consumer_group_heartbeat_that_cannot_be(side: Side) -> None:
    coordinated(side, "c-refused", "never-there")

    def asks(note: str, group: str = "c-refused", **fields: Any) -> None:
        side.every(note, BEAT, joining(group, **fields))

    asks("empty group id", "")
    asks("empty instance", instance_id="")
    asks("empty rack", rack_id="")
    asks("no rebalance timeout", rebalance_timeout_ms=-1)
    asks("null partitions", topic_partitions=None)
    asks("partitions when joining", topic_partitions=(TopicPartitions(partitions=(0,)),))
    asks("no subscription", subscribed_topic_names=None)
    asks("static leave without instance", member_epoch=-2)
    asks("strange epoch", member_epoch=-3)
    asks("unknown assignor", server_assignor="sticky")
    side.newest("empty member id", BEAT, joining("c-refused", member=""))
    side.newest("bad pattern", BEAT, joining("c-refused", subscribed_topic_names=None, subscribed_topic_regex="(a"))
    side.every("unknown group", BEAT, beating("never-there", 1))
    side.every("leaving an unknown group", BEAT, beating("never-there", -1))


@scenario
def consumer_group_heartbeat(side: Side) -> None:
    topic = side.topic("consumed", 3)
    for version in (0, 1):
        group = f"c-joined-{version}"
        coordinated(side, group)
        epoch = side.ask("joins", BEAT, version, joining(group, topic.name)).member_epoch
        owned = (TopicPartitions(topic.id, (0, 1, 2)),)
        side.ask("stays", BEAT, version, beating(group, epoch))
        side.ask("says what it has", BEAT, version, beating(group, epoch, topic_partitions=owned))
        full = {"topic_partitions": owned, "subscribed_topic_names": (topic.name,), "rebalance_timeout_ms": 60_000}
        side.ask("says all", BEAT, version, beating(group, epoch, **full))
        side.ask("epoch too high", BEAT, version, beating(group, epoch + 1))
        side.ask("epoch too low", BEAT, version, beating(group, epoch - 1))
        side.ask("unknown member", BEAT, version, beating(group, epoch, "nobody"))
        side.ask("unknown instance", BEAT, version, beating(group, epoch, instance_id="one"))
        side.ask("leaves", BEAT, version, beating(group, -1))
        side.ask("has left", BEAT, version, beating(group, -1))


@scenario
def consumer_group_static_members(side: Side) -> None:
    topic = side.topic("consumed-static", 2)
    coordinated(side, "c-static")
    epoch = member_of(side, "c-static", topic.name, instance_id="one")
    side.newest("instance in use", BEAT, joining("c-static", topic.name, member="m2", instance_id="one"))
    side.newest("fenced", BEAT, beating("c-static", epoch, "m2", instance_id="one"))
    side.newest("leaving fenced", BEAT, beating("c-static", -1, "m2", instance_id="one"))
    side.newest("leaves for a while", BEAT, beating("c-static", -2, instance_id="one"))
    side.newest("returns", BEAT, joining("c-static", topic.name, member="m3", instance_id="one"))
    side.newest("the former one", BEAT, beating("c-static", epoch, instance_id="one"))
    side.newest("leaves", BEAT, beating("c-static", -1, "m3", instance_id="one"))


@scenario
def consumer_group_describe(side: Side) -> None:
    topic = side.topic("consumed-described", 2)
    coordinated(side, "c-described", "c-classic", "never-there")
    member_of(side, "c-described", topic.name, instance_id="one", rack_id="r")
    classic_joined(side, "c-classic")
    side.every("a group", DESCRIBE, ConsumerGroupDescribeRequest(("c-described",)))
    side.every("operations", DESCRIBE, ConsumerGroupDescribeRequest(("c-described",), True))
    side.every("others", DESCRIBE, ConsumerGroupDescribeRequest(("c-classic", "never-there", "")))
    side.every("as classic", ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest(("c-described",)))
    side.newest("classic heartbeat of consumer", ApiKey.HEARTBEAT, HeartbeatRequest("c-described", 1, "m1"))
    side.newest("not empty", ApiKey.DELETE_GROUPS, DeleteGroupsRequest(("c-described",)))


@scenario
def consumer_group_offsets(side: Side) -> None:
    topic = side.topic("consumed-offsets", 1)
    coordinated(side, "c-offsets")
    epoch = member_of(side, "c-offsets", topic.name)
    for version in (8, 9):
        for note, member, at in (
            ("of a member", "m1", epoch),
            ("of a stale member", "m1", epoch - 1),
            ("of no member", "nobody", epoch),
            ("by nobody", "", -1),
        ):
            request = committing("c-offsets", topic.name, member=member, generation=at)
            side.ask(f"consumer {note}", ApiKey.OFFSET_COMMIT, version, request)
    for note, member, at in (
        ("of a member", "m1", epoch),
        ("of a stale member", "m1", epoch - 1),
        ("of no member", "nobody", epoch),
        ("by nobody", None, -1),
    ):
        asked = of.OffsetFetchRequestGroup("c-offsets", member, at, topics=None)
        side.ask(f"consumer {note}", ApiKey.OFFSET_FETCH, 9, of.OffsetFetchRequest(groups=(asked,)))
