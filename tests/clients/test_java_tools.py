"""Kafka's own command line tools, which are Java's Admin and consumer with default settings.

They dereference what the broker sends: a null where Kafka never has one is an exception here.
"""

from collections.abc import Callable

import pytest
from support.apache_kafka import fetch_jars, run_tool
from support.maven import Missing
from support.raw_kafka import batch
from support.server import Server
from support.wire import Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # a JVM for each tool, and at first their jars

TOOLS = "org.apache.kafka.tools."
GROUPS = "consumer.group.ConsumerGroupCommand"
TRANSACTIONS = "TransactionsCommand"


@pytest.fixture(scope="module", autouse=True)
def _jars() -> None:
    try:
        fetch_jars()
    except Missing as missing:
        pytest.skip(f"Kafka's tools cannot run here: {missing}")


@pytest.fixture
def filled(server: Server, topic: Callable[[], str]) -> str:
    """A topic of two partitions with three records, and offsets of the group of the same name."""
    name = topic()
    tool(server, "TopicCommand", "--create", "--topic", name, "--partitions", "2")
    with Client(server.port) as client:
        assert client.produce(name, batch([b"one", b"two"])).error_code == 0
        assert client.produce(name, batch([b"three"]), partition=1).error_code == 0
    return name


def tool(server: Server, name: str, *arguments: str) -> str:
    """What it prints. It must not fail, and not log an error."""
    done = run_tool(TOOLS + name, "--bootstrap-server", server.bootstrap, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exception" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done.stdout


def test_topics_and_their_offsets(server: Server, filled: str) -> None:
    described = tool(server, "TopicCommand", "--describe", "--topic", filled)
    assert "PartitionCount: 2" in described
    assert described.count("Leader: 0") == 2
    assert f"{filled}:0:2\n{filled}:1:1\n" in tool(server, "GetOffsetShell", "--topic", filled)


def test_groups(server: Server, filled: str) -> None:
    reading = ["--topic", filled, "--group", filled, "--from-beginning", "--max-messages", "3"]
    values = tool(server, "consumer.ConsoleConsumer", *reading, "--timeout-ms", "60000")
    assert sorted(values.split()) == ["one", "three", "two"]
    described = [line.split() for line in tool(server, GROUPS, "--describe", "--group", filled).splitlines()]
    assert sorted(line[1:6] for line in described if line[:1] == [filled]) == [
        [filled, "0", "2", "2", "0"],
        [filled, "1", "1", "1", "0"],
    ]
    resetting = ["--group", filled, "--reset-offsets", "--to-earliest", "--topic", filled, "--execute"]
    reset = [line.split() for line in tool(server, GROUPS, *resetting).splitlines()]
    assert sorted(line[1:] for line in reset if line[:1] == [filled]) == [[filled, "0", "0"], [filled, "1", "0"]]

    deleted = tool(server, GROUPS, "--delete-offsets", "--group", filled, "--topic", f"{filled}:0")
    assert [line.split() for line in deleted.splitlines()][-1] == [filled, "0", "Successful"]
    described = [line.split() for line in tool(server, GROUPS, "--describe", "--group", filled).splitlines()]
    assert [line[1:4] for line in described if line[:1] == [filled]] == [[filled, "1", "0"]]


def test_administration(server: Server) -> None:
    quorum = tool(server, "MetadataQuorumCommand", "describe", "--status")
    assert ["LeaderId:", "0"] in [line.split() for line in quorum.splitlines()]
    features = tool(server, "FeatureCommand", "describe")
    assert "Feature: transaction.version" in features
    assert "FinalizedVersionLevel: 2" in features
    configs = ["kafka.admin.ConfigCommand", "--bootstrap-server", server.bootstrap]
    alice = ["--entity-type", "users", "--entity-name", "alice"]
    described = run_tool(*configs, "--describe", *alice)
    assert (described.returncode, described.stdout.strip()) == (0, ""), described.stdout + described.stderr
    refused = run_tool(*configs, "--alter", *alice, "--add-config", "producer_byte_rate=1024")
    assert "quotas are not implemented yet" in refused.stdout + refused.stderr


def test_groups_of_the_consumer_protocol(server: Server, filled: str) -> None:
    """Java's consumer (KIP-848), by name and by pattern, and what Java's admin shows of its group."""
    reading = ["--group", filled, "--from-beginning", "--command-property", "group.protocol=consumer"]
    values = tool(
        server, "consumer.ConsoleConsumer", *reading, "--topic", filled, "--max-messages", "3", "--timeout-ms", "60000"
    )
    assert sorted(values.split()) == ["one", "three", "two"]
    described = [line.split() for line in tool(server, GROUPS, "--describe", "--group", filled).splitlines()]
    assert sorted(line[1:6] for line in described if line[:1] == [filled]) == [
        [filled, "0", "2", "2", "0"],
        [filled, "1", "1", "1", "0"],
    ]
    states = [line.split() for line in tool(server, GROUPS, "--list", "--state", "--type").splitlines()]
    assert [filled, "Consumer", "Empty"] in states
    by_pattern = [
        "--group",
        f"{filled}-all",
        "--from-beginning",
        "--command-property",
        "group.protocol=consumer",
        "--include",
        f"{filled}|nothing-.*",
    ]
    values = tool(server, "consumer.ConsoleConsumer", *by_pattern, "--max-messages", "3", "--timeout-ms", "60000")
    assert sorted(values.split()) == ["one", "three", "two"]


def test_transactions_of_version_2(server: Server, topic: Callable[[], str]) -> None:
    """Java's producer has the leaders add its partitions, and gets a new epoch with each end (KIP-890)."""
    name = topic()
    tool(server, "TopicCommand", "--create", "--topic", name, "--partitions", "3")
    load = ["--num-records", "1000", "--throughput", "2000", "--record-size", "20", "--transaction-duration-ms", "20"]
    bootstrap = f"bootstrap.servers={server.bootstrap}"
    transactional = ["--transactional-id", name, "--command-property", bootstrap]
    done = run_tool(TOOLS + "ProducerPerformance", "--topic", name, *load, *transactional)
    assert "1000 records sent" in done.stdout, done.stdout + done.stderr
    described = [
        line.split() for line in tool(server, TRANSACTIONS, "describe", "--transactional-id", name).splitlines()
    ]
    (state,) = (line for line in described if line[1:2] == [name])
    assert (state[0], state[4]) == ("0", "CompleteCommit")
    assert int(state[3]) > 3, "each transaction has an epoch of its own"
    listed = [line.split() for line in tool(server, TRANSACTIONS, "list").splitlines()]
    assert [name, "0", state[2], "CompleteCommit"] in listed
    hanging = tool(server, TRANSACTIONS, "find-hanging", "--topic", name).splitlines()
    assert [line for line in hanging if line.startswith(name)] == []
    counting = ["--topic", name, "--from-beginning", "--max-messages", "1000", "--timeout-ms", "60000"]
    values = tool(server, "consumer.ConsoleConsumer", *counting, "--isolation-level", "read_committed")
    assert len(values.split()) == 1000
