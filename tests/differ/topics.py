"""Metadata, CreateTopics, DeleteTopics, CreatePartitions, DescribeTopicPartitions."""

from uuid import UUID

from differ.scenario import scenario
from differ.side import Side

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages import create_partitions as growth
from streamlake.protocol.messages import create_topics as creation
from streamlake.protocol.messages import delete_topics as deletion
from streamlake.protocol.messages import describe_topic_partitions as dtp
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic

UNKNOWN_ID = UUID(int=0x1234)
ODD_NAMES = {
    "a space": "a b",
    "a dot": ".",
    "two dots": "..",
    "nothing": "",
    "250 characters": "x" * 250,
    "a slash": "a/b",
}
INTERNAL = ("__consumer_offsets", "__transaction_state", "__share_group_state", "__cluster_metadata")


# -- Metadata ----------------------------------------------------------------------------------------------------------


def about(*topics: MetadataRequestTopic, create: bool = False, operations: bool = False) -> MetadataRequest:
    return MetadataRequest(
        topics=topics, allow_auto_topic_creation=create, include_topic_authorized_operations=operations
    )


def named(name: str) -> MetadataRequestTopic:
    return MetadataRequestTopic(name=name)


@scenario
def metadata_by_name(side: Side) -> None:
    side.topic("described", 2)
    side.every("a topic", ApiKey.METADATA, about(named("described")))
    side.every("a topic with operations", ApiKey.METADATA, about(named("described"), operations=True), range(8, 14))
    missing = about(named("missing"), operations=True)
    side.every("a missing topic", ApiKey.METADATA, missing, range(4, 14))
    side.newest("a topic twice", ApiKey.METADATA, about(named("described"), named("described")))
    for what, name in ODD_NAMES.items():
        side.every(f"{what} as a name", ApiKey.METADATA, about(named(name)), (4, 13))
        side.every(f"{what} as a name to create", ApiKey.METADATA, about(named(name), create=True), (0, 4, 13))


@scenario
def metadata_that_creates(side: Side) -> None:
    side.ask("a topic to create", ApiKey.METADATA, 13, about(named("made-by-metadata"), create=True))
    side.settled("made-by-metadata", 1)
    side.ask("a topic that was created", ApiKey.METADATA, 13, about(named("made-by-metadata")))


@scenario
def metadata_by_id(side: Side) -> None:
    topic = side.topic("described-by-id")
    by_id = about(MetadataRequestTopic(topic_id=topic.id, name=None))
    side.every("a topic by id", ApiKey.METADATA, by_id, (10, 11, 12, 13))
    unknown = about(MetadataRequestTopic(topic_id=UNKNOWN_ID, name=None))
    side.every("an unknown id", ApiKey.METADATA, unknown, (10, 11, 12, 13))
    for note, wanted in {
        "neither name nor id": MetadataRequestTopic(name=None),
        "name and id": MetadataRequestTopic(name=topic.name, topic_id=topic.id),
        "another name and id": MetadataRequestTopic(name="other", topic_id=topic.id),
        "name and unknown id": MetadataRequestTopic(name=topic.name, topic_id=UNKNOWN_ID),
    }.items():
        side.every(note, ApiKey.METADATA, about(wanted), (10, 11, 12, 13))


@scenario
def metadata_of_internal_topics(side: Side) -> None:
    for name in INTERNAL[:2]:
        side.newest(f"of {name}", ApiKey.METADATA, about(named(name)))


# -- CreateTopics ------------------------------------------------------------------------------------------------------


def new(name: str, partitions: int = 1, replicas: int = 1, **configs: str | None) -> creation.CreatableTopic:
    given = tuple(creation.CreatableTopicConfig(k.replace("_", "."), v) for k, v in configs.items())
    return creation.CreatableTopic(name=name, num_partitions=partitions, replication_factor=replicas, configs=given)


def assigned(
    name: str, assignments: list[tuple[int, tuple[int, ...]]], partitions: int = -1, replicas: int = -1
) -> creation.CreatableTopic:
    rows = tuple(creation.CreatableReplicaAssignment(index, brokers) for index, brokers in assignments)
    return creation.CreatableTopic(name=name, num_partitions=partitions, replication_factor=replicas, assignments=rows)


def create(*topics: creation.CreatableTopic, only_check: bool = False) -> creation.CreateTopicsRequest:
    return creation.CreateTopicsRequest(topics=topics, validate_only=only_check)


@scenario
def create_topics(side: Side) -> None:
    for version in range(2, 8):
        side.ask("a topic", ApiKey.CREATE_TOPICS, version, create(new(f"created-by-v{version}", 2)))
        side.ask("a topic to check", ApiKey.CREATE_TOPICS, version, create(new("checked"), only_check=True))
        defaults = create(new(f"defaults-by-v{version}", -1, -1))
        side.ask("the broker's defaults", ApiKey.CREATE_TOPICS, version, defaults)
        side.ask("a topic that exists", ApiKey.CREATE_TOPICS, version, create(new(f"created-by-v{version}")))
    side.newest("with configs", ApiKey.CREATE_TOPICS, create(new("configured", retention_ms="3600000")))
    side.newest("none", ApiKey.CREATE_TOPICS, create())
    side.newest("one good, one bad", ApiKey.CREATE_TOPICS, create(new("good"), new("bad one")))
    side.newest("a name twice", ApiKey.CREATE_TOPICS, create(new("twice"), new("twice", 2), new("once")))
    side.newest("a name thrice, to check", ApiKey.CREATE_TOPICS, create(*[new("thrice")] * 3, only_check=True))


@scenario
def create_topics_that_cannot_be(side: Side) -> None:
    def refused(note: str, topic: creation.CreatableTopic, versions: tuple[int, ...] = (2, 7)) -> None:
        side.every(note, ApiKey.CREATE_TOPICS, create(topic), versions)
        side.newest(f"{note}, to check", ApiKey.CREATE_TOPICS, create(topic, only_check=True))

    for what, name in ODD_NAMES.items():
        refused(f"{what} as a name", new(name))
    for count in (0, -2, 10_001, 2_000_000):
        refused(f"{count} partitions", new("refused", count))
    for count in (0, -2):
        refused(f"{count} replicas", new("refused", 1, count))
    refused("unknown config", new("refused", no_such_key="1"))
    refused("bad config value", new("refused", retention_ms="soon"))
    refused("null config value", new("refused", retention_ms=None))
    side.topic("colliding.name")
    refused("a name that collides", new("colliding_name"))
    side.newest("two names that collide", ApiKey.CREATE_TOPICS, create(new("pair.a"), new("pair_a")))
    refused("exists, and bad in other ways", new("colliding.name", 0, 0, no_such_key="1"))


@scenario
def create_topics_with_more_replicas_than_brokers(side: Side) -> None:
    side.newest("three replicas", ApiKey.CREATE_TOPICS, create(new("three-replicas", 1, 3), only_check=True))


@scenario
def create_topics_by_assignment(side: Side) -> None:
    def asks(note: str, topic: creation.CreatableTopic) -> None:
        side.every(f"assignment: {note}", ApiKey.CREATE_TOPICS, create(topic, only_check=True), (2, 7))

    one = (0, (0,))
    asks("right", assigned("assigned", [one, (1, (0,))]))
    asks("right, in another order", assigned("assigned", [(1, (0,)), one]))
    asks("with a number of partitions", assigned("assigned", [one], partitions=1))
    asks("with a number of replicas", assigned("assigned", [one], replicas=1))
    asks("with both numbers", assigned("assigned", [one], 1, 1))
    asks("with zeros", assigned("assigned", [one], 0, 0))
    asks("unknown broker", assigned("assigned", [(0, (99,))]))
    asks("broker below zero", assigned("assigned", [(0, (-1,))]))
    asks("unknown broker beside a known one", assigned("assigned", [(0, (0, 99))]))
    asks("a broker twice", assigned("assigned", [(0, (0, 0))]))
    asks("no brokers", assigned("assigned", [(0, ())]))
    asks("no brokers for one", assigned("assigned", [one, (1, ())]))
    asks("a hole", assigned("assigned", [one, (2, (0,))]))
    asks("not from zero", assigned("assigned", [(1, (0,))]))
    asks("below zero", assigned("assigned", [(-1, (0,)), one]))
    asks("a partition twice", assigned("assigned", [one, one]))
    asks("a partition twice differently", assigned("assigned", [one, (0, (99,))]))
    asks("unlike counts", assigned("assigned", [one, (1, (0, 1))]))
    made = create(assigned("assigned", [one, (1, (0,))]))
    side.newest("assignment: made", ApiKey.CREATE_TOPICS, made)


@scenario
def create_internal_topics(side: Side) -> None:
    for name in INTERNAL:
        side.newest(f"{name}, to check", ApiKey.CREATE_TOPICS, create(new(name), only_check=True))


# -- DeleteTopics ------------------------------------------------------------------------------------------------------


def delete(*states: deletion.DeleteTopicState) -> deletion.DeleteTopicsRequest:
    return deletion.DeleteTopicsRequest(topics=states, timeout_ms=30_000)


@scenario
def delete_topics(side: Side) -> None:
    by_name, by_id = deletion.DeleteTopicState, deletion.DeleteTopicState
    for version in range(1, 7):
        name = f"deleted-by-v{version}"
        side.topic(name)
        named = deletion.DeleteTopicsRequest(topic_names=(name,), topics=(by_name(name=name),), timeout_ms=30_000)
        side.ask("a topic", ApiKey.DELETE_TOPICS, version, named)
        side.gone(name)
        side.ask("a topic that is gone", ApiKey.DELETE_TOPICS, version, named)
    topic = side.topic("deleted-by-id")
    side.newest("by id", ApiKey.DELETE_TOPICS, delete(by_id(topic_id=topic.id)))
    side.newest("by unknown id", ApiKey.DELETE_TOPICS, delete(by_id(topic_id=UNKNOWN_ID)))
    side.newest("by neither", ApiKey.DELETE_TOPICS, delete(by_id()))
    side.newest("none", ApiKey.DELETE_TOPICS, delete())
    for what, name in ODD_NAMES.items():
        side.newest(f"{what} as a name", ApiKey.DELETE_TOPICS, delete(by_name(name=name)))


@scenario
def delete_topics_twice(side: Side) -> None:
    state = deletion.DeleteTopicState
    topic = side.topic("deleted-twice")
    by_name, by_id = state(name=topic.name), state(topic_id=topic.id)
    side.newest("by name and id", ApiKey.DELETE_TOPICS, delete(state(name=topic.name, topic_id=topic.id)))
    twice = deletion.DeleteTopicsRequest(topic_names=(topic.name,) * 2, timeout_ms=30_000)
    side.every("a name twice", ApiKey.DELETE_TOPICS, twice, (1, 5))
    side.newest("a name twice", ApiKey.DELETE_TOPICS, delete(by_name, by_name))
    side.newest("an id twice", ApiKey.DELETE_TOPICS, delete(by_id, by_id))
    side.newest("an unknown name twice", ApiKey.DELETE_TOPICS, delete(*[state(name="never-there")] * 2))
    side.newest("an unknown id twice", ApiKey.DELETE_TOPICS, delete(*[state(topic_id=UNKNOWN_ID)] * 2))
    side.newest("still there", ApiKey.METADATA, about(named(topic.name)))
    side.newest("by its name, and by its id", ApiKey.DELETE_TOPICS, delete(by_name, by_id))


# -- CreatePartitions --------------------------------------------------------------------------------------------------


def grow(
    name: str, count: int, assignments: list[tuple[int, ...]] | None = None, only_check: bool = False
) -> growth.CreatePartitionsRequest:
    return growth.CreatePartitionsRequest(
        topics=(growing(name, count, assignments),), timeout_ms=30_000, validate_only=only_check
    )


def growing(name: str, count: int, assignments: list[tuple[int, ...]] | None = None) -> growth.CreatePartitionsTopic:
    rows = None if assignments is None else tuple(growth.CreatePartitionsAssignment(b) for b in assignments)
    return growth.CreatePartitionsTopic(name=name, count=count, assignments=rows)


@scenario
def create_partitions(side: Side) -> None:
    for version in range(4):
        name = f"grown-by-v{version}"
        side.topic(name)
        side.ask("one more", ApiKey.CREATE_PARTITIONS, version, grow(name, 2))
        side.settled(name, 2)
    side.newest("to check", ApiKey.CREATE_PARTITIONS, grow("grown-by-v0", 3, only_check=True))
    side.newest("as many as there are", ApiKey.CREATE_PARTITIONS, grow("grown-by-v0", 2))
    side.newest("fewer", ApiKey.CREATE_PARTITIONS, grow("grown-by-v0", 1))
    for count in (0, -1, 10_001, 2_000_000):
        side.newest(f"{count}", ApiKey.CREATE_PARTITIONS, grow("grown-by-v0", count, only_check=True))
    side.newest("unknown topic", ApiKey.CREATE_PARTITIONS, grow("never-there", 2))
    side.newest("empty name", ApiKey.CREATE_PARTITIONS, grow("", 2))
    both = (growing("grown-by-v0", 3), growing("grown-by-v0", 4), growing("grown-by-v1", 3))
    side.newest(
        "a topic twice", ApiKey.CREATE_PARTITIONS, growth.CreatePartitionsRequest(topics=both, timeout_ms=30_000)
    )
    side.newest("none", ApiKey.CREATE_PARTITIONS, growth.CreatePartitionsRequest(timeout_ms=30_000))


@scenario
def create_partitions_by_assignment(side: Side) -> None:
    side.topic("grown-by-assignment")

    def asks(note: str, count: int, assignments: list[tuple[int, ...]]) -> None:
        request = grow("grown-by-assignment", count, assignments, only_check=True)
        side.every(f"assignment: {note}", ApiKey.CREATE_PARTITIONS, request, (0, 3))

    asks("right", 2, [(0,)])
    asks("empty", 2, [])
    asks("too many", 2, [(0,), (0,)])
    asks("too few", 3, [(0,)])
    asks("unknown broker", 2, [(99,)])
    asks("broker below zero", 2, [(-1,)])
    asks("a broker twice", 2, [(0, 0)])
    asks("no brokers", 2, [()])
    asks("no brokers for one", 3, [(0,), ()])
    asks("more replicas", 2, [(0, 1)])
    asks("unlike counts", 3, [(0,), (0, 1)])
    asks("right, but no more partitions", 1, [(0,)])


# -- DescribeTopicPartitions -------------------------------------------------------------------------------------------


def pages(*names: str, limit: int = 2000, after: tuple[str, int] | None = None) -> dtp.DescribeTopicPartitionsRequest:
    return dtp.DescribeTopicPartitionsRequest(
        topics=tuple(dtp.TopicRequest(name) for name in names),
        response_partition_limit=limit,
        cursor=None if after is None else dtp.Cursor(*after),
    )


@scenario
def describe_topic_partitions(side: Side) -> None:
    side.topic("paged-a", 3)
    side.topic("paged-b", 2)

    def asks(note: str, request: dtp.DescribeTopicPartitionsRequest) -> None:
        side.newest(note, ApiKey.DESCRIBE_TOPIC_PARTITIONS, request)

    both = ("paged-a", "paged-b")
    asks("a topic", pages("paged-a"))
    asks("two", pages(*both))
    asks("in another order", pages("paged-b", "paged-a"))
    asks("twice", pages("paged-a", "paged-a"))
    asks("unknown", pages("never-there"))
    asks("unknown beside known", pages("never-there", "paged-a", "zz"))
    for what, name in ODD_NAMES.items():
        asks(f"{what} as a name", pages(name))
    for limit in (0, -1, 1, 3, 4, 5):
        asks(f"limit {limit}", pages(*both, limit=limit))
    for after in (("paged-a", 0), ("paged-a", 1), ("paged-a", 3), ("paged-a", 9), ("paged-b", 1), ("paged-aa", 1)):
        asks(f"after {after}", pages(*both, after=after))
    asks("after a partition below zero", pages(*both, after=("paged-a", -1)))
    asks("after an empty name", pages(*both, after=("", 0)))
    asks("after all", pages(*both, after=("zz", 0)))
    asks("limit 2 after", pages(*both, limit=2, after=("paged-a", 2)))
    asks("unknown at the limit", pages("paged-a", "paged-aa", "paged-b", limit=3))
