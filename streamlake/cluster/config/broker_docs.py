"""What Kafka's broker configs mean here. Kafka has 340 of them; most belong to components that StreamLake lacks.

Each config is in the first family whose pattern matches its name. A config of a family without effect keeps the value
that it is given, and its documentation says that it has no effect. A config of a refused family only accepts its
default: a user who sets `authorizer.class.name` must not believe that anything is authorized.
"""

import re
from typing import NamedTuple

from streamlake.cluster.config.topic import ACCEPTED, CLEANER, REPLICAS, TIERED


class Family(NamedTuple):
    """Configs that one sentence explains. `refused`: the error for a value other than the default; None: no error."""

    pattern: re.Pattern[str]
    doc: str
    refused: str | None = None


HONOURED = {
    "num.partitions": "Partitions of a topic that is created without a number.",
    "auto.create.topics.enable": "Create a topic when a client first asks for it.",
    "delete.topic.enable": "Allow topics to be deleted.",
    "producer.id.expiration.ms": "How long an idempotent producer is remembered after its last batch.",
    "log.retention.minutes": "As log.retention.ms, in minutes, if that is not set.",
    "log.retention.hours": "As log.retention.ms, in hours, if neither that nor log.retention.minutes is set.",
}
"""Configs with the effect that they have in Kafka, beside the defaults of topic configs."""

OWN = {
    "node.id": "server.node_id",
    "broker.id": "server.node_id",
    "process.roles": "",
    "listeners": "server.host and server.port",
    "listener.security.protocol.map": "",
    "advertised.listeners": "server.advertised_host and server.advertised_port",
    "log.dir": "storage.data_dir",
    "log.dirs": "storage.data_dir",
    "log.retention.check.interval.ms": "storage.retention_interval_s",
    "socket.request.max.bytes": "server.request_bytes_max",
    "max.connections": "server.connections_max",
    "fetch.max.bytes": "",
    "offset.metadata.max.bytes": "",
    "group.initial.rebalance.delay.ms": "groups.initial_rebalance_delay_ms",
    "group.min.session.timeout.ms": "groups.session_timeout_min_ms",
    "group.max.session.timeout.ms": "groups.session_timeout_max_ms",
    "group.max.size": "groups.group_size_max",
    "group.consumer.session.timeout.ms": "groups.consumer_session_timeout_ms",
    "group.consumer.heartbeat.interval.ms": "groups.consumer_heartbeat_interval_ms",
    "group.consumer.max.size": "groups.group_size_max",
    "group.consumer.migration.policy": "",
    "group.consumer.assignors": "",
    "offsets.retention.minutes": "groups.offsets_retention_ms",
    "transaction.max.timeout.ms": "transactions.timeout_max_ms",
    "transactional.id.expiration.ms": "transactions.id_expiration_ms",
}
"""Configs that another key of the configuration file sets, and fixed ones (""). The value shown is the one in force."""


def _family(doc: str, *names: str, refused: str | None = None) -> Family:
    """`names` are whole names, or the beginnings of names if they end with a dot."""
    parts = [re.escape(name) if not name.endswith(".") else f"{re.escape(name)}.+" for name in names]
    return Family(re.compile("|".join(parts)), doc, refused)


_NO_SECURITY = "StreamLake has no TLS, authentication or authorization yet"
_NO_JAVA = "StreamLake cannot load Java classes"

FAMILIES = (
    _family("Only the default is accepted: there is no TLS, authentication or authorization yet.",
            "ssl.", "sasl.", "security.", "delegation.token.", "authorizer.class.name", "principal.builder.class",
            "connections.max.reauth.ms", "connection.failed.authentication.delay.ms", refused=_NO_SECURITY),
    _family("Only the default is accepted: Java classes cannot be loaded.",
            "alter.config.policy.class.name", "create.topic.policy.class.name", "client.quota.callback.class",
            "config.providers", "replica.selector.class", "metric.reporters", "kafka.metrics.", refused=_NO_JAVA),
    _family(ACCEPTED + "transactions are rows of the metadata store, not records of a topic, and intervals are fixed.",
            "transaction.", "add.partitions.to.txn."),
    _family(ACCEPTED + "there are no bounds for what is set for single groups, and targets are assigned at once.",
            "group.consumer."),
    _family(ACCEPTED + "groups of the share and streams protocols are not implemented yet.",
            "group.share.", "group.streams.", "share.", "group.coordinator.rebalance.protocols"),
    _family(ACCEPTED + "groups and their offsets are rows of the metadata store, not records of a topic.",
            "offsets.", "group.coordinator."),
    _family(ACCEPTED + "there are no KRaft controllers; brokers share a metadata store.",
            "controller.", "metadata.", "broker.heartbeat.interval.ms", "broker.session.timeout.ms",
            "initial.broker.registration.timeout.ms", "early.start.listeners", "inter.broker.listener.name",
            "controlled.shutdown.enable"),
    _family(REPLICAS, "replica.", "replication.", "alter.log.dirs.", "auto.leader.rebalance.enable", "leader.",
            "follower.", "num.replica.", "default.replication.factor", "broker.rack"),
    _family(TIERED, "remote."),
    _family(CLEANER, "log.cleaner."),
    _family(ACCEPTED + "a partition is a stream on an object store, not files of a directory.",
            "log.", "cordoned.log.dirs", "num.recovery.threads.per.data.dir"),
    _family(ACCEPTED + "quotas are not implemented yet.", "quota."),
    _family(ACCEPTED + "one event loop serves all connections; what waits is bounded by memory.total_bytes.",
            "num.io.threads", "num.network.threads", "background.threads", "queued.", "request.timeout.ms",
            "socket.", "fetch.purgatory.purge.interval.requests", "producer.purgatory.purge.interval.requests",
            "delete.records.purgatory.purge.interval.requests"),
    _family(ACCEPTED + "connections are bounded by server.connections_max alone, and idle ones stay open.",
            "max.connections.", "max.connection.creation.rate", "connections.max.idle.ms"),
    _family(ACCEPTED + "this bound is fixed.",
            "max.request.partition.size.limit", "max.incremental.fetch.session.cache.slots"),
    _family(ACCEPTED + "metrics are at /metrics of the HTTP port.", "metrics.", "telemetry."),
)  # fmt: skip


def family(name: str) -> Family:
    """The family of a Kafka config that is neither HONOURED nor OWN nor the default of a topic config."""
    return next(f for f in FAMILIES if f.pattern.fullmatch(name))
