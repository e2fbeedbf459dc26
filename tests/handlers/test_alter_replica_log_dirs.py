"""AlterReplicaLogDirs: one directory, in which everything is."""

import pytest
from support.wire import Client, Topic, ends

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages.alter_replica_log_dirs import (
    AlterReplicaLogDir,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirTopic,
)
from streamlake.protocol.messages.describe_log_dirs import DescribeLogDirsRequest


@pytest.mark.parametrize("version", ends(ApiKey.ALTER_REPLICA_LOG_DIRS))
def test_where_partitions_are(client: Client, topic: Topic, version: int) -> None:
    (described,) = client.newest(ApiKey.DESCRIBE_LOG_DIRS, DescribeLogDirsRequest()).results
    here = described.log_dir

    def codes(*dirs: tuple[str, str, tuple[int, ...]]) -> dict[tuple[str, int], int]:
        rows = tuple(AlterReplicaLogDir(path, (AlterReplicaLogDirTopic(name, ps),)) for path, name, ps in dirs)
        answer = client.ask(ApiKey.ALTER_REPLICA_LOG_DIRS, version, AlterReplicaLogDirsRequest(rows))
        return {(t.topic_name, p.partition_index): p.error_code for t in answer.results for p in t.partitions}

    unknown, no_directory = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.LOG_DIR_NOT_FOUND
    assert codes((here, topic.name, (0, 1)), (here, "nowhere", (0,))) == {
        (topic.name, 0): 0,
        (topic.name, 1): unknown,
        ("nowhere", 0): unknown,
    }
    assert codes((here, topic.name, (0,)), ("/elsewhere", topic.name, (0,))) == {(topic.name, 0): no_directory}
    assert codes(("/elsewhere", topic.name, (0,)), (here, topic.name, (0,))) == {(topic.name, 0): 0}
    assert codes() == {}
