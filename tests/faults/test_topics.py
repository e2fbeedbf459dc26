"""Topics that cannot be: the answer says what to do, over Kafka's admin API and on the command line."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)
from support.raw_kafka import RawClient
from support.server import Server
from support.wait import DEADLINE_S

from streamlake.protocol.errors import ErrorCode
from streamlake.protocol.messages import ApiKey, create_topics

TABLE = "streamlake.table."
NAMES = {
    "with/slash": "letters, digits",
    "with space": "letters, digits",
    "ünïcode": "letters, digits",
    "new\nline": "letters, digits",
    ".": "cannot be the name",
    "..": "cannot be the name",
    "x" * 250: "249",
    "../../etc/passwd": "letters, digits",
    "'; DROP TABLE topic; --": "letters, digits",
}
CONFIGS = [
    ({"retention.mss": "1"}, "retention.ms"),
    ({"retention.ms": "soon"}, "retention.ms"),
    ({"retention.ms": "-2"}, "-1"),
    ({"retention.ms": "9" * 30}, "retention.ms"),
    ({"cleanup.policy": "compact"}, "not implemented"),
    ({"cleanup.policy": "forget"}, "must be delete"),
    ({"max.message.bytes": "1e6"}, "max.message.bytes"),
    ({"message.timestamp.type": "Never"}, "CreateTime"),
    ({"compression.type": "brotli"}, "zstd"),
    ({TABLE + "enable": "yes"}, "true or false"),
    ({TABLE + "enabled": "true"}, TABLE + "enable"),
    ({TABLE + "commit.interval.ms": "0"}, "from 1"),
    ({TABLE + "convert.value.type": "xml"}, "by_schema_id"),
    ({TABLE + "partition.by": "[decade(ts)]"}, "day(column)"),
    ({TABLE + "partition.by": "[bucket(id, 0)]"}, "from 1"),
    ({TABLE + "partition.by": "[day(ts), day(ts)]"}, "twice"),
    ({TABLE + "transform.value.type": "flatten"}, "by_schema_id"),
    ({TABLE + "namespace": "a b"}, "letters"),
    ({TABLE + "upsert.enable": "true"}, "not implemented"),
    ({"automq.table.topic.schema.type": "protobuf"}, "schema"),
    ({"automq.table.topic.enable": "true", TABLE + "enable": "false"}, TABLE + "enable"),
]


@pytest.fixture
def admin(server: Server) -> AdminClient:
    return AdminClient({"bootstrap.servers": server.bootstrap})


def refusal(future) -> tuple[str, str]:
    with pytest.raises(KafkaException) as error:
        future.result(DEADLINE_S)
    return error.value.args[0].name(), error.value.args[0].str()


@pytest.mark.parametrize("name", NAMES)
def test_names(admin: AdminClient, name: str) -> None:
    code, message = refusal(admin.create_topics([NewTopic(name, 1)])[name])
    assert code == "TOPIC_EXCEPTION"
    assert NAMES[name] in message


@pytest.mark.parametrize("config, says", CONFIGS, ids=lambda c: str(c))
def test_configs_when_a_topic_is_made_and_when_it_is_changed(
    admin: AdminClient, topic: Callable[[], str], config: dict[str, str], says: str
) -> None:
    name = topic()
    code, message = refusal(admin.create_topics([NewTopic(name, 1, config=config)])[name])
    assert code == "INVALID_CONFIG"
    assert says in message, message
    assert name not in admin.list_topics(timeout=DEADLINE_S).topics

    admin.create_topics([NewTopic(name, 1)])[name].result(DEADLINE_S)
    entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in config.items()]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    code, message = refusal(admin.incremental_alter_configs([resource])[resource])
    assert code == "INVALID_CONFIG"
    assert says in message, message


def test_counts(server: Server, admin: AdminClient, topic: Callable[[], str]) -> None:
    with RawClient(server.port) as client:  # confluent-kafka refuses such numbers itself
        invalid, many = ErrorCode.INVALID_PARTITIONS, ErrorCode.POLICY_VIOLATION
        for count, code in ((-2, invalid), (0, invalid), (100_001, many), (2**31 - 1, many)):
            asked = create_topics.CreatableTopic(name=topic(), num_partitions=count, replication_factor=1)
            answer = client.call(ApiKey.CREATE_TOPICS, 7, create_topics.CreateTopicsRequest(topics=(asked,)))
            assert answer.topics[0].error_code == code
            assert "10000" in answer.topics[0].error_message
    name = topic()
    admin.create_topics([NewTopic(name, 3)])[name].result(DEADLINE_S)
    code, message = refusal(admin.create_partitions([NewPartitions(name, 2)])[name])
    assert code == "INVALID_PARTITIONS" and "3" in message
    code, _ = refusal(admin.create_partitions([NewPartitions("there-is-no-such-topic", 2)])["there-is-no-such-topic"])
    assert code == "UNKNOWN_TOPIC_OR_PART"


def test_names_that_would_be_one_in_metrics(admin: AdminClient) -> None:
    admin.create_topics([NewTopic("fault_a.b", 1)])["fault_a.b"].result(DEADLINE_S)
    code, message = refusal(admin.create_topics([NewTopic("fault.a_b", 1)])["fault.a_b"])
    assert code == "TOPIC_EXCEPTION" and "fault_a.b" in message


def cli(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamlake.cli.main", "topic", *arguments, "--bootstrap", server.bootstrap]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["create", "no/slash"], "letters, digits"),
        (["create", "t", "--partitions", "0"], "partitions"),
        (["create", "t", "--config", "retention.mss=1"], "retention.ms"),
        (["create", "t", "--config", "retention.ms"], "KEY=VALUE"),
        (["create", "t", "--table", "--value", "xml"], "raw, string, avro"),
        (["create", "t", "--table", "-c", "streamlake.table.partition.by=[x(y)]"], "day(column)"),
        (["describe", "there-is-no-such-topic"], "there-is-no-such-topic"),
        (["delete", "there-is-no-such-topic"], "there-is-no-such-topic"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_line(server: Server, arguments: list[str], says: str) -> None:
    done = cli(server, *arguments)
    assert done.returncode == (2 if says in ("KEY=VALUE", "raw, string, avro") else 1)  # usage, or refused
    assert says in done.stderr, done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1, done.stderr
    assert not done.stdout


def test_the_command_line_without_a_server(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "streamlake.cli.main", "topic", "list", "--bootstrap", "127.0.0.1:1"],
        capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr and "Traceback" not in done.stderr
