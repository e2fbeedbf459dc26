"""ElectLeaders: nothing to elect."""

import pytest
from support.wire import Client, Topic, ends

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.elect_leaders import ElectLeadersRequest, TopicPartitions


@pytest.mark.parametrize("version", ends(ApiKey.ELECT_LEADERS))
def test_no_election_is_needed(client: Client, topic: Topic, version: int) -> None:
    asked = (TopicPartitions(topic.name, (0, 1, -1)), TopicPartitions("nowhere", (0,)))
    answer = client.ask(ApiKey.ELECT_LEADERS, version, ElectLeadersRequest(topic_partitions=asked))
    assert answer.error_code == 0
    codes = {r.topic: [p.error_code for p in r.partition_result] for r in answer.replica_election_results}
    assert codes == {
        topic.name: [ErrorCode.ELECTION_NOT_NEEDED] + 2 * [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
        "nowhere": [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION],
    }


@pytest.mark.parametrize("kind", [0, 1])
def test_of_all_partitions_none(client: Client, topic: Topic, kind: int) -> None:
    answer = client.newest(ApiKey.ELECT_LEADERS, ElectLeadersRequest(election_type=kind, topic_partitions=None))
    found = {r.topic: r.partition_result for r in answer.replica_election_results}
    assert (answer.error_code, found[topic.name]) == (0, ())


def test_an_unknown_kind_of_election(client: Client, topic: Topic) -> None:
    asked = ElectLeadersRequest(election_type=2, topic_partitions=(TopicPartitions(topic.name, (0,)),))
    answer = client.newest(ApiKey.ELECT_LEADERS, asked)
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert [p.error_code for p in answer.replica_election_results[0].partition_result] == [ErrorCode.INVALID_REQUEST]
