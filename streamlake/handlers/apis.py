"""THE list: every API this broker serves, in which versions, and what handles it.

Dispatch, ApiVersions, metrics and docs/compatibility.md follow from it; clients are not told what brokers ask one
another. `abandon`: while it waits, it waits for others and changes nothing any more, so it ends with its connection,
and a server that stops does not wait for it. `begin`: tried first; a request that it can begin costs no task, and
`handle` gets only those that it cannot. `runs`: tried before that, for requests that share their head.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streamlake.handlers import (
    add_offsets_to_txn,
    add_partitions_to_txn,
    alter_client_quotas,
    alter_configs,
    alter_partition_reassignments,
    alter_replica_log_dirs,
    alter_user_scram_credentials,
    api_versions,
    consumer_group_describe,
    consumer_group_heartbeat,
    create_partitions,
    create_topics,
    delete_groups,
    delete_records,
    delete_topics,
    describe_client_quotas,
    describe_cluster,
    describe_configs,
    describe_groups,
    describe_log_dirs,
    describe_producers,
    describe_quorum,
    describe_topic_partitions,
    describe_transactions,
    describe_user_scram_credentials,
    elect_leaders,
    end_txn,
    fetch,
    find_coordinator,
    heartbeat,
    hello,
    incremental_alter_configs,
    init_producer_id,
    join_group,
    join_transactions,
    leave_group,
    list_config_resources,
    list_groups,
    list_offsets,
    list_partition_reassignments,
    list_transactions,
    metadata,
    offset_commit,
    offset_delete,
    offset_fetch,
    offset_for_leader_epoch,
    poke,
    produce,
    produce_runs,
    sync_group,
    txn_offset_commit,
    update_features,
    write_markers,
    write_txn_markers,
)
from streamlake.handlers.context import Begin, Context, Handle
from streamlake.protocol.broker_messages import BrokerKey
from streamlake.protocol.messages import ApiKey
from streamlake.protocol.requests import Api, api


@dataclass(frozen=True, slots=True)
class Handler:
    api: Api
    handle: Handle
    abandon: bool = False
    begin: Begin | None = None
    runs: Callable[[Context, Mapping[int, Api], int], produce_runs.Runs | None] | None = None


def _serve(
    key: ApiKey | BrokerKey,
    first_version: int,
    last_version: int,
    handle: Handle,
    advertised_min: int | None = None,
    **rest: Any,
) -> Handler:
    versions = range(first_version, last_version + 1)
    return Handler(api(key, versions, advertised_min=advertised_min), handle, **rest)


# Key, first version, last version, handler.
HANDLERS = (
    # Advertised from 0: librdkafka takes Produce 0 as the sign of compression (KAFKA-18659).
    _serve(ApiKey.PRODUCE, 3, 13, produce.handle, advertised_min=0, begin=produce.begin, runs=produce_runs.runs),
    _serve(ApiKey.FETCH, 4, 18, fetch.handle, abandon=True),
    _serve(ApiKey.LIST_OFFSETS, 1, 11, list_offsets.handle),
    _serve(ApiKey.METADATA, 0, 13, metadata.handle),
    _serve(ApiKey.OFFSET_COMMIT, 2, 9, offset_commit.handle),
    _serve(ApiKey.OFFSET_FETCH, 1, 9, offset_fetch.handle),
    _serve(ApiKey.FIND_COORDINATOR, 0, 4, find_coordinator.handle),
    _serve(ApiKey.JOIN_GROUP, 0, 9, join_group.handle, abandon=True),
    _serve(ApiKey.HEARTBEAT, 0, 4, heartbeat.handle),
    _serve(ApiKey.LEAVE_GROUP, 0, 5, leave_group.handle),
    _serve(ApiKey.SYNC_GROUP, 0, 5, sync_group.handle, abandon=True),
    _serve(ApiKey.DESCRIBE_GROUPS, 0, 6, describe_groups.handle),
    _serve(ApiKey.LIST_GROUPS, 0, 5, list_groups.handle),
    _serve(ApiKey.API_VERSIONS, 0, 4, api_versions.handle),
    _serve(ApiKey.CREATE_TOPICS, 2, 7, create_topics.handle),
    _serve(ApiKey.DELETE_TOPICS, 1, 6, delete_topics.handle),
    _serve(ApiKey.DELETE_RECORDS, 0, 2, delete_records.handle),
    _serve(ApiKey.INIT_PRODUCER_ID, 0, 5, init_producer_id.handle),
    _serve(ApiKey.OFFSET_FOR_LEADER_EPOCH, 2, 4, offset_for_leader_epoch.handle),
    _serve(ApiKey.ADD_PARTITIONS_TO_TXN, 0, 5, add_partitions_to_txn.handle),
    _serve(ApiKey.ADD_OFFSETS_TO_TXN, 0, 4, add_offsets_to_txn.handle),
    _serve(ApiKey.END_TXN, 0, 5, end_txn.handle),
    _serve(ApiKey.WRITE_TXN_MARKERS, 1, 2, write_txn_markers.handle),
    _serve(ApiKey.TXN_OFFSET_COMMIT, 0, 5, txn_offset_commit.handle),
    _serve(ApiKey.DESCRIBE_CONFIGS, 1, 4, describe_configs.handle),
    _serve(ApiKey.ALTER_CONFIGS, 0, 2, alter_configs.handle),
    _serve(ApiKey.ALTER_REPLICA_LOG_DIRS, 1, 2, alter_replica_log_dirs.handle),
    _serve(ApiKey.DESCRIBE_LOG_DIRS, 1, 5, describe_log_dirs.handle),
    _serve(ApiKey.CREATE_PARTITIONS, 0, 3, create_partitions.handle),
    _serve(ApiKey.DELETE_GROUPS, 0, 2, delete_groups.handle),
    _serve(ApiKey.ELECT_LEADERS, 0, 2, elect_leaders.handle),
    _serve(ApiKey.INCREMENTAL_ALTER_CONFIGS, 0, 1, incremental_alter_configs.handle),
    _serve(ApiKey.ALTER_PARTITION_REASSIGNMENTS, 0, 1, alter_partition_reassignments.handle),
    _serve(ApiKey.LIST_PARTITION_REASSIGNMENTS, 0, 0, list_partition_reassignments.handle),
    _serve(ApiKey.OFFSET_DELETE, 0, 0, offset_delete.handle),
    _serve(ApiKey.DESCRIBE_CLIENT_QUOTAS, 0, 1, describe_client_quotas.handle),
    _serve(ApiKey.ALTER_CLIENT_QUOTAS, 0, 1, alter_client_quotas.handle),
    _serve(ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS, 0, 0, describe_user_scram_credentials.handle),
    _serve(ApiKey.ALTER_USER_SCRAM_CREDENTIALS, 0, 0, alter_user_scram_credentials.handle),
    _serve(ApiKey.DESCRIBE_QUORUM, 0, 2, describe_quorum.handle),
    _serve(ApiKey.UPDATE_FEATURES, 0, 2, update_features.handle),
    _serve(ApiKey.DESCRIBE_CLUSTER, 0, 2, describe_cluster.handle),
    _serve(ApiKey.DESCRIBE_PRODUCERS, 0, 0, describe_producers.handle),
    _serve(ApiKey.DESCRIBE_TRANSACTIONS, 0, 0, describe_transactions.handle),
    _serve(ApiKey.LIST_TRANSACTIONS, 0, 1, list_transactions.handle),
    _serve(ApiKey.CONSUMER_GROUP_HEARTBEAT, 0, 1, consumer_group_heartbeat.handle),
    _serve(ApiKey.CONSUMER_GROUP_DESCRIBE, 0, 1, consumer_group_describe.handle),
    _serve(ApiKey.LIST_CONFIG_RESOURCES, 0, 1, list_config_resources.handle),
    _serve(ApiKey.DESCRIBE_TOPIC_PARTITIONS, 0, 0, describe_topic_partitions.handle),
)

# Of other brokers of the cluster: not in ApiVersions.
OF_BROKERS = (
    _serve(BrokerKey.HELLO, 0, 0, hello.handle),
    _serve(BrokerKey.POKE, 0, 0, poke.handle),
    _serve(BrokerKey.WRITE_MARKERS, 0, 0, write_markers.handle),
    _serve(BrokerKey.JOIN_TRANSACTIONS, 0, 0, join_transactions.handle),
)
