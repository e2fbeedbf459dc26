"""DescribeLogDirs: sizes of partitions."""

import pytest
from support.raw_kafka import batch
from support.server import Server
from support.wire import Client, Topic, ends

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.describe_log_dirs import DescribableLogDirTopic, DescribeLogDirsRequest


def sizes(client: Client, version: int, *topics: DescribableLogDirTopic, all: bool = False) -> dict[str, list[int]]:
    request = DescribeLogDirsRequest(topics=None if all else topics)
    answer = client.ask(ApiKey.DESCRIBE_LOG_DIRS, version, request)
    assert answer.error_code == 0
    (directory,) = answer.results
    assert (directory.error_code, directory.total_bytes, directory.usable_bytes) == (0, -1, -1)
    return {topic.name: [p.partition_size for p in topic.partitions] for topic in directory.topics}


@pytest.mark.parametrize("version", ends(ApiKey.DESCRIBE_LOG_DIRS))
def test_sizes_of_partitions(client: Client, version: int) -> None:
    topic, other = client.create_topic(partitions=2), client.create_topic()
    data = batch([b"value"])
    client.append(topic, data, partition=1)
    found = sizes(client, version, all=True)
    assert (found[topic.name], found[other.name]) == ([0, len(data)], [0])
    asked = DescribableLogDirTopic(topic.name, (1, 7)), DescribableLogDirTopic("nowhere", (0,))
    assert sizes(client, version, *asked) == {topic.name: [len(data)]}
    assert sizes(client, version) == {}


def test_the_directory_is_that_of_the_configs(client: Client, server: Server, topic: Topic) -> None:
    answer = client.newest(ApiKey.DESCRIBE_LOG_DIRS, DescribeLogDirsRequest(topics=None))
    assert answer.results[0].log_dir == str(server.data_dir.absolute())
