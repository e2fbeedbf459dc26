"""What the config APIs answer to which mistake: Apache Kafka's codes, ours, and why where they differ.

`code` is what Apache Kafka 4.3.1 answered, one KRaft node started from its jars. `ask` sends a case to any broker, so
that the same table is a test of ours and of Kafka. A case has a topic of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from support.wire import Client

from streamlake.protocol.messages import ApiKey, alter_configs, describe_configs, incremental_alter_configs

TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)
UNKNOWN_SERVER_ERROR, UNKNOWN_TOPIC, INVALID_TOPIC, INVALID_CONFIG, INVALID_REQUEST = -1, 3, 17, 40, 42

Change = tuple[str, int, str | None]


@dataclass(frozen=True)
class Case:
    api: str  # incremental, alter, describe
    kind: int
    name: str  # of the resource; {topic} and {broker} are those of the broker at hand
    configs: tuple[Any, ...]  # changes; (key, value) for `alter`; keys for `describe`
    code: int
    says: str = ""  # a part of our message
    ours: int | None = None  # our code, if another is meant
    why: str = ""  # we mean another

    def __str__(self) -> str:
        shown = ",".join(str(c)[:60] for c in self.configs)
        return f"{self.api}-{self.kind}-{self.name[:20] or 'noname'}-{shown or 'nothing'}"


def ask(client: Client, case: Case, topic: str, broker: str) -> tuple[int, str]:
    """What a broker answers: code and message. Nothing is changed (validate_only)."""
    name = case.name.format(topic=topic, broker=broker)
    request: Any
    if case.api == "incremental":
        key, version, m = ApiKey.INCREMENTAL_ALTER_CONFIGS, 1, incremental_alter_configs
        resource = m.AlterConfigsResource(case.kind, name, tuple(m.AlterableConfig(*c) for c in case.configs))
        request = m.IncrementalAlterConfigsRequest((resource,), True)
        (result,) = client.ask(key, version, request).responses
    elif case.api == "alter":
        given = tuple(alter_configs.AlterableConfig(*c) for c in case.configs)
        request = alter_configs.AlterConfigsRequest((alter_configs.AlterConfigsResource(case.kind, name, given),), True)
        (result,) = client.ask(ApiKey.ALTER_CONFIGS, 2, request).responses
    else:
        wanted = describe_configs.DescribeConfigsResource(case.kind, name, tuple(case.configs) or None)
        (result,) = client.ask(ApiKey.DESCRIBE_CONFIGS, 4, describe_configs.DescribeConfigsRequest((wanted,))).results
    return result.error_code, result.error_message or ""


def _changes() -> Iterator[Case]:
    """One change, of a topic and of a broker that runs."""
    npe = "Kafka fails with an exception of its own"
    topic = [
        (("retention.ms", SET, "5"), 0),
        (("retention.ms", SET, " 5 "), 0),
        (("retention.ms", SET, "+5"), 0),
        (("retention.ms", SET, None), INVALID_REQUEST, "needs a value"),
        (("cleanup.policy", APPEND, None), INVALID_REQUEST, "needs a value"),
        (("cleanup.policy", SUBTRACT, None), INVALID_REQUEST, "needs a value"),
        (("retention.ms", SET, ""), INVALID_CONFIG, "whole number from -1"),
        (("retention.ms", SET, "soon"), INVALID_CONFIG, "whole number from -1"),
        (("retention.ms", SET, "1_000"), INVALID_CONFIG, "whole number from -1"),
        (("retention.ms", SET, "-2"), INVALID_CONFIG, "whole number from -1"),
        (("retention.ms", SET, str(2**63)), INVALID_CONFIG, "whole number from -1"),
        (("max.message.bytes", SET, str(2**31)), INVALID_CONFIG, "2147483647"),
        (("segment.bytes", SET, "14"), INVALID_CONFIG, "from 1048576"),
        (("retention.bytes", SET, "-5"), 0),
        (("preallocate", SET, "TRUE"), 0),
        (("preallocate", SET, "1"), INVALID_CONFIG, "true or false"),
        (("min.cleanable.dirty.ratio", SET, "1e-1"), 0),
        (("min.cleanable.dirty.ratio", SET, "half"), INVALID_CONFIG, "a number from 0 to 1"),
        (("min.cleanable.dirty.ratio", SET, "NaN"), 0, "from 0 to 1", INVALID_CONFIG, "NaN is no ratio"),
        (("compression.gzip.level", SET, "0"), INVALID_CONFIG, "from 1 to 9, or -1"),
        (("compression.type", SET, "rar"), INVALID_CONFIG, "must be uncompressed"),
        (("compression.type", SET, "ZSTD"), INVALID_CONFIG, "must be uncompressed"),
        *((("compression.type", SET, c), 0) for c in ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")),
        (("retention.mz", SET, "5"), INVALID_CONFIG, "did you mean retention.ms?"),
        (("retention.mz", DELETE, None), 0),
        (("", SET, "5"), INVALID_CONFIG, "not a topic config"),
        (("retention.ms", APPEND, "5"), INVALID_CONFIG, "can only be set or deleted"),
        (("retention.ms", SUBTRACT, "5"), INVALID_CONFIG, "can only be set or deleted"),
        (("no.such.key", APPEND, "5"), INVALID_CONFIG, "can only be set or deleted"),
        (("cleanup.policy", APPEND, "delete"), 0),
        (("cleanup.policy", SUBTRACT, "delete"), 0),
        (("cleanup.policy", SUBTRACT, "compact"), 0),
        (("cleanup.policy", SET, ""), 0),
        (("cleanup.policy", SET, " delete "), 0),
        (("cleanup.policy", SET, "forget"), INVALID_CONFIG, "must be delete"),
        (("cleanup.policy", SET, "compact"), 0, "not implemented yet", INVALID_CONFIG, "compaction is not there yet"),
        (("leader.replication.throttled.replicas", SET, "x"), INVALID_CONFIG, "partition:broker"),
        (("leader.replication.throttled.replicas", APPEND, "0:1"), 0),
        (("follower.replication.throttled.replicas", SET, "*"), 0),
        (("remote.storage.enable", SET, "true"), INVALID_CONFIG, "on object storage already"),
        (("remote.log.copy.disable", SET, "true"), 0),
        (("message.format.version", SET, "3.0"), INVALID_CONFIG, "not a topic config"),
        (("retention.ms", 4, "5"), UNKNOWN_SERVER_ERROR, "0 set, 1 delete", INVALID_REQUEST, npe),
    ]
    broker = [
        (("num.io.threads", SET, "9"), 0),
        (("num.io.threads", SET, "0"), INVALID_REQUEST, "from 1"),
        (("num.io.threads", SET, "soon"), INVALID_REQUEST, "whole number"),
        (("num.io.threads", SET, None), INVALID_REQUEST, "needs a value"),
        (("num.io.threads", APPEND, "8"), INVALID_CONFIG, "can only be set or deleted"),
        (("num.io.threads", 9, "8"), INVALID_REQUEST, "0 set, 1 delete"),
        (("num.partitions", SET, "5"), INVALID_REQUEST, "kafka.num.partitions in the configuration file"),
        (("num.partitions", DELETE, None), 0),
        (("node.id", SET, "5"), INVALID_REQUEST, "server.node_id in the configuration file"),
        (("auto.create.topics.enable", SET, "false"), INVALID_REQUEST, "in the configuration file"),
        (("advertised.listeners", SET, "PLAINTEXT://a:1"), INVALID_REQUEST, "server.advertised_host"),
        (("log.retention.hours", SET, "1"), INVALID_REQUEST, "in the configuration file"),
        (("log.retention.ms", SET, "5000000"), 0),
        (("log.retention.ms", SET, "-2"), 0, "from -1", INVALID_REQUEST, "topics could not be set to it"),
        (("log.cleanup.policy", SUBTRACT, "delete"), 0),
        (("log.cleanup.policy", SET, "no"), INVALID_REQUEST, "must be delete"),
        (("max.connections", SET, "10"), 0, "server.connections_max", INVALID_REQUEST, "it is set in the file here"),
        (("leader.replication.throttled.rate", SET, "1000"), 0),
        (("ssl.keystore.password", SET, "x"), INVALID_REQUEST, "no TLS"),
        (("sasl.jaas.config", SET, "x"), 0, "authentication", INVALID_REQUEST, "nobody shall believe that it is on"),
        (("listener.name.plaintext.max.connections", SET, "9"), 0, "not supported", INVALID_REQUEST, "nor is TLS"),
        (("some.key", SET, "5"), 0),
        (("some.key", DELETE, None), 0),
        (("some.key", APPEND, "5"), INVALID_CONFIG, "can only be set or deleted"),
        (("", SET, "5"), 0, "1 to 255 characters", INVALID_REQUEST, "a key has a name"),
    ]
    for change, *expected in topic:
        yield Case("incremental", TOPIC, "{topic}", (change,), *expected)
    for name in ("{broker}", ""):
        for change, *expected in broker:
            yield Case("incremental", BROKER, name, (change,), *expected)
    yield Case("incremental", BROKER, "", (("listeners", SET, "x"),), INVALID_REQUEST, "server.host and server.port")


def _named() -> Iterator[Case]:
    """Groups, client metrics subscriptions, loggers."""
    session, reset = "consumer.session.timeout.ms", "share.auto.offset.reset"
    one_code = "a wrong config is INVALID_CONFIG, whatever is wrong with it"
    group = [
        ((session, SET, "46000"), 0),
        ((session, SET, "soon"), INVALID_CONFIG, "from 45000 to 60000"),
        ((session, SET, "1"), INVALID_CONFIG, "from 45000 to 60000"),
        ((session, SET, "100000000"), INVALID_CONFIG, "from 45000 to 60000"),
        ((session, SET, None), INVALID_REQUEST, "needs a value"),
        ((session, APPEND, "1"), INVALID_CONFIG, "can only be set or deleted"),
        ((session, 9, "1"), UNKNOWN_SERVER_ERROR, "0 set", INVALID_REQUEST, "Kafka fails with an exception of its own"),
        (("consumer.heartbeat.interval.ms", SET, "46000"), INVALID_CONFIG, "from 5000 to 15000"),
        ((reset, SET, "earliest"), 0),
        ((reset, SET, "by_duration:P1DT2H"), 0),
        ((reset, SET, "by_duration:yesterday"), INVALID_CONFIG, "must be latest, earliest"),
        (("share.isolation.level", SET, "READ_COMMITTED"), INVALID_CONFIG, "must be read_committed"),
        (("share.isolation.level", DELETE, None), 0),
        (("share.partition.max.record.locks", SET, "99"), INVALID_CONFIG, "from 100"),
        (("streams.num.standby.replicas", SET, "50"), INVALID_CONFIG, "from 0 to 2"),
        (("share.renew.acknowledge.enable", SET, "maybe"), INVALID_CONFIG, "true or false"),
        (("no.such.key", SET, "1"), INVALID_CONFIG, "not a group config"),
        (("no.such.key", DELETE, None), 0),
        (("no.such.key", APPEND, "1"), INVALID_CONFIG, "can only be set or deleted"),
    ]
    metrics = [
        (("interval.ms", SET, "60000"), 0),
        (("interval.ms", SET, "soon"), INVALID_CONFIG, "whole number"),
        (("interval.ms", SET, "1"), INVALID_REQUEST, "from 100", INVALID_CONFIG, one_code),
        (("interval.ms", SET, None), INVALID_REQUEST, "needs a value"),
        (("metrics", SET, "org.apache.kafka.producer."), 0),
        (("metrics", APPEND, "a"), INVALID_CONFIG, "", 0, "a list can be appended to"),
        (("match", SET, "client_id=x"), 0),
        (("match", SET, "x"), INVALID_CONFIG, "PROPERTY=PATTERN"),
        (("match", SET, "foo=x"), INVALID_CONFIG, "PROPERTY=PATTERN"),
        (("no.such.key", SET, "1"), INVALID_REQUEST, "not a client metrics config", INVALID_CONFIG, one_code),
        (("no.such.key", DELETE, None), 0),
    ]
    fixed = "the level is that of the configuration file"
    logger = [
        (("no.such", SET, "INFO"), INVALID_CONFIG, "no logger"),
        (("no.such", DELETE, None), INVALID_CONFIG, "no logger"),
        (("root", SET, "LOUD"), INVALID_CONFIG, "no level"),
        (("root", SET, "info"), INVALID_CONFIG, "no level"),
        (("root", SET, None), INVALID_REQUEST, "needs a value"),
        (("root", SET, "ERROR"), 0, "logging.level", INVALID_REQUEST, fixed),
        (("root", DELETE, None), INVALID_REQUEST, "logging.level"),
        (("root", APPEND, "INFO"), INVALID_REQUEST, "can only be set"),
        (("root", SUBTRACT, "INFO"), INVALID_REQUEST, "can only be set"),
    ]
    for kind, name, cases in ((GROUP, "g", group), (CLIENT_METRICS, "m", metrics), (LOGGER, "{broker}", logger)):
        for change, *expected in cases:
            yield Case("incremental", kind, name, (change,), *expected)


def _requests() -> Iterator[Case]:
    """Whole requests: several changes, and resources that are not there."""
    twice = (("retention.ms", SET, "5"), ("retention.ms", SET, "6"))
    yield Case("incremental", TOPIC, "{topic}", twice, INVALID_REQUEST, "more than once")
    yield Case("incremental", TOPIC, "{topic}", (twice[0], ("retention.ms", DELETE, None)), INVALID_REQUEST, "once")
    yield Case("incremental", TOPIC, "{topic}", (), 0)
    lags = (("min.compaction.lag.ms", SET, "5"), ("max.compaction.lag.ms", SET, "4"))
    yield Case("incremental", TOPIC, "{topic}", lags, INVALID_CONFIG, "must not be larger")
    threads = (("num.io.threads", SET, "8"), ("num.io.threads", SET, "8"))
    yield Case("incremental", BROKER, "{broker}", threads, INVALID_REQUEST, "more than once")
    yield Case("incremental", GROUP, "g", (("a", SET, "1"), ("a", SET, "1")), INVALID_REQUEST, "more than once")
    for api, some in (("incremental", (("retention.ms", SET, "5"),)), ("alter", (("retention.ms", "5"),))):
        yield Case(api, TOPIC, "nowhere", some, UNKNOWN_TOPIC, "nowhere does not exist")
        yield Case(api, TOPIC, "nowhere", (), UNKNOWN_TOPIC, "nowhere does not exist")
        yield Case(api, TOPIC, "", some, INVALID_REQUEST, "a topic has a name")
        yield Case(api, TOPIC, "a b", some, INVALID_TOPIC, "only letters, digits")
        yield Case(api, TOPIC, "a" * 300, some, INVALID_TOPIC, "249 characters")
        yield Case(api, GROUP, "", some, INVALID_REQUEST, "has a name")
        yield Case(api, CLIENT_METRICS, "", some, INVALID_REQUEST, "has a name")
    for api, some in (("incremental", (("num.io.threads", SET, "9"),)), ("alter", (("num.io.threads", "9"),))):
        for name in ("77", "x", "-1"):
            yield Case(api, BROKER, name, some, INVALID_REQUEST, "this is broker")
        for kind in (0, 1, 3, 5, 99, -1):
            yield Case(api, kind, "x", some, INVALID_REQUEST, f"resource type {kind} has no configs")
    for name in ("", "77", "x"):
        yield Case("incremental", LOGGER, name, (("root", SET, "INFO"),), INVALID_REQUEST, "this is broker")


def _alters() -> Iterator[Case]:
    """AlterConfigs, the older form."""
    yield Case("alter", TOPIC, "{topic}", (("retention.ms", "5"),), 0)
    yield Case("alter", TOPIC, "{topic}", (), 0)
    yield Case("alter", TOPIC, "{topic}", (("retention.ms", "x"),), INVALID_CONFIG, "whole number")
    yield Case("alter", TOPIC, "{topic}", (("retention.mz", "5"),), INVALID_CONFIG, "did you mean")
    yield Case("alter", TOPIC, "{topic}", (("retention.ms", None),), INVALID_REQUEST, "needs a value")
    yield Case("alter", TOPIC, "{topic}", (("retention.ms", "5"), ("retention.ms", "6")), INVALID_REQUEST, "once")
    yield Case("alter", BROKER, "{broker}", (("num.io.threads", "8"),), 0)
    yield Case("alter", BROKER, "{broker}", (("some.key", "8"),), 0)
    yield Case("alter", BROKER, "{broker}", (("num.io.threads", None),), INVALID_REQUEST, "needs a value")
    yield Case("alter", BROKER, "{broker}", (("num.io.threads", "x"),), INVALID_REQUEST, "whole number")
    yield Case("alter", BROKER, "{broker}", (("num.partitions", "8"),), INVALID_REQUEST, "in the configuration file")
    yield Case("alter", LOGGER, "{broker}", (("root", "WARN"),), INVALID_REQUEST, "IncrementalAlterConfigs")
    yield Case("alter", GROUP, "g", (("share.session.timeout.ms", "45001"),), 0)
    yield Case("alter", GROUP, "g", (("x", "1"),), INVALID_CONFIG, "not a group config")
    yield Case("alter", GROUP, "g", (("share.session.timeout.ms", None),), INVALID_REQUEST, "needs a value")
    yield Case("alter", CLIENT_METRICS, "m", (("interval.ms", "60000"),), 0)


def _describes() -> Iterator[Case]:
    for kind, name in ((TOPIC, "{topic}"), (BROKER, "{broker}"), (BROKER, ""), (LOGGER, "{broker}"), (GROUP, "g")):
        yield Case("describe", kind, name, (), 0)
        yield Case("describe", kind, name, ("no.such.key",), 0)
    yield Case("describe", CLIENT_METRICS, "m", (), 0)
    yield Case("describe", TOPIC, "nowhere", (), UNKNOWN_TOPIC, "nowhere does not exist")
    yield Case("describe", TOPIC, "", (), INVALID_TOPIC, "cannot be the name")
    yield Case("describe", TOPIC, "a b", (), INVALID_TOPIC, "only letters, digits")
    for kind, name in ((BROKER, "77"), (BROKER, "x"), (LOGGER, ""), (LOGGER, "77"), (LOGGER, "x")):
        yield Case("describe", kind, name, (), INVALID_REQUEST, "this is broker")
    yield Case("describe", GROUP, "", (), INVALID_REQUEST, "has a name")
    yield Case("describe", CLIENT_METRICS, "", (), INVALID_REQUEST, "has a name")
    for kind in (0, 1, 3, 5, 99, -1):
        yield Case("describe", kind, "x", (), INVALID_REQUEST, f"resource type {kind} has no configs")


CASES = (*_changes(), *_named(), *_requests(), *_alters(), *_describes())
