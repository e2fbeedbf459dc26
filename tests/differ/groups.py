"""Consumer groups: JoinGroup to LeaveGroup, OffsetCommit, OffsetFetch, DescribeGroups, ListGroups, DeleteGroups."""

from typing import Any

from differ.scenario import scenario
from differ.side import Side
from support import wire
from support.subscriptions import subscription
from support.wire import SERVED, Member, sync_request

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages import leave_group as lg
from streamlake.protocol.messages import offset_commit as oc
from streamlake.protocol.messages import offset_delete as od
from streamlake.protocol.messages import offset_fetch as of
from streamlake.protocol.messages.delete_groups import DeleteGroupsRequest
from streamlake.protocol.messages.describe_groups import DescribeGroupsRequest
from streamlake.protocol.messages.heartbeat import HeartbeatRequest
from streamlake.protocol.messages.join_group import JoinGroupRequest, JoinGroupRequestProtocol
from streamlake.protocol.messages.list_groups import ListGroupsRequest

NOTHING = b"\x00\x00" + b"\x00" * 4 + b"\xff" * 4  # a consumer's subscription, or assignment, of no topics in version 0


def join_request(group: str, member_id: str, instance: str | None = None, **fields: Any) -> JoinGroupRequest:
    """Kafka itself reads what consumers subscribe to, and answers nothing at all if it cannot."""
    protocols = (JoinGroupRequestProtocol(name="range", metadata=NOTHING),)
    return wire.join_request(group, member_id, instance, **({"protocols": protocols} | fields))


# -- members -----------------------------------------------------------------------------------------------------------


def joined(side: Side, group: str, instance: str | None = None, **fields: Any) -> Member:
    """The only member of a stable group."""
    answer = side.quietly(ApiKey.JOIN_GROUP, join_request(group, "", instance, **fields))
    if answer.error_code == 79:
        answer = side.quietly(ApiKey.JOIN_GROUP, join_request(group, answer.member_id, instance, **fields))
    assert answer.error_code == 0, answer
    member = Member(group, answer.member_id, answer.generation_id)
    kind = fields.get("protocol_type", "consumer")
    request = sync_request(member, {member.id: NOTHING}, instance, protocol_type=kind)
    answer = side.quietly(ApiKey.SYNC_GROUP, request)
    assert answer.error_code == 0, answer
    return member


@scenario
def join_group(side: Side) -> None:
    for version in SERVED[ApiKey.JOIN_GROUP]:
        request = join_request(f"joined-by-v{version}", "")
        answer = side.ask("a new member", ApiKey.JOIN_GROUP, version, request)
        if answer.error_code == 79:
            request = join_request(f"joined-by-v{version}", answer.member_id)
            answer = side.ask("with its id", ApiKey.JOIN_GROUP, version, request)
        member = Member(f"joined-by-v{version}", answer.member_id, answer.generation_id)
        at = min(version, 5)
        side.every(f"sync after join v{version}", ApiKey.SYNC_GROUP, sync_request(member, {member.id: NOTHING}), (at,))
        again = join_request(member.group, member.id)
        side.ask("again with the same", ApiKey.JOIN_GROUP, version, again)


@scenario
def join_group_that_cannot_be(side: Side) -> None:
    def asks(note: str, group: str, member_id: str = "", instance: str | None = None, **fields: Any) -> None:
        request = join_request(group, member_id, instance, **fields)
        side.every(note, ApiKey.JOIN_GROUP, request, SERVED[ApiKey.JOIN_GROUP] if instance is None else range(5, 10))

    asks("empty group id", "")
    asks("session timeout too short", "refused", session_timeout_ms=1)
    asks("session timeout too long", "refused", session_timeout_ms=10_000_000)
    asks("no protocols", "refused", protocols=())
    asks("no protocol type", "refused", protocol_type="")
    asks("unknown member", "refused", "nobody")
    asks("unknown static member", "refused", "nobody", "instance")
    joined(side, "other-type")
    asks("another protocol type", "other-type", protocol_type="connect")
    protocols = (JoinGroupRequestProtocol(name="strange", metadata=NOTHING),)
    asks("no common protocol", "other-type", protocols=protocols)
    asks("unknown member of a known group", "other-type", "nobody")
    joined(side, "static", "one")
    asks("another member id of a static member", "static", "nobody", "one")


@scenario
def sync_group(side: Side) -> None:
    member = joined(side, "synced")

    def asks(note: str, who: Member, instance: str | None = None, first: int = 0, **fields: Any) -> None:
        side.every(note, ApiKey.SYNC_GROUP, sync_request(who, {}, instance, **fields), range(first, 6))

    asks("stable", member)
    asks("another protocol", member, first=5, protocol_name="other")
    asks("another protocol type", member, first=5, protocol_type="other")
    asks("without protocol", member, first=5, protocol_type=None, protocol_name=None)
    asks("another generation", Member("synced", member.id, 99))
    asks("unknown member", Member("synced", "nobody", 1))
    asks("unknown group", Member("never-there", "nobody", 1))
    asks("empty group id", Member("", "nobody", 1))
    asks("unknown instance", member, "nobody", 3)


@scenario
def heartbeat(side: Side) -> None:
    member, static = joined(side, "beating"), joined(side, "beating-static", "one")

    def asks(note: str, group: str, member_id: str, generation: int, instance: str | None = None) -> None:
        request = HeartbeatRequest(
            group_id=group, generation_id=generation, member_id=member_id, group_instance_id=instance
        )
        side.every(note, ApiKey.HEARTBEAT, request, range(0 if instance is None else 3, 5))

    asks("alive", "beating", member.id, 1)
    asks("another generation", "beating", member.id, 7)
    asks("unknown member", "beating", "nobody", 1)
    asks("unknown group", "never-there", "nobody", 1)
    asks("empty group id", "", "nobody", 1)
    asks("static", "beating-static", static.id, 1, "one")
    asks("another id of a static member", "beating-static", "nobody", 1, "one")
    asks("unknown instance", "beating", member.id, 1, "nobody")


@scenario
def leave_group(side: Side) -> None:
    def leaving(group: str, *members: tuple[str, str | None]) -> lg.LeaveGroupRequest:
        rows = tuple(lg.MemberIdentity(member_id=m, group_instance_id=i) for m, i in members)
        return lg.LeaveGroupRequest(group_id=group, member_id=members[0][0] if members else "", members=rows)

    for version in SERVED[ApiKey.LEAVE_GROUP]:
        member = joined(side, f"left-by-v{version}")
        side.ask("a member", ApiKey.LEAVE_GROUP, version, leaving(member.group, (member.id, None)))
        side.ask("a member that is gone", ApiKey.LEAVE_GROUP, version, leaving(member.group, (member.id, None)))
    side.every("unknown group", ApiKey.LEAVE_GROUP, leaving("never-there", ("nobody", None)))
    side.every("empty group id", ApiKey.LEAVE_GROUP, leaving("", ("nobody", None)))
    side.newest("no members", ApiKey.LEAVE_GROUP, leaving("left-by-v0"))
    joined(side, "left-static", "one")
    side.newest("another id of a static member", ApiKey.LEAVE_GROUP, leaving("left-static", ("nobody", "one")))
    side.newest("a static member by its instance", ApiKey.LEAVE_GROUP, leaving("left-static", ("", "one")))
    side.newest("an unknown instance", ApiKey.LEAVE_GROUP, leaving("left-static", ("", "two")))


# -- offsets -----------------------------------------------------------------------------------------------------------


def committing(
    group: str, topic: str, offset: int = 1, member: str = "", generation: int = -1, partition: int = 0, **fields: Any
) -> oc.OffsetCommitRequest:
    row = oc.OffsetCommitRequestPartition(
        partition_index=partition, committed_offset=offset, committed_metadata=fields.pop("metadata", "note")
    )
    return oc.OffsetCommitRequest(
        group_id=group,
        member_id=member,
        generation_id_or_member_epoch=generation,
        topics=(oc.OffsetCommitRequestTopic(name=topic, partitions=(row,)),),
        **fields,
    )


@scenario
def offset_commit(side: Side) -> None:
    side.topic("committed")
    member = joined(side, "committer")

    def asks(note: str, group: str, topic: str = "committed", **fields: Any) -> None:
        first = 7 if "group_instance_id" in fields else 2
        side.every(note, ApiKey.OFFSET_COMMIT, committing(group, topic, **fields), range(first, 10))

    asks("without a group's members", "simple")
    asks("as a member", "committer", member=member.id, generation=1)
    asks("another generation", "committer", member=member.id, generation=9)
    asks("no generation, of a stable group", "committer")
    asks("a member without generation", "committer", member=member.id)
    asks("unknown member", "committer", member="nobody", generation=1)
    asks("unknown instance", "committer", member=member.id, generation=1, group_instance_id="nobody")
    asks("member of an unknown group", "never-there", member="nobody", generation=1)
    asks("member without generation of an unknown group", "never-there-2", member="nobody")
    asks("generation without member of an unknown group", "never-there-3", generation=3)
    asks("unknown member of an empty group", "simple", member="nobody", generation=1)
    asks("no member, but a generation", "simple", generation=3)
    asks("empty group id", "")
    asks("unknown topic", "simple", "never-there")
    asks("unknown partition", "simple", partition=9)
    asks("long metadata", "simple", metadata="x" * 5000)
    asks("null metadata", "simple", metadata=None)
    asks("an offset below zero", "simple", offset=-5)
    side.newest("no topics", ApiKey.OFFSET_COMMIT, oc.OffsetCommitRequest(group_id="simple"))


def fetching(
    group: str, topic: str | None = None, partitions: tuple[int, ...] = (0,), everything: bool = False, **fields: Any
) -> of.OffsetFetchRequest:
    old: tuple[of.OffsetFetchRequestTopic, ...] | None = ()
    new: tuple[of.OffsetFetchRequestTopics, ...] | None = ()
    if topic is not None:
        old = (of.OffsetFetchRequestTopic(name=topic, partition_indexes=partitions),)
        new = (of.OffsetFetchRequestTopics(name=topic, partition_indexes=partitions),)
    if everything:
        old = new = None
    groups = (of.OffsetFetchRequestGroup(group_id=group, topics=new, **fields),)
    return of.OffsetFetchRequest(group_id=group, topics=old, groups=groups, require_stable=False)


@scenario
def offset_fetch(side: Side) -> None:
    side.topic("fetched-offsets", 2)
    side.quietly(ApiKey.OFFSET_COMMIT, committing("fetcher", "fetched-offsets", 5))

    def asks(note: str, request: of.OffsetFetchRequest, first: int = 1) -> None:
        side.every(note, ApiKey.OFFSET_FETCH, request, range(first, 10))

    asks("committed", fetching("fetcher", "fetched-offsets"))
    asks("one of two", fetching("fetcher", "fetched-offsets", (0, 1)))
    asks("a partition twice", fetching("fetcher", "fetched-offsets", (0, 0)))
    asks("all", fetching("fetcher", everything=True), 2)
    asks("no topics", fetching("fetcher"))
    asks("unknown topic", fetching("fetcher", "never-there"))
    asks("unknown partition", fetching("fetcher", "fetched-offsets", (9,)))
    asks("unknown group", fetching("never-there", "fetched-offsets"))
    asks("all of an unknown group", fetching("never-there", everything=True), 2)
    asks("empty group id", fetching("", "fetched-offsets"))
    asks("all of an empty group id", fetching("", everything=True), 2)
    asks("as an unknown member", fetching("fetcher", "fetched-offsets", member_id="nobody", member_epoch=3), 9)
    asks(
        "as a member of an unknown group",
        fetching("never-there", "fetched-offsets", member_id="nobody", member_epoch=3),
        9,
    )
    rows = tuple(of.OffsetFetchRequestGroup(group_id=g, topics=None) for g in ("fetcher", "never-there", "fetcher"))
    side.newest("several groups", ApiKey.OFFSET_FETCH, of.OffsetFetchRequest(groups=rows))
    side.newest("no groups", ApiKey.OFFSET_FETCH, of.OffsetFetchRequest())


# -- administration ----------------------------------------------------------------------------------------------------


@scenario
def describe_groups(side: Side) -> None:
    joined(side, "described")
    joined(side, "described-static", "one")
    side.topic("described-offsets")
    side.quietly(ApiKey.OFFSET_COMMIT, committing("described-empty", "described-offsets"))
    for group in ("described", "described-static", "described-empty", "never-there", ""):
        note = group or "empty group id"
        side.every(note, ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest(groups=(group,)))
        asked = DescribeGroupsRequest(groups=(group,), include_authorized_operations=True)
        side.every(f"{note} with operations", ApiKey.DESCRIBE_GROUPS, asked, range(3, 7))
    side.newest("twice", ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest(groups=("described", "described")))
    side.newest("none", ApiKey.DESCRIBE_GROUPS, DescribeGroupsRequest())
    side.quietly(ApiKey.JOIN_GROUP, join_request("described-joining", ""))
    side.newest(
        "a group whose member only has an id",
        ApiKey.DESCRIBE_GROUPS,
        DescribeGroupsRequest(groups=("described-joining",)),
    )


@scenario
def list_groups(side: Side) -> None:
    side.every("all", ApiKey.LIST_GROUPS, ListGroupsRequest())
    for states in (("Stable",), ("Empty",), ("stable",), ("NoSuchState",), ("Stable", "Empty"), ("",)):
        side.every(f"states {states}", ApiKey.LIST_GROUPS, ListGroupsRequest(states_filter=states), (4, 5))
    for types in (("classic",), ("Classic",), ("consumer",), ("share",), ("nonsense",), ("",)):
        side.newest(f"types {types}", ApiKey.LIST_GROUPS, ListGroupsRequest(types_filter=types))


@scenario
def delete_groups(side: Side) -> None:
    side.topic("deleted-offsets")
    joined(side, "in-use")
    for version in range(3):
        side.quietly(ApiKey.OFFSET_COMMIT, committing("unused", "deleted-offsets"))
        side.ask("unused", ApiKey.DELETE_GROUPS, version, DeleteGroupsRequest(groups_names=("unused",)))
        for group in ("in-use", "never-there", ""):
            request = DeleteGroupsRequest(groups_names=(group,))
            side.ask(group or "empty group id", ApiKey.DELETE_GROUPS, version, request)
    side.newest("twice", ApiKey.DELETE_GROUPS, DeleteGroupsRequest(groups_names=("never-there",) * 2))
    side.newest("none", ApiKey.DELETE_GROUPS, DeleteGroupsRequest())
    side.newest("several", ApiKey.DELETE_GROUPS, DeleteGroupsRequest(groups_names=("in-use", "never-there", "")))


@scenario
def offset_delete(side: Side) -> None:
    for topic in ("offsets-read", "offsets-left", "offsets-other"):
        side.topic(topic, 2)
        for group in ("deleter", "deleter-alone"):
            side.quietly(ApiKey.OFFSET_COMMIT, committing(group, topic))
    reads = JoinGroupRequestProtocol(name="range", metadata=subscription("offsets-read"))
    joined(side, "deleter", protocols=(reads,))
    joined(side, "deleter-connect", protocol_type="connect")

    def asks(note: str, group: str, *topics: tuple[str, tuple[int, ...]]) -> None:
        rows = tuple(
            od.OffsetDeleteRequestTopic(name, tuple(od.OffsetDeleteRequestPartition(index) for index in indexes))
            for name, indexes in topics
        )
        side.newest(note, ApiKey.OFFSET_DELETE, od.OffsetDeleteRequest(group, rows))

    left, read = ("offsets-left", (0, 1)), ("offsets-read", (0, 1))
    asks("of a topic that is read", "deleter", read)
    asks("of one that is read, and one that is not", "deleter", read, left)
    asks("again", "deleter", left)
    asks("of an empty group", "deleter-alone", read, left)
    asks("unknown partitions", "deleter-alone", ("offsets-other", (0, 7, -1)))
    asks("unknown topics", "deleter-alone", ("offsets-other", (0,)), ("never-there", (0,)), ("", (0,)))
    asks("unknown topics alone", "deleter-alone", ("never-there", (0, 1)))
    asks("a partition twice", "deleter-alone", ("offsets-other", (0, 0)))
    asks("a topic twice", "deleter-alone", ("offsets-other", (0,)), ("offsets-other", (1,)))
    asks("no topics", "deleter-alone")
    asks("no partitions", "deleter-alone", ("offsets-other", ()))
    asks("unknown group", "never-there", left)
    asks("unknown group, unknown topic", "never-there", ("never-there", (0,)))
    asks("unknown group, no topics", "never-there")
    asks("empty group id", "", left)
    asks("empty group id, no topics", "")
    asks("a group of others than consumers", "deleter-connect", left)
    for group in ("deleter", "deleter-alone"):
        side.newest(f"what {group} has left", ApiKey.OFFSET_FETCH, fetching(group, everything=True))
