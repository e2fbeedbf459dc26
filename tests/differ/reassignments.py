"""AlterPartitionReassignments, ListPartitionReassignments, ElectLeaders, as far as one broker can show them."""

from differ.scenario import scenario
from differ.side import Side

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages import alter_partition_reassignments as alter
from streamlake.protocol.messages import describe_log_dirs as logs
from streamlake.protocol.messages import list_partition_reassignments as listing
from streamlake.protocol.messages.elect_leaders import ElectLeadersRequest, TopicPartitions


def assign(*partitions: tuple[str, int, tuple[int, ...] | None]) -> alter.AlterPartitionReassignmentsRequest:
    """Topic, partition, and the brokers that shall have it."""
    topics: dict[str, list[alter.ReassignablePartition]] = {}
    for name, index, replicas in partitions:
        topics.setdefault(name, []).append(alter.ReassignablePartition(index, replicas))
    wanted = tuple(alter.ReassignableTopic(name, tuple(rows)) for name, rows in topics.items())
    return alter.AlterPartitionReassignmentsRequest(topics=wanted)


@scenario
def reassignments(side: Side) -> None:
    side.topic("assigned", 2)

    def asks(note: str, *partitions: tuple[str, int, tuple[int, ...] | None]) -> None:
        side.every(f"assignment: {note}", ApiKey.ALTER_PARTITION_REASSIGNMENTS, assign(*partitions))

    asks("where it is", ("assigned", 0, (0,)))
    asks("of none")
    asks("unknown broker", ("assigned", 0, (99,)))
    asks("broker below zero", ("assigned", 0, (-1,)))
    asks("a broker twice", ("assigned", 0, (0, 0)))
    asks("no brokers", ("assigned", 0, ()))
    asks("another and an unknown broker", ("assigned", 0, (0, 99)))
    asks("unknown topic", ("never-there", 0, (0,)))
    asks("unknown partition", ("assigned", 2, (0,)), ("assigned", 1, (0,)))
    asks("cancelled", ("assigned", 0, None), ("assigned", 7, None), ("never-there", 0, None))


@scenario
def reassignments_under_way(side: Side) -> None:
    side.topic("at-rest", 2)
    for note, topics in {
        "all": None,
        "of no topics": (),
        "of a topic": (listing.ListPartitionReassignmentsTopics("at-rest", (0, 1)),),
        "of an unknown topic": (listing.ListPartitionReassignmentsTopics("never-there", (0,)),),
    }.items():
        side.every(note, ApiKey.LIST_PARTITION_REASSIGNMENTS, listing.ListPartitionReassignmentsRequest(topics=topics))


@scenario
def log_directories(side: Side) -> None:
    side.topic("sized", 2)
    for note, topics in {
        "of a topic": (logs.DescribableLogDirTopic("sized", (0, 1, 7)),),
        "of an unknown topic": (logs.DescribableLogDirTopic("never-there", (0,)),),
        "of no topics": (),
    }.items():
        side.every(f"directories {note}", ApiKey.DESCRIBE_LOG_DIRS, logs.DescribeLogDirsRequest(topics=topics))


@scenario
def elections(side: Side) -> None:
    side.topic("elected", 2)
    known, unknown = TopicPartitions("elected", (0, 1, 7)), TopicPartitions("never-there", (0,))
    for kind in (0, 1):
        request = ElectLeadersRequest(election_type=kind, topic_partitions=(known, unknown))
        side.every(f"election of type {kind}", ApiKey.ELECT_LEADERS, request)
        everywhere = ElectLeadersRequest(election_type=kind, topic_partitions=None)
        side.every(f"election of type {kind} everywhere", ApiKey.ELECT_LEADERS, everywhere)
    side.newest("election of nothing", ApiKey.ELECT_LEADERS, ElectLeadersRequest(topic_partitions=()))
    strange = ElectLeadersRequest(election_type=2, topic_partitions=(known,))
    side.newest("election of an unknown type", ApiKey.ELECT_LEADERS, strange)
