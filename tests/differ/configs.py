"""DescribeConfigs, AlterConfigs, IncrementalAlterConfigs."""

from differ.scenario import scenario
from differ.side import Side

from streamlake.protocol.messages import ApiKey
from streamlake.protocol.messages import alter_configs as ac
from streamlake.protocol.messages import describe_configs as dc
from streamlake.protocol.messages import incremental_alter_configs as iac

TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3
RESOURCES = {
    "unknown topic": (TOPIC, "never-there"),
    "empty topic name": (TOPIC, ""),
    "another broker": (BROKER, "99"),
    "a broker that is no number": (BROKER, "one"),
    "unknown type": (99, "x"),
    "type zero": (0, "x"),
}
KEYS = (
    "retention.ms", "cleanup.policy", "min.insync.replicas", "max.message.bytes", "message.timestamp.type",
    "segment.bytes", "compression.type",
)  # fmt: skip


def describe(
    kind: int, name: str, keys: tuple[str, ...] | None = None, synonyms: bool = False, documented: bool = False
) -> dc.DescribeConfigsRequest:
    resource = dc.DescribeConfigsResource(resource_type=kind, resource_name=name, configuration_keys=keys)
    return dc.DescribeConfigsRequest(resources=(resource,), include_synonyms=synonyms, include_documentation=documented)


@scenario
def describe_configs(side: Side) -> None:
    side.topic("config-described", retention_ms="3600000")

    def asks(note: str, request: dc.DescribeConfigsRequest, versions: tuple[int, ...] = (1, 4)) -> None:
        side.every(note, ApiKey.DESCRIBE_CONFIGS, request, versions)

    for key in KEYS:
        asks(f"topic key {key}", describe(TOPIC, "config-described", (key,)))
    asks("with synonyms", describe(TOPIC, "config-described", ("retention.ms",), synonyms=True))
    asks("with documentation", describe(TOPIC, "config-described", ("retention.ms",), documented=True), (3, 4))
    asks("no keys", describe(TOPIC, "config-described", ()))
    asks("an unknown key", describe(TOPIC, "config-described", ("no.such.key",)))
    asks("a broker's key", describe(BROKER, "0", ("log.retention.ms",)))
    for note, (kind, name) in RESOURCES.items():
        asks(note, describe(kind, name))
    asks("broker loggers", describe(LOGGER, "0", ("no.such.logger",)))
    asks("client metrics", describe(CLIENT_METRICS, "x"))
    asks("a group", describe(GROUP, "x"))
    asks("the brokers' defaults", describe(BROKER, ""))
    resource = dc.DescribeConfigsResource(TOPIC, "config-described", ("retention.ms",))
    side.newest("a resource twice", ApiKey.DESCRIBE_CONFIGS, dc.DescribeConfigsRequest(resources=(resource,) * 2))
    side.newest("none", ApiKey.DESCRIBE_CONFIGS, dc.DescribeConfigsRequest())


Change = tuple[int, str, str | None]


def alter(kind: int, name: str, *changes: Change, only_check: bool = True) -> iac.IncrementalAlterConfigsRequest:
    return iac.IncrementalAlterConfigsRequest(resources=(altered(kind, name, *changes),), validate_only=only_check)


def altered(kind: int, name: str, *changes: Change) -> iac.AlterConfigsResource:
    rows = tuple(iac.AlterableConfig(name=k, config_operation=op, value=v) for op, k, v in changes)
    return iac.AlterConfigsResource(resource_type=kind, resource_name=name, configs=rows)


@scenario
def incremental_alter_configs(side: Side) -> None:
    side.topic("config-altered", cleanup_policy="delete")

    def asks(note: str, request: iac.IncrementalAlterConfigsRequest) -> None:
        side.every(note, ApiKey.INCREMENTAL_ALTER_CONFIGS, request)

    def topic(note: str, *changes: Change) -> None:
        asks(note, alter(TOPIC, "config-altered", *changes))

    good: Change = (SET, "retention.ms", "7200000")
    topic("set", good)
    topic("delete", (DELETE, "retention.ms", None))
    topic("delete with a value", (DELETE, "retention.ms", "1"))
    topic("delete what is not set", (DELETE, "segment.bytes", None))
    topic("append to a list", (APPEND, "cleanup.policy", "delete"))
    topic("append to a number", (APPEND, "retention.ms", "1"))
    topic("append null", (APPEND, "cleanup.policy", None))
    topic("subtract the last", (SUBTRACT, "cleanup.policy", "delete"))
    topic("subtract what is not there", (SUBTRACT, "cleanup.policy", "compact"))
    topic("subtract from a number", (SUBTRACT, "retention.ms", "1"))
    topic("set null", (SET, "retention.ms", None))
    topic("set empty", (SET, "retention.ms", ""))
    topic("bad value", (SET, "retention.ms", "soon"))
    topic("unknown key", (SET, "no.such.key", "1"))
    topic("delete an unknown key", (DELETE, "no.such.key", None))
    topic("unknown operation", (9, "retention.ms", "1"))
    topic("a key twice", good, good)
    topic("a key set and deleted", good, (DELETE, "retention.ms", None))
    topic("nothing")
    for note, (kind, name) in RESOURCES.items():
        asks(note, alter(kind, name, good))
    asks("read-only broker key", alter(BROKER, "0", (SET, "node.id", "7")))
    asks("unknown broker key", alter(BROKER, "0", (SET, "no.such.key", "1")))
    asks("broker key", alter(BROKER, "0", (SET, "log.retention.ms", "3600000")))
    asks("brokers' default", alter(BROKER, "", (SET, "log.retention.ms", "3600000")))
    asks("brokers' default of a bad value", alter(BROKER, "", (SET, "log.retention.ms", "soon")))
    asks("a group", alter(GROUP, "some-group", (SET, "consumer.session.timeout.ms", "50000")))
    one = altered(TOPIC, "config-altered", good)
    twice = iac.IncrementalAlterConfigsRequest(resources=(one, one), validate_only=True)
    asks("a resource twice", twice)
    asks("none", iac.IncrementalAlterConfigsRequest())
    asks("for real", alter(TOPIC, "config-altered", good, only_check=False))


@scenario
def alter_configs(side: Side) -> None:
    side.topic("config-replaced")

    def asks(note: str, kind: int, name: str, *pairs: tuple[str, str | None]) -> None:
        rows = tuple(ac.AlterableConfig(name=k, value=v) for k, v in pairs)
        resource = ac.AlterConfigsResource(resource_type=kind, resource_name=name, configs=rows)
        request = ac.AlterConfigsRequest(resources=(resource,), validate_only=True)
        side.every(note, ApiKey.ALTER_CONFIGS, request)

    good = ("retention.ms", "7200000")
    asks("set", TOPIC, "config-replaced", good)
    asks("nothing", TOPIC, "config-replaced")
    asks("bad value", TOPIC, "config-replaced", ("retention.ms", "soon"))
    asks("null", TOPIC, "config-replaced", ("retention.ms", None))
    asks("unknown key", TOPIC, "config-replaced", ("no.such.key", "1"))
    asks("a key twice", TOPIC, "config-replaced", good, good)
    for note, (kind, name) in RESOURCES.items():
        asks(note, kind, name, good)
