"""Metadata: which topics an empty list means, creation on demand, and topics by id."""

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from support.server import Server
from support.two_brokers import NO_HANDOVERS, OTHER, OWN, two_brokers
from support.wire import Client, Topic, ends, newest

from streamlake.cluster.secret import Life
from streamlake.cluster.store.topic_rows import PartitionInfo, TopicInfo
from streamlake.handlers import operations
from streamlake.handlers.metadata import describe
from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, create_topics
from streamlake.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponseTopic

NEWEST = newest(ApiKey.METADATA)
BROKER, SET, DELETE = 4, 0, 1


def named(*names: str, create: bool = False) -> MetadataRequest:
    return MetadataRequest(tuple(MetadataRequestTopic(name=n) for n in names), allow_auto_topic_creation=create)


def only(client: Client, version: int, request: MetadataRequest) -> MetadataResponseTopic:
    (topic,) = client.ask(ApiKey.METADATA, version, request).topics
    return topic


@pytest.mark.parametrize("version", ends(ApiKey.METADATA))
def test_brokers_and_partitions(client: Client, server: Server, version: int) -> None:
    topic = client.create_topic(partitions=2)
    answer = client.ask(ApiKey.METADATA, version, named(topic.name))
    assert [(b.node_id, b.host, b.port) for b in answer.brokers] == [(0, "127.0.0.1", server.port)]
    (described,) = answer.topics
    assert (described.error_code, described.name) == (0, topic.name)
    assert [(p.error_code, p.partition_index, p.leader_id) for p in described.partitions] == [(0, 0, 0), (0, 1, 0)]
    assert [(p.replica_nodes, p.isr_nodes) for p in described.partitions] == [((0,), (0,))] * 2
    if version == NEWEST:
        assert (described.topic_id, answer.controller_id) == (topic.id, 0)
        assert len(answer.cluster_id) == 22
        assert [p.leader_epoch for p in described.partitions] == [0, 0]


def test_what_a_broker_led_that_answers_nobody_has_no_leader() -> None:
    """librdkafka is to learn that the broker is gone before it learns who follows it."""
    partitions = (PartitionInfo(0, 1, OTHER.node, 7, OTHER.node, OTHER.epoch), PartitionInfo(1, 2, OTHER.node, 3))
    brokers = two_brokers()
    brokers.refuses(Life(OTHER.node, OTHER.epoch))
    ctx: Any = SimpleNamespace(brokers=brokers, logs=SimpleNamespace(get=lambda *_: None), handovers=NO_HANDOVERS)
    described = describe(ctx, TopicInfo("t", UUID(int=1), {}, partitions)).partitions
    assert [(p.error_code, p.leader_id) for p in described] == [(ErrorCode.LEADER_NOT_AVAILABLE, -1)] * 2


def test_who_leads_partitions_of_other_brokers() -> None:
    """One that is open there, one that is to be opened there, and one that is to be opened here."""
    partitions = (
        PartitionInfo(0, 1, OTHER.node, 7, OTHER.node, OTHER.epoch),
        PartitionInfo(1, 2, OTHER.node, 3),
        PartitionInfo(2, 3, OWN.node, 3),
    )
    logs = SimpleNamespace(get=lambda *_: None)
    ctx: Any = SimpleNamespace(brokers=two_brokers(), logs=logs, handovers=NO_HANDOVERS)
    described = describe(ctx, TopicInfo("t", UUID(int=1), {}, partitions)).partitions
    assert [(p.error_code, p.leader_id, p.leader_epoch, p.replica_nodes) for p in described] == [
        (0, OTHER.node, 7, (OTHER.node,)),
        (0, OTHER.node, 3, (OTHER.node,)),
        (ErrorCode.LEADER_NOT_AVAILABLE, -1, -1, (OWN.node,)),
    ]


def test_an_empty_list_means_all_in_version_0_and_none_later(client: Client, topic: Topic) -> None:
    everything = {t.name for t in client.ask(ApiKey.METADATA, 0, MetadataRequest(topics=())).topics}
    assert topic.name in everything
    for version in (1, NEWEST):
        assert client.ask(ApiKey.METADATA, version, MetadataRequest(topics=())).topics == ()
        assert {t.name for t in client.ask(ApiKey.METADATA, version, MetadataRequest(topics=None)).topics} >= everything


def test_a_topic_is_created_if_the_request_allows_it(client: Client) -> None:
    refused = only(client, NEWEST, named("on-demand"))
    assert (refused.error_code, refused.name) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "on-demand")
    created = only(client, NEWEST, named("on-demand", create=True))
    assert (created.error_code, [p.error_code for p in created.partitions]) == (0, [0])
    assert only(client, NEWEST, named("on-demand")).topic_id == created.topic_id


def test_before_version_4_every_request_allows_it(client: Client) -> None:
    assert only(client, 3, named("on-demand-of-old")).error_code == 0


def test_names_that_no_topic_may_have(client: Client) -> None:
    for name in ("a b", "..", "x" * 250):
        for create in (True, False):
            assert only(client, NEWEST, named(name, create=create)).error_code == ErrorCode.INVALID_TOPIC_EXCEPTION


def test_a_broker_that_does_not_allow_it(strict_client: Client) -> None:
    assert only(strict_client, NEWEST, named("never", create=True)).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize("version", [12, NEWEST])
def test_by_id(client: Client, topic: Topic, version: int) -> None:
    request = MetadataRequest((MetadataRequestTopic(topic_id=topic.id, name=None),))
    assert only(client, version, request).name == topic.name
    unknown = only(client, version, MetadataRequest((MetadataRequestTopic(topic_id=UUID(int=9), name=None),)))
    assert (unknown.error_code, unknown.topic_id) == (ErrorCode.UNKNOWN_TOPIC_ID, UUID(int=9))


@pytest.mark.parametrize("version", [10, 11])
def test_requests_by_id_are_from_version_12(client: Client, topic: Topic, version: int) -> None:
    for wanted in (MetadataRequestTopic(topic_id=topic.id, name=None), MetadataRequestTopic(name=None)):
        answer = client.ask(ApiKey.METADATA, version, MetadataRequest((wanted, MetadataRequestTopic(name=topic.name))))
        assert [(t.name, t.error_code) for t in answer.topics] == [
            ("", ErrorCode.INVALID_REQUEST),
            (topic.name, ErrorCode.INVALID_REQUEST),
        ]
        assert answer.brokers == ()


@pytest.mark.parametrize("version", [12, NEWEST])
def test_neither_a_name_nor_an_id(client: Client, topic: Topic, version: int) -> None:
    request = MetadataRequest((MetadataRequestTopic(name=topic.name), MetadataRequestTopic(name=None)))
    answer = client.ask(ApiKey.METADATA, version, request)
    assert [t.error_code for t in answer.topics] == [ErrorCode.UNKNOWN_SERVER_ERROR] * 2
    assert answer.error_code == (ErrorCode.UNKNOWN_SERVER_ERROR if version >= 13 else 0)


def test_an_id_counts_more_than_a_name(client: Client, topic: Topic) -> None:
    other = client.create_topic()
    assert only(client, NEWEST, MetadataRequest((MetadataRequestTopic(other.id, topic.name),))).name == other.name
    unknown = only(client, NEWEST, MetadataRequest((MetadataRequestTopic(UUID(int=9), topic.name),)))
    assert (unknown.error_code, unknown.name) == (ErrorCode.UNKNOWN_TOPIC_ID, None)


def test_a_topic_twice_is_described_once(client: Client, topic: Topic) -> None:
    assert [t.name for t in client.newest(ApiKey.METADATA, named(topic.name, topic.name)).topics] == [topic.name]


def test_operations_are_told_if_asked_for(client: Client, topic: Topic) -> None:
    for version in range(8, NEWEST + 1):
        names = (MetadataRequestTopic(name=topic.name), MetadataRequestTopic(name="missing"))
        for asked in (True, False):
            request = MetadataRequest(names, False, asked and version <= 10, asked)
            answer = client.ask(ApiKey.METADATA, version, request)
            told = {t.topic_authorized_operations for t in answer.topics}
            assert told == {operations.TOPIC if asked else operations.NOT_ASKED}
            cluster = operations.CLUSTER if asked and version <= 10 else operations.NOT_ASKED
            assert answer.cluster_authorized_operations == cluster


@pytest.mark.parametrize("name", ["__consumer_offsets", "__transaction_state"])
def test_kafkas_own_topics_are_not_there_and_not_created(client: Client, name: str) -> None:
    assert only(client, NEWEST, named(name, create=True)).error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert name not in {t.name for t in client.newest(ApiKey.METADATA, MetadataRequest(topics=None)).topics}


def test_a_topic_on_demand_gets_the_brokers_number_of_partitions(client: Client) -> None:
    created = only(client, NEWEST, named("on-demand-default", create=True))
    topic = create_topics.CreatableTopic(name="asked-for-default", num_partitions=-1, replication_factor=-1)
    (result,) = client.newest(ApiKey.CREATE_TOPICS, create_topics.CreateTopicsRequest(topics=(topic,))).topics
    assert len(created.partitions) == result.num_partitions == 1
