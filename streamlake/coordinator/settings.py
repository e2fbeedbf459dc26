"""Limits and delays of the coordinator, named as in Kafka where Kafka has the setting."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupSettings:
    # group.initial.rebalance.delay.ms is 3000 in Kafka: it saves rebalances when hundreds of consumers start. Here a
    # new group is usually one consumer on a laptop, whose user would wait these seconds at the prompt.
    initial_rebalance_delay_ms: int = 200
    session_timeout_min_ms: int = 6_000
    session_timeout_max_ms: int = 1_800_000
    group_size_max: int = 1_000  # members per group
    consumer_session_timeout_ms: int = 45_000  # of members of consumer groups (KIP-848): the coordinator decides
    consumer_heartbeat_interval_ms: int = 5_000
    groups_max: int = 10_000
    metadata_bytes_max: int = 64 * 1024 * 1024  # subscriptions and assignments of all groups together
    offsets_retention_ms: int = 7 * 24 * 3_600_000  # how long an empty group keeps its offsets
    offset_metadata_bytes_max: int = 4_096


@dataclass(frozen=True, slots=True)
class TransactionSettings:
    timeout_max_ms: int = 900_000  # transaction.max.timeout.ms
    id_expiration_ms: int = 7 * 24 * 3_600_000  # how long an id that nobody uses keeps its producer id
    transactions_max: int = 50_000  # transactional ids in memory: those with an open transaction, or used a minute ago
